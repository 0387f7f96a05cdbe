//! Opening what a location names, and what it turned out to be.

use std::path::Path;
use std::sync::Arc;

use luksmith::backend::Backend;
use luksmith::backend::file::{FileBackend, OpenOptions};
use luksmith::backend::nbd::NbdBackend;
use luksmith::container::{Container, Unlocked, VolumeError};
use luksmith::layout::Qcow2;
use luksmith::location::Location;
use luksmith::volume::Volume;
use serde_json::{Value, json};

use luksmith::layout::ImageError;
use luksmith::sectors::{Cipher, Sectors};

use super::args::RemoteArgs;
use super::error::{CommandError, Kind};

/// What a LUKS volume of either version begins with.
const LUKS_MAGIC: &[u8] = b"LUKS\xba\xbe";

/// An opened storage, and what a command has to know of it beside its bytes.
#[derive(Clone)]
pub(crate) struct Storage {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) nature: Nature,
    /// The image that the storage holds, where it was said to be one.
    pub(crate) qcow2: Option<Arc<Qcow2>>,
}

/// What sort of storage it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nature {
    /// A regular file, which can grow.
    File,
    /// A block device of fixed size.
    BlockDevice,
    /// An export on a server, of fixed size, for which each call waits.
    Export,
}

impl Storage {
    /// What was opened as such.
    pub(crate) fn raw(backend: Arc<dyn Backend>, nature: Nature) -> Self {
        let qcow2 = None;
        Self {
            backend,
            nature,
            qcow2,
        }
    }

    /// The same storage, as the qcow2 image that it is said to hold.
    pub(crate) fn into_qcow2(self, location: &Location) -> Result<Self, CommandError> {
        let image = Qcow2::open(self.backend.clone()).map_err(|error| {
            let luks = matches!(error, ImageError::NotQcow2) && self.begins_with(LUKS_MAGIC);
            let hint = "it begins as a LUKS volume does: that is --format raw, the default";
            let error = CommandError::from(error).about(location);
            error.hint_if(luks.then(|| hint.to_owned()))
        })?;
        Ok(Self {
            qcow2: Some(Arc::new(image)),
            ..self
        })
    }

    /// Whether these are its first bytes: for hints alone.
    pub(crate) fn begins_with(&self, magic: &[u8]) -> bool {
        let unit = self.backend.geometry().block_size.max(512) as usize;
        let mut start = Sectors::<Cipher>::with_len(unit);
        self.backend.read_at(0, &mut start).is_ok() && start.as_slice().starts_with(magic)
    }

    /// Where the LUKS header lies, if it lies here.
    pub(crate) fn header(&self) -> Arc<dyn Backend> {
        match &self.qcow2 {
            Some(image) => image.header_storage(),
            None => self.backend.clone(),
        }
    }

    /// The image that the storage holds, for JSON.
    pub(crate) fn qcow2_json(&self) -> Option<Value> {
        self.qcow2.as_ref().map(|image| {
            json!({
                "version": image.version(),
                "cluster_size": image.cluster_size(),
                "refcount_bits": image.refcount_bits(),
                "snapshots": image.snapshots(),
            })
        })
    }

    /// The plaintext of the volume that lies here.
    pub(crate) fn volume(
        &self,
        container: &Container,
        unlocked: &Unlocked,
    ) -> Result<Volume, VolumeError> {
        match &self.qcow2 {
            Some(image) => container.volume_in(image.clone(), unlocked),
            None => container.volume(self.backend.clone(), unlocked),
        }
    }

    /// The size of the volume that lies here.
    pub(crate) fn volume_size(&self, container: &Container) -> Result<u64, VolumeError> {
        match &self.qcow2 {
            Some(image) => Ok(image.size()),
            None => container.data_size(self.backend.geometry().size),
        }
    }

    /// Whether its size is what it is.
    pub(crate) fn has_fixed_size(&self) -> bool {
        self.nature != Nature::File
    }

    /// How many chunks of a bulk copy should be under way at once: one is enough where the storage does not keep one waiting.
    pub(crate) fn depth(&self) -> usize {
        match self.nature {
            Nature::File | Nature::BlockDevice => 1,
            Nature::Export => 16,
        }
    }
}

/// Opens a file, a device or an export.
pub(crate) fn open(
    location: &Location,
    remote: &RemoteArgs,
    options: OpenOptions,
) -> Result<Storage, CommandError> {
    match location {
        Location::Path(path) => open_path(path, options),
        Location::Nbd(uri) => {
            let options = remote.options().write(options.writes());
            let backend = Arc::new(NbdBackend::connect(uri, options)?);
            Ok(Storage::raw(backend, Nature::Export))
        }
        other => Err(not_opened(other)),
    }
}

/// A location that only an emulator opens.
pub(crate) fn not_opened(location: &Location) -> CommandError {
    CommandError::new(Kind::Unsupported, "luksmith does not open that").about(location)
}

/// Opens a file or a device.
pub(crate) fn open_path(path: &Path, options: OpenOptions) -> Result<Storage, CommandError> {
    let file = open_file(path, options)?;
    let nature = if file.is_device() {
        Nature::BlockDevice
    } else {
        Nature::File
    };
    Ok(Storage::raw(file, nature))
}

/// The same, for what only files can do.
pub(crate) fn open_file(
    path: &Path,
    options: OpenOptions,
) -> Result<Arc<FileBackend>, CommandError> {
    FileBackend::open(path, options)
        .map(Arc::new)
        .map_err(|error| {
            let busy_read = !options.writes();
            let error = CommandError::from(error);
            if busy_read && error.kind() == Kind::Busy {
                error.hint("--force-share reads it all the same")
            } else {
                error
            }
        })
}
