//! Encrypted qcow2 images: LUKS1 inside, as QEMU makes and reads them.
//!
//! QEMU's `docs/interop/qcow2.txt`, encryption method 2. The LUKS header lies in clusters of its own, which a header extension
//! names; [`Qcow2::header_storage`] is the storage for a [`Container`](crate::container::Container). Its payload offset says
//! nothing of where the data lies: that is what the tables are for, and the IV of a sector is its place in the image.
//!
//! - `shape`: the header, judged once; `fixed`: what no data may lie on.
//! - `map`: where the guest's clusters lie; `compressed`: those that are not encrypted, inflated.
//! - `refcounts`, `grow`: which clusters are free; `change`: changes of all that, and the order in which they reach the storage.
//! - `create`, `resize`, `window`.
//!
//! Tables are plain and nobody vouches for them: who can write to the storage can make any part of the disk read as zeroes, as any
//! other part of the image's ciphertext, or as noise. What a hostile image says is bounded, and never leads out of the image.
//! Refused are backing and data files, and extended L2 entries. Compressed clusters, which QEMU does not encrypt, are read by who says so:
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
//! // It grows as it is written: 10 GiB for the guest.
//! let storage = Arc::new(MemoryBackend::new(0));
//! let options = CreateOptions::new(Version::Luks1, cost).in_qcow2();
//! let image = NewImage::new(10 << 30, options.layout()?.header_size);
//! let image = Arc::new(Qcow2::create(storage, &image)?);
//! let header = image.header_storage();
//! Container::create(header, options, OpenOptions::new(Undo::NotLookedFor), &passphrase, &interrupt)?;
//!
//! let container = Container::open(image.header_storage(), OpenOptions::new(Undo::NotLookedFor))?;
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
mod map;
mod refcounts;
mod resize;
mod shape;
mod window;

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use create::NewImage;
pub use shape::ImageError;

use change::Changes;
#[cfg(feature = "qcow2-compressed")]
use compressed::Inflated;
use fixed::Fixed;
pub(crate) use map::Compressed;
use map::{Map, Place};
use shape::Shape;
use window::Window;

use crate::backend::{Backend, IoError, Operation};
use crate::door;
#[cfg(not(feature = "qcow2-compressed"))]
use crate::feature::MissingFeature;

/// The most clusters that one look at the map goes through.
const LOOK: u64 = 1 << 16;
/// Where the header has the autoclear features.
const AUTOCLEAR: u64 = 88;

/// An opened image.
///
/// Any number of threads may use it. A change of the mapping is durable after a [`flush`](Self::flush); dropping the image
/// flushes, too, but nobody hears of a failure then.
pub struct Qcow2 {
    storage: Arc<dyn Backend>,
    shape: Shape,
    map: Map,
    #[cfg(feature = "qcow2-compressed")]
    inflated: Inflated,
    size: AtomicU64,
    /// Nothing where the image is open for reading only.
    changes: Option<Mutex<Changes>>,
}

/// What is stored for a range of the disk, as far as it lies in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// How long it is, in bytes.
    pub(crate) len: u64,
    /// Where its first byte is.
    pub(crate) stored: Stored,
}

/// Where the bytes of a run are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// Nowhere: they read as zeroes.
    Nowhere,
    /// From this byte of the image on, and may be overwritten there.
    Here(u64),
    /// From this byte of the image on; a snapshot has them, too.
    Kept(u64),
    /// Not encrypted, but compressed; they begin at this byte of a cluster.
    Compressed(Compressed, u64),
}

impl Qcow2 {
    /// Reads and judges the header and the tables' tables. For writing where the storage takes it.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn open(storage: Arc<dyn Backend>) -> Result<Self, ImageError> {
        let shape = Shape::read(&*storage)?;
        let fixed = Arc::new(Fixed::new(shape.fixed()));
        let map = Map::read(&*storage, &shape, fixed.clone())?;
        let changes = if storage.geometry().read_only {
            None
        } else {
            if shape.header.version >= 3 && shape.header.autoclear != 0 {
                // Who does not know what these features promise says so before the first write.
                door::write(&*storage, AUTOCLEAR, &[0; 8])?;
                storage.flush()?;
            }
            Some(Mutex::new(Changes::none(&*storage, &shape, fixed)?))
        };
        // Bytes behind the last whole sector are not there for QEMU either.
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

    /// The storage of the LUKS header: as long as the image says, and of fixed size.
    pub fn header_storage(&self) -> Arc<dyn Backend> {
        let (start, len) = self.shape.crypto;
        let storage = self.storage.clone();
        Arc::new(Window {
            storage,
            start,
            len,
        })
    }

    /// The size of the disk in bytes.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// The size of a cluster in bytes.
    pub fn cluster_size(&self) -> u64 {
        self.shape.cluster
    }

    /// The version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.shape.header.version
    }

    /// The bits of a refcount: 1 to 64.
    pub fn refcount_bits(&self) -> u32 {
        1 << self.shape.header.refcount_order
    }

    /// How many internal snapshots there are.
    pub fn snapshots(&self) -> u32 {
        self.shape.header.snapshots
    }

    /// The storage of the image.
    pub(crate) fn storage(&self) -> &Arc<dyn Backend> {
        &self.storage
    }

    /// Whether nothing can be changed.
    pub(crate) fn is_read_only(&self) -> bool {
        self.changes.is_none()
    }

    /// What is stored for the beginning of a range.
    pub(crate) fn run(&self, range: Range<u64>) -> Result<Run, IoError> {
        let size = self.shape.cluster;
        let (first, within) = (range.start / size, range.start % size);
        let clusters = range.end.div_ceil(size).saturating_sub(first);
        let place = self.map.place(&*self.storage, first)?;
        let mut end = first + 1;
        let most = first + clusters.min(LOOK);
        while end < most {
            let skipped = self.map.without_table(end);
            if let (Place::Hole, Some(next)) = (place, skipped) {
                end = next;
                continue;
            }
            let on = (end - first) * size;
            let next = match place {
                Place::Hole => Place::Hole,
                Place::Own(at) => Place::Own(at.saturating_add(on)),
                Place::Shared(at) => Place::Shared(at.saturating_add(on)),
                Place::Compressed(_) => break,
            };
            if self.map.place(&*self.storage, end)? != next {
                break;
            }
            end += 1;
        }
        let len = end.saturating_mul(size).min(range.end) - range.start;
        let stored = match place {
            Place::Hole => Stored::Nowhere,
            Place::Own(at) => Stored::Here(at + within),
            Place::Shared(at) => Stored::Kept(at + within),
            Place::Compressed(compressed) => Stored::Compressed(compressed, within),
        };
        Ok(Run { len, stored })
    }

    /// Fills `into` with plaintext of a compressed cluster, from the byte `within` it on. The storage has it as it is: whether it may
    /// be taken from there is for the caller to know.
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

    /// This build has no decompression.
    #[cfg(not(feature = "qcow2-compressed"))]
    pub(crate) fn inflate(&self, _: Compressed, _: u64, _: &mut [u8]) -> Result<(), IoError> {
        let what = "a compressed cluster";
        Err(MissingFeature::new(what, "qcow2-compressed").into())
    }

    /// Whether all of a range can be overwritten where it is.
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

    /// Up to `most` clusters of the image in a row, which nobody uses: fill them, then [`link`](Self::link) them or
    /// [give them back](Self::give_back).
    pub(crate) fn reserve(&self, most: u64) -> Result<Range<u64>, IoError> {
        self.changes(Operation::Write)?
            .reserve(&*self.storage, &self.map, most)
    }

    /// Gives back what was reserved.
    pub(crate) fn give_back(&self, clusters: Range<u64>) {
        if let Ok(mut changes) = self.changes(Operation::Write) {
            changes.give_back(&*self.storage, clusters);
        }
    }

    /// The disk's clusters from `first` on are these from now on. The caller has them alone, and has filled them.
    pub(crate) fn link(&self, first: u64, clusters: Range<u64>) -> Result<(), IoError> {
        self.changes(Operation::Write)?
            .link(&*self.storage, &self.map, first, clusters)
    }

    /// Gives up clusters of the disk, which read as zeroes from now on. The caller has them alone.
    pub(crate) fn unlink(&self, clusters: Range<u64>) -> Result<(), IoError> {
        self.changes(Operation::Discard)?
            .unlink(&*self.storage, &self.map, clusters)
    }

    /// Once this has returned, all that was written before has reached stable storage.
    ///
    /// # Errors
    /// What the storage says. Once a flush of the storage has failed, every later one fails.
    pub fn flush(&self) -> Result<(), IoError> {
        match self.changes(Operation::Flush) {
            Ok(mut changes) => changes.commit(&*self.storage, &self.map),
            Err(_) => Ok(()),
        }
    }

    fn changes(&self, operation: Operation) -> Result<MutexGuard<'_, Changes>, IoError> {
        let changes = self.changes.as_ref();
        let changes = changes.ok_or(IoError::ReadOnly(operation))?;
        // Nothing panics while it is held.
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
