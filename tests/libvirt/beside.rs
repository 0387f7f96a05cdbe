//! `luksmith libvirt rotate` while a domain runs whose QEMU cannot change keyslots: luksmith
//! changes them in the open volume, and refuses to do so in any other case.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use luksmith::libvirt::Domain;
use luksmith_formats::json::{Value, json};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

use crate::rotate::{CHEAP, Host, pattern};
use support::peers;

/// A QEMU from 8.2 to 10.0.6.
pub(crate) fn later() -> Option<PathBuf> {
    peers::find("qemu-system-x86_64-later")
}

/// A QEMU that changes keyslots, which those from 8.2 to 10.0.6 do not.
pub(crate) fn with_keyslots() -> Option<PathBuf> {
    let qemu = peers::find("qemu-system-x86_64")?;
    let said = peers::run(std::process::Command::new(&qemu).arg("--version"));
    let said = String::from_utf8_lossy(&said);
    let version = said.split_whitespace().nth(3).unwrap_or_default();
    let numbers: Vec<u32> = version.split('.').filter_map(|n| n.parse().ok()).collect();
    if (&[8, 2][..]..=&[10, 0, 6]).contains(&numbers.as_slice()) {
        peers::skip("qemu-system-x86_64-with-keyslots");
        return None;
    }
    Some(qemu)
}

/// The reply of its monitor to a command that is sent through libvirt.
#[track_caller]
pub(crate) fn ask(domain: &Domain, command: &str, arguments: Value) -> Value {
    let text = json!({"execute": command, "arguments": arguments}).to_string();
    let answer = domain
        .monitor_command(&std::ffi::CString::new(text).unwrap())
        .unwrap();
    let answer: Value = answer.parse().unwrap();
    assert!(answer.get("return").is_some(), "{command}: {answer}");
    answer["return"].clone()
}

/// Its LUKS node.
fn node(domain: &Domain) -> Value {
    let nodes = ask(domain, "query-named-block-nodes", json!({"flat": true}));
    let mut nodes = nodes.as_array().unwrap().iter();
    nodes.find(|node| node["drv"] == "luks").unwrap().clone()
}

/// Writes to the beginning of the disk, as the guest would.
#[track_caller]
fn write(domain: &Domain, byte: u8) {
    let line = format!(
        "qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend \"write -P {byte} 0 4096\""
    );
    let said = ask(
        domain,
        "human-monitor-command",
        json!({"command-line": line}),
    );
    assert!(!said.as_str().unwrap().contains("rror"), "{said}");
}

impl Host {
    /// Checks that the payload is the pattern, except its beginning.
    #[track_caller]
    fn whole_behind(&self, name: &str, secret: &str, byte: u8) {
        let read = self.daemon.ok(&format!(
            "decrypt {} - --key libvirt:{secret}",
            self.path(name)
        ));
        let mut expected = pattern();
        expected[..4096].fill(byte);
        assert!(read.stdout == expected, "the payload of {name} is another");
    }
}

#[test]
fn a_domain_is_rotated_beside_its_qemu_and_starts_again() {
    let Some(later) = later() else { return };
    let Some(host) = Host::new() else { return };
    for (number, cache) in ["none", "writeback"].iter().enumerate() {
        let volume = format!("v{number}");
        let secret = host.volume(&volume, "--type luks1");
        let domain = host.domain_with(&later, cache, &volume, &volume, &secret);
        domain.start().unwrap();
        let remembered = node(&domain);
        assert_eq!(remembered["cache"]["direct"], *cache == "none");
        write(&domain, 1);
        for round in 2..4 {
            host.keep(&secret, "old");
            let said = host
                .daemon
                .ok(&format!("libvirt rotate {volume} {CHEAP}"))
                .text();
            assert!(said.contains("has the new passphrase"), "{said}");
            write(&domain, round);
            let test = format!("key test {}", host.path(&volume));
            host.daemon
                .run(&format!("{test} --key-file old"))
                .is(2, &[]);
            host.daemon.ok(&format!("{test} --key libvirt:{secret}"));
            host.is_finished(&[&volume], number + 1);
            // QEMU was not asked to change anything, and holds the same header in memory.
            assert_eq!(
                node(&domain)["image"]["format-specific"],
                remembered["image"]["format-specific"]
            );
            host.daemon
                .run(&format!("verify-ciphertext {}", host.path(&volume)))
                .is(5, &["busy"]);
        }
        domain.destroy().unwrap();
        domain.start().unwrap();
        write(&domain, 4);
        domain.destroy().unwrap();
        host.whole_behind(&volume, &secret, 4);
    }
}

#[test]
fn an_open_volume_that_another_program_changes_or_copies_is_refused() {
    let Some(later) = later() else { return };
    let Some(host) = Host::new() else { return };
    let secret = host.volume("v", "--type luks1");
    let domain = host.domain_with(&later, "none", "d", "v", &secret);
    domain.start().unwrap();
    let rotate = format!("libvirt rotate d {CHEAP}");
    let unchanged = || {
        host.is_finished(&["v"], 1);
        host.daemon.ok(&format!(
            "key test {} --key libvirt:{secret} --force-share",
            host.path("v")
        ));
    };

    // Another instance of luksmith.
    let image = File::open(host.path("v")).unwrap();
    flock(&image, FlockOperation::NonBlockingLockShared).unwrap();
    host.daemon.run(&rotate).is(5, &["busy"]);
    drop(image);
    unchanged();

    // A copy of the disk would keep the old passphrase.
    let size = pattern().len();
    let sink = json!({"driver": "null-co", "node-name": "sink", "size": size, "read-zeroes": true});
    ask(&domain, "blockdev-add", sink);
    let mirror = json!({"job-id": "m", "device": node(&domain)["node-name"], "target": "sink", "sync": "full", "speed": 1});
    ask(&domain, "blockdev-mirror", mirror);
    host.daemon
        .run(&rotate)
        .is(5, &["busy with a mirror job", "run the command again"]);
    unchanged();
    ask(
        &domain,
        "block-job-cancel",
        json!({"device": "m", "force": true}),
    );
    crate::program::wait_until("the job is gone", || {
        ask(&domain, "query-block-jobs", json!({})) == json!([])
    });

    // Another file with the name of the one that QEMU has open.
    std::fs::rename(host.path("v"), host.path("moved")).unwrap();
    std::fs::copy(host.path("moved"), host.path("v")).unwrap();
    host.daemon
        .run(&rotate)
        .is(4, &["no other program has", "on its host"]);
    std::fs::rename(host.path("moved"), host.path("v")).unwrap();
    unchanged();

    host.daemon.ok(&rotate);
    unchanged();
    // A QEMU that is not that of the domain.
    domain.destroy().unwrap();
    host.keep(&secret, "held");
    let Some(daemon) = peers::find("qemu-storage-daemon") else {
        return;
    };
    let open = json!({"driver": "luks", "key-secret": "s", "node-name": "n", "file": {"driver": "file", "filename": host.path("v")}});
    let mut command = std::process::Command::new(daemon);
    let monitor = host.daemon.folder().join("qmp");
    command.arg("--object").arg(format!(
        "secret,id=s,file={}",
        host.daemon.folder().join("held").display()
    ));
    command
        .args(["--blockdev", &open.to_string(), "--chardev"])
        .arg(format!(
            "socket,path={},server=on,wait=off,id=c",
            monitor.display()
        ));
    command.args(["--monitor", "chardev=c"]);
    let foreign = crate::program::Running::with_socket(command, &monitor);
    // The monitor's socket exists before the volume is opened. A greeting shows that it is open.
    luksmith::qemu::Qmp::connect(&monitor, crate::program::PATIENCE).unwrap();
    host.daemon.run(&rotate).is(5, &["busy"]);
    drop(foreign);
    host.daemon.ok(&rotate);
    unchanged();
}

/// The process that strace's log calls stopped.
pub(crate) fn stopped(log: &Path) -> Option<Pid> {
    let log = std::fs::read_to_string(log).ok()?;
    let line = log
        .lines()
        .find(|line| line.contains("stopped by SIGSTOP"))?;
    Pid::from_raw(line.split_whitespace().next()?.parse().ok()?)
}

#[test]
fn a_copy_that_begins_just_before_the_secret_is_set_prevents_it() {
    let (Some(later), Some(strace)) = (later(), peers::find("strace")) else {
        return;
    };
    let Some(host) = Host::new() else { return };
    let secret = host.volume("v", "--type luks1");
    let domain = host.domain_with(&later, "none", "d", "v", &secret);
    domain.start().unwrap();
    let size = pattern().len();
    let sink = json!({"driver": "null-co", "node-name": "sink", "size": size, "read-zeroes": true});
    ask(&domain, "blockdev-add", sink);

    // The journal is replaced for the second time when the secret is about to be set.
    let log = host.daemon.folder().join("strace");
    let inject = OsStr::new("inject=renameat:signal=SIGSTOP:when=2");
    let options = ["-f", "-qq", "-e", "trace=renameat", "-e"].map(OsStr::new);
    let options = [&options[..], &[inject, OsStr::new("-o"), log.as_os_str()]].concat();
    let rotate = format!("libvirt rotate d {CHEAP}");
    let mut command = host.daemon.traced(&strace, &options, &rotate);
    let mut running = command.stderr(Stdio::piped()).spawn().unwrap();
    crate::program::wait_until("luksmith is stopped", || {
        let ended = running.try_wait().unwrap();
        assert!(ended.is_none(), "it ended before it was stopped: {ended:?}");
        stopped(&log).is_some()
    });
    let mirror = json!({"job-id": "m", "device": node(&domain)["node-name"], "target": "sink", "sync": "full", "speed": 1});
    ask(&domain, "blockdev-mirror", mirror);
    kill_process(stopped(&log).unwrap(), Signal::CONT).unwrap();
    let ran = crate::host::Ran::of(running.wait_with_output().unwrap());
    ran.is(5, &["busy with a mirror job"]);
    let test = format!(
        "key test {} --key libvirt:{secret} --force-share",
        host.path("v")
    );
    host.daemon.ok(&test);

    ask(
        &domain,
        "block-job-cancel",
        json!({"device": "m", "force": true}),
    );
    crate::program::wait_until("the job is gone", || {
        ask(&domain, "query-block-jobs", json!({})) == json!([])
    });
    host.keep(&secret, "old");
    host.daemon.ok(&rotate);
    host.is_finished(&["v"], 1);
    host.daemon.ok(&test);
    host.daemon
        .run(&format!(
            "key test {} --key-file old --force-share",
            host.path("v")
        ))
        .is(2, &[]);
}

#[test]
fn a_qemu_that_would_write_an_old_header_is_refused() {
    let Some(host) = Host::new() else { return };
    let secret = host.volume("v", "--type luks1");
    let Some(emulator) = with_keyslots() else {
        return;
    };
    let domain = host.domain_with(&emulator, "default", "d", "v", &secret);
    // As if another program had changed the header while this QEMU, which changes keyslots itself,
    // has it open.
    std::fs::copy(host.path("v"), host.path("other")).unwrap();
    std::fs::write(host.daemon.folder().join("more"), "another passphrase").unwrap();
    host.daemon.ok(&format!(
        "key add {} --key libvirt:{secret} --new-key file:more {CHEAP}",
        host.path("other")
    ));
    domain.start().unwrap();
    let header = std::fs::read(host.path("other")).unwrap();
    let image = File::options().write(true).open(host.path("v")).unwrap();
    image.write_all_at(&header[..1 << 20], 0).unwrap();
    host.daemon
        .run(&format!("libvirt rotate d {CHEAP}"))
        .is(5, &["would write the old ones back", "restart the domain"]);
    domain.destroy().unwrap();
    domain.start().unwrap();
    host.daemon.ok("libvirt rotate d --iter-time 1");
    domain.destroy().unwrap();
    host.whole("v", &secret);
}
