//! The keyslot of type `reencrypt` (section 3.2.4): the state of a reencryption in progress.
//!
//! It is parsed so that such a header can be shown, and so that its area is not used for anything
//! else. A program that goes on with a reencryption has to verify its digest first
//! (CVE-2021-4122); [`Reencryption`](super::Reencryption) has the rest of the state.

use alloc::format;
use core::ops::Range;

use crate::json::Object;

use super::node::{Node, excerpt, within};
use crate::error::FormatError;
use crate::hash::Hash;

/// The state of a reencryption.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReencryptKeyslot {
    /// The kind of reencryption.
    pub mode: ReencryptMode,
    /// The end of the data at which it starts.
    pub direction: Direction,
    /// The range of its resilience data, in bytes.
    pub area: Range<u64>,
    /// How it survives an interruption.
    pub resilience: Resilience,
}

/// A kind of reencryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReencryptMode {
    /// Changes the key or the cipher.
    Reencrypt,
    /// Turns plaintext into ciphertext.
    Encrypt,
    /// Turns ciphertext into plaintext.
    Decrypt,
}

/// The end of the data at which a reencryption starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the start.
    Forward,
    /// From the end.
    Backward,
}

/// How a reencryption survives an interruption (the type of the area).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resilience {
    /// It does not survive one.
    None,
    /// The area has a copy of the hot zone.
    Journal,
    /// The area has checksums of the sectors of the hot zone.
    Checksum {
        /// The hash.
        hash: Hash,
        /// The size of the hashed sectors, in bytes.
        sector_size: u32,
    },
    /// The data moves, so that old and new data do not overlap.
    Datashift {
        /// The distance in bytes.
        shift: u64,
    },
    /// The data moves by less than the hot zone, with a journal.
    DatashiftJournal {
        /// The distance in bytes.
        shift: u64,
    },
    /// The data moves by less than the hot zone, with checksums.
    DatashiftChecksum {
        /// The hash.
        hash: Hash,
        /// The size of the hashed sectors, in bytes.
        sector_size: u32,
        /// The distance in bytes.
        shift: u64,
    },
}

impl ReencryptKeyslot {
    pub(super) fn read(
        node: &Node<'_>,
        area: &Node<'_>,
        range: Range<u64>,
    ) -> Result<Self, FormatError> {
        let mode = node.member("mode")?;
        let direction = node.member("direction")?;
        Ok(Self {
            mode: match mode.string()? {
                "reencrypt" => ReencryptMode::Reencrypt,
                "encrypt" => ReencryptMode::Encrypt,
                "decrypt" => ReencryptMode::Decrypt,
                other => return Err(mode.malformed(format!("unknown mode {}", excerpt(other)))),
            },
            direction: match direction.string()? {
                "forward" => Direction::Forward,
                "backward" => Direction::Backward,
                other => {
                    return Err(
                        direction.malformed(format!("unknown direction {}", excerpt(other)))
                    );
                }
            },
            area: range,
            resilience: Resilience::read(area)?,
        })
    }

    pub(super) fn write(&self, object: &mut Object) {
        let mode = match self.mode {
            ReencryptMode::Reencrypt => "reencrypt",
            ReencryptMode::Encrypt => "encrypt",
            ReencryptMode::Decrypt => "decrypt",
        };
        let direction = match self.direction {
            Direction::Forward => "forward",
            Direction::Backward => "backward",
        };
        object.insert("type", "reencrypt");
        object.insert("key_size", 1);
        object.insert("mode", mode);
        object.insert("direction", direction);
        // No passphrase is tried on it.
        object.insert("priority", 0);
        let size = self.area.end.saturating_sub(self.area.start);
        within(object, "area", |area| {
            area.insert("offset", format!("{}", self.area.start));
            area.insert("size", format!("{size}"));
            self.resilience.write(area);
        });
    }
}

impl Resilience {
    /// The name as it is written in headers.
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Journal => "journal",
            Self::Checksum { .. } => "checksum",
            Self::Datashift { .. } => "datashift",
            Self::DatashiftJournal { .. } => "datashift-journal",
            Self::DatashiftChecksum { .. } => "datashift-checksum",
        }
    }

    fn read(area: &Node<'_>) -> Result<Self, FormatError> {
        let kind = area.member("type")?;
        match kind.string()? {
            "none" => Ok(Self::None),
            "journal" => Ok(Self::Journal),
            "checksum" => Ok(Self::Checksum {
                hash: area.member("hash")?.hash()?,
                sector_size: read_sector_size(area)?,
            }),
            "datashift" => Ok(Self::Datashift {
                shift: read_shift(area)?,
            }),
            "datashift-journal" => Ok(Self::DatashiftJournal {
                shift: read_shift(area)?,
            }),
            "datashift-checksum" => Ok(Self::DatashiftChecksum {
                hash: area.member("hash")?.hash()?,
                sector_size: read_sector_size(area)?,
                shift: read_shift(area)?,
            }),
            other => Err(kind.unsupported(format!("unknown resilience {}", excerpt(other)))),
        }
    }

    fn write(&self, area: &mut Object) {
        area.insert("type", self.name());
        let checksum = match self {
            Self::Checksum { hash, sector_size }
            | Self::DatashiftChecksum {
                hash, sector_size, ..
            } => Some((hash, sector_size)),
            Self::None | Self::Journal | Self::Datashift { .. } | Self::DatashiftJournal { .. } => {
                None
            }
        };
        if let Some((hash, sector_size)) = checksum {
            area.insert("hash", hash.name());
            area.insert("sector_size", sector_size);
        }
        let shift = match self {
            Self::Datashift { shift }
            | Self::DatashiftJournal { shift }
            | Self::DatashiftChecksum { shift, .. } => Some(shift),
            Self::None | Self::Journal | Self::Checksum { .. } => None,
        };
        if let Some(shift) = shift {
            area.insert("shift_size", format!("{shift}"));
        }
    }
}

fn read_sector_size(area: &Node<'_>) -> Result<u32, FormatError> {
    let node = area.member("sector_size")?;
    let size = node.u32()?;
    if size < 512 || !size.is_power_of_two() {
        return Err(node.malformed(format!("{size} is not a power of two from 512")));
    }
    Ok(size)
}

fn read_shift(area: &Node<'_>) -> Result<u64, FormatError> {
    let node = area.member("shift_size")?;
    let shift = node.u64()?;
    if shift == 0 || !shift.is_multiple_of(512) {
        return Err(node.malformed(format!("{shift} is not a positive multiple of 512")));
    }
    Ok(shift)
}
