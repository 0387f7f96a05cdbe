//! `luksmith libvirt rekey` refuses what a copy would not change, removes what a failed run has
//! made, and keeps a secret that anything else needs.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use luksmith::libvirt::{BlockCopy, Domain, DomainView};
use luksmith_formats::json::json;
use rustix::process::{Pid, Signal, kill_process};

use crate::beside::stopped;
use crate::host::Ran;
use crate::program::wait_until;
use crate::rekey::{Current, current, ended, is_copied, is_private, make_private};
use crate::rotate::{CHEAP, Host, pattern};
use support::peers;

#[test]
fn a_secret_that_anything_else_needs_stays() {
    let Some(host) = Host::new() else { return };
    let secret = host.volume("a", "--type luks1");
    // A clone, with the same passphrase and without a secret of its own.
    std::fs::copy(host.path("a"), host.path("clone")).unwrap();
    let Some(first) = host.domain("d", "a", &secret) else {
        return;
    };
    host.connection.pool("p").unwrap().refresh().unwrap();
    let rekey = format!("libvirt rekey d {CHEAP} --force erase");
    host.daemon.run(&rekey).is(
        0,
        &[&format!("the secret {secret} stays"), "may open", "clone"],
    );
    assert_eq!(host.connection.secrets().unwrap().len(), 2);

    // Another domain with the same secret.
    host.daemon.ok(&format!(
        "key test {} --key libvirt:{secret}",
        host.path("clone")
    ));
    let second = host.domain("e", "clone", &secret).unwrap();
    let new = current(&host, &first, "vda", true);
    let xml = first.xml(DomainView::new().inactive(true)).unwrap();
    host.connection
        .define_domain(&xml.replace(&new.secret, &secret))
        .unwrap();
    let new_value = host
        .connection
        .secret(&new.secret.parse().unwrap())
        .unwrap();
    let new_value = new_value.value().unwrap();
    let shared = host.connection.secret(&secret.parse().unwrap()).unwrap();
    let old_value = shared.value().unwrap();
    shared.store(&new_value).unwrap();
    host.daemon
        .run(&rekey)
        .is(0, &["stays: domain e (disk vda) uses it"]);
    shared.store(&old_value).unwrap();
    host.daemon.ok(&rekey.replace(" d ", " e "));
    assert!(host.connection.secret(&secret.parse().unwrap()).is_err());
    assert!(host.payload(&current(&host, &second, "vda", true), "") == pattern());
}

#[test]
fn what_a_copy_would_not_change_is_refused_and_nothing_is_made() {
    let Some(host) = Host::new() else { return };
    let secret = host.volume("v", "--type luks1");
    let (Some(domain), Some(virsh)) = (host.domain("d", "v", &secret), peers::find("virsh")) else {
        return;
    };
    let virsh = |arguments: &[&str]| {
        let mut command = host.daemon.on_host(&virsh);
        command.args(["-c", host.daemon.uri()]).args(arguments);
        let ran = Ran::of(command.stdin(Stdio::null()).output().unwrap());
        assert_eq!(ran.code, Some(0), "{arguments:?}: {}", ran.stderr);
    };
    let rekey = format!("libvirt rekey d {CHEAP} --force erase");
    let before = current(&host, &domain, "vda", true);
    let refused = |code: i32, words: &[&str]| {
        host.daemon.run(&rekey).is(code, words);
        let check = host.daemon.run("libvirt rekey d --check --json");
        check.is(11, &["findings: 1"]);
        let check = check.json();
        let finding = &check["findings"][0];
        assert_eq!(
            (&finding["domain"], &finding["target"]),
            (&json!("d"), &json!("vda"))
        );
        host.only(&[&before], 0);
        assert_eq!(current(&host, &domain, "vda", true), before);
    };
    let clean = host.daemon.ok("libvirt rekey --all --check");
    assert_eq!(clean.text(), "disks checked: 1; nothing is in the way");

    let snapshot = host.daemon.folder().join("snapshot.xml");
    let xml = domain.xml(DomainView::new().inactive(true)).unwrap();
    std::fs::write(
        &snapshot,
        format!("<domainsnapshot><name>s</name><state>shutoff</state><creationTime>1</creationTime>{xml}</domainsnapshot>"),
    )
    .unwrap();
    virsh(&[
        "snapshot-create",
        "d",
        snapshot.to_str().unwrap(),
        "--redefine",
    ]);
    refused(
        5,
        &["vda of d: the domain has snapshots", "virsh snapshot-list"],
    );
    virsh(&["snapshot-delete", "d", "s", "--metadata"]);

    domain.start().unwrap();
    virsh(&["managedsave", "d"]);
    refused(5, &["the domain was saved", "managedsave-remove"]);
    virsh(&["managedsave-remove", "d"]);

    let other = host.domain("e", "v", &secret).unwrap();
    refused(5, &["is also the disk vda of e", "detach"]);
    other.undefine().unwrap();

    // A copy of another program.
    domain.start().unwrap();
    let foreign = host.daemon.folder().join("foreign");
    std::fs::write(&foreign, vec![0; 1 << 20]).unwrap();
    let disk = format!(
        "<disk type='file'><driver name='qemu' type='raw'/><source file='{}'/><target dev='vda'/></disk>",
        foreign.display()
    );
    let slow = BlockCopy::new().bandwidth(Some(1));
    domain.block_copy("vda", &disk, slow).unwrap();
    refused(5, &["busy with another job", "virsh blockjob"]);
    assert!(is_copied(&domain, "vda"));
    domain.abort_block_job("vda").unwrap();
    domain.destroy().unwrap();

    // A rotation that was interrupted.
    let state = host.daemon.folder().join("state/luksmith");
    let journal = state.join(format!("rotate-{secret}.json"));
    std::fs::write(&journal, "{}").unwrap();
    host.daemon.run(&rekey).is(
        5,
        &["a rotation of secret", "is not finished", "libvirt rotate"],
    );
    std::fs::remove_file(&journal).unwrap();

    // A volume that is no LUKS1 volume.
    let xml = domain.xml(DomainView::new().inactive(true)).unwrap();
    let two = host.volume("two", "--type luks2");
    host.connection
        .define_domain(
            &xml.replace(&host.path("v"), &host.path("two"))
                .replace(&secret, &two),
        )
        .unwrap();
    host.daemon.run(&rekey).is(4, &["LUKS2"]);
    let plain = xml
        .replace("<encryption", "<!--")
        .replace("</encryption>", "-->");
    let plain = plain.replace("<!-- format='luks' engine='qemu'>", "<!--");
    host.connection.define_domain(&plain).unwrap();
    host.daemon.run(&rekey).is(
        1,
        &[
            "has no disk that QEMU decrypts",
            "luksmith reencrypt --served",
        ],
    );
    host.connection.define_domain(&xml).unwrap();
    host.daemon
        .run(&format!("{rekey} --disk vdb"))
        .is(1, &["d has no disk vdb"]);
    host.daemon
        .run("libvirt rekey nosuch --force erase")
        .is(4, &["nosuch", "no such domain"]);

    // A transient domain, whose definition libvirt does not have.
    domain.undefine().unwrap();
    let file = host.daemon.folder().join("d.xml");
    std::fs::write(&file, &xml).unwrap();
    virsh(&["create", file.to_str().unwrap()]);
    host.daemon
        .run(&rekey)
        .is(4, &["the domain is transient", "--keep-old"]);
    host.daemon
        .ok(&format!("libvirt rekey d {CHEAP} --keep-old"));
    host.opens(&before);
    let domain = host.connection.domain("d").unwrap();
    assert_ne!(current(&host, &domain, "vda", false), before);
}

#[test]
fn a_copy_that_fails_or_is_interrupted_leaves_the_old_volume_only() {
    let Some(host) = Host::new() else { return };
    let secret = host.volume("v", "--type luks1");
    let Some(domain) = host.domain("d", "v", &secret) else {
        return;
    };
    domain.start().unwrap();
    let old = current(&host, &domain, "vda", true);
    let slow = format!("libvirt rekey d {CHEAP} --force erase --rate 1K");
    let begin = || {
        let running = host.begin(&slow);
        wait_until("the copy begins", || is_copied(&domain, "vda"));
        running
    };
    let unchanged = |live: bool| {
        host.only(&[&old], 0);
        assert_eq!(current(&host, &domain, "vda", true), old);
        if live {
            assert!(!is_copied(&domain, "vda"));
            assert_eq!(current(&host, &domain, "vda", false), old);
        }
    };

    let running = begin();
    // The program runs under nsenter and env, which are replaced by it.
    kill_process(Pid::from_child(&running), Signal::INT).unwrap();
    assert_eq!(ended(running).code, Some(130));
    unchanged(true);

    let running = begin();
    domain.abort_block_job("vda").unwrap();
    ended(running).is(
        4,
        &["the copy ended before it was complete", "old volume still"],
    );
    unchanged(true);

    let running = begin();
    domain.destroy().unwrap();
    ended(running).is(4, &["was shut off while its disk was copied"]);
    unchanged(false);

    host.daemon
        .ok(&format!("libvirt rekey d {CHEAP} --force erase"));
    let new = current(&host, &domain, "vda", true);
    host.only(&[&new], 1);
    assert!(host.payload(&new, "") == pattern());
}

#[test]
fn a_domain_does_not_start_while_its_disk_is_copied() {
    let Some(strace) = peers::find("strace") else {
        return;
    };
    let Some(host) = Host::new() else { return };
    let secret = host.volume("v", "--type luks1");
    let Some(domain) = host.domain("d", "v", &secret) else {
        return;
    };
    // The first bytes that are written at a place are those of the copy.
    let log = host.daemon.folder().join("strace");
    let inject = OsStr::new("inject=pwrite64:signal=SIGSTOP:when=1");
    let options = ["-f", "-qq", "-e", "trace=pwrite64", "-e"].map(OsStr::new);
    let options = [&options[..], &[inject, OsStr::new("-o"), log.as_os_str()]].concat();
    let rekey = format!("libvirt rekey d {CHEAP} --force erase");
    let mut command = host.daemon.traced(&strace, &options, &rekey);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = command.spawn().unwrap();
    wait_until("luksmith is stopped", || stopped(&log).is_some());
    let refused = domain.start().unwrap_err();
    let why = &refused.reply().unwrap().message;
    assert!(why.contains("lock"), "{why}");
    // Another run for the same disk.
    host.daemon
        .run(&rekey)
        .is(5, &["another luksmith gives this disk a new volume"]);
    // Each thread is stopped at its first write, and the one that was stopped first ends.
    let thread = stopped(&log).unwrap().as_raw_nonzero();
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).unwrap();
    let process = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    let process = Pid::from_raw(process.unwrap().trim().parse().unwrap()).unwrap();
    let mut running = running;
    wait_until("the copy ends", || {
        let _ = kill_process(process, Signal::CONT);
        running.try_wait().unwrap().is_some()
    });
    let ran = ended(running);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let new = current(&host, &domain, "vda", true);
    host.only(&[&new], 1);
    assert!(host.payload(&new, "") == pattern());
    domain.start().unwrap();
}

/// Writes the journal of a run that was interrupted at this stage, between two volumes.
fn interrupted(host: &Host, domain: &Domain, stage: &str, [old, new]: [&Current; 2]) {
    let side = |volume: &Current| {
        let info = format!("info {} --json --force-share", volume.path);
        let uuid = host.daemon.ok(&info).json()["uuid"].clone();
        json!({"at": {"path": volume.path}, "uuid": uuid, "secret": volume.secret})
    };
    let private = is_private(host, &new.secret);
    let journal = json!({
        "stage": stage, "old": side(old), "new": side(new), "qcow2": false,
        "size": pattern().len(), "private": private, "online": false,
    });
    let name = format!("rekey-{}-vda.json", domain.uuid().unwrap());
    let path = host.daemon.folder().join("state/luksmith").join(name);
    std::fs::write(&path, journal.to_string()).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

/// libvirt gives the value of a private secret to QEMU only, so QEMU has to open the new volume
/// before the old one is erased.
#[test]
fn a_volume_is_not_erased_for_a_private_secret_that_nothing_has_tried() {
    let Some(host) = Host::new() else { return };
    let secret = host.volume("v", "--type luks1");
    let Some(domain) = host.domain("d", "v", &secret) else {
        return;
    };
    make_private(&host, &secret);
    let old = current(&host, &domain, "vda", true);
    let rekey = format!("libvirt rekey d {CHEAP} --key-file value");
    host.daemon.ok(&format!("{rekey} --keep-old"));
    let new = current(&host, &domain, "vda", true);
    interrupted(&host, &domain, "switched", [&old, &new]);
    let again = format!("{rekey} --force erase");
    host.daemon
        .run(&again)
        .is(5, &["nothing has shown", "start the domain once"]);
    assert_eq!(host.keyslots("v").len(), 1);
    assert_eq!(host.journals().len(), 1);
    // While QEMU has the new volume open.
    domain.start().unwrap();
    host.daemon.ok(&again);
    assert!(host.keyslots("v").is_empty());
    assert!(
        host.connection
            .secret(&old.secret.parse().unwrap())
            .is_err()
    );
    assert_eq!(current(&host, &domain, "vda", true), new);
}

/// Another run removes nothing that may be the only copy of the data.
#[test]
fn what_an_interrupted_run_has_made_stays_if_it_may_be_needed() {
    let Some(host) = Host::new() else { return };
    let secret = host.volume("v", "--type luks1");
    let Some(domain) = host.domain("d", "v", &secret) else {
        return;
    };
    let old = current(&host, &domain, "vda", true);
    let rekey = format!("libvirt rekey d {CHEAP} --force erase");
    host.daemon
        .ok(&format!("libvirt rekey d {CHEAP} --keep-old"));
    let new = current(&host, &domain, "vda", true);
    let xml = domain.xml(DomainView::new().inactive(true)).unwrap();
    let with = |volume: &Current| {
        let xml = xml.replace(&new.path, &volume.path);
        let xml = xml.replace(&new.secret, &volume.secret);
        host.connection.define_domain(&xml).unwrap();
    };

    // The disk is a third volume, which may be a snapshot of the new one.
    let third = host.volume("third", "--type luks1");
    let third = Current {
        path: host.path("third"),
        secret: third,
    };
    with(&third);
    interrupted(&host, &domain, "copying", [&old, &new]);
    host.daemon.run(&rekey).is(
        4,
        &[
            "neither its old volume nor its new one",
            "give the domain one",
        ],
    );
    host.opens(&new);
    host.opens(&old);

    // Where the new volume was made, there is another one: its secret is not removed either.
    with(&old);
    interrupted(&host, &domain, "making", [&old, &new]);
    std::fs::copy(&third.path, &new.path).unwrap();
    host.daemon
        .run(&rekey)
        .is(4, &["is not the one that was made"]);
    assert!(host.connection.secret(&new.secret.parse().unwrap()).is_ok());
    assert_eq!(host.journals().len(), 1);

    // It was never made, or is gone: its secret goes, and the disk gets a new volume.
    std::fs::remove_file(&new.path).unwrap();
    host.daemon.ok(&rekey);
    assert!(
        host.connection
            .secret(&new.secret.parse().unwrap())
            .is_err()
    );
    assert_eq!(host.journals(), Vec::<std::path::PathBuf>::new());
    assert!(host.payload(&current(&host, &domain, "vda", true), "") == pattern());
}
