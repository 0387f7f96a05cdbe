//! A volume in a part of an image: `IMAGE,partition=N` and `IMAGE,offset=N,size=N`.

use std::ops::Range;
use std::process::Stdio;

use serde_json::Value;
use support::partitions::{gpt, mbr};
use support::peers::find;

use crate::session::{CHEAP, Session};

const MIB: usize = 1 << 20;
const FIRST: Range<usize> = MIB..4 * MIB;
const SECOND: Range<usize> = 5 * MIB..12 * MIB;
const SIZE: usize = 13 * MIB;

/// Options for a header of 2 MiB.
const SMALL: [&str; 6] = [
    "--luks2-keyslots-size",
    "1M",
    "--offset",
    "4096",
    "--sector-size",
    "512",
];

/// Bytes of which no sector is zeroes, and none is like another.
fn pattern(len: usize) -> Vec<u8> {
    let words = (0..len as u64 / 8).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n ^ 1);
    words.flat_map(u64::to_le_bytes).collect()
}

/// A disk with a GPT and two partitions, full of other data.
fn disk() -> Vec<u8> {
    let mut image = pattern(SIZE);
    image[..64 << 10].fill(0);
    image[SIZE - (64 << 10)..].fill(0);
    let sectors = |bytes: &Range<usize>| bytes.start as u64 / 512..bytes.end as u64 / 512;
    let partitions = [(1, sectors(&FIRST)), (2, sectors(&SECOND))];
    gpt(&mut image, 512, &partitions);
    image
}

/// With `disk.img`, a [`disk`], and in its second partition a volume that `key` opens.
fn session() -> Session {
    let session = Session::new();
    session.write("disk.img", &disk());
    let create = "create disk.img,partition=2 --force overwrite --key-file key";
    session.ok(create.split(' ').chain(SMALL).chain(CHEAP));
    session
}

/// Fails unless all bytes outside of a part are those of [`disk`].
#[track_caller]
fn untouched_outside(session: &Session, part: &Range<usize>, after: &str) {
    let (before, now) = (disk(), session.read("disk.img"));
    assert_eq!(before.len(), now.len(), "{after}");
    let differs = |at: &usize| !part.contains(at) && before[*at] != now[*at];
    let differs = (0..SIZE).find(differs);
    assert_eq!(differs, None, "after {after}");
}

#[test]
fn every_change_keeps_to_the_partition() {
    let session = session();
    let image = || session.read("disk.img")[SECOND].to_vec();
    untouched_outside(&session, &SECOND, "create");
    session.write("third", b"third");
    session.write("plain", &pattern(2 * MIB));
    session.write("token", br#"{"type":"x","keyslots":["0"]}"#);
    let other = "create other.img --size 1M --key-file key";
    session.ok(other.split(' ').chain(SMALL).chain(CHEAP));
    let mut changes = 0;
    for line in [
        "key add I --key-file key --new-key-file other CHEAP",
        "key add I --new-key-file third --unbound --key-size 512 CHEAP",
        "key priority I --keyslot 1 --priority prefer",
        "key change I --key-file other --new-key-file third CHEAP",
        "key remove I --keyslot 1 --key-file key",
        "key remove I --keyslot 2 --key-file key",
        "config I --label here --subsystem there",
        "token import I --json-file token",
        "token remove I --token-id 0",
        "header backup I saved",
        "config I --uuid 01234567-89ab-cdef-0123-456789abcdef --force uuid",
        "header restore I saved --force restore --force other-uuid",
        "reencrypt I --key-file key CHEAP",
        "config I --label= --subsystem=",
        "convert I --to luks1 --force convert",
        "convert I --to luks2 --force convert",
        "encrypt plain I --force overwrite --key-file key SMALL CHEAP",
        "copy other.img I --force overwrite --key-file key SMALL CHEAP",
        "create I --force overwrite --key-file key --type luks1 CHEAP",
        "header erase I --force erase",
        "decrypt other.img I --force overwrite --key-file key",
    ] {
        let before = image();
        let words = line.split(' ').flat_map(|word| match word {
            "I" => vec!["disk.img,partition=2"],
            "CHEAP" => CHEAP.to_vec(),
            "SMALL" => SMALL.to_vec(),
            word => vec![word],
        });
        session.ok(words);
        untouched_outside(&session, &SECOND, line);
        changes += usize::from(image() != before);
    }
    assert_eq!(changes, 20, "only the backup changes nothing");
    let plain = session.run(["decrypt", "other.img", "-", "--key-file", "key"]);
    assert!(image().starts_with(plain.bytes()), "the plaintext");
    let names = std::fs::read_dir(session.folder()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(!names.into_iter().any(|name| name.contains("luksmith")));
}

#[test]
fn a_partition_is_the_range_of_its_bytes() {
    let session = session();
    let info = |image: &str| -> Value {
        serde_json::from_str(&session.ok(["info", image, "--json"])).unwrap()
    };
    let by_number = info("disk.img,partition=2");
    assert_eq!(by_number["image"], "disk.img,partition=2");
    assert_eq!(by_number["size"], (SECOND.len() - 2 * MIB) as u64);
    for image in [
        "disk.img,offset=5M,size=7M",
        "disk.img,offset=5242880,size=7168KiB",
    ] {
        let by_range = info(image);
        assert_eq!(by_range["uuid"], by_number["uuid"]);
        assert_eq!(by_range["size"], by_number["size"]);
    }
    // Without a size it ends with the image.
    let to_end = info("disk.img,offset=5M");
    assert_eq!(to_end["size"], (SIZE - SECOND.start - 2 * MIB) as u64);

    // The bytes of the partition are a volume of their own, with the same plaintext.
    session.write("plain", &pattern(5 * MIB));
    let encrypt = "encrypt plain disk.img,partition=2 --force overwrite --key-file key";
    session.ok(encrypt.split(' ').chain(SMALL).chain(CHEAP));
    session.write("part.img", &session.read("disk.img")[SECOND]);
    let plain = |image| session.run(["decrypt", image, "-", "--key-file", "key"]);
    assert!(plain("disk.img,partition=2").bytes() == plain("part.img").bytes());
    assert!(plain("part.img").bytes() == pattern(5 * MIB));
    session.ok(["key", "test", "disk.img,partition=2", "--key-file", "key"]);
    session.ok(["key", "list", "disk.img,partition=2"]);
    session.ok(["verify-ciphertext", "disk.img,partition=2"]);
    session.ok(["inspect", "--format", "luks2", "disk.img,partition=2"]);
}

#[test]
fn plain_data_is_read_from_a_partition_and_written_into_one() {
    let session = session();
    let first = disk()[FIRST].to_vec();
    let encrypt = "encrypt disk.img,partition=1 v.img --key-file key";
    session.ok(encrypt.split(' ').chain(CHEAP));
    let ran = session.run(["decrypt", "v.img", "-", "--key-file", "key"]);
    assert!(ran.bytes() == first);
    // Within one image: from a partition into another, and back.
    let args = "encrypt disk.img,partition=1 disk.img,partition=2 --force overwrite --key-file key";
    session.ok(args.split(' ').chain(SMALL).chain(CHEAP));
    untouched_outside(&session, &SECOND, args);
    let ran = session.run(["decrypt", "disk.img,partition=2", "-", "--key-file", "key"]);
    assert!(ran.bytes()[..first.len()] == first);
    session.write("plain", &[7; MIB]);
    session.ok("encrypt plain small.img --key-file key"
        .split(' ')
        .chain(CHEAP));
    let args = "copy small.img disk.img,partition=1 --force overwrite --key-file key";
    session.ok(args.split(' ').chain(SMALL).chain(CHEAP));
    let args = "decrypt disk.img,partition=1 disk.img,offset=12M,size=64K --force overwrite";
    let ran = session.run(args.split(' ').chain(["--key-file", "key"]));
    ran.fails(
        4,
        "disk.img,offset=12582912,size=65536 has 65536 bytes, the volume 1048576",
    );
    let args = "copy disk.img,partition=1 disk.img,partition=2 --force overwrite --key-file key";
    session.ok(args.split(' ').chain(SMALL).chain(CHEAP));
    let ran = session.run(["decrypt", "disk.img,partition=2", "-", "--key-file", "key"]);
    assert!(ran.bytes()[..MIB] == [7; MIB]);
}

#[test]
fn what_is_no_partition_is_refused() {
    let session = session();
    session.write("empty.img", &[0; MIB]);
    session.write("small.img", &[0; 100]);
    let mut damaged = session.read("disk.img");
    damaged[512 + 60] ^= 1;
    session.write("damaged.img", &damaged);
    let mut old = vec![0; MIB];
    mbr(
        &mut old,
        &[(1, 0x83, 63..100), (2, 0x05, 200..400), (3, 0x83, 90..120)],
    );
    session.write("mbr.img", &old);
    session.write(
        "qcow2.img",
        &[&b"QFI\xfb\0\0\0\x03"[..], &[0; 4096]].concat(),
    );
    for (image, code, says) in [
        (
            "disk.img,partition=3",
            1,
            "no partition 3: the GPT has 1 and 2",
        ),
        ("disk.img,partition=0", 1, "takes the number of a partition"),
        ("disk.img,partition=x", 1, "takes the number of a partition"),
        ("disk.img,offset=1.5M", 1, "offset= and size= take bytes"),
        (
            "disk.img,offset=0,size=0",
            1,
            "offset= and size= take bytes",
        ),
        ("disk.img,offset=14M", 1, "not within its 13631488 bytes"),
        (
            "disk.img,offset=12M,size=2M",
            1,
            "bytes 12582912 to 14680064",
        ),
        ("disk.img,offset=16E", 1, "offset= and size= take bytes"),
        ("disk.img,partition=1", 4, "no LUKS header"),
        ("absent.img,partition=1", 4, "absent.img does not exist"),
        (
            "empty.img,partition=1",
            4,
            "there is no table of partitions",
        ),
        (
            "small.img,partition=1",
            4,
            "there is no table of partitions",
        ),
        (
            "damaged.img,partition=2",
            4,
            "header of the GPT is damaged; its second copy",
        ),
        (
            "damaged.img,partition=2",
            4,
            "IMAGE,offset=5242880,size=7340032 opens that range",
        ),
        ("mbr.img,partition=2", 1, "partition 2 is an extended one"),
        ("mbr.img,partition=1", 4, "partition 1 overlaps partition 3"),
        (
            "mbr.img,partition=5",
            4,
            "chain of logical partitions is damaged",
        ),
        ("qcow2.img,partition=1", 4, "`qemu-nbd -f qcow2"),
    ] {
        session.run(["info", image]).fails(code, says);
    }
    // A damaged table does not hinder a range.
    session.ok(["info", "damaged.img,offset=5242880,size=7340032"]);

    let resize = "resize disk.img,partition=2 --size 1M --force shrink";
    let ran = session.run(resize.split(' '));
    ran.fails(
        1,
        "a volume on disk.img,partition=2 reaches to its end: 5242880 bytes",
    );
    ran.fails(1, "change the partition");
    let create = "create disk.img,partition=2 --size 1M --force overwrite --key-file key";
    session
        .run(create.split(' ').chain(SMALL).chain(CHEAP))
        .fails(1, "a volume on disk.img,partition=2 reaches to its end");
    let create = "create disk.img,partition=2 --key-file key";
    session
        .run(create.split(' ').chain(SMALL).chain(CHEAP))
        .fails(
            5,
            "disk.img,partition=2 would be overwritten: it holds the LUKS2 volume",
        );
    let create = "create absent.img,partition=2 --size 1M --key-file key";
    session
        .run(create.split(' ').chain(CHEAP))
        .fails(4, "absent.img does not exist");
    assert!(!session.exists("absent.img,partition=2"));
    let args = ["qemu", "args", "disk.img,partition=2", "--key-file", "key"];
    let ran = session.run(args);
    assert_ne!(ran.code(), 0);
    untouched_outside(&session, &SECOND, "refusals");
}

#[test]
fn an_existing_file_of_the_whole_name_wins() {
    let session = session();
    let create = "create whole.img --size 1M --label whole --key-file key";
    session.ok(create.split(' ').chain(CHEAP));
    let label = |image: &str| -> Value {
        let info: Value = serde_json::from_str(&session.ok(["info", image, "--json"])).unwrap();
        info["label"].clone()
    };
    assert_eq!(label("disk.img,partition=2"), "");
    let (from, to) = (
        session.path("whole.img"),
        session.path("disk.img,partition=2"),
    );
    std::fs::rename(from, to).unwrap();
    assert_eq!(label("disk.img,partition=2"), "whole");
    assert_eq!(label("./disk.img,partition=2"), "whole");
    assert_eq!(label("disk.img,offset=5M,size=7M"), "");
}

#[test]
fn the_source_is_not_overwritten_by_another_name() {
    let session = session();
    let copy = |to: &str, says: &str| {
        let args = format!("copy disk.img,partition=2 {to} --force overwrite --key-file key");
        session.run(args.split(' ').chain(CHEAP)).fails(1, says);
        let args = format!("decrypt disk.img,partition=2 {to} --force overwrite --key-file key");
        session.run(args.split(' ')).fails(1, says);
    };
    copy("disk.img", "the volume is in disk.img");
    copy("disk.img,partition=2", "the volume is in disk.img");
    copy(
        "disk.img,offset=5M,size=7M",
        "bytes 5242880 to 12582912 open, which overlap it",
    );
    copy("disk.img,offset=8M", "which overlap it");
    std::fs::hard_link(session.path("disk.img"), session.path("other.img")).unwrap();
    copy("other.img,partition=2", "the volume is in other.img");
    copy("other.img,offset=5M,size=7M", "which overlap it");
    untouched_outside(&session, &SECOND, "refusals");
    session.ok(["key", "test", "disk.img,partition=2", "--key-file", "key"]);
}

#[test]
fn the_whole_image_is_locked() {
    let session = session();
    let held = std::fs::File::open(session.path("disk.img")).unwrap();
    held.lock().unwrap();
    let add = "key add disk.img,partition=2 --key-file key --new-key-file other";
    let ran = session.run(add.split(' ').chain(CHEAP));
    ran.fails(5, "disk.img is busy: in use by pid ");
    let ran = session.run(["header", "backup", "disk.img,partition=2", "saved"]);
    ran.fails(5, "busy");
    drop(held);
    session.ok(add.split(' ').chain(CHEAP));
}

/// Two partitions are served at once, for writing; what overlaps is refused.
#[test]
fn two_partitions_of_an_image_are_served() {
    let session = session();
    let create = "create disk.img,partition=1 --force overwrite --key-file key";
    session.ok(create.split(' ').chain(SMALL).chain(CHEAP));
    let serve = |exports: [&str; 2]| {
        let mut args = vec!["serve", "--socket", "run/nbd.sock"];
        args.extend(exports.iter().flat_map(|export| ["--export", export]));
        // It ends when the command does.
        args.extend(["--run", "cat > /dev/null"]);
        session.run(args)
    };
    for (second, says) in [
        ("b=disk.img,partition=1,key=file:key", "named twice"),
        (
            "b=disk.img,offset=1M,size=3M,key=file:key",
            "which overlap it",
        ),
        ("b=disk.img,,offset=2M,key=file:key", "which overlap it"),
        ("b=disk.img,key=file:key", "is named twice"),
    ] {
        let ran = serve(["a=disk.img,partition=1,key=file:key", second]);
        assert_ne!(ran.code(), 0, "{second}");
        assert!(ran.stderr().contains(says), "{second}: {}", ran.stderr());
    }
    let ran = serve([
        "a=disk.img,partition=1,key=file:key",
        "b=disk.img,partition=2,key=file:key",
    ]);
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    untouched_outside(&session, &(FIRST.start..SECOND.end), "serve");
}

/// A header in one partition, and its data in another one of the same image.
#[test]
fn header_and_data_in_two_partitions() {
    let session = session();
    let create = "create disk.img,partition=2 --header disk.img,partition=1 --force overwrite \
                  --luks2-keyslots-size 512K --key-file key";
    session.ok(create
        .split(' ')
        .filter(|word| !word.is_empty())
        .chain(CHEAP));
    let detached = ["--header", "disk.img,partition=1"];
    let info = ["info", "disk.img,partition=2", "--json"];
    let info: Value = serde_json::from_str(&session.ok(info.iter().chain(&detached))).unwrap();
    assert_eq!(info["size"], SECOND.len() as u64);
    let add = "key add disk.img,partition=2 --key-file key --new-key-file other";
    session.ok(add.split(' ').chain(detached).chain(CHEAP));
    let test = "key test disk.img,partition=2 --key-file other";
    session.ok(test.split(' ').chain(detached));
    untouched_outside(&session, &(FIRST.start..SECOND.end), "create");
}

#[test]
fn a_partition_of_an_export() {
    let Some(nbdkit) = find("nbdkit") else {
        return;
    };
    let session = session();
    let mut server = std::process::Command::new(nbdkit)
        .args(["--foreground", "--unix", "nbd.sock", "file", "disk.img"])
        .current_dir(session.folder())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let waiting = std::time::Instant::now();
    while !session.exists("nbd.sock") {
        assert!(waiting.elapsed().as_secs() < 30);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let uri = "nbd+unix:///?socket=nbd.sock,partition=2";
    session.ok(["key", "test", uri, "--key-file", "key"]);
    let add = [
        "key",
        "add",
        uri,
        "--key-file",
        "key",
        "--new-key-file",
        "other",
    ];
    session.ok(add.iter().chain(&CHEAP));
    session.write("plain", &pattern(2 * MIB));
    let encrypt = [
        "encrypt",
        "plain",
        uri,
        "--force",
        "overwrite",
        "--key-file",
        "key",
    ];
    session.ok(encrypt.iter().chain(&SMALL).chain(&CHEAP));
    let ran = session.run(["decrypt", uri, "-", "--key-file", "key"]);
    assert!(ran.bytes()[..2 * MIB] == pattern(2 * MIB));
    let plain = "nbd+unix:///?socket=nbd.sock,partition=1";
    session.ok(["encrypt", plain, "v.img", "--key-file", "key"]
        .iter()
        .chain(&CHEAP));
    let ran = session.run(["decrypt", "v.img", "-", "--key-file", "key"]);
    assert!(ran.bytes() == &disk()[FIRST]);
    session.ok("encrypt plain small.img --key-file key"
        .split(' ')
        .chain(CHEAP));
    let range = "nbd+unix:///?socket=nbd.sock,offset=6M,size=2M";
    session.ok([
        "decrypt",
        "small.img",
        range,
        "--force",
        "overwrite",
        "--key-file",
        "key",
    ]);
    session
        .run(["info", "nbd+unix:///?socket=nbd.sock,partition=9"])
        .fails(1, "no partition 9");
    session
        .run(["info", "nbd+unix:///?socket=nbd.sock,offset=1G"])
        .fails(1, "not within");
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(session.read("disk.img")[6 * MIB..8 * MIB] == pattern(2 * MIB));
    untouched_outside(&session, &SECOND, "changes of an export");
}

/// An encrypted qcow2 image can be in a partition. It grows up to the end of it.
#[test]
fn a_qcow2_image_in_a_partition() {
    let session = Session::new();
    session.write("disk.img", &disk());
    let create = "create disk.img,partition=2 --format qcow2 --size 16M --force overwrite";
    let args = create.split(' ').chain(["--key-file", "key"]).chain(CHEAP);
    session.ok(args);
    let info = [
        "info",
        "disk.img,partition=2",
        "--format",
        "qcow2",
        "--json",
    ];
    let info: Value = serde_json::from_str(&session.ok(info)).unwrap();
    assert_eq!(info["size"], 16 << 20);
    untouched_outside(&session, &SECOND, "create");
    session.write("plain", &pattern(8 * MIB));
    let encrypt = "encrypt plain disk.img,partition=2 --format qcow2 --force overwrite";
    let args = encrypt.split(' ').chain(["--key-file", "key"]).chain(CHEAP);
    session.run(args).fails(4, "no space left");
    untouched_outside(&session, &SECOND, "a partition that is full");
}
