//! The tables of qcow2: bounds, alignment, reserved bits, overlaps, snapshots, bitmaps,
//! subclusters.

use crate::judge::{self, Case, be16, be32, be64, put, table};
use crate::qcow2::{
    CLUSTER, COPIED, DATA, EXT_BITMAPS, L1, L2, REFCOUNT_BLOCK, REFCOUNT_TABLE, SIZE, compress,
    extend, good,
};

fn entry(image: &mut [u8], at: usize, offset: usize) {
    be64(image, at, offset as u64 | COPIED);
}

#[test]
fn places_of_tables() {
    let cases: &[Case] = &[
        ("an L1 table that is not aligned", "qcow2.table", |i| {
            be64(i, 40, L1 as u64 + 512)
        }),
        ("an L1 table out of the image", "qcow2.table", |i| {
            be64(i, 40, 1 << 40)
        }),
        ("an L1 table at the end of numbers", "qcow2.table", |i| {
            be64(i, 40, !0xfff)
        }),
        ("an L1 table over 32 MiB", "qcow2.table", |i| {
            be32(i, 36, (4 << 20) + 1)
        }),
        ("the largest L1 table", "qcow2.table", |i| {
            be32(i, 36, u32::MAX)
        }),
        ("no L1 table", "qcow2.size", |i| be32(i, 36, 0)),
        ("no snapshots, not aligned", "qcow2.table", |i| {
            be64(i, 64, 512)
        }),
        ("no snapshots at the end of numbers", "qcow2.table", |i| {
            be64(i, 64, !0xfff)
        }),
        ("no snapshots, aligned", "", |i| be64(i, 64, 4096)),
        ("no L1 table, not aligned", "qcow2.table", |i| {
            be64(i, 24, 0);
            be32(i, 36, 0);
            be64(i, 40, 512);
        }),
        ("an L1 table with a spare entry", "", |i| be32(i, 36, 3)),
        ("no refcount table", "qcow2.table", |i| be32(i, 56, 0)),
        ("a refcount table over 8 MiB", "qcow2.table", |i| {
            be32(i, 56, 2049)
        }),
        ("the largest refcount table", "qcow2.table", |i| {
            be32(i, 56, u32::MAX)
        }),
        ("a refcount table that is not aligned", "qcow2.table", |i| {
            be64(i, 48, 4097)
        }),
        ("a refcount table at byte 0", "qcow2.table", |i| {
            be64(i, 48, 0)
        }),
        ("a refcount block out of the image", "qcow2.table", |i| {
            be64(i, REFCOUNT_TABLE + 8, 1 << 40)
        }),
        ("a refcount block that is not aligned", "qcow2.table", |i| {
            be64(i, REFCOUNT_TABLE, REFCOUNT_BLOCK as u64 + 512);
        }),
        ("an L2 table out of the image", "qcow2.table", |i| {
            entry(i, L1, 1 << 40)
        }),
        ("an L2 table that is not aligned", "qcow2.table", |i| {
            entry(i, L1, L2 + 512)
        }),
        (
            "an L2 table that ends behind the image",
            "qcow2.table",
            |i| {
                entry(i, L1, 12 * CLUSTER);
                i.resize(SIZE + 512, 0);
            },
        ),
        ("an L2 table that is not there", "", |i| be64(i, L1, 0)),
        ("reserved bits of an L1 entry", "qcow2.reserved", |i| {
            be64(i, L1, (L2 as u64) | 1 << 56)
        }),
        ("bit 0 of an L1 entry", "qcow2.reserved", |i| {
            be64(i, L1, (L2 as u64) | 1)
        }),
        (
            "reserved bits of the refcount table",
            "qcow2.reserved",
            |i| {
                be64(i, REFCOUNT_TABLE, REFCOUNT_BLOCK as u64 | 1 << 63);
            },
        ),
    ];
    table("qcow2", &good(), cases);
}

#[test]
fn overlaps() {
    let cases: &[Case] = &[
        ("the L1 table on the refcount table", "qcow2.overlap", |i| {
            be64(i, 40, REFCOUNT_TABLE as u64)
        }),
        ("the refcount table on the L1 table", "qcow2.overlap", |i| {
            be64(i, 48, L1 as u64)
        }),
        ("a refcount block on its table", "qcow2.overlap", |i| {
            be64(i, REFCOUNT_TABLE, REFCOUNT_TABLE as u64);
        }),
        ("a refcount block twice", "qcow2.overlap", |i| {
            be64(i, REFCOUNT_TABLE + 8, REFCOUNT_BLOCK as u64);
        }),
        ("an L2 table on the L1 table", "qcow2.overlap", |i| {
            entry(i, L1, L1)
        }),
        ("an L2 table that is used twice", "qcow2.overlap", |i| {
            entry(i, L1 + 8, L2)
        }),
        (
            "a table of several clusters on others",
            "qcow2.overlap",
            |i| be32(i, 56, 2),
        ),
    ];
    table("qcow2", &good(), cases);
}

#[test]
fn clusters() {
    let cases: &[Case] = &[
        ("data out of the image", "qcow2.clusters", |i| {
            entry(i, L2, SIZE)
        }),
        ("data far out", "qcow2.clusters", |i| entry(i, L2, 1 << 50)),
        ("data that is not aligned", "qcow2.clusters", |i| {
            entry(i, L2, DATA + 512)
        }),
        ("data on the header", "qcow2.clusters", |i| {
            be64(i, 0x4000, 1 << 9)
        }),
        ("data on the L1 table", "qcow2.clusters", |i| {
            entry(i, L2, L1)
        }),
        ("data on its own L2 table", "qcow2.clusters", |i| {
            entry(i, L2, L2)
        }),
        ("the last cluster, cut", "", |i| {
            entry(i, L2, SIZE - CLUSTER);
            i.truncate(SIZE - CLUSTER + 512);
        }),
        ("a cluster of zeroes", "", |i| be64(i, L2, 1)),
        ("a cluster of zeroes that is allocated", "", |i| {
            be64(i, L2, DATA as u64 | COPIED | 1)
        }),
        ("reserved bits of an L2 entry", "qcow2.reserved", |i| {
            be64(i, L2, DATA as u64 | 1 << 57)
        }),
        ("the low bits of an L2 entry", "qcow2.reserved", |i| {
            be64(i, L2, DATA as u64 | 2)
        }),
        ("compressed data", "", |i| {
            let entry = compress(i, DATA + 5);
            be64(i, L2, entry)
        }),
        ("compressed data over two sectors", "", |i| {
            let entry = compress(i, DATA + 500);
            be64(i, L2, entry | 1 << 58)
        }),
        ("compressed data that is cut", "qcow2.inflate", |i| {
            let entry = compress(i, DATA + 500);
            be64(i, L2, entry)
        }),
        ("zeroes as compressed data", "qcow2.inflate", |i| {
            be64(i, L2, (1 << 62) | DATA as u64)
        }),
        ("compressed data of half a cluster", "qcow2.inflate", |i| {
            let entry = compress(i, DATA);
            let half = miniz_oxide::deflate::compress_to_vec(&[7; CLUSTER / 2], 6);
            put(i, DATA, &half);
            be64(i, L2, entry)
        }),
        ("deflate as zstd", "qcow2.inflate", |i| {
            let entry = compress(i, DATA);
            be64(i, L2, entry);
            be64(i, 72, 8);
            i[104] = 1;
        }),
        (
            "compressed data as if it could be overwritten",
            "qcow2.reserved",
            |i| be64(i, L2, COPIED | (1 << 62) | DATA as u64 | 5),
        ),
        ("compressed data to the end", "", |i| {
            let entry = compress(i, SIZE - CLUSTER);
            be64(i, L2, entry | (7 << 58));
        }),
        ("compressed data behind the end", "qcow2.compressed", |i| {
            be64(i, L2, (1 << 62) | SIZE as u64);
        }),
        ("compressed data over the end", "qcow2.compressed", |i| {
            be64(i, L2, (1 << 62) | (15 << 58) | (SIZE - 512) as u64);
        }),
        ("compressed data on a table", "qcow2.compressed", |i| {
            be64(i, L2, (1 << 62) | L1 as u64 | 9)
        }),
    ];
    table("qcow2", &good(), cases);
}

/// An image with a snapshot whose L1 table shares an L2 table with the disk.
pub(crate) fn with_snapshot() -> Vec<u8> {
    let mut image = good();
    be32(&mut image, 60, 1);
    be64(&mut image, 64, (8 * CLUSTER) as u64);
    let entry = 8 * CLUSTER;
    be64(&mut image, entry, (9 * CLUSTER) as u64);
    be32(&mut image, entry + 8, 2);
    be16(&mut image, entry + 12, 1);
    be16(&mut image, entry + 14, 4);
    be32(&mut image, entry + 36, 16);
    be64(&mut image, entry + 48, 4 << 20);
    put(&mut image, entry + 56, b"1name");
    be64(&mut image, 9 * CLUSTER, L2 as u64);
    for shared in [L2, DATA, DATA + CLUSTER] {
        be16(&mut image, REFCOUNT_BLOCK + 2 * (shared / CLUSTER), 2);
    }
    image
}

#[test]
fn snapshots() {
    let cases: &[Case] = &[
        ("too many", "qcow2.snapshots", |i| be32(i, 60, 65_537)),
        ("as many as there can be", "qcow2.table", |i| {
            be32(i, 60, 65_536)
        }),
        ("a table that is not aligned", "qcow2.table", |i| {
            be64(i, 64, 8 * CLUSTER as u64 + 8)
        }),
        ("a table out of the image", "qcow2.table", |i| {
            be64(i, 64, 1 << 40)
        }),
        ("extra data over the limit", "qcow2.snapshots", |i| {
            be32(i, 8 * CLUSTER + 36, 1025)
        }),
        ("extra data of 4 GiB", "qcow2.snapshots", |i| {
            be32(i, 8 * CLUSTER + 36, u32::MAX)
        }),
        ("an L1 table out of the image", "qcow2.table", |i| {
            be64(i, 8 * CLUSTER, 1 << 40)
        }),
        ("an L1 table over 32 MiB", "qcow2.table", |i| {
            be32(i, 8 * CLUSTER + 8, (4 << 20) + 1)
        }),
        ("an L1 table on the disk's", "qcow2.overlap", |i| {
            be64(i, 8 * CLUSTER, L1 as u64)
        }),
        ("an L2 table out of the image", "qcow2.table", |i| {
            be64(i, 9 * CLUSTER, 1 << 40)
        }),
        ("a disk larger than its L1 table", "qcow2.size", |i| {
            be64(i, 8 * CLUSTER + 48, 1 << 40)
        }),
        ("a smaller disk", "", |i| be64(i, 8 * CLUSTER + 48, 1 << 20)),
        ("an entry at the very end of the image", "", |i| {
            i.truncate(SIZE - CLUSTER);
            let entry = i[8 * CLUSTER..8 * CLUSTER + 61].to_vec();
            be64(i, 64, (SIZE - CLUSTER) as u64);
            i.extend(entry);
        }),
        (
            "an entry over the end of the image",
            "qcow2.snapshots",
            |i| {
                i.truncate(SIZE - CLUSTER);
                let entry = i[8 * CLUSTER..8 * CLUSTER + 60].to_vec();
                be64(i, 64, (SIZE - CLUSTER) as u64);
                i.extend(entry);
            },
        ),
        ("the table on the L1 table", "qcow2.overlap", |i| {
            let entry = i[8 * CLUSTER..8 * CLUSTER + 64].to_vec();
            be32(i, 36, 2);
            put(i, L1 + 2048, &entry);
            put(i, L1, &entry);
            be64(i, 64, L1 as u64);
        }),
    ];
    table("qcow2", &with_snapshot(), cases);
    let report = judge::inspect(&with_snapshot(), "qcow2");
    assert!(report.features.iter().any(|one| one.name() == "snapshots"));
}

/// An image with a bitmap in a cluster of its own.
fn with_bitmap() -> Vec<u8> {
    let mut image = good();
    let mut extension = [0; 24];
    be32(&mut extension, 0, 1);
    be64(&mut extension, 8, 32);
    be64(&mut extension, 16, (8 * CLUSTER) as u64);
    extend(&mut image, &[(EXT_BITMAPS, &extension)]);
    be64(&mut image, 88, 1);
    let entry = 8 * CLUSTER;
    be64(&mut image, entry, (9 * CLUSTER) as u64);
    be32(&mut image, entry + 8, 1);
    put(&mut image, entry + 16, &[1, 16]);
    be16(&mut image, entry + 18, 4);
    put(&mut image, entry + 24, b"name");
    be64(&mut image, 9 * CLUSTER, (10 * CLUSTER) as u64);
    image
}

#[test]
fn bitmaps() {
    const ENTRY: usize = 8 * CLUSTER;
    let cases: &[Case] = &[
        ("stale ones", "", |i| {
            be64(i, 88, 0);
            be64(i, 136, 1 << 40);
        }),
        ("none", "qcow2.bitmaps", |i| be32(i, 120, 0)),
        ("too many", "qcow2.bitmaps", |i| be32(i, 120, 65_536)),
        ("more than are there", "qcow2.bitmaps", |i| be32(i, 120, 2)),
        ("a reserved field", "qcow2.bitmaps", |i| be32(i, 124, 1)),
        ("an extension of 20 bytes", "qcow2.bitmaps", |i| {
            be32(i, 116, 20)
        }),
        ("a directory that is too large", "qcow2.bitmaps", |i| {
            be64(i, 128, 1 << 40)
        }),
        ("a directory out of the image", "qcow2.table", |i| {
            be64(i, 136, 1 << 40)
        }),
        ("a directory that is not aligned", "qcow2.table", |i| {
            be64(i, 136, ENTRY as u64 + 8)
        }),
        ("another type", "qcow2.bitmaps", |i| {
            put(i, ENTRY + 16, &[2])
        }),
        ("a granularity of 256 bytes", "qcow2.bitmaps", |i| {
            put(i, ENTRY + 17, &[8])
        }),
        ("a granularity of 4 GiB", "qcow2.bitmaps", |i| {
            put(i, ENTRY + 17, &[32])
        }),
        ("no name", "qcow2.bitmaps", |i| be16(i, ENTRY + 18, 0)),
        ("a name of 1024 bytes", "qcow2.bitmaps", |i| {
            be16(i, ENTRY + 18, 1024)
        }),
        ("extra data", "qcow2.bitmaps", |i| be32(i, ENTRY + 20, 8)),
        ("unknown flags", "qcow2.bitmaps", |i| be32(i, ENTRY + 12, 8)),
        ("a bitmap over 512 MiB", "qcow2.bitmaps", |i| {
            be32(i, ENTRY + 8, 131_073)
        }),
        ("a table out of the image", "qcow2.table", |i| {
            be64(i, ENTRY, 1 << 40)
        }),
        ("a table on the L1 table", "qcow2.overlap", |i| {
            be64(i, ENTRY, L1 as u64)
        }),
        ("a cluster out of the image", "qcow2.table", |i| {
            be64(i, 9 * CLUSTER, 1 << 40)
        }),
        ("a cluster on the L1 table", "qcow2.overlap", |i| {
            be64(i, 9 * CLUSTER, L1 as u64)
        }),
        ("reserved bits", "qcow2.reserved", |i| {
            be64(i, 9 * CLUSTER, 3)
        }),
        ("all ones", "", |i| be64(i, 9 * CLUSTER, 1)),
        ("a cluster that is all ones", "qcow2.reserved", |i| {
            be64(i, 9 * CLUSTER, (10 * CLUSTER) as u64 | 1);
        }),
        ("larger than its disk", "qcow2.bitmaps", |i| {
            be32(i, ENTRY + 8, 2)
        }),
        ("larger than its disk, and in use", "", |i| {
            be32(i, ENTRY + 8, 2);
            be32(i, ENTRY + 12, 1);
        }),
    ];
    table("qcow2", &with_bitmap(), cases);
}

/// Clusters of 16 KiB with subclusters. The first cluster is partly allocated, and partly zero.
fn with_subclusters() -> Vec<u8> {
    const LARGE: usize = 16 << 10;
    let mut image = good();
    image.resize(8 * LARGE, 0);
    put(&mut image, CLUSTER, &[0; 8 * CLUSTER]);
    be32(&mut image, 20, 14);
    be64(&mut image, 72, 16);
    be64(&mut image, 24, 20 << 20);
    be64(&mut image, 40, (3 * LARGE) as u64);
    be64(&mut image, 48, LARGE as u64);
    be64(&mut image, LARGE, (2 * LARGE) as u64);
    for cluster in 0..6 {
        be16(&mut image, 2 * LARGE + 2 * cluster, 1);
    }
    entry(&mut image, 3 * LARGE, 4 * LARGE);
    entry(&mut image, 4 * LARGE, 5 * LARGE);
    be64(&mut image, 4 * LARGE + 8, (0xff << 32) | 0xff00);
    be64(&mut image, 4 * LARGE + 24, 0xff << 32);
    image
}

#[test]
fn subclusters() {
    const FIRST: usize = 64 << 10;
    let cases: &[Case] = &[
        ("zero and allocated", "qcow2.subclusters", |i| {
            be64(i, FIRST + 8, (1 << 32) | 1)
        }),
        ("allocated without a cluster", "qcow2.subclusters", |i| {
            be64(i, FIRST + 24, 1)
        }),
        ("the zero bit of plain entries", "qcow2.reserved", |i| {
            be64(i, FIRST, (5 * (16 << 10)) | COPIED | 1);
        }),
        (
            "a size over what half as many entries map",
            "qcow2.size",
            |i| be64(i, 24, (32 << 20) + 1),
        ),
        ("the size that they map", "", |i| be64(i, 24, 32 << 20)),
    ];
    table("qcow2", &with_subclusters(), cases);
}
