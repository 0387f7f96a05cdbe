//! The names of the objects, below the prefix of the volume.

use alloc::format;
use alloc::string::String;

use super::{Position, RootId};

/// What never changes.
pub const VOLUME: &str = "volume";

/// The longest name of a snapshot, in bytes.
const LONGEST_SNAPSHOT: usize = 64;

/// The claim of an epoch.
#[must_use]
pub fn claim(epoch: u32) -> String {
    format!("e/{epoch:08x}/open")
}

/// A segment.
#[must_use]
pub fn segment(position: Position) -> String {
    format!("e/{:08x}/{:016x}", position.epoch, position.sequence)
}

/// The root of a checkpoint.
#[must_use]
pub fn root(id: RootId) -> String {
    format!("m/{:08x}/{:08x}/root", id.epoch, id.number)
}

/// The index of a checkpoint.
#[must_use]
pub fn index(id: RootId) -> String {
    format!("m/{:08x}/{:08x}/index", id.epoch, id.number)
}

/// A pack of leaves of a checkpoint.
#[must_use]
pub fn pack(id: RootId, pack: u16) -> String {
    format!("m/{:08x}/{:08x}/{pack:04x}", id.epoch, id.number)
}

/// Whether a snapshot can have this name: letters, digits, `.`, `_` and `-`, at most 64 bytes.
#[must_use]
pub fn is_snapshot(name: &str) -> bool {
    let usual = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    starts && name.len() <= LONGEST_SNAPSHOT && name.bytes().all(usual)
}

/// What a name below the prefix is the name of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Name {
    /// What never changes.
    Volume,
    /// The claim of an epoch.
    Claim(u32),
    /// A segment, or a fence in its place.
    Segment(Position),
    /// The root of a checkpoint, or a fence in its place.
    Root(RootId),
    /// The index of a checkpoint.
    Index(RootId),
    /// A pack of a checkpoint.
    Pack(RootId, u16),
}

impl Name {
    /// Reads a name. `None` if it is not one of a volume.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split('/');
        let found = match (parts.next()?, parts.next(), parts.next(), parts.next()) {
            (VOLUME, None, None, None) => Self::Volume,
            ("e", Some(epoch), Some(item), None) => {
                let epoch = u32::from_str_radix(epoch, 16).ok()?;
                match item {
                    "open" => Self::Claim(epoch),
                    _ => Self::Segment(Position {
                        epoch,
                        sequence: u64::from_str_radix(item, 16).ok()?,
                    }),
                }
            }
            ("m", Some(epoch), Some(number), Some(item)) => {
                let epoch = u32::from_str_radix(epoch, 16).ok()?;
                let number = u32::from_str_radix(number, 16).ok()?;
                let id = RootId { epoch, number };
                match item {
                    "root" => Self::Root(id),
                    "index" => Self::Index(id),
                    _ => Self::Pack(id, u16::from_str_radix(item, 16).ok()?),
                }
            }
            _ => return None,
        };
        // Only the one way to write it.
        (found.text() == name).then_some(found)
    }

    fn text(self) -> String {
        match self {
            Self::Volume => VOLUME.into(),
            Self::Claim(epoch) => claim(epoch),
            Self::Segment(position) => segment(position),
            Self::Root(id) => root(id),
            Self::Index(id) => index(id),
            Self::Pack(id, number) => pack(id, number),
        }
    }
}
