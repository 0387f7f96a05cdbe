//! Advisory locks on an image, taken when it is opened: exclusive for writing, shared for reading,
//! and two more kinds for reading and for writing a header while QEMU has the volume open.
//!
//! Other luksmith processes, cryptsetup and QEMU notice them. luksmith and cryptsetup use
//! `flock(2)`: on the file itself, and for a block device on the file `L_MAJOR:MINOR` in
//! `/run/cryptsetup`. cryptsetup locks only LUKS2 metadata, and waits for locks. QEMU locks single
//! bytes with open file description locks. A lock on byte 100 + n means that its owner uses
//! permission n. A lock on byte 200 + n means that its owner denies permission n to others. All of
//! these locks are shared: a program first takes its own locks, and then looks for conflicting
//! ones.
//!
//! Advisory locks do not stop a program that ignores them. No function here waits for a lock.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock, major, minor};

use super::open_files;
use crate::sys::ofd;

/// How the image is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// For reading. Others may read too.
    Shared,
    /// For reading a header. A QEMU may write guest data meanwhile, but cannot change keyslots, and
    /// no other luksmith or cryptsetup may write.
    Header,
    /// For writing. Others may neither read nor write.
    Exclusive,
    /// For writing the header of a volume that a QEMU has open. It is an error if no QEMU has it
    /// open. No other luksmith may read or write meanwhile. QEMU cannot change keyslots, but does
    /// everything else, and another QEMU may open the volume.
    Beside,
}

/// The locks on an image.
#[derive(Debug)]
pub struct ImageLock {
    /// The locked file of cryptsetup for a block device.
    _device: Option<File>,
}

/// Why the locks were not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another program has the image open with a conflicting lock.
    #[error(transparent)]
    Busy(Busy),
    /// No other program has the image open, which [`Access::Beside`] requires.
    #[error("no other program has it open")]
    Alone,
    /// The system reported another error.
    #[error("locking failed")]
    Failed(#[source] io::Error),
}

/// The holders of a conflicting lock, as far as they are known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub struct Busy {
    /// The processes that hold a lock on the image. Processes of other users may be hidden.
    pub holders: Vec<Holder>,
}

/// A process that holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The process id.
    pub pid: u32,
    /// The name that the system reports, at most 15 bytes.
    pub command: String,
}

impl Holder {
    /// Whether it is a virtual machine of QEMU, by its name, and not a tool of QEMU for images.
    #[must_use]
    pub fn is_machine(&self) -> bool {
        const TOOLS: [&str; 4] = ["qemu-img", "qemu-io", "qemu-nbd", "qemu-storage"];
        let is_tool = TOOLS.iter().any(|tool| self.command.starts_with(tool));
        self.command.starts_with("qemu") && !is_tool
    }
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("in use by ")?;
        if self.holders.is_empty() {
            return f.write_str("another process");
        }
        for (n, Holder { pid, command }) in self.holders.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            match *pid == std::process::id() {
                true => write!(f, "{comma}this process")?,
                false => write!(f, "{comma}pid {pid} ({command})")?,
            }
        }
        Ok(())
    }
}

impl ImageLock {
    /// Takes all locks, or none.
    ///
    /// # Errors
    /// Returns [`LockError::Busy`] immediately if another program holds a conflicting lock.
    pub fn take(image: &File, access: Access) -> Result<Self, LockError> {
        lock_whole(image, access)?;
        lock_for_qemu(image, access)?;
        if access == Access::Beside && !is_open_elsewhere(image)? {
            return Err(LockError::Alone);
        }
        Ok(Self {
            _device: lock_device(image, access)?,
        })
    }
}

/// Releases the locks on the image itself. Closing the file would release them too. But a child
/// process that another thread has just forked has the file open until it executes its program.
pub(super) fn release(image: &File) {
    let permissions = 0..=permission::RESIZE;
    for byte in permissions.flat_map(|n| [USED + n, REFUSED_TO_OTHERS + n]) {
        let _ = ofd::release_byte(image.as_fd(), byte);
    }
    let _ = flock(image, FlockOperation::Unlock);
}

fn lock_whole(file: &File, access: Access) -> Result<(), LockError> {
    let operation = match access {
        Access::Shared | Access::Header => FlockOperation::NonBlockingLockShared,
        Access::Exclusive | Access::Beside => FlockOperation::NonBlockingLockExclusive,
    };
    match rustix::io::retry_on_intr(|| flock(file, operation)) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(busy(file)),
        Err(error) => Err(LockError::Failed(error.into())),
    }
}

/// The numbers of QEMU's permissions.
mod permission {
    pub(super) const CONSISTENT_READ: u64 = 0;
    pub(super) const WRITE: u64 = 1;
    pub(super) const WRITE_UNCHANGED: u64 = 2;
    pub(super) const RESIZE: u64 = 3;
}

const USED: u64 = 100;
const REFUSED_TO_OTHERS: u64 = 200;

fn lock_for_qemu(file: &File, access: Access) -> Result<(), LockError> {
    use permission::{CONSISTENT_READ, RESIZE, WRITE, WRITE_UNCHANGED};
    // A QEMU that only reads permits writing by others, unless others deny it to read.
    let (used, refused): (&[u64], &[u64]) = match access {
        Access::Shared => (&[CONSISTENT_READ], &[WRITE, RESIZE]),
        Access::Exclusive => (
            &[CONSISTENT_READ, WRITE, WRITE_UNCHANGED, RESIZE],
            &[CONSISTENT_READ, WRITE, WRITE_UNCHANGED, RESIZE],
        ),
        // QEMU keeps its locks for writing and resizing. It denies consistent reads to others only
        // while it changes keyslots (`block_crypto_child_perms`). So whichever of the two comes
        // second fails.
        Access::Beside | Access::Header => (&[CONSISTENT_READ], &[]),
    };
    let ours = (used.iter().map(|n| USED + n)).chain(refused.iter().map(|n| REFUSED_TO_OTHERS + n));
    for byte in ours {
        match ofd::share_byte(file.as_fd(), byte) {
            Ok(true) => {}
            Ok(false) => return Err(busy(file)),
            // QEMU cannot take these locks here either.
            Err(error) if lacks_byte_locks(&error) => return Ok(()),
            Err(error) => return Err(LockError::Failed(error)),
        }
    }
    let theirs =
        (used.iter().map(|n| REFUSED_TO_OTHERS + n)).chain(refused.iter().map(|n| USED + n));
    for byte in theirs {
        if ofd::byte_is_held(file.as_fd(), byte).map_err(LockError::Failed)? {
            return Err(busy(file));
        }
    }
    Ok(())
}

/// Whether another process has the same image open. A QEMU that can lock bytes holds the one for
/// consistent reads. Otherwise this looks at the open files of all processes.
fn is_open_elsewhere(image: &File) -> Result<bool, LockError> {
    match ofd::byte_is_held(image.as_fd(), USED + permission::CONSISTENT_READ) {
        Ok(true) => return Ok(true),
        Err(error) if !lacks_byte_locks(&error) => return Err(LockError::Failed(error)),
        _ => {}
    }
    // The locks of a device belong to its device node, and libvirt gives each QEMU its own /dev.
    Ok(open_files::is_open_elsewhere(image))
}

fn lacks_byte_locks(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP)
    )
}

/// The directory of cryptsetup's lock files.
const DEVICE_LOCKS: &str = "/run/cryptsetup";

/// Locks cryptsetup's file for a block device. The directory belongs to root, so a user who cannot
/// create the file does without this lock.
fn lock_device(image: &File, access: Access) -> Result<Option<File>, LockError> {
    let metadata = image.metadata().map_err(LockError::Failed)?;
    if !metadata.file_type().is_block_device() {
        return Ok(None);
    }
    let number = metadata.rdev();
    let path = Path::new(DEVICE_LOCKS).join(format!("L_{}:{}", major(number), minor(number)));
    lock_named(&path, access)
}

fn lock_named(path: &Path, access: Access) -> Result<Option<File>, LockError> {
    if let Some(directory) = path.parent() {
        // If it exists or cannot be created, opening the file shows that.
        let _ = fs::DirBuilder::new().mode(0o700).create(directory);
    }
    loop {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        options.mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = match options.open(path) {
            Ok(file) => file,
            Err(error) if cannot_have(&error) => return Ok(None),
            Err(error) => return Err(LockError::Failed(error)),
        };
        lock_whole(&file, access)?;
        // cryptsetup removes the file at its end, and a lock on a removed file is useless.
        let locked = file.metadata().map_err(LockError::Failed)?;
        match fs::symlink_metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == (locked.dev(), locked.ino()) => {
                return Ok(Some(file));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(LockError::Failed(error)),
        }
    }
}

fn cannot_have(error: &io::Error) -> bool {
    use io::ErrorKind::{NotFound, PermissionDenied, ReadOnlyFilesystem};
    matches!(
        error.kind(),
        PermissionDenied | NotFound | ReadOnlyFilesystem
    )
}

fn busy(file: &File) -> LockError {
    LockError::Busy(Busy {
        holders: holders(file),
    })
}

/// The processes that hold a lock on this file, as far as `/proc` shows them.
fn holders(file: &File) -> Vec<Holder> {
    let lockers = open_files::lockers(file).into_iter();
    let holder = |pid| Holder {
        pid,
        command: command(pid),
    };
    lockers.map(holder).collect()
}

fn command(pid: u32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name: String = String::from_utf8_lossy(&name)
        .trim_end()
        .chars()
        .map(shown)
        .collect();
    if name.is_empty() {
        "unknown".into()
    } else {
        name
    }
}

/// Replaces control characters, since a process chooses its own name, which may be printed to a
/// terminal.
fn shown(c: char) -> char {
    if luksmith_formats::text::is_control(c) {
        '?'
    } else {
        c
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> File {
        File::options().read(true).write(true).open(path).unwrap()
    }

    fn busy_holders(result: Result<ImageLock, LockError>) -> Vec<Holder> {
        match result {
            Err(LockError::Busy(busy)) => busy.holders,
            other => panic!("not busy: {other:?}"),
        }
    }

    #[test]
    fn readers_share_and_a_writer_is_alone() {
        let image = tempfile::NamedTempFile::new().unwrap();
        let (first, second, third) = (open(image.path()), open(image.path()), open(image.path()));
        let reader = ImageLock::take(&first, Access::Shared).unwrap();
        let other_reader = ImageLock::take(&second, Access::Shared).unwrap();
        let holders = busy_holders(ImageLock::take(&third, Access::Exclusive));
        assert_eq!(
            holders.iter().map(|holder| holder.pid).collect::<Vec<_>>(),
            [std::process::id()]
        );
        drop((reader, other_reader, first, second, third));

        let (writer, late) = (open(image.path()), open(image.path()));
        let _writing = ImageLock::take(&writer, Access::Exclusive).unwrap();
        busy_holders(ImageLock::take(&late, Access::Shared));
        busy_holders(ImageLock::take(&late, Access::Exclusive));
        drop(writer);
        drop(late);
        ImageLock::take(&open(image.path()), Access::Exclusive).unwrap();
    }

    #[test]
    fn a_byte_that_qemu_would_lock_is_noticed() {
        let read = permission::CONSISTENT_READ;
        for (byte, header, reader, writer) in [
            (USED, true, true, false),                                  // it reads
            (USED + permission::WRITE, true, false, false),             // it writes
            (REFUSED_TO_OTHERS + permission::WRITE, true, true, false), // it wants no writer
            (REFUSED_TO_OTHERS + read, false, false, false),            // it wants no reader
        ] {
            for (access, allowed) in [
                (Access::Header, header),
                (Access::Shared, reader),
                (Access::Exclusive, writer),
            ] {
                let image = tempfile::NamedTempFile::new().unwrap();
                let qemu = open(image.path());
                assert!(ofd::share_byte(qemu.as_fd(), byte).unwrap());
                let result = ImageLock::take(&open(image.path()), access);
                assert_eq!(result.is_ok(), allowed, "byte {byte}, {access:?}");
            }
        }
    }

    #[test]
    fn beside_a_qemu_there_is_one_and_only_beside_a_qemu() {
        let image = tempfile::NamedTempFile::new().unwrap();
        let beside = |file: &File| ImageLock::take(file, Access::Beside);
        let qemu = open(image.path());
        // This process has it open with another descriptor, which is ignored.
        assert!(matches!(beside(&open(image.path())), Err(LockError::Alone)));

        // The locks of a QEMU with a disk that others may not write.
        let used = [
            permission::CONSISTENT_READ,
            permission::WRITE,
            permission::RESIZE,
        ];
        let bytes = used.map(|n| USED + n).into_iter();
        for byte in
            bytes.chain([permission::WRITE, permission::RESIZE].map(|n| REFUSED_TO_OTHERS + n))
        {
            assert!(ofd::share_byte(qemu.as_fd(), byte).unwrap());
        }
        let first = open(image.path());
        let _held = beside(&first).unwrap();
        busy_holders(beside(&open(image.path())));
        busy_holders(ImageLock::take(&open(image.path()), Access::Shared));
        busy_holders(ImageLock::take(&open(image.path()), Access::Exclusive));
        // The QEMU ends and starts again. This lock adds nothing that would stop it.
        release(&qemu);
        for byte in [USED + permission::WRITE, USED + permission::RESIZE]
            .into_iter()
            .chain([0, 1, 2, 3].map(|n| REFUSED_TO_OTHERS + n))
        {
            assert!(!ofd::byte_is_held(qemu.as_fd(), byte).unwrap(), "{byte}");
        }
        drop(first);

        // While QEMU changes keyslots, it denies consistent reads to others.
        for byte in [USED, REFUSED_TO_OTHERS].map(|base| base + permission::CONSISTENT_READ) {
            assert!(ofd::share_byte(qemu.as_fd(), byte).unwrap());
        }
        busy_holders(beside(&open(image.path())));
    }

    #[test]
    fn a_lock_file_that_was_removed_is_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("locks/L_7:0");
        let held = lock_named(&path, Access::Exclusive).unwrap().unwrap();
        assert!(matches!(
            lock_named(&path, Access::Shared),
            Err(LockError::Busy(_))
        ));
        fs::remove_file(&path).unwrap();
        lock_named(&path, Access::Shared).unwrap().unwrap();
        drop(held);
    }

    #[test]
    fn a_lock_file_out_of_reach_is_gone_without() {
        assert!(
            lock_named(Path::new("/proc/none/L_7:0"), Access::Shared)
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn busy_says_who() {
        let holder = |pid, command: &str| Holder {
            pid,
            command: command.into(),
        };
        let busy = Busy {
            holders: vec![holder(12, "qemu-system-x86"), holder(13, "luksmith")],
        };
        assert_eq!(
            busy.to_string(),
            "in use by pid 12 (qemu-system-x86), pid 13 (luksmith)"
        );
        assert_eq!(
            Busy { holders: vec![] }.to_string(),
            "in use by another process"
        );
    }
}
