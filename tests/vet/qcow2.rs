//! qcow2 headers: fields, extensions, references, encryption.

use crate::judge::{self, Case, be32, be64, put, table};

pub(crate) const CLUSTER: usize = 4096;
/// The offsets of the tables of [`good`].
pub(crate) const REFCOUNT_TABLE: usize = CLUSTER;
pub(crate) const REFCOUNT_BLOCK: usize = 2 * CLUSTER;
pub(crate) const L1: usize = 3 * CLUSTER;
pub(crate) const L2: usize = 4 * CLUSTER;
pub(crate) const DATA: usize = 6 * CLUSTER;
pub(crate) const SIZE: usize = 12 * CLUSTER;
pub(crate) const COPIED: u64 = 1 << 63;

/// An image of version 3 with clusters of 4 KiB, and a disk of 4 MiB with two L2 tables, whose
/// first two clusters are in use.
pub(crate) fn good() -> Vec<u8> {
    let mut image = vec![0; SIZE];
    put(&mut image, 0, b"QFI\xfb");
    be32(&mut image, 4, 3);
    be32(&mut image, 20, 12);
    be64(&mut image, 24, 4 << 20);
    be32(&mut image, 36, 2);
    be64(&mut image, 40, L1 as u64);
    be64(&mut image, 48, REFCOUNT_TABLE as u64);
    be32(&mut image, 56, 1);
    be32(&mut image, 96, 4);
    be32(&mut image, 100, 112);
    be64(&mut image, REFCOUNT_TABLE, REFCOUNT_BLOCK as u64);
    for cluster in 0..12 {
        judge::be16(&mut image, REFCOUNT_BLOCK + 2 * cluster, 1);
    }
    for (number, l2) in [L2, L2 + CLUSTER].into_iter().enumerate() {
        be64(&mut image, L1 + 8 * number, l2 as u64 | COPIED);
    }
    for (number, data) in [DATA, DATA + CLUSTER].into_iter().enumerate() {
        be64(&mut image, L2 + 8 * number, data as u64 | COPIED);
    }
    image
}

/// A compressed cluster, and where it is: an entry of an L2 table for data at `at`, whose length is
/// within its sector.
pub(crate) fn compress(image: &mut [u8], at: usize) -> u64 {
    let data = miniz_oxide::deflate::compress_to_vec(&[7; CLUSTER], 6);
    put(image, at, &data);
    (1 << 62) | at as u64
}

/// The same as version 2.
pub(crate) fn version_2() -> Vec<u8> {
    let mut image = good();
    be32(&mut image, 4, 2);
    put(&mut image, 72, &[0; 40]);
    image
}

/// Adds header extensions to an image without any.
pub(crate) fn extend(image: &mut [u8], extensions: &[(u32, &[u8])]) {
    let mut at = 112;
    for (kind, data) in extensions {
        be32(image, at, *kind);
        be32(image, at + 4, u32::try_from(data.len()).unwrap());
        put(image, at + 8, data);
        at += 8 + data.len().next_multiple_of(8);
    }
    put(image, at, &[0; 8]);
}

pub(crate) const EXT_CRYPTO: u32 = 0x0537_be77;
pub(crate) const EXT_BITMAPS: u32 = 0x2385_2875;

fn incompatible(image: &mut [u8], bits: u64) {
    be64(image, 72, bits);
}

#[test]
fn header_fields() {
    let cases: &[Case] = &[
        ("version 1", "format.not", |i| be32(i, 4, 1)),
        ("version 4", "qcow2.version", |i| be32(i, 4, 4)),
        ("version 0", "qcow2.version", |i| be32(i, 4, 0)),
        ("clusters of 256 bytes", "qcow2.cluster-bits", |i| {
            be32(i, 20, 8)
        }),
        ("clusters of 4 MiB", "qcow2.cluster-bits", |i| {
            be32(i, 20, 22)
        }),
        ("clusters of no sense", "qcow2.cluster-bits", |i| {
            be32(i, 20, u32::MAX)
        }),
        ("a header of 96 bytes", "qcow2.header-length", |i| {
            be32(i, 100, 96)
        }),
        ("a header of 104 bytes", "", |i| be32(i, 100, 104)),
        ("a header of 106 bytes", "qcow2.header-length", |i| {
            be32(i, 100, 106)
        }),
        ("a header over its cluster", "qcow2.header-length", |i| {
            be32(i, 100, 4104)
        }),
        ("a header as large as its cluster", "", |i| {
            be32(i, 100, 4096)
        }),
        ("refcounts of 64 bits", "", |i| {
            be32(i, 96, 6);
            for cluster in 0..12 {
                be64(i, REFCOUNT_BLOCK + 8 * cluster, 1);
            }
        }),
        ("refcounts of 128 bits", "qcow2.refcount-order", |i| {
            be32(i, 96, 7)
        }),
        (
            "an unknown incompatible feature",
            "qcow2.incompatible",
            |i| incompatible(i, 1 << 5),
        ),
        ("the last incompatible feature", "qcow2.incompatible", |i| {
            incompatible(i, 1 << 63)
        }),
        ("an unknown compatible feature", "qcow2.unknown", |i| {
            be64(i, 80, 1 << 7)
        }),
        ("an unknown autoclear feature", "qcow2.unknown", |i| {
            be64(i, 88, 1 << 7)
        }),
        ("lazy refcounts", "", |i| be64(i, 80, 1)),
        ("dirty", "policy.feature", |i| incompatible(i, 1)),
        ("corrupt", "qcow2.corrupt", |i| incompatible(i, 2)),
        ("zstd without its bit", "qcow2.compression", |i| {
            put(i, 104, &[1])
        }),
        ("the bit with zlib", "qcow2.compression", |i| {
            incompatible(i, 8)
        }),
        ("zstd", "", |i| {
            incompatible(i, 8);
            put(i, 104, &[1]);
        }),
        ("compression 2", "qcow2.compression", |i| {
            incompatible(i, 8);
            put(i, 104, &[2]);
        }),
        ("subclusters in small clusters", "qcow2.extended-l2", |i| {
            incompatible(i, 16)
        }),
        ("a size over the L1 table", "qcow2.size", |i| {
            be64(i, 24, (4 << 20) + 1)
        }),
        ("a size that fills the last L2 table in part", "", |i| {
            be64(i, 24, (2 << 20) + 512)
        }),
        ("the largest size", "qcow2.size", |i| be64(i, 24, !511)),
        (
            "a size with a partial sector",
            "qcow2.partial-sector",
            |i| be64(i, 24, (2 << 20) + 1),
        ),
        ("one byte", "qcow2.partial-sector", |i| be64(i, 24, 1)),
        ("no size", "", |i| be64(i, 24, 0)),
        ("cut in the header", "qcow2.table", |i| i.truncate(100)),
        ("nothing but the magic", "qcow2.table", |i| i.truncate(4)),
    ];
    table("qcow2", &good(), cases);
}

#[test]
fn version_2_has_no_features() {
    let cases: &[Case] = &[
        // A version 2 header ends at byte 72, so an extension follows.
        ("an extension", "qcow2.unknown", |i| {
            put(i, 72, b"what\0\0\0\x04feat")
        }),
        ("the zero bit of version 3", "qcow2.reserved", |i| {
            be64(i, L2 + 64, (DATA + 2 * CLUSTER) as u64 | 1);
        }),
    ];
    table("qcow2", &version_2(), cases);
}

#[test]
fn references() {
    let cases: &[Case] = &[
        ("a backing file", "qcow2.backing-file", |i| {
            put(i, 2048, b"/etc/passwd");
            be64(i, 8, 2048);
            be32(i, 16, 11);
        }),
        (
            "a backing file by its offset alone",
            "qcow2.backing-file",
            |i| be64(i, 8, 2048),
        ),
        (
            "a backing file by its size alone",
            "qcow2.backing-file",
            |i| be32(i, 16, 5),
        ),
        ("a backing file of JSON", "qcow2.backing-file", |i| {
            put(i, 2048, b"json:{\"driver\":\"nbd\"}");
            be64(i, 8, 2048);
            be32(i, 16, 21);
        }),
        (
            "a backing file out of the image",
            "qcow2.backing-file",
            |i| {
                be64(i, 8, u64::MAX);
                be32(i, 16, u32::MAX);
            },
        ),
        ("the format of a backing file", "qcow2.backing-file", |i| {
            extend(i, &[(0xe279_2aca, b"raw")]);
        }),
        ("the bit of a data file", "qcow2.data-file", |i| {
            incompatible(i, 4)
        }),
        ("the name of a data file", "qcow2.data-file", |i| {
            extend(i, &[(0x4441_5441, b"nbd://host/disk")]);
        }),
        ("bit and name of a data file", "qcow2.data-file", |i| {
            incompatible(i, 4);
            extend(i, &[(0x4441_5441, b"/etc/shadow")]);
        }),
        ("the raw bit of a data file", "qcow2.data-file", |i| {
            be64(i, 88, 2)
        }),
    ];
    table("qcow2", &good(), cases);

    let mut image = good();
    put(&mut image, 2048, b"nbd://\x1b[2J\xff");
    be64(&mut image, 8, 2048);
    be32(&mut image, 16, 11);
    assert_eq!(
        judge::inspect(&image, "qcow2").references,
        [r#""nbd://\x1b[2J\xff""#]
    );
}

#[test]
fn extensions() {
    let cases: &[Case] = &[
        ("an unknown one", "qcow2.unknown", |i| {
            extend(i, &[(0x1234, b"12345")])
        }),
        ("feature names", "", |i| {
            extend(i, &[(0x6803_f857, &[0; 96])])
        }),
        ("half a feature name", "qcow2.extensions", |i| {
            extend(i, &[(0x6803_f857, &[0; 47])])
        }),
        ("feature names twice", "qcow2.extensions", |i| {
            extend(i, &[(0x6803_f857, &[]), (0x6803_f857, &[])]);
        }),
        ("over the cluster", "qcow2.extensions", |i| {
            be32(i, 112, 0x1234);
            be32(i, 116, 4096);
        }),
        ("of 4 GiB", "qcow2.extensions", |i| {
            be32(i, 112, 0x1234);
            be32(i, 116, u32::MAX);
        }),
        ("an end over the cluster", "qcow2.extensions", |i| {
            be32(i, 116, 4096);
        }),
        ("without an end", "qcow2.extensions", |i| {
            be32(i, 112, 0x1234);
            be32(i, 116, 4096 - 120);
        }),
        ("to the last place for an end", "qcow2.unknown", |i| {
            be32(i, 112, 0x1234);
            be32(i, 116, 4096 - 128);
        }),
        ("a DMG's trailer", "format.other", |i| {
            let end = i.len();
            put(i, end - 512, b"koly");
        }),
    ];
    table("qcow2", &good(), cases);
}

/// An image with a LUKS1 header in clusters of its own, after the others.
pub(crate) fn encrypted() -> Vec<u8> {
    let mut image = good();
    let volume = crate::luks::luks1();
    let header = &volume[..crate::luks::LUKS1_DATA];
    let mut pointer = [0; 16];
    be64(&mut pointer, 0, image.len() as u64);
    be64(&mut pointer, 8, header.len() as u64);
    image.extend_from_slice(header);
    for cluster in 12..image.len() / CLUSTER {
        judge::be16(&mut image, REFCOUNT_BLOCK + 2 * cluster, 1);
    }
    extend(&mut image, &[(EXT_CRYPTO, &pointer)]);
    be32(&mut image, 32, 2);
    image
}

#[test]
fn encryption() {
    let cases: &[Case] = &[
        ("method 1", "qcow2.encryption", |i| be32(i, 32, 1)),
        ("method 3", "qcow2.encryption", |i| be32(i, 32, 3)),
        ("a header without the method", "qcow2.encryption", |i| {
            be32(i, 32, 0)
        }),
        ("the method without a header", "qcow2.encryption", |i| {
            put(i, 112, &[0; 24])
        }),
        ("a pointer of 8 bytes", "qcow2.encryption", |i| {
            be32(i, 116, 8)
        }),
        ("not aligned", "qcow2.table", |i| {
            be64(i, 120, SIZE as u64 + 512)
        }),
        ("out of the image", "qcow2.table", |i| be64(i, 120, 1 << 40)),
        ("of no length", "qcow2.table", |i| be64(i, 128, 0)),
        ("of the largest length", "qcow2.table", |i| {
            be64(i, 128, u64::MAX)
        }),
        ("longer than the image", "qcow2.table", |i| {
            be64(i, 128, 1 << 30)
        }),
        ("too short for its keyslots", "luks.size", |i| {
            be64(i, 128, 4096)
        }),
        ("on the L1 table", "luks.header", |i| {
            be64(i, 120, L1 as u64)
        }),
        ("a table on it", "qcow2.overlap", |i| {
            put(i, SIZE, &[]);
            be64(i, L1 + 8, (SIZE + 64 * CLUSTER) as u64 | COPIED);
        }),
        ("data on it", "qcow2.clusters", |i| {
            be64(i, L2, SIZE as u64 | COPIED)
        }),
        ("no LUKS there", "luks.header", |i| put(i, SIZE, b"SKUL")),
        ("LUKS2 there", "luks.header", |i| put(i, SIZE + 6, &[0, 2])),
        ("a null cipher there", "luks.header", |i| {
            put(i, SIZE + 8, b"cipher_null\0")
        }),
    ];
    table("qcow2", &encrypted(), cases);
    let report = judge::inspect(&encrypted(), "qcow2");
    assert_eq!(report.encryption.name(), "luks1");
    assert_eq!(report.virtual_size, Some(4 << 20));
}
