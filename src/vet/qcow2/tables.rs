//! The tables of a qcow2 image. They have to be within the image, aligned, and within QEMU's
//! limits, and must not overlap.

use luksmith_formats::image::qcow2::{
    self, Bitmap, Bitmaps, COPIED, Header, LARGEST_L1, LARGEST_REFCOUNT_TABLE, Snapshot,
    table_entry,
};

use super::checks::{BITMAPS, OVERLAP, RESERVED, SIZE, SNAPSHOTS, TABLE};
use super::clusters;
use super::image::Image;
use super::refcounts::{self, Uses};
use crate::vet::extents::{Extents, MOST};
use crate::vet::format::Feature;
use crate::vet::report::Report;
use crate::vet::source::{Source, Stop, pieces};

/// QEMU's limits, in bytes.
const LARGEST_SNAPSHOT_TABLE: u64 = 64 << 20;
const LARGEST_BITMAP: u64 = 512 << 20;
/// QEMU's limits, in entries.
const MOST_SNAPSHOTS: u32 = 65_536;
const MOST_BITMAPS: u32 = 65_535;
const LONGEST_NAME: u16 = 1023;
const LONGEST_EXTRA: u32 = 1024;
/// The flag of a bitmap that was in use when the image was closed. Its contents are invalid, and
/// its table may be out of date.
const IN_USE: u32 = 1;

/// The disk as one L1 table maps it.
pub(super) struct Map {
    /// The offsets of the L2 tables.
    pub(super) l2: Vec<u64>,
}

/// Checks that a part of the image is aligned to clusters, and within the image.
pub(super) fn fits(
    source: &Source<'_>,
    report: &mut Report,
    cluster: u64,
    (offset, len): (u64, u64),
    what: &str,
) -> bool {
    let good =
        offset != 0 && offset.is_multiple_of(cluster) && source.holds(offset, len) && len != 0;
    report.require(good, &TABLE, offset, what, || {
        format!("{len} bytes at byte {offset} of {}", source.size())
    })
}

/// Checks the offset of a table without entries, which QEMU does too.
fn empty(report: &mut Report, cluster: u64, offset: u64, what: &str) {
    let good = offset.is_multiple_of(cluster) && i64::try_from(offset).is_ok();
    report.require(good, &TABLE, offset, what, || format!("at byte {offset}"));
}

pub(super) fn check(
    source: &mut Source<'_>,
    report: &mut Report,
    image: &Image,
) -> Result<(), Stop> {
    let (header, cluster) = (&image.header, image.cluster);
    let mut extents = Extents::default();
    extents.take(0, cluster, "header")?;
    if let Some((offset, len)) = image.crypto {
        extents.take(offset, len, "encryption header")?;
    }
    refcount_table(source, report, header, cluster, &mut extents)?;

    let mut maps = Vec::new();
    let needed = header.l1_entries(header.size);
    let entries = u64::from(header.l1_size);
    let enough = report.require(needed <= entries, &SIZE, 24, "size", || {
        format!(
            "{} bytes need {needed} L1 entries, there are {entries}",
            header.size
        )
    });
    let place = (header.l1_offset, entries * 8);
    if entries == 0 {
        empty(report, cluster, place.0, "L1 table");
    }
    if enough && entries != 0 && l1_fits(source, report, cluster, place, "L1 table") {
        extents.take(place.0, place.1, "L1 table")?;
        maps.push(l1(source, report, cluster, place, true)?);
    }
    snapshots(source, report, image, &mut extents, &mut maps)?;
    if let Some(bitmaps) = image.bitmaps {
        list_bitmaps(source, report, image, bitmaps, &mut extents)?;
    }

    // Two maps may share tables. One map may not use a table twice.
    let mut all: Vec<u64> = maps.into_iter().flat_map(|map| map.l2).collect();
    all.sort_unstable();
    let shared = all.chunk_by(|one, other| one == other);
    let l2: Vec<(u64, u8)> = shared
        .map(|same| (same[0], u8::try_from(same.len()).unwrap_or(u8::MAX)))
        .collect();
    for (offset, _) in &l2 {
        extents.take(*offset, cluster, "L2 table")?;
    }
    for overlap in extents.overlaps() {
        let detail = format!("on the {}", overlap.on);
        report.add(&OVERLAP, overlap.offset, overlap.what, detail);
    }
    let mut uses = Uses::new(source, report, image);
    if let Some(uses) = &mut uses {
        uses.add_all(&extents);
    }
    let compressed = clusters::check(source, report, image, &l2, &mut extents, uses.as_mut())?;
    if let Some(uses) = uses {
        refcounts::compare(source, report, image, &uses)?;
    }
    clusters::inflate(source, report, image, compressed)
}

fn l1_fits(
    source: &Source<'_>,
    report: &mut Report,
    cluster: u64,
    place: (u64, u64),
    what: &str,
) -> bool {
    fits(source, report, cluster, place, what)
        && report.require(place.1 <= LARGEST_L1, &TABLE, place.0, what, || {
            format!("{} bytes; the most is {LARGEST_L1}", place.1)
        })
}

/// Reads an L1 table. The active one may not use an L2 table twice.
fn l1(
    source: &mut Source<'_>,
    report: &mut Report,
    cluster: u64,
    (start, len): (u64, u64),
    active: bool,
) -> Result<Map, Stop> {
    let mut l2 = Vec::new();
    table(source, report, (start, len), |source, report, at, entry| {
        let (offset, reserved) = table_entry(entry, COPIED);
        report.require(!reserved, &RESERVED, at, "L1 entry", || {
            format!("{entry:#018x}")
        });
        if l2.len() <= MOST
            && offset != 0
            && fits(source, report, cluster, (offset, cluster), "L2 table")
        {
            l2.push(offset);
        }
    })?;
    if l2.len() > MOST {
        return Err(Stop::Budget);
    }
    if active {
        let mut sorted = l2.clone();
        sorted.sort_unstable();
        for pair in sorted.windows(2).filter(|pair| pair[0] == pair[1]) {
            report.add(
                &OVERLAP,
                pair[0],
                "L2 table",
                "used for two parts of the disk",
            );
        }
    }
    Ok(Map { l2 })
}

/// Reads a table of 64-bit entries. Calls `each` with the offset and the value of every entry that
/// is not 0.
fn table(
    source: &mut Source<'_>,
    report: &mut Report,
    (start, len): (u64, u64),
    mut each: impl FnMut(&Source<'_>, &mut Report, u64, u64),
) -> Result<(), Stop> {
    for (at, len) in pieces(start, len) {
        let bytes = source.read(at, len)?;
        for (number, entry) in (0_u64..).zip(bytes.as_chunks::<8>().0) {
            let entry = u64::from_be_bytes(*entry);
            if entry != 0 {
                each(source, report, at + number * 8, entry);
            }
        }
        report.go_on()?;
    }
    Ok(())
}

fn refcount_table(
    source: &mut Source<'_>,
    report: &mut Report,
    header: &Header,
    cluster: u64,
    extents: &mut Extents,
) -> Result<(), Stop> {
    let start = header.refcount_table_offset;
    let len = u64::from(header.refcount_table_clusters) * cluster;
    if !fits(source, report, cluster, (start, len), "refcount table")
        || !report.require(
            len <= LARGEST_REFCOUNT_TABLE,
            &TABLE,
            56,
            "refcount table",
            || format!("{len} bytes; the most is {LARGEST_REFCOUNT_TABLE}"),
        )
    {
        return Ok(());
    }
    extents.take(start, len, "refcount table")?;
    let mut blocks = Vec::new();
    table(source, report, (start, len), |source, report, at, entry| {
        let (offset, reserved) = table_entry(entry, 0);
        report.require(!reserved, &RESERVED, at, "refcount table entry", || {
            format!("{entry:#018x}")
        });
        if offset != 0 && fits(source, report, cluster, (offset, cluster), "refcount block") {
            blocks.push(offset);
        }
    })?;
    for offset in blocks {
        extents.take(offset, cluster, "refcount block")?;
    }
    Ok(())
}

fn snapshots(
    source: &mut Source<'_>,
    report: &mut Report,
    image: &Image,
    extents: &mut Extents,
    maps: &mut Vec<Map>,
) -> Result<(), Stop> {
    let (header, cluster) = (&image.header, image.cluster);
    let count = header.snapshots;
    if count == 0 {
        empty(report, cluster, header.snapshots_offset, "snapshot table");
        return Ok(());
    }
    report.uses(Feature::Snapshots);
    let start = header.snapshots_offset;
    let placed = fits(
        source,
        report,
        cluster,
        (start, u64::from(count) * 40),
        "snapshot table",
    );
    if !report.require(
        count <= MOST_SNAPSHOTS,
        &SNAPSHOTS,
        60,
        "nb_snapshots",
        || format!("{count}; the most is {MOST_SNAPSHOTS}"),
    ) || !placed
    {
        return Ok(());
    }
    let mut at = start;
    for _ in 0..count {
        // The entry and the beginning of its extra data, without the names.
        let bytes = source.read(at, Snapshot::LENGTH as u64 + 24)?;
        let Some(entry) = Snapshot::parse(&bytes) else {
            report.add(
                &SNAPSHOTS,
                at,
                "snapshot",
                "reaches beyond the end of the image",
            );
            break;
        };
        let end = at + entry.length();
        let good = entry.extra_size <= LONGEST_EXTRA
            && end - start <= LARGEST_SNAPSHOT_TABLE
            && end <= source.size();
        if !report.require(good, &SNAPSHOTS, at, "snapshot", || {
            format!(
                "{} bytes, {} of them extra",
                entry.length(),
                entry.extra_size
            )
        }) {
            break;
        }
        let len = u64::from(entry.l1_size) * 8;
        let place = (entry.l1_offset, len);
        if len != 0 && l1_fits(source, report, cluster, place, "snapshot's L1 table") {
            extents.take(entry.l1_offset, len, "snapshot's L1 table")?;
            maps.push(l1(source, report, cluster, place, false)?);
        }
        let extra = &bytes[Snapshot::LENGTH..];
        let extra_size = usize::try_from(entry.extra_size).unwrap_or(usize::MAX);
        let extra = extra.get(..extra_size).unwrap_or(extra);
        if let Some(size) = Snapshot::disk_size(extra) {
            report.claims(size);
            let needed = header.l1_entries(size);
            report.require(
                needed <= u64::from(entry.l1_size),
                &SIZE,
                at + 48,
                "snapshot's disk size",
                || {
                    format!(
                        "{size} bytes need {needed} L1 entries, there are {}",
                        entry.l1_size
                    )
                },
            );
        }
        at = end.next_multiple_of(8);
    }
    extents.take(start, at - start, "snapshot table")
}

fn list_bitmaps(
    source: &mut Source<'_>,
    report: &mut Report,
    image: &Image,
    bitmaps: Bitmaps,
    extents: &mut Extents,
) -> Result<(), Stop> {
    // Without this bit, a program that does not support bitmaps has written to the image. The
    // bitmaps are out of date, and programs ignore them.
    if image.header.autoclear & qcow2::BITMAPS == 0 {
        return Ok(());
    }
    report.uses(Feature::Bitmaps);
    let (start, len) = (bitmaps.directory_offset, bitmaps.directory_size);
    let most = u64::from(bitmaps.count) * (24 + 1024);
    let good = (1..=MOST_BITMAPS).contains(&bitmaps.count) && bitmaps.reserved == 0 && len <= most;
    if !report.require(good, &BITMAPS, start, "bitmap directory", || {
        format!(
            "{} bitmaps in {len} bytes, reserved {}",
            bitmaps.count, bitmaps.reserved
        )
    }) || !fits(
        source,
        report,
        image.cluster,
        (start, len),
        "bitmap directory",
    ) {
        return Ok(());
    }
    extents.take(start, len, "bitmap directory")?;
    let mut at = start;
    for _ in 0..bitmaps.count {
        let bytes = source.read(at, Bitmap::LENGTH as u64)?;
        let Some(bitmap) = Bitmap::parse(&bytes) else {
            break;
        };
        one_bitmap(source, report, image, (at, &bitmap), extents)?;
        at += bitmap.length();
        if at > start + len {
            break;
        }
    }
    report.require(
        at == start + len,
        &BITMAPS,
        start,
        "bitmap directory",
        || format!("{len} bytes, of which {} are used", at - start),
    );
    Ok(())
}

/// The bytes of a bitmap of the disk, in whole clusters.
fn bitmap_bytes(image: &Image, bitmap: &Bitmap) -> u64 {
    let granularity = 1_u64
        .checked_shl(bitmap.granularity_bits.into())
        .unwrap_or(u64::MAX);
    let bits = image.header.size.div_ceil(granularity);
    bits.div_ceil(8).next_multiple_of(image.cluster)
}

fn one_bitmap(
    source: &mut Source<'_>,
    report: &mut Report,
    image: &Image,
    (at, bitmap): (u64, &Bitmap),
    extents: &mut Extents,
) -> Result<(), Stop> {
    let cluster = image.cluster;
    let bytes = u64::from(bitmap.table_size) * cluster;
    let good = bitmap.kind == 1
        && (9..=31).contains(&bitmap.granularity_bits)
        && (1..=LONGEST_NAME).contains(&bitmap.name_size)
        && bitmap.extra_size == 0
        && bitmap.flags & !3 == 0
        && bytes <= LARGEST_BITMAP
        && (bitmap.flags & IN_USE != 0 || bytes == bitmap_bytes(image, bitmap));
    if !report.require(good, &BITMAPS, at, "bitmap", || {
        format!(
            "type {}, granularity {}, a name of {} bytes, {} bytes of extra data, flags {:#x}, {} \
             entries",
            bitmap.kind,
            bitmap.granularity_bits,
            bitmap.name_size,
            bitmap.extra_size,
            bitmap.flags,
            bitmap.table_size
        )
    }) {
        return Ok(());
    }
    let place = (bitmap.table_offset, u64::from(bitmap.table_size) * 8);
    if bitmap.table_size == 0 || !fits(source, report, cluster, place, "bitmap table") {
        return Ok(());
    }
    extents.take(place.0, place.1, "bitmap table")?;
    let mut data = Vec::new();
    table(source, report, place, |source, report, at, entry| {
        // If there is no cluster, bit 0 means that all bits of this part are ones.
        let (offset, reserved) = table_entry(entry, u64::from(entry & !1 == 0));
        report.require(!reserved, &RESERVED, at, "bitmap table entry", || {
            format!("{entry:#018x}")
        });
        if offset != 0 && fits(source, report, cluster, (offset, cluster), "bitmap") {
            data.push(offset);
        }
    })?;
    for offset in data {
        extents.take(offset, cluster, "bitmap")?;
    }
    Ok(())
}
