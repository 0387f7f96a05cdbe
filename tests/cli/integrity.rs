//! Volumes with authenticated encryption, which cryptsetup made: they are read, and never written
//! to, and their keyslots are as those of other volumes.

use luksmith_formats::json::Value;
use support::json_schema::Schemas;
use support::peers;
use support::tagged::{Tagged, pattern};

use crate::session::{CHEAP, Session};

const SUPERBLOCK: usize = 1 << 20;

/// With `disk.img`, of which the first two sectors were written and no other one is left, so that
/// all of it can be read. `key` opens it.
fn session(name: &str) -> (Session, Vec<u8>) {
    let (session, vector) = (Session::new(), Tagged::named(name));
    let mut image = vector.image.clone();
    let size = 2 * vector.sector_size;
    let sectors = (size / 512).to_le_bytes();
    image[SUPERBLOCK + 16..][..8].copy_from_slice(&sectors);
    session.write("disk.img", &image);
    session.write("volume-key", &vector.key);
    let args = "key add disk.img --volume-key-file volume-key --new-key-file key";
    session.ok(args.split(' ').chain(CHEAP));
    (session, pattern(0, size))
}

const ALL: [&str; 9] = [
    "hmac-plain64-512",
    "hmac-plain64-4096",
    "hmac-random-512",
    "hmac-random-4096",
    "gcm-192",
    "gcm-4096",
    "chacha-4096",
    "aegis-512",
    "aegis-4096",
];

#[test]
fn they_are_read_by_every_command_that_reads() {
    for name in ALL {
        let (session, plain) = session(name);
        session.ok("decrypt disk.img plain --key-file key".split(' '));
        assert!(session.read("plain") == plain, "{name}");
        let args = "copy disk.img copied.img --key-file key --sector-size 512";
        session.ok(args.split(' ').chain(CHEAP));
        session.ok("decrypt copied.img again --key-file key".split(' '));
        assert!(session.read("again") == plain, "{name}");
    }
}

#[test]
fn a_changed_sector_ends_a_copy_with_its_offset() {
    let (session, plain) = session("gcm-4096");
    let vector = Tagged::named("gcm-4096");
    let mut image = session.read("disk.img");
    image[vector.place(1).0 + 100] ^= 1;
    session.write("disk.img", &image);
    let ran = session.run("decrypt disk.img plain --key-file key".split(' '));
    ran.fails(
        7,
        "the 4096 bytes at byte 4096 of the volume do not match their tag",
    );
    ran.fails(7, "hint: ");
    assert!(!session.exists("plain"));
    let ran = session.run("decrypt disk.img - --key-file key".split(' '));
    ran.fails(7, "do not match their tag");
    assert!(plain.starts_with(ran.bytes()));
}

/// A read of a server's client fails for the changed sector, and for no other one.
#[test]
fn clients_of_a_server_get_errors_for_changed_sectors() {
    let (session, plain) = session("hmac-plain64-4096");
    let vector = Tagged::named("hmac-plain64-4096");
    if peers::find("nbdsh").is_none() {
        return;
    }
    let mut image = session.read("disk.img");
    image[vector.place(1).1] ^= 1;
    session.write("disk.img", &image);
    session.write("plain", &plain);
    let client = "PATH=/usr/bin:/bin nbdsh -u 'nbd+unix:///?socket=vm/disk.sock' -c '
import errno
assert h.is_read_only()
assert h.pread(4096, 0) == open(\"plain\", \"rb\").read(4096)
for offset, length in [(4096, 4096), (4096, 512), (8191, 1), (0, 8192)]:
    try:
        h.pread(length, offset)
        raise SystemExit(\"no error\")
    except nbd.Error as error:
        assert error.errnum == errno.EIO, error
'";
    let args = "serve disk.img --read-only --key-file key --socket vm/disk.sock --run";
    session.ok(args.split(' ').chain([client]));
}

#[test]
fn no_command_writes_to_the_data() {
    let (session, _) = session("gcm-512");
    let before = session.read("disk.img");
    for args in [
        "serve disk.img --socket disk.sock --key-file no",
        "mount disk.img file --key-file no",
        "resize disk.img --size 4K",
        "reencrypt disk.img --key-file no",
    ] {
        let ran = session.run(args.split(' '));
        ran.fails(4, "authenticated encryption (dm-integrity) are only read");
        ran.fails(
            4,
            "hint: `cryptsetup open` writes to it; `luksmith serve --read-only`",
        );
    }
    let ran = session.run("convert disk.img --to luks1 --force convert".split(' '));
    ran.fails(1, "LUKS1 has no authenticated encryption");
    let tags = "trust init disk.img --trust pins --tags --key-file key";
    let ran = session.run(tags.split(' '));
    ran.fails(4, "are only read");
    assert!(session.read("disk.img") == before);
}

#[test]
fn a_pin_of_the_header_works() {
    let (session, plain) = session("gcm-512");
    session.ok("trust init disk.img --trust pins --key-file key".split(' '));
    session.ok("decrypt disk.img plain --trust pins --key-file key".split(' '));
    assert!(session.read("plain") == plain);
}

#[test]
fn keyslots_tokens_and_backups_are_as_those_of_others() {
    for name in ["gcm-192", "chacha-512"] {
        let (session, plain) = session(name);
        let data = session.read("disk.img")[SUPERBLOCK..].to_vec();
        session.write("token", br#"{"type":"example","keyslots":["0"]}"#);
        session.write("third", b"third");
        let cheap = |args: &str| drop(session.ok(args.split(' ').chain(CHEAP)));
        let does = |args: &str| drop(session.ok(args.split(' ')));
        cheap("key add disk.img --key-file key --new-key-file other");
        does("key test disk.img --key-file other");
        cheap("key change disk.img --key-file other --new-key-file third");
        session
            .run("key test disk.img --key-file other".split(' '))
            .fails(2, "no keyslot opens");
        does("key volume-key disk.img --key-file third --out taken --force volume-key");
        assert!(session.read("taken") == session.read("volume-key"));
        does("token import disk.img --json-file token");
        does("config disk.img --label archive");
        does("header backup disk.img backup");
        does("key remove disk.img --key-file third");
        session
            .run("key test disk.img --key-file third".split(' '))
            .fails(2, "no keyslot opens");
        does("header erase disk.img --force erase");
        session
            .run("key test disk.img --key-file key".split(' '))
            .fails(2, "");
        does("header restore disk.img backup --force restore");
        does("decrypt disk.img plain --key-file third");
        assert!(session.read("plain") == plain);
        does("header repair disk.img");
        assert!(session.read("disk.img")[SUPERBLOCK..] == data);
    }
}

#[test]
fn the_header_says_what_the_tags_are() {
    let schemas = Schemas::read();
    for (name, kind, tag_size) in [
        ("hmac-plain64-512", "hmac(sha256)", 32),
        ("hmac-random-4096", "hmac(sha256)", 48),
        ("gcm-4096", "aead", 28),
        ("chacha-512", "poly1305", 28),
        ("aegis-512", "aead", 32),
    ] {
        let (session, plain) = session(name);
        let document = session.ok("info disk.img --json".split(' '));
        let document: Value = document.parse().unwrap();
        assert_eq!(schemas.complaints(&document), [""; 0]);
        let integrity = &document["integrity"];
        assert_eq!(integrity["type"], kind);
        assert_eq!(integrity["tag_size"].as_u64(), Some(tag_size));
        assert!(integrity["problem"].is_null());
        assert_eq!(document["size"].as_u64(), Some(plain.len() as u64));
        assert_eq!(document["not_supported"].as_array().unwrap().len(), 0);
        let shown = session.ok("info disk.img".split(' '));
        let words = format!("{kind} (dm-integrity), {tag_size} bytes for each sector; only read");
        assert!(shown.contains(&words), "{shown}");
        let shown = session.ok("inspect disk.img --format luks2".split(' '));
        assert!(shown.contains("luks.tags"), "{shown}");
    }
    let session = Session::new();
    let document = session.run("info disk.img --json".split(' '));
    assert_eq!(document.code(), 4);
}

#[test]
fn a_volume_that_was_not_closed_is_refused_with_what_helps() {
    let (session, vector) = (Session::new(), Tagged::named("journal"));
    session.write("disk.img", &vector.image);
    session.write("volume-key", &vector.key);
    for args in [
        "decrypt disk.img plain --volume-key-file volume-key",
        "decrypt disk.img - --volume-key-file volume-key",
    ] {
        let ran = session.run(args.split(' '));
        ran.fails(
            4,
            "the journal of dm-integrity has writes that are not in their places yet",
        );
        ran.fails(
            4,
            "hint: `cryptsetup open DEVICE NAME` and then `cryptsetup close NAME`",
        );
    }
    let document: Value = session
        .ok("info disk.img --json".split(' '))
        .parse()
        .unwrap();
    let problem = document["integrity"]["problem"].as_str().unwrap();
    assert!(problem.contains("journal"), "{problem}");
    let shown = session.ok("info disk.img".split(' '));
    assert!(shown.contains("not readable: the journal"), "{shown}");
}

#[test]
fn a_detached_header_and_its_data() {
    let (session, vector) = (Session::new(), Tagged::named("detached"));
    session.write("data", &vector.image);
    session.write("header", vector.header.as_ref().unwrap());
    session.write("volume-key", &vector.key);
    let shown = session.ok("info data --header header".split(' '));
    assert!(shown.contains(&vector.size.to_string()), "{shown}");
    let shown = session.ok("info header".split(' '));
    assert!(shown.contains("aead (dm-integrity)"), "{shown}");
    let ran = session.run("decrypt header plain --volume-key-file volume-key".split(' '));
    ran.fails(1, "the data is elsewhere");
    let ran = session.run("decrypt data - --header header --volume-key-file volume-key".split(' '));
    ran.fails(7, "do not match their tag");
    assert!(ran.bytes().is_empty());
}

#[test]
fn ciphertext_is_not_told_from_tags() {
    let (session, _) = session("gcm-512");
    let ran = session.run("verify-ciphertext disk.img".split(' '));
    ran.fails(4, "tags and the journal of dm-integrity");
    ran.fails(4, "hint: `luksmith decrypt IMAGE -");
}
