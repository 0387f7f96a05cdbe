//! Disks with an MBR: its four entries, and the chain of tables in an extended partition.

use std::ops::Range;

use luksmith_formats::image::partitions::{self, MbrEntry, PROTECTIVE};

use super::finding::checks;
use super::report::Report;
use super::source::{Source, Stop};

checks! {
    BOUNDS: reject, "mbr.bounds", "a partition is not within the disk, or contains the MBR";
    OVERLAP: reject, "mbr.overlap", "two partitions share sectors";
    NO_GPT: reject, "mbr.protective", "there is an entry that protects a GPT, but no GPT";
    CHAIN: reject, "mbr.chain",
        "the chain of tables in an extended partition leaves it, goes backwards, or does not end";
}

const SECTOR: u64 = 512;
/// The most logical partitions. Linux shows at most 60.
const MOST: usize = 128;

pub(super) fn check(source: &mut Source<'_>, report: &mut Report) -> Result<(), Stop> {
    report.claims(source.size());
    let sectors = source.size() / SECTOR;
    let Some(entries) = partitions::mbr(&source.read(0, SECTOR)?) else {
        return Ok(());
    };
    let mut taken = Vec::new();
    for (number, entry) in (0_u64..).zip(&entries) {
        let (at, name) = (446 + number * 16, format!("partition {number}"));
        if entry.kind == 0 {
            continue;
        }
        report.require(entry.kind != PROTECTIVE, &NO_GPT, at + 4, &name, || {
            "type 0xee".into()
        });
        let range = range(entry, 0);
        let inside = range.start >= 1 && !range.is_empty() && range.end <= sectors;
        if report.require(inside, &BOUNDS, at + 8, &name, || describe(&range, sectors)) {
            if partitions::is_extended(entry.kind) {
                chain(source, report, &range)?;
            }
            taken.push((range, at));
        }
    }
    overlaps(report, taken);
    Ok(())
}

/// The sectors of an entry, whose start is relative to `base`.
fn range(entry: &MbrEntry, base: u64) -> Range<u64> {
    let start = base.saturating_add(entry.start.into());
    start..start.saturating_add(entry.sectors.into())
}

fn describe(range: &Range<u64>, sectors: u64) -> String {
    let Range { start, end } = range;
    format!("sectors {start} to {end} of {sectors}")
}

/// Checks the chain of tables in an extended partition. Each table has one partition, whose start
/// is relative to the table, and the place of the next table, relative to the extended partition.
fn chain(source: &mut Source<'_>, report: &mut Report, whole: &Range<u64>) -> Result<(), Stop> {
    let mut at = whole.start;
    let mut taken = Vec::new();
    for _ in 0..MOST {
        let byte = at * SECTOR;
        let Some([partition, next, ..]) = partitions::mbr(&source.read(byte, SECTOR)?) else {
            report.add(&CHAIN, byte, "signature", "there is no table");
            break;
        };
        if partition.kind != 0 {
            let range = range(&partition, at);
            let inside = range.start > at && !range.is_empty() && range.end <= whole.end;
            report.require(inside, &BOUNDS, byte + 454, "logical partition", || {
                describe(&range, whole.end)
            });
            taken.push((range, byte + 446));
        }
        if next.kind == 0 {
            overlaps(report, taken);
            return Ok(());
        }
        let place = whole.start.saturating_add(next.start.into());
        if place <= at || place >= whole.end {
            report.add(&CHAIN, byte + 470, "next table", format!("sector {place}"));
            break;
        }
        at = place;
    }
    report.require(
        taken.len() < MOST,
        &CHAIN,
        at * SECTOR,
        "next table",
        || format!("more than {MOST} tables"),
    );
    overlaps(report, taken);
    Ok(())
}

fn overlaps(report: &mut Report, mut taken: Vec<(Range<u64>, u64)>) {
    taken.sort_unstable_by_key(|(range, _)| range.start);
    for pair in taken.windows(2) {
        let [(before, _), (range, at)] = pair else {
            continue;
        };
        report.require(
            before.end <= range.start,
            &OVERLAP,
            *at,
            "partition",
            || format!("sector {} is in two partitions", range.start),
        );
    }
}
