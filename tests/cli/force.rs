//! Nothing is destroyed silently. Without a terminal each loss is refused, named, and forced only
//! by its own name.

use crate::session::{CHEAP, Session};

fn create<'a>(extra: &[&'a str]) -> Vec<&'a str> {
    let args = ["create", "disk.img", "--size", "1M", "--key-file", "key"];
    args.into_iter()
        .chain(CHEAP)
        .chain(extra.iter().copied())
        .collect()
}

#[test]
fn overwriting_a_file() {
    let session = Session::with_volume();
    let before = session.read("disk.img");
    let ran = session.run(create(&[]));
    ran.fails(
        5,
        "luksmith: error: disk.img exists and would be replaced: it holds the LUKS2 volume ",
    );
    ran.fails(5, "luksmith: hint: --force overwrite");
    assert!(session.read("disk.img") == before);
    session.ok(create(&["--force", "overwrite"]));
    assert!(session.read("disk.img") != before);
}

#[test]
fn a_failed_replacement_leaves_the_old_file() {
    let session = Session::with_volume();
    let before = session.read("disk.img");
    let ran = session.run(create(&[
        "--force",
        "overwrite",
        "--volume-key-file",
        "key",
    ]));
    ran.fails(1, "volume-key-file");
    assert!(session.read("disk.img") == before);
    let left: Vec<_> = std::fs::read_dir(session.folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn a_failed_create_leaves_no_file() {
    let session = Session::new();
    session
        .run(create(&["--volume-key-file", "key"]))
        .fails(1, "volume-key-file");
    assert!(!session.exists("disk.img"));
}

#[test]
fn decrypting_over_a_file() {
    let session = Session::with_volume();
    session.write("plain.img", b"precious");
    let decrypt = ["decrypt", "disk.img", "plain.img", "--key-file", "key"];
    session.run(decrypt).fails(5, "--force overwrite");
    assert_eq!(session.read("plain.img"), b"precious");
    session.ok(decrypt.into_iter().chain(["--force", "overwrite"]));
    assert_eq!(session.read("plain.img").len(), 1 << 20);
    session
        .run([
            "decrypt",
            "disk.img",
            "disk.img",
            "--key-file",
            "key",
            "--force",
            "overwrite",
        ])
        .fails(1, "is the volume itself");
}

#[test]
fn erasing() {
    let session = Session::with_volume();
    session
        .run(["header", "erase", "disk.img"])
        .fails(1, "the only keyslot of disk.img");
    session.ok(["key", "test", "disk.img", "--key-file", "key"]);
    session.ok(["header", "erase", "disk.img", "--force", "erase"]);
    session
        .run(["key", "test", "disk.img", "--key-file", "key"])
        .fails(2, "no keyslot is in use");
}

#[test]
fn the_last_keyslot() {
    let session = Session::with_volume();
    let remove = ["key", "remove", "disk.img", "--key-file", "key"];
    // A passphrase that opens nothing is not the one of the last keyslot.
    session
        .run(["key", "remove", "disk.img", "--key-file", "other"])
        .fails(2, "disk.img: no keyslot opens");
    session.run(remove).fails(1, "--force last-keyslot");
    session.ok(["key", "test", "disk.img", "--key-file", "key"]);
    session.ok(remove.into_iter().chain(["--force", "last-keyslot"]));
    session
        .run(["key", "test", "disk.img", "--key-file", "key"])
        .fails(2, "no keyslot is in use");
}

#[test]
fn a_keyslot_goes_only_when_another_is_shown_to_open() {
    let session = Session::with_volume();
    let add = [
        "key",
        "add",
        "disk.img",
        "--key-file",
        "key",
        "--new-key-file",
        "other",
    ];
    session.ok(add.iter().chain(&CHEAP));
    let remove = ["key", "remove", "disk.img", "--keyslot", "1"];
    session
        .run(remove.into_iter().chain(["--key-file", "other"]))
        .fails(2, "--force unproven");
    session.ok(["key", "test", "disk.img", "--key-file", "other"]);
    session.ok(remove.into_iter().chain(["--key-file", "key"]));
    session
        .run(["key", "test", "disk.img", "--key-file", "other"])
        .fails(2, "no keyslot opens");
    session.ok(["key", "test", "disk.img", "--key-file", "key"]);
}

#[test]
fn restoring() {
    let session = Session::with_volume();
    session.ok(["header", "backup", "disk.img", "disk.hdr"]);
    session.ok([
        "key",
        "change",
        "disk.img",
        "--key-file",
        "key",
        "--new-key-file",
        "other",
    ]
    .iter()
    .chain(&CHEAP));
    let restore = ["header", "restore", "disk.img", "disk.hdr"];
    session.run(restore).fails(1, "--force restore");
    session.ok(["key", "test", "disk.img", "--key-file", "other"]);
    session.ok(restore.into_iter().chain(["--force", "restore"]));
    session.ok(["key", "test", "disk.img", "--key-file", "key"]);
    session
        .run(["key", "test", "disk.img", "--key-file", "other"])
        .fails(2, "no keyslot opens");
}

#[test]
fn restoring_another_volume() {
    let session = Session::with_volume();
    let args = [
        "create",
        "second.img",
        "--size",
        "1M",
        "--key-file",
        "other",
    ];
    session.ok(args.iter().chain(&CHEAP));
    session.ok(["header", "backup", "second.img", "second.hdr"]);
    let restore = [
        "header",
        "restore",
        "disk.img",
        "second.hdr",
        "--force",
        "restore",
    ];
    session.run(restore).fails(1, "--force other-uuid");
    session.ok(["key", "test", "disk.img", "--key-file", "key"]);
    session.ok(restore.into_iter().chain(["--force", "other-uuid"]));
    session.ok(["key", "test", "disk.img", "--key-file", "other"]);
}

#[test]
fn restoring_a_header_from_before_a_reencryption() {
    let session = Session::with_volume();
    session.ok(["header", "backup", "disk.img", "old.hdr"]);
    let reencrypt = ["reencrypt", "disk.img", "--key-file", "key", "--init-only"];
    let begun = reencrypt.iter().chain(&CHEAP);
    session.ok(begun);
    // Nothing is converted yet, so the backup has the key of the data.
    let restore = "header restore disk.img old.hdr --force restore";
    session.ok(restore.split(' '));
    session.ok(reencrypt[..4].iter().chain(&CHEAP));
    session.ok(["decrypt", "disk.img", "before", "--key-file", "key"]);
    let whole = session.read("disk.img");
    let ran = session.run(restore.split(' '));
    ran.fails(1, "none of its data could be read");
    ran.fails(1, "--force other-key goes on");
    assert!(session.read("disk.img") == whole, "written");
    let forced = format!("{restore} --force other-key --json");
    let ran = session.run(forced.split(' '));
    assert!(
        ran.stderr().contains("only the header before"),
        "{}",
        ran.stderr()
    );
    let kept = session.path("disk.img.luksmith-undo.header-1");
    let said = format!("\"kept\": \"{}\"", kept.canonicalize().unwrap().display());
    assert!(ran.stdout().contains(&said), "{}", ran.stdout());
    // The copy opens the data again.
    let back = "header restore disk.img disk.img.luksmith-undo.header-1 --force restore \
                --force other-key";
    session.ok(back.split(' '));
    session.ok(["decrypt", "disk.img", "after", "--key-file", "key"]);
    assert!(session.read("before") == session.read("after"));
}

#[test]
fn shrinking() {
    let session = Session::with_volume();
    session
        .run(["resize", "disk.img", "--size", "512K"])
        .fails(1, "the last 512 KiB of disk.img would be cut off");
    session.ok(["resize", "disk.img", "--size", "512K", "--force", "shrink"]);
    assert!(session.ok(["info", "disk.img"]).contains("524288 bytes"));
    session.ok(["resize", "disk.img", "--size", "2M"]);
    assert!(session.ok(["info", "disk.img"]).contains("2097152 bytes"));
}

#[test]
fn a_volume_has_at_least_a_sector() {
    let session = Session::with_volume();
    let resize = ["resize", "disk.img", "--size", "0", "--force", "shrink"];
    session.run(resize).fails(1, "one sector at least");
    let create = ["create", "new.img", "--size", "0", "--key-file", "key"];
    session.run(create).fails(1, "one sector at least");
    assert!(session.ok(["info", "disk.img"]).contains("1048576 bytes"));
}

#[test]
fn a_detached_header_is_never_taken_for_its_data() {
    for kind in ["luks1", "luks2"] {
        let session = Session::new();
        let create = [
            "create",
            "disk.img",
            "--size",
            "1M",
            "--header",
            "disk.hdr",
            "--key-file",
            "key",
            "--type",
            kind,
        ];
        session.ok(create.iter().chain(&CHEAP));
        let header = session.read("disk.hdr");
        let resize = ["resize", "disk.hdr", "--size", "512K", "--force", "shrink"];
        session.run(resize).fails(1, "--header FILE");
        session
            .run(["decrypt", "disk.hdr", "plain.img", "--key-file", "key"])
            .fails(1, "the data is elsewhere");
        assert!(session.read("disk.hdr") == header, "{kind}");
        assert!(!session.exists("plain.img"), "{kind}");
        session.ok(["resize", "disk.img", "--header", "disk.hdr", "--size", "2M"]);
    }
}

#[test]
fn restoring_where_no_header_is_left() {
    let session = Session::with_volume();
    session.ok(["header", "backup", "disk.img", "disk.hdr"]);
    let mut image = session.read("disk.img");
    image[..1 << 20].fill(0xa5);
    session.write("disk.img", &image);
    let restore = [
        "header", "restore", "disk.img", "disk.hdr", "--force", "restore",
    ];
    session
        .run(restore)
        .fails(1, "disk.img has no readable header to compare with");
    session.ok(restore.into_iter().chain(["--force", "other-uuid"]));
    session.ok(["key", "test", "disk.img", "--key-file", "key"]);
}

#[test]
fn converting_and_another_uuid() {
    let session = Session::new();
    let args = [
        "create",
        "disk.img",
        "--size",
        "1M",
        "--type",
        "luks1",
        "--key-file",
        "key",
    ];
    session.ok(args.iter().chain(&CHEAP));
    session
        .run(["convert", "disk.img", "--to", "luks2"])
        .fails(1, "--force convert");
    assert!(
        session
            .ok(["info", "disk.img"])
            .starts_with("disk.img: LUKS1")
    );
    session.ok(["convert", "disk.img", "--to", "luks2", "--force", "convert"]);
    assert!(
        session
            .ok(["info", "disk.img"])
            .starts_with("disk.img: LUKS2")
    );
    session.ok(["key", "test", "disk.img", "--key-file", "key"]);

    let uuid = "7a1b2c3d-0000-4000-8000-0123456789ab";
    session
        .run(["config", "disk.img", "--uuid", uuid])
        .fails(1, "--force uuid");
    assert!(!session.ok(["info", "disk.img"]).contains(uuid));
    session.ok(["config", "disk.img", "--uuid", uuid, "--force", "uuid"]);
    assert!(session.ok(["info", "disk.img"]).contains(uuid));
}

#[test]
fn the_volume_key() {
    use std::os::unix::fs::PermissionsExt;
    let session = Session::with_volume();
    let export = [
        "key",
        "volume-key",
        "disk.img",
        "--out",
        "vk",
        "--key-file",
        "key",
    ];
    session.run(export).fails(1, "--force volume-key");
    assert!(!session.exists("vk"));
    let forced: Vec<_> = export
        .into_iter()
        .chain(["--force", "volume-key"])
        .collect();
    session.ok(&forced);
    let metadata = session.path("vk").metadata().unwrap();
    assert_eq!(
        (metadata.len(), metadata.permissions().mode() & 0o777),
        (64, 0o600)
    );
    session.run(&forced).fails(5, "vk exists");
    session.ok([
        "decrypt",
        "disk.img",
        "plain.img",
        "--volume-key-file",
        "vk",
    ]);
}

#[test]
fn a_name_that_does_not_apply_is_refused() {
    let session = Session::with_volume();
    session
        .run(["header", "erase", "disk.img", "--force", "overwrite"])
        .fails(1, "possible values: erase");
}
