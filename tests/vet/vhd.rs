//! VHD: fixed and dynamic.

use luksmith_formats::image::vhd::checksum;

use crate::judge::{self, Case, be16, be32, be64, put, table};

/// The size of the disk of [`dynamic`]. A cylinder has 68 sectors.
const SIZE: u64 = 121 * 68 * 512;
const BLOCK: usize = 2 << 20;
const TABLE: usize = 1536;
const FIRST: usize = 2048;

fn footer(size: u64, kind: u32, cylinders: u16) -> Vec<u8> {
    let mut footer = vec![0; 512];
    put(&mut footer, 0, b"conectix");
    be32(&mut footer, 8, 2);
    be32(&mut footer, 12, 0x0001_0000);
    be64(&mut footer, 16, if kind == 2 { u64::MAX } else { 512 });
    put(&mut footer, 28, b"win \0\x0a\0\0Wi2k");
    be64(&mut footer, 40, size);
    be64(&mut footer, 48, size);
    be16(&mut footer, 56, cylinders);
    put(&mut footer, 58, &[4, 17]);
    be32(&mut footer, 60, kind);
    put(&mut footer, 68, &[0x77; 16]);
    seal(&mut footer, 0, 64);
    footer
}

/// Corrects the checksum of a footer or header.
fn seal(image: &mut [u8], start: usize, at: usize) {
    let length = if at == 64 { 512 } else { 1024 };
    let sum = checksum(&image[start..start + length], at);
    be32(image, start + at, sum);
}

/// A disk of three blocks, of which only the second is in the image.
pub(crate) fn dynamic() -> Vec<u8> {
    let mut image = footer(SIZE, 3, 121);
    let end = image.clone();
    image.resize(FIRST + 512 + BLOCK, 0);
    put(&mut image, 512, b"cxsparse");
    be64(&mut image, 520, u64::MAX);
    be64(&mut image, 528, TABLE as u64);
    be32(&mut image, 536, 0x0001_0000);
    be32(&mut image, 540, 3);
    be32(&mut image, 544, 2 << 20);
    seal(&mut image, 512, 36);
    put(&mut image, TABLE, &[0xff; 512]);
    be32(&mut image, TABLE + 4, u32::try_from(FIRST / 512).unwrap());
    image.extend_from_slice(&end);
    image
}

/// A disk of 68 sectors.
pub(crate) fn fixed() -> Vec<u8> {
    let mut image = vec![0; 68 * 512];
    image.extend_from_slice(&footer(68 * 512, 2, 1));
    image
}

/// Changes both copies of the footer of a dynamic disk.
fn both(image: &mut [u8], change: impl Fn(&mut [u8])) {
    let end = image.len() - 512;
    change(&mut image[..512]);
    seal(image, 0, 64);
    image.copy_within(0..512, end);
}

/// Changes the header of a dynamic disk.
fn header(image: &mut [u8], change: impl Fn(&mut [u8])) {
    change(&mut image[512..1536]);
    seal(image, 512, 36);
}

/// Changes the footer of a fixed disk.
fn last(image: &mut [u8], change: impl Fn(&mut [u8])) {
    let end = image.len() - 512;
    change(&mut image[end..]);
    seal(image, end, 64);
}

#[test]
fn fixed_disks() {
    let cases: &[Case] = &[
        ("no footer", "format.not", |i| i.truncate(68 * 512)),
        ("a footer of 511 bytes", "vhd.footer", |i| {
            i.truncate(68 * 512 + 511)
        }),
        ("bytes behind the footer", "format.not", |i| {
            i.resize(69 * 512 + 1024, 0)
        }),
        ("a disk longer than its data", "vhd.size", |i| {
            last(i, |f| be64(f, 48, 70 * 512))
        }),
        ("a disk shorter than its data", "vhd.size", |i| {
            last(i, |f| be64(f, 48, 68 * 512 - 512))
        }),
        ("version 2", "vhd.footer", |i| {
            last(i, |f| be32(f, 12, 2 << 16))
        }),
        ("unknown features", "vhd.footer", |i| {
            last(i, |f| be32(f, 8, 4))
        }),
        ("a wrong checksum", "vhd.checksum", |i| {
            let at = i.len() - 400;
            put(i, at, &[1]);
        }),
        ("typed as dynamic", "vhd.type", |i| {
            last(i, |f| be32(f, 60, 3))
        }),
        ("typed as differencing", "vhd.parent", |i| {
            last(i, |f| be32(f, 60, 4))
        }),
        ("no type", "vhd.type", |i| last(i, |f| be32(f, 60, 0))),
        ("an original size that differs", "policy.feature", |i| {
            last(i, |f| be64(f, 40, 512))
        }),
        ("a saved state", "policy.feature", |i| {
            last(i, |f| put(f, 84, &[1]))
        }),
        ("a larger geometry", "vhd.geometry", |i| {
            last(i, |f| be16(f, 56, 2))
        }),
        ("a smaller geometry", "vhd.geometry", |i| {
            last(i, |f| be16(f, 56, 0))
        }),
        ("the geometry that says nothing", "", |i| {
            last(i, |f| put(f, 56, b"\xff\xff\x10\xff"))
        }),
        ("a disk with an MBR", "", |i| {
            let disk = crate::disks::mbr();
            put(i, 0, &disk[..512]);
        }),
        ("qcow2 in front", "format.other", |i| {
            put(i, 0, b"QFI\xfb\0\0\0\x03")
        }),
        ("an original size over the format's", "vhd.size", |i| {
            last(i, |f| be64(f, 40, (2040 << 30) + 512))
        }),
        ("an original size over all limits", "vhd.size", |i| {
            last(i, |f| be64(f, 40, !511))
        }),
    ];
    table("vhd", &fixed(), cases);
    let mut image = fixed();
    last(&mut image, |footer| be64(footer, 40, 1 << 40));
    assert_eq!(judge::inspect(&image, "vhd").virtual_size, Some(1 << 40));
}

#[test]
fn dynamic_disks() {
    let cases: &[Case] = &[
        ("no footer at the end", "vhd.footer", |i| {
            let end = i.len() - 512;
            i.truncate(end);
        }),
        ("another footer at the end", "vhd.copies", |i| {
            last(i, |f| put(f, 70, &[1]))
        }),
        ("differencing", "vhd.parent", |i| {
            both(i, |f| be32(f, 60, 4))
        }),
        ("typed as fixed", "vhd.type", |i| {
            both(i, |f| be32(f, 60, 2))
        }),
        ("a parent's id", "vhd.parent", |i| {
            header(i, |h| put(h, 40, &[1]))
        }),
        ("a parent's name", "vhd.parent", |i| {
            header(i, |h| put(h, 64, b"\0/\0e\0t\0c"))
        }),
        ("a parent locator", "vhd.parent", |i| {
            header(i, |h| put(h, 576, b"W2ku"))
        }),
        ("the last parent locator", "vhd.parent", |i| {
            header(i, |h| put(h, 767, &[1]))
        }),
        ("no header", "vhd.header", |i| put(i, 512, &[0; 8])),
        ("a header out of the image", "vhd.header", |i| {
            both(i, |f| be64(f, 16, 1 << 40))
        }),
        ("a header that is not aligned", "vhd.header", |i| {
            both(i, |f| be64(f, 16, 513))
        }),
        ("a header of version 2", "vhd.header", |i| {
            header(i, |h| be32(h, 24, 2))
        }),
        ("blocks of no size", "vhd.header", |i| {
            header(i, |h| be32(h, 32, 0))
        }),
        ("blocks of 3 MiB", "vhd.header", |i| {
            header(i, |h| be32(h, 32, 3 << 20))
        }),
        ("a wrong checksum", "vhd.checksum", |i| put(i, 900, &[1])),
        ("a table for a smaller disk", "vhd.size", |i| {
            header(i, |h| be32(h, 28, 1))
        }),
        ("a table for a larger disk", "", |i| {
            header(i, |h| be32(h, 28, 4))
        }),
        ("the largest table", "vhd.table", |i| {
            header(i, |h| be32(h, 28, u32::MAX))
        }),
        ("a table that is not aligned", "vhd.table", |i| {
            header(i, |h| be64(h, 16, 1537))
        }),
        ("a table out of the image", "vhd.table", |i| {
            header(i, |h| be64(h, 16, 1 << 40))
        }),
        ("a table on the header", "vhd.overlap", |i| {
            header(i, |h| be64(h, 16, 1024))
        }),
        ("a block out of the image", "vhd.blocks", |i| {
            be32(i, TABLE, 1 << 30)
        }),
        ("a block over the end", "vhd.blocks", |i| be32(i, TABLE, 6)),
        ("a block on the footer", "vhd.overlap", |i| {
            be32(i, TABLE + 4, 5)
        }),
        ("a block on the table", "vhd.overlap", |i| {
            be32(i, TABLE + 4, 3)
        }),
        ("a block twice", "vhd.overlap", |i| be32(i, TABLE + 8, 4)),
        ("a larger geometry", "vhd.geometry", |i| {
            both(i, |f| be16(f, 56, 200))
        }),
        ("a disk over the format's size", "vhd.size", |i| {
            both(i, |f| be64(f, 48, 1 << 60))
        }),
        ("an MBR in it", "format.other", |i| {
            put(i, 446, &crate::disks::mbr()[446..512])
        }),
    ];
    table("vhd", &dynamic(), cases);
}
