//! A partition of an MBR.
//!
//! An extended partition holds a chain of tables, each with one logical partition and the place of
//! the next table. The kernel and fdisk number the logical partitions in the order of the chain,
//! which need not be that of their places.

use std::ops::Range;

use luksmith_formats::image::partitions::{self, MbrEntry, PROTECTIVE, is_extended};

use super::disk::{Disk, in_bytes, overlap};
use super::error::{Fault, PartitionError, Table};
use crate::backend::IoError;

/// The number of the first logical partition.
const FIRST_LOGICAL: u32 = 5;
/// The most tables of a chain. Linux follows 100 tables without a partition.
const MOST: usize = 128;

/// The bytes of a partition.
pub(super) fn partition(
    disk: &Disk<'_>,
    sector: u64,
    entries: &[MbrEntry; 4],
    number: u32,
) -> Result<Range<u64>, PartitionError> {
    let primaries: Vec<_> = (1_u32..)
        .zip(entries)
        .filter(|(_, entry)| entry.kind != 0 && entry.sectors != 0)
        .map(|(number, entry)| (number, range(entry, 0), is_extended(entry.kind)))
        .collect();
    let sectors = disk.sectors(sector);
    let inside = |range: &Range<u64>| range.start >= 1 && range.end <= sectors;
    let overlapping = |number: u32, range: &Range<u64>| {
        let mut others = primaries.iter().filter(|(other, ..)| *other != number);
        others
            .find(|(_, other, _)| overlap(range, other))
            .map(|(other, ..)| Some(*other))
    };
    let mut extended = primaries.iter().filter(|(.., extended)| *extended);
    let extended = match (extended.next(), extended.next()) {
        // The kernel shows the partitions of both, fdisk those of one.
        (Some(_), Some(_)) if number >= FIRST_LOGICAL => return Err(Fault::Numbers.into()),
        (one, _) => one,
    };
    if number >= FIRST_LOGICAL
        && let Some((itself, whole, _)) = extended
    {
        if !inside(whole) {
            return Err(PartitionError::Outside(*itself));
        }
        if let Some(other) = overlapping(*itself, whole) {
            let number = *itself;
            return Err(PartitionError::Overlap { number, other });
        }
        let found = logical(disk, sector, whole, number, &primaries)?;
        return Ok(in_bytes(&found, sector));
    }
    let Some((_, found, is_extended)) = primaries.iter().find(|(one, ..)| *one == number) else {
        let there = primaries.iter().map(|(number, ..)| *number).collect();
        let table = Table::Mbr;
        return Err(PartitionError::NoSuch {
            number,
            table,
            there,
        });
    };
    if *is_extended {
        return Err(PartitionError::Extended(number));
    }
    if !inside(found) {
        return Err(PartitionError::Outside(number));
    }
    if let Some(other) = overlapping(number, found) {
        return Err(PartitionError::Overlap { number, other });
    }
    Ok(in_bytes(found, sector))
}

/// The numbers and the sectors of all partitions but extended ones. Of a damaged chain of logical
/// partitions there are none: the extended one is there instead.
pub(super) fn partitions(
    disk: &Disk<'_>,
    sector: u64,
    entries: &[MbrEntry; 4],
) -> Result<Vec<(u32, Range<u64>)>, IoError> {
    let mut all = Vec::new();
    for (number, entry) in (1_u32..).zip(entries) {
        if entry.kind == 0 || entry.sectors == 0 || entry.kind == PROTECTIVE {
            continue;
        }
        let whole = range(entry, 0);
        if is_extended(entry.kind) {
            match chain(disk, sector, &whole) {
                Ok((_, logical)) => {
                    all.extend((FIRST_LOGICAL..).zip(logical));
                    continue;
                }
                Err(PartitionError::Io(error)) => return Err(error),
                Err(_) => {}
            }
        }
        all.push((number, whole));
    }
    Ok(all)
}

/// The sectors of an entry, whose start is relative to `base`.
fn range(entry: &MbrEntry, base: u64) -> Range<u64> {
    let start = base.saturating_add(entry.start.into());
    start..start.saturating_add(entry.sectors.into())
}

/// The sectors of a logical partition in the extended partition `whole`.
fn logical(
    disk: &Disk<'_>,
    sector: u64,
    whole: &Range<u64>,
    number: u32,
    primaries: &[(u32, Range<u64>, bool)],
) -> Result<Range<u64>, PartitionError> {
    let (tables, found) = chain(disk, sector, whole)?;
    let index = usize::try_from(number - FIRST_LOGICAL).unwrap_or(usize::MAX);
    let Some(wanted) = found.get(index) else {
        let there = primaries.iter().map(|(number, ..)| *number);
        let logical = (FIRST_LOGICAL..).zip(&found).map(|(number, _)| number);
        return Err(PartitionError::NoSuch {
            number,
            table: Table::Mbr,
            there: there.chain(logical).collect(),
        });
    };
    if wanted.start < whole.start || wanted.end > whole.end {
        return Err(PartitionError::Outside(number));
    }
    if tables.iter().any(|table| wanted.contains(table)) {
        let other = None;
        return Err(PartitionError::Overlap { number, other });
    }
    let mut others = (FIRST_LOGICAL..).zip(&found);
    match others.find(|(other, range)| *other != number && overlap(wanted, range)) {
        Some((other, _)) => {
            let other = Some(other);
            Err(PartitionError::Overlap { number, other })
        }
        None => Ok(wanted.clone()),
    }
}

/// The sectors of all tables of the chain, and of all partitions in their order.
fn chain(
    disk: &Disk<'_>,
    sector: u64,
    whole: &Range<u64>,
) -> Result<(Vec<u64>, Vec<Range<u64>>), PartitionError> {
    let (mut tables, mut found) = (Vec::new(), Vec::new());
    let mut at = whole.start;
    loop {
        tables.push(at);
        let bytes = disk.bytes(at.saturating_mul(sector), 512)?;
        let entries = bytes.and_then(|bytes| partitions::mbr(&bytes));
        let Some([first, second, rest @ ..]) = entries else {
            return Err(Fault::Chain.into());
        };
        // The kernel counts entries of the type 0, and others than the first two. fdisk does not.
        let counted = |entry: &MbrEntry| entry.sectors != 0;
        if rest.iter().any(counted) {
            return Err(Fault::Numbers.into());
        }
        let mut next = None;
        let mut partition = None;
        for entry in [first, second].iter().filter(|entry| counted(entry)) {
            let place = match is_extended(entry.kind) {
                true => next.replace(whole.start.saturating_add(entry.start.into())),
                false => partition.replace(range(entry, at)).map(|range| range.start),
            };
            if place.is_some() || entry.kind == 0 {
                return Err(Fault::Numbers.into());
            }
        }
        found.extend(partition);
        let Some(next) = next else {
            return Ok((tables, found));
        };
        let again = tables.contains(&next) || tables.len() >= MOST;
        if again || !whole.contains(&next) {
            return Err(Fault::Chain.into());
        }
        at = next;
    }
}
