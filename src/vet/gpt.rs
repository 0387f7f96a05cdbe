//! Disks with a GPT (UEFI Specification 2.10, section 5): the protective MBR, both headers, and
//! both tables.

use luksmith_formats::image::partitions::{self, Crc32, Gpt, PROTECTIVE};

use super::finding::checks;
use super::format::Feature;
use super::report::Report;
use super::source::{Source, Stop, pieces};

checks! {
    MBR: reject, "gpt.protective-mbr",
        "the MBR does not protect the GPT: a program that only knows MBRs sees another disk";
    CHS: note, "gpt.protective-chs",
        "the CHS address of the protective entry is wrong; Linux and UEFI firmware do not read it";
    HEADER: reject, "gpt.header", "a GPT header breaks a rule of the format";
    CHECKSUM: reject, "gpt.checksum",
        "a checksum does not match: a program would use the other copy, or none";
    BACKUP: reject, "gpt.backup", "the second copy is missing, or differs from the first";
    PLACE: note, "gpt.backup-place",
        "the second copy is not at the end of the disk, which may have been enlarged";
    BOUNDS: reject, "gpt.bounds", "a table or a partition is outside of the bounds for it";
    OVERLAP: reject, "gpt.overlap", "two partitions share sectors";
}

/// The most bytes of a table. The usual one has 16384.
const MOST: u64 = 1 << 20;

pub(super) fn check(source: &mut Source<'_>, report: &mut Report) -> Result<(), Stop> {
    report.claims(source.size());
    // The header is in sector 1, so its offset is the sector size.
    let sector = if source.read(512, 8)? == b"EFI PART" {
        512
    } else {
        4096
    };
    let sectors = source.size() / sector;
    protective(source, report, sectors)?;
    let Some(primary) = header(source, report, sector, 1)? else {
        return Ok(());
    };
    let alternate = primary.alternate_lba;
    if !report.require(
        alternate > primary.last_usable && alternate < sectors,
        &BACKUP,
        sector + 32,
        "AlternateLBA",
        || format!("{alternate}; the disk has {sectors} sectors"),
    ) {
        return Ok(());
    }
    report.require(
        alternate + 1 == sectors,
        &PLACE,
        sector + 32,
        "AlternateLBA",
        || format!("{alternate}; the last sector is {}", sectors - 1),
    );
    if let Some(backup) = header(source, report, sector, alternate)? {
        let same = Gpt {
            checksum: primary.checksum,
            my_lba: 1,
            alternate_lba: alternate,
            entries_lba: primary.entries_lba,
            ..backup
        };
        report.require(
            same == primary && backup.alternate_lba == 1,
            &BACKUP,
            alternate * sector,
            "header",
            || "differs from the first copy".into(),
        );
    }
    Ok(())
}

/// Checks the protective MBR: one entry of type 0xEE that begins at sector 1. The CHS address of
/// its first sector (head, sector, cylinder) is 0/2/0 in the UEFI specification, and 0/1/0 by some
/// programs. Linux and EDK2 only check the type and the number of the first sector.
fn protective(source: &mut Source<'_>, report: &mut Report, sectors: u64) -> Result<(), Stop> {
    let Some(entries) = partitions::mbr(&source.read(0, 512)?) else {
        report.add(&MBR, 510, "signature", "none");
        return Ok(());
    };
    let used: Vec<_> = (0_u64..)
        .zip(&entries)
        .filter(|(_, entry)| entry.kind != 0)
        .collect();
    let protecting = used.iter().filter(|(_, entry)| entry.kind == PROTECTIVE);
    let [(number, entry)] = protecting.copied().collect::<Vec<_>>()[..] else {
        report.add(&MBR, 446, "type", "not exactly one entry of type 0xee");
        return Ok(());
    };
    let at = 446 + number * 16;
    let mut rule = |good: bool, offset: u64, field: &str, detail: String| {
        report.require(good, &MBR, at + offset, field, || detail);
    };
    let chs = entry.start_chs;
    rule(
        matches!(entry.boot, 0 | 0x80),
        0,
        "boot flag",
        format!("{:#04x}", entry.boot),
    );
    rule(
        entry.start == 1,
        8,
        "first sector",
        format!("{}", entry.start),
    );
    // A disk that was enlarged may keep its entry.
    let most = sectors.saturating_sub(1);
    let length = u64::from(entry.sectors);
    rule(
        length != 0 && (length <= most || entry.sectors == u32::MAX),
        12,
        "sectors",
        format!("{length} of {most}"),
    );
    report.require(
        matches!(chs, [0, 2, 0] | [0, 1, 0]),
        &CHS,
        at + 1,
        "first sector (CHS)",
        || format!("{}/{}/{}", chs[0], chs[1], chs[2]),
    );
    if used.len() > 1 {
        report.uses(Feature::HybridMbr);
    }
    Ok(())
}

/// Checks one header and its table. Returns `None` if the header cannot be compared.
fn header(
    source: &mut Source<'_>,
    report: &mut Report,
    sector: u64,
    lba: u64,
) -> Result<Option<Gpt>, Stop> {
    let at = lba * sector;
    let bytes = source.read(at, sector)?;
    let Some(gpt) = Gpt::parse(&bytes) else {
        report.add(&BACKUP, at, "Signature", "there is no header");
        return Ok(None);
    };
    let mut good = true;
    let mut rule = |holds: bool, offset: u64, field: &str, detail: String| {
        good &= report.require(holds, &HEADER, at + offset, field, || detail);
    };
    rule(
        gpt.revision == 0x0001_0000,
        8,
        "Revision",
        format!("{:#x}", gpt.revision),
    );
    rule(
        (92..=512).contains(&gpt.header_size),
        12,
        "HeaderSize",
        format!("{}", gpt.header_size),
    );
    rule(
        gpt.reserved == 0,
        20,
        "Reserved",
        format!("{}", gpt.reserved),
    );
    rule(gpt.my_lba == lba, 24, "MyLBA", format!("{}", gpt.my_lba));
    rule(
        gpt.entry_size >= 128 && gpt.entry_size.is_power_of_two(),
        84,
        "SizeOfPartitionEntry",
        format!("{}", gpt.entry_size),
    );
    let length = u64::from(gpt.entries) * u64::from(gpt.entry_size);
    rule(
        gpt.entries != 0 && length <= MOST,
        80,
        "NumberOfPartitionEntries",
        format!("{} of {} bytes each", gpt.entries, gpt.entry_size),
    );
    if !good {
        return Ok(None);
    }
    report.require(
        gpt.expected_checksum(&bytes) == Some(gpt.checksum),
        &CHECKSUM,
        at + 16,
        "HeaderCRC32",
        || format!("{:#010x}", gpt.checksum),
    );
    let table = gpt.entries_lba..gpt.entries_lba.saturating_add(length.div_ceil(sector));
    let (first, last) = (gpt.first_usable, gpt.last_usable);
    let sectors = source.size() / sector;
    // The table of the first copy is before the usable sectors. The table of the second copy is
    // after them.
    let placed = if lba == 1 {
        table.start >= 2 && table.end <= first
    } else {
        table.start > last && table.end <= lba
    };
    // A small disk may have no usable sector.
    let inside = placed && first <= last.saturating_add(1) && last < sectors;
    if report.require(inside, &BOUNDS, at + 40, "FirstUsableLBA", || {
        format!("usable {first} to {last}, table from {}", table.start)
    }) {
        entries(source, report, &gpt, (at, sector, length))?;
    }
    Ok(Some(gpt))
}

fn entries(
    source: &mut Source<'_>,
    report: &mut Report,
    gpt: &Gpt,
    (header, sector, length): (u64, u64, u64),
) -> Result<(), Stop> {
    let start = gpt.entries_lba.saturating_mul(sector);
    let mut crc = Crc32::default();
    let mut partitions = Vec::new();
    let size = usize::try_from(gpt.entry_size).unwrap_or(usize::MAX);
    let mut table = Vec::new();
    for (at, len) in pieces(start, length) {
        let piece = source.read(at, len)?;
        crc.update(&piece);
        table.extend_from_slice(&piece);
    }
    report.require(
        crc.value() == gpt.entries_checksum,
        &CHECKSUM,
        header + 88,
        "PartitionEntryArrayCRC32",
        || format!("{:#010x}", gpt.entries_checksum),
    );
    for (number, entry) in (0_u64..).zip(table.chunks_exact(size)) {
        let Some((first, last)) = partitions::gpt_entry(entry) else {
            continue;
        };
        let at = start + number * u64::from(gpt.entry_size);
        let inside = gpt.first_usable <= first && first <= last && last <= gpt.last_usable;
        report.require(inside, &BOUNDS, at + 32, "StartingLBA", || {
            format!("sectors {first} to {last}")
        });
        partitions.push((first, last, at));
    }
    partitions.sort_unstable();
    for pair in partitions.windows(2) {
        let [(_, last, _), (first, _, at)] = pair else {
            continue;
        };
        report.require(last < first, &OVERLAP, *at + 32, "StartingLBA", || {
            format!("sector {first} is in two partitions")
        });
    }
    Ok(())
}
