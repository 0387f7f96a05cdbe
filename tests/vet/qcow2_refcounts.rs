//! The refcounts of qcow2, compared with the uses of the clusters.

use crate::judge::{self, Case, be16, be32, be64, put, table};
use crate::qcow2::{
    CLUSTER, COPIED, DATA, L1, L2, REFCOUNT_BLOCK, REFCOUNT_TABLE, compress, good, version_2,
};
use crate::qcow2_tables::with_snapshot;

/// Sets the refcount of the cluster at an offset.
fn refcount(image: &mut [u8], at: usize, count: u16) {
    be16(image, REFCOUNT_BLOCK + 2 * (at / CLUSTER), count);
}

/// Writes refcounts of a width: 1 for each cluster in use, except for the one with the number
/// `but`.
fn with_order(image: &mut [u8], order: u32, but: usize) {
    be32(image, 96, order);
    put(image, REFCOUNT_BLOCK, &[0; CLUSTER]);
    for cluster in (0..12).filter(|cluster| *cluster != but) {
        let bit = cluster << order;
        let last = if order < 3 { 0 } else { (1 << (order - 3)) - 1 };
        image[REFCOUNT_BLOCK + bit / 8 + last] |= 1 << (bit % 8);
    }
}

const CASES: &[Case] = &[
    ("no refcount of data", "qcow2.refcount", |i| {
        refcount(i, DATA, 0)
    }),
    ("no refcount of the header", "qcow2.refcount", |i| {
        refcount(i, 0, 0)
    }),
    ("no refcount of the L1 table", "qcow2.refcount", |i| {
        refcount(i, L1, 0)
    }),
    ("no refcount of an L2 table", "qcow2.refcount", |i| {
        refcount(i, L2, 0)
    }),
    ("no refcount of refcounts", "qcow2.refcount", |i| {
        refcount(i, REFCOUNT_BLOCK, 0)
    }),
    ("no refcount block", "qcow2.refcount", |i| {
        be64(i, REFCOUNT_TABLE, 0)
    }),
    ("a refcount that is too high", "", |i| refcount(i, DATA, 7)),
    ("a refcount of what nothing uses", "", |i| {
        refcount(i, 10 * CLUSTER, 0)
    }),
    (
        "one cluster for two parts of the disk",
        "qcow2.shared",
        |i| {
            be64(i, L2 + 8, DATA as u64 | COPIED);
        },
    ),
    ("the same, counted", "", |i| {
        be64(i, L2, DATA as u64);
        be64(i, L2 + 8, DATA as u64);
        refcount(i, DATA, 2);
    }),
    (
        "compressed data in another's cluster",
        "qcow2.shared",
        |i| {
            be64(i, L2, (1 << 62) | (DATA + CLUSTER + 512) as u64);
        },
    ),
    ("the same, counted", "", |i| {
        let entry = compress(i, DATA + CLUSTER + 512);
        be64(i, L2, entry);
        refcount(i, DATA + CLUSTER, 2);
    }),
    ("compressed data over two clusters", "qcow2.shared", |i| {
        be64(i, L2, (1 << 62) | (1 << 58) | (DATA + CLUSTER - 512) as u64);
        refcount(i, DATA + CLUSTER, 1);
    }),
    (
        "late refcounts of an image that was not closed",
        "policy.feature",
        |i| {
            be64(i, 72, 1);
            refcount(i, DATA, 0);
        },
    ),
];

#[test]
fn uses_are_compared_with_refcounts() {
    table("qcow2", &good(), CASES);
    let bad = |name: &str, mut image: Vec<u8>| {
        refcount(&mut image, DATA, 0);
        judge::one(name, &judge::inspect(&image, "qcow2"), "qcow2.refcount");
    };
    bad("version 2", version_2());
}

#[test]
fn refcounts_have_any_width() {
    for order in 0..=6 {
        let mut image = good();
        with_order(&mut image, order, usize::MAX);
        judge::one(
            &format!("order {order}"),
            &judge::inspect(&image, "qcow2"),
            "",
        );
        for but in [1, 6, 7] {
            let mut image = good();
            with_order(&mut image, order, but);
            let name = format!("order {order}, but {but}");
            judge::one(&name, &judge::inspect(&image, "qcow2"), "qcow2.refcount");
        }
    }
}

/// An L2 table that a snapshot shares with the disk is used twice, and so are all clusters in it.
#[test]
fn snapshots_use_clusters_too() {
    for shared in [L2, DATA, DATA + CLUSTER] {
        let mut image = with_snapshot();
        refcount(&mut image, shared, 1);
        judge::one("shared", &judge::inspect(&image, "qcow2"), "qcow2.shared");
    }
}
