//! Encrypted qcow2 images with LUKS1 inside, as QEMU makes and reads them.
//!
//! The format is encryption method 2 of QEMU's `docs/interop/qcow2.txt`. The LUKS header is in
//! clusters of its own, which a header extension names. [`Qcow2::header_storage`] is the storage
//! for a [`Container`](crate::container::Container). The payload offset of that header is not used:
//! the tables of the image say where data is, and the IV of a sector is its place in the image.
//!
//! - `shape`: the header, which is validated once. `fixed`: the parts that no data may overlap.
//! - `map`, `run`: where the guest's clusters are. `compressed`: clusters that are not encrypted.
//! - `refcounts` and `grow`: which clusters are free.
//! - `change`: changes of the tables, and the order in which they reach the storage.
//! - `header`: the LUKS header only, of an image whose data may be in other files.
//! - `used`: which clusters hold data, for a search without a key.
//! - `plain`: images that are not encrypted, which are only read.
//! - `create`: a new image. `resize`: another size. `window`: the storage of the LUKS header.
//!
//! The tables are neither encrypted nor authenticated. An attacker who can write to the storage can
//! make any part of the disk read as zeroes, as any other part of the image's ciphertext, or as
//! noise. What a hostile image says is bounded, and never refers to anything outside of the image.
//!
//! Backing files, data files and extended L2 entries are refused, except for work that needs only
//! the LUKS header ([`Qcow2Header`]). QEMU does not encrypt compressed clusters; they are read only
//! after
//! [`Volume::with_compressed_plaintext`](crate::volume::Volume::with_compressed_plaintext).
//!
//! ```
//! # use luksmith::{Interrupt, kdf::calibrate::Cost, formats::Hash, secret::Passphrase};
//! use std::sync::Arc;
//!
//! use luksmith::backend::memory::MemoryBackend;
//! use luksmith::container::{Container, CreateOptions, OpenOptions, Undo, Version, Which};
//! use luksmith::layout::{NewImage, Qcow2};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let cost = Cost::Pbkdf2 { hash: Hash::Sha256, iterations: 1000 };
//! # let (passphrase, interrupt) = (Passphrase::copy_from(b"correct horse")?, Interrupt::new());
//! // The guest sees 10 GiB. The storage grows as the disk is written.
//! let storage = Arc::new(MemoryBackend::new(0));
//! let options = CreateOptions::new(Version::Luks1, cost).in_qcow2();
//! let image = NewImage::new(10 << 30, options.layout()?.header_size);
//! let image = Arc::new(Qcow2::create(storage, &image)?);
//! let header = image.header_storage();
//! let open = OpenOptions::new(Undo::NotLookedFor);
//! Container::create(header, options, open.clone(), &passphrase, &interrupt)?;
//!
//! let container = Container::open(image.header_storage(), open)?;
//! let unlocked = container.unlock(&passphrase, Which::Any, &interrupt)?;
//! let volume = container.volume_in(image, &unlocked)?;
//! volume.write_at(7 << 30, b"hello")?;
//! volume.flush()?;
//! # Ok(())
//! # }
//! ```

mod change;
#[cfg(feature = "qcow2-compressed")]
mod compressed;
mod create;
mod fixed;
mod grow;
mod header;
mod map;
mod plain;
mod refcounts;
mod resize;
mod run;
mod shape;
mod used;

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use create::NewImage;
pub use header::{HeaderPlace, LARGEST_CLUSTER, Qcow2Header, header_place};
pub use plain::PlainQcow2;
pub use shape::ImageError;
pub use used::{UsedClusters, UsedClustersWalk};

use change::Changes;
#[cfg(feature = "qcow2-compressed")]
use compressed::Inflated;
use fixed::Fixed;
pub(crate) use map::Compressed;
use map::Map;
pub(crate) use run::{Run, Stored};
use shape::{AUTOCLEAR, Shape};

use crate::backend::{Backend, IoError, Operation};
use crate::door;
#[cfg(not(feature = "qcow2-compressed"))]
use crate::feature::MissingFeature;

/// An opened image.
///
/// Any number of threads may use it. A change of the mapping is durable after a
/// [`flush`](Self::flush). Dropping the image flushes it too, but cannot report a failure.
pub struct Qcow2 {
    storage: Arc<dyn Backend>,
    shape: Shape,
    map: Map,
    #[cfg(feature = "qcow2-compressed")]
    inflated: Inflated,
    size: AtomicU64,
    /// `None` if the image is open for reading only.
    changes: Option<Mutex<Changes>>,
}

impl Qcow2 {
    /// Opens an image: reads and validates the header, the L1 table and the refcount table. The
    /// image can be written if the storage can.
    ///
    /// # Errors
    /// Returns [`ImageError`] if the image is refused or cannot be read.
    pub fn open(storage: Arc<dyn Backend>) -> Result<Self, ImageError> {
        let shape = Shape::read(&*storage)?;
        let fixed = Arc::new(Fixed::new(shape.fixed()));
        let map = Map::read(&*storage, &shape, fixed.clone())?;
        let changes = if storage.geometry().read_only {
            None
        } else {
            if shape.header.version >= 3 && shape.header.autoclear != 0 {
                // Clear the autoclear bits before the first write: we do not maintain what they
                // promise.
                door::write(&*storage, AUTOCLEAR, &[0; 8])?;
                storage.flush()?;
            }
            Some(Mutex::new(Changes::none(&*storage, &shape, fixed)?))
        };
        // QEMU ignores bytes after the last whole sector too.
        let size = shape.header.size / 512 * 512;
        Ok(Self {
            size: AtomicU64::new(size),
            #[cfg(feature = "qcow2-compressed")]
            inflated: Inflated::new(&shape),
            storage,
            shape,
            map,
            changes,
        })
    }

    /// The storage of the LUKS header. Its size is fixed, and stated in the image.
    pub fn header_storage(&self) -> Arc<dyn Backend> {
        self.header().storage()
    }

    /// The LUKS header of the image, and what the image's own header says.
    pub fn header(&self) -> Qcow2Header {
        Qcow2Header::of(self.storage.clone(), self.shape.clone())
    }

    /// The size of the disk in bytes.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// The size of a cluster in bytes.
    pub fn cluster_size(&self) -> u64 {
        self.shape.cluster
    }

    /// The storage of the image.
    pub(crate) fn storage(&self) -> &Arc<dyn Backend> {
        &self.storage
    }

    /// Whether the image is open for reading only.
    pub(crate) fn is_read_only(&self) -> bool {
        self.changes.is_none()
    }

    /// The run at the start of a range.
    pub(crate) fn run(&self, range: Range<u64>) -> Result<Run, IoError> {
        self.map.run(&*self.storage, range)
    }

    /// Fills `into` with the plaintext of a compressed cluster, from the byte `within` it on. The
    /// storage holds that plaintext unencrypted, so the caller decides whether it may be used.
    #[cfg(feature = "qcow2-compressed")]
    pub(crate) fn inflate(
        &self,
        compressed: Compressed,
        within: u64,
        into: &mut [u8],
    ) -> Result<(), IoError> {
        self.inflated
            .read(&*self.storage, compressed, shape::length(within), into)
    }

    /// Fails, since this build has no decompression.
    #[cfg(not(feature = "qcow2-compressed"))]
    pub(crate) fn inflate(&self, _: Compressed, _: u64, _: &mut [u8]) -> Result<(), IoError> {
        let what = "a compressed cluster";
        Err(MissingFeature::new(what, "qcow2-compressed").into())
    }

    /// Whether all of a range can be overwritten in place.
    pub(crate) fn is_in_place(&self, range: Range<u64>) -> Result<bool, IoError> {
        let mut at = range.start;
        while at < range.end {
            let run = self.run(at..range.end)?;
            if !matches!(run.stored, Stored::Here(_)) {
                return Ok(false);
            }
            at += run.len;
        }
        Ok(true)
    }

    /// Reserves up to `most` consecutive free clusters of the image. The caller fills them, and
    /// then
    /// [links](Self::link) them or [gives them back](Self::give_back).
    pub(crate) fn reserve(&self, most: u64) -> Result<Range<u64>, IoError> {
        self.changes(Operation::Write)?
            .reserve(&*self.storage, &self.map, most)
    }

    /// Frees reserved clusters.
    pub(crate) fn give_back(&self, clusters: Range<u64>) {
        if let Ok(mut changes) = self.changes(Operation::Write) {
            changes.give_back(&*self.storage, clusters);
        }
    }

    /// Makes `clusters` of the image the clusters of the disk from `first` on. The caller holds an
    /// exclusive lock on them, and has filled them.
    pub(crate) fn link(&self, first: u64, clusters: Range<u64>) -> Result<(), IoError> {
        self.changes(Operation::Write)?
            .link(&*self.storage, &self.map, first, clusters)
    }

    /// Gives up clusters of the disk, which then read as zeroes. The caller holds an exclusive lock
    /// on them.
    pub(crate) fn unlink(&self, clusters: Range<u64>) -> Result<(), IoError> {
        self.changes(Operation::Discard)?
            .unlink(&*self.storage, &self.map, clusters)
    }

    /// Makes everything durable that was written before this call.
    ///
    /// # Errors
    /// Returns an error of the storage. After a flush of the storage has failed, every later one
    /// fails.
    pub fn flush(&self) -> Result<(), IoError> {
        match self.changes(Operation::Flush) {
            Ok(mut changes) => changes.commit(&*self.storage, &self.map),
            Err(_) => Ok(()),
        }
    }

    fn changes(&self, operation: Operation) -> Result<MutexGuard<'_, Changes>, IoError> {
        let changes = self.changes.as_ref();
        let changes = changes.ok_or(IoError::ReadOnly(operation))?;
        // No code panics while it holds this mutex.
        Ok(changes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Qcow2 {
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

impl fmt::Debug for Qcow2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Qcow2")
            .field("size", &self.size())
            .field("cluster_size", &self.cluster_size())
            .field("read_only", &self.is_read_only())
            .finish_non_exhaustive()
    }
}
