//! The commands for libvirt in `docs/libvirt.md`, `docs/leaked-key.md` and README.md work as they
//! are printed.

use std::path::Path;
use std::process::Stdio;

use crate::daemon::Daemon;
use crate::domains;
use crate::host::Ran;
use support::peers;

const TEXT: &str = include_str!("../../docs/libvirt.md");
const LEAKED: &str = include_str!("../../docs/leaked-key.md");
const README: &str = include_str!("../../README.md");

/// The `sh` blocks of a page.
fn blocks(page: &str) -> impl Iterator<Item = &str> {
    let blocks = page.split("```sh\n").skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap())
}

/// Runs a script on the host of the daemon, with its folder as the folder of images.
fn run(daemon: &Daemon, script: &str) {
    let folder = daemon.folder();
    let script = script.replace("/var/lib/libvirt/images", folder.to_str().unwrap());
    let programs = Path::new(env!("CARGO_BIN_EXE_luksmith")).parent().unwrap();
    let mut shell = daemon.on_host("sh");
    shell
        .args(["-exc", &script])
        .env("LIBVIRT_DEFAULT_URI", daemon.uri())
        .env(
            "PATH",
            format!("{}:{}", programs.display(), std::env::var("PATH").unwrap()),
        )
        .stdin(Stdio::null());
    let ran = Ran::of(shell.output().unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}

#[test]
fn the_commands_of_the_document_work() {
    let (Some(daemon), Some(_virsh)) = (Daemon::start(), peers::find("virsh")) else {
        return;
    };
    let Some(domain) = domains::define(&daemon, "vm1") else {
        return;
    };
    domain.start().unwrap();
    domains::define_pool(&daemon, "default");
    std::fs::write(daemon.folder().join("key"), "a passphrase").unwrap();

    let blocks: Vec<&str> = blocks(TEXT).collect();
    assert!(blocks.len() >= 5);
    run(&daemon, &blocks.concat());
    let secrets = daemon.ok("libvirt secret list").text();
    for name in ["vm1.luks", "data.img", "two.img"] {
        assert!(secrets.contains(name), "{name}: {secrets}");
    }
    assert_eq!(domains::disks(&domain, true), ["vda"]);
}

#[test]
fn the_quick_start_works() {
    let (Some(daemon), Some(_virsh)) = (Daemon::start(), peers::find("virsh")) else {
        return;
    };
    let Some(domain) = domains::define(&daemon, "vm1") else {
        return;
    };
    domains::define_pool(&daemon, "default");
    let script: String = blocks(README)
        .filter(|block| block.contains("libvirt"))
        .collect();
    run(&daemon, &script);
    assert_eq!(domains::disks(&domain, true), ["vda"]);
}

#[test]
fn the_commands_for_a_leaked_key_work() {
    let (Some(daemon), Some(_virsh)) = (Daemon::start(), peers::find("virsh")) else {
        return;
    };
    let Some(domain) = domains::define(&daemon, "vm1") else {
        return;
    };
    domains::define_pool(&daemon, "default");
    let folder = daemon.folder();
    for name in ["key", "new-key"] {
        std::fs::write(folder.join(name), format!("the passphrase in {name}")).unwrap();
    }
    for (name, version) in [("disk", "luks2"), ("served", "luks2"), ("old", "luks1")] {
        daemon.ok(&format!(
            "create {name}.img --size 20M --type {version} --key-file key {}",
            domains::CHEAP
        ));
    }
    daemon.ok(&format!(
        "libvirt provision --pool default --name vm1.luks --size 1M {}",
        domains::CHEAP
    ));
    let path = folder.join("vm1.luks");
    daemon.ok(&format!("libvirt attach vm1 {} --config", path.display()));
    domain.start().unwrap();
    std::fs::copy(&path, folder.join("leaked.luks")).unwrap();
    let keep = "libvirt secret get usage=volume:";
    daemon.ok(&format!("{keep}{} --out leaked", path.display()));

    let blocks: Vec<&str> = blocks(LEAKED).collect();
    assert!(blocks.len() >= 6);
    run(&daemon, &blocks.concat());

    // What leaked opens a copy of the old header, and none of the volumes.
    daemon.ok("key test leaked.luks --key-file leaked");
    for (image, key) in [
        ("disk.img", "key"),
        ("disk.img", "leaked"),
        ("old.img", "key"),
        ("new.img", "key"),
        ("vm1.luks", "leaked"),
    ] {
        let ran = daemon.run(&format!("key test {image} --key-file {key}"));
        assert_eq!(ran.code, Some(2), "{image} with {key}: {}", ran.stderr);
    }
    for image in ["disk.img", "new.img"] {
        daemon.ok(&format!("key test {image} --key-file new-key"));
    }
    assert_eq!(daemon.connect().secrets().unwrap().len(), 1);
}
