//! Opening what a location names, and what it turned out to be.

use std::path::Path;
use std::sync::Arc;

use luksmith::backend::Backend;
use luksmith::backend::file::{FileBackend, OpenOptions};
use luksmith::backend::nbd::{ConnectOptions, NbdBackend};

use super::args::{Location, RemoteArgs};
use super::error::{CommandError, Kind};

/// An opened storage, and what a command has to know of it beside its bytes.
#[derive(Clone)]
pub(crate) struct Storage {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) nature: Nature,
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
        Location::Export(uri) => {
            let options = ConnectOptions {
                write: options.write,
                ..remote.options()
            };
            Ok(Storage {
                backend: Arc::new(NbdBackend::connect(uri, options)?),
                nature: Nature::Export,
            })
        }
    }
}

/// Opens a file or a device.
pub(crate) fn open_path(path: &Path, options: OpenOptions) -> Result<Storage, CommandError> {
    let file = open_file(path, options)?;
    let nature = if file.is_device() {
        Nature::BlockDevice
    } else {
        Nature::File
    };
    Ok(Storage {
        backend: file,
        nature,
    })
}

/// The same, for what only files can do.
pub(crate) fn open_file(
    path: &Path,
    options: OpenOptions,
) -> Result<Arc<FileBackend>, CommandError> {
    FileBackend::open(path, options)
        .map(Arc::new)
        .map_err(|error| {
            let busy_read = !options.write && !options.create_new;
            let error = CommandError::from(error);
            if busy_read && error.kind() == Kind::Busy {
                error.hint("--force-share reads it all the same")
            } else {
                error
            }
        })
}
