//! The XML that luksmith prints is valid by libvirt's own schemas (RELAX NG, of the installed
//! package).

use std::path::Path;
use std::process::Command;

use crate::program::{Folder, said};
use support::peers;

const SCHEMAS: &str = "/usr/share/libvirt/schemas";
const UUID: &str = "55f4c1ec-1111-4222-8333-123456789abc";
const OTHER: &str = "55f4c1ec-1111-4222-8333-123456789abd";

/// xmllint, if it and the schemas are installed.
fn validator() -> Option<std::path::PathBuf> {
    let xmllint = peers::find("xmllint")?;
    if Path::new(SCHEMAS).is_dir() {
        return Some(xmllint);
    }
    peers::skip(SCHEMAS);
    None
}

/// Whether a document is valid, and the output of the validator.
fn judge(xmllint: &Path, folder: &Folder, schema: &str, xml: &str) -> (bool, String) {
    folder.write("document.xml", xml.as_bytes());
    let mut command = Command::new(xmllint);
    command.args(["--noout", "--nonet", "--relaxng"]);
    command.arg(format!("{SCHEMAS}/{schema}.rng"));
    let output = command.arg(folder.path("document.xml")).output().unwrap();
    (output.status.success(), said(&output))
}

/// The smallest domain that has a device.
fn domain(disk: &str) -> String {
    format!(
        "<domain type='qemu'><name>a</name><memory>32768</memory><os><type>hvm</type></os><devices>{disk}</devices></domain>"
    )
}

#[test]
fn every_disk_is_valid() {
    let Some(xmllint) = validator() else {
        return;
    };
    let folder = Folder::new();
    folder.make_bootable("a <b> & 'c'.img", "luks1");
    let secret = ["--secret", UUID];
    let login = ["--login", "me", "--login-secret"];
    let rich = [
        "--target",
        "sdc",
        "--bus",
        "scsi",
        "--serial",
        "S 1_.+-",
        "--cache",
        "none",
        "--io",
        "native",
        "--discard",
        "unmap",
        "--read-only",
        "--shareable",
        "--keep-owner",
    ];
    let cases: Vec<Vec<&str>> = vec![
        vec!["a <b> & 'c'.img"],
        [&["a <b> & 'c'.img"][..], &secret, &rich].concat(),
        [
            &["q.qcow2", "--format", "qcow2", "--type", "luks1"][..],
            &secret,
        ]
        .concat(),
        vec!["two.img", "--served", "s/x.sock"],
        vec!["two.img", "--served", "s/x.sock", "--export", "<a>"],
        vec!["two.img", "--vhost-user", "s/x.vhost", "--target", "vdb"],
        [&["volume:default/a b.luks"][..], &secret, &["--keep-owner"]].concat(),
        [
            &["nbd+unix:///?socket=/run/n.sock", "--type", "luks1"][..],
            &secret,
        ]
        .concat(),
        [&["nbd://host:10810/vm1", "--type", "luks1"][..], &secret].concat(),
        [
            &["nbds://host/?tls-hostname=other", "--type", "luks1"][..],
            &secret,
        ]
        .concat(),
        [
            &[
                "rbd://pool/image@snap",
                "--monitor",
                "mon1",
                "--monitor",
                "[::1]:3300",
            ][..],
            &secret,
        ]
        .concat(),
        [
            &[
                "rbd://pool/image",
                "--ceph-config",
                "/etc/ceph/c.conf",
                "--engine",
                "qemu",
            ][..],
            &secret,
        ]
        .concat(),
        [
            &["rbd://pool/image", "--secret", OTHER][..],
            &secret,
            &login,
            &[OTHER],
        ]
        .concat(),
        [
            &["iscsi://host/iqn.2024-01.example:t/0"][..],
            &secret,
            &login,
            &["usage=iscsi:t"],
        ]
        .concat(),
        [&["http://host:8080/a%20b?x=1&y=2"][..], &secret].concat(),
        [&["https://host/a"][..], &secret].concat(),
    ];
    for case in cases {
        let args = ["libvirt", "xml", "disk"].iter().chain(&case);
        let xml = folder.luksmith(args);
        let format = if case.contains(&"qcow2") {
            "qcow2"
        } else {
            "raw"
        };
        assert!(xml.contains(&format!("type=\"{format}\"")), "{xml}");
        // Layers need libvirt 9.3, and some installed schemas are older.
        if case.contains(&OTHER) && xml.matches("\"passphrase\"").count() == 2 {
            assert_eq!(xml.matches("<secret ").count(), 3, "{xml}");
            continue;
        }
        let (valid, said) = judge(&xmllint, &folder, "domain", &domain(&xml));
        assert!(valid, "{case:?}: {said}\n{xml}");
    }
    // The validator refuses what is not valid.
    let (valid, _) = judge(
        &xmllint,
        &folder,
        "domain",
        &domain("<disk type='file'><target/></disk>"),
    );
    assert!(!valid);
}

#[test]
fn every_secret_and_volume_is_valid() {
    let Some(xmllint) = validator() else {
        return;
    };
    let folder = Folder::new();
    folder.make_bootable("a.img", "luks1");
    let all = [
        "--uuid",
        UUID,
        "--private",
        "--ephemeral",
        "--description",
        "a <b> & c",
    ];
    for usage in [
        None,
        Some("ceph:a"),
        Some("iscsi:a"),
        Some("tls:a"),
        Some("vtpm:a"),
    ] {
        let usage = usage.map_or_else(Vec::new, |usage| vec!["--usage", usage]);
        let args = ["libvirt", "xml", "secret", "a.img"];
        let xml = folder.luksmith(args.iter().chain(&all).chain(&usage));
        let (valid, said) = judge(&xmllint, &folder, "secret", &xml);
        assert!(valid, "{said}\n{xml}");
    }
    for more in [&[][..], &["--name", "b c", "--secret", UUID]] {
        let xml = folder.luksmith(["libvirt", "xml", "volume", "a.img"].iter().chain(more));
        assert!(
            xml.contains("<capacity unit=\"bytes\">4194304</capacity>"),
            "{xml}"
        );
        let (valid, said) = judge(&xmllint, &folder, "storagevol", &xml);
        assert!(valid, "{said}\n{xml}");
    }
}

#[test]
fn a_disk_that_no_emulator_can_open_is_refused() {
    let folder = Folder::new();
    folder.make_bootable("two.img", "luks2");
    let secret = ["--secret", UUID];
    let two = [&secret[..], &["--secret", OTHER]].concat();
    let cases: [(&[&str], &[&str], &str); 9] = [
        (&["two.img"], &[], "knows only LUKS1"),
        (&["absent.img"], &[], "--type luks1 states the version"),
        (
            &["nbd://host/x", "--type", "luks1"],
            &[],
            "--secret UUID names it",
        ),
        (&["a.img", "--type", "luks1"], &two, "only with librbd"),
        (
            &["a.img", "--type", "luks1", "--engine", "librbd"],
            &secret,
            "only for an image in Ceph",
        ),
        (
            &["rbd://p/i", "--type", "luks2", "--engine", "qemu"],
            &secret,
            "--engine librbd opens LUKS2",
        ),
        (
            &["a.img", "--type", "luks1", "--monitor", "m"],
            &secret,
            "rbd://POOL/IMAGE",
        ),
        (
            &["nbd://host/x", "--type", "luks1", "--keep-owner"],
            &secret,
            "no owner",
        ),
        (&["volume:p/i", "--served", "s"], &[], "cannot serve it"),
    ];
    for (args, more, expected) in cases {
        let all = ["libvirt", "xml", "disk"].iter().chain(args).chain(more);
        let code = if args == ["absent.img"] { 4 } else { 1 };
        let said = folder.fails(code, all);
        assert!(said.contains(expected), "{args:?}: {said}");
    }
    let serial = [
        "libvirt", "xml", "disk", "a.img", "--type", "luks1", "--serial", "a<b",
    ];
    let said = folder.fails(1, serial);
    assert!(said.contains("a serial number has"), "{said}");
    // A password in a URL is not repeated.
    let said = folder.fails(1, ["libvirt", "xml", "disk", "http://u:hunter2@host/x"]);
    assert!(
        said.contains("password") && !said.contains("hunter2"),
        "{said}"
    );
}

#[test]
fn a_disk_of_vhost_user_has_only_what_libvirt_takes() {
    let folder = Folder::new();
    for (option, what) in [
        ("--bus=scsi", "bus but virtio"),
        ("--serial=1", "serial number"),
        ("--cache=none", "cache mode"),
        ("--io=native", "I/O mode"),
        ("--discard=unmap", "rule for discards"),
        ("--read-only", "read-only mode"),
        ("--shareable", "sharing"),
        ("--keep-owner", "no owner"),
        ("--served=s/y.sock", "cannot be used with"),
        ("--engine=qemu", "cannot be used with"),
    ] {
        let args = ["libvirt", "xml", "disk", "two.img", "--vhost-user", "s/x"];
        let output = folder.command(args.iter().chain(&[option])).output();
        let output = output.unwrap();
        assert!(!output.status.success(), "{option}");
        assert!(said(&output).contains(what), "{option}: {}", said(&output));
    }
}
