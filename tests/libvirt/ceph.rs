//! Volumes in Ceph as disks of domains that do not run.

use std::path::Path;

use support::ceph::Ceph;
use support::peers;

use crate::rotate::{CHEAP, Host};

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
