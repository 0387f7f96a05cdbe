//! `luksmith libvirt rekey`, killed at any point: the domain names a volume that is complete and a
//! secret that opens it, and another run finishes or begins again. While QEMU copies, another run
//! waits for the copy, or begins again if the domain was shut off.

use std::cell::Cell;

use luksmith::libvirt::{Domain, DomainView};

use crate::killed::killed_everywhere;
use crate::rekey::{as_guest, current, is_private, make_private};
use crate::rotate::{CHEAP, Host, pattern};

/// A short run is only killed at the first call of each kind.
const STEP: usize = 10_000;

/// Checks that the domain starts with its disk, or runs with it, and that the payload is there.
#[track_caller]
fn is_usable(host: &Host, domain: &Domain) {
    let defined = current(host, domain, "vda", true);
    host.opens(&defined);
    if domain.is_active().unwrap() {
        host.opens(&current(host, domain, "vda", false));
        as_guest(domain, 0, "read -P 0 0 1");
    } else {
        assert!(host.payload(&defined, "") == pattern());
    }
}

/// Kills a run at every call in a long run, and otherwise at some.
#[allow(clippy::print_stdout, reason = "the result of a long run is recorded")]
fn killed(online: bool) {
    let Some(host) = Host::new() else { return };
    let secret = host.volume("v.luks", "--type luks1");
    let Some(domain) = host.domain("d", "v.luks", &secret) else {
        return;
    };
    if online {
        domain.start().unwrap();
    }
    let rekey = format!("libvirt rekey d {CHEAP} --force erase");
    let check = || is_usable(&host, &domain);
    let finish = || {
        host.daemon.ok(&rekey);
        let new = current(&host, &domain, "vda", true);
        // A run that was killed at its end has erased a volume, too.
        let erased = host.files().len() - 1;
        assert!((1..=2).contains(&erased), "{erased}");
        host.only(&[&new], erased);
        is_usable(&host, &domain);
    };
    let Some(kills) = killed_everywhere(&host, &rekey, STEP, check, finish) else {
        return;
    };
    println!("killed {kills} times, running: {online}");
    assert!(kills >= 4, "killed only {kills} times");
    if online {
        domain.destroy().unwrap();
        assert!(host.payload(&current(&host, &domain, "vda", true), "") == pattern());
    }
    domain.start().unwrap();
    domain.destroy().unwrap();
}

#[test]
fn killed_while_the_domain_runs_another_run_finishes() {
    killed(true);
}

#[test]
fn killed_while_the_domain_is_shut_off_another_run_finishes() {
    killed(false);
}

/// No other run has the passphrase of the new volume, so another run makes a new one.
#[test]
#[allow(clippy::print_stdout, reason = "the result of a long run is recorded")]
fn killed_before_the_copy_of_a_private_one_is_complete_another_run_begins_again() {
    let Some(host) = Host::new() else { return };
    let secret = host.volume("v.luks", "--type luks1");
    let Some(domain) = host.domain("d", "v.luks", &secret) else {
        return;
    };
    make_private(&host, &secret);
    domain.start().unwrap();
    as_guest(&domain, 0, "write -P 7 0 1M");
    domain.destroy().unwrap();
    let has_the_payload = || {
        domain.start().unwrap();
        as_guest(&domain, 0, "read -P 7 0 1M");
        domain.destroy().unwrap();
    };
    let before = domain.xml(DomainView::new().inactive(true)).unwrap();
    let old = current(&host, &domain, "vda", true);
    let began_again = Cell::new(0);
    let rekey = format!("libvirt rekey d {CHEAP} --keep-old --key-file value");
    let check = || {
        has_the_payload();
        let is_old = current(&host, &domain, "vda", true) == old;
        began_again.set(began_again.get() + usize::from(is_old && host.files().len() == 2));
    };
    let finish = || {
        if current(&host, &domain, "vda", true) == old || !host.journals().is_empty() {
            host.daemon.ok(&rekey);
        }
        assert!(host.journals().is_empty());
        let new = current(&host, &domain, "vda", true);
        assert!(new != old && is_private(&host, &new.secret));
        has_the_payload();
        assert_eq!(host.files().len(), 2);
        assert_eq!(host.connection.secrets().unwrap().len(), 2);
        // As it was before, for the next kill.
        host.connection.define_domain(&before).unwrap();
        let secret = host.connection.secret(&new.secret.parse().unwrap());
        secret.unwrap().undefine().unwrap();
        std::fs::remove_file(new.path).unwrap();
    };
    let Some(kills) = killed_everywhere(&host, &rekey, STEP, check, finish) else {
        return;
    };
    println!(
        "killed {kills} times, private: {} began again",
        began_again.get()
    );
    assert!(
        kills >= 5 && began_again.get() > 0,
        "killed only {kills} times"
    );
}

#[test]
fn killed_while_qemu_copies_another_run_waits_for_the_copy() {
    let Some(host) = Host::new() else { return };
    let secret = host.volume("v.luks", "--type luks1");
    let Some(domain) = host.domain("d", "v.luks", &secret) else {
        return;
    };
    domain.start().unwrap();
    let rekey = format!("libvirt rekey d {CHEAP} --force erase");
    let mut running = host.begin(&format!("{rekey} --rate 200K"));
    crate::program::wait_until("the copy is half done", || {
        let job = domain.block_job("vda").unwrap();
        job.is_some_and(|job| job.done > 300_000)
    });
    running.kill().unwrap();
    running.wait().unwrap();
    let begun = domain.block_job("vda").unwrap().unwrap();
    host.daemon
        .run("libvirt rekey d --check")
        .is(11, &["findings: 1"]);
    let secrets = host.connection.secrets().unwrap().len();
    assert_eq!(secrets, 2);
    assert!(begun.done > 300_000);

    let finished = host.daemon.ok(&format!("{rekey} --json")).json();
    let new = current(&host, &domain, "vda", false);
    assert_eq!(finished["rekeyed"][0]["image"], new.path.as_str());
    host.only(&[&new], 1);
    domain.destroy().unwrap();
    assert!(host.payload(&new, "") == pattern());

    // Killed while QEMU copies, and then the domain is shut off.
    domain.start().unwrap();
    let mut running = host.begin(&format!("{rekey} --rate 1K"));
    crate::program::wait_until("the copy begins", || {
        domain.block_job("vda").unwrap().is_some()
    });
    running.kill().unwrap();
    running.wait().unwrap();
    domain.destroy().unwrap();
    host.daemon.ok(&rekey);
    let newer = current(&host, &domain, "vda", true);
    assert_ne!(newer, new);
    host.only(&[&newer], 1);
    assert!(host.payload(&newer, "") == pattern());
}
