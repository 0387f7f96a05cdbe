//! Arguments, variables and properties that a domain passes to its emulator.

use luksmith::audit::Policy;

use crate::judge::{changed, complaint, ids, none, within_bounds};

/// An element at the end of the domain.
const END: &str = "  <seclabel type='dynamic' model='apparmor' relabel='yes'/>";

#[test]
fn secrets_in_arguments_are_found_and_not_repeated() {
    let found = |argument: &str| {
        let to = format!("<qemu:commandline>{argument}</qemu:commandline>");
        let inventory = changed("vm1.xml", END, &to);
        let report = within_bounds(&inventory, &Policy::default());
        let shown = format!("{report:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        ids(&report).contains(&"secret.commandline")
    };
    let arg = |value: &str| found(&format!("<qemu:arg value='{value}'/>"));
    let env = |name: &str| found(&format!("<qemu:env name='{name}' value='hunter2'/>"));
    for bad in [
        "secret,id=s0,data=hunter2",
        "{\"qom-type\":\"secret\",\"id\":\"s0\",\"data\":\"hunter2\"}",
        "if=none,driver=ssh,user=u,password=hunter2",
        "spice-password=hunter2",
        "nbd://user:hunter2@host/x",
    ] {
        assert!(arg(bad), "{bad}");
    }
    for good in [
        "secret,id=s0,file=/run/keys/s0",
        "driver=iscsi,password-secret=s0",
        "{\"qom-type\":\"secret\",\"file\":\"/run/keys/s0\"}",
        "spice,password=on",
        "nbd://user@host/x",
        "isa-debugcon,data=7",
    ] {
        assert!(!arg(good), "{good}");
    }
    let property = |name: &str| {
        let property = format!("<qemu:property name='{name}' type='string' value='hunter2'/>");
        let to = format!(
            "<qemu:override><qemu:device alias='x'><qemu:frontend>{property}</qemu:frontend></qemu:device></qemu:override>"
        );
        let report = within_bounds(&changed("vm1.xml", END, &to), &Policy::default());
        assert!(!format!("{report:?}").contains("hunter2"), "{report:?}");
        ids(&report).contains(&"secret.commandline")
    };
    assert!(property("password") && !property("password-secret"));
    assert!(env("RBD_PASSWORD") && env("S3_SECRET_KEY") && !env("SDL_VIDEODRIVER"));
}

#[test]
fn pre_shared_keys_and_virtio_sockets_are_named() {
    const PSK: &str = "transport.psk";
    const VSOCK: &str = "transport.vsock";
    let rows = [
        ("tls-creds-psk,id=t,dir=/k,endpoint=client", &[PSK][..]),
        ("qom-type=tls-creds-psk,id=t,dir=/k", &[PSK]),
        (
            r#"{"qom-type":"tls-creds-psk","id":"t","dir":"/k"}"#,
            &[PSK],
        ),
        (r#"{"id": "t", "qom-type": "tls-creds-psk"}"#, &[PSK]),
        ("tls-creds-x509,id=tls-creds-psk,dir=/k", &[]),
        (r#"{"qom-type":"tls-creds-x509","id":"tls-creds-psk"}"#, &[]),
        (
            "driver=nbd,node-name=n,server.type=vsock,server.cid=2",
            &[VSOCK],
        ),
        ("file.driver=nbd,file.server.type=vsock,if=none", &[VSOCK]),
        (
            r#"{"driver":"nbd","server":{"type":"vsock","cid":"2","port":"1"}}"#,
            &[VSOCK],
        ),
        (
            r#"{"driver":"nbd","server": {"cid":"2", "type": "vsock"}}"#,
            &[VSOCK],
        ),
        ("vsock:3:4444", &[VSOCK]),
        ("file=nbd+vsock://2:10809/x,if=none", &[VSOCK]),
        ("NBDS+VSOCK://2/x", &[VSOCK]),
        ("vhost-vsock-pci,guest-cid=3", &[]),
        ("driver=nbd,server.type=unix,server.path=/run/vsock", &[]),
        (
            r#"{"driver":"nbd","server":{"type":"inet","host":"vsock"}}"#,
            &[],
        ),
        ("socket,id=vsock,path=/run/vsock:1,server=on", &[]),
        ("tcp:0:4444", &[]),
    ];
    let wrong = rows.map(|(value, expected)| {
        let argument = format!("<qemu:arg value='{value}'/>");
        let inventory = changed(
            "vm1.xml",
            END,
            &format!("<qemu:commandline>{argument}</qemu:commandline>"),
        );
        let mut all = vec!["confinement.commandline"];
        all.extend(expected);
        complaint(value, &inventory, &all)
    });
    none(wrong.into());
    // An element of the same name that libvirt ignores, and a variable.
    for to in [
        "<commandline><arg value='tls-creds-psk,id=t'/></commandline>".to_owned(),
        "<qemu:capabilities><qemu:arg value='vsock:3:4444'/></qemu:capabilities>".to_owned(),
    ] {
        none(vec![complaint(&to, &changed("vm1.xml", END, &to), &[])]);
    }
}
