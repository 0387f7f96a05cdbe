//! Where the plaintext of a volume is written: looked at first, and written later.

use std::fs::File;

use super::decrypt::decrypt;
use super::same::refuse_same;
use crate::location::Location;
use crate::task::destination::{Destination, Needed, Present};
use crate::task::new_file::NewFile;
use crate::task::open::Image;
use crate::task::plain::{PlainAccess, PlainSink, check_device};
use crate::task::storage::{Storage, not_opened};
use crate::task::{Error, Watch};
use crate::volume::Volume;

/// A file, a device or an export to which the plaintext of a volume is written.
pub struct PlainTarget {
    to: To,
    location: Location,
    loses: bool,
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
    #[cfg(feature = "nbd")]
    Export(Box<crate::backend::nbd::PlainExport>),
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
        let path = match location {
            Location::Path(path) => path,
            Location::Nbd(uri) => {
                access.check(uri)?;
                return Self::look_at_export(uri, access, data, size, watch);
            }
            other => return Err(not_opened(other)),
        };
        let destination = Destination::look(path)?;
        refuse_same(source, &destination)?;
        if destination.present() != Present::BlockDevice {
            let needed = if sparse { 1 } else { size };
            destination.check_room(Needed::Plaintext(needed))?;
        }
        let (to, loses) = match destination.present() {
            Present::Nothing => {
                let _replaced = None;
                (
                    To::File {
                        destination,
                        _replaced,
                    },
                    false,
                )
            }
            Present::File { .. } => {
                let _replaced = Some(Storage::open_found(&destination)?);
                (
                    To::File {
                        destination,
                        _replaced,
                    },
                    true,
                )
            }
            Present::BlockDevice => {
                let _claimed = destination.claim()?;
                let mut device = destination.open()?;
                check_device(&mut device, path, size)?;
                (To::Device { device, _claimed }, true)
            }
        };
        Ok(Self {
            to,
            location: location.clone(),
            loses,
            sparse,
        })
    }

    #[cfg(feature = "nbd")]
    fn look_at_export(
        uri: &luksmith_formats::nbd::uri::Uri,
        access: PlainAccess,
        data: &Storage,
        size: u64,
        watch: &dyn Watch,
    ) -> Result<Self, Error> {
        use super::same::refuse_same_bytes;
        use crate::task::plain::{LOOKED_AT, check_size};

        let location = Location::Nbd(Box::new(uri.clone()));
        let connect = access.remote.connect(true);
        let export = crate::backend::nbd::PlainExport::connect(uri, connect, watch.interrupt())?;
        check_size(location.to_string().as_ref(), export.size(), size)?;
        let len = export.size().min(LOOKED_AT);
        let mut begin = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        export
            .read_at(0, &mut begin)
            .map_err(|error| Error::from(error).about(format_args!("cannot read {location}")))?;
        refuse_same_bytes(data, &begin, export.size(), &location)?;
        Ok(Self {
            loses: begin.iter().any(|byte| *byte != 0),
            to: To::Export(Box::new(export)),
            location,
            sparse: false,
        })
    }

    #[cfg(not(feature = "nbd"))]
    fn look_at_export(
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
        let location = &self.location;
        let verb = match &self.to {
            To::File { .. } | To::Device { .. } => "exists and would be overwritten",
            #[cfg(feature = "nbd")]
            To::Export(_) => "would be overwritten: it holds data",
        };
        self.loses.then(|| format!("{location} {verb}"))
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
            #[cfg(feature = "nbd")]
            To::Export(export) => {
                let name = self.location.to_string();
                let sink = PlainSink::export(*export, name.as_ref(), size)?;
                decrypt(volume, depth, sink, watch)
            }
        }
    }
}
