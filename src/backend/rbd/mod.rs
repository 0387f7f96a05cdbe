//! An image in Ceph (RBD) as storage, through Ceph's own client libraries, which are loaded when
//! they are first needed.
//!
//! Calls block, and many threads call at the same time. librbd keeps no cache here: a write that
//! succeeded is stored by the cluster, in as many copies as the pool has.
//!
//! - **A writer has the image for itself** (`claim.rs`), and a reader takes no lock. Only a change
//!   of the header beside a QEMU shares it, by librbd's automatic lock.
//! - **A lost lock stays lost.** Another client gets the lock of a writer that the cluster takes
//!   for dead. The cluster then refuses this client, and every later call fails with
//!   [`IoError::LockLost`]: the image may have been changed.
//! - This module must never write with a lock that may be another client's, and no plaintext
//!   reaches it.

mod claim;
mod cluster;
mod error;
mod image;
mod library;
mod new;
mod options;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use luksmith_formats::rbd::Uri;

pub use error::{Problem, RbdError};
pub use new::{AbsentImage, NewImage};
pub use options::RbdOptions;

use super::{Allocation, Backend, Extents, Geometry, IoError, Operation, check_extents, extents};
use crate::sectors::{Cipher, Sectors};
use cluster::Pool;
use error::io_error;
use image::{Answer, Image};

/// The most bytes that one call reads, writes or zeroes. A call that is longer is divided.
const LONGEST: u64 = 64 << 20;

/// The most bytes of an image whose holes one call looks for.
const LOOKED_AT: u64 = 256 << 20;

/// The unit that the cluster writes completely or not at all, in bytes. A write to an object is
/// atomic, and no object or stripe ends within a unit.
const ATOMIC: u32 = 4096;

/// Which image of which cluster it is, whatever its pool and its name are called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ImageId {
    /// The UUID of the cluster.
    pub cluster: String,
    /// The number of the pool.
    pub pool: i64,
    /// The ID of the image.
    pub image: String,
    /// The snapshot of it.
    pub snapshot: Option<String>,
}

/// An image in Ceph, or a snapshot of one.
pub struct RbdBackend {
    image: Image,
    uri: Uri,
    size: AtomicU64,
    period: u64,
    atomic_unit: Option<u32>,
    write: bool,
    /// Whether this client had the lock, and has it no more.
    lost: AtomicBool,
}

impl RbdBackend {
    /// Connects to the cluster and opens the image.
    ///
    /// # Errors
    /// [`RbdError`], whose source is the [`Problem`].
    pub fn open(uri: &Uri, options: RbdOptions) -> Result<Self, RbdError> {
        let pool = Pool::connect(uri, &options);
        let pool = pool.map_err(|problem| RbdError::new(uri, problem))?;
        Self::open_in(Arc::new(pool), uri, &options)
    }

    fn open_in(pool: Arc<Pool>, uri: &Uri, options: &RbdOptions) -> Result<Self, RbdError> {
        let opened = Self::try_open(&pool, uri, options);
        opened.map_err(|problem| RbdError::new(uri, problem))
    }

    fn try_open(pool: &Arc<Pool>, uri: &Uri, options: &RbdOptions) -> Result<Self, Problem> {
        let write = options.write;
        let open = |snapshot| Image::open(pool.clone(), &uri.image, snapshot, write);
        let image = match uri.snapshot.as_deref() {
            Some(_) if write => return Err(Problem::Snapshot),
            Some(snapshot) => match open(Some(snapshot)) {
                Err(Problem::NoImage) if open(None).is_ok() => return Err(Problem::NoSnapshot),
                opened => opened?,
            },
            None => open(None)?,
        };
        match (write, options.beside) {
            (true, false) => claim::claim(&image)?,
            (true, true) => claim::share(&image)?,
            (false, _) => {}
        }
        let shape = image.shape()?;
        let whole = |size: u64| size.is_multiple_of(ATOMIC.into());
        Ok(Self {
            image,
            uri: uri.clone(),
            size: AtomicU64::new(shape.size),
            period: shape.object_size.saturating_mul(shape.stripe_count.max(1)),
            atomic_unit: (whole(shape.stripe_unit) && whole(shape.object_size)).then_some(ATOMIC),
            write,
            lost: AtomicBool::new(false),
        })
    }

    /// The stripe period in bytes: the size of an object, times the number of objects over which
    /// stripes are spread. librbd opens a volume whose data begins at a multiple of it.
    #[must_use]
    pub fn period(&self) -> u64 {
        self.period
    }

    /// Which image it is. `None` for an image of the old format, which has no ID.
    #[must_use]
    pub fn id(&self) -> Option<ImageId> {
        let pool = &self.image.pool;
        Some(ImageId {
            cluster: pool.cluster.fsid()?,
            pool: pool.id(),
            image: self.image.id()?,
            snapshot: self.uri.snapshot.clone(),
        })
    }

    /// The snapshot of which the image is a clone, if it is one: `POOL/IMAGE@SNAPSHOT`. A volume in
    /// it has the volume key of its parent.
    #[must_use]
    pub fn parent(&self) -> Option<String> {
        self.image.parent()
    }

    /// Makes a call of the library, unless the lock was lost before.
    fn call<T>(
        &self,
        operation: Operation,
        offset: u64,
        call: impl FnOnce(&Image) -> Result<T, Answer>,
    ) -> Result<T, IoError> {
        if self.lost.load(Ordering::Relaxed) {
            return Err(IoError::LockLost(operation));
        }
        call(&self.image).map_err(|answer| {
            // ESHUTDOWN: the cluster has blocked this client. EROFS: it has not the lock.
            if [-libc::ESHUTDOWN, -libc::EROFS].contains(&answer) && self.write {
                tracing::debug!(image = %self.uri, answer, "the lock was lost");
                self.lost.store(true, Ordering::Relaxed);
                return IoError::LockLost(operation);
            }
            io_error(answer, operation, offset)
        })
    }

    /// Makes a call for each part of a range. It has to handle all bytes of the part.
    fn over(
        &self,
        operation: Operation,
        range: Range<u64>,
        mut call: impl FnMut(&Image, Range<u64>) -> Result<usize, Answer>,
    ) -> Result<(), IoError> {
        let mut at = range.start;
        while at < range.end {
            let part = at..range.end.min(at.saturating_add(LONGEST));
            let len = part.end - part.start;
            let done = self.call(operation, at, |image| call(image, part))?;
            if done as u64 != len {
                // Another client has made the image smaller.
                return Err(io_error(-libc::EIO, operation, at));
            }
            at += len;
        }
        Ok(())
    }

    fn zero(&self, operation: Operation, range: Range<u64>) -> Result<(), IoError> {
        let len = range.end.saturating_sub(range.start);
        self.geometry().check_change(operation, range.start, len)?;
        self.over(operation, range, |image, part| {
            image.write_zeroes(part.start, index(part.end - part.start))
        })
    }
}

/// Converts a length that is within a buffer in memory.
fn index(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

impl Backend for RbdBackend {
    fn geometry(&self) -> Geometry {
        Geometry {
            size: self.size.load(Ordering::Relaxed),
            block_size: 1,
            read_only: !self.write,
        }
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        let (operation, len) = (Operation::Read, into.len() as u64);
        self.geometry().check(operation, offset, len)?;
        let buffer = into.as_mut_slice();
        self.over(operation, offset..offset + len, |image, part| {
            let within = index(part.start - offset)..index(part.end - offset);
            image.read(part.start, buffer.get_mut(within).unwrap_or_default())
        })
    }

    fn write_at(&self, offset: u64, from: &Sectors<Cipher>) -> Result<(), IoError> {
        let (operation, len) = (Operation::Write, from.len() as u64);
        self.geometry().check_change(operation, offset, len)?;
        let bytes = from.as_slice();
        self.over(operation, offset..offset + len, |image, part| {
            let within = index(part.start - offset)..index(part.end - offset);
            image.write(part.start, bytes.get(within).unwrap_or_default())
        })
    }

    fn flush(&self) -> Result<(), IoError> {
        match self.write {
            true => self.call(Operation::Flush, 0, Image::flush),
            false => Ok(()),
        }
    }

    /// Frees whole objects and writes zeroes to the rest. librbd's own discard leaves the data of a
    /// part of an object.
    fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        self.zero(Operation::Discard, range)
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<(), IoError> {
        self.zero(Operation::WriteZeroes, range)
    }

    fn atomic_unit(&self) -> Option<u32> {
        self.atomic_unit
    }

    fn resize(&self, size: u64) -> Result<(), IoError> {
        self.geometry().check_change(Operation::Resize, 0, 0)?;
        self.call(Operation::Resize, size, |image| image.resize(size))?;
        self.size.store(size, Ordering::Relaxed);
        Ok(())
    }

    fn extents(&self, range: Range<u64>) -> Result<Extents, IoError> {
        check_extents(self.geometry(), &range)?;
        let end = range.end.min(range.start.saturating_add(LOOKED_AT));
        let range = range.start..end;
        let mut found = Extents::new();
        let mut at = range.start;
        let operation = Operation::Extents;
        let allocated = match range.is_empty() {
            true => Vec::new(),
            false => self.call(operation, at, |image| image.allocated(&range))?,
        };
        for data in allocated {
            let data = data.start.clamp(at, range.end)..data.end.clamp(at, range.end);
            extents::push(&mut found, data.start - at, Allocation::Hole);
            extents::push(&mut found, data.end - data.start, Allocation::Data);
            at = data.end;
        }
        extents::push(&mut found, range.end - at, Allocation::Hole);
        Ok(found)
    }
}

impl std::fmt::Debug for RbdBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RbdBackend")
            .field("uri", &self.uri)
            .field("size", &self.size)
            .field("write", &self.write)
            .finish_non_exhaustive()
    }
}
