//! What already exists where a new volume will be made.

use std::fmt;
use std::fs::File;
use std::path::PathBuf;

use crate::Interrupt;
use crate::backend::file::{FileError, OpenOptions};
use crate::container::{self, Container, Undo, Version};
use crate::location::{Location, Part};
use crate::task::destination::{Destination, Present};
use crate::task::storage::{Nature, Remote, Storage};
use crate::task::{Error, new_image, occupied, part, size};

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
        /// What else changes, as the end of the sentence: the owner.
        owner: String,
    },
    /// A part, a device, an export or an image in Ceph that would be overwritten, and holds more
    /// than zeroes, as far as that is looked at.
    Storage {
        /// The device or export.
        location: Location,
        /// The volume that it holds, if it holds one.
        volume: Option<FoundVolume>,
    },
    /// A range of bytes that would be overwritten, and shares bytes with partitions.
    Partitions {
        /// The range.
        location: Location,
        /// The numbers of the partitions.
        numbers: Vec<u32>,
    },
    /// An image in Ceph, or a volume in an object store, that would be overwritten, and in which
    /// no data was found.
    Image {
        /// Where it is.
        location: Location,
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
            Self::Partitions { location, numbers } => {
                return f.write_str(&occupied::crossing(location, numbers));
            }
            Self::Image { location } => {
                return write!(f, "{location} exists and would be overwritten");
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
            } => write!(f, "the {} volume {}", volume.version, volume.uuid)?,
            Self::File { size, .. } => write!(f, "{} of data", size::human(*size))?,
            Self::Storage { .. } | Self::Partitions { .. } | Self::Image { .. } => {
                f.write_str("data")?;
            }
        }
        match self {
            Self::File { owner, .. } => f.write_str(owner),
            _ => Ok(()),
        }
    }
}

/// Where a part of the new volume is stored.
pub(super) enum Target {
    /// A file that will be made.
    New(Destination),
    /// An image in Ceph, or a volume in an object store, that will be made.
    Image(new_image::Absent),
    /// A storage that exists and is written to: a device, an export, or the data of a detached
    /// header.
    There(Storage),
}

impl Target {
    /// Whether it will be made, and so holds nothing.
    pub(super) fn is_new(&self) -> bool {
        !matches!(self, Self::There(_))
    }

    /// Whether it is a part of another storage.
    pub(super) fn is_part(&self) -> bool {
        matches!(self, Self::There(there) if there.offset.is_some())
    }

    /// Whether it is in an object store.
    pub(super) fn is_objects(&self) -> bool {
        match self {
            Self::New(_) => false,
            Self::Image(absent) => absent.is_objects(),
            Self::There(there) => there.nature == Nature::Objects,
        }
    }

    /// The stripe period in bytes, if it is all of an image in Ceph.
    pub(super) fn period(&self) -> Option<u64> {
        match self {
            Self::New(_) => None,
            Self::Image(absent) => absent.period(),
            Self::There(there) if there.offset.is_some() => None,
            Self::There(there) => there.ceph.as_ref().map(|ceph| ceph.period),
        }
    }
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
    /// No image in Ceph, or no volume in an object store.
    NoImage(new_image::Absent),
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
    pub(super) fn at(location: &Location, remote: Remote) -> Result<Self, Error> {
        if let Some(absent) = new_image::absent(location, remote)? {
            return Ok(Self::NoImage(absent));
        }
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
        owner: destination.other_owner(),
    });
    Ok(file)
}

/// Opens what would be overwritten in place. Where no data is found, and no partition is crossed,
/// nothing is lost.
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
            Storage::open(location, remote.extents(true), options, interrupt)?
        }
    };
    if !storage.crossed.is_empty() {
        losses.push(Loss::Partitions {
            location: location.clone(),
            numbers: storage.crossed.clone(),
        });
    }
    let holds_data = storage
        .holds_data(interrupt)
        .map_err(|error| error.about(format_args!("cannot read {location}")))?;
    if holds_data {
        losses.push(Loss::Storage {
            location: location.clone(),
            volume: found_volume(&storage),
        });
    } else if matches!(storage.nature, Nature::Rbd | Nature::Objects) && storage.offset.is_none() {
        let location = location.clone();
        losses.push(Loss::Image { location });
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
