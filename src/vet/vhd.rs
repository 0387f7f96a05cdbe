//! VHD (Microsoft's *Virtual Hard Disk Image Format Specification* 1.0), fixed and dynamic.

use luksmith_formats::image::vhd::{
    self, DIFFERENCING, DYNAMIC, FIXED, FOOTER, Footer, Geometry, Header, UNALLOCATED,
};

use super::extents::Extents;
use super::finding::{checks, escaped};
use super::format::Feature;
use super::report::Report;
use super::source::{Source, Stop, pieces};

checks! {
    FOOTER_FIELD: reject, "vhd.footer",
        "there is no footer of 512 bytes at the end, or a field of it is out of bounds";
    CHECKSUM: reject, "vhd.checksum", "a checksum does not match";
    COPIES: reject, "vhd.copies",
        "the footer and its copy at the start differ: programs may see different disks";
    KIND: reject, "vhd.type",
        "it is neither a fixed nor a dynamic disk, or has the layout of the other type";
    PARENT: reject, "vhd.parent",
        "it names a parent, from which a program reads what the image does not contain";
    SIZE: reject, "vhd.size",
        "the disk is larger than the format or its table allows, or than the data in the image";
    GEOMETRY: reject, "vhd.geometry",
        "the geometry does not agree with the size: programs that use either see different disks";
    HEADER: reject, "vhd.header",
        "the header of the dynamic disk is missing, or a field of it is out of bounds";
    TABLE: reject, "vhd.table", "the block allocation table is not aligned, or not within the image";
    BLOCKS: reject, "vhd.blocks", "a block is outside of the image";
    OVERLAP: reject, "vhd.overlap",
        "a block or table overlaps another one, a header or the footer";
}

const SECTOR: u64 = 512;
/// The largest disk: 2040 GiB.
const LARGEST: u64 = 2040 << 30;

pub(super) fn check(source: &mut Source<'_>, report: &mut Report) -> Result<(), Stop> {
    let Some(end) = source.size().checked_sub(SECTOR) else {
        report.add(
            &FOOTER_FIELD,
            0,
            "footer",
            "the image is shorter than a footer",
        );
        return Ok(());
    };
    let last = source.read(end, SECTOR)?;
    let first = source.read(0, SECTOR)?;
    for (at, bytes) in [(0, &first), (end, &last)] {
        if let Some(footer) = Footer::parse(bytes) {
            sizes(report, at, &footer);
        }
    }
    let Some(footer) = Footer::parse(&last) else {
        report.add(&FOOTER_FIELD, end, "cookie", "there is no footer");
        return Ok(());
    };
    let dynamic = first.starts_with(b"conectix");
    if dynamic && end != 0 {
        report.require(first == last, &COPIES, 0, "footer", || {
            "differs from the one at the end".into()
        });
    }
    fields(report, end, &footer, &last);
    let kind = footer.disk_type;
    if kind == DIFFERENCING {
        report.add(&PARENT, end + 60, "disk type", "4: differencing");
    }
    let expected = if dynamic && end != 0 { DYNAMIC } else { FIXED };
    let right = kind == expected || (kind == DIFFERENCING && dynamic);
    report.require(right, &KIND, end + 60, "disk type", || {
        format!("{kind}, with the layout of type {expected}")
    });
    if expected == DYNAMIC {
        return blocks(source, report, end, &footer);
    }
    report.require(
        footer.current_size == end,
        &SIZE,
        end + 48,
        "current size",
        || format!("{} bytes; the image has {end}", footer.current_size),
    );
    Ok(())
}

/// Checks both sizes and the geometry.
fn sizes(report: &mut Report, at: u64, footer: &Footer) {
    report.claims(footer.original_size);
    report.claims(footer.current_size);
    let geometry = footer.geometry;
    if geometry != Geometry::LARGEST {
        report.claims(geometry.total() * SECTOR);
        // The computation in the specification rounds down by less than a cylinder.
        let sectors = footer.current_size / SECTOR;
        let missing = sectors.checked_sub(geometry.total());
        let near = missing.is_some_and(|missing| missing < geometry.cylinder().max(1));
        // A disk may be too large for any geometry.
        let beyond = geometry.total() == Geometry::LARGEST.total() && missing.is_some();
        report.require(near || beyond, &GEOMETRY, at + 56, "disk geometry", || {
            format!(
                "{} sectors; the current size is {sectors}",
                geometry.total()
            )
        });
    }
    for (size, offset, field) in [
        (footer.original_size, 40, "original size"),
        (footer.current_size, 48, "current size"),
    ] {
        report.require(
            size <= LARGEST && size.is_multiple_of(SECTOR),
            &SIZE,
            at + offset,
            field,
            || format!("{size} bytes; the most is {LARGEST}"),
        );
    }
    if footer.original_size != footer.current_size {
        report.uses(Feature::Resized);
    }
    if footer.saved_state != 0 {
        report.uses(Feature::Dirty);
    }
}

fn fields(report: &mut Report, at: u64, footer: &Footer, bytes: &[u8]) {
    report.require(
        footer.version == 0x0001_0000,
        &FOOTER_FIELD,
        at + 12,
        "file format version",
        || format!("{:#010x}", footer.version),
    );
    report.require(
        footer.features & !3 == 0,
        &FOOTER_FIELD,
        at + 8,
        "features",
        || format!("{:#010x}", footer.features),
    );
    let checksum = vhd::checksum(bytes, 64);
    report.require(
        footer.checksum == checksum,
        &CHECKSUM,
        at + 64,
        "checksum",
        || format!("{:#010x}, not {checksum:#010x}", footer.checksum),
    );
}

fn blocks(
    source: &mut Source<'_>,
    report: &mut Report,
    end: u64,
    footer: &Footer,
) -> Result<(), Stop> {
    let at = footer.data_offset;
    let bytes = source.read(at, vhd::HEADER as u64)?;
    let header = Header::parse(&bytes).filter(|_| at >= SECTOR && at.is_multiple_of(SECTOR));
    let Some(header) = header else {
        report.add(
            &HEADER,
            16,
            "data offset",
            format!("no header at byte {at}"),
        );
        return Ok(());
    };
    for (field, offset, value) in vhd::parent(&bytes) {
        let used = value.len() - value.iter().rev().take_while(|byte| **byte == 0).count();
        if used != 0 {
            let first = value.iter().position(|byte| *byte != 0).unwrap_or(0);
            let value = escaped(&value[first..used]);
            report.add(&PARENT, at + offset, field, value.clone());
            report.refers(value);
        }
    }
    let checksum = vhd::checksum(&bytes, 36);
    report.require(
        header.checksum == checksum,
        &CHECKSUM,
        at + 36,
        "checksum",
        || format!("{:#010x}, not {checksum:#010x}", header.checksum),
    );
    let block = u64::from(header.block_size);
    let good = header.version == 0x0001_0000 && block >= SECTOR && block.is_power_of_two();
    if !report.require(good, &HEADER, at + 32, "block size", || {
        format!("{block}, of version {:#010x}", header.version)
    }) {
        return Ok(());
    }
    let entries = u64::from(header.max_table_entries);
    report.require(
        entries * block >= footer.current_size,
        &SIZE,
        at + 28,
        "max table entries",
        || {
            format!(
                "{entries} blocks of {block} bytes for {}",
                footer.current_size
            )
        },
    );
    let (start, len) = (header.table_offset, entries * 4);
    let placed = start.is_multiple_of(SECTOR)
        && source.holds(start, len)
        && entries <= LARGEST / block
        && start != 0;
    if !report.require(placed, &TABLE, at + 16, "table offset", || {
        format!("{len} bytes at byte {start} of {}", source.size())
    }) {
        return Ok(());
    }
    let mut extents = Extents::default();
    extents.take(0, FOOTER as u64, "copy of the footer")?;
    extents.take(at, vhd::HEADER as u64, "header")?;
    extents.take(start, len, "block allocation table")?;
    extents.take(end, SECTOR, "footer")?;
    // Before each block there is a bitmap of its sectors.
    let whole = (block / SECTOR).div_ceil(8).next_multiple_of(SECTOR) + block;
    for (at, len) in pieces(start, len) {
        let bytes = source.read(at, len)?;
        for (number, entry) in (0_u64..).zip(bytes.as_chunks::<4>().0) {
            let sector = u32::from_be_bytes(*entry);
            let offset = u64::from(sector) * SECTOR;
            if sector != UNALLOCATED
                && report.require(
                    source.holds(offset, whole),
                    &BLOCKS,
                    at + number * 4,
                    "block",
                    || format!("sector {sector}; the image has {} bytes", source.size()),
                )
            {
                extents.take(offset, whole, "block")?;
            }
        }
        report.go_on()?;
    }
    for overlap in extents.overlaps() {
        let detail = format!("on the {}", overlap.on);
        report.add(&OVERLAP, overlap.offset, overlap.what, detail);
    }
    Ok(())
}
