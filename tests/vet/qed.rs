//! QED.

use crate::judge::{Case, le32, le64, put, table};

const CLUSTER: usize = 4096;
const L1: usize = CLUSTER;
const L2: usize = 3 * CLUSTER;
const DATA: usize = 7 * CLUSTER;

/// Clusters of 4 KiB, tables of two clusters, and a disk of 8 MiB with two L2 tables.
pub(crate) fn good() -> Vec<u8> {
    let mut image = vec![0; 12 * CLUSTER];
    put(&mut image, 0, b"QED\0");
    for (number, value) in [4096, 2, 1].into_iter().enumerate() {
        le32(&mut image, 4 + 4 * number, value);
    }
    le64(&mut image, 40, L1 as u64);
    le64(&mut image, 48, 8 << 20);
    le64(&mut image, L1, L2 as u64);
    le64(&mut image, L1 + 8, (L2 + 2 * CLUSTER) as u64);
    le64(&mut image, L2, DATA as u64);
    le64(&mut image, L2 + 8, 1);
    image
}

#[test]
fn images() {
    let cases: &[Case] = &[
        ("clusters of 2 KiB", "qed.header", |i| le32(i, 4, 2048)),
        ("clusters of 128 MiB", "qed.header", |i| {
            le32(i, 4, 128 << 20)
        }),
        ("clusters of 5000 bytes", "qed.header", |i| le32(i, 4, 5000)),
        ("tables of one cluster", "qed.header", |i| le32(i, 8, 1)),
        ("no tables", "qed.header", |i| le32(i, 8, 0)),
        ("tables of 3 clusters", "qed.header", |i| le32(i, 8, 3)),
        ("tables of 32 clusters", "qed.header", |i| le32(i, 8, 32)),
        ("no header", "qed.header", |i| le32(i, 12, 0)),
        ("the largest header", "qed.header", |i| {
            le32(i, 12, u32::MAX)
        }),
        ("cut in the header", "qed.header", |i| i.truncate(60)),
        ("an unknown feature", "qed.features", |i| le64(i, 16, 8)),
        ("to be checked", "policy.feature", |i| le64(i, 16, 2)),
        ("a backing file", "qed.backing-file", |i| {
            le64(i, 16, 1);
            le32(i, 56, 64);
            le32(i, 60, 11);
            put(i, 64, b"/etc/shadow");
        }),
        ("the bit of a backing file", "qed.backing-file", |i| {
            le64(i, 16, 1)
        }),
        ("the name without the bit", "qed.backing-file", |i| {
            le32(i, 60, 11)
        }),
        ("a raw backing file", "qed.backing-file", |i| le64(i, 16, 4)),
        ("a disk over its tables", "qed.size", |i| {
            le64(i, 48, (4 << 30) + 512)
        }),
        ("the disk that they map", "", |i| le64(i, 48, 4 << 30)),
        ("half a sector", "qed.size", |i| le64(i, 48, 1000)),
        ("the largest disk", "qed.size", |i| le64(i, 48, u64::MAX)),
        ("an L1 table that is not aligned", "qed.table", |i| {
            le64(i, 40, 4097)
        }),
        ("an L1 table out of the image", "qed.table", |i| {
            le64(i, 40, 1 << 40)
        }),
        ("an L1 table on the header", "qed.table", |i| le64(i, 40, 0)),
        ("an L2 table out of the image", "qed.table", |i| {
            le64(i, L1, 1 << 40)
        }),
        ("an L2 table that is not aligned", "qed.table", |i| {
            le64(i, L1, L2 as u64 + 1)
        }),
        ("an L2 table on the L1 table", "qed.overlap", |i| {
            le64(i, L1, L1 as u64)
        }),
        ("an L2 table twice", "qed.overlap", |i| {
            le64(i, L1 + 8, L2 as u64)
        }),
        ("a header over the L1 table", "qed.overlap", |i| {
            le32(i, 12, 2)
        }),
        ("data out of the image", "qed.clusters", |i| {
            le64(i, L2, 1 << 40)
        }),
        ("data that is not aligned", "qed.clusters", |i| {
            le64(i, L2, DATA as u64 + 1)
        }),
        ("data on a table", "qed.clusters", |i| {
            le64(i, L2, L1 as u64)
        }),
        ("data twice", "qed.shared", |i| {
            le64(i, L2 + 2 * CLUSTER, DATA as u64)
        }),
        ("other data", "", |i| {
            le64(i, L2 + 2 * CLUSTER, (DATA + CLUSTER) as u64)
        }),
        ("the last cluster, cut", "", |i| {
            le64(i, L2, 11 * CLUSTER as u64);
            i.truncate(11 * CLUSTER + 512);
        }),
    ];
    table("qed", &good(), cases);
}
