//! The areas of a storage with a LUKS volume, as the header describes them. Each kind of area has
//! rules of its own.

use std::fmt;
use std::ops::Range;

use luksmith_formats::luks2::{HEADER_SIZES, Keyslot, Position, Segment, SegmentSize};
use luksmith_formats::{Limits, MAGIC, Version, luks1, luks2};

use super::VetError;
use super::randomness::SECTOR;
use super::read::read;
use crate::backend::Backend;

/// What an area of a storage contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purpose {
    /// A header and its metadata. They are public, and not judged.
    Header,
    /// The encrypted key material of a keyslot.
    Keyslot(u32),
    /// Unused space for keyslots: zeroes, or old key material.
    FreeKeyslots,
    /// Space between the other areas, and after the data. It should not contain plaintext either.
    Unused,
    /// The data.
    Data,
    /// Data that the header declares to be plaintext, as during a reencryption. It is not judged.
    PlainData,
}

/// An area of a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Area {
    /// What the area contains.
    pub purpose: Purpose,
    /// Its range in bytes, in whole sectors.
    pub range: Range<u64>,
}

impl Purpose {
    /// Whether the area has to look like ciphertext, or be zero.
    #[must_use]
    pub fn is_judged(self) -> bool {
        !matches!(self, Self::Header | Self::PlainData)
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("header"),
            Self::Keyslot(slot) => write!(f, "keyslot {slot}"),
            Self::FreeKeyslots => f.write_str("free keyslots"),
            Self::Unused => f.write_str("unused"),
            Self::Data => f.write_str("data"),
            Self::PlainData => f.write_str("plain data"),
        }
    }
}

/// The areas of a storage by its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The version of LUKS, or `None` without a header.
    pub version: Option<Version>,
    /// Whether one copy of a LUKS2 header is damaged, so that the other one was used.
    pub damaged_copy: bool,
    parts: Vec<Area>,
}

impl Layout {
    /// The layout of a storage without a header: all of it is data.
    #[must_use]
    pub fn headerless() -> Self {
        Self {
            version: None,
            damaged_copy: false,
            parts: vec![Area {
                purpose: Purpose::Data,
                range: 0..u64::MAX,
            }],
        }
    }

    /// Reads the header at the start of `storage`. Returns [`headerless`](Self::headerless) if
    /// there is no header.
    ///
    /// # Errors
    /// Returns [`VetError::Header`] if there is a header that cannot be read, and the error of the
    /// storage.
    pub fn read(storage: &dyn Backend, limits: &Limits) -> Result<Self, VetError> {
        let start = read_start(storage, 0, 4096)?;
        if Version::detect(&start) == Ok(Version::Luks1) {
            let header = luks1::Header::parse(&start, limits).map_err(VetError::Header)?;
            return Ok(Self {
                version: Some(Version::Luks1),
                damaged_copy: false,
                parts: luks1_parts(&header),
            });
        }
        let primary = luks2::Header::probe_size(&start, Position::Primary);
        let sizes = match primary {
            Ok(size) => vec![size],
            Err(_) => HEADER_SIZES.to_vec(),
        };
        let mut found = Vec::new();
        let mut failure = primary.as_ref().err().cloned();
        for (position, size) in sizes
            .iter()
            .flat_map(|size| Position::ALL.map(|at| (at, *size)))
        {
            let copy = read_start(storage, position.offset(size), size)?;
            match luks2::Header::parse(&copy, position, limits) {
                Ok(header) => found.push(header),
                Err(error) if failure.is_none() => failure = Some(error),
                Err(_) => {}
            }
        }
        // The copy with the higher sequence number counts, or the first one if the numbers are
        // equal.
        let damaged_copy = found.len() < 2;
        match found.into_iter().rev().max_by_key(|header| header.seqid) {
            Some(header) => Ok(Self {
                version: Some(Version::Luks2),
                damaged_copy,
                parts: luks2_parts(&header),
            }),
            None if !start.starts_with(&MAGIC) => Ok(Self::headerless()),
            None => Err(failure.map_or(VetError::NoHeader, VetError::Header)),
        }
    }

    /// Only the areas of the data, for a storage whose header is detached.
    #[must_use]
    pub fn detached(mut self) -> Self {
        self.parts
            .retain(|part| matches!(part.purpose, Purpose::Data | Purpose::PlainData));
        self
    }

    /// All areas of a storage of `size` bytes in order, including the unused ones.
    #[must_use]
    pub fn areas(&self, size: u64) -> Vec<Area> {
        let mut parts = self.parts.clone();
        parts.sort_by_key(|part| part.range.start);
        let mut areas = Vec::new();
        let mut at = 0;
        let mut push = |purpose, range: Range<u64>| {
            if !range.is_empty() {
                areas.push(Area { purpose, range });
            }
        };
        for part in parts {
            let whole = |bound: u64| (bound - bound % SECTOR as u64).min(size);
            let start = whole(part.range.start).max(at);
            let end = match part.range.end {
                u64::MAX => size,
                end => whole(end).max(start),
            };
            push(Purpose::Unused, at..start);
            push(part.purpose, start..end);
            at = end;
        }
        push(Purpose::Unused, at..size);
        areas
    }
}

fn luks1_parts(header: &luks1::Header) -> Vec<Area> {
    let mut parts = vec![Area {
        purpose: Purpose::Header,
        range: 0..1024,
    }];
    for (slot, keyslot) in (0..).zip(&header.keyslots) {
        parts.push(Area {
            purpose: if keyslot.active {
                Purpose::Keyslot(slot)
            } else {
                Purpose::FreeKeyslots
            },
            range: header.area(slot as usize),
        });
    }
    parts.push(Area {
        purpose: Purpose::Data,
        range: header.data_offset()..u64::MAX,
    });
    parts
}

fn luks2_parts(header: &luks2::Header) -> Vec<Area> {
    let metadata = &header.metadata;
    let mut parts = vec![Area {
        purpose: Purpose::Header,
        range: 0..header.hdr_size * 2,
    }];
    let mut free = metadata.keyslots_area().start;
    let mut slots: Vec<(u32, Range<u64>)> = metadata
        .keyslots()
        .iter()
        .map(|(slot, keyslot): (&u32, &Keyslot)| (*slot, keyslot.area()))
        .collect();
    slots.sort_by_key(|(_, area)| area.start);
    for (slot, area) in slots {
        parts.push(Area {
            purpose: Purpose::FreeKeyslots,
            range: free..area.start,
        });
        free = area.end;
        parts.push(Area {
            purpose: Purpose::Keyslot(slot),
            range: area,
        });
    }
    parts.push(Area {
        purpose: Purpose::FreeKeyslots,
        range: free..metadata.keyslots_area().end,
    });
    for (_, segment) in metadata.data_segments() {
        let start = segment.offset();
        let end = match segment.size() {
            SegmentSize::Dynamic => u64::MAX,
            SegmentSize::Fixed(size) => start.saturating_add(size),
        };
        parts.push(Area {
            purpose: match segment {
                Segment::Linear(_) => Purpose::PlainData,
                Segment::Crypt(_) | Segment::Other(_) => Purpose::Data,
            },
            range: start..end,
        });
    }
    parts
}

/// Reads up to `len` bytes at `offset`, fewer at the end of the storage.
fn read_start(storage: &dyn Backend, offset: u64, len: u64) -> Result<Vec<u8>, VetError> {
    let size = storage.geometry().size;
    let end = offset.saturating_add(len).min(size);
    if offset >= end {
        return Ok(Vec::new());
    }
    Ok(read(storage, offset..end, |bytes| bytes.to_vec())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(purpose: Purpose, range: Range<u64>) -> Area {
        Area { purpose, range }
    }

    #[test]
    fn areas_cover_a_storage_exactly_once() {
        let layout = Layout {
            version: Some(Version::Luks2),
            damaged_copy: false,
            parts: vec![
                area(Purpose::Data, 8192..u64::MAX),
                area(Purpose::Header, 0..1024),
                area(Purpose::Keyslot(3), 2048..4096),
                area(Purpose::Keyslot(4), 3000..4608),
            ],
        };
        let expected = [
            area(Purpose::Header, 0..1024),
            area(Purpose::Unused, 1024..2048),
            area(Purpose::Keyslot(3), 2048..4096),
            area(Purpose::Keyslot(4), 4096..4608),
            area(Purpose::Unused, 4608..8192),
            area(Purpose::Data, 8192..10_001),
        ];
        assert_eq!(layout.areas(10_001), expected);
        assert_eq!(layout.areas(1024), expected[..1]);
        assert_eq!(layout.areas(0), []);
        let data = [
            area(Purpose::Unused, 0..8192),
            area(Purpose::Data, 8192..9000),
        ];
        assert_eq!(layout.detached().areas(9000), data);
        assert_eq!(Layout::headerless().areas(7), [area(Purpose::Data, 0..7)]);
    }
}
