//! Compares the refcounts with the uses of the clusters. A program writes in place to a cluster
//! whose refcount is 1, and allocates again a cluster whose refcount is 0, even if there are more
//! uses.
//!
//! A refcount that is too high only loses space, as after a crash, and is not a finding. `tables`
//! finds tables that overlap.

use luksmith_formats::image::qcow2::{self, table_entry};

use super::checks::{MANY, REFCOUNT, SHARED};
use super::image::Image;
use crate::vet::extents::Extents;
use crate::vet::report::{Report, Verdict};
use crate::vet::source::{Source, Stop, pieces};

/// The most clusters that are counted: 512 GiB of clusters of 64 KiB. This bounds memory and time.
const MOST: u64 = 8 << 20;

/// How often each cluster is used. The counts end at 255.
pub(super) struct Uses {
    cluster: u64,
    counts: Vec<u8>,
}

impl Uses {
    /// Returns `None`, after adding a note, if the image has too many clusters.
    pub(super) fn new(source: &Source<'_>, report: &mut Report, image: &Image) -> Option<Self> {
        let clusters = source.size().div_ceil(image.cluster);
        if clusters > MOST {
            report.add(&MANY, 48, "refcount table", format!("{clusters} clusters"));
            return None;
        }
        Some(Self {
            cluster: image.cluster,
            counts: vec![0; usize::try_from(clusters).unwrap_or_default()],
        })
    }

    /// Adds `times` uses of all clusters that a range touches.
    pub(super) fn add(&mut self, start: u64, len: u64, times: u8) {
        let index = |at: u64| usize::try_from(at / self.cluster).unwrap_or(usize::MAX);
        let last = start.saturating_add(len.saturating_sub(1));
        let after = index(last).saturating_add(1).min(self.counts.len());
        let counts = self.counts.get_mut(index(start)..after);
        for count in counts.unwrap_or_default() {
            *count = count.saturating_add(times);
        }
    }

    /// Adds one use of each extent.
    pub(super) fn add_all(&mut self, extents: &Extents) {
        for (start, len) in extents.ranges() {
            self.add(start, len, 1);
        }
    }
}

/// Compares the refcounts with the uses. Skips images that are rejected already, and images that
/// were not closed, whose refcounts may be out of date.
pub(super) fn compare(
    source: &mut Source<'_>,
    report: &mut Report,
    image: &Image,
    uses: &Uses,
) -> Result<(), Stop> {
    let header = &image.header;
    if report.verdict() == Verdict::Reject || header.incompatible & qcow2::DIRTY != 0 {
        return Ok(());
    }
    let bits = 1_u64 << header.refcount_order;
    let in_block = image.cluster * 8 / bits;
    let len = u64::from(header.refcount_table_clusters) * image.cluster;
    let mut table = Vec::new();
    for (at, len) in pieces(header.refcount_table_offset, len) {
        let bytes = source.read(at, len)?;
        let entries = bytes.as_chunks::<8>().0.iter();
        table.extend(entries.map(|entry| table_entry(u64::from_be_bytes(*entry), 0).0));
    }
    let most = usize::try_from(in_block).unwrap_or(usize::MAX);
    let blocks = table.into_iter().chain(std::iter::repeat(0));
    for (first, (counts, block)) in (0_u64..).zip(uses.counts.chunks(most).zip(blocks)) {
        let bytes = match block {
            0 => Vec::new(),
            block => source.read(block, image.cluster)?,
        };
        for (number, count) in (0_u64..).zip(counts).filter(|(_, count)| **count != 0) {
            let refcount = refcount(&bytes, number, header.refcount_order);
            let good = refcount >= u64::from(*count);
            let check = if *count == 1 { &REFCOUNT } else { &SHARED };
            report.require(good, check, block, "refcount block", || {
                let at = (first * in_block + number) * image.cluster;
                format!(
                    "the cluster at byte {at} is used {count} times; its refcount is {refcount}"
                )
            });
        }
        report.go_on()?;
    }
    Ok(())
}

/// An entry of a refcount block. Entries under 8 bits fill a byte from its lowest bits on. Larger
/// ones are big-endian.
fn refcount(block: &[u8], number: u64, order: u32) -> u64 {
    let bit = number << order;
    let at = usize::try_from(bit / 8).unwrap_or(usize::MAX);
    let byte = |at: usize| u64::from(block.get(at).copied().unwrap_or(0));
    if order < 3 {
        return byte(at) >> (bit % 8) & ((1 << (1 << order)) - 1);
    }
    let bytes = 1_usize << (order - 3);
    (0..bytes).fold(0, |value, next| value << 8 | byte(at + next))
}
