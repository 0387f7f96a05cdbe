//! How a header differs from what is pinned of it, in words.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::facts::{Facts, Part, PartKind};
use crate::version::Version;

/// One difference. Its `Display` is a clause without a full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Difference {
    /// The header has a lower sequence number: it is an old one.
    RolledBack {
        /// The sequence number that is pinned.
        pinned: u64,
        /// The one in the header.
        found: u64,
    },
    /// The header has a higher sequence number: another program has changed it.
    Later {
        /// The sequence number that is pinned.
        pinned: u64,
        /// The one in the header.
        found: u64,
    },
    /// The header has the sequence number that is pinned and another content, which no program
    /// writes.
    SameNumber {
        /// The sequence number.
        number: u64,
    },
    /// The version of LUKS.
    Version {
        /// The one in the header.
        found: Version,
    },
    /// A part that was not there.
    Added {
        /// What it is.
        kind: PartKind,
        /// Its number.
        number: u32,
        /// Its type.
        name: String,
    },
    /// A part that is no longer there.
    Removed {
        /// What it was.
        kind: PartKind,
        /// Its number.
        number: u32,
        /// Its type.
        name: String,
    },
    /// A part that has another content.
    Changed {
        /// What it is.
        kind: PartKind,
        /// Its number.
        number: u32,
        /// Its type, or which setting it is.
        name: String,
    },
    /// The volume is at another place than the pinned one.
    Place {
        /// The place that is pinned.
        pinned: String,
    },
    /// Something for which there are no words here, such as an unknown member of the JSON.
    Other,
}

/// How `found` differs from `pinned`. Empty if they say the same.
#[must_use]
pub fn differences(pinned: &Facts, found: &Facts) -> Vec<Difference> {
    let mut differences = Vec::new();
    if pinned == found {
        return differences;
    }
    if pinned.version != found.version {
        // Every part is another one.
        let found = found.version;
        return [Difference::Version { found }].into();
    }
    let of = |part: &Part| (part.kind, part.number, part.name.clone());
    for part in &pinned.parts {
        let (kind, number, name) = of(part);
        match found.part(part.kind, part.number, &part.name) {
            None if kind == PartKind::Material => {}
            None => differences.push(Difference::Removed { kind, number, name }),
            Some(found) if found.hash == part.hash => {}
            Some(_) => differences.push(Difference::Changed { kind, number, name }),
        }
    }
    for part in &found.parts {
        let (kind, number, name) = of(part);
        let is_new = pinned.part(part.kind, part.number, &part.name).is_none();
        if is_new && kind != PartKind::Material {
            differences.push(Difference::Added { kind, number, name });
        }
    }
    if differences.is_empty() && pinned.whole != found.whole {
        differences.push(Difference::Other);
    }
    let (was, is) = (pinned.sequence, found.sequence);
    let sequence = if is < was {
        Some(Difference::RolledBack {
            pinned: was,
            found: is,
        })
    } else if is > was {
        Some(Difference::Later {
            pinned: was,
            found: is,
        })
    } else if found.version == Version::Luks2 && pinned.whole != found.whole {
        Some(Difference::SameNumber { number: was })
    } else {
        None
    };
    if let Some(sequence) = sequence {
        differences.insert(0, sequence);
    }
    differences
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RolledBack { pinned, found } => write!(
                f,
                "it was rolled back: its sequence number is {found}, the pinned one {pinned}"
            ),
            Self::Later { pinned, found } => write!(
                f,
                "another program changed it: its sequence number is {found}, the pinned one {pinned}"
            ),
            Self::SameNumber { number } => write!(
                f,
                "it has the pinned sequence number {number} and another content"
            ),
            Self::Version { found } => write!(f, "it is {found} now"),
            Self::Added { kind, number, name } => {
                write!(f, "{} was added", Named(*kind, *number, name))
            }
            Self::Removed { kind, number, name } => {
                write!(f, "{} was removed", Named(*kind, *number, name))
            }
            Self::Changed { kind, number, name } => {
                write!(f, "{} was changed", Named(*kind, *number, name))
            }
            Self::Place { pinned } => write!(f, "it was at {pinned}"),
            Self::Other => f.write_str("members that are not known here were changed"),
        }
    }
}

/// A part by its name.
struct Named<'a>(PartKind, u32, &'a str);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(kind, number, name) = self;
        match kind {
            PartKind::Keyslot => write!(f, "keyslot {number}"),
            PartKind::Material => write!(f, "the key material of keyslot {number}"),
            PartKind::Token => write!(f, "token {number} ({name})"),
            PartKind::Segment => write!(f, "segment {number}"),
            PartKind::Digest => write!(f, "digest {number}"),
            PartKind::Setting => f.write_str(name),
        }
    }
}
