//! Volumes in Ceph as disks of domains, which do not run, or write meanwhile.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use luksmith::libvirt::Connection;
use luksmith_formats::json::json;
use support::ceph::Ceph;
use support::peers;

use crate::beside::{ask, later, with_keyslots};
use crate::program::wait_until;
use crate::rotate::{CHEAP, CHEAP_LIVE, Host};

#[test]
fn a_volume_in_ceph_is_provisioned_rotated_and_served() {
    let Some(host) = Host::new() else { return };
    let Some(ceph) = Ceph::running(Path::new(env!("CARGO_TARGET_TMPDIR"))) else {
        return;
    };
    let Some(emulator) = peers::find("qemu-system-x86_64") else {
        return;
    };
    let uri = ceph.uri("vm");
    let provision = format!("libvirt provision {uri} --size 4M {CHEAP}");
    let disk = host.daemon.ok(&provision).stdout;
    let disk = String::from_utf8(disk).unwrap();
    let conf = format!("<config file=\"{}\"/>", ceph.conf().display());
    assert!(
        disk.contains("protocol=\"rbd\" name=\"rbd/vm\"") && disk.contains(&conf),
        "{disk}"
    );
    let (_, secret) = disk.split_once("uuid=\"").unwrap();
    let secret = &secret[..36];
    let domain = format!(
        "<domain type='qemu'><name>d</name><memory unit='MiB'>32</memory>\
         <os><type>hvm</type></os><devices><emulator>{}</emulator>{disk}</devices></domain>",
        emulator.display()
    );
    host.connection.define_domain(&domain).unwrap();

    let opens = format!("key test {uri} --key libvirt:{secret}");
    host.daemon.ok(&opens);
    host.keep(secret, "before");
    host.daemon.ok("libvirt rotate --all --check");
    host.daemon.ok(&format!("libvirt rotate d {CHEAP}"));
    host.daemon.ok(&opens);
    let old = host
        .daemon
        .run(&format!("key test {uri} --key-file before"));
    old.is(2, &["no keyslot"]);
    let slots = host.daemon.ok(&format!("key list {uri} --json")).json();
    assert_eq!(slots["keyslots"].as_array().unwrap().len(), 1, "{slots}");

    let served = "libvirt xml disk {} --served sock/vm.sock --type luks2";
    let served = host.daemon.ok(&served.replace("{}", &uri)).stdout;
    let served = String::from_utf8(served).unwrap();
    assert!(
        served.contains("protocol=\"nbd\"") && !served.contains("encryption"),
        "{served}"
    );
}

/// The size of the volume of a domain that writes, and of its writes.
const SIZE: usize = 4 << 20;
const WRITE: usize = 64 << 10;

/// An emulator with QEMU's driver for Ceph, which is a module of the same version: its own one, or
/// that in `target/peers`, by a script. `None` after saying that the test is skipped.
fn with_driver(emulator: PathBuf) -> Option<PathBuf> {
    let script = |modules: &Path| {
        let name = emulator.file_name().unwrap().to_str().unwrap();
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-ceph"));
        let text = format!(
            "#!/bin/sh\nexport QEMU_MODULE_DIR={}\nexec {} \"$@\"\n",
            modules.display(),
            emulator.display()
        );
        // An unchanged file is in libvirt's cache of emulators.
        if std::fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        path
    };
    let modules = peers::unpacked("modules/usr/lib/x86_64-linux-gnu/qemu");
    let mut all = vec![emulator.clone()];
    if modules.exists() {
        all.push(script(&modules));
    }
    let found = all.into_iter().find(|emulator| {
        let mut command = Command::new(emulator);
        command.args(["-M", "none", "-nodefaults", "-display", "none", "-blockdev"]);
        command.arg("driver=rbd,node-name=n,pool=p,image=i,conf=/nowhere/ceph.conf");
        let said = peers::output(&mut command).stderr;
        // What fails is said with the arguments.
        !String::from_utf8_lossy(&said).contains("Unknown driver")
    });
    if found.is_none() {
        peers::skip("qemu-block-extra");
    }
    found
}

/// Writes to the disk of a domain, block after block, until it is told to stop. Returns the byte
/// that fills each block.
fn write_on(connection: &Connection, name: &str, stop: &AtomicBool, done: &AtomicUsize) -> Vec<u8> {
    let domain = connection.domain(name).unwrap();
    let mut blocks = vec![0; SIZE / WRITE];
    while !stop.load(Ordering::Relaxed) {
        let number = done.load(Ordering::Relaxed);
        let (block, byte) = (
            number % blocks.len(),
            u8::try_from(number % 251 + 1).unwrap(),
        );
        let line = format!(
            "qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend \"write -P {byte} {} {WRITE}\"",
            block * WRITE
        );
        let said = ask(
            &domain,
            "human-monitor-command",
            json!({"command-line": line}),
        );
        assert!(!said.as_str().unwrap().contains("rror"), "{said}");
        blocks[block] = byte;
        done.fetch_add(1, Ordering::Relaxed);
    }
    blocks
}

/// The key of the cluster's user is only in a libvirt secret, and no file names the monitors.
#[test]
fn a_domain_that_writes_to_ceph_is_rotated_and_starts_again() {
    let (Some(host), Some(later)) = (Host::new(), later().and_then(with_driver)) else {
        return;
    };
    let Some(ceph) = Ceph::running(Path::new(env!("CARGO_TARGET_TMPDIR"))) else {
        return;
    };
    let login = host
        .daemon
        .ok("libvirt secret define --usage ceph:client.admin");
    let login = login.text();
    std::fs::write(host.daemon.folder().join("login"), ceph.key()).unwrap();
    host.daemon
        .ok(&format!("libvirt secret set {login} --key-file login"));
    let mut cases = vec![
        ("beside", &*later, "luks1", "", CHEAP),
        // librbd decrypts, in the process of QEMU.
        ("librbd", &*later, "luks2", " --engine librbd", CHEAP_LIVE),
    ];
    let asked = with_keyslots().and_then(with_driver);
    if let Some(emulator) = &asked {
        cases.push(("asked", emulator, "luks1", "", CHEAP_LIVE));
    }
    for (name, emulator, version, engine, cheap) in cases {
        let monitor = ceph.monitor();
        let uri = format!("rbd://rbd/{name}?mon={monitor}&secret={login}");
        let secret = host.daemon.ok(&format!(
            "libvirt secret define --usage volume:rbd/{name} --generate"
        ));
        let secret = secret.text();
        host.daemon.ok(&format!(
            "create {uri} --size {SIZE} --type {version} --key libvirt:{secret} --pbkdf pbkdf2 {CHEAP}"
        ));
        let xml = format!(
            "<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory>\
             <os><type machine='pc'>hvm</type></os><features><acpi/></features>\
             <devices><emulator>{}</emulator></devices></domain>",
            emulator.display()
        );
        let domain = host.connection.define_domain(&xml).unwrap();
        host.daemon.ok(&format!(
            "libvirt attach {name} {uri} --type {version}{engine} --secret {secret} --config"
        ));
        domain
            .start()
            .unwrap_or_else(|error| panic!("{name}: {:?}: {}", error.reply(), host.daemon.log()));

        let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
        let connection = host.daemon.connect();
        let blocks = std::thread::scope(|scope| {
            let writer = scope.spawn(|| write_on(&connection, name, &stop, &done));
            let written = |blocks| {
                wait_until("the guest writes", || {
                    writer.is_finished() || done.load(Ordering::Relaxed) >= blocks
                });
            };
            written(70);
            for _ in 0..2 {
                host.keep(&secret, "old");
                let rotated = host.daemon.run(&format!("libvirt rotate {name} {cheap}"));
                let test = format!("key test {uri} --key");
                let opens = host.daemon.run(&format!("{test} libvirt:{secret}"));
                let old = host.daemon.run(&format!("{test} file:old"));
                let before = done.load(Ordering::Relaxed);
                written(before + 10);
                if [rotated.code, opens.code, old.code] != [Some(0), Some(0), Some(2)] {
                    stop.store(true, Ordering::Relaxed);
                    panic!("{name}: {rotated:?} {opens:?} {old:?}");
                }
            }
            stop.store(true, Ordering::Relaxed);
            writer.join().unwrap()
        });
        // The domain has the image, and nothing else changes it.
        host.daemon
            .run(&format!("config {uri} --label x"))
            .is(5, &["another client has it open"]);
        domain.destroy().unwrap();
        domain.start().unwrap();
        domain.destroy().unwrap();
        let expected: Vec<u8> = blocks.iter().flat_map(|byte| [*byte; WRITE]).collect();
        let read = host
            .daemon
            .ok(&format!("decrypt {uri} - --key libvirt:{secret}"));
        assert!(read.stdout == expected, "the payload of {name} is another");
        let slots = host.daemon.ok(&format!("key list {uri} --json")).json();
        assert_eq!(slots["keyslots"].as_array().unwrap().len(), 1, "{slots}");
    }
}
