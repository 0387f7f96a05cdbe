//! The largest and fullest images: no inspection takes long or needs much memory. `judge` has the
//! bounds.

use std::ops::Range;
use std::sync::OnceLock;

use luksmith::backend::{Backend, Geometry, IoError, Operation};
use luksmith::sectors::{Cipher, Sectors};
use luksmith::vet::Policy;

use crate::judge::{self, be32, be64, le32, le64};
use crate::qcow2::{self, L1, L2};
use crate::{qed, vdi, vhd, vmdk};

/// An image that is generated while it is read, from the given parts and a rule for each other
/// 64-bit word.
struct Made {
    size: u64,
    start: Vec<u8>,
    word: fn(u64) -> u64,
}

impl Backend for Made {
    fn geometry(&self) -> Geometry {
        Geometry::new(self.size)
            .with_block_size(8)
            .with_read_only(true)
    }

    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        let len = into.len() as u64;
        self.geometry().check(Operation::Read, offset, len)?;
        for (number, bytes) in (0_u64..).zip(into.as_mut_slice().as_chunks_mut::<8>().0) {
            let at = offset + number * 8;
            let given = usize::try_from(at).ok();
            let given = given.and_then(|at| self.start.get(at..)?.first_chunk());
            *bytes = *given.unwrap_or(&(self.word)(at).to_be_bytes());
        }
        Ok(())
    }

    fn write_at(&self, _: u64, _: &Sectors<Cipher>) -> Result<(), IoError> {
        panic!("an inspection writes");
    }

    fn flush(&self) -> Result<(), IoError> {
        panic!("an inspection flushes");
    }

    fn discard(&self, _: Range<u64>) -> Result<(), IoError> {
        panic!("an inspection discards");
    }

    fn write_zeroes(&self, _: Range<u64>) -> Result<(), IoError> {
        panic!("an inspection zeroes");
    }

    fn resize(&self, _: u64) -> Result<(), IoError> {
        panic!("an inspection resizes");
    }
}

#[track_caller]
fn judged(image: &Made, format: &str, id: &str) {
    let report = judge::inspect_on(image, format, &Policy::default());
    judge::one(id, &report, id);
}

const SIZE: u64 = 1 << 60;

/// A header for the largest tables.
fn full(cluster_bits: u32) -> Vec<u8> {
    let cluster = 1_u64 << cluster_bits;
    let mut start = qcow2::good();
    start.truncate(4096);
    be32(&mut start, 20, cluster_bits);
    be64(&mut start, 24, cluster);
    be32(&mut start, 36, 4 << 20);
    be64(&mut start, 40, 1 << 30);
    be64(&mut start, 48, 1 << 25);
    be32(&mut start, 56, (8 << 20) >> cluster_bits);
    start
}

#[test]
fn an_l1_table_full_of_tables() {
    for bits in [9, 12, 16, 21] {
        let image = Made {
            size: SIZE,
            start: full(bits),
            word: |at| match at {
                // The L1 table points to empty L2 tables after it.
                0x4000_0000..0x4200_0000 => (1 << 40) + (at - (1 << 30)) * (1 << 18),
                _ => 0,
            },
        };
        judged(&image, "qcow2", "walk.budget");
    }
}

#[test]
fn every_table_full_of_everything() {
    for bits in [9, 12, 16, 21] {
        for word in [
            |at| at << 21,
            |at: u64| at.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            |_| u64::MAX,
        ] {
            let image = Made {
                size: SIZE,
                start: full(bits),
                word,
            };
            let report = judge::inspect_on(&image, "qcow2", &Policy::default());
            assert!(report.findings.len() < 200);
            assert_ne!(report.verdict().name(), "accept");
        }
    }
}

/// The most clusters that are counted, all of them in use, and one more.
#[test]
fn every_cluster_is_counted() {
    let of_clusters = |count: u64| Made {
        size: count << 16,
        start: {
            let mut start = full(16);
            be64(&mut start, 24, 1 << 40);
            be32(&mut start, 36, 1 << 11);
            be32(&mut start, 56, 1);
            start
        },
        word: |at| match at {
            // A refcount table, an L1 table, the tables to which they point, then the data in
            // order.
            0x200_0000..0x200_0800 => (1 << 31) + (at - (1 << 25)) * (1 << 13),
            0x4000_0000..0x4000_1f40 => (1 << 32) + (at - (1 << 30)) * (1 << 13),
            0x8000_0000..0xa000_0000 => 0x0001_0001_0001_0001,
            0x1_0000_0000..0x1_03e8_0000 => (1 << 33) + (at - (1 << 32)) * (1 << 13),
            _ => 0,
        },
    };
    judged(&of_clusters(8 << 20), "qcow2", "");
    let report = judge::inspect_on(&of_clusters((8 << 20) + 1), "qcow2", &Policy::default());
    judge::one("one more", &report, "qcow2.refcounts-not-counted");
}

/// More compressed clusters than the budget lasts for: all of them are one cluster of zeroes.
#[test]
fn compressed_clusters_are_inflated_within_the_budget() {
    const DATA: u64 = 1 << 33;
    fn data(at: u64) -> u64 {
        static ZEROES: OnceLock<Vec<u8>> = OnceLock::new();
        let zeroes = ZEROES.get_or_init(|| {
            let mut data = miniz_oxide::deflate::compress_to_vec(&[0; 65536], 6);
            data.resize(512, 0);
            data
        });
        let at = usize::try_from(at).unwrap();
        u64::from_be_bytes(*zeroes[at..].first_chunk().unwrap())
    }
    let image = Made {
        size: 1 << 34,
        start: {
            let mut start = full(16);
            be64(&mut start, 24, 1 << 40);
            be32(&mut start, 36, 1 << 11);
            be32(&mut start, 56, 1);
            start
        },
        word: |at| match at {
            0x200_0000..0x200_0800 => (1 << 31) + (at - (1 << 25)) * (1 << 13),
            0x4000_0000..0x4000_1f40 => (1 << 32) + (at - (1 << 30)) * (1 << 13),
            0x8000_0000..0xa000_0000 => u64::MAX,
            0x1_0000_0000..0x1_03e8_0000 => (1 << 62) | DATA,
            DATA..0x2_0000_0200 => data(at - DATA),
            _ => 0,
        },
    };
    judged(&image, "qcow2", "qcow2.not-inflated");
}

/// More compressed grains than the budget lasts for: each is one of zeroes, in a sector of its own.
#[test]
fn compressed_grains_are_inflated_within_the_budget() {
    const GRAINS: u64 = 1 << 17;
    fn data(at: u64) -> u64 {
        static ZEROES: OnceLock<Vec<u8>> = OnceLock::new();
        let zeroes = ZEROES.get_or_init(|| {
            let mut data = vec![0; 512];
            vmdk::grain(&mut data, 0, &[0; 4096]);
            data
        });
        let at = usize::try_from(at % 512).unwrap();
        u64::from_be_bytes(*zeroes[at..].first_chunk().unwrap())
    }
    let image = Made {
        size: 1 << 30,
        start: {
            let mut start = vmdk::sparse();
            start.truncate(21 * 512);
            le32(&mut start, 8, 1 | 1 << 16 | 1 << 17);
            start[77] = 1;
            le64(&mut start, 12, GRAINS * 8);
            le64(&mut start, 56, 1 << 15);
            vmdk::edit(&mut start, "RW 8192 ", &format!("RW {} ", GRAINS * 8));
            vmdk::edit(&mut start, "monolithicSparse", "streamOptimized");
            start
        },
        word: |at| match at {
            // The directory, 256 tables of 512 grains from byte 2^25 on, and the grains.
            0x100_0000..0x100_0400 => {
                let table = |number: u64| (1 << 16) + number * 4;
                let first = (at - (1 << 24)) / 4;
                two(table(first), table(first + 1))
            }
            0x200_0000..0x208_0000 => {
                let first = (1 << 20) + (at - (1 << 25)) / 4;
                two(first, first + 1)
            }
            0x2000_0000..0x2400_0000 => data(at),
            _ => 0,
        },
    };
    judged(&image, "vmdk", "vmdk.not-inflated");
}

/// Two adjacent little-endian words of 32 bits.
fn two(first: u64, second: u64) -> u64 {
    (second << 32 | first).swap_bytes()
}

/// The most grains that are compared, in an order that has to be sorted, and one more table.
#[test]
fn all_data_is_compared() {
    const MOST: u64 = 4 << 20;
    // A multiplication by an odd number permutes the numbers below a power of two.
    const SHUFFLED: u64 = 0x9e37_79b1;
    let grains = |count: u64| Made {
        size: 1 << 40,
        start: {
            let mut start = vmdk::sparse();
            start.truncate(21 * 512);
            le32(&mut start, 8, 1);
            le64(&mut start, 12, count * 8);
            le64(&mut start, 56, 1 << 15);
            vmdk::edit(&mut start, "RW 8192 ", &format!("RW {} ", count * 8));
            start
        },
        word: |at| match at {
            // The directory: tables of 512 grains, from byte 2^25 on.
            0x100_0000..0x101_0000 => {
                let table = |number: u64| (1 << 16) + number * 4;
                let first = (at - (1 << 24)) / 4;
                two(table(first), table(first + 1))
            }
            0x200_0000..0x300_0800 => {
                let grain = |number: u64| (1 << 20) + number * SHUFFLED % (2 * MOST) * 8;
                let first = (at - (1 << 25)) / 4;
                two(grain(first), grain(first + 1))
            }
            _ => 0,
        },
    };
    judged(&grains(MOST), "vmdk", "");
    judged(&grains(MOST + 512), "vmdk", "vmdk.grains-not-compared");
    let clusters = Made {
        size: 1 << 40,
        start: {
            let mut start = qed::good();
            start.truncate(64);
            le32(&mut start, 4, 64 << 10);
            le32(&mut start, 8, 16);
            le64(&mut start, 40, 1 << 24);
            start
        },
        word: |at| match at {
            // 33 tables of 131072 entries each, the last with a single one.
            0x100_0000..0x100_0108 => ((1 << 30) + (at - (1 << 24)) * (1 << 17)).swap_bytes(),
            0x4000_0000..0x4200_0008 => {
                let cluster = (at - (1 << 30)) / 8 * SHUFFLED % (2 * MOST);
                ((1 << 31) + cluster * (64 << 10)).swap_bytes()
            }
            _ => 0,
        },
    };
    judged(&clusters, "qed", "qed.clusters-not-compared");
}

#[test]
fn data_in_random_order() {
    // L2 tables with data in random order, so that each entry needs a search.
    let image = Made {
        size: 1 << 50,
        start: {
            let mut start = full(16);
            be32(&mut start, 36, 1 << 14);
            start
        },
        word: |at| match at {
            0x4000_0000..0x4002_0000 => (1 << 36) + (at - (1 << 30)) * (1 << 14),
            // Anywhere between the tables.
            0x10_0000_0000.. => {
                (1 << 36)
                    + ((at.wrapping_mul(0x9e37_79b9) >> 3) % (1 << 14)) * (1 << 17)
                    + (1 << 16)
            }
            _ => 0,
        },
    };
    judged(&image, "qcow2", "walk.budget");
}

#[test]
fn the_most_snapshots() {
    let mut start = qcow2::good();
    start[L1..L2 + qcow2::CLUSTER].fill(0);
    be64(&mut start, 24, 0);
    be32(&mut start, 60, 65_536);
    be64(&mut start, 64, 1 << 30);
    let image = Made {
        size: SIZE,
        start,
        // Each with an L1 table of 32 MiB.
        word: |at| match (at, at.wrapping_sub(1 << 30) % 40) {
            (0x4000_0000..0x4100_0000, 0) => (1 << 41) + at,
            (0x4000_0000..0x4100_0000, 8) => (4 << 20) << 32,
            _ => 0,
        },
    };
    let report = judge::inspect_on(&image, "qcow2", &Policy::default());
    assert_ne!(report.verdict().name(), "accept");
}

#[test]
fn full_tables_of_other_formats() {
    let mut large = qed::good();
    le32(&mut large, 4, 64 << 20);
    le32(&mut large, 8, 16);
    le64(&mut large, 40, 1 << 36);
    let mut blocks = vdi::good();
    le32(&mut blocks, 340, 1 << 20);
    le32(&mut blocks, 344, !511);
    le32(&mut blocks, 384, 0x3fff_ffff);
    le32(&mut blocks, 388, 0x3fff_ffff);
    let mut grains = vmdk::sparse();
    le64(&mut grains, 12, 1 << 36);
    le64(&mut grains, 48, 1 << 30);
    le64(&mut grains, 56, 1 << 31);
    let dynamic = vhd::dynamic();
    for (format, start, kept) in [
        ("qed", large, 64),
        ("vdi", blocks, 512),
        ("vmdk", grains, 21 * 512),
        ("vhd", dynamic, 1536),
    ] {
        for word in [
            |at: u64| at << 26,
            |at: u64| at >> 3,
            |_| 1 << 32 | 1,
            |_| u64::MAX,
        ] {
            let image = Made {
                size: SIZE,
                start: start[..kept].to_vec(),
                word,
            };
            let report = judge::inspect_on(&image, format, &Policy::default());
            assert_ne!(report.verdict().name(), "accept", "{format}");
        }
    }
}

#[test]
fn discs_and_disks_of_any_size() {
    for format in [
        "raw", "qcow2", "qed", "vmdk", "vhd", "vhdx", "vdi", "iso", "udf", "gpt", "mbr", "luks",
    ] {
        let image = Made {
            size: !7,
            start: Vec::new(),
            word: |_| u64::MAX,
        };
        let report = judge::inspect_on(&image, format, &Policy::default());
        assert_ne!(report.verdict().name(), "accept", "{format}");
    }
}

/// A file cannot have this size, but a server can report it for its export.
#[test]
fn the_largest_size() {
    let mut start = qcow2::good();
    be64(&mut start, L2, (1 << 62) | 0x10_0000);
    let image = Made {
        size: u64::MAX - 7,
        start,
        word: |_| 0,
    };
    let report = judge::inspect_on(&image, "qcow2", &Policy::default());
    judge::one("the largest size", &report, "qcow2.inflate");
}
