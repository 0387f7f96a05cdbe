//! VHDX (Microsoft's MS-VHDX): both headers, both region tables, the metadata, and the block
//! allocation table.

use luksmith_formats::image::vhdx::{self, Guid, Header, Item, Region, checksum};

use super::extents::Extents;
use super::finding::checks;
use super::report::Report;
use super::source::{Source, Stop, pieces};

checks! {
    HEADER: reject, "vhdx.header",
        "one of the two headers is damaged, or neither is the current one";
    LOG: reject, "vhdx.log",
        "its log is not replayed: programs that do and do not replay it see different disks";
    REGIONS: reject, "vhdx.regions",
        "the region tables are damaged, differ, lack a region, or have an unknown required region";
    METADATA: reject, "vhdx.metadata",
        "the metadata is damaged, lacks an item, or has an unknown required item";
    PARENT: reject, "vhdx.parent",
        "it has a parent, from which a program reads what the image does not contain";
    SIZE: reject, "vhdx.size",
        "the disk is larger than the format or its table allows, or not a multiple of a sector";
    BLOCKS: reject, "vhdx.blocks", "a block has an unknown state, or is outside of the image";
    OVERLAP: reject, "vhdx.overlap", "a block or region overlaps another one";
}

const MIB: u64 = 1 << 20;
/// The largest disk: 64 TiB.
const LARGEST: u64 = 64 << 40;
const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
const REGION_TABLES: [u64; 2] = [192 << 10, 256 << 10];
const TABLE: u64 = 64 << 10;
const MOST_ENTRIES: u32 = 2047;

/// What is needed to read the block allocation table.
struct Layout {
    table: (u64, u64),
    size: u64,
    block: u64,
    sector: u64,
}

pub(super) fn check(source: &mut Source<'_>, report: &mut Report) -> Result<(), Stop> {
    let mut extents = Extents::default();
    extents.take(0, MIB, "header section")?;
    headers(source, report, &mut extents)?;
    let Some((table, metadata)) = regions(source, report, &mut extents)? else {
        return Ok(());
    };
    let Some(layout) = self::metadata(source, report, metadata, table)? else {
        return Ok(());
    };
    blocks(source, report, &layout, &mut extents)?;
    for overlap in extents.overlaps() {
        let detail = format!("on the {}", overlap.on);
        report.add(&OVERLAP, overlap.offset, overlap.what, detail);
    }
    Ok(())
}

fn headers(
    source: &mut Source<'_>,
    report: &mut Report,
    extents: &mut Extents,
) -> Result<(), Stop> {
    let mut good = Vec::new();
    for at in HEADERS {
        let bytes = source.read(at, Header::LENGTH)?;
        let header = Header::parse(&bytes);
        let valid = header.filter(|header| {
            header.checksum == checksum(&bytes) && header.version == 1 && header.log_version == 0
        });
        match valid {
            Some(header) => good.push((at, header, bytes)),
            None => report.add(
                &HEADER,
                at,
                "header",
                "wrong signature, checksum or version",
            ),
        }
    }
    // Disk2vhd writes the same header twice. Then either is the current one.
    if let [(_, first, a), (at, second, b)] = &good[..] {
        let one_is_current = first.sequence != second.sequence || a == b;
        report.require(one_is_current, &HEADER, at + 8, "SequenceNumber", || {
            format!("{} in both, which differ", first.sequence)
        });
    }
    let Some((at, header, _)) = good
        .into_iter()
        .max_by_key(|(_, header, _)| header.sequence)
    else {
        return Ok(());
    };
    let (offset, length) = (header.log_offset, u64::from(header.log_length));
    let placed = offset >= MIB
        && offset.is_multiple_of(MIB)
        && length.is_multiple_of(MIB)
        && source.holds(offset, length);
    if report.require(placed || length == 0, &HEADER, at + 68, "LogLength", || {
        format!("{length} bytes at byte {offset}")
    }) {
        extents.take(offset, length, "log")?;
    }
    report.require(header.log_guid == [0; 16], &LOG, at + 48, "LogGuid", || {
        hex(header.log_guid)
    });
    Ok(())
}

/// The places of the block allocation table and of the metadata.
type Places = ((u64, u64), (u64, u64));

fn regions(
    source: &mut Source<'_>,
    report: &mut Report,
    extents: &mut Extents,
) -> Result<Option<Places>, Stop> {
    let [first, second] = REGION_TABLES;
    let table = source.read(first, TABLE)?;
    let copy = source.read(second, TABLE)?;
    let count = vhdx::regions(&table).filter(|(count, sum)| {
        *sum == checksum(&table) && *count <= MOST_ENTRIES && table.len() as u64 == TABLE
    });
    let Some((count, _)) = count.filter(|_| table == copy) else {
        report.add(
            &REGIONS,
            first,
            "region table",
            "damaged, or its copy differs",
        );
        return Ok(None);
    };
    let (mut bat, mut metadata) = (None, None);
    for (number, entry) in (0_u32..count).zip(table[16..].chunks_exact(Region::LENGTH)) {
        let region = Region::parse(entry);
        let at = first + 16 + u64::from(number) * 32;
        let place = (region.offset, u64::from(region.length));
        let inside = place.0 >= MIB
            && place.0.is_multiple_of(MIB)
            && place.1.is_multiple_of(MIB)
            && place.1 != 0
            && source.holds(place.0, place.1);
        if !report.require(inside, &REGIONS, at + 16, "FileOffset", || {
            format!("{} bytes at byte {} of {}", place.1, place.0, source.size())
        }) {
            continue;
        }
        let (slot, name) = match region.guid {
            vhdx::BAT => (&mut bat, "block allocation table"),
            vhdx::METADATA => (&mut metadata, "metadata"),
            guid => {
                report.require(!region.required, &REGIONS, at, "Guid", || {
                    format!("{} is required and unknown", hex(guid))
                });
                extents.take(place.0, place.1, "region")?;
                continue;
            }
        };
        let twice = slot.replace(place).is_some();
        report.require(!twice, &REGIONS, at, "Guid", || {
            format!("there are two regions of the {name}")
        });
        extents.take(place.0, place.1, name)?;
    }
    if bat.is_none() || metadata.is_none() {
        report.add(
            &REGIONS,
            first,
            "region table",
            "there is no block allocation table, or no metadata",
        );
    }
    Ok(bat.zip(metadata))
}

fn metadata(
    source: &mut Source<'_>,
    report: &mut Report,
    (start, length): (u64, u64),
    table: (u64, u64),
) -> Result<Option<Layout>, Stop> {
    let bytes = source.read(start, TABLE)?;
    let count = vhdx::metadata(&bytes).filter(|count| u32::from(*count) <= MOST_ENTRIES);
    let Some(count) = count else {
        report.add(
            &METADATA,
            start,
            "metadata table",
            "there is no signature, or there are too many items",
        );
        return Ok(None);
    };
    let mut items: Vec<(Guid, u64)> = Vec::new();
    for (number, entry) in (0_u16..count).zip(bytes[32..].chunks_exact(Item::LENGTH)) {
        let item = Item::parse(entry);
        let at = start + 32 + u64::from(number) * 32;
        let (offset, len) = (u64::from(item.offset), u64::from(item.length));
        let inside = (offset >= TABLE || len == 0) && len <= MIB && offset + len <= length;
        let once = items.iter().all(|(guid, _)| *guid != item.guid);
        report.require(inside && once, &METADATA, at, "item", || {
            format!("{}: {len} bytes at {offset}", hex(item.guid))
        });
        let wanted = match item.guid {
            vhdx::FILE_PARAMETERS | vhdx::DISK_SIZE => 8,
            vhdx::LOGICAL_SECTOR | vhdx::PHYSICAL_SECTOR => 4,
            vhdx::DISK_ID => 16,
            vhdx::PARENT_LOCATOR => {
                report.add(&PARENT, at, "item", "a parent locator");
                continue;
            }
            guid => {
                report.require(!item.required, &METADATA, at, "ItemId", || {
                    format!("{} is required and unknown", hex(guid))
                });
                continue;
            }
        };
        let right = len == wanted && !item.is_user;
        if report.require(right, &METADATA, at + 20, "Length", || {
            format!("{len}, not {wanted}")
        }) && inside
        {
            let value = source.read(start + offset, len.min(8))?;
            let value = value
                .iter()
                .rev()
                .fold(0, |all, byte| (all << 8) | u64::from(*byte));
            items.push((item.guid, value));
        }
    }
    let find = |guid| {
        items
            .iter()
            .find(|(known, _)| *known == guid)
            .map(|(_, value)| *value)
    };
    let known = (
        find(vhdx::FILE_PARAMETERS),
        find(vhdx::DISK_SIZE),
        find(vhdx::LOGICAL_SECTOR),
        find(vhdx::PHYSICAL_SECTOR),
        find(vhdx::DISK_ID),
    );
    let (Some(parameters), Some(size), Some(sector), Some(physical), Some(_)) = known else {
        report.add(
            &METADATA,
            start,
            "metadata table",
            "a required item is missing",
        );
        return Ok(None);
    };
    let has_parent = parameters & (1 << 33) != 0;
    report.require(!has_parent, &PARENT, start, "HasParent", || "set".into());
    report.claims(size);
    let block = parameters & 0xffff_ffff;
    let sound = (MIB..=256 * MIB).contains(&block)
        && block.is_power_of_two()
        && [sector, physical]
            .iter()
            .all(|size| matches!(size, 512 | 4096));
    if !report.require(sound, &METADATA, start, "BlockSize", || {
        format!("{block} bytes, sectors of {sector} and {physical}")
    }) {
        return Ok(None);
    }
    let fits = size <= LARGEST && size.is_multiple_of(sector);
    let fits = report.require(fits, &SIZE, start, "VirtualDiskSize", || {
        format!("{size} bytes; the most is {LARGEST}")
    });
    Ok(fits.then_some(Layout {
        table,
        size,
        block,
        sector,
    }))
}

fn blocks(
    source: &mut Source<'_>,
    report: &mut Report,
    layout: &Layout,
    extents: &mut Extents,
) -> Result<(), Stop> {
    // After this number of blocks, the table has an entry for a bitmap.
    let ratio = (layout.sector << 23) / layout.block;
    let data = layout.size.div_ceil(layout.block);
    let entries = data + data.saturating_sub(1) / ratio;
    let (start, room) = layout.table;
    if !report.require(
        entries * 8 <= room,
        &SIZE,
        start,
        "block allocation table",
        || format!("{entries} entries in {room} bytes"),
    ) {
        return Ok(());
    }
    for (at, len) in pieces(start, entries * 8) {
        let bytes = source.read(at, len)?;
        for (number, entry) in (0_u64..).zip(bytes.as_chunks::<8>().0) {
            let (state, offset, reserved) = vhdx::block(u64::from_le_bytes(*entry));
            let index = (at - start) / 8 + number;
            let is_bitmap = index % (ratio + 1) == ratio;
            let (stored, known, size) = if is_bitmap {
                (state == 6, matches!(state, 0 | 6), MIB)
            } else {
                (state == 6, matches!(state, 0..=3 | 6), layout.block)
            };
            let place = at + number * 8;
            report.require(state != 7, &PARENT, place, "state", || {
                "7: partly in the parent".into()
            });
            let good = !reserved
                && (known || state == 7)
                && (!stored || (offset >= MIB && source.holds(offset, size)));
            if report.require(good, &BLOCKS, place, "block", || {
                format!("state {state}, byte {offset} of {}", source.size())
            }) && stored
            {
                extents.take(offset, size, "block")?;
            }
        }
        report.go_on()?;
    }
    Ok(())
}

fn hex(guid: Guid) -> String {
    format!("{:032x}", u128::from_be_bytes(guid))
}
