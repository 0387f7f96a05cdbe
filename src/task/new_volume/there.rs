//! What already exists where a new volume will be made.

use std::fmt;
use std::fs::File;
use std::path::PathBuf;

use crate::Interrupt;
use crate::backend::Backend;
use crate::backend::file::{FileError, OpenOptions};
use crate::container::{self, Container, Undo, Version};
use crate::location::{Location, Part};
use crate::sectors::{Cipher, Sectors};
use crate::task::destination::{Destination, Present};
use crate::task::storage::{Remote, Storage};
use crate::task::{Error, part, size};

/// How many bytes of a device or an export are read to find out what it holds.
const LOOKED_AT: usize = 1 << 20;

/// What making a volume would destroy. Its `Display` says it in a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loss {
    /// A file that would be replaced.
    File {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        size: u64,
        /// The volume that it holds, if it holds one.
        volume: Option<FoundVolume>,
    },
    /// A device or an export that would be overwritten, and does not begin with zeroes.
    Storage {
        /// The device or export.
        location: Location,
        /// The volume that it holds, if it holds one.
        volume: Option<FoundVolume>,
    },
}

/// A LUKS volume that was found at the place of the new one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FoundVolume {
    /// Its version.
    pub version: Version,
    /// Its UUID, as it is written in the header.
    pub uuid: String,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } => write!(
                f,
                "{} exists and would be replaced: it holds ",
                path.display()
            )?,
            Self::Storage { location, .. } => {
                write!(f, "{location} would be overwritten: it holds ")?;
            }
        }
        match self {
            Self::File {
                volume: Some(volume),
                ..
            }
            | Self::Storage {
                volume: Some(volume),
                ..
            } => write!(f, "the {} volume {}", volume.version, volume.uuid),
            Self::File { size, .. } => write!(f, "{} of data", size::human(*size)),
            Self::Storage { .. } => f.write_str("data"),
        }
    }
}

/// Where a part of the new volume is stored.
pub(super) enum Target {
    /// A file that will be made.
    New(Destination),
    /// A storage that exists and is written to: a device, an export, or the data of a detached
    /// header.
    There(Storage),
}

/// The existing files and devices, which stay open until the volume is made.
#[derive(Default)]
pub(super) struct There {
    /// The old files that new ones replace. Their locks keep other programs from using them.
    pub(super) image: Option<Storage>,
    pub(super) header: Option<Storage>,
    /// The devices that are overwritten.
    claimed: Vec<File>,
}

/// What is at a location already.
pub(super) enum Found {
    Nothing(Destination),
    File(Destination, u64),
    /// What is written in place.
    InPlace(InPlace),
}

/// A storage that is written in place.
pub(super) enum InPlace {
    BlockDevice(Destination),
    /// A part of a file or a device that exists.
    Part(Destination, Part),
    Export,
}

impl Found {
    pub(super) fn at(location: &Location) -> Result<Self, Error> {
        let Some(path) = location.path_of_whole() else {
            return Ok(Self::InPlace(InPlace::Export));
        };
        let destination = Destination::look(path)?;
        if let Some(part) = location.part() {
            return match destination.present() {
                Present::Nothing => {
                    let missing = FileError::NotFound(path.to_owned());
                    Err(Error::from(missing).about(location))
                }
                _ => Ok(Self::InPlace(InPlace::Part(destination, part))),
            };
        }
        Ok(match destination.present() {
            Present::Nothing => Self::Nothing(destination),
            Present::File { size } => Self::File(destination, size),
            Present::BlockDevice => Self::InPlace(InPlace::BlockDevice(destination)),
        })
    }
}

/// Opens, and so locks, a file that would be replaced.
pub(super) fn replaced(
    destination: &Destination,
    size: u64,
    losses: &mut Vec<Loss>,
) -> Result<Storage, Error> {
    let file = Storage::open_found(destination)?;
    losses.push(Loss::File {
        path: destination.path().to_owned(),
        size,
        volume: found_volume(&file),
    });
    Ok(file)
}

/// Opens what would be overwritten in place. Where it holds only zeroes at its start, nothing is
/// lost.
pub(super) fn overwritten(
    found: &InPlace,
    location: &Location,
    (remote, interrupt): (Remote, &Interrupt),
    there: &mut There,
    losses: &mut Vec<Loss>,
) -> Result<Target, Error> {
    let storage = match found {
        InPlace::BlockDevice(device) => {
            let storage = Storage::open_found(device)?;
            there.claimed.push(device.claim()?);
            storage
        }
        InPlace::Part(whole, part) => {
            let storage = part::open_found(whole, *part, location)?;
            if whole.present() == Present::BlockDevice {
                there.claimed.push(whole.claim()?);
            }
            storage
        }
        InPlace::Export => {
            let options = OpenOptions::new().write(true);
            Storage::open(location, remote, options, interrupt)?
        }
    };
    let size = usize::try_from(storage.backend.geometry().size).unwrap_or(LOOKED_AT);
    let mut start = Sectors::<Cipher>::with_len(size.min(LOOKED_AT));
    storage
        .backend
        .read_at(0, &mut start)
        .map_err(|error| Error::from(error).about(format_args!("cannot read {location}")))?;
    if start.as_slice().iter().any(|byte| *byte != 0) {
        losses.push(Loss::Storage {
            location: location.clone(),
            volume: found_volume(&storage),
        });
    }
    Ok(Target::There(storage))
}

/// The volume in a storage, if there is one.
fn found_volume(storage: &Storage) -> Option<FoundVolume> {
    let options = container::OpenOptions::new(Undo::NotLookedFor);
    let container = Container::open(storage.backend.clone(), options).ok()?;
    Some(FoundVolume {
        version: container.version(),
        uuid: container.uuid().to_owned(),
    })
}
