//! VirtualBox's VDI, version 1.1, with blocks of 1 MiB, the only ones that QEMU supports.

use luksmith_formats::image::vdi::{Header, LENGTH, UNALLOCATED, ZERO};

use super::extents::Extents;
use super::finding::checks;
use super::report::Report;
use super::source::{Source, Stop, pieces};

checks! {
    VERSION: reject, "vdi.version", "its version is not 1.1";
    KIND: reject, "vdi.type",
        "it is neither a dynamic nor a static disk, so a part of its data is in another file";
    PARENT: reject, "vdi.parent",
        "it names a parent, from which a program reads what the image does not contain";
    HEADER: reject, "vdi.header", "a field of the header is out of bounds";
    SIZE: reject, "vdi.size", "the disk is larger than all its blocks";
    MAP: reject, "vdi.map", "the block map is not within the image, or not before the data";
    BLOCKS: reject, "vdi.blocks",
        "a block is outside of the image, or not one of the allocated blocks";
    OVERLAP: reject, "vdi.overlap", "two parts of the disk use the same block";
}

const BLOCK: u64 = 1 << 20;
/// QEMU's limit.
const MOST_BLOCKS: u32 = 0x3fff_ffff;
const DYNAMIC: u32 = 1;
const STATIC: u32 = 2;

pub(super) fn check(source: &mut Source<'_>, report: &mut Report) -> Result<(), Stop> {
    let Some(header) = Header::parse(&source.read(0, LENGTH as u64)?) else {
        report.add(&HEADER, 0, "header", "the image ends within it");
        return Ok(());
    };
    report.claims(header.disk_size);
    report.require(
        header.version == 0x0001_0001,
        &VERSION,
        68,
        "version",
        || format!("{:#010x}", header.version),
    );
    let kind = header.image_type;
    report.require(
        matches!(kind, DYNAMIC | STATIC),
        &KIND,
        76,
        "image type",
        || kind.to_string(),
    );
    for (uuid, at, field) in [
        (header.uuid_link, 424, "uuid of the link"),
        (header.uuid_parent, 440, "uuid of the parent"),
    ] {
        report.require(uuid == [0; 16], &PARENT, at, field, || {
            format!("{:032x}", u128::from_be_bytes(uuid))
        });
    }
    let mut sound = true;
    let mut must = |good: bool, at: u64, field: &str, value: u32| {
        sound &= report.require(good, &HEADER, at, field, || value.to_string());
    };
    must(
        header.sector_size == 512,
        360,
        "sector size",
        header.sector_size,
    );
    must(
        u64::from(header.block_size) == BLOCK,
        376,
        "block size",
        header.block_size,
    );
    must(
        header.block_extra == 0,
        380,
        "block extra",
        header.block_extra,
    );
    // The header begins at byte 72. QEMU writes 384, VirtualBox 400.
    must(
        (384..=512).contains(&header.header_size),
        72,
        "header size",
        header.header_size,
    );
    must(header.blocks <= MOST_BLOCKS, 384, "blocks", header.blocks);
    must(
        header.blocks_allocated <= header.blocks,
        388,
        "blocks allocated",
        header.blocks_allocated,
    );
    if !sound {
        return Ok(());
    }
    let room = u64::from(header.blocks) * BLOCK;
    report.require(header.disk_size <= room, &SIZE, 368, "disk size", || {
        format!("{} bytes; the blocks have {room}", header.disk_size)
    });
    map(source, report, &header)
}

fn map(source: &mut Source<'_>, report: &mut Report, header: &Header) -> Result<(), Stop> {
    let (start, data) = (u64::from(header.map_offset), u64::from(header.data_offset));
    let len = u64::from(header.blocks) * 4;
    let placed = start >= 512
        && start.is_multiple_of(512)
        && data.is_multiple_of(512)
        && start + len <= data
        && source.holds(start, len);
    if !report.require(placed, &MAP, 340, "offset of the map", || {
        format!("{len} bytes at byte {start}, data from byte {data}")
    }) {
        return Ok(());
    }
    let mut extents = Extents::default();
    for (at, len) in pieces(start, len) {
        let bytes = source.read(at, len)?;
        for (number, entry) in (0_u64..).zip(bytes.as_chunks::<4>().0) {
            let block = u32::from_le_bytes(*entry);
            if matches!(block, UNALLOCATED | ZERO) {
                continue;
            }
            let offset = data + u64::from(block) * BLOCK;
            let good = block < header.blocks_allocated && source.holds(offset, BLOCK);
            let place = at + number * 4;
            if report.require(good, &BLOCKS, place, "block", || {
                format!("{block} of {}", header.blocks_allocated)
            }) {
                extents.take(offset, BLOCK, "block")?;
            }
        }
        report.go_on()?;
    }
    for overlap in extents.overlaps() {
        report.add(&OVERLAP, overlap.offset, overlap.what, "used twice");
    }
    Ok(())
}
