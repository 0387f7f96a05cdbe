//! `copy`: a volume into a new volume of another kind, with the same plaintext.

use std::os::unix::fs::{MetadataExt, symlink};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::session::{CHEAP, Ran, Session};

const MIB: usize = 1 << 20;

/// Bytes that differ in every sector, with a run of zeroes.
fn plaintext() -> Vec<u8> {
    let words = (0..5 * MIB as u64 / 8).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n);
    let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    bytes[2 * MIB..4 * MIB].fill(0);
    bytes
}

/// With `disk.img`, a LUKS2 volume of 4096-byte sectors that holds [`plaintext`].
fn session() -> Session {
    let session = Session::new();
    session.write("plain", &plaintext());
    let args = "encrypt plain disk.img --label data --key-file key";
    session.ok(args.split(' ').chain(CHEAP));
    session
}

fn copy(session: &Session, args: &str) -> Ran {
    session.run(format!("copy {args}").split(' ').chain(CHEAP))
}

#[track_caller]
fn copied(session: &Session, args: &str) -> Value {
    let ran = copy(session, &format!("{args} --json"));
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    serde_json::from_str(&ran.stdout()).unwrap()
}

#[track_caller]
fn holds_the_plaintext(session: &Session, args: &str) {
    let ran = session.run(format!("decrypt {args}").split(' '));
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    assert!(ran.bytes() == plaintext(), "{args}");
}

#[test]
fn a_volume_becomes_luks1_and_luks2_again() {
    let session = session();
    let made = copied(&session, "disk.img luks1.img --type luks1 --key-file key");
    assert_eq!(made["type"], "luks1");
    assert_eq!(made["sector_size"], 512);
    assert_eq!(made["size"], 5 * MIB);
    holds_the_plaintext(&session, "luks1.img - --key-file key");

    let args =
        "luks1.img luks2.img --key-file key --new-key-file other --cipher serpent-xts-plain64";
    let made = copied(&session, args);
    assert_eq!(made["type"], "luks2");
    assert_eq!(made["cipher"], "serpent-xts-plain64");
    assert_eq!(made["sector_size"], 4096);
    holds_the_plaintext(&session, "luks2.img - --key-file other");
    let old = session.run("key test luks2.img --key-file key".split(' '));
    old.fails(2, "no keyslot opens");
    // The sources are as they were.
    holds_the_plaintext(&session, "disk.img - --key-file key");
    holds_the_plaintext(&session, "luks1.img - --key-file key");
}

#[test]
fn qcow2_images_and_detached_headers_are_sources_and_destinations() {
    let session = session();
    copied(
        &session,
        "disk.img disk.qcow2 --format qcow2 --sparse --key-file key",
    );
    holds_the_plaintext(&session, "disk.qcow2 - --format qcow2 --key-file key");
    copied(
        &session,
        "disk.qcow2 data --source-format qcow2 --header head --key-file key",
    );
    holds_the_plaintext(&session, "data - --header head --key-file key");
    copied(
        &session,
        "data again.img --source-header head --key-file key",
    );
    holds_the_plaintext(&session, "again.img - --key-file key");
    // A disk of zeroes is all holes.
    session.write("zeroes", &vec![0; 32 * MIB]);
    session.ok("encrypt zeroes zeroes.img --key-file key"
        .split(' ')
        .chain(CHEAP));
    copied(
        &session,
        "zeroes.img holes.qcow2 --format qcow2 --sparse --key-file key",
    );
    let len = session.path("holes.qcow2").metadata().unwrap().len();
    assert!(len < 8 * MIB as u64, "{len}");
    copy(&session, "disk.img x.img --sparse --key-file key").fails(1, "a raw volume has no holes");
    copy(&session, "disk.qcow2 x.img --key-file key").fails(4, "no LUKS header");
    copy(&session, "plain x.img --key-file key").fails(4, "--source-header and --source-format");
    assert!(!session.exists("x.img"));
}

#[test]
fn a_volume_is_not_copied_onto_itself() {
    let session = session();
    std::fs::hard_link(session.path("disk.img"), session.path("hard")).unwrap();
    symlink("disk.img", session.path("soft")).unwrap();
    let before = session.read("disk.img");
    for itself in ["disk.img", "./disk.img", "hard", "soft"] {
        let args = format!("disk.img {itself} --key-file key --force overwrite");
        copy(&session, &args).fails(1, "is the volume itself");
    }
    let args = "disk.img new.img --header hard --key-file key --force overwrite";
    copy(&session, args).fails(1, "hard is the volume itself");
    assert!(session.read("disk.img") == before);
    session.write("old", b"of value");
    copy(&session, "disk.img old --key-file key").fails(5, "old exists");
    copied(&session, "disk.img old --key-file key --force overwrite");
    holds_the_plaintext(&session, "old - --key-file key");
}

#[test]
fn the_passphrases_are_asked_for_in_their_order() {
    let session = session();
    let args = "copy disk.img new.img --key stdin --new-key stdin";
    let ran = session.run_with(args.split(' ').chain(CHEAP), b"secret\nanother one\n");
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    session.write("another", b"another one");
    holds_the_plaintext(&session, "new.img - --key-file another");
    let wrong = copy(&session, "disk.img not.img --key-file other");
    wrong.fails(2, "no keyslot opens");
    assert!(!session.exists("not.img"));
}

/// The file that a copy writes before it has its name, and its allocated bytes.
fn unfinished(session: &Session) -> Option<u64> {
    let entries = std::fs::read_dir(session.folder()).unwrap();
    let mut found = entries.map(|entry| entry.unwrap());
    let file = found.find(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().starts_with(".new.img.luksmith-")
    })?;
    Some(file.metadata().ok()?.blocks() * 512)
}

#[test]
fn a_copy_that_is_stopped_or_killed_leaves_no_half_volume() {
    for signal in [Signal::INT, Signal::KILL] {
        let session = Session::new();
        let create = "create disk.img --size 2G --key-file key";
        session.ok(create.split(' ').chain(CHEAP));
        let args = "copy disk.img new.img --key-file key";
        let mut child = session
            .command(args.split(' ').chain(CHEAP))
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while unfinished(&session).is_none_or(|bytes| bytes < 2 << 20) {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "it does not begin"
            );
            assert!(
                child.try_wait().unwrap().is_none(),
                "it is too fast for the test"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!session.exists("new.img"), "{said}");
        if signal == Signal::INT {
            assert_eq!(output.status.code(), Some(130), "{said}");
            assert_eq!(unfinished(&session), None, "{said}");
        }
        session.ok("key test disk.img --key-file key".split(' '));
    }
}

#[test]
fn the_last_line_says_what_opens_a_new_volume() {
    let session = session();
    for (args, line) in [
        (
            "create a --size 1M --key-file key",
            "cryptsetup, librbd and luksmith serve open this volume; for QEMU and libvirt's own \
             driver: --type luks1",
        ),
        (
            "create b --size 1M --type luks1 --key-file key",
            "cryptsetup, luksmith serve, QEMU and libvirt's own driver open this volume",
        ),
        (
            "create c --size 1M --type luks1 --offset 8192 --key-file key",
            "cryptsetup, librbd, luksmith serve, QEMU and libvirt's own driver open this volume",
        ),
        (
            "encrypt plain d --format qcow2 --key-file key",
            "luksmith serve, QEMU and libvirt's own driver open this volume",
        ),
        (
            "copy disk.img e --cipher camellia-xts-plain64 --key-file key",
            "cryptsetup and luksmith serve open this volume; QEMU's own driver does not know \
             camellia-xts-plain64",
        ),
        (
            "create f --size 1M --type luks1 --key-file binary",
            "cryptsetup and luksmith serve open this volume; QEMU takes only a passphrase that is \
             UTF-8 without a NUL",
        ),
    ] {
        session.write("binary", b"\xff\0");
        let said = session.ok(args.split(' ').chain(CHEAP));
        assert_eq!(said.lines().last(), Some(line), "{args}");
    }
    let made = session.ok("create g --json --size 1M --key-file key"
        .split(' ')
        .chain(CHEAP));
    let made: Value = serde_json::from_str(&made).unwrap();
    let openers = made["opened_by"].as_array().unwrap();
    let openers: Vec<_> = openers.iter().filter_map(Value::as_str).collect();
    assert_eq!(openers, ["cryptsetup", "librbd", "luksmith"]);
}

#[test]
fn the_hints_of_what_luks1_cannot_hold_name_it() {
    let session = session();
    let convert = session.run("convert disk.img --to luks1 --force convert".split(' '));
    convert.fails(1, "`luksmith copy IMAGE NEW --type luks1`");
    session.ok(
        "create small.img --size 1M --sector-size 512 --label x --key-file key"
            .split(' ')
            .chain(CHEAP),
    );
    let convert = session.run("convert small.img --to luks1 --force convert".split(' '));
    convert.fails(1, "`luksmith copy IMAGE NEW --type luks1`");
    let qemu = session.run("qemu args disk.img --key-file key".split(' '));
    qemu.fails(1, "`luksmith copy IMAGE NEW --type luks1`");
    let disk = session
        .run("libvirt xml disk disk.img --secret 7a1b2c3d-0000-4000-8000-0123456789ab".split(' '));
    disk.fails(1, "`luksmith copy IMAGE NEW --type luks1`");
}

/// Holes of a large image are not read, and become holes.
#[test]
fn a_large_image_with_little_data_is_decrypted_sparsely() {
    let session = Session::new();
    let create = "create a.qcow2 --format qcow2 --size 200G --key-file key";
    session.ok(create.split(' ').chain(CHEAP));
    session.write("plain", &[7; 3 << 20]);
    let encrypt = "encrypt plain b.qcow2 --format qcow2 --key-file key";
    session.ok(encrypt.split(' ').chain(CHEAP));
    session.ok("resize b.qcow2 --format qcow2 --size 200G".split(' '));
    for (image, data) in [("a.qcow2", 0), ("b.qcow2", 3 << 20)] {
        let decrypt = format!("decrypt {image} {image}.raw --format qcow2 --sparse --key-file key");
        session.ok(decrypt.split(' '));
        let file = std::fs::File::open(session.path(&format!("{image}.raw"))).unwrap();
        let about = file.metadata().unwrap();
        assert_eq!(about.len(), 200 << 30);
        assert!(std::os::unix::fs::MetadataExt::blocks(&about) <= data / 512 + 64);
        let mut start = vec![1; 4 << 20];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut start, 0).unwrap();
        let data = usize::try_from(data).unwrap();
        assert!(start[..data].iter().all(|byte| *byte == 7));
        assert!(start[data..].iter().all(|byte| *byte == 0));
    }
}

/// Holes of a large source are not read either, whether it is a file or an image.
#[test]
fn a_large_source_with_little_data_is_encrypted_and_copied_sparsely() {
    use std::os::unix::fs::FileExt;
    let session = Session::new();
    let plain = std::fs::File::create(session.path("plain")).unwrap();
    let (size, places) = (200_u64 << 30, [0, (100 << 30) + 12345, (200 << 30) - 1000]);
    plain.set_len(size).unwrap();
    for at in places {
        plain.write_all_at(&[7; 1000], at).unwrap();
    }
    let encrypt = "encrypt plain a.qcow2 --format qcow2 --sparse --key-file key";
    session.ok(encrypt.split(' ').chain(CHEAP));
    copied(
        &session,
        "a.qcow2 b.qcow2 --source-format qcow2 --format qcow2 --sparse --key-file key",
    );
    session.ok("decrypt b.qcow2 again --format qcow2 --sparse --key-file key".split(' '));
    let again = std::fs::File::open(session.path("again")).unwrap();
    let about = again.metadata().unwrap();
    assert_eq!(about.len(), size);
    assert!(about.blocks() <= 3 * 128 + 64);
    for at in places {
        let mut bytes = [0; 1000];
        again.read_exact_at(&mut bytes, at).unwrap();
        assert_eq!(bytes, [7; 1000]);
    }
}
