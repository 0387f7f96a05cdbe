//! A connected stream socket, Unix or TCP. Its system calls are retried after a signal and never
//! raise SIGPIPE.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, getpeername, recv, sendmsg,
    shutdown,
};

use crate::sys::peer;

/// The most slices that one sendmsg(2) takes: UIO_MAXIOV.
const MAX_SLICES: usize = 1024;

/// The size of the send buffer of a Unix socket, in bytes, if the system allows it. With the
/// default of 208 KiB, a thread that sends a mebibyte sleeps several times, and is woken only when
/// the peer has read most of the buffer.
const UNIX_SEND_BUFFER: usize = 2 << 20;

/// The longest wait before a caller is asked whether to go on.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// A connected stream socket.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    unix: bool,
}

/// The process at the other end of a Unix socket, by SO_PEERCRED.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Its process number. 0 if this process cannot see it, as in another container.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl From<UnixStream> for Socket {
    /// Sets a send buffer of 2 MiB, if the system allows it.
    fn from(stream: UnixStream) -> Self {
        let fd = stream.into();
        set_send_buffer(&fd);
        Self { fd, unix: true }
    }
}

impl From<TcpStream> for Socket {
    /// Sets TCP_NODELAY: messages are sent without delay.
    fn from(stream: TcpStream) -> Self {
        let fd = stream.into();
        no_delay(&fd);
        Self { fd, unix: false }
    }
}

impl TryFrom<OwnedFd> for Socket {
    type Error = io::Error;

    /// A socket that was inherited. Whether it is a connected stream is not checked; if it is not,
    /// its first use fails.
    ///
    /// # Errors
    /// If it is not a socket, or neither Unix nor IP.
    fn try_from(fd: OwnedFd) -> io::Result<Self> {
        let unix = match sockopt::socket_domain(&fd)? {
            AddressFamily::UNIX => true,
            AddressFamily::INET | AddressFamily::INET6 => false,
            _ => return Err(Errno::AFNOSUPPORT.into()),
        };
        if unix {
            set_send_buffer(&fd);
        } else {
            no_delay(&fd);
        }
        Ok(Self { fd, unix })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// A second handle of the same connection, to shut it down while the first is in use.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn try_clone(&self) -> io::Result<Self> {
        let fd = self.fd.try_clone()?;
        Ok(Self {
            fd,
            unix: self.unix,
        })
    }

    /// As [`Channel::shutdown`](super::Channel::shutdown), for every handle of the connection.
    pub fn shutdown(&self) {
        // It fails if the peer has closed the connection already.
        let _ = shutdown(&self.fd, Shutdown::Both);
    }

    /// As [`Channel::set_timeout`](super::Channel::set_timeout).
    ///
    /// # Errors
    /// Errors of the system.
    pub fn set_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        // For the kernel, zero is no limit.
        let limit = limit.map(|limit| limit.max(Duration::from_millis(1)));
        sockopt::set_socket_timeout(&self.fd, Timeout::Recv, limit)?;
        sockopt::set_socket_timeout(&self.fd, Timeout::Send, limit)?;
        Ok(())
    }

    pub(super) fn timeout(&self) -> io::Result<Option<Duration>> {
        Ok(sockopt::socket_timeout(&self.fd, Timeout::Recv)?)
    }

    /// As [`Channel::peer_credentials`](super::Channel::peer_credentials).
    #[must_use]
    pub fn peer_credentials(&self) -> Option<Credentials> {
        let peer = peer::credentials(self.fd.as_fd())
            .ok()
            .filter(|_| self.unix)?;
        Some(Credentials {
            pid: peer.pid,
            uid: peer.uid,
            gid: peer.gid,
        })
    }

    /// The address at the other end of a TCP socket. `None` for a Unix socket, or if the peer has
    /// left.
    #[must_use]
    pub fn peer_address(&self) -> Option<SocketAddr> {
        let address = getpeername(&self.fd).ok().flatten()?;
        SocketAddr::try_from(address).ok()
    }

    pub(super) fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match recv(&self.fd, &mut *buf, RecvFlags::empty()) {
                Ok((n, _)) => return Ok(n),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
    }

    /// Receives what is there, without waiting; `None` if nothing is there.
    pub(super) fn recv_now(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        match recv(&self.fd, buf, RecvFlags::DONTWAIT) {
            Ok((n, _)) => Ok(Some(n)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(errno) => Err(failed(errno)),
        }
    }

    pub(super) fn send_all(&self, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            match self.send_some(parts, SendFlags::NOSIGNAL) {
                Ok(n) => IoSlice::advance_slices(&mut parts, n),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        Ok(())
    }

    /// As [`send_all`](Self::send_all); see [`Channel::send_while`](super::Channel::send_while).
    pub(super) fn send_all_while(
        &self,
        mut parts: &mut [IoSlice<'_>],
        go_on: &mut dyn FnMut(usize) -> io::Result<()>,
    ) -> io::Result<()> {
        let look = Timespec::try_from(LOOK).ok();
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            let mut taken = 0;
            match self.send_some(parts, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(n) => {
                    IoSlice::advance_slices(&mut parts, n);
                    taken = n;
                }
                Err(Errno::AGAIN) => {
                    match poll(&mut [PollFd::new(&self.fd, PollFlags::OUT)], look.as_ref()) {
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
            if !parts.is_empty() {
                go_on(taken)?;
            }
        }
        Ok(())
    }

    /// Sends what the socket accepts without waiting, and returns how many bytes that was; 0 if it
    /// fails.
    pub(super) fn send_now(&self, bytes: &[u8]) -> usize {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        self.send_some(&[IoSlice::new(bytes)], flags).unwrap_or(0)
    }

    fn send_some(&self, parts: &[IoSlice<'_>], flags: SendFlags) -> Result<usize, Errno> {
        let parts = &parts[..parts.len().min(MAX_SLICES)];
        sendmsg(&self.fd, parts, &mut SendAncillaryBuffer::default(), flags)
    }
}

/// The kernel doubles the size that is asked for, to account for its own overhead.
fn set_send_buffer(fd: &OwnedFd) {
    if let Err(error) = sockopt::set_socket_send_buffer_size(fd, UNIX_SEND_BUFFER) {
        tracing::debug!(%error, "SO_SNDBUF cannot be set");
    }
}

fn no_delay(fd: &OwnedFd) {
    if let Err(error) = sockopt::set_tcp_nodelay(fd, true) {
        tracing::debug!(%error, "TCP_NODELAY cannot be set");
    }
}

/// When a socket times out, the system call fails as if it would block.
fn failed(errno: Errno) -> io::Error {
    match errno {
        Errno::AGAIN => io::ErrorKind::TimedOut.into(),
        errno => errno.into(),
    }
}
