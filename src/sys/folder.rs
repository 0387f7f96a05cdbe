//! A folder that is looked up once, and is then used by its descriptor.
//!
//! A user who may write to a folder can replace what a name in it leads to at any moment, also
//! between two system calls of a program that runs as root. So a path is followed once, from folder
//! to folder (`openat(2)` with `O_NOFOLLOW`), and all work on the folder at its end uses the
//! descriptor. A symbolic link is followed only if it belongs to root or to the user of this
//! process, is in a folder that belongs to one of them, and no other user could have put it there.
//!
//! The folders on the way may belong to anyone: their owner can choose to which of their own
//! folders a path leads, but no folder of another user.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, PROC_SUPER_MAGIC, RenameFlags};
use rustix::io::Errno;

use super::acl;

/// As many symbolic links as the kernel follows on one path.
const MOST_LINKS: usize = 40;

/// The flags for a descriptor with which a file can be looked at, but not read.
const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An open folder.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    file: Arc<File>,
    /// Its path, for messages.
    path: PathBuf,
}

/// The room that is left in a file system.
pub(crate) struct Free {
    pub(crate) bytes: u64,
    pub(crate) as_they_are: bool,
}

/// A symbolic link that is not followed, because another user could have made it.
#[derive(Debug)]
pub(crate) struct ForeignLink {
    path: PathBuf,
    owner: u32,
    /// Whether its folder is at fault, and not its owner.
    in_open_folder: bool,
}

impl fmt::Display for ForeignLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.in_open_folder {
            true => write!(
                f,
                "{path} is a symbolic link in a folder that other users can write to"
            ),
            false => write!(f, "{path} is a symbolic link of user {}", self.owner),
        }
    }
}

impl std::error::Error for ForeignLink {}

impl Folder {
    /// Opens the folder at this path.
    ///
    /// # Errors
    /// A [`ForeignLink`], and failed system calls.
    #[cfg(any(test, feature = "libvirt", feature = "nbd", feature = "vhost-user"))]
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        walk(None, path, None, None)
    }

    /// Opens the folder at this path. Folders that do not exist are made with this mode, less the
    /// umask.
    ///
    /// # Errors
    /// A [`ForeignLink`], and failed system calls.
    pub(crate) fn open_or_make(path: &Path, mode: Mode) -> io::Result<Self> {
        walk(None, path, Some(mode), None)
    }

    /// The folder of a path, and the name in it. What the name leads to is not looked at.
    pub(crate) fn of(path: &Path) -> io::Result<(Self, OsString)> {
        folder_of(None, path, None)
    }

    /// As [`of`](Self::of), but if the name is a symbolic link, it is followed to its end, as the
    /// links on the way are. Nothing need exist there.
    pub(crate) fn resolve(path: &Path) -> io::Result<(Self, OsString)> {
        match end_of(path, None)? {
            (_, _, true) => Err(link_of_proc(path)),
            (folder, name, false) => Ok((folder, name)),
        }
    }

    /// As [`resolve`](Self::resolve), but every folder on the way, and the one at the end, has to
    /// be one in which no other user can replace what is `trusted`: its owner is one of these, and
    /// other users cannot write to it. On the way, they may write to a sticky folder such as /tmp.
    pub(crate) fn resolve_trusted(path: &Path, trusted: Owners) -> io::Result<(Self, OsString)> {
        let check = |folder: &Self| {
            let about = folder.about()?;
            match about.mode() & 0o1000 != 0 && trusted.has(&about) {
                true => Ok(()),
                false => trusted.check(&folder.path, &about),
            }
        };
        let (folder, name, false) = end_of(path, Some(&check))? else {
            return Err(link_of_proc(path));
        };
        trusted.check(&folder.path, &folder.about()?)?;
        Ok((folder, name))
    }

    /// Opens what is at a path, whose links are followed as in [`resolve`](Self::resolve), without
    /// waiting for the other end of a FIFO.
    pub(crate) fn open_path(path: &Path, flags: OFlags) -> io::Result<File> {
        match end_of(path, None)? {
            (folder, name, true) => folder.open_through(&name, flags | OFlags::NONBLOCK),
            (folder, name, false) => folder.open_file(&name, flags),
        }
    }

    /// The folder in which an open file has its name now, and that name.
    ///
    /// # Errors
    /// A file that has no name any more, or none that this process can reach.
    pub(crate) fn of_open(file: &File) -> io::Result<(Self, OsString)> {
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        let path = rustix::fs::readlink(link, Vec::new())?;
        let (folder, name) = Self::of(Path::new(OsStr::from_bytes(path.as_bytes())))?;
        match folder.look(&name)? {
            Some(found) if same_file(&found, &file.metadata()?) => Ok((folder, name)),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Fails if this process cannot make a file here, as far as the permissions and the mount say.
    pub(crate) fn check_writable(&self) -> io::Result<()> {
        let wanted = Access::WRITE_OK | Access::EXEC_OK;
        match rustix::fs::accessat(&self.file, ".", wanted, AtFlags::EACCESS) {
            Err(error @ (Errno::ACCESS | Errno::PERM | Errno::ROFS)) => Err(error.into()),
            // Making the file tells what this call did not.
            _ => Ok(()),
        }
    }

    /// The bytes that this process can still store here, if the file system tells. `as_they_are`
    /// is only true if a file takes as much room as it has bytes: nothing is compressed.
    pub(crate) fn free(&self) -> Option<Free> {
        const PLAIN: [u64; 3] = [0xef53, 0x5846_5342, 0x0102_1994]; // ext4, XFS, tmpfs
        let about = rustix::fs::fstatfs(&self.file).ok()?;
        let blocks = match rustix::process::geteuid().is_root() {
            true => about.f_bfree,
            false => about.f_bavail,
        };
        let unit = u64::try_from(about.f_frsize).ok()?;
        let kind = u64::try_from(about.f_type).unwrap_or_default();
        (about.f_blocks != 0).then(|| Free {
            bytes: blocks.saturating_mul(unit),
            as_they_are: PLAIN.contains(&kind),
        })
    }

    /// Its path, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path by which it can be reached now.
    #[cfg(feature = "fuse")]
    pub(crate) fn path_now(&self) -> io::Result<PathBuf> {
        let link = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let path = rustix::fs::readlink(link, Vec::new())?;
        Ok(OsString::from_vec(path.into_bytes()).into())
    }

    /// Its owner, its mode and what else the kernel says of it.
    pub(crate) fn about(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// Fails unless it belongs to root or to this user, and other users cannot write to it.
    pub(crate) fn check_trusted(&self) -> io::Result<()> {
        check_trusted(&self.path, &self.about()?)
    }

    /// What the kernel says of the file with this name, if there is one. A symbolic link is not
    /// followed.
    pub(crate) fn look(&self, name: &OsStr) -> io::Result<Option<Metadata>> {
        match self.look_open(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found?.metadata().map(Some),
        }
    }

    /// A descriptor of the file with this name, with which it can be looked at, but not read.
    pub(crate) fn look_open(&self, name: &OsStr) -> io::Result<File> {
        self.open_at(name, LOOK, Mode::empty())
    }

    /// Opens the file with this name, without waiting for the other end of a FIFO. A symbolic link
    /// is not followed.
    pub(crate) fn open_file(&self, name: &OsStr, flags: OFlags) -> io::Result<File> {
        self.open_at(name, flags | OFlags::NONBLOCK, Mode::empty())
    }

    /// Makes a new file with mode 0600, and opens it for reading and writing.
    pub(crate) fn create_new(&self, name: &OsStr, flags: OFlags) -> io::Result<File> {
        let new = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        self.open_at(name, flags | new, Mode::RUSR | Mode::WUSR)
    }

    /// Opens a file for reading and writing, and makes it with mode 0600 if nothing has this name.
    pub(crate) fn open_or_create(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NONBLOCK;
        self.open_at(name, flags, Mode::RUSR | Mode::WUSR)
    }

    fn open_at(&self, name: &OsStr, flags: OFlags, mode: Mode) -> io::Result<File> {
        debug_assert!(!name.as_bytes().contains(&b'/'), "a name has no slash");
        let flags = flags | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&self.file, name, flags, mode)?;
        Ok(File::from(opened))
    }

    /// The names in this folder.
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&self.file, ".", flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(opened)? {
            names.push(OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned());
        }
        Ok(names)
    }

    /// Makes a folder in this one that only this user can enter. It has no access control list, and
    /// what is made in it inherits none.
    ///
    /// # Errors
    /// Failed system calls, and a folder that was replaced before it could be opened.
    pub(crate) fn make_private(&self, name: &OsStr) -> io::Result<Self> {
        rustix::fs::mkdirat(&self.file, name, Mode::RWXU)?;
        let made = self.step(name)?;
        let about = made.about()?;
        if about.uid() == rustix::process::geteuid().as_raw() && about.mode() & 0o077 == 0 {
            acl::remove(&made)?;
            return Ok(made);
        }
        let message = format!("{} was replaced", made.path.display());
        Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
    }

    /// Moves a file to a name in `folder`, over a file that has that name.
    pub(crate) fn move_over(&self, from: &OsStr, folder: &Self, to: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.file, from, &folder.file, to)?)
    }

    /// Moves a file to a new name in `folder`, where nothing may have that name, not even since a
    /// moment ago.
    pub(crate) fn move_new(&self, from: &OsStr, folder: &Self, to: &OsStr) -> io::Result<()> {
        let only_new = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&self.file, from, &folder.file, to, only_new) {
            // The file system has no such rename: an empty file takes the name first.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                folder.create_new(to, OFlags::empty())?;
                Ok(rustix::fs::renameat(&self.file, from, &folder.file, to)?)
            }
            renamed => Ok(renamed?),
        }
    }

    /// Removes a name that is not that of a folder.
    pub(crate) fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.file, name, AtFlags::empty())?)
    }

    /// Removes an empty folder.
    #[cfg(any(test, feature = "nbd", feature = "vhost-user"))]
    pub(crate) fn remove_folder(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.file, name, AtFlags::REMOVEDIR)?)
    }

    /// Removes the name if it still is that of this file. Returns whether the file has no such name
    /// now.
    pub(crate) fn remove_if(&self, name: &OsStr, file: &Metadata) -> io::Result<bool> {
        match self.look(name)? {
            None => Ok(true),
            Some(found) if !same_file(&found, file) => Ok(false),
            Some(_) => match self.remove(name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(true),
            },
        }
    }

    /// Makes the names in this folder durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        self.open_at(OsStr::new("."), flags, Mode::empty())?
            .sync_all()
    }

    /// The target of the symbolic link with this name, if it is one.
    ///
    /// # Errors
    /// A [`ForeignLink`], and failed system calls.
    fn link(&self, name: &OsStr) -> io::Result<Option<PathBuf>> {
        let link = match self.look_open(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            link => link?,
        };
        let about = link.metadata()?;
        if !about.is_symlink() {
            return Ok(None);
        }
        let folder = self.about()?;
        let in_open_folder = !is_root_or_us(&folder)
            // In a sticky folder such as /tmp, only its owner can remove a link.
            || folder.mode() & 0o022 != 0 && folder.mode() & 0o1000 == 0;
        if in_open_folder || !is_root_or_us(&about) {
            let link = ForeignLink {
                path: self.path.join(name),
                owner: about.uid(),
                in_open_folder: is_root_or_us(&about),
            };
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, link));
        }
        let target = rustix::fs::readlinkat(&link, "", Vec::new())?;
        Ok(Some(OsString::from_vec(target.into_bytes()).into()))
    }

    fn is_proc(&self) -> io::Result<bool> {
        Ok(rustix::fs::fstatfs(&self.file)?.f_type == PROC_SUPER_MAGIC)
    }

    /// The folder with this name in this one, which is no symbolic link. `O_DIRECTORY` mounts what
    /// is mounted on demand.
    pub(crate) fn step(&self, name: &OsStr) -> io::Result<Self> {
        let file = self.open_at(name, LOOK | OFlags::DIRECTORY, Mode::empty())?;
        Ok(Self {
            file: Arc::new(file),
            path: self.path.join(name),
        })
    }

    /// The folder to which a link of `/proc` leads.
    fn step_through(&self, name: &OsStr) -> io::Result<Self> {
        let file = self.open_through(name, OFlags::PATH | OFlags::DIRECTORY)?;
        Ok(Self {
            file: Arc::new(file),
            path: self.path.join(name),
        })
    }

    /// Opens the file itself to which a link of `/proc` leads, whatever the text of the link says.
    fn open_through(&self, name: &OsStr, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&self.file, name, flags, Mode::empty())?;
        Ok(File::from(opened))
    }

    fn start(path: &str) -> io::Result<Self> {
        let flags = LOOK | OFlags::DIRECTORY;
        let file = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        let path = if path == "/" { path } else { "" };
        Ok(Self {
            file: Arc::new(File::from(file)),
            path: path.into(),
        })
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether these are the same file, by device and inode.
pub(crate) fn same_file(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Fails unless a file or a folder belongs to root or to this user, and other users cannot write to
/// it. `path` is for the message.
pub(crate) fn check_trusted(path: &Path, about: &Metadata) -> io::Result<()> {
    Owners::RootOrUs.check(path, about)
}

/// The users whose files are trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owners {
    /// Only root.
    Root,
    /// Root and the user of this process.
    RootOrUs,
}

impl Owners {
    fn has(self, about: &Metadata) -> bool {
        let us = self == Self::RootOrUs && about.uid() == rustix::process::geteuid().as_raw();
        us || about.uid() == 0
    }

    /// Fails unless a file or a folder belongs to one of these users, and other users cannot write
    /// to it. `path` is for the message.
    pub(crate) fn check(self, path: &Path, about: &Metadata) -> io::Result<()> {
        let path = path.display();
        let message = if !self.has(about) {
            format!("{path} belongs to user {}", about.uid())
        } else if about.mode() & 0o022 != 0 {
            format!("other users can write to {path}")
        } else {
            return Ok(());
        };
        Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
    }
}

fn is_root_or_us(about: &Metadata) -> bool {
    Owners::RootOrUs.has(about)
}

fn link_of_proc(path: &Path) -> io::Error {
    let message = format!("{} is a link of /proc", path.display());
    io::Error::new(io::ErrorKind::Unsupported, message)
}

/// What each folder on a path has to pass.
type Check<'a> = Option<&'a dyn Fn(&Folder) -> io::Result<()>>;

/// The folder of a path that is relative to `base` or to the working directory, and the last name.
fn folder_of(
    base: Option<&Folder>,
    path: &Path,
    check: Check<'_>,
) -> io::Result<(Folder, OsString)> {
    let bytes = path.as_os_str().as_bytes();
    let name = match path.file_name() {
        Some(name) if bytes.ends_with(name.as_bytes()) => name,
        _ => return Err(io::ErrorKind::IsADirectory.into()),
    };
    let parent = path.parent().unwrap_or(Path::new(""));
    Ok((walk(base, parent, None, check)?, name.to_owned()))
}

/// The folder of a path and the name in it, after all symbolic links. `true` stands for a name that
/// is a link of `/proc`.
fn end_of(path: &Path, check: Check<'_>) -> io::Result<(Folder, OsString, bool)> {
    let (mut folder, mut name) = folder_of(None, path, check)?;
    for _ in 0..MOST_LINKS {
        match folder.link(&name)? {
            None => return Ok((folder, name, false)),
            Some(_) if folder.is_proc()? => return Ok((folder, name, true)),
            Some(target) => (folder, name) = folder_of(Some(&folder), &target, check)?,
        }
    }
    Err(Errno::LOOP.into())
}

/// Follows a path from `base`, or from the working directory, to a folder. Folders that do not
/// exist are made if `make` has a mode for them.
fn walk(
    base: Option<&Folder>,
    path: &Path,
    make: Option<Mode>,
    check: Check<'_>,
) -> io::Result<Folder> {
    let pass = |folder: &Folder| check.map_or(Ok(()), |check| check(folder));
    let mut at = match base {
        Some(base) => base.clone(),
        None => Folder::start(".")?,
    };
    let mut links = 0;
    // The names that are left, the next one last.
    let mut left = names(path);
    while let Some(name) = left.pop() {
        if name == "/" {
            at = Folder::start("/")?;
            pass(&at)?;
            continue;
        }
        let error = match at.step(&name) {
            Ok(folder) => {
                at = folder;
                pass(&at)?;
                continue;
            }
            Err(error) => error,
        };
        match Errno::from_io_error(&error) {
            Some(Errno::NOTDIR | Errno::LOOP) => {
                let target = at.link(&name)?.ok_or(error)?;
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::LOOP.into());
                }
                if at.is_proc()? {
                    at = at.step_through(&name)?;
                } else {
                    left.extend(names(&target));
                }
            }
            Some(Errno::NOENT) if make.is_some() => {
                let mode = make.unwrap_or(Mode::RWXU);
                match rustix::fs::mkdirat(&at, &name, mode) {
                    Err(Errno::EXIST) | Ok(()) => {}
                    Err(error) => return Err(error.into()),
                }
                at = at.step(&name)?;
            }
            _ => return Err(error),
        }
    }
    Ok(at)
}

/// The names of a path, the first one last. `/` stands for the root.
fn names(path: &Path) -> Vec<OsString> {
    let mut names: Vec<_> = path
        .components()
        .filter(|part| *part != Component::CurDir)
        .map(|part| part.as_os_str().to_owned())
        .collect();
    names.reverse();
    names
}

#[cfg(test)]
mod tests;
