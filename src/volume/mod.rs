//! The plaintext disk: reads and writes of bytes at any offset, from several threads, over storage
//! of ciphertext.
//!
//! All code that gives clients a disk uses [`Volume`]. Only `align.rs` and `bytes.rs` handle
//! partial sectors; everything below them handles whole sectors. Requests that touch the same
//! sectors are atomic with respect to each other: no request sees half of a write, and two writes
//! to parts of one sector never lose each other's bytes.
//!
//! A volume knows nothing of headers and passphrases, and never interprets its own content.

mod align;
mod allocation;
mod bytes;
mod cursor;
mod mapped;
mod ranges;
mod tagged;
mod two_sides;
mod windows;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use cursor::Cursor;
pub(crate) use ranges::{RangeGuard, RangeLocks};

pub use crate::backend::Allocation;
use crate::backend::{Backend, IoError, Operation};
use crate::crypt::{IvSector, SectorCrypt};
pub use crate::crypt::{Window, Windows};
use crate::layout::linear::Linear;
use crate::layout::side::{CipherRun, Side};
use crate::layout::{Layout, Qcow2};
use crate::sectors::{Cipher, Plain, Sectors};

/// An opened, unlocked volume.
///
/// Offsets and lengths are bytes of plaintext, from the start of the volume. Errors of the storage
/// ([`IoError::Failed`], [`IoError::NoSpace`]) have offsets of the storage.
pub struct Volume {
    layout: Layout,
    size: AtomicU64,
    /// The unit of access to the storage, in bytes: a sector, or a block of the storage if that is
    /// larger.
    unit: u64,
    read_only: bool,
    /// Whether compressed clusters, which are not encrypted, are read.
    takes_plaintext: bool,
    busy: RangeLocks,
}

impl Volume {
    /// A volume whose `size` bytes of ciphertext start at `data_offset` of `backend`. The first
    /// sector has the IV `first_iv`.
    ///
    /// # Errors
    /// Returns [`IoError::OutOfRange`] if the storage ends before the volume, and
    /// [`IoError::Unaligned`] if `size` is not a whole number of sectors or `data_offset` not a
    /// whole number of blocks of the storage.
    pub fn new(
        backend: Arc<dyn Backend>,
        crypt: SectorCrypt,
        data_offset: u64,
        size: u64,
        first_iv: IvSector,
        read_only: bool,
    ) -> Result<Self, IoError> {
        let geometry = backend.geometry();
        let volume = Self {
            unit: u64::from(crypt.sector_size().max(geometry.block_size)),
            read_only: read_only || geometry.read_only || crypt.is_only_read(),
            layout: Layout::Linear(Linear {
                storage: backend,
                side: Side {
                    crypt,
                    start: data_offset,
                    first_iv,
                },
            }),
            size: AtomicU64::new(0),
            takes_plaintext: false,
            busy: RangeLocks::default(),
        };
        if !data_offset.is_multiple_of(geometry.block_size.into()) {
            let unit = geometry.block_size;
            return Err(IoError::Unaligned {
                operation: Operation::Read,
                offset: data_offset,
                len: size,
                unit,
            });
        }
        volume.set_size(size)?;
        Ok(volume)
    }

    /// The disk of an encrypted qcow2 image. The IV of a sector is its offset in the image.
    ///
    /// # Errors
    /// Returns [`IoError::Unaligned`] if sectors are not 512 bytes, since no such images exist.
    pub fn in_qcow2(
        image: Arc<Qcow2>,
        crypt: SectorCrypt,
        read_only: bool,
    ) -> Result<Self, IoError> {
        let size = image.size();
        if crypt.sector_size() != 512 {
            return Err(IoError::Unaligned {
                operation: Operation::Read,
                offset: 0,
                len: size,
                unit: crypt.sector_size(),
            });
        }
        let block_size = image.storage().geometry().block_size;
        Ok(Self {
            unit: u64::from(crypt.sector_size().max(block_size)),
            read_only: read_only || image.is_read_only() || crypt.is_only_read(),
            layout: Layout::Qcow2(image, crypt),
            size: AtomicU64::new(size),
            takes_plaintext: false,
            busy: RangeLocks::default(),
        })
    }

    /// Also reads compressed clusters of a qcow2 image.
    ///
    /// QEMU does not encrypt them, so anyone who can read the storage sees their content, and
    /// anyone who can write to it can put chosen plaintext there. Without this, a read of such a
    /// cluster and a write to a part of it fail with [`IoError::Plaintext`]. Everything that is
    /// written is encrypted in any case.
    #[must_use]
    pub fn with_compressed_plaintext(mut self) -> Self {
        self.takes_plaintext = true;
        self
    }

    /// The size in bytes.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// The size of a sector, in bytes.
    pub fn sector_size(&self) -> u32 {
        self.layout.sector_size()
    }

    /// The unit of access to the storage, in bytes: a sector, or a block of the storage if that is
    /// larger.
    pub fn unit(&self) -> u32 {
        u32::try_from(self.unit).unwrap_or(u32::MAX)
    }

    /// The range, widened to whole units.
    pub fn units_around(&self, range: Range<u64>) -> Range<u64> {
        align::around(range, self.unit)
    }

    /// Whether every change is refused with [`IoError::ReadOnly`]. It is if the caller or the
    /// storage asked for that, or if volumes with this cipher, or with tags, are only read.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Fills all of `into` with the bytes from `offset` on.
    ///
    /// # Errors
    /// Returns [`IoError::OutOfRange`] or an error of the storage. The content of `into` is then
    /// unspecified.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        self.read_into(offset, Windows::new(&[into.into()]))
    }

    /// Writes all of `from` at `offset`.
    ///
    /// # Errors
    /// Returns [`IoError::OutOfRange`], [`IoError::ReadOnly`] or an error of the storage. After an
    /// error of the storage, a part may be written.
    pub fn write_at(&self, offset: u64, from: &[u8]) -> Result<(), IoError> {
        let _lock = self.to_write(offset, from.len() as u64)?;
        self.check_change(Operation::Write, offset, from.len() as u64)?;
        self.write_bytes(offset, align::Source::Bytes(from))
    }

    /// Makes the range read as zeroes. Encrypted zeroes are written, so the storage does not see
    /// which ranges are zero. Existing holes of an image stay holes.
    ///
    /// # Errors
    /// The same as for [`write_at`](Self::write_at).
    pub fn write_zeroes(&self, range: Range<u64>) -> Result<(), IoError> {
        let len = range.end.saturating_sub(range.start);
        let _lock = self.to_write(range.start, len)?;
        self.check_change(Operation::WriteZeroes, range.start, len)?;
        match &self.layout {
            Layout::Linear(_) | Layout::TwoSides(_) | Layout::Tagged(_) => {
                self.write_bytes(range.start, align::Source::Zeroes(len))
            }
            Layout::Qcow2(image, _) => self.zero_mapped(image, range),
        }
    }

    /// Makes everything durable that was written before this call.
    ///
    /// # Errors
    /// Returns an error of the storage.
    pub fn flush(&self) -> Result<(), IoError> {
        if self.read_only {
            return Ok(());
        }
        match &self.layout {
            Layout::Linear(linear) => linear.storage.flush(),
            Layout::TwoSides(sides) => sides.flush(),
            Layout::Qcow2(image, _) => image.flush(),
            Layout::Tagged(_) => Ok(()),
        }
    }

    /// Tells the storage that the range will be read soon. For an image this does nothing.
    ///
    /// # Errors
    /// Returns [`IoError::OutOfRange`] or an error of the storage.
    pub fn prefetch(&self, range: Range<u64>) -> Result<(), IoError> {
        let len = range.end.saturating_sub(range.start);
        self.check(Operation::Read, range.start, len)?;
        let Some(first) = self.layout.start() else {
            return Ok(());
        };
        let (units, storage) = (self.units_around(range), self.layout.storage());
        // The last unit may extend past the end of the volume, and of the storage.
        let end = (first + units.end).min(storage.geometry().size);
        let start = (first + units.start).min(end);
        storage.prefetch(start..end)
    }

    /// Discards (TRIM) the sectors that are completely inside of the range. Other sectors keep
    /// their bytes.
    ///
    /// Until it is written again, a discarded sector reads as the decryption of what the storage
    /// returns. If discarded storage reads as zeroes (files and memory), these are always the same
    /// bytes, which look random. They are neither zeroes nor the old bytes. In an image, whole
    /// clusters are discarded, and read as zeroes. While a volume is reencrypted, nothing is
    /// discarded.
    ///
    /// # Errors
    /// Returns [`IoError::Unsupported`] if the storage cannot discard; nothing has changed then.
    /// Otherwise returns [`IoError::OutOfRange`], [`IoError::ReadOnly`] or an error of the storage.
    pub fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        let len = range.end.saturating_sub(range.start);
        let _lock = self.busy.exclude(self.units(range.start, len));
        self.check_change(Operation::Discard, range.start, len)?;
        match &self.layout {
            Layout::Qcow2(image, _) => image.unlink(self.clusters_inside(image, &range)),
            Layout::TwoSides(sides) if sides.keeps_space() => Ok(()),
            layout => {
                let whole = align::inside(&range, self.unit);
                if whole.is_empty() {
                    return Ok(());
                }
                let first = layout.start().unwrap_or(0);
                let (start, end) = (first + whole.start, first + whole.end);
                layout.storage().discard(start..end)
            }
        }
    }

    /// Whether discarded ranges read as zeroes, as those of images do.
    pub fn discards_to_zeroes(&self) -> bool {
        matches!(self.layout, Layout::Qcow2(..))
    }

    /// Reads whole sectors without copying them. `offset` and `len` are multiples of
    /// [`unit`](Self::unit).
    ///
    /// # Errors
    /// Returns [`IoError::Unaligned`], [`IoError::OutOfRange`] or an error of the storage.
    pub fn read_sectors(&self, offset: u64, len: usize) -> Result<Sectors<Plain>, IoError> {
        let _lock = self.busy.share(self.units(offset, len as u64));
        self.check(Operation::Read, offset, len as u64)?;
        self.check_units(Operation::Read, offset, len as u64)?;
        self.load(offset, len)
    }

    /// Writes whole sectors without copying them. `offset` and the length are multiples of
    /// [`unit`](Self::unit).
    ///
    /// # Errors
    /// Returns [`IoError::Unaligned`], [`IoError::OutOfRange`], [`IoError::ReadOnly`] or an error
    /// of the storage.
    pub fn write_sectors(&self, offset: u64, sectors: Sectors<Plain>) -> Result<(), IoError> {
        let len = sectors.len() as u64;
        let _lock = self.to_write(offset, len)?;
        self.check_change(Operation::Write, offset, len)?;
        self.check_units(Operation::Write, offset, len)?;
        self.store(offset, sectors)
    }

    /// The allocation at the start of a range, and the number of bytes that have it. Only images
    /// have holes.
    ///
    /// # Errors
    /// Returns [`IoError::OutOfRange`] or an error of the storage.
    pub fn allocation(&self, range: Range<u64>) -> Result<(u64, Allocation), IoError> {
        let len = range.end.saturating_sub(range.start);
        let _lock = self.busy.share(self.units(range.start, len));
        self.check(Operation::Read, range.start, len)?;
        match &self.layout {
            Layout::Linear(_) | Layout::TwoSides(_) | Layout::Tagged(_) => {
                Ok((len, Allocation::Data))
            }
            Layout::Qcow2(image, _) => allocation::allocation(image, range),
        }
    }

    /// Changes the size of the storage and of the volume. New bytes read as discarded ones do.
    /// Storage of fixed size is not changed, and has to be large enough.
    ///
    /// # Errors
    /// Returns [`IoError::Unsupported`] while the volume is reencrypted.
    /// Returns [`IoError::ReadOnly`], [`IoError::Unaligned`] if `size` is not a whole number of
    /// sectors, or an error of the storage.
    pub fn resize(&self, size: u64) -> Result<(), IoError> {
        let _lock = self.busy.exclude(0..u64::MAX);
        if self.read_only {
            return Err(IoError::ReadOnly(Operation::Resize));
        }
        let linear = match &self.layout {
            Layout::Linear(linear) => linear,
            Layout::Qcow2(image, _) => {
                image.resize(size)?;
                self.size.store(size, Ordering::Release);
                return Ok(());
            }
            Layout::TwoSides(_) | Layout::Tagged(_) => {
                return Err(IoError::Unsupported(Operation::Resize));
            }
        };
        let end = self.storage_end(linear.side.start, size)?;
        match linear.storage.resize(end) {
            Err(IoError::Unsupported(_)) => {}
            result => result?,
        }
        self.adopt(size)
    }

    /// Changes the size of the volume only. The storage is already large enough.
    ///
    /// # Errors
    /// Returns [`IoError::OutOfRange`] if the storage is too small, and [`IoError::Unaligned`] if
    /// `size` is not a whole number of sectors.
    pub fn set_size(&self, size: u64) -> Result<(), IoError> {
        let _lock = self.busy.exclude(0..u64::MAX);
        self.adopt(size)
    }

    fn adopt(&self, size: u64) -> Result<(), IoError> {
        let (end, storage, first) = match &self.layout {
            Layout::Qcow2(image, _) => (size, image.size(), 0),
            Layout::Tagged(tagged) => (size, tagged.places.size(), 0),
            layout => {
                let first = layout.start().unwrap_or(0);
                let end = self.storage_end(first, size)?;
                (end, layout.storage().geometry().size, first)
            }
        };
        if end > storage {
            let (operation, offset) = (Operation::Resize, first);
            return Err(IoError::OutOfRange {
                operation,
                offset,
                len: end - offset,
                size: storage,
            });
        }
        self.size.store(size, Ordering::Release);
        Ok(())
    }

    /// The offset in the storage at which the last unit ends of a volume of this size, which begins
    /// at `first`.
    fn storage_end(&self, first: u64, size: u64) -> Result<u64, IoError> {
        let (operation, offset, len) = (Operation::Resize, first, size);
        let unit = self.layout.sector_size();
        if !size.is_multiple_of(unit.into()) {
            return Err(IoError::Unaligned {
                operation,
                offset,
                len,
                unit,
            });
        }
        let end = size
            .checked_next_multiple_of(self.unit)
            .and_then(|len| offset.checked_add(len));
        end.ok_or(IoError::OutOfRange {
            operation,
            offset,
            len,
            size: u64::MAX,
        })
    }

    /// Checks that `len` bytes at `offset` are inside of the volume.
    pub(crate) fn check(&self, operation: Operation, offset: u64, len: u64) -> Result<(), IoError> {
        let size = self.size();
        match offset.checked_add(len) {
            Some(end) if end <= size => Ok(()),
            _ => Err(IoError::OutOfRange {
                operation,
                offset,
                len,
                size,
            }),
        }
    }

    fn check_change(&self, operation: Operation, offset: u64, len: u64) -> Result<(), IoError> {
        if self.read_only {
            return Err(IoError::ReadOnly(operation));
        }
        if let Layout::TwoSides(sides) = &self.layout {
            sides.check(operation)?;
        }
        self.check(operation, offset, len)
    }

    fn check_units(&self, operation: Operation, offset: u64, len: u64) -> Result<(), IoError> {
        if offset.is_multiple_of(self.unit) && len.is_multiple_of(self.unit) {
            return Ok(());
        }
        let unit = u32::try_from(self.unit).unwrap_or(u32::MAX);
        Err(IoError::Unaligned {
            operation,
            offset,
            len,
            unit,
        })
    }

    fn units(&self, offset: u64, len: u64) -> Range<u64> {
        self.units_around(offset..offset.saturating_add(len))
    }

    /// Takes the lock for a write: on the units, or on whole clusters if some of them get new
    /// places.
    fn to_write(&self, offset: u64, len: u64) -> Result<RangeGuard<'_>, IoError> {
        let lock = self.busy.exclude(self.units(offset, len));
        match &self.layout {
            Layout::Linear(_) | Layout::TwoSides(_) | Layout::Tagged(_) => Ok(lock),
            Layout::Qcow2(image, _) => self.lock_clusters(image, lock, offset, len),
        }
    }

    /// The largest piece that is encrypted and written at once.
    fn piece(&self) -> u64 {
        let piece = match self.layout.storage().is_remote() {
            true => align::REMOTE_PIECE,
            false => align::PIECE,
        };
        match &self.layout {
            Layout::Linear(_) | Layout::TwoSides(_) | Layout::Tagged(_) => piece,
            // A new cluster is written as a whole.
            Layout::Qcow2(image, _) => piece.max(image.cluster_size()),
        }
    }

    /// Reads whole units, locked and checked by the caller.
    fn load(&self, offset: u64, len: usize) -> Result<Sectors<Plain>, IoError> {
        match &self.layout {
            Layout::Linear(linear) => load_run(linear.run(offset), len),
            Layout::Qcow2(image, crypt) => self.load_mapped(image, crypt, offset, len),
            Layout::TwoSides(sides) => self.load_sides(sides, offset, len),
            Layout::Tagged(tagged) => self.load_tagged(tagged, offset, len),
        }
    }

    /// Writes whole units, locked and checked by the caller.
    fn store(&self, offset: u64, sectors: Sectors<Plain>) -> Result<(), IoError> {
        match &self.layout {
            Layout::Linear(linear) => store_run(linear.run(offset), sectors),
            Layout::Qcow2(image, crypt) => self.store_mapped(image, crypt, offset, sectors),
            Layout::TwoSides(sides) => self.store_sides(sides, offset, sectors),
            Layout::Tagged(_) => Err(IoError::ReadOnly(Operation::Write)),
        }
    }
}

fn load_run(run: CipherRun<'_>, len: usize) -> Result<Sectors<Plain>, IoError> {
    let mut sectors = Sectors::<Cipher>::with_len(len);
    run.storage.read_at(run.at, &mut sectors)?;
    Ok(run.crypt.decrypt(run.iv, sectors))
}

fn store_run(run: CipherRun<'_>, sectors: Sectors<Plain>) -> Result<(), IoError> {
    let sectors = run.crypt.encrypt(run.iv, sectors);
    run.storage.write_at(run.at, &sectors)
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volume")
            .field("layout", &self.layout)
            .field("size", &self.size())
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}
