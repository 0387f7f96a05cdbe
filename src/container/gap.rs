//! Finds data of other programs in front of the data of a volume, before a change overwrites it.
//!
//! LUKS1 does not describe the space between its keyslots and the data, and other programs keep
//! metadata of their own there: clevis a LUKSMETA block. Space that is free holds zeroes, or random
//! bytes, with which cryptsetup and luksmith overwrite old key material. Encrypted data of another
//! program looks like random bytes and is not recognised.

use std::ops::Range;

use crate::backend::{Backend, IoError};
use crate::door;

const SECTOR: usize = 512;
/// The bytes that are read at once.
const STEP: u64 = 1 << 20;

/// The first bytes of a LUKSMETA block.
const LUKSMETA: &[u8] = b"LUKSMETA\0";

/// The least number of different byte values in a sector of random bytes. 512 random bytes have 221
/// on average, with a standard deviation of 5. Text has fewer than 100.
const RANDOM: usize = 180;

/// Other data before the data of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// What it is, with an article.
    pub(super) what: &'static str,
    /// Its offset, in bytes.
    pub(super) at: u64,
}

/// The first data of another program in `within`, outside of the ranges `known`.
pub(super) fn find(
    storage: &dyn Backend,
    within: Range<u64>,
    known: &[Range<u64>],
) -> Result<Option<Found>, IoError> {
    let mut known = known.to_vec();
    known.sort_by_key(|range| range.start);
    let mut start = within.start;
    let end = within.end..within.end;
    for range in known.into_iter().chain(std::iter::once(end)) {
        if let Some(found) = find_in(storage, start..range.start.min(within.end))? {
            return Ok(Some(found));
        }
        start = start.max(range.end);
    }
    Ok(None)
}

fn find_in(storage: &dyn Backend, gap: Range<u64>) -> Result<Option<Found>, IoError> {
    let mut at = gap.start;
    while at < gap.end {
        // Steps end at multiples of their size, so that sectors stay whole.
        let end = (at / STEP * STEP + STEP).min(gap.end);
        let bytes = door::read(storage, at, usize::try_from(end - at).unwrap_or(SECTOR))?;
        let first = SECTOR - usize::try_from(at % SECTOR as u64).unwrap_or(0);
        let (first, rest) = bytes.split_at(first.min(bytes.len()));
        let mut offset = at;
        for sector in std::iter::once(first).chain(rest.chunks(SECTOR)) {
            if let Some(what) = kind(sector) {
                return Ok(Some(Found { what, at: offset }));
            }
            offset += sector.len() as u64;
        }
        at = end;
    }
    Ok(None)
}

fn kind(sector: &[u8]) -> Option<&'static str> {
    if sector.iter().all(|byte| *byte == 0) {
        return None;
    }
    if sector.starts_with(LUKSMETA) {
        return Some("a LUKSMETA block");
    }
    let mut seen = [false; 256];
    sector
        .iter()
        .for_each(|byte| seen[usize::from(*byte)] = true);
    let random = seen.iter().filter(|seen| **seen).count() >= RANDOM;
    (!random).then_some("data of another program")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::memory::MemoryBackend;

    #[test]
    fn zeroes_and_random_bytes_are_free_and_all_else_is_named() {
        let mut bytes = vec![0; 3 << 20];
        crate::secret::random(&mut bytes[1 << 20..2 << 20]).unwrap();
        let find = |bytes: &[u8], within: Range<u64>, known: &[Range<u64>]| {
            find(&MemoryBackend::from_bytes(bytes.to_vec()), within, known).unwrap()
        };
        let all = 592..3 << 20;
        assert_eq!(find(&bytes, all.clone(), &[]), None);

        let place = (2 << 20) + 4096;
        for (text, what) in [
            (&b"LUKSMETA\0\0\0\x01"[..], "a LUKSMETA block"),
            (
                b"{\"protected\":\"eyJhbGciOiJkaXIi\"}",
                "data of another program",
            ),
        ] {
            let mut bytes = bytes.clone();
            bytes[place..place + text.len()].copy_from_slice(text);
            let at = place as u64;
            assert_eq!(find(&bytes, all.clone(), &[]), Some(Found { what, at }));
            let known = [at - 512..at + 4096, 1000..2000];
            assert_eq!(find(&bytes, all.clone(), &known), None);
            assert_eq!(find(&bytes, 592..at, &[]), None);
        }
        let mut bytes = bytes.clone();
        bytes[600] = 1;
        let found = find(&bytes, all, &[]).unwrap();
        assert_eq!(found.at, 592);
    }
}
