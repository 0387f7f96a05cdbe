//! The JSON of the commands for libvirt is as its schema in `docs/schema/` says.

use support::json_schema::check;

use crate::domains::define;
use crate::rotate::{CHEAP, Host};

#[test]
fn every_command_for_libvirt_prints_what_its_schema_says() {
    let Some(host) = Host::new() else { return };
    let daemon = &host.daemon;
    std::fs::write(daemon.folder().join("value"), "a passphrase").unwrap();
    // Without a QEMU there is no domain to attach to.
    let domain = define(daemon, "d");
    let image = host.path("v.img");
    let secret = "usage=volume:/none";
    for (code, command) in [
        (0, format!("libvirt provision {image} --size 1M {CHEAP}")),
        (
            0,
            format!("libvirt provision --pool p --name w --size 1M {CHEAP}"),
        ),
        (0, format!("libvirt attach d {image} --config")),
        (0, "libvirt rekey --all --check".to_owned()),
        (0, format!("libvirt rekey d --keep-old {CHEAP}")),
        (0, "libvirt detach d vda --config".to_owned()),
        (0, "libvirt secret define --usage volume:/none".to_owned()),
        (11, "libvirt rotate --all --check".to_owned()),
        (0, format!("libvirt secret set {secret} --key-file value")),
        (0, format!("libvirt secret get {secret} --out got")),
        (0, "libvirt secret list".to_owned()),
        (0, format!("libvirt secret remove {secret}")),
        (0, format!("libvirt rotate {image} {CHEAP}")),
        (0, "libvirt rotate --all --check".to_owned()),
    ] {
        if domain.is_none() && command.contains("tach d ") {
            continue;
        }
        let ran = daemon.run(&format!("{command} --json"));
        assert_eq!(ran.code, Some(code), "{command}: {}", ran.stderr);
        let document = ran.json();
        check(&document);
        let name = document["command"].as_str().unwrap();
        assert!(command.starts_with(name), "{command}: {name}");
    }
}
