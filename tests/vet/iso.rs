//! ISO 9660 discs.

use crate::judge::{self, Case, be16, be32, le16, le32, put, table};

const PRIMARY: usize = 32768;
const JOLIET: usize = PRIMARY + 2048;
const END: usize = JOLIET + 2048;
const BLOCKS: u32 = 40;

fn both32(image: &mut [u8], at: usize, value: u32) {
    le32(image, at, value);
    be32(image, at + 4, value);
}

fn volume(image: &mut [u8], at: usize, kind: u8) {
    put(image, at, &[kind]);
    put(image, at + 1, b"CD001\x01");
    both32(image, at + 80, BLOCKS);
    le16(image, at + 128, 2048);
    be16(image, at + 130, 2048);
    put(image, at + 156, &[34]);
    both32(image, at + 158, 30);
    both32(image, at + 166, 2048);
}

/// A primary and a Joliet volume.
pub(crate) fn good() -> Vec<u8> {
    let mut image = vec![0; BLOCKS as usize * 2048];
    volume(&mut image, PRIMARY, 1);
    volume(&mut image, JOLIET, 2);
    put(&mut image, END, b"\xffCD001\x01");
    image
}

#[test]
fn discs() {
    let cases: &[Case] = &[
        ("no disc", "format.not", |i| put(i, PRIMARY + 1, b"xxxxx")),
        ("only UDF", "format.not", |i| put(i, PRIMARY + 1, b"BEA01")),
        ("a version that there is not", "iso.descriptor", |i| {
            put(i, PRIMARY + 6, &[2])
        }),
        ("an enhanced volume", "", |i| put(i, JOLIET + 6, &[2])),
        ("an unknown descriptor", "iso.descriptor", |i| {
            put(i, JOLIET, &[9])
        }),
        ("a boot record", "", |i| put(i, JOLIET, &[0])),
        ("no primary volume", "iso.primary", |i| {
            put(i, PRIMARY, &[2])
        }),
        ("a boot record first", "iso.primary", |i| {
            put(i, PRIMARY, &[0]);
            put(i, JOLIET, &[1]);
        }),
        ("two primary volumes", "iso.primary", |i| {
            put(i, JOLIET, &[1])
        }),
        ("no end", "iso.terminator", |i| put(i, END, &[0; 8])),
        ("a list without an end", "iso.terminator", |i| {
            for sector in 17..40 {
                put(i, sector * 2048, b"\0CD001\x01");
            }
        }),
        ("two sizes", "iso.both-endian", |i| {
            be32(i, PRIMARY + 84, 39)
        }),
        ("two block sizes", "iso.both-endian", |i| {
            be16(i, PRIMARY + 130, 512)
        }),
        ("two root directories", "iso.both-endian", |i| {
            be32(i, PRIMARY + 162, 31)
        }),
        ("two lengths of it", "iso.both-endian", |i| {
            be32(i, PRIMARY + 170, 4096)
        }),
        ("two sizes in the Joliet volume", "iso.both-endian", |i| {
            be32(i, JOLIET + 84, 39)
        }),
        ("blocks of 512 bytes", "iso.block-size", |i| {
            le16(i, PRIMARY + 128, 512);
            be16(i, PRIMARY + 130, 512);
        }),
        ("a volume over the end", "iso.size", |i| {
            both32(i, PRIMARY + 80, BLOCKS + 1)
        }),
        ("the largest volume", "iso.size", |i| {
            both32(i, PRIMARY + 80, u32::MAX)
        }),
        ("no volume", "iso.size", |i| both32(i, PRIMARY + 80, 0)),
        ("padding behind the volume", "", |i| {
            i.resize(i.len() + 300 * 1024, 0)
        }),
        ("a root directory over the end", "iso.root", |i| {
            both32(i, PRIMARY + 158, BLOCKS)
        }),
        ("a root directory of 4 GiB", "iso.root", |i| {
            both32(i, PRIMARY + 166, u32::MAX)
        }),
        ("a disc to boot from a stick", "", |i| {
            put(i, 510, &[0x55, 0xaa]);
            put(i, 446, &[0x80, 0, 1, 0, 0x17, 0, 0, 0, 0, 0, 0, 0, 100]);
        }),
        ("qcow2 as well", "format.other", |i| {
            put(i, 0, b"QFI\xfb\0\0\0\x03")
        }),
        ("vmdk as well", "format.other", |i| put(i, 0, b"KDMV")),
        ("luks as well", "format.other", |i| {
            put(i, 0, b"LUKS\xba\xbe\0\x01")
        }),
        ("vhd as well", "format.other", |i| {
            let at = i.len() - 512;
            put(i, at, b"conectix");
        }),
    ];
    table("iso", &good(), cases);
    judge::one("as raw", &judge::inspect(&good(), "raw"), "format.other");
    assert_eq!(
        judge::inspect(&good(), "iso").virtual_size,
        Some(u64::from(BLOCKS) * 2048)
    );
}
