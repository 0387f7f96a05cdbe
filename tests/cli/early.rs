//! What can be known before a key derivation is said before it, and before a passphrase is asked
//! for: here the key file does not exist, and the error is about something else.

use crate::session::{CHEAP, Session};

#[test]
fn a_wrong_destination_is_named_before_a_wrong_key() {
    let session = Session::with_volume();
    let plain = std::fs::File::create(session.path("huge")).unwrap();
    // More than any file system of a test has left, in a file without content.
    plain.set_len(8 << 40).unwrap();
    session.write("plain", &[0; 4096]);
    let force = ["--force", "volume-key"];
    let cases: [(&[&str], i32, &str); 13] = [
        (
            &["create", "no/x.img", "--size", "1M"],
            4,
            "cannot create no/x.img",
        ),
        (
            &["create", "disk.img", "--size", "1M"],
            5,
            "disk.img exists",
        ),
        (
            &["create", "x.img", "--size", "1E", "--preallocate"],
            4,
            "no room for x.img: it takes 1 EiB, and ",
        ),
        (
            &["encrypt", "plain", "no/x.img"],
            4,
            "cannot create no/x.img",
        ),
        (
            &["encrypt", "huge", "x.img"],
            4,
            "no room for x.img: it takes 8 TiB",
        ),
        (
            &["decrypt", "disk.img", "no/x.img"],
            4,
            "cannot create no/x.img",
        ),
        (&["decrypt", "disk.img", "other"], 5, "other exists"),
        (
            &["key", "add", "disk.img", "--keyslot", "0"],
            5,
            "keyslot 0 is in use",
        ),
        (
            &["key", "add", "disk.img", "--undo-file", "no/u"],
            4,
            "cannot create no/u",
        ),
        (
            &["key", "add", "disk.img", "--pbkdf-force-iterations", "2"],
            1,
            "at least 4",
        ),
        (
            &["key", "change", "disk.img", "--undo-file", "no/u"],
            4,
            "cannot create no/u",
        ),
        (
            &[
                "key",
                "volume-key",
                "disk.img",
                "--out",
                "other",
                force[0],
                force[1],
            ],
            5,
            "other exists",
        ),
        (
            &["serve", "disk.img", "--socket", "no/no/s.sock"],
            4,
            "no: No such file or directory",
        ),
    ];
    for (args, code, error) in cases {
        let ran = session.run(args.iter().chain(&["--key-file", "missing"]));
        ran.fails(code, error);
        assert!(
            !ran.stderr().contains("missing: "),
            "{args:?}: {}",
            ran.stderr()
        );
    }
    assert!(!session.exists("x.img"));
}

#[test]
fn a_new_key_that_cannot_be_read_is_named_before_the_old_one_is_tried() {
    let session = Session::with_volume();
    for verb in ["add", "change"] {
        // The passphrase of the volume is `key`: `other` would open nothing.
        let args = ["key", verb, "disk.img", "--key-file", "other"];
        session
            .run(
                args.iter()
                    .chain(&["--new-key-file", "missing"])
                    .chain(&CHEAP),
            )
            .fails(4, "cannot read missing");
    }
}

#[test]
fn sizes_that_are_no_sizes_get_a_hint() {
    let session = Session::with_volume();
    let cases: [(&[&str], &str); 5] = [
        (
            &["create", "x.img", "64M"],
            "hint: --size 64M is the size that the guest sees",
        ),
        (
            &["create", "x.img", "--size", "10"],
            "hint: --size 10 is in bytes; --size 10G is 10 GiB",
        ),
        (
            &["create", "x.img", "--size", "99999999999T"],
            "2^64 bytes or more",
        ),
        (
            &["resize", "disk.img", "--size", "+16E"],
            "2^64 bytes or more",
        ),
        (
            &["resize", "disk.img", "--size", "-1M"],
            "the new size itself is needed to shrink",
        ),
    ];
    for (args, hint) in cases {
        session.run(args.iter().copied()).fails(1, hint);
    }
    let said = session.ok(["resize", "disk.img", "--size", "+1M"]);
    assert!(said.contains("2 MiB (2097152 bytes)"), "{said}");
}

#[test]
fn what_is_no_luks_volume_is_called_what_it_looks_like() {
    let session = Session::new();
    for (offset, magic, name) in [
        (0, &b"KDMV"[..], "a VMDK image"),
        (512, b"EFI PART", "a GUID partition table"),
        (3, b"-FVE-FS-", "a BitLocker volume"),
        (1080, b"\x53\xef", "an ext2, ext3 or ext4 filesystem"),
    ] {
        let mut image = vec![0; 1 << 20];
        image[offset..offset + magic.len()].copy_from_slice(magic);
        session.write("image", &image);
        let ran = session.run(["info", "image"]);
        ran.fails(
            4,
            &format!("hint: it looks like {name} (a guess); `luksmith identify"),
        );
    }
}

#[test]
fn a_conversion_that_is_not_possible_is_refused_before_the_question() {
    let session = Session::new();
    let create = "create disk.img --size 1M --sector-size 512 --label x --key-file key";
    session.ok(create.split(' ').chain(CHEAP));
    let ran = session.run(["convert", "disk.img", "--to", "luks1"]);
    ran.fails(1, "LUKS1 has no labels");
    ran.fails(
        1,
        "hint: `luksmith config IMAGE --label '' --subsystem ''` removes the labels",
    );
    session.ok(["config", "disk.img", "--label", "", "--subsystem", ""]);
    session.ok(["convert", "disk.img", "--to", "luks1", "--force", "convert"]);
}

#[test]
fn every_file_that_would_be_replaced_is_named_at_once() {
    let session = Session::with_volume();
    let args = "create disk.img --size 1M --header other --key-file missing";
    let ran = session.run(args.split(' '));
    ran.fails(5, "disk.img exists");
    ran.fails(5, "other exists");
    ran.fails(5, "hint: --force overwrite goes on");
}

#[test]
fn options_of_an_image_beside_exports_name_those_of_the_export() {
    let session = Session::with_volume();
    let serve = ["serve", "--export", "a=disk.img", "--socket", "new/s.sock"];
    for (option, hint) in [
        (["--format", "qcow2"], "--export NAME=IMAGE,format=qcow2"),
        (["--header", "h"], "--export NAME=IMAGE,header=FILE"),
        (["--keyslot", "1"], "--export NAME=IMAGE,keyslot=N"),
        (["--name", "b"], "--export NAME=IMAGE has the name"),
    ] {
        session.run(serve.iter().chain(&option)).fails(1, hint);
    }
}
