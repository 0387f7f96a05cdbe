//! The plaintext disk: bytes at any offset, from several threads, over storage of ciphertext.
//!
//! Everything that shows a disk to somebody is written against [`Volume`]. Only `align.rs` and `bytes.rs`
//! know partial sectors; all below them is whole sectors. A write is never seen half by a read or by another write
//! that touches the same sectors, and two writers into one sector never lose each other's bytes.
//!
//! A volume knows no header and no passphrase, and nothing here probes what it holds.

mod align;
mod allocation;
mod bytes;
mod cursor;
mod mapped;
mod ranges;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use allocation::Allocation;
pub use cursor::Cursor;
use ranges::{RangeGuard, RangeLocks};

use crate::backend::{Backend, IoError, Operation};
use crate::crypt::{IvSector, SectorCrypt};
use crate::layout::linear::Linear;
use crate::layout::{Layout, Qcow2};
use crate::sectors::{Cipher, Plain, Sectors};

/// An opened, unlocked volume.
///
/// Offsets and lengths are bytes of plaintext from the beginning of the volume. Errors of the storage
/// ([`IoError::Failed`], [`IoError::NoSpace`]) give the storage's own offset.
pub struct Volume {
    layout: Layout,
    crypt: SectorCrypt,
    size: AtomicU64,
    /// What storage is read and written in: a sector, or a block of the storage where that is larger.
    unit: u64,
    read_only: bool,
    /// Whether what an image has unencrypted is read.
    takes_plaintext: bool,
    busy: RangeLocks,
}

impl Volume {
    /// The volume whose `size` bytes of ciphertext lie in `backend` from `data_offset` on, the first sector
    /// with the IV `first_iv`.
    ///
    /// # Errors
    /// [`IoError::OutOfRange`] where the storage ends before the volume, [`IoError::Unaligned`] where `size` is
    /// not in whole sectors, or `data_offset` not in whole blocks of the storage.
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
            read_only: read_only || geometry.read_only,
            layout: Layout::Linear(Linear {
                storage: backend,
                start: data_offset,
                first_iv,
            }),
            crypt,
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

    /// The disk of an encrypted qcow2 image. A sector's IV is its place in the image.
    ///
    /// # Errors
    /// [`IoError::Unaligned`] where sectors are larger than 512 bytes: there are no such images.
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
            read_only: read_only || image.is_read_only(),
            layout: Layout::Qcow2(image),
            crypt,
            size: AtomicU64::new(size),
            takes_plaintext: false,
            busy: RangeLocks::default(),
        })
    }

    /// Reads compressed clusters of a qcow2 image, too. QEMU does not encrypt them: whoever has the storage knows what they hold, and
    /// can put there what he likes.
    ///
    /// Without it a read of such a cluster is [`IoError::Plaintext`], and so is a write of a part of one. What is written is encrypted
    /// always.
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
        self.crypt.sector_size()
    }

    /// What storage is read and written in, in bytes: a sector, or a block of the storage where that is larger.
    pub fn unit(&self) -> u32 {
        self.crypt
            .sector_size()
            .max(self.layout.storage().geometry().block_size)
    }

    /// The whole units that a range touches.
    pub fn units_around(&self, range: Range<u64>) -> Range<u64> {
        align::around(range, self.unit)
    }

    /// Whether every change is refused with [`IoError::ReadOnly`].
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Fills all of `into` with the bytes from `offset` on.
    ///
    /// # Errors
    /// [`IoError::OutOfRange`], and what the storage says; what is in `into` is of no use then.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        let _shared = self.busy.share(self.units(offset, into.len() as u64));
        self.check(Operation::Read, offset, into.len() as u64)?;
        self.read_bytes(offset, into)
    }

    /// Writes all of `from` at `offset`.
    ///
    /// # Errors
    /// [`IoError::OutOfRange`], [`IoError::ReadOnly`], and what the storage says; a part may be written then.
    pub fn write_at(&self, offset: u64, from: &[u8]) -> Result<(), IoError> {
        let _alone = self.to_write(offset, from.len() as u64)?;
        self.check_change(Operation::Write, offset, from.len() as u64)?;
        self.write_bytes(offset, align::Source::Bytes(from))
    }

    /// Makes the range read as zeroes: encrypted zeroes are written, so storage does not see which ranges are. In an image, what
    /// is a hole already stays one.
    ///
    /// # Errors
    /// As for [`write_at`](Self::write_at).
    pub fn write_zeroes(&self, range: Range<u64>) -> Result<(), IoError> {
        let len = range.end.saturating_sub(range.start);
        let _alone = self.to_write(range.start, len)?;
        self.check_change(Operation::WriteZeroes, range.start, len)?;
        match &self.layout {
            Layout::Linear(_) => self.write_bytes(range.start, align::Source::Zeroes(len)),
            Layout::Qcow2(image) => self.zero_mapped(image, range),
        }
    }

    /// Once this has returned, all that was written before has reached stable storage.
    ///
    /// # Errors
    /// What the storage says.
    pub fn flush(&self) -> Result<(), IoError> {
        if self.read_only {
            return Ok(());
        }
        match &self.layout {
            Layout::Linear(linear) => linear.storage.flush(),
            Layout::Qcow2(image) => image.flush(),
        }
    }

    /// Tells the storage that the range will be read soon. For an image nothing is told.
    ///
    /// # Errors
    /// [`IoError::OutOfRange`], and what the storage says.
    pub fn prefetch(&self, range: Range<u64>) -> Result<(), IoError> {
        let len = range.end.saturating_sub(range.start);
        self.check(Operation::Read, range.start, len)?;
        let Layout::Linear(linear) = &self.layout else {
            return Ok(());
        };
        let units = self.units_around(range);
        // The last block of the storage may reach over the end of the volume, and over its own.
        let end = (linear.start + units.end).min(linear.storage.geometry().size);
        let start = (linear.start + units.start).min(end);
        linear.storage.prefetch(start..end)
    }

    /// Gives up the sectors that lie wholly inside the range; the others keep their bytes.
    ///
    /// Until it is written again, a given-up sector reads as what the cipher makes of the storage's answer.
    /// Where discarded storage reads as zeroes (files and memory) that is always the same bytes, which look
    /// random: neither zeroes nor what was there.
    ///
    /// In an image, whole clusters are given up, and read as zeroes.
    ///
    /// # Errors
    /// [`IoError::Unsupported`] where the storage cannot, and nothing has changed; [`IoError::OutOfRange`],
    /// [`IoError::ReadOnly`], and what the storage says.
    pub fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        let len = range.end.saturating_sub(range.start);
        let _alone = self.busy.exclude(self.units(range.start, len));
        self.check_change(Operation::Discard, range.start, len)?;
        match &self.layout {
            Layout::Linear(linear) => {
                let whole = align::inside(&range, self.unit);
                if whole.is_empty() {
                    return Ok(());
                }
                let (start, end) = (linear.start + whole.start, linear.start + whole.end);
                linear.storage.discard(start..end)
            }
            Layout::Qcow2(image) => image.unlink(self.clusters_inside(image, &range)),
        }
    }

    /// Reads whole sectors without copying them: `offset` and `len` are multiples of the sector size, and of
    /// the storage's block size.
    ///
    /// # Errors
    /// [`IoError::Unaligned`], [`IoError::OutOfRange`], and what the storage says.
    pub fn read_sectors(&self, offset: u64, len: usize) -> Result<Sectors<Plain>, IoError> {
        let _shared = self.busy.share(self.units(offset, len as u64));
        self.check(Operation::Read, offset, len as u64)?;
        self.check_units(Operation::Read, offset, len as u64)?;
        self.load(offset, len)
    }

    /// Writes whole sectors without copying them; multiples as for [`read_sectors`](Self::read_sectors).
    ///
    /// # Errors
    /// [`IoError::Unaligned`], [`IoError::OutOfRange`], [`IoError::ReadOnly`], and what the storage says.
    pub fn write_sectors(&self, offset: u64, sectors: Sectors<Plain>) -> Result<(), IoError> {
        let len = sectors.len() as u64;
        let _alone = self.to_write(offset, len)?;
        self.check_change(Operation::Write, offset, len)?;
        self.check_units(Operation::Write, offset, len)?;
        self.store(offset, sectors)
    }

    /// What is stored at the beginning of a range, and how many of its bytes that is true of: in an image there are holes.
    ///
    /// # Errors
    /// [`IoError::OutOfRange`], and what the storage says.
    pub fn allocation(&self, range: Range<u64>) -> Result<(u64, Allocation), IoError> {
        let len = range.end.saturating_sub(range.start);
        let _shared = self.busy.share(self.units(range.start, len));
        self.check(Operation::Read, range.start, len)?;
        match &self.layout {
            Layout::Linear(_) => Ok((len, Allocation::Data)),
            Layout::Qcow2(image) => allocation::allocation(image, range),
        }
    }

    /// Changes the size of the storage and of the volume with it. Bytes that come in this way read as
    /// discarded ones do. Storage of fixed size stays as it is, and must be large enough.
    ///
    /// # Errors
    /// [`IoError::ReadOnly`], [`IoError::Unaligned`] where `size` is not in whole sectors, and what the storage
    /// says.
    pub fn resize(&self, size: u64) -> Result<(), IoError> {
        let _alone = self.busy.exclude(0..u64::MAX);
        if self.read_only {
            return Err(IoError::ReadOnly(Operation::Resize));
        }
        let linear = match &self.layout {
            Layout::Linear(linear) => linear,
            Layout::Qcow2(image) => {
                image.resize(size)?;
                self.size.store(size, Ordering::Release);
                return Ok(());
            }
        };
        let end = self.storage_end(linear, size)?;
        match linear.storage.resize(end) {
            Err(IoError::Unsupported(_)) => {}
            result => result?,
        }
        self.adopt(size)
    }

    /// Takes up a size that the storage already has room for.
    ///
    /// # Errors
    /// [`IoError::OutOfRange`] where it has not, [`IoError::Unaligned`] where `size` is not in whole sectors.
    pub fn set_size(&self, size: u64) -> Result<(), IoError> {
        let _alone = self.busy.exclude(0..u64::MAX);
        self.adopt(size)
    }

    fn adopt(&self, size: u64) -> Result<(), IoError> {
        let (end, storage, first) = match &self.layout {
            Layout::Linear(linear) => {
                let end = self.storage_end(linear, size)?;
                (end, linear.storage.geometry().size, linear.start)
            }
            Layout::Qcow2(image) => (size, image.size(), 0),
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

    /// Where the last unit of a volume of this size ends in storage.
    fn storage_end(&self, linear: &Linear, size: u64) -> Result<u64, IoError> {
        let (operation, offset, len) = (Operation::Resize, linear.start, size);
        let unit = self.crypt.sector_size();
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

    /// Checks that `len` bytes at `offset` lie inside the volume.
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

    /// The lock for a write: over the units, and over whole clusters where some of them will move.
    fn to_write(&self, offset: u64, len: u64) -> Result<RangeGuard<'_>, IoError> {
        let alone = self.busy.exclude(self.units(offset, len));
        match &self.layout {
            Layout::Linear(_) => Ok(alone),
            Layout::Qcow2(image) => self.alone_in_clusters(image, alone, offset, len),
        }
    }

    /// The most that is encrypted and written at once.
    fn piece(&self) -> u64 {
        match &self.layout {
            Layout::Linear(_) => align::PIECE,
            // A new cluster is written as a whole.
            Layout::Qcow2(image) => align::PIECE.max(image.cluster_size()),
        }
    }

    /// Reads whole units, locked and checked by the caller.
    fn load(&self, offset: u64, len: usize) -> Result<Sectors<Plain>, IoError> {
        match &self.layout {
            Layout::Linear(linear) => {
                let (at, iv) = linear.place(offset);
                self.load_at(&*linear.storage, at, iv, len)
            }
            Layout::Qcow2(image) => self.load_mapped(image, offset, len),
        }
    }

    /// Writes whole units, locked and checked by the caller.
    fn store(&self, offset: u64, sectors: Sectors<Plain>) -> Result<(), IoError> {
        match &self.layout {
            Layout::Linear(linear) => {
                let (at, iv) = linear.place(offset);
                self.store_at(&*linear.storage, at, iv, sectors)
            }
            Layout::Qcow2(image) => self.store_mapped(image, offset, sectors),
        }
    }

    fn load_at(
        &self,
        storage: &dyn Backend,
        at: u64,
        iv: IvSector,
        len: usize,
    ) -> Result<Sectors<Plain>, IoError> {
        let mut sectors = Sectors::<Cipher>::with_len(len);
        storage.read_at(at, &mut sectors)?;
        Ok(self.crypt.decrypt(iv, sectors))
    }

    fn store_at(
        &self,
        storage: &dyn Backend,
        at: u64,
        iv: IvSector,
        sectors: Sectors<Plain>,
    ) -> Result<(), IoError> {
        let sectors = self.crypt.encrypt(iv, sectors);
        storage.write_at(at, &sectors)
    }
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volume")
            .field("crypt", &self.crypt)
            .field("layout", &self.layout)
            .field("size", &self.size())
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}
