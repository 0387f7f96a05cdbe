//! UDF volumes: made here, and by mkudffs.

use std::process::Command;

use luksmith_formats::image::udf::crc;
use support::peers;

use crate::judge::{self, Case, le16, le32, put, table};
use crate::{differ, iso};

const BLOCK: usize = 2048;
const BLOCKS: usize = 300;

const FIRST: usize = 32768;
const MAIN: usize = 96;
const INTEGRITY: usize = 128;
const ANCHOR: usize = 256;
const RESERVE: usize = 280;
/// Within both sequences.
const PARTITION: usize = 1;
const VOLUME: usize = 2;
const TERMINATOR: usize = 4;

/// Writes the tag of a descriptor over its content.
fn tag(image: &mut [u8], block_size: usize, block: usize, kind: u16) {
    let descriptor = &mut image[block * block_size..][..512];
    le16(descriptor, 0, kind);
    le16(descriptor, 2, 3);
    le16(descriptor, 8, crc(&descriptor[16..]));
    le16(descriptor, 10, 512 - 16);
    le32(descriptor, 12, u32::try_from(block).unwrap());
    descriptor[4] = 0;
    descriptor[4] = descriptor[..16]
        .iter()
        .fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
}

fn anchor(image: &mut [u8], block_size: usize, block: usize, main: usize, reserve: usize) {
    let at = block * block_size;
    for (at, first) in [(at + 16, main), (at + 24, reserve)] {
        le32(image, at, u32::try_from(16 * block_size).unwrap());
        le32(image, at + 4, u32::try_from(first).unwrap());
    }
    tag(image, block_size, block, 2);
}

fn with_blocks_of(block_size: usize) -> Vec<u8> {
    let mut image = vec![0; BLOCKS * block_size];
    for (number, identifier) in [b"BEA01", b"NSR03", b"TEA01"].into_iter().enumerate() {
        let at = FIRST + number * block_size.max(2048);
        put(&mut image, at + 1, identifier);
        image[at + 6] = 1;
    }
    for first in [MAIN, RESERVE] {
        let at = |number: usize| (first + number) * block_size;
        le32(&mut image, at(PARTITION) + 188, 257);
        le32(&mut image, at(PARTITION) + 192, 20);
        le32(
            &mut image,
            at(VOLUME) + 212,
            u32::try_from(block_size).unwrap(),
        );
        le32(
            &mut image,
            at(VOLUME) + 432,
            u32::try_from(block_size).unwrap(),
        );
        le32(
            &mut image,
            at(VOLUME) + 436,
            u32::try_from(INTEGRITY).unwrap(),
        );
        for (number, kind) in [1, 5, 6, 7, 8].into_iter().enumerate() {
            tag(&mut image, block_size, first + number, kind);
        }
    }
    for block in [ANCHOR, BLOCKS - 1] {
        anchor(&mut image, block_size, block, MAIN, RESERVE);
    }
    image
}

/// Changes a field of a descriptor in both sequences, and corrects their tags.
fn change(image: &mut [u8], number: usize, kind: u16, field: usize, value: u32) {
    for first in [MAIN, RESERVE] {
        le32(image, (first + number) * BLOCK + field, value);
        tag(image, BLOCK, first + number, kind);
    }
}

#[test]
fn volumes() {
    let cases: &[Case] = &[
        ("no volume", "format.not", |i| put(i, FIRST + 1, b"xxxxx")),
        ("the older version", "", |i| put(i, FIRST + 2049, b"NSR02")),
        ("no version", "udf.recognition", |i| {
            put(i, FIRST + 2049, b"NSR04")
        }),
        ("another type", "udf.recognition", |i| i[FIRST + 2048] = 1),
        ("a boot descriptor", "", |i| {
            put(i, FIRST + 4096, b"\0BOOT2\x01");
            put(i, FIRST + 6144, b"\0TEA01\x01");
        }),
        ("two versions", "udf.recognition", |i| {
            put(i, FIRST + 4096, b"\0NSR02\x01");
            put(i, FIRST + 6144, b"\0TEA01\x01");
        }),
        ("no end", "udf.recognition", |i| {
            put(i, FIRST + 4096, &[0; 7])
        }),
        ("no volume before the end", "udf.recognition", |i| {
            put(i, FIRST + 2048, b"\0TEA01\x01")
        }),
        ("a second sequence", "udf.recognition", |i| {
            put(i, FIRST + 6144, b"\0BEA01\x01")
        }),
        ("boot descriptors without an end", "udf.recognition", |i| {
            for at in (FIRST + 2048..FIRST + 70 * 2048).step_by(2048) {
                put(i, at, b"\0BOOT2\x01");
            }
        }),
        ("only the last anchor", "", |i| {
            i[ANCHOR * BLOCK..][..512].fill(0)
        }),
        ("no anchor", "udf.anchor", |i| {
            i[ANCHOR * BLOCK..][..512].fill(0);
            i[(BLOCKS - 1) * BLOCK..].fill(0);
        }),
        ("an anchor at another block", "udf.anchor", |i| {
            for block in [ANCHOR, BLOCKS - 1] {
                anchor(i, BLOCK, block, MAIN, RESERVE);
                i[block * BLOCK + 12] ^= 1;
                i[block * BLOCK + 4] = i[block * BLOCK + 4].wrapping_add(1);
            }
        }),
        ("two anchors", "udf.anchor", |i| {
            anchor(i, BLOCK, BLOCKS - 1, RESERVE, MAIN)
        }),
        ("an anchor of smaller blocks", "udf.anchor", |i| {
            anchor(i, 512, ANCHOR, MAIN, RESERVE)
        }),
        ("a wrong checksum of a tag", "udf.descriptor", |i| {
            i[MAIN * BLOCK + 4] ^= 1
        }),
        ("a wrong checksum", "udf.descriptor", |i| {
            i[MAIN * BLOCK + 30] ^= 1
        }),
        ("a checksum over too much", "udf.descriptor", |i| {
            le16(i, MAIN * BLOCK + 10, 497)
        }),
        ("an unknown version", "udf.descriptor", |i| {
            tag(i, BLOCK, MAIN, 1);
            i[MAIN * BLOCK + 2] = 4;
            i[MAIN * BLOCK + 4] = i[MAIN * BLOCK + 4].wrapping_add(1);
        }),
        ("an unknown descriptor", "udf.descriptor", |i| {
            tag(i, BLOCK, MAIN, 9)
        }),
        ("a sequence that goes on", "udf.descriptor", |i| {
            tag(i, BLOCK, MAIN, 3)
        }),
        ("no terminator", "udf.descriptor", |i| {
            for number in TERMINATOR..16 {
                tag(i, BLOCK, MAIN + number, 7);
            }
        }),
        ("no volume descriptor", "udf.descriptor", |i| {
            tag(i, BLOCK, MAIN + VOLUME, 7)
        }),
        ("another order", "", |i| {
            let at = (RESERVE + PARTITION) * BLOCK;
            let (one, two) = i[at..at + 2 * BLOCK].split_at_mut(BLOCK);
            one.swap_with_slice(two);
            tag(i, BLOCK, RESERVE + PARTITION, 6);
            tag(i, BLOCK, RESERVE + VOLUME, 5);
        }),
        ("two primary descriptors", "udf.copies", |i| {
            i[RESERVE * BLOCK + 100] ^= 1;
            tag(i, BLOCK, RESERVE, 1);
        }),
        ("other blocks", "udf.block-size", |i| {
            change(i, VOLUME, 6, 212, 512)
        }),
        ("a partition over the end", "udf.size", |i| {
            change(i, PARTITION, 5, 192, 44)
        }),
        ("a partition to the end", "", |i| {
            change(i, PARTITION, 5, 192, 43)
        }),
        ("an empty partition", "udf.size", |i| {
            change(i, PARTITION, 5, 192, 0)
        }),
        ("the largest partition", "udf.size", |i| {
            change(i, PARTITION, 5, 188, u32::MAX);
            change(i, PARTITION, 5, 192, u32::MAX);
        }),
        ("an integrity sequence over the end", "udf.size", |i| {
            change(i, VOLUME, 6, 436, 300)
        }),
        ("descriptors over the end", "udf.size", |i| {
            for block in [ANCHOR, BLOCKS - 1] {
                anchor(i, BLOCK, block, MAIN, BLOCKS - 15);
            }
        }),
        ("a boot area with an MBR", "", |i| {
            put(i, 510, &[0x55, 0xaa]);
            put(i, 446, &[0, 0, 1, 0, 0x17, 0, 0, 0, 0, 0, 0, 0, 100]);
        }),
        ("a GPT", "format.other", |i| put(i, 512, b"EFI PART")),
        ("ISO 9660 as well", "format.other", |i| {
            put(i, FIRST + 4096, b"\x01CD001\x01")
        }),
        ("qcow2 as well", "format.other", |i| {
            put(i, 0, b"QFI\xfb\0\0\0\x03")
        }),
    ];
    let good = with_blocks_of(BLOCK);
    table("udf", &good, cases);
    for (format, id) in [("raw", "format.other"), ("iso", "format.not")] {
        judge::one(format, &judge::inspect(&good, format), id);
    }
    judge::one("a disc", &judge::inspect(&iso::good(), "udf"), "format.not");
}

#[test]
fn blocks_of_any_size() {
    for block_size in [512, 1024, 2048, 4096, 8192, 16384, 32768] {
        let image = with_blocks_of(block_size);
        let report = judge::inspect(&image, "udf");
        judge::one(&block_size.to_string(), &report, "");
        assert_eq!(report.virtual_size, Some(image.len() as u64));
    }
}

/// What identifies a volume whose first descriptor is another one.
#[test]
fn the_descriptor_of_a_volume_identifies_it() {
    for at in [32769, 34817, 36865, 40961] {
        let mut image = vec![0; 1 << 20];
        put(&mut image, at, b"NSR03");
        judge::one("raw", &judge::inspect(&image, "raw"), "format.other");
    }
}

#[test]
fn volumes_of_mkudffs_are_accepted() {
    let Some(mkudffs) = peers::find("mkudffs") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let media = ["hd", "dvd", "dvdram", "dvdrw", "dvdr", "cdrw", "cdr", "bdr"];
    let media = media.map(|media| vec![format!("--media-type={media}")]);
    let sizes = [512, 1024, 2048, 4096, 8192, 16384, 32768];
    let sizes = sizes.map(|size| vec!["--media-type=hd".to_owned(), format!("--blocksize={size}")]);
    let more = ["--udfrev=1.02", "--udfrev=1.50", "--bootarea=mbr"];
    let more = more.map(|option| vec!["--media-type=hd".to_owned(), option.to_owned()]);
    for options in media.into_iter().chain(sizes).chain(more) {
        std::fs::File::create(&path)
            .unwrap()
            .set_len(12 << 20)
            .unwrap();
        peers::run(Command::new(&mkudffs).args(&options).arg(&path));
        let image = std::fs::read(&path).unwrap();
        let name = options.concat();
        let report = judge::inspect(&image, "udf");
        judge::one(&name, &report, "");
        assert_eq!(differ::compare(&name, &image, &report), None, "{name}");
        for other in ["raw", "iso", "mbr"] {
            let verdict = judge::inspect(&image, other).verdict().name();
            assert_eq!(verdict, "reject", "{name} as {other}");
        }
    }
}
