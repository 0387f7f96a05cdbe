//! VHDX.

use luksmith_formats::image::vhdx::{self, checksum};

use crate::judge::{Case, le16, le32, le64, put, table};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const HEADERS: [usize; 2] = [64 * KIB, 128 * KIB];
const REGIONS: [usize; 2] = [192 * KIB, 256 * KIB];
const LOG: usize = MIB;
const BAT: usize = 2 * MIB;
const METADATA: usize = 3 * MIB;
const DATA: usize = 4 * MIB;

fn seal(image: &mut [u8], at: usize) {
    let length = if HEADERS.contains(&at) {
        4 * KIB
    } else {
        64 * KIB
    };
    let sum = checksum(&image[at..at + length]);
    le32(image, at + 4, sum);
}

/// A disk of 3 MiB with blocks of 1 MiB, of which the second is in the image.
pub(crate) fn good() -> Vec<u8> {
    let mut image = vec![0; DATA + 2 * MIB];
    put(&mut image, 0, b"vhdxfile");
    for (number, at) in HEADERS.into_iter().enumerate() {
        put(&mut image, at, b"head");
        le64(&mut image, at + 8, 7 + number as u64);
        le16(&mut image, at + 66, 1);
        le32(&mut image, at + 68, 1 << 20);
        le64(&mut image, at + 72, LOG as u64);
        seal(&mut image, at);
    }
    regions(&mut image, |table| {
        put(table, 0, b"regi");
        le32(table, 8, 2);
        region(table, 0, vhdx::BAT, BAT, 1);
        region(table, 1, vhdx::METADATA, METADATA, 1);
    });
    put(&mut image, METADATA, b"metadata");
    le16(&mut image, METADATA + 10, 5);
    let mut value = METADATA + 64 * KIB;
    for (number, (guid, length, number_there)) in [
        (vhdx::FILE_PARAMETERS, 8, 1 << 20),
        (vhdx::DISK_SIZE, 8, 3 << 20),
        (vhdx::DISK_ID, 16, 0x1234),
        (vhdx::LOGICAL_SECTOR, 4, 512),
        (vhdx::PHYSICAL_SECTOR, 4, 4096),
    ]
    .into_iter()
    .enumerate()
    {
        let at = METADATA + 32 + 32 * number;
        put(&mut image, at, &guid);
        le32(
            &mut image,
            at + 16,
            u32::try_from(value - METADATA).unwrap(),
        );
        le32(&mut image, at + 20, length);
        le32(&mut image, at + 24, 4);
        le64(&mut image, value, number_there);
        value += 32;
    }
    le64(&mut image, BAT + 8, DATA as u64 | 6);
    image
}

fn region(table: &mut [u8], number: usize, guid: vhdx::Guid, at: usize, required: u32) {
    let entry = 16 + 32 * number;
    put(table, entry, &guid);
    le64(table, entry + 16, at as u64);
    le32(table, entry + 24, 1 << 20);
    le32(table, entry + 28, required);
}

/// Changes both region tables.
fn regions(image: &mut [u8], change: impl Fn(&mut [u8])) {
    for at in REGIONS {
        change(&mut image[at..at + 64 * KIB]);
        seal(image, at);
    }
}

fn header(image: &mut [u8], number: usize, change: impl Fn(&mut [u8])) {
    let at = HEADERS[number];
    change(&mut image[at..at + 4 * KIB]);
    seal(image, at);
}

/// The offset of the value of a metadata item.
fn value(number: usize) -> usize {
    METADATA + 64 * KIB + 32 * number
}

fn item(number: usize) -> usize {
    METADATA + 32 + 32 * number
}

/// Adds an item without a value.
fn sixth(image: &mut [u8], guid: vhdx::Guid, flags: u32) {
    le16(image, METADATA + 10, 6);
    put(image, item(5), &guid);
    le32(image, item(5) + 24, flags);
}

#[test]
fn headers_and_regions() {
    let cases: &[Case] = &[
        ("a damaged first header", "vhdx.header", |i| {
            put(i, HEADERS[0] + 100, &[1])
        }),
        ("a damaged second header", "vhdx.header", |i| {
            put(i, HEADERS[1] + 100, &[1])
        }),
        ("no header", "vhdx.header", |i| {
            put(i, HEADERS[0], &[0; 4]);
            put(i, HEADERS[1], &[0; 4]);
        }),
        ("the same header twice", "", |i| {
            header(i, 0, |h| le64(h, 8, 8))
        }),
        ("one number for two that differ", "vhdx.header", |i| {
            header(i, 0, |h| {
                le64(h, 8, 8);
                put(h, 16, &[1]);
            })
        }),
        ("the first one is current", "", |i| {
            header(i, 0, |h| le64(h, 8, 9))
        }),
        ("version 2", "vhdx.header", |i| {
            header(i, 1, |h| le16(h, 66, 2))
        }),
        ("a log that is not empty", "vhdx.log", |i| {
            header(i, 1, |h| put(h, 48, &[1]))
        }),
        ("a log that was not empty once", "", |i| {
            header(i, 0, |h| put(h, 48, &[1]))
        }),
        ("a log out of the image", "vhdx.header", |i| {
            header(i, 1, |h| le64(h, 72, 1 << 40))
        }),
        ("a log on the table", "vhdx.overlap", |i| {
            header(i, 1, |h| le64(h, 72, BAT as u64))
        }),
        ("a damaged region table", "vhdx.regions", |i| {
            put(i, REGIONS[0] + 5000, &[1])
        }),
        ("two region tables", "vhdx.regions", |i| {
            put(i, REGIONS[1] + 5000, &[1]);
            seal(i, REGIONS[1]);
        }),
        ("too many regions", "vhdx.regions", |i| {
            regions(i, |t| le32(t, 8, 2048))
        }),
        ("no table", "vhdx.regions", |i| {
            regions(i, |t| put(t, 16, &[0; 16]))
        }),
        ("no metadata", "vhdx.regions", |i| {
            regions(i, |t| le32(t, 8, 1))
        }),
        ("the metadata twice", "vhdx.regions", |i| {
            regions(i, |t| {
                le32(t, 8, 3);
                region(t, 2, vhdx::METADATA, DATA + MIB, 1);
            });
        }),
        ("an unknown region", "", |i| {
            regions(i, |t| {
                le32(t, 8, 3);
                region(t, 2, [9; 16], DATA + MIB, 0);
            });
        }),
        ("an unknown region that is required", "vhdx.regions", |i| {
            regions(i, |t| {
                le32(t, 8, 3);
                region(t, 2, [9; 16], DATA + MIB, 1);
            });
        }),
        ("a region that is not aligned", "vhdx.regions", |i| {
            regions(i, |t| le64(t, 32, BAT as u64 + 512))
        }),
        ("a region out of the image", "vhdx.regions", |i| {
            regions(i, |t| le64(t, 32, 1 << 40))
        }),
        ("a region in the headers", "vhdx.regions", |i| {
            regions(i, |t| le64(t, 32, 0))
        }),
        ("the table on the metadata", "vhdx.overlap", |i| {
            regions(i, |t| le64(t, 32, METADATA as u64))
        }),
        ("cut in the headers", "vhdx.regions", |i| {
            i.truncate(200 * KIB)
        }),
    ];
    table("vhdx", &good(), cases);
}

#[test]
fn metadata_and_blocks() {
    let cases: &[Case] = &[
        ("no metadata there", "vhdx.metadata", |i| {
            put(i, METADATA, &[0; 8])
        }),
        ("too many items", "vhdx.metadata", |i| {
            le16(i, METADATA + 10, 2048)
        }),
        ("an item less", "vhdx.metadata", |i| {
            le16(i, METADATA + 10, 4)
        }),
        ("an item twice", "vhdx.metadata", |i| {
            put(i, item(2), &vhdx::DISK_SIZE)
        }),
        ("an item out of its region", "vhdx.metadata", |i| {
            le32(i, item(0) + 16, 1 << 20)
        }),
        ("an item on the table", "vhdx.metadata", |i| {
            le32(i, item(0) + 16, 64)
        }),
        ("an item of another length", "vhdx.metadata", |i| {
            le32(i, item(1) + 20, 4)
        }),
        (
            "a user's item by a name of the system",
            "vhdx.metadata",
            |i| le32(i, item(1) + 24, 5),
        ),
        ("an unknown item", "", |i| sixth(i, [9; 16], 0)),
        ("an unknown item that is required", "vhdx.metadata", |i| {
            sixth(i, [9; 16], 4)
        }),
        ("no id of the disk", "vhdx.metadata", |i| {
            put(i, item(2), &[9; 16]);
            le32(i, item(2) + 24, 0);
        }),
        ("a parent locator", "vhdx.parent", |i| {
            put(i, item(2), &vhdx::PARENT_LOCATOR)
        }),
        ("the bit of a parent", "vhdx.parent", |i| {
            put(i, value(0) + 4, &[2])
        }),
        ("blocks that stay", "", |i| put(i, value(0) + 4, &[1])),
        ("blocks of no size", "vhdx.metadata", |i| {
            le32(i, value(0), 0)
        }),
        ("blocks of 3 MiB", "vhdx.metadata", |i| {
            le32(i, value(0), 3 << 20)
        }),
        ("blocks of 512 MiB", "vhdx.metadata", |i| {
            le32(i, value(0), 512 << 20)
        }),
        ("sectors of 1024 bytes", "vhdx.metadata", |i| {
            le32(i, value(3), 1024)
        }),
        ("sectors of 4096 bytes", "", |i| le32(i, value(3), 4096)),
        ("half a sector", "vhdx.size", |i| le64(i, value(1), 1000)),
        ("a disk over its table", "vhdx.size", |i| {
            le64(i, value(1), 131_072 << 20)
        }),
        ("a disk over 64 TiB", "vhdx.size", |i| {
            le64(i, value(1), (64 << 40) + 512)
        }),
        ("the largest disk", "vhdx.size", |i| {
            le64(i, value(1), u64::MAX)
        }),
        ("a block out of the image", "vhdx.blocks", |i| {
            le64(i, BAT, (1 << 40) | 6)
        }),
        ("a block over the end", "vhdx.blocks", |i| {
            i.truncate(DATA + 512)
        }),
        ("a block at byte 0", "vhdx.blocks", |i| le64(i, BAT, 6)),
        ("a block of state 4", "vhdx.blocks", |i| le64(i, BAT, 4)),
        ("a block of zeroes", "", |i| le64(i, BAT, 2)),
        ("reserved bits", "vhdx.blocks", |i| le64(i, BAT, 8)),
        ("a block that is the parent's in part", "vhdx.parent", |i| {
            le64(i, BAT, DATA as u64 | 7)
        }),
        ("a block twice", "vhdx.overlap", |i| {
            le64(i, BAT, DATA as u64 | 6)
        }),
        ("a block on the log", "vhdx.overlap", |i| {
            le64(i, BAT, LOG as u64 | 6)
        }),
    ];
    table("vhdx", &good(), cases);
}
