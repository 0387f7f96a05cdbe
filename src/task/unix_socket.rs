//! A Unix socket that a server creates.
//!
//! Other users may be able to write to the folder of the socket. So the socket is bound in a new
//! folder that only this user can enter, gets its group and mode there, and listens. Then it is
//! moved to its name. No umask cuts its mode, no other file can get its mode and group, and it
//! inherits no access control list.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, Gid, Mode};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Pid;

use super::{Advice, Error, Kind, MadeFile, Note, Silent, Watch};
use crate::sys::acl;
use crate::sys::folder::{Folder, same_file};

/// How many clients the kernel queues until they are accepted.
const BACKLOG: i32 = 128;

/// A Unix socket that is to be created.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct UnixSocket {
    /// The path, of at most 107 bytes. A stale socket there is replaced, anything else is an error.
    pub path: PathBuf,
    /// The mode of the socket. Default: `0o600`.
    pub mode: u32,
    /// The group of the socket, by number. Default: that of the process.
    pub group: Option<u32>,
    /// Take the directory as it is. By default it has to be closed to other users, and is created
    /// so if it does not exist.
    pub trust_directory: bool,
}

impl UnixSocket {
    /// A socket for the user of this process only.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            mode: 0o600,
            group: None,
            trust_directory: false,
        }
    }
}

/// The file of a socket that this process has made. Dropping it removes the file, unless another
/// one has taken its place.
pub(super) struct SocketFile<'a> {
    path: PathBuf,
    made: MadeFile,
    watch: &'a dyn Watch,
}

impl SocketFile<'_> {
    /// Where clients find it.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile<'_> {
    fn drop(&mut self) {
        // If it cannot be removed, the next server finds that it is stale.
        let _ = self.made.remove();
        self.watch.unfinished(&self.made, false);
    }
}

/// Fails if the socket cannot be made, as far as that is known before.
pub(super) fn check(socket: &UnixSocket) -> Result<(), Error> {
    let path = absolute(socket)?;
    let (folder, name) = folder(&path, socket.trust_directory, &Silent::default())?;
    stale(&folder, &name, &path)?;
    folder
        .check_writable()
        .map_err(|error| Error::io("make", &path, error))
}

/// The path of the socket, which clients have to be able to name.
fn absolute(socket: &UnixSocket) -> Result<PathBuf, Error> {
    let path = std::path::absolute(&socket.path)
        .map_err(|error| Error::io("look at", &socket.path, error))?;
    SocketAddrUnix::new(&path).map_err(|error| {
        Error::io("make", &path, error.into()).advise(Advice::ShorterSocketPath)
    })?;
    Ok(path)
}

/// Makes a socket that listens.
pub(super) fn create<'a>(
    socket: &UnixSocket,
    watch: &'a dyn Watch,
) -> Result<(UnixListener, SocketFile<'a>), Error> {
    let path = absolute(socket)?;
    let (folder, name) = folder(&path, socket.trust_directory, watch)?;
    let stale = stale(&folder, &name, &path)?;
    let failed = |verb: &'static str| {
        let path = &path;
        move |error: io::Error| Error::io(verb, path, error)
    };
    remove_left(&folder);
    let private = Private::make(&folder).map_err(failed("make"))?;
    let listener = private.bind(socket).map_err(failed("make"))?;
    let about = private.look().map_err(failed("look at"))?;
    if let Some(stale) = stale {
        private
            .take_away(&stale, &name)
            .map_err(failed("remove the stale"))?;
    }
    let moved = private.folder.move_new(OsStr::new(SOCKET), &folder, &name);
    moved.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => busy(format!("{} exists by now", path.display())),
        _ => failed("make")(error),
    })?;
    let made = MadeFile::find(folder.clone(), name, &about).map_err(failed("make"))?;
    watch.unfinished(&made, true);
    Ok((listener, SocketFile { path, made, watch }))
}

fn busy(message: String) -> Error {
    Error::new(Kind::Busy, message)
}

/// The folder of the socket, and its name. The folder is created for this user only if it does not
/// exist, and otherwise has to be closed to others unless `trusted`.
fn folder(path: &Path, trusted: bool, watch: &dyn Watch) -> Result<(Folder, OsString), Error> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(busy(format!("{} is not a socket", path.display())));
    };
    let folder = open_or_make(parent)?;
    let about = folder
        .about()
        .map_err(|error| Error::io("look at", parent, error))?;
    let ours = about.uid() == rustix::process::geteuid().as_raw();
    let closed = ours && about.mode() & 0o011 == 0;
    if !trusted && !closed {
        let message = format!(
            "other users can enter {}, where the socket would be",
            parent.display()
        );
        return Err(Error::new(Kind::Permission, message)
            .advise(Advice::CloseDirectory)
            .advise(Advice::TrustDirectory));
    }
    if about.mode() & 0o002 != 0 {
        watch.notes(Note::WritableByAll { directory: parent });
    }
    Ok((folder, name.to_owned()))
}

fn open_or_make(path: &Path) -> Result<Folder, Error> {
    match Folder::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened.map_err(|error| Error::io("open", path, error)),
    }
    let (parent, name) = Folder::of(path).map_err(|error| {
        let missing = error.kind() == io::ErrorKind::NotFound;
        let advice = Advice::MakeDirectory(path.to_owned());
        Error::io("make", path, error).advise_if(missing, advice)
    })?;
    match parent.make_private(&name) {
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Folder::open(path),
        made => made,
    }
    .map_err(|error| Error::io("make", path, error))
}

/// The socket with this name on which no process listens, if there is one. It is only open to be
/// looked at. Anything else with this name is an error.
fn stale(folder: &Folder, name: &OsStr, path: &Path) -> Result<Option<File>, Error> {
    let failed = |error| Error::io("look at", path, error);
    let found = match folder.look_open(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found.map_err(failed)?,
    };
    let about = found.metadata().map_err(failed)?;
    if !about.file_type().is_socket() {
        let message = format!("{} exists and is not a socket", path.display());
        return Err(busy(message));
    }
    match connect(&found) {
        Err(Errno::CONNREFUSED) => Ok(Some(found)),
        // The queue of a server that listens may be full.
        Ok(()) | Err(Errno::AGAIN) => {
            let message = format!("another process listens on {}", path.display());
            Err(busy(message))
        }
        Err(error) => Err(failed(error.into())),
    }
}

/// Connects to the socket that is open, whatever has its name now, without waiting.
fn connect(socket: &impl AsRawFd) -> rustix::io::Result<()> {
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", socket.as_raw_fd()))?;
    rustix::net::connect(stream(SocketFlags::NONBLOCK)?, &address)
}

fn stream(flags: SocketFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | SocketFlags::CLOEXEC;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// A folder beside the socket that only this user can enter. It is removed when this is dropped.
struct Private<'a> {
    beside: &'a Folder,
    name: OsString,
    folder: Folder,
}

/// The start of the name of a private folder, before the numbers of the process and of the folder.
const PRIVATE: &str = ".luksmith-";
/// A private folder without a socket exists for much less than this. The process of an older one
/// may be in another PID namespace, where this process cannot see it.
const LEFT: Duration = Duration::from_secs(60);

/// Removes the private folders that killed servers of this user have left empty.
fn remove_left(beside: &Folder) {
    for name in beside.names().unwrap_or_default() {
        let (Some(process), Ok(Some(about))) = (process_of(&name), beside.look(&name)) else {
            continue;
        };
        let ours = about.uid() == rustix::process::geteuid().as_raw() && about.mode() & 0o077 == 0;
        let age = about.modified().ok().and_then(|time| time.elapsed().ok());
        let ended = rustix::process::test_kill_process(process) == Err(Errno::SRCH);
        if about.is_dir() && ours && ended && age.is_some_and(|age| age > LEFT) {
            // It fails if the folder is not empty.
            let _ = beside.remove_folder(&name);
        }
    }
}

/// The process that made the private folder with this name.
fn process_of(name: &OsStr) -> Option<Pid> {
    let numbers = name.to_str()?.strip_prefix(PRIVATE)?;
    let (process, number) = numbers.split_once('-')?;
    number.parse::<u64>().ok()?;
    Pid::from_raw(process.parse().ok().filter(|process| *process > 0)?)
}

/// The name of the new socket in the private folder.
const SOCKET: &str = "socket";
/// The name of a socket that was taken away.
const STALE: &str = "stale";

impl<'a> Private<'a> {
    fn make(beside: &'a Folder) -> io::Result<Self> {
        let process = std::process::id();
        let mut number = 0;
        loop {
            let name = OsString::from(format!("{PRIVATE}{process}-{number}"));
            match beside.make_private(&name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                made => {
                    let folder = made?;
                    return Ok(Self {
                        beside,
                        name,
                        folder,
                    });
                }
            }
        }
    }

    /// Makes the socket, with its group and its mode. Only this user can reach it.
    fn bind(&self, socket: &UnixSocket) -> io::Result<UnixListener> {
        let fd = stream(SocketFlags::empty())?;
        let folder = self.folder.as_fd().as_raw_fd();
        let address = SocketAddrUnix::new(format!("/proc/self/fd/{folder}/{SOCKET}"))?;
        rustix::net::bind(&fd, &address)?;
        if let Some(group) = socket.group {
            let group = Some(Gid::from_raw(group));
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(&self.folder, SOCKET, None, group, flags)?;
        }
        // A mode with permissions of the group lets in the users of an access control list.
        let file = self.folder.look_open(OsStr::new(SOCKET))?;
        acl::remove(&file)?;
        let mode = Mode::from_raw_mode(socket.mode);
        rustix::fs::chmodat(&self.folder, SOCKET, mode, AtFlags::empty())?;
        if acl::is_there(&file)? {
            let message = "the file system keeps an access control list for it";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        rustix::net::listen(&fd, BACKLOG)?;
        Ok(UnixListener::from(fd))
    }

    fn look(&self) -> io::Result<Metadata> {
        let found = self.folder.look(OsStr::new(SOCKET))?;
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Removes a stale socket from its name. Another process may have replaced it meanwhile: that
    /// socket gets its name back.
    fn take_away(&self, stale: &File, name: &OsStr) -> io::Result<()> {
        let away = OsStr::new(STALE);
        match self.beside.move_over(name, &self.folder, away) {
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            moved => moved?,
        }
        match self.folder.remove_if(away, &stale.metadata()?)? {
            true => Ok(()),
            false => self.folder.move_new(away, self.beside, name),
        }
    }
}

impl Drop for Private<'_> {
    fn drop(&mut self) {
        // What is not there needs no removal.
        for name in [SOCKET, STALE] {
            let _ = self.folder.remove(OsStr::new(name));
        }
        let named = self.beside.look(&self.name);
        if let (Ok(Some(named)), Ok(about)) = (named, self.folder.about())
            && same_file(&named, &about)
        {
            let _ = self.beside.remove_folder(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn listen<'a>(path: &Path, watch: &'a Silent) -> Result<(UnixListener, SocketFile<'a>), Error> {
        let mut socket = UnixSocket::new(path);
        socket.trust_directory = true;
        create(&socket, watch)
    }

    fn names(folder: &Path) -> Vec<OsString> {
        let names = std::fs::read_dir(folder).unwrap();
        names.map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn a_stale_socket_is_replaced_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let watch = Silent::default();
        drop(UnixListener::bind(&path).unwrap());
        let (listener, file) = listen(&path, &watch).unwrap();
        UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();
        assert_eq!(names(folder.path()), ["a.sock"]);
        drop(file);
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_server_whose_queue_is_full_is_not_stale() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let socket = stream(SocketFlags::empty()).unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&socket, 0).unwrap();
        let _waiting = UnixStream::connect(&path).unwrap();
        let error = listen(&path, &Silent::default()).err().unwrap();
        assert_eq!(error.kind(), Kind::Busy);
        assert!(error.line().contains("another process listens"), "{error}");
    }

    #[test]
    fn a_socket_that_replaced_a_stale_one_keeps_its_name() {
        let all = tempfile::tempdir().unwrap();
        let path = all.path().join("a.sock");
        drop(UnixListener::bind(&path).unwrap());
        let (folder, name) = Folder::of(&path).unwrap();
        let stale = stale(&folder, &name, &path).unwrap().unwrap();
        std::fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();

        let private = Private::make(&folder).unwrap();
        private.take_away(&stale, &name).unwrap();
        UnixStream::connect(&path).unwrap();
        drop(private);
        assert_eq!(names(all.path()), ["a.sock"]);
    }

    #[test]
    fn an_empty_folder_of_a_killed_server_is_removed() {
        let all = tempfile::tempdir().unwrap();
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let (ended, us) = (ended.id(), std::process::id());
        let old = std::time::SystemTime::now() - 2 * LEFT;
        let make = |name: String, mode, time| {
            let path = all.path().join(&name);
            std::fs::create_dir(&path).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            File::open(path).unwrap().set_modified(time).unwrap();
            OsString::from(name)
        };
        make(format!(".luksmith-{ended}-0"), 0o700, old);
        let mut kept = vec![
            make(
                format!(".luksmith-{ended}-1"),
                0o700,
                std::time::SystemTime::now(),
            ),
            make(format!(".luksmith-{ended}-2"), 0o755, old),
            make(format!(".luksmith-{us}-9"), 0o700, old),
            make(format!(".luksmith-{ended}-x"), 0o700, old),
        ];
        let full = make(format!(".luksmith-{ended}-3"), 0o700, old);
        std::fs::write(all.path().join(&full).join("file"), "").unwrap();
        let time = File::open(all.path().join(&full)).unwrap();
        time.set_modified(old).unwrap();
        kept.extend([full, "a.sock".into()]);

        let watch = Silent::default();
        let (_listener, _file) = listen(&all.path().join("a.sock"), &watch).unwrap();
        let mut left = names(all.path());
        left.sort();
        kept.sort();
        assert_eq!(left, kept);
    }

    #[test]
    fn the_mode_is_not_cut_and_the_path_is_not_shortened() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder
            .path()
            .join("n".repeat(106 - folder.path().as_os_str().len()));
        let watch = Silent::default();
        let mut socket = UnixSocket::new(&long);
        (socket.mode, socket.trust_directory) = (0o666, true);
        let (_listener, _file) = create(&socket, &watch).unwrap();
        assert_eq!(long.metadata().unwrap().mode() & 0o7777, 0o666);
        UnixStream::connect(&long).unwrap();
        let mut longer = long.into_os_string();
        longer.push("mm");
        let error = listen(Path::new(&longer), &watch).err().unwrap();
        assert_eq!(error.advice(), [Advice::ShorterSocketPath]);
    }
}
