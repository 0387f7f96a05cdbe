//! Grain directories, grain tables and grains. They have to be within the image, and must not
//! overlap. Compressed ones have to inflate.

use luksmith_formats::image::vmdk::{
    COMPRESSED, Header, MARKERS, REDUNDANT, SECTOR, ZERO_GRAINS, marker,
};

use super::checks::{GRAINS, HEADER, INFLATE, MANY, NOT_INFLATED, OVERLAP, SHARED, TABLE};
use crate::inflate::zlib;
use crate::vet::compressed::{Compressed, Piece};
use crate::vet::extents::{Data, Extents, MOST, misplaced};
use crate::vet::report::Report;
use crate::vet::source::{Source, Stop, pieces};

/// QEMU's limit, in bytes.
const LARGEST_DIRECTORY: u64 = 512 << 20;

pub(super) fn check(
    source: &mut Source<'_>,
    report: &mut Report,
    header: &Header,
) -> Result<(), Stop> {
    let mut extents = Extents::default();
    extents.take(0, SECTOR, "header")?;
    let descriptor = header.descriptor_size.saturating_mul(SECTOR);
    extents.take(
        header.descriptor_offset.saturating_mul(SECTOR),
        descriptor,
        "descriptor",
    )?;
    let overhead = header.overhead.saturating_mul(SECTOR);
    report.require(overhead <= source.size(), &HEADER, 64, "overHead", || {
        format!("{overhead} bytes of {}", source.size())
    });

    let mut tables = Vec::new();
    directory(
        source,
        report,
        header,
        header.gd_offset,
        &mut extents,
        &mut tables,
    )?;
    if header.flags & REDUNDANT != 0 {
        // Its tables are a copy. They must not overlap either, and are not read.
        directory(
            source,
            report,
            header,
            header.rgd_offset,
            &mut extents,
            &mut Vec::new(),
        )?;
    }
    for overlap in extents.overlaps() {
        let detail = format!("on the {}", overlap.on);
        report.add(&OVERLAP, overlap.offset, overlap.what, detail);
    }
    let mut found = Found::default();
    for table in tables {
        grains(source, report, header, table, &mut extents, &mut found)?;
    }
    if found.data.beyond {
        report.add(&MANY, header.gd_offset, "grain directory", "not compared");
    } else {
        // The length of a compressed grain is only in its own data. So only grains that begin at
        // the same place are found.
        let len = match header.flags & COMPRESSED {
            0 => header.grain_size,
            _ => 1,
        };
        for sector in found.data.overlaps(len) {
            report.add(&SHARED, sector * SECTOR, "grain", "used twice");
        }
    }
    let unit = header.grain_size * SECTOR;
    let checks = (&INFLATE, &NOT_INFLATED);
    let compressed = found.compressed;
    compressed.check(source, report, unit, checks, |source, piece, into| {
        inflate(source, header, piece, into)
    })
}

/// The grains of the disk.
#[derive(Default)]
struct Found {
    data: Data,
    compressed: Compressed,
}

/// Inflates a grain as QEMU does: a zlib stream, whose length is in the marker before it. Without
/// markers it is as long as two grains at most.
fn inflate(
    source: &mut Source<'_>,
    header: &Header,
    piece: &Piece,
    into: &mut [u8],
) -> Result<bool, Stop> {
    /// The number of the grain's first sector, and the length of its data.
    const MARKER: u64 = 12;
    let most = 2 * header.grain_size * SECTOR;
    let data = if header.flags & MARKERS == 0 {
        source.read(piece.offset, most)?
    } else {
        let bytes = source.read(piece.offset, MARKER)?;
        let (_, len, _) = marker(&bytes);
        match u64::from(len) {
            len @ 1.. if len <= most => source.read(piece.offset + MARKER, len)?,
            _ => return Ok(false),
        }
    };
    Ok(zlib(&data, into).is_some_and(|made| made > 0))
}

fn table_len(header: &Header) -> u64 {
    u64::from(header.gtes_per_gt) * 4
}

fn directory(
    source: &mut Source<'_>,
    report: &mut Report,
    header: &Header,
    offset: u64,
    extents: &mut Extents,
    tables: &mut Vec<u64>,
) -> Result<(), Stop> {
    let reach = u64::from(header.gtes_per_gt) * header.grain_size;
    let len = header.capacity.div_ceil(reach).saturating_mul(4);
    let start = offset.saturating_mul(SECTOR);
    let placed = start != 0 && len <= LARGEST_DIRECTORY && source.holds(start, len);
    if !report.require(placed, &TABLE, start, "grain directory", || {
        format!("{len} bytes at byte {start} of {}", source.size())
    }) {
        return Ok(());
    }
    extents.take(start, len, "grain directory")?;
    for (at, len) in pieces(start, len) {
        for (place, table) in words(source, at, len)? {
            if report.require(
                source.holds(table, table_len(header)),
                &TABLE,
                place,
                "grain table",
                || format!("byte {table} of {}", source.size()),
            ) {
                extents.take(table, table_len(header), "grain table")?;
                tables.push(table);
            }
        }
        report.go_on()?;
        if tables.len() > MOST {
            return Err(Stop::Budget);
        }
    }
    Ok(())
}

fn grains(
    source: &mut Source<'_>,
    report: &mut Report,
    header: &Header,
    table: u64,
    extents: &mut Extents,
    found: &mut Found,
) -> Result<(), Stop> {
    // A compressed grain has its own length. The image may end within the last uncompressed one.
    let size = if header.flags & COMPRESSED != 0 {
        SECTOR
    } else {
        header.grain_size * SECTOR
    };
    for (place, grain) in words(source, table, table_len(header))? {
        if grain == SECTOR && header.flags & ZERO_GRAINS != 0 {
            continue;
        }
        let on = extents.under(source, grain, size)?;
        let good = grain < source.size() && on.is_none();
        if report.require(good, &GRAINS, place, "grain", || {
            misplaced(grain, source.size(), on)
        }) {
            found.data.take(grain / SECTOR);
            if header.flags & COMPRESSED != 0 {
                found.compressed.take(Piece {
                    entry: place,
                    offset: grain,
                    len: 0,
                });
            }
        }
    }
    report.go_on()
}

/// The entries of a piece of a table that are not 0: the offset of each, and the offset of the byte
/// to which it points.
fn words(source: &mut Source<'_>, at: u64, len: u64) -> Result<Vec<(u64, u64)>, Stop> {
    let bytes = source.read(at, len)?;
    let words = (0_u64..).zip(bytes.as_chunks::<4>().0);
    Ok(words
        .map(|(number, word)| {
            (
                at + number * 4,
                u64::from(u32::from_le_bytes(*word)) * SECTOR,
            )
        })
        .filter(|(_, word)| *word != 0)
        .collect())
}
