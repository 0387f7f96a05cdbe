//! The examples `provision` and `rotate` work on a libvirt of their own.

use crate::rotate::Host;
use support::peers;

#[allow(dead_code)] // its `main`
#[path = "../../examples/provision.rs"]
mod provision;
#[allow(dead_code)] // its `main`
#[path = "../../examples/rotate.rs"]
mod rotate;

#[test]
fn a_provisioned_volume_is_rotated_and_opens_with_its_secret() {
    let Some(host) = Host::new() else { return };
    if peers::find("qemu-img").is_none() {
        return;
    }
    let made = provision::make(&host.connection, "p", "v", 1 << 20).unwrap();
    let secret = made.secret.to_string();
    assert_eq!(made.path, Some(host.path("v")));
    assert_eq!(made.size, 1 << 20);
    assert!(made.disk.to_xml().unwrap().contains(&secret));
    host.opens_in_qemu("v", &secret);
    host.keep(&secret, "old");

    let journals = host.daemon.folder().join("journals");
    let rotated = rotate::rotate(&host.connection, &journals, &host.path("v")).unwrap();
    assert_eq!(rotated.len(), 1);
    assert_eq!((rotated[0].keyslot, &rotated[0].removed[..]), (7, &[0][..]));
    host.is_finished(&["v"], 1);
    host.opens_in_qemu("v", &secret);
    let old = format!("key test {} --key-file old", host.path("v"));
    host.daemon.run(&old).is(2, &[]);
    let gone = rotate::rotate(&host.connection, &journals, "nosuch");
    assert!(gone.unwrap_err().line().contains("no encrypted volume"));
}
