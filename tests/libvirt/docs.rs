//! The commands of `docs/libvirt.md` work exactly as they are printed, and leave what it says.

use std::path::Path;
use std::process::Stdio;

use crate::daemon::Daemon;
use crate::domains;
use crate::host::Ran;
use support::peers;

const TEXT: &str = include_str!("../../docs/libvirt.md");

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

    let blocks: Vec<&str> = TEXT
        .split("```sh\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert!(blocks.len() >= 5);
    let folder = daemon.folder();
    let script = blocks
        .concat()
        .replace("/var/lib/libvirt/images", folder.to_str().unwrap());
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
    let secrets = daemon.ok("libvirt secret list").text();
    for name in ["vm1.luks", "data.img", "two.img"] {
        assert!(secrets.contains(name), "{name}: {secrets}");
    }
    assert_eq!(domains::disks(&domain, true), ["vda"]);
}
