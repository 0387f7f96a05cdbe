//! A regular file or a block device as storage.
//!
//! Other kinds of files, such as a FIFO, a terminal or a directory, are refused without blocking.
//! The file is locked until the backend is dropped, as [`super::lock`] describes.

mod room;
mod units;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{Advice, FallocateFlags, OFlags, SeekFrom};

use units::{direct_block_size, hole_unit};

use super::lock::{self, Access, Busy, ImageLock, LockError};
use super::{Backend, Extents, Geometry, IoError, Operation, check_extents, holes};
use crate::sectors::{ALIGNMENT, Cipher, Sectors};
use crate::sys::block;
use crate::sys::folder::{Folder, ForeignLink, same_file};

/// The size of one prefetch call in bytes. The kernel reads no more than its read-ahead size per
/// call, which is at least 128 KiB by default.
const PREFETCHED: u64 = 128 << 10;

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    write: bool,
    beside: bool,
    header: bool,
    direct: bool,
    create_new: bool,
    force_share: bool,
    no_follow: bool,
}

impl OpenOptions {
    /// Options for reading through the page cache, with a lock that other readers share.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// Opens the file for writing too, with an exclusive lock.
        write: bool,

        /// With [`write`](Self::write), opens the file beside a QEMU that has it open, with the
        /// lock of [`Access::Beside`].
        beside: bool,

        /// Opens the file with the lock of [`Access::Header`], for reading a header while a QEMU
        /// writes guest data.
        header: bool,

        /// Opens the file with `O_DIRECT`: reads and writes bypass the page cache, in whole blocks
        /// of the device.
        direct: bool,

        /// Creates the file with mode 0600, and opens it for writing. An existing file is refused.
        create_new: bool,

        /// Takes no lock, and ignores the locks of others. A read may see half of another program's
        /// change. This cannot be combined with [`write`](Self::write).
        force_share: bool,

        /// Refuses a path whose last component is a symbolic link.
        no_follow: bool,
    }

    /// Whether another part of the file can be read and written through the same descriptor.
    pub(crate) fn can_share(&self) -> bool {
        !(self.beside || self.direct || self.create_new || self.no_follow)
    }

    /// Whether the file is opened without a lock.
    pub(crate) fn is_shared(&self) -> bool {
        self.force_share
    }

    /// Whether the file is opened beside a QEMU that has it open.
    #[cfg(feature = "rbd")]
    pub(crate) fn is_beside(&self) -> bool {
        self.beside
    }

    /// Whether the file is opened for writing.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.write || self.create_new
    }
}

/// Why a file could not be opened as storage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file does not exist.
    #[error("{} does not exist", .0.display())]
    NotFound(PathBuf),
    /// The file exists, and should have been created.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// The path is a symbolic link, and the options refuse those.
    #[error("{} is a symbolic link", .0.display())]
    Symlink(PathBuf),
    /// The path leads through a symbolic link that another user could have made. Such a link is
    /// followed only to read.
    #[error("{} is not opened for writing: {link}", .path.display())]
    ForeignLink {
        /// The path.
        path: PathBuf,
        /// The link, and why it is not followed.
        link: String,
    },
    /// The user has no permission.
    #[error("no permission to open {}", .0.display())]
    PermissionDenied(PathBuf),
    /// It is neither a regular file nor a block device.
    #[error("{} is {kind}, not a regular file or block device", .path.display())]
    NotStorage {
        /// The path.
        path: PathBuf,
        /// What it is, with an article.
        kind: &'static str,
    },
    /// Another program uses it.
    #[error("{} is busy", .path.display())]
    Busy {
        /// The path.
        path: PathBuf,
        /// The lock that conflicts, and the processes that hold it.
        source: Busy,
    },
    /// No other program has it open, and it should have been opened beside a QEMU.
    #[error("no other program has {} open", .0.display())]
    NotOpen(PathBuf),
    /// Writing without a lock is not supported.
    #[error("{} cannot be opened for writing without a lock", .0.display())]
    UnlockedWrite(PathBuf),
    /// The file system does not support direct I/O.
    #[error("{} cannot be opened for direct i/o", .0.display())]
    NoDirect(PathBuf),
    /// The system reported another error.
    #[error("opening {} failed", .path.display())]
    Failed {
        /// The path.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

/// A regular file or block device, opened and locked.
#[derive(Debug)]
pub struct FileBackend {
    file: File,
    path: PathBuf,
    size: AtomicU64,
    block_size: u32,
    read_only: bool,
    is_device: bool,
    /// The unit in which the system zeroes and discards, in bytes: the sector of a device, or 1 for
    /// files.
    hole_unit: u64,
    /// Whether a flush has failed. The kernel reports a failed write-back only once, and then marks
    /// the pages as clean.
    flush_failed: AtomicBool,
    lock: Option<ImageLock>,
}

impl Drop for FileBackend {
    fn drop(&mut self) {
        if self.lock.is_some() {
            lock::release(&self.file);
        }
    }
}

impl FileBackend {
    /// Opens `path`.
    ///
    /// # Errors
    /// Returns a [`FileError`], which has a variant for each reason.
    pub fn open(path: impl AsRef<Path>, options: OpenOptions) -> Result<Self, FileError> {
        let path = path.as_ref();
        let write = options.writes();
        if write && options.force_share {
            return Err(FileError::UnlockedWrite(path.into()));
        }
        let failed = |source| FileError::Failed {
            path: path.into(),
            source,
        };
        let (file, is_device, lock) = loop {
            let file = open_file(path, options, write)?;
            let is_device = storage_kind(path, &file)?;
            clear_nonblocking(&file).map_err(failed)?;
            if options.force_share {
                break (file, is_device, None);
            }
            let lock = lock(path, &file, access(options, write))?;
            // If the file was replaced since it was opened, a change of the old file would be lost.
            if is_still_at(path, &file).map_err(failed)? {
                break (file, is_device, Some(lock));
            }
        };
        Self::opened(file, path, options, is_device, lock)
    }

    /// Storage in a file that is open for reading, and for writing if `options` say that it is
    /// written. Options of opening have no effect. `path` is for messages.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_file(file: File, path: &Path, options: OpenOptions) -> Result<Self, FileError> {
        let write = options.writes();
        if write && options.force_share {
            return Err(FileError::UnlockedWrite(path.into()));
        }
        let is_device = storage_kind(path, &file)?;
        clear_nonblocking(&file).map_err(|source| FileError::Failed {
            path: path.into(),
            source,
        })?;
        let lock = match options.force_share {
            true => None,
            false => Some(lock(path, &file, access(options, write))?),
        };
        Self::opened(file, path, options, is_device, lock)
    }

    fn opened(
        file: File,
        path: &Path,
        options: OpenOptions,
        is_device: bool,
        lock: Option<ImageLock>,
    ) -> Result<Self, FileError> {
        let size = size_of(&file).map_err(|source| FileError::Failed {
            path: path.into(),
            source,
        })?;
        let block_size = if options.direct {
            direct_block_size(&file, is_device)
        } else {
            1
        };
        Ok(Self {
            path: path.into(),
            size: size.into(),
            block_size,
            read_only: !options.writes(),
            is_device,
            hole_unit: hole_unit(&file, is_device),
            flush_failed: AtomicBool::new(false),
            lock,
            file,
        })
    }

    /// The path with which it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder in which the open file has its name, and the name. It need not be the path with
    /// which it was opened, which may lead elsewhere by now.
    pub(crate) fn place(&self) -> io::Result<(Folder, OsString)> {
        Folder::of_open(&self.file).or_else(|_| {
            // There is no `/proc`, or the file was reached through that of another process.
            let (folder, name) = Folder::resolve(&self.path)?;
            match folder.look(&name)? {
                Some(found) if same_file(&found, &self.file.metadata()?) => Ok((folder, name)),
                _ => Err(io::ErrorKind::NotFound.into()),
            }
        })
    }

    /// What the kernel says of the open file.
    pub(crate) fn about(&self) -> io::Result<std::fs::Metadata> {
        self.file.metadata()
    }

    /// The open file, for plain data in another part of it. The locks stay with this backend.
    pub(crate) fn descriptor(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Whether this is a block device, whose size is fixed.
    pub fn is_device(&self) -> bool {
        self.is_device
    }

    /// The size of the sectors of a block device, in bytes.
    pub fn sector_size(&self) -> Option<u32> {
        self.is_device.then(|| u32::try_from(self.hole_unit).ok())?
    }

    /// The device of a partition that the kernel has on this block device and that shares bytes
    /// with this range. The kernel keeps its contents in other pages of its cache than those of
    /// this device.
    pub(crate) fn partition_within(&self, range: &Range<u64>) -> Option<PathBuf> {
        if !self.is_device {
            return None;
        }
        block::partition_within(self.about().ok()?.rdev(), range)
    }

    /// The part of `range` that the system can zero or discard. If there is none, it is empty, at
    /// the end of `range`.
    fn hole_within(&self, range: &Range<u64>) -> Range<u64> {
        let unit = self.hole_unit;
        let end = range.end - range.end % unit;
        match range.start.checked_next_multiple_of(unit) {
            Some(start) if start < end => start..end,
            _ => range.end..range.end,
        }
    }

    fn check_zeroing(&self, operation: Operation, range: &Range<u64>) -> Result<(), IoError> {
        let len = range.end.saturating_sub(range.start);
        self.geometry().check_change(operation, range.start, len)
    }
}

impl Backend for FileBackend {
    fn geometry(&self) -> Geometry {
        Geometry {
            size: self.size.load(Ordering::Acquire),
            block_size: self.block_size,
            read_only: self.read_only,
        }
    }

    fn atomic_unit(&self) -> Option<u32> {
        let size = self
            .is_device
            .then(|| rustix::fs::ioctl_blkpbszget(&self.file));
        size?.ok()
    }

    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        let (operation, len) = (Operation::Read, into.len() as u64);
        self.geometry().check(operation, offset, len)?;
        self.file
            .read_exact_at(into.as_mut_slice(), offset)
            .map_err(|error| match error.kind() {
                // Another program has truncated the file.
                io::ErrorKind::UnexpectedEof => {
                    let size = size_of(&self.file).unwrap_or(0);
                    let message = format!("the file was cut to {size} bytes");
                    IoError::Failed {
                        operation,
                        offset,
                        source: io::Error::new(io::ErrorKind::UnexpectedEof, message),
                    }
                }
                _ => IoError::from_os(operation, offset, error),
            })
    }

    fn write_at(&self, offset: u64, from: &Sectors<Cipher>) -> Result<(), IoError> {
        self.geometry()
            .check_change(Operation::Write, offset, from.len() as u64)?;
        let written = self.file.write_all_at(from.as_slice(), offset);
        written.map_err(|error| IoError::from_os(Operation::Write, offset, error))
    }

    /// After a flush has failed, every later one fails: data written before it may be lost, and a
    /// later flush cannot tell.
    fn flush(&self) -> Result<(), IoError> {
        let synced = if self.flush_failed.load(Ordering::Acquire) {
            Err(io::Error::other("an earlier flush has failed"))
        } else {
            self.file.sync_data()
        };
        synced.map_err(|error| {
            self.flush_failed.store(true, Ordering::Release);
            IoError::from_os(Operation::Flush, 0, error)
        })
    }

    fn extents(&self, range: Range<u64>) -> Result<Extents, IoError> {
        check_extents(self.geometry(), &range)?;
        holes::extents(&self.file, range)
    }

    /// Partial sectors of a device at the ends of the range are not discarded.
    fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        self.check_zeroing(Operation::Discard, &range)?;
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        self.fallocate(Operation::Discard, punch, self.hole_within(&range))
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<(), IoError> {
        let operation = Operation::WriteZeroes;
        self.check_zeroing(operation, &range)?;
        let hole = self.hole_within(&range);
        let zero = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        match self.fallocate(operation, zero, hole.clone()) {
            Err(IoError::Unsupported(_)) => write_zero_bytes(self, range),
            Err(error) => Err(error),
            Ok(()) => {
                write_zero_bytes(self, range.start..hole.start)?;
                write_zero_bytes(self, hole.end..range.end)
            }
        }
    }

    fn reserve(&self, range: Range<u64>) -> Result<(), IoError> {
        self.check_zeroing(Operation::Reserve, &range)?;
        if self.is_device {
            // The kernel would say so too, but not for parts of sectors: it checks these first.
            return Err(IoError::Unsupported(Operation::Reserve));
        }
        self.fallocate(Operation::Reserve, FallocateFlags::KEEP_SIZE, range)
    }

    fn resize(&self, size: u64) -> Result<(), IoError> {
        if self.read_only {
            return Err(IoError::ReadOnly(Operation::Resize));
        }
        if self.is_device {
            return Err(IoError::Unsupported(Operation::Resize));
        }
        self.file
            .set_len(size)
            .map_err(|error| IoError::from_os(Operation::Resize, size, error))?;
        self.size.store(size, Ordering::Release);
        Ok(())
    }

    /// Uses `POSIX_FADV_WILLNEED`, which reads into the page cache without waiting.
    fn prefetch(&self, range: Range<u64>) -> Result<(), IoError> {
        let operation = Operation::Read;
        let len = range.end.saturating_sub(range.start);
        self.geometry().check(operation, range.start, len)?;
        let mut at = range.start;
        while at < range.end {
            let step = (range.end - at).min(PREFETCHED);
            rustix::fs::fadvise(&self.file, at, NonZeroU64::new(step), Advice::WillNeed)
                .map_err(|error| IoError::from_os(operation, at, error.into()))?;
            at += step;
        }
        Ok(())
    }
}

fn open_file(path: &Path, options: OpenOptions, write: bool) -> Result<File, FileError> {
    // Without O_NONBLOCK, opening a FIFO would block. The standard library adds O_CLOEXEC.
    let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    if options.direct {
        flags |= OFlags::DIRECT;
    }
    if options.no_follow {
        flags |= OFlags::NOFOLLOW;
    }
    let opened = if options.create_new {
        Folder::of(path).and_then(|(folder, name)| folder.create_new(&name, flags))
    } else if write && !options.no_follow {
        Folder::open_path(path, flags | OFlags::RDWR)
    } else {
        let mut open = File::options();
        open.read(true).write(write);
        open.custom_flags(flags.bits().cast_signed()).open(path)
    };
    opened.map_err(|source| {
        let path = path.to_path_buf();
        let inner = source.get_ref();
        if let Some(link) = inner.and_then(|error| error.downcast_ref::<ForeignLink>()) {
            let link = link.to_string();
            return FileError::ForeignLink { path, link };
        }
        match (source.kind(), source.raw_os_error()) {
            (io::ErrorKind::NotFound, _) => FileError::NotFound(path),
            (io::ErrorKind::AlreadyExists, _) => FileError::Exists(path),
            (io::ErrorKind::PermissionDenied, _) => FileError::PermissionDenied(path),
            (io::ErrorKind::IsADirectory, _) => FileError::NotStorage {
                path,
                kind: "a directory",
            },
            (_, Some(libc::ENXIO)) => FileError::NotStorage {
                path,
                kind: "a socket or a fifo",
            },
            (_, Some(libc::ELOOP)) if options.no_follow => FileError::Symlink(path),
            (_, Some(libc::EINVAL)) if options.direct => FileError::NoDirect(path),
            _ => FileError::Failed { path, source },
        }
    })
}

/// Whether the file is a block device. Anything that is neither that nor a regular file is refused.
fn storage_kind(path: &Path, file: &File) -> Result<bool, FileError> {
    let metadata = file.metadata();
    let metadata = metadata.map_err(|source| FileError::Failed {
        path: path.into(),
        source,
    })?;
    let kind = metadata.file_type();
    if kind.is_file() || kind.is_block_device() {
        return Ok(kind.is_block_device());
    }
    let kind = match kind {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_fifo() => "a fifo",
        kind if kind.is_char_device() => "a character device",
        kind if kind.is_socket() => "a socket",
        _ => "of an unknown kind",
    };
    Err(FileError::NotStorage {
        path: path.into(),
        kind,
    })
}

fn is_still_at(path: &Path, file: &File) -> io::Result<bool> {
    let opened = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (opened.dev(), opened.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Clears `O_NONBLOCK`, which is only for opening. Some file systems use it in reads and writes
/// too.
fn clear_nonblocking(file: &File) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    Ok(rustix::fs::fcntl_setfl(file, flags - OFlags::NONBLOCK)?)
}

fn access(options: OpenOptions, write: bool) -> Access {
    match (write, options.beside) {
        (true, true) => Access::Beside,
        (true, false) => Access::Exclusive,
        (false, _) if options.header => Access::Header,
        (false, _) => Access::Shared,
    }
}

fn lock(path: &Path, file: &File, access: Access) -> Result<ImageLock, FileError> {
    ImageLock::take(file, access).map_err(|error| match error {
        LockError::Busy(source) => FileError::Busy {
            path: path.into(),
            source,
        },
        LockError::Alone => FileError::NotOpen(path.into()),
        LockError::Failed(source) => FileError::Failed {
            path: path.into(),
            source,
        },
    })
}

/// The size of a file or a block device. The metadata of a block device says 0, so this seeks to
/// the end. No other code uses the position of the file.
fn size_of(file: &File) -> io::Result<u64> {
    Ok(rustix::fs::seek(file, SeekFrom::End(0))?)
}

/// Writes zeroes, for storage without a zeroing call and for the parts that such a call cannot
/// zero.
fn write_zero_bytes(storage: &FileBackend, range: Range<u64>) -> Result<(), IoError> {
    const STEP: u64 = 1 << 20;
    let zeroes = Sectors::<Cipher>::zeroed(usize::try_from(STEP).unwrap_or(ALIGNMENT));
    let mut at = range.start;
    while at < range.end {
        let left = range.end - at;
        if left >= STEP {
            storage.write_at(at, &zeroes)?;
        } else {
            let left = usize::try_from(left).unwrap_or(ALIGNMENT);
            storage.write_at(at, &Sectors::zeroed(left))?;
        }
        at = at.saturating_add(STEP);
    }
    Ok(())
}
#[cfg(test)]
mod tests;
