//! File systems in a process (`fuse(4)`): their device, and mounting and unmounting them, with or
//! without the helper for ordinary users, `fusermount3`.
#![allow(unsafe_code)] // ioctl(2) has no type

use std::ffi::{CString, OsStr};
use std::io::{self, IoSliceMut, Read as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{Setter, ioctl, opcode};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
};

use super::folder::Folder;

/// The type of the file systems of this program, by which it knows them again.
pub(crate) const KIND: &str = "fuse.luksmith";
const SUBTYPE: &str = "luksmith";

const DEVICE: &str = "/dev/fuse";
const HELPERS: [&str; 4] = [
    "/usr/bin/fusermount3",
    "/bin/fusermount3",
    "/usr/local/bin/fusermount3",
    "/run/wrappers/bin/fusermount3",
];

/// The command of `/dev/fuse` with which a new descriptor joins the file system of another one.
const CLONE: rustix::ioctl::Opcode = opcode::read::<u32>(229, 0);

/// How a file system is mounted.
#[derive(Debug, Clone)]
pub(crate) struct How {
    /// What lists of mounted file systems show as their source.
    pub(crate) source: String,
    pub(crate) read_only: bool,
    /// Users other than this one have access, root too.
    pub(crate) allow_other: bool,
}

/// Why a file system was not mounted by the helper.
#[derive(Debug)]
pub(crate) enum HelperError {
    /// There is no helper.
    Missing(io::Error),
    /// The helper said this.
    Refused(String),
    System(io::Error),
}

impl HelperError {
    /// Whether the file system is in use.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self, Self::System(error) if error.kind() == io::ErrorKind::ResourceBusy)
    }
}

impl From<io::Error> for HelperError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// Opens the device, for one file system.
pub(crate) fn open_device() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::open(DEVICE, flags, Mode::empty())?)
}

/// Another descriptor of the device, for the same file system.
pub(crate) fn clone_device(device: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let new = open_device()?;
    let number = u32::try_from(device.as_raw_fd())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: this command of the device reads a number of 32 bits.
    let clone = unsafe { Setter::<CLONE, u32>::new(number) };
    // SAFETY: `clone` is the command of this device, and changes no memory of this process.
    unsafe { ioctl(&new, clone) }?;
    Ok(new)
}

/// Mounts a file system whose root is a regular file over the file that is open as `at`. It is
/// served through `device`.
pub(crate) fn mount(device: BorrowedFd<'_>, at: BorrowedFd<'_>, how: &How) -> io::Result<()> {
    let user = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    let mut options = format!(
        "fd={},rootmode=100000,user_id={user},group_id={group},default_permissions",
        device.as_raw_fd()
    );
    if how.allow_other {
        options.push_str(",allow_other");
    }
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    flags.set(MountFlags::RDONLY, how.read_only);
    let target = format!("/proc/self/fd/{}", at.as_raw_fd());
    let options = CString::new(options)?;
    rustix::mount::mount(how.source.as_str(), target, KIND, flags, options.as_c_str())?;
    Ok(())
}

/// Mounts it by the helper, which only takes a path. Returns the device.
pub(crate) fn mount_by_helper(at: &Path, how: &How) -> Result<OwnedFd, HelperError> {
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(io::Error::from)?;
    let source = how.source.replace('\\', "\\\\").replace(',', "\\,");
    let mut options = format!("fsname={source},subtype={SUBTYPE},default_permissions");
    for (wanted, option) in [(how.read_only, ",ro"), (how.allow_other, ",allow_other")] {
        if wanted {
            options.push_str(option);
        }
    }
    let mut helper = start_helper(Stdio::from(theirs), |command| {
        command.env("_FUSE_COMMFD", "0");
        command.args(["-o", &options, "--"]).arg(at);
    })?;
    let device = receive_descriptor(ours.as_fd());
    let mut said = String::new();
    if let Some(stderr) = &mut helper.stderr {
        // What cannot be read is only missing in a message.
        let _ = stderr.take(4096).read_to_string(&mut said);
    }
    let ended = helper.wait()?;
    match device? {
        Some(device) => Ok(device),
        None if said.trim().is_empty() => Err(HelperError::Refused(ended.to_string())),
        None => Err(HelperError::Refused(words(&said))),
    }
}

/// What the helper said, without its name.
fn words(said: &str) -> String {
    let lines = said.lines().map(|line| {
        let mut line = line.trim();
        // It calls itself by its path too.
        while let Some((name, rest)) = line.split_once(": ") {
            match name.ends_with("fusermount3") {
                true => line = rest,
                false => break,
            }
        }
        line
    });
    lines.collect::<Vec<_>>().join("; ")
}

fn start_helper(
    stdin: Stdio,
    arguments: impl Fn(&mut Command),
) -> Result<std::process::Child, HelperError> {
    let Some(program) = HELPERS.iter().find(|program| Path::new(program).exists()) else {
        return Err(HelperError::Missing(io::ErrorKind::NotFound.into()));
    };
    let mut command = Command::new(program);
    command.env_clear();
    arguments(&mut command);
    command.stdin(stdin).stdout(Stdio::null());
    command
        .stderr(Stdio::piped())
        .spawn()
        .map_err(HelperError::Missing)
}

/// The descriptor that comes through a socket; `None` if the other end was closed before.
fn receive_descriptor(socket: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut passed = RecvAncillaryBuffer::new(&mut space);
    loop {
        let mut parts = [IoSliceMut::new(&mut byte)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        match rustix::net::recvmsg(socket, &mut parts, &mut passed, flags) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let descriptors = passed.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok(descriptors.flatten().next())
}

/// Unmounts what is mounted over a name in a folder. If `lazy`, it only loses the name, and is
/// unmounted when its users have closed it.
///
/// # Errors
/// Failed system calls, and what the helper said.
pub(crate) fn unmount(folder: &Folder, name: &OsStr, lazy: bool) -> Result<(), HelperError> {
    let mut path = format!("/proc/self/fd/{}/", folder.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name.as_bytes());
    let mut flags = UnmountFlags::NOFOLLOW;
    flags.set(UnmountFlags::DETACH, lazy);
    match rustix::mount::unmount(path, flags) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => unmount_by_helper(&folder.path_now()?.join(name), lazy),
        Err(error) => Err(io::Error::from(error).into()),
    }
}

fn unmount_by_helper(path: &Path, lazy: bool) -> Result<(), HelperError> {
    let helper = start_helper(Stdio::null(), |command| {
        command.arg("-u");
        if lazy {
            command.arg("-z");
        }
        command.arg("--").arg(path);
    })?;
    let output = helper.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = words(&String::from_utf8_lossy(&output.stderr));
    match said.contains("busy") {
        true => Err(HelperError::System(Errno::BUSY.into())),
        false => Err(HelperError::Refused(said)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_helper_says_is_one_line() {
        let said = "fusermount3: /usr/bin/fusermount3: a: b\nfusermount3: c\n";
        assert_eq!(words(said), "a: b; c");
    }

    #[test]
    fn a_descriptor_comes_through_a_socket_or_its_end() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let fds = [file.as_fd()];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut message = rustix::net::SendAncillaryBuffer::new(&mut space);
        assert!(message.push(rustix::net::SendAncillaryMessage::ScmRights(&fds)));
        let parts = [io::IoSlice::new(b"x")];
        let flags = rustix::net::SendFlags::empty();
        rustix::net::sendmsg(&theirs, &parts, &mut message, flags).unwrap();
        assert!(receive_descriptor(ours.as_fd()).unwrap().is_some());
        drop(theirs);
        assert!(receive_descriptor(ours.as_fd()).unwrap().is_none());
    }
}
