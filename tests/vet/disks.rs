//! Raw images with signatures, disks with an MBR, and disks with a GPT.

use luksmith_formats::image::partitions::Crc32;

use crate::judge::{self, Case, le32, le64, put, table};

const SECTORS: usize = 2048;
const SIZE: usize = SECTORS * 512;

fn raw() -> Vec<u8> {
    (0..SIZE)
        .map(|at| u8::try_from(at % 251).unwrap() | 1)
        .collect()
}

#[test]
fn raw_images_with_signatures_of_other_formats() {
    let cases: &[Case] = &[
        ("qcow2", "format.other", |i| put(i, 0, b"QFI\xfb\0\0\0\x03")),
        ("qcow1", "format.other", |i| put(i, 0, b"QFI\xfb\0\0\0\x01")),
        ("qed", "format.other", |i| put(i, 0, b"QED\0")),
        ("vmdk", "format.other", |i| put(i, 0, b"KDMV")),
        ("an old vmdk", "format.other", |i| put(i, 0, b"COWD")),
        ("a seSparse vmdk", "format.other", |i| {
            put(i, 0, b"\xbe\xba\xfe\xca\0\0\0\0")
        }),
        ("a vmdk descriptor", "format.other", |i| {
            put(i, 0, b"# Disk DescriptorFile\n")
        }),
        ("what QEMU takes for one", "format.other", |i| {
            put(i, 0, b"#\n  \n# x\nversion=1\n")
        }),
        ("the same with DOS lines", "format.other", |i| {
            put(i, 0, b"#!\r\nversion=3\r\n")
        }),
        ("a script", "", |i| put(i, 0, b"#!/bin/sh\nversion=4\n")),
        ("vhd at the start", "format.other", |i| {
            put(i, 0, b"conectix")
        }),
        ("vhd at the end", "format.other", |i| {
            put(i, SIZE - 512, b"conectix")
        }),
        ("vhd of 511 bytes", "format.other", |i| {
            put(i, SIZE - 511, b"conectix")
        }),
        ("vhd elsewhere", "", |i| put(i, SIZE - 1024, b"conectix")),
        ("vhdx", "format.other", |i| put(i, 0, b"vhdxfile")),
        ("vdi", "format.other", |i| put(i, 64, b"\x7f\x10\xda\xbe")),
        ("luks", "format.other", |i| put(i, 0, b"LUKS\xba\xbe")),
        ("iso", "format.other", |i| put(i, 32769, b"CD001")),
        ("udf", "format.other", |i| put(i, 32769, b"NSR02")),
        ("bochs", "format.other", |i| {
            put(i, 0, b"Bochs Virtual HD Image\0")
        }),
        ("parallels", "format.other", |i| {
            put(i, 0, b"WithoutFreeSpace")
        }),
        ("newer parallels", "format.other", |i| {
            put(i, 0, b"WithouFreSpacExt")
        }),
        ("cloop", "format.other", |i| {
            put(i, 0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop")
        }),
        ("dmg", "format.other", |i| {
            put(i, SIZE - 512, b"koly\0\0\0\x04\0\0\x02\0")
        }),
        ("dmg before the end", "format.other", |i| {
            put(i, SIZE - 700, b"koly\0\0\0\x04")
        }),
        ("dmg without a version", "format.other", |i| {
            put(i, SIZE - 4, b"koly")
        }),
        ("three letters", "", |i| put(i, SIZE - 512, b"kol")),
        ("dmg elsewhere", "", |i| put(i, SIZE - 1024, b"koly")),
        ("a disk with an MBR", "", |i| *i = mbr()),
        ("a disk with a GPT", "", |i| *i = gpt()),
        ("empty", "", Vec::clear),
        ("one byte", "", |i| i.truncate(1)),
        ("511 bytes", "", |i| i.truncate(511)),
        ("512 bytes that are a footer", "", |i| {
            i.truncate(512);
            put(i, 100, b"conectix");
        }),
    ];
    table("raw", &raw(), cases);
}

fn partition(image: &mut [u8], number: usize, kind: u8, start: u32, sectors: u32) {
    let at = 446 + number * 16;
    put(image, at + 4, &[kind]);
    le32(image, at + 8, start);
    le32(image, at + 12, sectors);
}

/// Two partitions. The second one is extended, and contains two logical ones.
pub(crate) fn mbr() -> Vec<u8> {
    let mut image = vec![0; SIZE];
    put(&mut image, 510, &[0x55, 0xaa]);
    put(&mut image, 446, &[0x80]);
    partition(&mut image, 0, 0x83, 63, 100);
    partition(&mut image, 1, 0x05, 200, 800);
    for (at, next) in [(200, Some(400)), (400, None)] {
        let table = &mut image[at * 512..][..512];
        put(table, 510, &[0x55, 0xaa]);
        partition(table, 0, 0x83, 10, 50);
        if let Some(next) = next {
            partition(table, 1, 0x05, next - 200, 100);
        }
    }
    image
}

#[test]
fn mbr_disks() {
    let cases: &[Case] = &[
        ("no signature", "format.not", |i| put(i, 510, &[0, 0])),
        ("a boot flag of nonsense", "format.not", |i| {
            put(i, 446, &[1])
        }),
        ("no partition", "", |i| put(i, 446, &[0; 64])),
        ("a boot sector without a table", "format.not", |i| {
            put(i, 446, &[0; 64]);
            put(i, 450, &[0x66]);
        }),
        ("one on the MBR", "mbr.bounds", |i| {
            partition(i, 0, 0x83, 0, 10)
        }),
        ("one of no length", "mbr.bounds", |i| {
            partition(i, 0, 0x83, 63, 0)
        }),
        ("one over the end", "mbr.bounds", |i| {
            partition(i, 0, 0x83, 63, 2000)
        }),
        ("one of the largest numbers", "mbr.bounds", |i| {
            partition(i, 0, 0x83, u32::MAX, u32::MAX)
        }),
        ("one to the end", "", |i| partition(i, 2, 0x83, 1000, 1048)),
        ("two that overlap", "mbr.overlap", |i| {
            partition(i, 2, 0x83, 100, 20)
        }),
        ("a protective one", "mbr.protective", |i| {
            partition(i, 3, 0xee, 1100, 10)
        }),
        ("a GPT", "format.other", |i| put(i, 512, b"EFI PART")),
        ("a chain that turns back", "mbr.chain", |i| {
            partition(&mut i[400 * 512..], 1, 0x05, 0, 10)
        }),
        ("a chain that stands still", "mbr.chain", |i| {
            partition(&mut i[200 * 512..], 1, 0x05, 0, 10)
        }),
        ("a chain that leaves", "mbr.chain", |i| {
            partition(&mut i[200 * 512..], 1, 0x05, 900, 10)
        }),
        ("a chain to nothing", "mbr.chain", |i| {
            partition(&mut i[200 * 512..], 1, 0x05, 300, 10)
        }),
        ("a logical one that leaves", "mbr.bounds", |i| {
            partition(&mut i[200 * 512..], 0, 0x83, 10, 900);
        }),
        ("logical ones that overlap", "mbr.overlap", |i| {
            partition(&mut i[200 * 512..], 0, 0x83, 10, 250);
        }),
        ("qcow2 as well", "format.other", |i| {
            put(i, 0, b"QFI\xfb\0\0\0\x03")
        }),
    ];
    table("mbr", &mbr(), cases);
    judge::one("as gpt", &judge::inspect(&mbr(), "gpt"), "format.not");
}

/// Two partitions, in both copies.
pub(crate) fn gpt() -> Vec<u8> {
    let mut image = vec![0; SIZE];
    put(&mut image, 510, &[0x55, 0xaa]);
    partition(&mut image, 0, 0xee, 1, 2047);
    put(&mut image, 447, &[0, 2, 0]);
    for (number, (first, last)) in [(34_u64, 99_u64), (100, 2014)].into_iter().enumerate() {
        let at = 1024 + number * 128;
        put(&mut image, at, &[0xab; 32]);
        le64(&mut image, at + 32, first);
        le64(&mut image, at + 40, last);
    }
    image.copy_within(1024..1024 + 16384, 2015 * 512);
    header(&mut image, 1);
    header(&mut image, 2047);
    seal(&mut image);
    image
}

fn header(image: &mut [u8], lba: usize) {
    let (alternate, entries) = if lba == 1 { (2047, 2) } else { (1, 2015) };
    let at = lba * 512;
    put(image, at, b"EFI PART\0\0\x01\0\x5c\0\0\0");
    le64(image, at + 24, lba as u64);
    le64(image, at + 32, alternate);
    le64(image, at + 40, 34);
    le64(image, at + 48, 2014);
    put(image, at + 56, &[0xcd; 16]);
    le64(image, at + 72, entries);
    le32(image, at + 80, 128);
    le32(image, at + 84, 128);
}

/// Corrects all checksums.
fn seal(image: &mut [u8]) {
    for lba in [1, 2047] {
        let at = lba * 512;
        let entries = if lba == 1 { 1024 } else { 2015 * 512 };
        let mut crc = Crc32::default();
        crc.update(&image[entries..entries + 16384]);
        le32(image, at + 88, crc.value());
        seal_header(image, at);
    }
}

fn seal_header(image: &mut [u8], at: usize) {
    le32(image, at + 16, 0);
    let mut crc = Crc32::default();
    crc.update(&image[at..at + 92]);
    le32(image, at + 16, crc.value());
}

/// Changes both copies of the partitions.
fn entries(image: &mut [u8], change: impl Fn(&mut [u8])) {
    change(&mut image[1024..1024 + 16384]);
    change(&mut image[2015 * 512..2015 * 512 + 16384]);
    seal(image);
}

#[test]
fn the_checksum_is_crc_32() {
    let mut crc = Crc32::default();
    crc.update(b"123456789");
    assert_eq!(crc.value(), 0xcbf4_3926);
}

#[test]
fn protective_mbrs() {
    let cases: &[Case] = &[
        ("first sector 0/1/0", "", |i| put(i, 447, &[0, 1, 0])),
        ("first sector 0/0/0", "gpt.protective-chs", |i| {
            put(i, 447, &[0, 0, 0])
        }),
        ("first sector 0/3/0", "gpt.protective-chs", |i| {
            put(i, 447, &[0, 3, 0])
        }),
        ("to boot from", "", |i| put(i, 446, &[0x80])),
        ("a boot flag of nonsense", "gpt.protective-mbr", |i| {
            put(i, 446, &[1])
        }),
        ("from sector 0", "gpt.protective-mbr", |i| le32(i, 454, 0)),
        ("from sector 2", "gpt.protective-mbr", |i| le32(i, 454, 2)),
        ("of all sectors that there can be", "", |i| {
            le32(i, 458, u32::MAX)
        }),
        ("shorter than the disk", "", |i| le32(i, 458, 1000)),
        ("longer than the disk", "gpt.protective-mbr", |i| {
            le32(i, 458, 3000)
        }),
        ("of no length", "gpt.protective-mbr", |i| le32(i, 458, 0)),
        ("none", "gpt.protective-mbr", |i| put(i, 446, &[0; 64])),
        ("no MBR at all", "gpt.protective-mbr", |i| {
            put(i, 0, &[0; 512])
        }),
        ("two", "gpt.protective-mbr", |i| {
            partition(i, 1, 0xee, 1, 10)
        }),
        ("another type", "gpt.protective-mbr", |i| {
            put(i, 450, &[0x83])
        }),
        ("another partition", "policy.feature", |i| {
            partition(i, 1, 0x83, 34, 10)
        }),
    ];
    table("gpt", &gpt(), cases);
}

#[test]
fn gpt_disks() {
    let cases: &[Case] = &[
        ("revision 2", "gpt.header", |i| {
            le32(i, 520, 2);
            seal(i);
        }),
        ("a header of 91 bytes", "gpt.header", |i| le32(i, 524, 91)),
        ("a header of 4 GiB", "gpt.header", |i| {
            le32(i, 524, u32::MAX)
        }),
        ("elsewhere by its own word", "gpt.header", |i| {
            le64(i, 536, 2);
            seal(i);
        }),
        ("entries of 127 bytes", "gpt.header", |i| le32(i, 596, 127)),
        ("no entries", "gpt.header", |i| le32(i, 592, 0)),
        ("entries without end", "gpt.header", |i| {
            le32(i, 592, u32::MAX)
        }),
        ("a wrong checksum", "gpt.checksum", |i| {
            put(i, 528, &[0, 0, 0, 0])
        }),
        ("a wrong checksum of the entries", "gpt.checksum", |i| {
            le32(i, 600, 1);
            seal_header(i, 512);
        }),
        ("a wrong checksum of the second copy", "gpt.checksum", |i| {
            put(i, 2047 * 512 + 16, &[0])
        }),
        ("no second copy", "gpt.backup", |i| {
            put(i, 2047 * 512, &[0; 512])
        }),
        ("a second copy out of the disk", "gpt.backup", |i| {
            le64(i, 544, 1 << 40);
            seal_header(i, 512);
        }),
        ("another disk in the second copy", "gpt.backup", |i| {
            put(i, 2047 * 512 + 56, &[1]);
            seal(i);
        }),
        ("another partition in the second copy", "gpt.backup", |i| {
            put(i, 2015 * 512 + 300, &[1]);
            seal(i);
        }),
        ("a larger disk", "gpt.backup-place", |i| {
            i.resize(SIZE + 4096, 0)
        }),
        ("a smaller disk", "gpt.backup", |i| i.truncate(SIZE - 512)),
        ("usable sectors on the table", "gpt.bounds", |i| {
            le64(i, 552, 33);
            seal(i);
        }),
        ("a table on the header", "gpt.bounds", |i| {
            le64(i, 584, 1);
            seal_header(i, 512);
        }),
        ("a partition over the end", "gpt.bounds", |i| {
            entries(i, |e| le64(e, 168, 2015))
        }),
        (
            "a partition that ends before it begins",
            "gpt.bounds",
            |i| entries(i, |e| le64(e, 160, 2014 + 1)),
        ),
        ("a partition on the table", "gpt.bounds", |i| {
            entries(i, |e| le64(e, 32, 33))
        }),
        ("partitions that overlap", "gpt.overlap", |i| {
            entries(i, |e| le64(e, 40, 100))
        }),
        ("qcow2 as well", "format.other", |i| {
            put(i, 0, b"QFI\xfb\0\0\0\x03")
        }),
        ("an ISO as well", "format.other", |i| {
            put(i, 32769, b"CD001")
        }),
    ];
    table("gpt", &gpt(), cases);
    judge::one("as mbr", &judge::inspect(&gpt(), "mbr"), "format.other");
}
