//! A connected stream socket, Unix or TCP: system calls that go on after a signal and never raise SIGPIPE.

use std::io::{self, IoSlice};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recv, sendmsg, shutdown,
};

/// The most slices that one sendmsg(2) takes: UIO_MAXIOV.
const MAX_SLICES: usize = 1024;

/// How many bytes may be on their way in a Unix socket, if the system lets them: at its default of 208 KiB, who sends a
/// mebibyte sleeps several times, and is woken only when most of what is there has been read.
const UNIX_ROOM: usize = 2 << 20;

/// A connected stream socket.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    unix: bool,
}

/// A process at the other end of a Unix socket, by SO_PEERCRED.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Its process number.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl From<UnixStream> for Socket {
    /// With room for 2 MiB on the way to the peer, if the system lets it.
    fn from(stream: UnixStream) -> Self {
        let fd = stream.into();
        make_room(&fd);
        Self { fd, unix: true }
    }
}

impl From<TcpStream> for Socket {
    /// Messages go out at once: TCP_NODELAY.
    fn from(stream: TcpStream) -> Self {
        let fd = stream.into();
        no_delay(&fd);
        Self { fd, unix: false }
    }
}

impl TryFrom<OwnedFd> for Socket {
    type Error = io::Error;

    /// A socket that was inherited. That it is a connected stream is up to who gave it; the first use fails otherwise.
    ///
    /// # Errors
    /// When it is not a socket, or neither Unix nor IP.
    fn try_from(fd: OwnedFd) -> io::Result<Self> {
        let unix = match sockopt::socket_domain(&fd)? {
            AddressFamily::UNIX => true,
            AddressFamily::INET | AddressFamily::INET6 => false,
            _ => return Err(Errno::AFNOSUPPORT.into()),
        };
        if unix {
            make_room(&fd);
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
    /// Another handle of the same connection: to shut it down while the first is in a handshake.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn try_clone(&self) -> io::Result<Self> {
        let fd = self.fd.try_clone()?;
        Ok(Self {
            fd,
            unix: self.unix,
        })
    }

    /// As [`Channel::shutdown`](super::Channel::shutdown), for every handle of the connection.
    pub fn shutdown(&self) {
        // It fails where the peer has ended the connection already.
        let _ = shutdown(&self.fd, Shutdown::Both);
    }

    /// As [`Channel::set_timeout`](super::Channel::set_timeout).
    ///
    /// # Errors
    /// What the system says.
    pub fn set_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        // Zero would mean no limit to the kernel.
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
        let peer = sockopt::socket_peercred(&self.fd)
            .ok()
            .filter(|_| self.unix)?;
        Some(Credentials {
            pid: peer.pid.as_raw_nonzero().get(),
            uid: peer.uid.as_raw(),
            gid: peer.gid.as_raw(),
        })
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

    /// Takes what there is without waiting; none where there is nothing.
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

    /// Sends what the socket takes without waiting, and says how much that was: nothing, if it fails.
    pub(super) fn send_now(&self, bytes: &[u8]) -> usize {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        self.send_some(&[IoSlice::new(bytes)], flags).unwrap_or(0)
    }

    fn send_some(&self, parts: &[IoSlice<'_>], flags: SendFlags) -> Result<usize, Errno> {
        let parts = &parts[..parts.len().min(MAX_SLICES)];
        sendmsg(&self.fd, parts, &mut SendAncillaryBuffer::default(), flags)
    }
}

/// The kernel counts its own overhead too: twice what is asked for is what it allows.
fn make_room(fd: &OwnedFd) {
    if let Err(error) = sockopt::set_socket_send_buffer_size(fd, UNIX_ROOM) {
        tracing::debug!(%error, "SO_SNDBUF cannot be set");
    }
}

fn no_delay(fd: &OwnedFd) {
    if let Err(error) = sockopt::set_tcp_nodelay(fd, true) {
        tracing::debug!(%error, "TCP_NODELAY cannot be set");
    }
}

/// A time-out of a socket looks like a call that would block.
fn failed(errno: Errno) -> io::Error {
    match errno {
        Errno::AGAIN => io::ErrorKind::TimedOut.into(),
        errno => errno.into(),
    }
}
