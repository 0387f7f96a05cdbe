//! The areas of a storage with a LUKS volume, as the header describes them. Each kind of area has
//! rules of its own. In an image, the data is in clusters all over the storage.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

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
    /// Compressed clusters of an image. They are not encrypted, whatever they look like.
    Compressed,
    /// The tables of an image, and its clusters that are not in use, which may hold old tables.
    /// They are not judged.
    OtherClusters,
}

/// An area of a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Area {
    /// What the area contains.
    pub purpose: Purpose,
    /// Its range in bytes, in whole sectors. If the area is in several parts, from the first byte
    /// of the first one to the end of the last one.
    pub range: Range<u64>,
    /// The parts, if there are several.
    parts: Option<Arc<[Range<u64>]>>,
    /// The bytes of all parts.
    size: u64,
}

impl Area {
    /// An area in one part.
    #[must_use]
    pub fn new(purpose: Purpose, range: Range<u64>) -> Self {
        Self {
            purpose,
            size: range.end.saturating_sub(range.start),
            range,
            parts: None,
        }
    }

    /// An area in these parts, which are in order.
    fn scattered(purpose: Purpose, parts: Arc<[Range<u64>]>) -> Self {
        let start = parts.first().map_or(0, |part| part.start);
        let end = parts.last().map_or(0, |part| part.end);
        let sizes = parts.iter().map(|part| part.end - part.start);
        Self {
            purpose,
            range: start..end,
            size: sizes.sum(),
            parts: Some(parts),
        }
    }

    /// The bytes of all parts.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The parts, in order.
    #[must_use]
    pub fn parts(&self) -> &[Range<u64>] {
        match &self.parts {
            Some(parts) => parts,
            None => std::slice::from_ref(&self.range),
        }
    }
}

impl Purpose {
    /// Whether the area has to look like ciphertext, or be zero.
    #[must_use]
    pub fn is_judged(self) -> bool {
        !matches!(self, Self::Header | Self::PlainData | Self::OtherClusters)
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
            Self::Compressed => f.write_str("compressed"),
            Self::OtherClusters => f.write_str("other clusters"),
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
    image: Option<ImageParts>,
}

/// Where an image has its LUKS header and its data.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageParts {
    /// The storage of the LUKS header, in bytes.
    pub header: Range<u64>,
    /// The clusters with data, as ranges in order.
    pub data: Arc<[Range<u64>]>,
    /// The clusters with compressed data, as ranges in order.
    pub compressed: Arc<[Range<u64>]>,
}

impl ImageParts {
    /// An image without data.
    #[must_use]
    pub fn new(header: Range<u64>) -> Self {
        Self {
            header,
            data: Arc::default(),
            compressed: Arc::default(),
        }
    }
}

impl Layout {
    /// The layout of a storage without a header: all of it is data.
    #[must_use]
    pub fn headerless() -> Self {
        Self {
            version: None,
            damaged_copy: false,
            parts: vec![Area::new(Purpose::Data, 0..u64::MAX)],
            image: None,
        }
    }

    /// Reads the header at the start of `storage`. Returns [`headerless`](Self::headerless) if
    /// there is no header.
    ///
    /// # Errors
    /// Returns [`VetError::Header`] if there is a header that cannot be read, [`VetError::Tagged`]
    /// for a volume with authenticated encryption, and the error of the storage.
    pub fn read(storage: &dyn Backend, limits: &Limits) -> Result<Self, VetError> {
        let start = read_start(storage, 0, 4096)?;
        if Version::detect(&start) == Ok(Version::Luks1) {
            let header = luks1::Header::parse(&start, limits).map_err(VetError::Header)?;
            return Ok(Self {
                version: Some(Version::Luks1),
                damaged_copy: false,
                parts: luks1_parts(&header),
                image: None,
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
            Some(header) if is_tagged(&header) => Err(VetError::Tagged),
            Some(header) => Ok(Self {
                version: Some(Version::Luks2),
                damaged_copy,
                parts: luks2_parts(&header),
                image: None,
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

    /// The layout of an image, whose LUKS header is that of this layout.
    #[must_use]
    pub fn in_image(mut self, image: ImageParts) -> Self {
        let is_data = |part: &Area| matches!(part.purpose, Purpose::Data | Purpose::PlainData);
        self.parts.retain(|part| !is_data(part));
        self.image = Some(image);
        self
    }

    /// All areas of a storage of `size` bytes, including the unused ones. They are in order, except
    /// those of an image after its LUKS header.
    #[must_use]
    pub fn areas(&self, size: u64) -> Vec<Area> {
        let Some(image) = &self.image else {
            return self.areas_from(0, size);
        };
        let header = image.header.start.min(size)..image.header.end.min(size);
        let mut areas = self.areas_from(header.start, header.end);
        areas.push(Area::scattered(Purpose::Data, image.data.clone()));
        if !image.compressed.is_empty() {
            areas.push(Area::scattered(
                Purpose::Compressed,
                image.compressed.clone(),
            ));
        }
        let known: u64 = areas.iter().map(Area::size).sum();
        let mut rest = Area::new(Purpose::OtherClusters, 0..size);
        rest.size = size.saturating_sub(known);
        areas.push(rest);
        areas
    }

    /// The areas of a LUKS volume that begins at byte `begin` of a storage and ends before `size`.
    fn areas_from(&self, begin: u64, size: u64) -> Vec<Area> {
        let mut parts = self.parts.clone();
        parts.sort_by_key(|part| part.range.start);
        let mut areas = Vec::new();
        let mut at = begin;
        let mut push = |purpose, range: Range<u64>| {
            if !range.is_empty() {
                areas.push(Area::new(purpose, range));
            }
        };
        for part in parts {
            let whole = |bound: u64| (bound - bound % SECTOR as u64).min(size);
            let from_begin = |bound: u64| whole(bound.saturating_add(begin));
            let start = from_begin(part.range.start).max(at);
            let end = match part.range.end {
                u64::MAX => size,
                end => from_begin(end).max(start),
            };
            push(Purpose::Unused, at..start);
            push(part.purpose, start..end);
            at = end;
        }
        push(Purpose::Unused, at..size);
        areas
    }
}

/// Whether a part of the data has tags.
fn is_tagged(header: &luks2::Header) -> bool {
    let mut segments = header.metadata.segments().values();
    segments.any(|segment| matches!(segment, Segment::Authenticated(_)))
}

fn luks1_parts(header: &luks1::Header) -> Vec<Area> {
    let mut parts = vec![Area::new(Purpose::Header, 0..1024)];
    for (slot, keyslot) in (0..).zip(&header.keyslots) {
        let purpose = if keyslot.active {
            Purpose::Keyslot(slot)
        } else {
            Purpose::FreeKeyslots
        };
        parts.push(Area::new(purpose, header.area(slot as usize)));
    }
    let data = header.data_offset()..u64::MAX;
    parts.push(Area::new(Purpose::Data, data));
    parts
}

fn luks2_parts(header: &luks2::Header) -> Vec<Area> {
    let metadata = &header.metadata;
    let mut parts = vec![Area::new(Purpose::Header, 0..header.hdr_size * 2)];
    let mut free = metadata.keyslots_area().start;
    let mut slots: Vec<(u32, Range<u64>)> = metadata
        .keyslots()
        .iter()
        .map(|(slot, keyslot): (&u32, &Keyslot)| (*slot, keyslot.area()))
        .collect();
    slots.sort_by_key(|(_, area)| area.start);
    for (slot, area) in slots {
        parts.push(Area::new(Purpose::FreeKeyslots, free..area.start));
        free = area.end;
        parts.push(Area::new(Purpose::Keyslot(slot), area));
    }
    let end = metadata.keyslots_area().end;
    parts.push(Area::new(Purpose::FreeKeyslots, free..end));
    for (_, segment) in metadata.data_segments() {
        let start = segment.offset();
        let end = match segment.size() {
            SegmentSize::Dynamic => u64::MAX,
            SegmentSize::Fixed(size) => start.saturating_add(size),
        };
        let purpose = match segment {
            Segment::Linear(_) => Purpose::PlainData,
            Segment::Crypt(_) | Segment::Authenticated(_) | Segment::Other(_) => Purpose::Data,
        };
        parts.push(Area::new(purpose, start..end));
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
        Area::new(purpose, range)
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
            image: None,
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

    #[test]
    fn the_areas_of_an_image_have_every_byte_once() {
        let layout = Layout {
            version: Some(Version::Luks1),
            damaged_copy: false,
            parts: vec![
                area(Purpose::Header, 0..1024),
                area(Purpose::Keyslot(0), 4096..8192),
                area(Purpose::Data, 10_240..u64::MAX),
            ],
            image: None,
        };
        let mut image = ImageParts::new(65_536..81_920);
        image.data = [131_072..196_608, 262_144..300_000].into();
        image.compressed = std::iter::once(196_608..262_144).collect();
        let areas = layout.in_image(image).areas(300_000);
        let found: Vec<_> = areas
            .iter()
            .map(|area| (area.purpose, area.range.clone(), area.size()))
            .collect();
        let expected = [
            (Purpose::Header, 65_536..66_560, 1024),
            (Purpose::Unused, 66_560..69_632, 3072),
            (Purpose::Keyslot(0), 69_632..73_728, 4096),
            (Purpose::Unused, 73_728..81_920, 8192),
            (Purpose::Data, 131_072..300_000, 65_536 + 37_856),
            (Purpose::Compressed, 196_608..262_144, 65_536),
            (Purpose::OtherClusters, 0..300_000, 114_688),
        ];
        assert_eq!(found, expected);
    }
}
