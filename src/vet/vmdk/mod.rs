//! VMDK (VMware's *Virtual Disk Format 5.0*): hosted sparse extents with their descriptor, and
//! files that are only a descriptor.
//!
//! - This file: the header, its footer, and the kind of file.
//! - `checks`: the list of checks.
//! - `descriptor`: the text of the descriptor.
//! - `scan`: what QEMU reads from that text.
//! - `grains`: grain directories and tables.

mod checks;
mod descriptor;
mod grains;
mod scan;

use luksmith_formats::image::vmdk::{
    AT_END, COMPRESSED, Header, MARKERS, NEWLINES, REDUNDANT, SECTOR, ZERO_GRAINS, marker,
};

use super::format::Feature;
use super::report::Report;
use super::source::{Source, Stop};
pub(super) use checks::CHECKS;
use checks::{CAPACITY, FLAGS, FOOTER, HEADER, KIND};

const KNOWN_FLAGS: u32 = NEWLINES | REDUNDANT | ZERO_GRAINS | COMPRESSED | MARKERS;
/// QEMU's limits.
const MOST_ENTRIES: u32 = 512;
const LARGEST_GRAIN: u64 = 0x20_0000;

pub(super) fn check(source: &mut Source<'_>, report: &mut Report) -> Result<(), Stop> {
    let start = source.read(0, SECTOR)?;
    if start.starts_with(b"COWD") || start.starts_with(b"\xbe\xba\xfe\xca\0\0\0\0") {
        report.add(&KIND, 0, "magic", "COWD or seSparse");
        return Ok(());
    }
    if !start.starts_with(b"KDMV") {
        return descriptor::alone(source, report);
    }
    let Some(header) = Header::parse(&start) else {
        report.add(&HEADER, 0, "header", "the image ends within it");
        return Ok(());
    };
    report.claims(header.capacity.saturating_mul(SECTOR));
    let end = footer(source, report, &header)?;
    let sound = fields(report, &header);
    descriptor::embedded(source, report, &header)?;
    // If the header says so, the footer counts.
    let used = end.filter(|_| header.gd_offset == AT_END).unwrap_or(header);
    if sound && used.gd_offset != AT_END {
        grains::check(source, report, &used)?;
    }
    Ok(())
}

fn fields(report: &mut Report, header: &Header) -> bool {
    let flags = header.flags;
    let compressed = flags & COMPRESSED != 0;
    report.require(
        flags & !KNOWN_FLAGS == 0 && header.compression == u16::from(compressed),
        &FLAGS,
        8,
        "flags",
        || format!("{flags:#x}, compression {}", header.compression),
    );
    if compressed {
        report.uses(Feature::Compression);
    }
    if header.unclean != 0 {
        report.uses(Feature::Dirty);
    }
    let (capacity, grain) = (header.capacity, header.grain_size);
    let mut sound = report.require(
        capacity != 0 && capacity <= u64::MAX / SECTOR,
        &CAPACITY,
        12,
        "capacity",
        || capacity.to_string(),
    );
    let mut must = |good: bool, at: u64, field: &str, value: u64| {
        sound &= report.require(good, &HEADER, at, field, || value.to_string());
    };
    must(
        (1..=3).contains(&header.version),
        4,
        "version",
        header.version.into(),
    );
    must(
        grain.is_power_of_two() && grain <= LARGEST_GRAIN,
        20,
        "grainSize",
        grain,
    );
    let entries = header.gtes_per_gt;
    must(
        (1..=MOST_ENTRIES).contains(&entries),
        44,
        "numGTEsPerGT",
        entries.into(),
    );
    let newlines = flags & NEWLINES == 0 || header.newlines == *b"\n \r\n";
    must(
        newlines,
        73,
        "newlines",
        u32::from_be_bytes(header.newlines).into(),
    );
    sound
}

/// Checks the footer of a stream. Returns it if it agrees with the header, whose fields are checked
/// elsewhere. Returns `None` if there is no footer.
fn footer(
    source: &mut Source<'_>,
    report: &mut Report,
    header: &Header,
) -> Result<Option<Header>, Stop> {
    let wanted = header.gd_offset == AT_END;
    let Some(at) = source.size().checked_sub(3 * SECTOR).filter(|at| *at > 0) else {
        report.require(!wanted, &FOOTER, 56, "gdOffset", || {
            "there is no room for a footer".into()
        });
        return Ok(None);
    };
    let bytes = source.read(at, 3 * SECTOR)?;
    let [before, middle, after] = [0, 512, 1024].map(|from| &bytes[from..from + 512]);
    let parsed = Header::parse(middle);
    // Without the markers of a stream's end around it, such bytes are data.
    let marked = marker(before).1 == 0
        && marker(before).2 == 3
        && marker(after) == (0, 0, 0)
        && source.size().is_multiple_of(SECTOR);
    let Some(footer) = parsed.filter(|_| marked) else {
        report.require(!wanted, &FOOTER, at, "footer", || {
            "missing, or without its markers".into()
        });
        return Ok(None);
    };
    report.claims(footer.capacity.saturating_mul(SECTOR));
    let gd_offset = if wanted { AT_END } else { footer.gd_offset };
    let same = Header {
        gd_offset,
        rgd_offset: header.rgd_offset,
        overhead: header.overhead,
        unclean: header.unclean,
        ..footer
    };
    let same = report.require(same == *header, &FOOTER, at + SECTOR, "footer", || {
        "differs from the header".into()
    });
    report.require(
        footer.gd_offset != AT_END,
        &FOOTER,
        at + SECTOR + 56,
        "gdOffset",
        || "the footer has no offset".into(),
    );
    Ok(same.then_some(footer))
}
