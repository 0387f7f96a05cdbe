//! The file to which a Unix socket is bound: `unix_diag` of `sock_diag(7)`.
//!
//! The address of a socket is only the path that it had when it was bound. Another file may have
//! that path now, which says nothing about the users who can connect to the socket.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::fstat;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

/// `SOCK_DIAG_BY_FAMILY`
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST`
const REQUEST: u16 = 1;
/// `UDIAG_SHOW_VFS`, and the number of the attribute in the answer
const SHOW_VFS: u32 = 2;
const VFS: u16 = 1;
/// The bytes of `struct nlmsghdr`, and of `struct unix_diag_msg`.
const HEADER: usize = 16;
const MESSAGE: usize = 16;

/// The number of the inode to which this socket is bound, or its low 32 bits, which are all that
/// the kernel says. `None` if the kernel says nothing: `unix_diag` is not there, the service may
/// have no netlink socket, or the socket is of another network namespace.
///
/// The kernel also says the device, but on btrfs and overlayfs not the one that `stat(2)` says.
pub(crate) fn inode(socket: BorrowedFd<'_>) -> Option<u32> {
    ask(socket).ok().and_then(|answer| vfs(&answer))
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the kernel compares these bits of the number"
)]
fn ask(socket: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let number = fstat(socket)?.st_ino as u32;
    let length = 40_u32;
    let no_cookie = u32::MAX;
    let mut request = Vec::new();
    request.extend(length.to_ne_bytes());
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend(REQUEST.to_ne_bytes());
    // The sequence number, and the port of the sender, which the kernel fills in.
    request.extend([0; 8]);
    // struct unix_diag_req: the family, the protocol, padding, and sockets in every state.
    request.extend([AddressFamily::UNIX.as_raw() as u8, 0, 0, 0]);
    for field in [u32::MAX, number, SHOW_VFS, no_cookie, no_cookie] {
        request.extend(field.to_ne_bytes());
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let protocol = Some(netlink::SOCK_DIAG);
    let kernel =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, protocol)?;
    rustix::net::send(&kernel, &request, SendFlags::empty())?;
    // The kernel has put its answer into the queue before it returned.
    let mut buffer = [MaybeUninit::uninit(); 1024];
    let ((answer, _), _) = rustix::net::recv(&kernel, &mut buffer, RecvFlags::empty())?;
    Ok(answer.to_vec())
}

/// The inode in an answer.
fn vfs(answer: &[u8]) -> Option<u32> {
    let short = |at: usize| Some(u16::from_ne_bytes(*answer.get(at..)?.first_chunk()?));
    let long = |at: usize| Some(u32::from_ne_bytes(*answer.get(at..)?.first_chunk()?));
    if short(4)? != BY_FAMILY {
        return None;
    }
    let mut at = HEADER + MESSAGE;
    loop {
        let length = usize::from(short(at)?);
        if short(at + 2)? == VFS {
            return long(at + 4);
        }
        // Each attribute is padded to four bytes.
        at += length.max(4).next_multiple_of(4);
    }
}

/// Whether a socket is bound to the file that is open here. `None` if the kernel does not say.
#[allow(
    clippy::cast_possible_truncation,
    reason = "the kernel says only these bits of the number"
)]
pub(crate) fn is_bound_to(socket: BorrowedFd<'_>, file: &impl AsFd) -> io::Result<Option<bool>> {
    let there = fstat(file)?.st_ino as u32;
    Ok(inode(socket).map(|bound| bound == there))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::sys::folder::Folder;

    #[test]
    fn a_socket_is_bound_to_its_file_wherever_that_is_moved() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let look = |name: &str| {
            let (folder, name) = Folder::of(&path(name)).unwrap();
            folder.look_open(&name).unwrap()
        };
        let one = UnixListener::bind(path("one")).unwrap();
        let Some(_) = inode(one.as_fd()) else {
            // This kernel has no unix_diag.
            return;
        };
        let other = UnixListener::bind(path("other")).unwrap();
        let bound = |socket: &UnixListener, name| is_bound_to(socket.as_fd(), &look(name)).unwrap();
        assert_eq!(bound(&one, "one"), Some(true));
        assert_eq!(bound(&one, "other"), Some(false));
        std::fs::rename(path("one"), path("moved")).unwrap();
        std::fs::rename(path("other"), path("one")).unwrap();
        assert_eq!(bound(&one, "one"), Some(false));
        assert_eq!(bound(&one, "moved"), Some(true));
        assert_eq!(bound(&other, "one"), Some(true));
    }

    #[test]
    fn an_answer_that_is_cut_says_nothing() {
        let mut answer = vec![0; HEADER + MESSAGE];
        answer[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
        assert_eq!(vfs(&answer), None);
        // An attribute before it, of 5 bytes, is padded.
        answer.extend([5_u16.to_ne_bytes(), 6_u16.to_ne_bytes()].concat());
        answer.extend([0; 4]);
        answer.extend([12_u16.to_ne_bytes(), VFS.to_ne_bytes()].concat());
        answer.extend(7_u32.to_ne_bytes());
        assert_eq!(vfs(&answer), Some(7));
        assert_eq!(vfs(&answer[..answer.len() - 1]), None);
        assert_eq!(vfs(&[]), None);
    }
}
