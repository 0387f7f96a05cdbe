//! The entries of the L2 tables: the guest's clusters have to be within the image, and must not
//! overlap a table. Compressed ones have to inflate.

use luksmith_formats::image::qcow2::{self, L2Entry, ZSTD, l2_entry};

use super::checks::{CLUSTERS, COMPRESSED, INFLATE, NOT_INFLATED, RESERVED, SUBCLUSTER};
use super::image::Image;
use super::refcounts::Uses;
use crate::inflate::{deflate, zstd};
use crate::vet::compressed::{Compressed, Piece};
use crate::vet::extents::{Extents, misplaced};
use crate::vet::format::Feature;
use crate::vet::report::Report;
use crate::vet::source::{Source, Stop, pieces};

pub(super) fn check(
    source: &mut Source<'_>,
    report: &mut Report,
    image: &Image,
    l2: &[(u64, u8)],
    extents: &mut Extents,
    mut uses: Option<&mut Uses>,
) -> Result<Compressed, Stop> {
    let mut compressed = Compressed::default();
    let extended = image.header.incompatible & qcow2::EXTENDED_L2 != 0;
    let size = if extended { 16 } else { 8 };
    for (table, times) in l2 {
        // One use of the table itself was added before.
        if let Some(uses) = &mut uses {
            uses.add(*table, image.cluster, times - 1);
        }
        for (start, len) in pieces(*table, image.cluster) {
            let bytes = source.read(start, len)?;
            for (number, entry) in (0_u64..).zip(bytes.chunks_exact(size)) {
                let at = start + number * size as u64;
                let word = |from: usize| {
                    let bytes = entry.get(from..).and_then(|rest| rest.first_chunk());
                    u64::from_be_bytes(bytes.copied().unwrap_or_default())
                };
                let (entry, bitmap) = (word(0), word(8));
                if entry != 0 || bitmap != 0 {
                    let data = one(source, report, image, (at, entry), extents)?;
                    data.into_iter().for_each(|piece| compressed.take(piece));
                    if let Some(uses) = &mut uses {
                        count(image, entry, *times, uses);
                    }
                    subclusters(report, at, entry, bitmap);
                }
            }
            report.go_on()?;
        }
    }
    Ok(compressed)
}

/// Inflates the compressed clusters, with what is left of the budget.
pub(super) fn inflate(
    source: &mut Source<'_>,
    report: &mut Report,
    image: &Image,
    compressed: Compressed,
) -> Result<(), Stop> {
    let whole = match image.header.compression {
        ZSTD => zstd,
        _ => deflate,
    };
    let checks = (&INFLATE, &NOT_INFLATED);
    compressed.check(
        source,
        report,
        image.cluster,
        checks,
        |source, piece, into| {
            let data = source.read(piece.offset, piece.len)?;
            Ok(whole(&data, into).is_some())
        },
    )
}

/// Adds the uses of the cluster in an entry of an L2 table that `times` maps share.
fn count(image: &Image, entry: u64, times: u8, uses: &mut Uses) {
    let extended = image.header.incompatible & qcow2::EXTENDED_L2 != 0;
    let zero_bit = image.header.version == 3 && !extended;
    match l2_entry(entry, image.header.cluster_bits, zero_bit) {
        L2Entry::Unallocated | L2Entry::Reserved => {}
        L2Entry::Cluster(offset) => uses.add(offset, image.cluster, times),
        L2Entry::Compressed(offset, len) => uses.add(offset, len, times),
    }
}

/// Checks an entry. Returns the compressed data to which it points, if that is where it may be.
fn one(
    source: &mut Source<'_>,
    report: &mut Report,
    image: &Image,
    (at, entry): (u64, u64),
    extents: &mut Extents,
) -> Result<Option<Piece>, Stop> {
    let extended = image.header.incompatible & qcow2::EXTENDED_L2 != 0;
    let zero_bit = image.header.version == 3 && !extended;
    match l2_entry(entry, image.header.cluster_bits, zero_bit) {
        L2Entry::Unallocated => {}
        L2Entry::Reserved => {
            report.add(&RESERVED, at, "L2 entry", format!("{entry:#018x}"));
        }
        L2Entry::Cluster(offset) => {
            // The image may end within the last cluster.
            let inside = offset.is_multiple_of(image.cluster) && offset < source.size();
            let on = extents.under(source, offset, image.cluster)?;
            report.require(inside && on.is_none(), &CLUSTERS, at, "L2 entry", || {
                misplaced(offset, source.size(), on)
            });
        }
        L2Entry::Compressed(offset, len) => {
            report.uses(Feature::Compression);
            // The length is in sectors, so the image may end within the last one.
            let end = offset.saturating_add(len);
            let last = source.size().checked_next_multiple_of(image.cluster);
            let inside = offset < source.size() && end <= last.unwrap_or(u64::MAX);
            let on = extents.under(source, offset, len)?;
            let good = report.require(
                inside && on.is_none() && len <= image.cluster + 1024,
                &COMPRESSED,
                at,
                "L2 entry",
                || {
                    let place = misplaced(offset, source.size(), on);
                    format!("{len} bytes at {place}")
                },
            );
            let piece = Piece {
                entry: at,
                offset,
                len,
            };
            return Ok(good.then_some(piece));
        }
    }
    Ok(None)
}

/// Checks the bitmap of an extended entry: 32 bits for the allocated subclusters, and 32 for those
/// that read as zeroes.
fn subclusters(report: &mut Report, at: u64, entry: u64, bitmap: u64) {
    let (allocated, zero) = (bitmap & 0xffff_ffff, bitmap >> 32);
    let has_cluster = entry & (1 << 62) == 0 && entry & 0x00ff_ffff_ffff_fe00 != 0;
    let good = allocated & zero == 0 && (allocated == 0 || has_cluster);
    report.require(good, &SUBCLUSTER, at + 8, "subclusters", || {
        format!("{bitmap:#018x}")
    });
}
