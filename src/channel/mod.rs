//! A stream to a peer: Unix or TCP, plain or under TLS, as server or as client.
//!
//! A [`Channel`] is used by one reader and any number of senders at once. A reader that waits holds up no sender, also
//! under TLS: the state of the encryption is locked only while bytes are turned, never over a system call. A plain
//! channel adds nothing to the cost of `recv(2)` and `sendmsg(2)`.
//!
//! TLS is version 1.2 or 1.3 by `rustls`, without resumption: each connection shows its certificates anew. What a
//! channel must never do is fall back: once TLS is wanted, a peer that does not speak it is an error.

mod credentials;
mod error;
mod socket;
#[cfg(test)]
mod tests;
mod tls;

pub use credentials::{ClientTls, ServerTls};
pub use error::TlsError;
pub use socket::{Credentials, Socket};

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tls::Tls;

/// A connection to a peer.
pub struct Channel {
    socket: Socket,
    /// Who sends a message; under TLS with the bytes that are on their way to the socket.
    sending: Mutex<Vec<u8>>,
    tls: Option<Tls>,
    shut: AtomicBool,
}

impl Channel {
    /// The socket as it is, for a peer that is trusted by other means: a Unix socket's mode, the loopback.
    #[must_use]
    pub fn plain(socket: Socket) -> Self {
        Self::new(socket, None)
    }

    /// Speaks TLS as the client: the peer must have a certificate for `server_name` (a DNS name or an IP address) of
    /// an authority of `credentials`. Nothing may have been read from the socket beyond the point where TLS starts.
    ///
    /// # Errors
    /// [`TlsError`]. With TLS 1.3 a server that refuses our certificate says so only after the handshake: then the
    /// first [`recv`](Self::recv) fails, with the [`TlsError`] as the error's source.
    pub fn connect_tls(
        socket: Socket,
        credentials: &ClientTls,
        server_name: &str,
    ) -> Result<Self, TlsError> {
        let tls = Tls::connect(&socket, credentials, server_name)?;
        Ok(Self::new(socket, Some(tls)))
    }

    /// Speaks TLS as the server: where `credentials` name an authority for clients, the peer must have a certificate
    /// of it. Nothing may have been read from the socket beyond the point where TLS starts: bytes that came in plain
    /// before TLS must not be taken for something that came under it, so drop a peer that sent some.
    ///
    /// # Errors
    /// [`TlsError`]; the peer was told why, where TLS has a word for it.
    pub fn accept_tls(socket: Socket, credentials: &ServerTls) -> Result<Self, TlsError> {
        let tls = Tls::accept(&socket, credentials)?;
        Ok(Self::new(socket, Some(tls)))
    }

    fn new(socket: Socket, tls: Option<Tls>) -> Self {
        Self {
            socket,
            sending: Mutex::default(),
            tls,
            shut: AtomicBool::new(false),
        }
    }

    /// The bare socket, to go on under TLS. What has been read from the channel is gone from it.
    #[must_use]
    pub fn into_socket(self) -> Socket {
        self.socket
    }

    /// Waits for bytes and takes as many as there are and fit; 0 at the end, and after [`shutdown`](Self::shutdown).
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] by [`set_timeout`](Self::set_timeout), and the channel stays usable;
    /// [`io::ErrorKind::UnexpectedEof`] when a TLS stream ends without its last word, as it does when somebody cuts
    /// it; [`io::ErrorKind::InvalidData`] with a [`TlsError`] as its source; what the system says.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        let received = match &self.tls {
            None => self.socket.recv(buf),
            Some(tls) => tls.recv(&self.socket, &self.sending, buf),
        };
        match received {
            Err(_) if self.shut.load(Ordering::Acquire) => Ok(0),
            received => received,
        }
    }

    /// Takes as many bytes as there are and fit, without waiting for any: none where there are none. Not under TLS, where
    /// there never seem to be any.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), but for the time-out.
    pub fn recv_now(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        if self.tls.is_some() {
            return Ok(None);
        }
        match self.socket.recv_now(buf) {
            Err(_) if self.shut.load(Ordering::Acquire) => Ok(Some(0)),
            received => received,
        }
    }

    /// Fills all of `buf`.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`io::ErrorKind::UnexpectedEof`] when the stream ends before. After a time-out some
    /// bytes may have been taken already.
    pub fn recv_exact(&self, mut buf: &mut [u8]) -> io::Result<()> {
        while !buf.is_empty() {
            match self.recv(buf)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => buf = &mut buf[n..],
            }
        }
        Ok(())
    }

    /// Sends all of `parts`, in order, as one piece: what others send at the same time comes before or after it. The
    /// slices are used up: they are left advanced over what was sent.
    ///
    /// # Errors
    /// What the system says, [`io::ErrorKind::TimedOut`] among it. Part of the message may have gone: the channel is
    /// of no use for sending any more.
    pub fn send(&self, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        match &self.tls {
            None => {
                let _turn = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
                self.socket.send_all(parts)
            }
            Some(tls) => tls.send(&self.socket, &self.sending, parts),
        }
    }

    /// Ends the connection both ways. A reader that waits gets 0, a sender that waits an error. Under TLS the peer is told,
    /// if that can be done without waiting.
    pub fn shutdown(&self) {
        self.shut.store(true, Ordering::Release);
        if let Some(tls) = &self.tls {
            tls.say_goodbye(&self.socket, &self.sending);
        }
        self.socket.shutdown();
    }

    /// The longest that one system call of `recv` or `send` may wait; `None` waits for ever, as a new channel does.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        self.socket.set_timeout(limit)
    }

    /// Whether the stream is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Who is at the other end of a Unix socket, as of when it connected; none on TCP.
    #[must_use]
    pub fn peer_credentials(&self) -> Option<Credentials> {
        self.socket.peer_credentials()
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel")
            .field("socket", &self.socket)
            .field("tls", &self.is_tls())
            .finish_non_exhaustive()
    }
}
