//! `reencrypt --encrypt`: plaintext becomes a volume where it is, or nothing is changed.

use std::fs;
use std::process::Command;

use luksmith::backend::file::{FileBackend, OpenOptions};
use luksmith::backend::room::Room as _;
use support::peers;

use crate::session::{CHEAP, Session};

const ROOM: u64 = 16 << 20;

/// A folder with `plain.img`, and a copy of it.
fn plain() -> Session {
    let session = Session::new();
    let bytes: Vec<u8> = (0..=250_u8).cycle().take(3 << 20).collect();
    session.write("plain.img", &bytes);
    session.write("copy", &bytes);
    session
}

/// Whether a file in the folder can get room before its data.
fn has_room(session: &Session) -> bool {
    let file = FileBackend::open(session.path("plain.img"), OpenOptions::new().write(true));
    file.unwrap().can_insert(ROOM).is_ok()
}

fn encrypt(args: &str) -> Vec<String> {
    let args = format!("reencrypt --encrypt {args}");
    let args = args.split(' ').map(str::to_owned);
    args.chain(CHEAP.map(str::to_owned)).collect()
}

fn is_whole(session: &Session, of: &str) {
    session.ok(format!("decrypt {of} again --key-file key --force overwrite").split(' '));
    assert!(session.read("again") == session.read("copy"), "{of}");
}

#[test]
fn with_a_detached_header() {
    let session = plain();
    let of = "plain.img --header plain.header";
    session.ok(encrypt(&format!("{of} --key-file key --init-only")));
    assert!(session.read("plain.img") == session.read("copy"));
    // What is not converted is read as it is.
    is_whole(&session, of);
    session
        .run(encrypt(&format!("{of} --key-file other")))
        .fails(2, "new volume key");
    let info = session.ok(format!("info {of}").split(' '));
    assert!(info.contains("the rest is plaintext"), "{info}");
    session
        .run(format!("serve {of} --key-file key --socket vm/a.sock").split(' '))
        .fails(4, "--read-only");
    let done = session.ok(encrypt(&format!("{of} --key-file key")));
    assert!(done.contains("is encrypted"), "{done}");
    assert_eq!(session.read("plain.img").len(), session.read("copy").len());
    let (now, before) = (session.read("plain.img"), session.read("copy"));
    let same = now.chunks(512).zip(before.chunks(512));
    assert_eq!(same.filter(|(now, before)| now == before).count(), 0);
    is_whole(&session, of);
    session
        .run(encrypt(&format!("{of} --key-file key")))
        .fails(1, "begins as a LUKS volume");
}

#[test]
fn with_room_before_the_data() {
    let session = plain();
    if !has_room(&session) {
        session
            .run(encrypt("plain.img --key-file key"))
            .fails(4, "--header FILE");
        assert!(session.read("plain.img") == session.read("copy"));
        return;
    }
    session.ok(encrypt("plain.img --key-file key --init-only"));
    let image = session.read("plain.img");
    let room = usize::try_from(ROOM).unwrap();
    assert!(image[room..] == session.read("copy"));
    is_whole(&session, "plain.img");
    session.write("begun.img", &image);
    session.ok(encrypt("plain.img --key-file key --resume"));
    is_whole(&session, "plain.img");
    assert!(!session.exists("plain.img.luksmith-undo"));
    let Some(cryptsetup) = peers::find("cryptsetup") else {
        return;
    };
    let resume = "-q --disable-locks reencrypt --resume-only --force-offline-reencrypt";
    let mut command = Command::new(cryptsetup);
    command.args(resume.split(' ')).arg("--key-file");
    command
        .arg(session.path("key"))
        .arg(session.path("begun.img"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    is_whole(&session, "begun.img");
}

#[test]
fn what_is_no_plaintext_is_refused() {
    let session = plain();
    session.write("small", &[7; 513]);
    session.write("odd", &[7; 4096 + 512]);
    session.write("image.qcow2", b"QFI\xfb\0\0\0\x03");
    fs::File::options()
        .write(true)
        .open(session.path("image.qcow2"))
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    session.ok("create disk.img --size 1M --key-file key"
        .split(' ')
        .chain(CHEAP));
    let refused = |args: &str, code: i32, said: &str| {
        let (image, _) = args.split_once(' ').unwrap();
        let before = session.read(image);
        let args = format!("{args} --key-file key");
        session.run(encrypt(&args)).fails(code, said);
        assert!(session.read(image) == before, "{args}: written");
        assert!(!session.exists("new.header"), "{args}");
        assert!(!session.exists(&format!("{image}.luksmith-undo")), "{args}");
    };
    refused("small --header new.header", 1, "truncate -s %");
    refused(
        "image.qcow2 --header new.header",
        1,
        "--source-format qcow2",
    );
    refused("disk.img --header new.header", 1, "--force as-it-is");
    refused("plain.img --header disk.img", 1, "begins as a LUKS volume");
    refused("plain.img --header new.header --resume", 1, "in progress");
    refused(
        "plain.img --header new.header --resilience journal",
        4,
        "copy of its plaintext",
    );
    refused(
        "odd --header new.header --sector-size 4096",
        1,
        "whole sectors of 4096",
    );
    refused(
        "plain.img --header new.header --key-file other",
        1,
        "luksmith key add",
    );
    refused(
        "plain.img --header new.header --key-size 320",
        1,
        "--key-size",
    );
    let two = "plain.img --header new.header --key-file key --force as-it-is";
    session.ok(encrypt(&two.replace("plain.img", "disk.img")));
    session.ok("decrypt disk.img inner --header new.header --key-file key".split(' '));
    session.ok("key test inner --key-file key".split(' '));
}
