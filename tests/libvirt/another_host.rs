//! A libvirt on another host: its paths are not paths of this host.
//!
//! Here both are one machine, and the URI of the connection names a host.

use std::net::TcpListener;

use luksmith_formats::json::Value;

use crate::daemon::Daemon;
use crate::rotate::{CHEAP, Host};

/// A host, and the option that connects to its libvirt as to that of another one.
fn host() -> Option<(Host, String)> {
    // The daemon of another user does not listen.
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    // The port is free now, and it is unlikely that another program takes it before the daemon
    // does.
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let settings = format!(
        "listen_tls = 0\nlisten_tcp = 1\nlisten_addr = \"127.0.0.1\"\ntcp_port = \"{port}\"\n\
         auth_tcp = \"none\"\n"
    );
    let host = Host::on(Daemon::start_with(&settings)?);
    Some((
        host,
        format!("--connect qemu+tcp://127.0.0.1:{port}/system"),
    ))
}

#[test]
fn a_volume_of_another_host_is_not_rotated_from_here() {
    let Some((host, far)) = host() else { return };
    host.volume("v", "--type luks1");
    let path = host.path("v");
    let before = std::fs::read(&path).unwrap();
    let there = [
        "on the host of this libvirt",
        "hint: run luksmith on that host",
    ];
    for which in [&*path, "--all"] {
        let rotate = format!("libvirt rotate {which} {CHEAP} {far}");
        host.daemon.run(&rotate).is(4, &there);
    }
    let check = format!("libvirt rotate --all --check --json {far}");
    let said = host.daemon.run(&check).json();
    let finding = &said["findings"].as_array().unwrap()[0];
    assert_eq!(finding["id"].as_str(), Some("untested"), "{said}");
    assert_eq!(finding["image"], Value::from(path.as_str()), "{said}");
    assert!(std::fs::read(&path).unwrap() == before);
    host.is_finished(&["v"], 1);
    // Control: the same volume over a local connection.
    host.daemon.ok(&format!("libvirt rotate {path} {CHEAP}"));
}

#[test]
fn a_path_of_this_host_is_not_attached_on_another_one() {
    let Some((host, far)) = host() else { return };
    let secret = host.volume("v", "--type luks1");
    host.volume("w", "--type luks1");
    let Some(domain) = host.domain("d", "v", &secret) else {
        return;
    };
    let attach = format!("libvirt attach d {} --config {far}", host.path("w"));
    let words = [
        "is on this machine, but",
        "volume:POOL/NAME names a volume there",
    ];
    host.daemon.run(&attach).is(1, &words);
    // The name of another link to the same file here is no name of the disk there.
    std::fs::hard_link(host.path("v"), host.path("hard")).unwrap();
    let detach = |name, far: &str| {
        let detach = format!("libvirt detach d {} --config {far}", host.path(name));
        host.daemon.run(&detach)
    };
    detach("hard", &far).is(1, &["has no disk"]);
    detach("v", &far).is(0, &[]);
    drop(domain);
}
