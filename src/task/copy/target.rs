//! Where the plaintext of a volume is written: looked at first, and written later.

use std::fs::File;
#[cfg(feature = "nbd")]
use std::ops::Range;

use super::decrypt::decrypt;
use super::same::refuse_same;
use crate::location::{Location, Part};
use crate::task::destination::{Destination, Needed, Present};
use crate::task::new_file::NewFile;
use crate::task::open::Image;
use crate::task::part::{self, PlainPart};
use crate::task::plain::{PlainAccess, PlainSink, check_device, check_size};
use crate::task::storage::{Storage, not_opened};
use crate::task::{Error, Watch, occupied};
use crate::volume::Volume;

/// A file, a device or an export to which the plaintext of a volume is written.
pub struct PlainTarget {
    to: To,
    location: Location,
    loss: Option<String>,
    sparse: bool,
}

enum To {
    File {
        destination: Destination,
        /// The old file, which is locked until the new one replaces it.
        _replaced: Option<Storage>,
    },
    Device {
        device: File,
        /// Open exclusively, so that the device cannot be mounted meanwhile.
        _claimed: File,
    },
    /// A part of a file or a device.
    Part {
        part: PlainPart,
        /// Open exclusively, if it is a device.
        _claimed: Option<File>,
    },
    /// An export, and the bytes of it that are written.
    #[cfg(feature = "nbd")]
    Export(Box<crate::backend::nbd::PlainExport>, Range<u64>),
}

impl PlainTarget {
    /// Looks at a destination, and refuses the volume itself: `source`, with its data in the
    /// storage beside it. What will be written has `size` bytes, if that is known; with `sparse`, a
    /// new file gets holes where the plaintext is zeroes. A file that would be replaced is locked,
    /// a device that would be overwritten is opened exclusively.
    ///
    /// # Errors
    /// As [`Destination::look`]; the volume itself; a destination without room; an export to which
    /// plaintext would cross the network without TLS, unless `access` allows that; what the storage
    /// reports.
    pub fn look(
        location: &Location,
        access: PlainAccess,
        (source, data): (&Image, &Storage),
        (size, sparse): (Option<u64>, bool),
        watch: &dyn Watch,
    ) -> Result<Self, Error> {
        let size = size.unwrap_or_default();
        let whole = match location {
            Location::Part { whole, .. } => whole,
            whole => whole,
        };
        let path = match whole {
            Location::Path(path) => path,
            Location::Nbd(uri) => {
                access.check(uri)?;
                return Self::look_at_export(location, uri, access, data, size, watch);
            }
            other => return Err(not_opened(other)),
        };
        let destination = Destination::look(path)?;
        refuse_same(source, &destination, location.part())?;
        if let Some(part) = location.part() {
            return Self::look_at_part(location, &destination, part, size, watch);
        }
        if destination.present() != Present::BlockDevice {
            let needed = if sparse { 1 } else { size };
            destination.check_room(Needed::Plaintext(needed))?;
        }
        let owner = destination.other_owner();
        let overwritten = format!("{location} exists and would be overwritten{owner}");
        let (to, loss) = match destination.present() {
            Present::Nothing => {
                let _replaced = None;
                (
                    To::File {
                        destination,
                        _replaced,
                    },
                    None,
                )
            }
            Present::File { .. } => {
                let _replaced = Some(Storage::open_found(&destination)?);
                (
                    To::File {
                        destination,
                        _replaced,
                    },
                    Some(overwritten),
                )
            }
            Present::BlockDevice => {
                let _claimed = destination.claim()?;
                let mut device = destination.open()?;
                check_device(&mut device, path, size)?;
                let there = Storage::open_found(&destination)?;
                let loss = loss(&there, location, watch)?;
                (To::Device { device, _claimed }, loss)
            }
        };
        Ok(Self {
            to,
            location: location.clone(),
            loss,
            sparse,
        })
    }

    fn look_at_part(
        location: &Location,
        whole: &Destination,
        part: Part,
        size: u64,
        watch: &dyn Watch,
    ) -> Result<Self, Error> {
        let storage = part::open_found(whole, part, location)?;
        let loss = loss(&storage, location, watch)?;
        let part = PlainPart::of(storage, location)?;
        let room = part.range.end - part.range.start;
        check_size(location.to_string().as_ref(), room, size)?;
        let is_device = whole.present() == Present::BlockDevice;
        let _claimed = is_device.then(|| whole.claim()).transpose()?;
        Ok(Self {
            to: To::Part { part, _claimed },
            location: location.clone(),
            loss,
            sparse: false,
        })
    }

    #[cfg(feature = "nbd")]
    fn look_at_export(
        location: &Location,
        uri: &luksmith_formats::nbd::uri::Uri,
        access: PlainAccess,
        data: &Storage,
        size: u64,
        watch: &dyn Watch,
    ) -> Result<Self, Error> {
        use super::same::refuse_same_bytes;
        use crate::task::occupied::Place;
        use crate::task::plain::LOOKED_AT;

        let connect = access.remote.extents(true).connect(true);
        let export = crate::backend::nbd::PlainExport::connect(uri, connect, watch.interrupt())?;
        let (crossed, range) = match location.part() {
            Some(part) => {
                let read = |at, into: &mut [u8]| export.read_at(at, into);
                part::of_export(part, export.size(), read, location)?
            }
            None => (Vec::new(), 0..export.size()),
        };
        let room = range.end - range.start;
        check_size(location.to_string().as_ref(), room, size)?;
        let len = room.min(LOOKED_AT);
        let mut begin = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        export
            .read_at(range.start, &mut begin)
            .map_err(|error| Error::from(error).about(format_args!("cannot read {location}")))?;
        refuse_same_bytes(data, &begin, room, location)?;
        let place = Place {
            size: room,
            is_file: false,
            extents: &|part| export.extents(range.start + part.start..range.start + part.end),
            read: &|at, into| export.read_at(range.start + at, into),
        };
        let holds_data = place
            .holds_data(watch.interrupt())
            .map_err(|error| error.about(format_args!("cannot read {location}")))?;
        Ok(Self {
            loss: sentence(&crossed, holds_data, location),
            to: To::Export(Box::new(export), range),
            location: location.clone(),
            sparse: false,
        })
    }

    #[cfg(not(feature = "nbd"))]
    fn look_at_export(
        _: &Location,
        uri: &luksmith_formats::nbd::uri::Uri,
        _: PlainAccess,
        _: &Storage,
        _: u64,
        _: &dyn Watch,
    ) -> Result<Self, Error> {
        let missing = crate::MissingFeature::new("an export of an NBD server", "nbd");
        Err(Error::new(crate::task::Kind::Unsupported, missing).about(uri))
    }

    /// What would be lost, as a sentence without a full stop.
    #[must_use]
    pub fn loss(&self) -> Option<String> {
        self.loss.clone()
    }

    /// Whether it is a device or an export, of which a failure leaves a part written.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        !matches!(self.to, To::File { .. })
    }

    /// Writes all of the volume, with `depth` reads in flight at once. A new file gets its name
    /// when it is complete.
    ///
    /// # Errors
    /// As [`decrypt`](fn@super::decrypt), and a device or an export that is too small.
    pub fn fill(self, volume: &Volume, depth: usize, watch: &dyn Watch) -> Result<(), Error> {
        let size = volume.size();
        match self.to {
            To::File { destination, .. } => {
                let file = NewFile::at(destination, watch)?;
                let path = file.destination().path().to_owned();
                let sink = PlainSink::file(file.file()?, &path, size, self.sparse)?;
                decrypt(volume, depth, sink, watch)?;
                file.keep()?;
                Ok(())
            }
            To::Device { device, _claimed } => {
                let name = self.location.to_string();
                let sink = PlainSink::device(device, name.as_ref(), size)?;
                decrypt(volume, depth, sink, watch)
            }
            To::Part { part, _claimed } => {
                let name = self.location.to_string();
                let sink = PlainSink::part(part, name.as_ref(), size)?;
                decrypt(volume, depth, sink, watch)
            }
            #[cfg(feature = "nbd")]
            To::Export(export, range) => {
                let name = self.location.to_string();
                let sink = PlainSink::export(*export, range, name.as_ref(), size)?;
                decrypt(volume, depth, sink, watch)
            }
        }
    }
}

/// What would be lost in a storage that is written in place.
fn loss(
    storage: &Storage,
    location: &Location,
    watch: &dyn Watch,
) -> Result<Option<String>, Error> {
    let holds_data = storage
        .holds_data(watch.interrupt())
        .map_err(|error| error.about(format_args!("cannot read {location}")))?;
    Ok(sentence(&storage.crossed, holds_data, location))
}

fn sentence(crossed: &[u32], holds_data: bool, location: &Location) -> Option<String> {
    match (crossed, holds_data) {
        ([], false) => None,
        ([], true) => Some(format!("{location} would be overwritten: it holds data")),
        (crossed, _) => Some(occupied::crossing(location, crossed)),
    }
}
