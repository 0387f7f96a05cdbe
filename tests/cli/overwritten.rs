//! What is written in place, parts of images, and files of other users: what would be lost is
//! found and named.

use std::fs::File;
use std::os::unix::fs::{FileExt, chown};

use support::partitions::{gpt, mbr};

use crate::session::{CHEAP, Session};

const MIB: u64 = 1 << 20;

/// `t.img`, a sparse disk of 32 MiB. Partition 1 is bytes 2 MiB to 18 MiB, partition 2 the 8 MiB
/// from 20 MiB on.
fn session() -> Session {
    let session = Session::new();
    let mut disk = vec![0; 32 << 20];
    let sectors = |from, to| from * MIB / 512..to * MIB / 512;
    gpt(&mut disk, 512, &[(1, sectors(2, 18)), (2, sectors(20, 28))]);
    session.write("t.img", &[]);
    let file = File::options().write(true).open(session.path("t.img"));
    let file = file.unwrap();
    file.set_len(32 << 20).unwrap();
    file.write_all_at(&disk[..64 << 10], 0).unwrap();
    let end = disk.len() - (64 << 10);
    file.write_all_at(&disk[end..], end as u64).unwrap();
    session.write("plain", &[7; 1 << 20]);
    let encrypt = "encrypt plain v.img --key-file key --type luks1";
    session.ok(encrypt.split(' ').chain(CHEAP));
    session
}

fn write(session: &Session, offset: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(session.path("t.img"));
    file.unwrap().write_all_at(bytes, offset).unwrap();
}

/// The commands that write to a place.
fn commands(place: &str) -> [String; 4] {
    [
        format!("create {place} --key-file key --type luks1"),
        format!("encrypt plain {place} --key-file key --type luks1"),
        format!("copy v.img {place} --key-file key --type luks1"),
        format!("decrypt v.img {place} --key-file key"),
    ]
}

fn words(command: &str) -> impl Iterator<Item = &str> {
    let cheap = CHEAP.iter().filter(|_| !command.starts_with("decrypt"));
    command.split(' ').chain(cheap.copied())
}

#[test]
fn data_behind_the_first_mebibyte_is_found() {
    let session = session();
    for at in [2 * MIB, 3 * MIB + 5, 9 * MIB, 18 * MIB - 1] {
        write(&session, at, &[1]);
        let before = session.read("t.img");
        for place in ["t.img,partition=1", "t.img,offset=2M,size=16M"] {
            for command in commands(place) {
                let says = "would be overwritten: it holds data";
                session.run(words(&command)).fails(5, says);
                assert!(session.read("t.img") == before, "{command}: written");
            }
        }
        write(&session, at, &[0]);
    }
    for command in commands("t.img,partition=1") {
        write(&session, 9 * MIB, &[1]);
        let forced = format!("{command} --force overwrite");
        session.ok(words(&forced));
    }
}

#[test]
fn where_only_zeroes_are_nothing_is_asked() {
    for command in commands("t.img,partition=1") {
        let session = session();
        session.ok(words(&command));
    }
    // Between the partitions.
    for command in commands("t.img,offset=28M,size=3M") {
        let session = session();
        session.ok(words(&command));
    }
}

#[test]
fn a_range_that_crosses_partitions_is_named() {
    let session = session();
    let mut old = vec![0; 32 << 20];
    mbr(&mut old, &[(3, 0x83, 4096..8192)]);
    session.write("mbr.img", &old);
    for (place, says) in [
        ("t.img,offset=1M,size=24M", "the partitions 1 and 2"),
        ("t.img,offset=1M,size=4M", "partition 1"),
        ("t.img,offset=3M,size=4M", "partition 1"),
        ("t.img,offset=19M,size=4M", "partition 2"),
        ("mbr.img,offset=1M,size=4M", "partition 3"),
    ] {
        let says = format!("would be overwritten: it shares bytes with {says}\n");
        for command in commands(place) {
            let ran = session.run(words(&command));
            ran.fails(5, &says.replace('\n', ""));
            ran.fails(5, "--force overwrite");
        }
    }
    let create = "create t.img,offset=1M,size=24M --key-file key --type luks1 --force overwrite";
    session.ok(words(create));
    // The same range without a table.
    session.write("none.img", &[0; 32 << 20]);
    session.ok(words(
        "create none.img,offset=1M,size=24M --key-file key --type luks1",
    ));
}

#[test]
fn the_owner_of_a_replaced_file_is_named() {
    let session = session();
    session.write("theirs.img", b"data");
    // Only root can change the owner of a file.
    if chown(session.path("theirs.img"), Some(4711), None).is_err() {
        return;
    }
    let says = "; it belongs to user 4711, the new file to user 0";
    for command in commands("theirs.img") {
        let size = match command.starts_with("create") {
            true => " --size 1M",
            false => "",
        };
        session
            .run(words(&format!("{command}{size}")))
            .fails(5, says);
    }
    session.write("ours.img", b"data");
    let ran = session.run(words("create ours.img --size 1M --key-file key"));
    ran.fails(5, "it holds 4 bytes of data");
    assert!(!ran.stderr().contains("belongs to"), "{}", ran.stderr());
}

/// Only this program opens a part of an image by its name.
#[test]
fn a_volume_in_a_part_is_opened_by_luksmith_only() {
    let session = session();
    let ran = session.ok(words(
        "create t.img,partition=1 --key-file key --type luks1",
    ));
    let says = "only luksmith serve opens this volume; other programs open no part of a file";
    assert!(ran.contains(says), "{ran}");
    let encrypt = "encrypt plain t.img,partition=2 --key-file key --type luks1 --json";
    let json: serde_json::Value = serde_json::from_str(&session.ok(words(encrypt))).unwrap();
    assert_eq!(json["opened_by"], serde_json::json!(["luksmith"]));
}
