//! VMDK (VMware's *Virtual Disk Format 5.0*): hosted sparse extents with their descriptor, and descriptors alone.
//!
//! - this file: the header, its footer, and which sort of file it is.
//! - `descriptor`: the text.
//! - `scan`: what QEMU reads in that text.
//! - `grains`: grain directories and tables.

mod descriptor;
mod grains;
mod scan;

use luksmith_formats::image::vmdk::{
    AT_END, COMPRESSED, Header, MARKERS, NEWLINES, REDUNDANT, ZERO_GRAINS, marker,
};

use super::finding::checks;
use super::policy::Feature;
use super::report::Report;
use super::source::{Source, Stop};

checks! {
    KIND: reject, "vmdk.kind", "it is of a kind for one hypervisor's own storage (COWD, seSparse), whose descriptor is another file";
    HEADER: reject, "vmdk.header", "a field of the header is out of its bounds";
    FLAGS: reject, "vmdk.flags", "it has flags that are not known, or that do not agree with the compression";
    CAPACITY: reject, "vmdk.capacity", "the capacity is 0, so that programs take the descriptor's files for the disk, or too large";
    FOOTER: reject, "vmdk.footer", "the footer is missing, or says something else than the header, so that readers of either see different disks";
    DESCRIPTOR: reject, "vmdk.descriptor", "the descriptor is not where every reader looks for it, or is no text of lines that are known";
    TEXT: note, "vmdk.text", "the descriptor has bytes outside of ASCII, which programs read by different encodings";
    CID: reject, "vmdk.cid", "the content ids are not on one line each, the image's own first, where QEMU searches for them";
    CREATE_TYPE: reject, "vmdk.create-type", "the type of the disk is not there exactly once, or is not that of such a file";
    PARENT: reject, "vmdk.parent", "it names a parent: what is not in the image would be read from there";
    REFERENCE: reject, "vmdk.reference", "it names a file for a digest, a filter or the like";
    TRACKING: note, "vmdk.change-tracking", "it names a file for change tracking, which VMware opens and QEMU does not";
    EXTENTS: reject, "vmdk.extents", "the list of extents is not what such a file has, or makes another size, or QEMU reads another one";
    PATH: reject, "vmdk.extent-path", "an extent is named by a path, or by something that is no plain file name";
    EXTENT_FILE: note, "vmdk.extent-file", "its data is in another file beside it, which is not looked at";
    UNKNOWN: note, "vmdk.unknown", "the descriptor has a field that is not known";
    TABLE: reject, "vmdk.table", "a grain directory or table does not lie in the image";
    OVERLAP: reject, "vmdk.overlap", "a table lies on another one, on the header or on the descriptor";
    GRAINS: reject, "vmdk.grains", "a grain is said to lie outside of the image or on its tables";
    SHARED: reject, "vmdk.shared", "one grain serves two parts of the disk";
    MANY: note, "vmdk.grains-not-compared", "there are too many grains to look for one that serves twice";
}

const SECTOR: u64 = 512;
/// What QEMU reads of a descriptor.
const LONGEST_DESCRIPTOR: u64 = (1 << 20) - 1;
const KNOWN_FLAGS: u32 = NEWLINES | REDUNDANT | ZERO_GRAINS | COMPRESSED | MARKERS;
/// QEMU's limits.
const MOST_ENTRIES: u32 = 512;
const LARGEST_GRAIN: u64 = 0x20_0000;
const LARGEST_DIRECTORY: u64 = 512 << 20;

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
        report.add(&HEADER, 0, "header", "the image ends in it");
        return Ok(());
    };
    report.claims(header.capacity.saturating_mul(SECTOR));
    let end = footer(source, report, &header)?;
    let sound = fields(report, &header);
    descriptor::embedded(source, report, &header)?;
    // The footer takes precedence where the header says so.
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

/// The footer of a stream, where there is one or must be one. It is given only where it says what the header does, whose fields are
/// checked.
fn footer(
    source: &mut Source<'_>,
    report: &mut Report,
    header: &Header,
) -> Result<Option<Header>, Stop> {
    let wanted = header.gd_offset == AT_END;
    let Some(at) = source.size().checked_sub(3 * SECTOR).filter(|at| *at > 0) else {
        report.require(!wanted, &FOOTER, 56, "gdOffset", || {
            "no room for a footer".into()
        });
        return Ok(None);
    };
    let bytes = source.read(at, 3 * SECTOR)?;
    let [before, middle, after] = [0, 512, 1024].map(|from| &bytes[from..from + 512]);
    let parsed = Header::parse(middle);
    // What begins like a header there without a stream's end around it is data.
    let marked = marker(before).1 == 0
        && marker(before).2 == 3
        && marker(after) == (0, 0, 0)
        && source.size().is_multiple_of(SECTOR);
    let Some(footer) = parsed.filter(|_| marked) else {
        report.require(!wanted, &FOOTER, at, "footer", || {
            "none, or without its markers".into()
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
        || "the footer has none".into(),
    );
    Ok(same.then_some(footer))
}
