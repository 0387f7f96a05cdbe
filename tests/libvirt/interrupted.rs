//! An interrupted rotation, after which other programs changed keyslots or the journal: `rotate`
//! completes the rotation, and removes only keyslots and secrets of the rotation.

use std::ffi::OsStr;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::{Command, Stdio};

use luksmith::libvirt::xml::{SecretXml, Usage};
use luksmith::secret::Passphrase;
use luksmith_formats::json::{Value, json};
use rustix::process::{Signal, kill_process};

use crate::beside::stopped;
use crate::host::Ran;
use crate::rotate::{CHEAP, Host};
use support::peers;

/// A journal of a rotation that was interrupted at this stage, without marks of keyslots, as
/// earlier versions wrote it. The secret `kept` is the second one.
fn write_journal(host: &Host, secret: &str, kept: &str, stage: &str, new: u32, old: &[u32]) {
    let info = host.daemon.ok(&format!("info {} --json", host.path("v")));
    let journal = json!({
        "secret": secret,
        "kept": kept,
        "stage": stage,
        "volumes": [{
            "place": host.path("v"),
            "uuid": info.json()["uuid"].as_str().unwrap(),
            "new": new,
            "old": old.iter().copied().map(Value::from).collect::<Vec<_>>(),
        }],
    });
    let folder = host.daemon.folder().join("state/luksmith");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(
        folder.join(format!("rotate-{secret}.json")),
        journal.to_string(),
    )
    .unwrap();
}

/// The second secret of a rotation, with this value.
fn keep(host: &Host, secret: &str, value: &[u8]) -> String {
    let usage = Usage::volume(format!("luksmith rotation of {secret}"));
    let xml = SecretXml::new(Some(usage)).to_xml().unwrap();
    let kept = host.connection.define_secret(&xml).unwrap();
    kept.store(&Passphrase::copy_from(value).unwrap()).unwrap();
    kept.uuid().unwrap().to_string()
}

/// Gives the volume `v` a keyslot 7 with the passphrase in the file `new`, which the secret then
/// has, as a rotation does. Returns the old passphrase.
fn half_rotated(host: &Host, secret: &str) -> Vec<u8> {
    let folder = host.daemon.folder();
    std::fs::write(folder.join("new"), format!("the new one of {secret}")).unwrap();
    std::fs::write(folder.join("recovery"), "a passphrase for emergencies").unwrap();
    host.keep(secret, "old");
    let path = host.path("v");
    host.daemon.ok(&format!(
        "key add {path} --key-file old --new-key-file new --keyslot 7 --pbkdf pbkdf2 {CHEAP}"
    ));
    host.daemon.ok(&format!(
        "libvirt secret set {secret} --key-file new --force overwrite"
    ));
    std::fs::read(folder.join("old")).unwrap()
}

/// Puts the passphrase in the file `recovery` into keyslot 0, in place of the old one.
fn recover(host: &Host) {
    let path = host.path("v");
    host.daemon.ok(&format!(
        "key remove {path} --keyslot 0 --force unproven --key-file new"
    ));
    host.daemon.ok(&format!(
        "key add {path} --key-file new --new-key-file recovery --keyslot 0 --pbkdf pbkdf2 {CHEAP}"
    ));
}

#[test]
fn a_journal_of_an_earlier_version_is_completed_by_the_passphrase_that_it_kept() {
    for version in ["luks1", "luks2"] {
        let Some(host) = Host::new() else { return };
        let secret = host.volume("v", &format!("--type {version}"));
        let rotate = format!("libvirt rotate {} {CHEAP} --pbkdf pbkdf2", host.path("v"));
        let test = |key: &str| {
            let test = format!("key test {} --key-file {key}", host.path("v"));
            host.daemon.run(&test).code == Some(0)
        };

        // Nothing else happened: the old keyslot is removed.
        let old = half_rotated(&host, &secret);
        let kept = keep(&host, &secret, &old);
        write_journal(&host, &secret, &kept, "removing", 7, &[0]);
        host.daemon.ok(&rotate);
        host.is_finished(&["v"], 1);
        assert!(test("new") && !test("old"));

        // A recovery passphrase has the number of the old keyslot.
        write_journal(&host, &secret, &kept, "removing", 7, &[0]);
        host.daemon.ok(&format!(
            "key add {} --key-file new --new-key-file recovery --keyslot 0 --pbkdf pbkdf2 {CHEAP}",
            host.path("v")
        ));
        let kept = keep(&host, &secret, &old);
        write_journal(&host, &secret, &kept, "removing", 7, &[0]);
        let ran = host.daemon.ok(&rotate);
        assert!(ran.stderr.contains("keyslot 0 of"), "{}", ran.stderr);
        assert!(test("new") && test("recovery"));
        assert_eq!(host.journals().len(), 0);
        assert_eq!(host.connection.secrets().unwrap().len(), 1);

        // Another program has put its keyslot where the new one was: the secret still has the old
        // value.
        write_journal(&host, &secret, &kept, "adding", 0, &[7]);
        let ran = host.daemon.ok(&rotate);
        assert!(ran.stderr.contains("keyslot 0 of"), "{}", ran.stderr);
        assert!(!test("new") && test("recovery"));
        host.daemon.ok(&format!(
            "key test {} --key libvirt:{secret}",
            host.path("v")
        ));
    }
}

#[test]
fn a_secret_that_is_not_that_of_the_rotation_is_neither_read_nor_removed() {
    let Some(host) = Host::new() else { return };
    let secret = host.volume("v", "--type luks1");
    let rotate = format!("libvirt rotate {} {CHEAP}", host.path("v"));
    half_rotated(&host, &secret);
    recover(&host);
    let foreign = host
        .daemon
        .ok("libvirt secret define --usage volume:other")
        .text();
    host.daemon.ok(&format!(
        "libvirt secret set {foreign} --key-file recovery --force overwrite"
    ));
    for stage in ["adding", "setting", "removing"] {
        // The foreign secret's value would prove that keyslot 0 is the old one.
        write_journal(&host, &secret, &foreign, stage, 7, &[0]);
        host.daemon.ok(&rotate);
        host.daemon
            .ok(&format!("key test {} --key-file recovery", host.path("v")));
        host.daemon.ok(&format!(
            "key test {} --key libvirt:{secret}",
            host.path("v")
        ));
        assert_eq!(host.journals().len(), 0);
        assert_eq!(host.connection.secrets().unwrap().len(), 2);
    }
    host.daemon
        .ok(&format!("libvirt secret get {foreign} --out found"));
    let folder = host.daemon.folder();
    assert_eq!(
        std::fs::read(folder.join("found")).unwrap(),
        std::fs::read(folder.join("recovery")).unwrap()
    );
}

#[test]
fn what_a_refused_rotation_has_begun_is_taken_back() {
    let Some(host) = Host::new() else { return };
    let secret = host.volume("v", "--type luks1");
    let other = host.volume("w", "--type luks1");
    // The second volume has the first one's passphrase too, and no room for another.
    host.keep(&secret, "shared");
    let full = host.path("w");
    for slot in 1..8 {
        std::fs::write(host.daemon.folder().join("more"), format!("number {slot}")).unwrap();
        let key = if slot == 1 { "shared" } else { "more" };
        host.daemon.ok(&format!(
            "key add {full} --key libvirt:{other} --new-key-file {key} {CHEAP}"
        ));
    }
    host.daemon
        .ok(&format!("libvirt secret remove {other} --force in-use"));
    for (domain, volume) in [("d", "v"), ("e", "w")] {
        if host.domain(domain, volume, &secret).is_none() {
            return;
        }
    }
    let before = std::fs::read(host.path("v")).unwrap();
    host.daemon
        .run(&format!("libvirt rotate d {CHEAP}"))
        .is(5, &["no keyslot is free"]);
    assert_eq!(host.journals().len(), 0);
    assert_eq!(host.connection.secrets().unwrap().len(), 1);
    assert!(std::fs::read(host.path("v")).unwrap() == before);

    // Another program has the second volume open, which is noticed only after the first one has a
    // new keyslot.
    host.daemon.ok(&format!(
        "key remove {full} --keyslot 7 --force unproven --key-file shared"
    ));
    let open = std::fs::File::open(&full).unwrap();
    rustix::fs::flock(&open, rustix::fs::FlockOperation::NonBlockingLockShared).unwrap();
    host.daemon
        .run(&format!("libvirt rotate d {CHEAP}"))
        .is(5, &["busy"]);
    drop(open);
    host.is_finished(&["v"], 1);
    host.daemon.ok(&format!(
        "key test {} --key libvirt:{secret}",
        host.path("v")
    ));
    host.daemon.ok(&format!("libvirt rotate d {CHEAP}"));
    host.is_finished(&["v"], 1);
    host.whole("v", &secret);
    host.whole("w", &secret);
}

#[test]
fn a_second_secret_of_another_rotation_is_not_overwritten() {
    let Some(host) = Host::new() else { return };
    let secret = host.volume("v", "--type luks1");
    let kept = keep(&host, &secret, b"the only copy");
    let rotate = format!("libvirt rotate {} {CHEAP}", host.path("v"));
    host.daemon.run(&rotate).is(5, &[&kept, "--state-dir"]);
    host.is_finished(&["v"], 2);
    host.keep(&kept, "found");
    let found = std::fs::read(host.daemon.folder().join("found")).unwrap();
    assert_eq!(found, b"the only copy");
    host.daemon
        .ok(&format!("libvirt secret remove {kept} --force in-use"));
    host.daemon.ok(&rotate);
    host.is_finished(&["v"], 1);
}

/// Another user exchanges the directory of journals that luksmith has made, sooner or later, while
/// luksmith looks at it and opens files in it.
const EXCHANGES: &str = r#"
while :; do
    number=$((number + 1))
    mkdir new
    echo '{}' > "new/rotate-$1.json"
    ln -s "$2" "new/rotate-$1.lock"
    until [ -d state ]; do :; done
    sleep "0.0$((number % 5))"
    mv -T state "away $number"
    mv -T new state
    sleep 0.2
    mv -T state "gone $number"
done 2> /dev/null"#;

/// While a rotation runs, another program changes the passphrase of keyslot 0 between any two looks
/// at the volume.
#[test]
fn a_passphrase_that_is_changed_during_a_rotation_stays() {
    let Some(strace) = peers::find("strace") else {
        return;
    };
    let Some(host) = Host::new() else { return };
    let secret = host.volume("v", "--type luks1");
    let (path, folder) = (host.path("v"), host.daemon.folder());
    std::fs::write(folder.join("recovery"), "a passphrase for emergencies").unwrap();
    host.keep(&secret, "old");
    // Two keyslots of the secret, one of which becomes that of another passphrase.
    host.daemon.ok(&format!(
        "key add {path} --key-file old --new-key-file old --keyslot 1 --pbkdf pbkdf2 {CHEAP}"
    ));
    let before = std::fs::read(&path).unwrap();
    host.daemon.ok(&format!(
        "key remove {path} --keyslot 0 --force unproven --key-file old"
    ));
    host.daemon.ok(&format!(
        "key add {path} --key-file old --new-key-file recovery --keyslot 0 --pbkdf pbkdf2 {CHEAP}"
    ));
    let changed = std::fs::read(&path).unwrap();
    let image = std::fs::File::options().write(true).open(&path).unwrap();
    // What that program writes: the entry of keyslot 0, with the first sector of its area at byte
    // 40, and 4000 stripes of a key of 64 bytes.
    let entry = (208, 48);
    let first = u32::from_be_bytes(changed[248..252].try_into().unwrap());
    let area = (usize::try_from(first).unwrap() * 512, 4000 * 64);

    for look in 1.. {
        image.write_all_at(&before, 0).unwrap();
        host.daemon.ok(&format!(
            "libvirt secret set {secret} --key-file old --force overwrite"
        ));
        let log = folder.join("strace");
        let _ = std::fs::remove_file(&log);
        let inject = format!("inject=openat:signal=SIGSTOP:when={look}");
        let options = [
            "-f",
            "-qq",
            "-P",
            "v",
            "-P",
            &path,
            "-e",
            "trace=openat",
            "-e",
            &inject,
            "-o",
        ];
        let options: Vec<&OsStr> = options
            .iter()
            .map(OsStr::new)
            .chain([log.as_os_str()])
            .collect();
        let mut command =
            host.daemon
                .traced(&strace, &options, &format!("libvirt rotate {path} {CHEAP}"));
        let mut running = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut ended = false;
        crate::program::wait_until("luksmith is stopped, or has ended", || {
            ended = running.try_wait().unwrap().is_some();
            ended || stopped(&log).is_some()
        });
        if !ended {
            for (start, len) in [entry, area] {
                let part = &changed[start..start + len];
                image.write_all_at(part, start as u64).unwrap();
            }
            kill_process(stopped(&log).unwrap(), Signal::CONT).unwrap();
        }
        let ran = Ran::of(running.wait_with_output().unwrap());
        if ended {
            assert_eq!(ran.code, Some(0), "{}", ran.stderr);
            assert!(look > 5, "the volume was opened only {look} times");
            break;
        }
        let test = format!("key test {path} --key-file recovery");
        let found = host.daemon.run(&test);
        assert_eq!(
            found.code,
            Some(0),
            "changed at look {look}: {}",
            ran.stderr
        );
        host.daemon
            .ok(&format!("key test {path} --key libvirt:{secret}"));
        let _ = std::fs::remove_dir_all(folder.join("state"));
        for other in host.connection.secrets().unwrap() {
            if other.uuid().unwrap().to_string() != secret {
                other.undefine().unwrap();
            }
        }
    }
}

#[test]
fn a_state_directory_that_is_exchanged_is_not_believed() {
    // Only root gives files to another user.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let Some(host) = Host::new() else { return };
    let Some(strace) = peers::find("strace") else {
        return;
    };
    let secret = host.volume("v", "");
    let folder = host.daemon.folder();
    let theirs = folder.join("theirs");
    std::fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(65534), Some(65534)).unwrap();
    for reached in [&folder, folder.parent().unwrap()] {
        std::fs::set_permissions(reached, PermissionsExt::from_mode(0o711)).unwrap();
    }
    let made = folder.join("made");
    let racer = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--pdeathsig=KILL",
        ])
        .args(["sh", "-c", EXCHANGES, "sh", &secret])
        .arg(&made)
        .current_dir(&theirs)
        .spawn();
    let mut racer = racer.unwrap();
    let pause = ["-f", "-o", "/dev/null", "-e", "trace=openat,mkdirat", "-e"];
    let pause = pause
        .iter()
        .chain(&["inject=openat,mkdirat:delay_exit=3000"]);
    let pause: Vec<&OsStr> = pause.map(OsStr::new).collect();
    let rotate = format!(
        "libvirt rotate {} --state-dir theirs/state {CHEAP}",
        host.path("v")
    );
    for _ in 0..12 {
        let mut slow = host.daemon.traced(&strace, &pause, &rotate);
        // It may succeed, with a directory that it has made.
        let ran = Ran::of(slow.output().unwrap());
        assert!(!ran.stderr.contains("damaged"), "believed: {}", ran.stderr);
        assert!(!made.exists(), "made through a link: {}", ran.stderr);
        host.daemon.ok(&format!(
            "key test {} --key libvirt:{secret}",
            host.path("v")
        ));
    }
    racer.kill().unwrap();
    racer.wait().unwrap();
    let exchanged = std::fs::read_dir(&theirs).unwrap().count();
    assert!(exchanged > 2, "no directory was exchanged");
}
