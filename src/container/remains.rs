//! Finds what is left of a header that cannot be used as it is.
//!
//! Other programs overwrite the start of a disk: `wipefs` and `pvcreate` the magic, partitioning
//! tools and `mkfs` more. What these programs leave is searched only for an error message and for
//! [`Mend`](super::Mend); no volume is opened with it.

use std::fmt;

use luksmith_formats::luks2::{HEADER_SIZES, MAGIC_SECONDARY, Metadata, Position};
use luksmith_formats::{Limits, MAGIC, luks1, luks2};

use crate::backend::{Backend, IoError};
use crate::door;

/// The length of the binary header of a LUKS2 copy.
const BINARY_HEADER: usize = 4096;

/// What is left of a header that cannot be used as it is. Its `Display` says what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remains {
    /// LUKS1: the magic is overwritten, and the rest agrees. There is no checksum that proves it.
    Luks1Magic,
    /// LUKS1: the entries of these keyslots are damaged, and can be repaired.
    Luks1Keyslots(Vec<usize>),
    /// LUKS2: the magic is overwritten. The checksum shows that the rest is as it was.
    Luks2Magic,
    /// LUKS2: other data is in the place of the primary copy, and the secondary one is valid.
    Secondary {
        /// The offset of the secondary copy, in bytes.
        at: u64,
        /// What is in the place of the primary one.
        over: &'static str,
    },
    /// LUKS2: only the metadata of the secondary copy is left, without the checksum that proves it.
    Metadata {
        /// Its offset, in bytes.
        at: u64,
    },
}

impl Remains {
    /// The end of the header that was there: of both copies, and of the two sectors of LUKS1.
    pub(super) fn header_end(&self) -> u64 {
        match self {
            Self::Luks1Magic | Self::Luks1Keyslots(_) => 1024,
            Self::Luks2Magic => HEADER_SIZES[HEADER_SIZES.len() - 1] * 2,
            Self::Secondary { at, .. } => at.saturating_mul(2),
            Self::Metadata { at } => at.saturating_sub(BINARY_HEADER as u64).saturating_mul(2),
        }
    }
}

impl fmt::Display for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Luks1Magic => f.write_str(
                "no LUKS header found at the start: the magic is wiped, the rest of a LUKS1 header \
                 is there",
            ),
            Self::Luks1Keyslots(slots) => {
                let slots: Vec<_> = slots.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "the LUKS1 header has damaged entries of keyslots: {}",
                    slots.join(", ")
                )
            }
            Self::Luks2Magic => f.write_str(
                "no LUKS header found at the start: the magic is wiped, the rest of a LUKS2 header \
                 is intact",
            ),
            Self::Secondary { at, over } => write!(
                f,
                "no LUKS header found at the start, but {over}; a secondary LUKS2 header is at \
                 byte {at}"
            ),
            Self::Metadata { at } => write!(
                f,
                "no LUKS header found: both copies of a LUKS2 header are overwritten, and only the \
                 metadata of the second one is left, at byte {at}"
            ),
        }
    }
}

impl Remains {
    /// What is left of a header on a storage that does not begin with the magic of one. `None` if
    /// nothing is, or if it begins with the magic.
    ///
    /// # Errors
    /// Returns the error of the storage.
    pub fn find(storage: &dyn Backend, limits: &Limits) -> Result<Option<Self>, IoError> {
        let size = storage.geometry().size.min(BINARY_HEADER as u64);
        let start = door::read(storage, 0, usize::try_from(size).unwrap_or(BINARY_HEADER))?;
        if start.starts_with(&MAGIC) {
            return Ok(None);
        }
        find(storage, &start, limits)
    }
}

/// What is left of a LUKS1 header that begins with these bytes and is refused.
pub(super) fn luks1(start: &[u8], limits: &Limits) -> Option<Remains> {
    let (_, fixes) = luks1::Header::repaired(start, limits).ok()?;
    if fixes.contains(&luks1::Fix::Magic) {
        return Some(Remains::Luks1Magic);
    }
    let mut slots: Vec<usize> = fixes.iter().filter_map(luks1::Fix::slot).collect();
    slots.dedup();
    (!slots.is_empty()).then_some(Remains::Luks1Keyslots(slots))
}

/// What is left of a header on a storage that does not begin with a magic, and has no valid
/// secondary copy. `start` is the first block.
pub(super) fn find(
    storage: &dyn Backend,
    start: &[u8],
    limits: &Limits,
) -> Result<Option<Remains>, IoError> {
    if let Some(luks1) = luks1(start, limits) {
        return Ok(Some(luks1));
    }
    if !with_magic(storage, limits)?.is_empty() {
        return Ok(Some(Remains::Luks2Magic));
    }
    let metadata = metadata(storage, limits)?;
    Ok(metadata.map(|(at, _)| Remains::Metadata { at }))
}

/// A copy of a LUKS2 header whose checksum is valid with its magic.
pub(super) struct Copy {
    pub(super) position: Position,
    pub(super) hdr_size: u64,
}

impl Copy {
    /// The magic, and its offset.
    pub(super) fn magic(&self) -> (u64, [u8; 6]) {
        let magic = match self.position {
            Position::Primary => MAGIC,
            Position::Secondary => MAGIC_SECONDARY,
        };
        (self.position.offset(self.hdr_size), magic)
    }
}

/// The copies of a LUKS2 header that are valid once their magic is put back. Empty if none is.
pub(super) fn with_magic(storage: &dyn Backend, limits: &Limits) -> Result<Vec<Copy>, IoError> {
    let size = storage.geometry().size;
    let mut copies = Vec::new();
    for hdr_size in HEADER_SIZES
        .into_iter()
        .filter(|hdr_size| hdr_size * 2 <= size)
    {
        for position in Position::ALL {
            let copy = Copy { position, hdr_size };
            let (at, magic) = copy.magic();
            let mut bytes = door::read(storage, at, BINARY_HEADER)?;
            let wiped = !bytes.starts_with(&magic);
            bytes[..magic.len()].copy_from_slice(&magic);
            if !wiped || luks2::Header::probe_size(&bytes, position) != Ok(hdr_size) {
                continue;
            }
            let length = usize::try_from(hdr_size).unwrap_or(BINARY_HEADER);
            let mut bytes = door::read(storage, at, length)?;
            bytes[..magic.len()].copy_from_slice(&magic);
            if luks2::Header::parse(&bytes, position, limits).is_ok() {
                copies.push(copy);
            }
        }
    }
    Ok(copies)
}

/// The metadata of a secondary copy whose binary header is overwritten, and its offset.
pub(super) fn metadata(
    storage: &dyn Backend,
    limits: &Limits,
) -> Result<Option<(u64, Metadata)>, IoError> {
    let size = storage.geometry().size;
    for hdr_size in HEADER_SIZES {
        if hdr_size > limits.metadata_size || hdr_size * 2 > size {
            continue;
        }
        let at = hdr_size + luks2::ALIGNMENT;
        if door::read(storage, at, 1)? != b"{" {
            continue;
        }
        let length = usize::try_from(hdr_size - luks2::ALIGNMENT).unwrap_or(0);
        let area = door::read(storage, at, length)?;
        if let Ok(metadata) = Metadata::parse(&area, at, hdr_size)
            && metadata.config().keyslots_size <= limits.keyslots_size
            && metadata.not_understood().next().is_none()
        {
            return Ok(Some((at, metadata)));
        }
    }
    Ok(None)
}
