//! A stream to a peer, over a Unix or TCP socket, with or without TLS, as server or as client.
//!
//! One thread can receive from a [`Channel`] while any number of threads send. A receiver that
//! waits does not delay the senders, not even with TLS: the state of the encryption is locked only
//! while bytes are encrypted or decrypted, never during a system call. Without TLS, a channel adds
//! nothing to the cost of `recv(2)` and `sendmsg(2)`.
//!
//! TLS is version 1.2 or 1.3, by `rustls`. Sessions are not resumed, so every connection verifies
//! the certificates. A channel never falls back to a stream without TLS: if TLS is asked for, a
//! peer that does not support it is an error.

mod algorithm;
mod credentials;
mod error;
mod reason;
mod socket;
#[cfg(test)]
mod tests;
mod tls;

pub use credentials::{ClientTls, ServerTls};
pub use error::TlsError;
pub use reason::Reason;
pub use socket::{Credentials, Socket};

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tls::Tls;

/// A connection to a peer.
pub struct Channel {
    socket: Socket,
    /// Held while a message is sent. With TLS it contains the encrypted bytes that the socket has
    /// not taken yet.
    sending: Mutex<Vec<u8>>,
    tls: Option<Tls>,
    shut: AtomicBool,
}

impl Channel {
    /// A channel without TLS, for a peer that is trusted by other means, such as the mode of a Unix
    /// socket or the loopback interface.
    #[must_use]
    pub fn plain(socket: Socket) -> Self {
        Self::new(socket, None)
    }

    /// Starts TLS as the client. The peer must have a certificate for `server_name` (a DNS name or
    /// an IP address) that an authority in `credentials` has signed. The caller must not have
    /// received bytes beyond the point where TLS starts.
    ///
    /// # Errors
    /// [`TlsError`]. With TLS 1.3 the server refuses a client certificate only after the handshake;
    /// then the first [`recv`](Self::recv) fails with the [`TlsError`] as its source.
    pub fn connect_tls(
        socket: Socket,
        credentials: &ClientTls,
        server_name: &str,
    ) -> Result<Self, TlsError> {
        Self::connect_tls_while(socket, credentials, server_name, &|| Ok(()))
    }

    /// As [`connect_tls`](Self::connect_tls), but `go_on` is called at least ten times each second
    /// during the handshake. If it returns an error, the handshake ends with that error.
    pub(crate) fn connect_tls_while(
        socket: Socket,
        credentials: &ClientTls,
        server_name: &str,
        go_on: &dyn Fn() -> io::Result<()>,
    ) -> Result<Self, TlsError> {
        let tls = Tls::connect(&socket, credentials, server_name, go_on)?;
        Ok(Self::new(socket, Some(tls)))
    }

    /// Starts TLS as the server. If `credentials` name an authority for clients, the peer must have
    /// a certificate that it has signed.
    ///
    /// The caller must not have received bytes beyond the point where TLS starts. If the client
    /// sent some, the caller has to close the connection: bytes that came without TLS must not be
    /// taken for bytes that came with it.
    ///
    /// # Errors
    /// [`TlsError`]. The peer gets the matching alert, where TLS has one.
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

    /// The socket, to start TLS on it. Bytes that were received from the channel are not in it any
    /// more.
    #[must_use]
    pub fn into_socket(self) -> Socket {
        self.socket
    }

    /// Waits for bytes and receives as many as are there and fit. Returns 0 at the end of the
    /// stream and after [`shutdown`](Self::shutdown).
    ///
    /// # Errors
    /// - [`io::ErrorKind::TimedOut`] after the time of [`set_timeout`](Self::set_timeout). The
    ///   channel stays usable.
    /// - [`io::ErrorKind::UnexpectedEof`] if a TLS stream ends without `close_notify`: it was cut
    ///   off.
    /// - [`io::ErrorKind::InvalidData`] with a [`TlsError`] as its source.
    /// - Other errors of the system.
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

    /// Receives as many bytes as are there and fit, without waiting. `None` if there are none, and
    /// always with TLS.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), except the timeout.
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
    /// As [`recv`](Self::recv), and [`io::ErrorKind::UnexpectedEof`] if the stream ends before
    /// `buf` is full. After a timeout some bytes may have been received already.
    pub fn recv_exact(&self, mut buf: &mut [u8]) -> io::Result<()> {
        while !buf.is_empty() {
            match self.recv(buf)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => buf = &mut buf[n..],
            }
        }
        Ok(())
    }

    /// Sends all of `parts` in order, as one message: messages of other threads come before or
    /// after it. The slices are advanced over the bytes that were sent.
    ///
    /// # Errors
    /// Errors of the system, and [`io::ErrorKind::TimedOut`]. A part of the message may have been
    /// sent, so the channel must not be used for sending any more.
    pub fn send(&self, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        match &self.tls {
            None => {
                let _turn = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
                self.socket.send_all(parts)
            }
            Some(tls) => {
                let mut send = |parts: &mut [IoSlice<'_>]| self.socket.send_all(parts);
                tls.send(&self.socket, &self.sending, parts, &mut send)
            }
        }
    }

    /// As [`send`](Self::send), but never waits in the system for longer than a tenth of a second:
    /// `go_on` is called with the number of bytes that the socket has taken since the last call,
    /// which can be 0. If it returns an error, the wait ends with that error.
    pub(crate) fn send_while(
        &self,
        parts: &mut [IoSlice<'_>],
        go_on: &mut dyn FnMut(usize) -> io::Result<()>,
    ) -> io::Result<()> {
        match &self.tls {
            None => {
                let _turn = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
                self.socket.send_all_while(parts, go_on)
            }
            Some(tls) => {
                let mut send =
                    |parts: &mut [IoSlice<'_>]| self.socket.send_all_while(parts, &mut *go_on);
                tls.send(&self.socket, &self.sending, parts, &mut send)
            }
        }
    }

    /// Ends the connection in both directions. A waiting receiver gets 0, a waiting sender an
    /// error. With TLS the peer gets `close_notify`, if that can be sent without waiting.
    pub fn shutdown(&self) {
        self.shut.store(true, Ordering::Release);
        if let Some(tls) = &self.tls {
            tls.close_notify(&self.socket, &self.sending);
        }
        self.socket.shutdown();
    }

    /// Sets the longest time that one system call of `recv` or `send` waits. `None`, the default,
    /// is for no limit.
    ///
    /// # Errors
    /// Errors of the system.
    pub fn set_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        self.socket.set_timeout(limit)
    }

    /// Whether the stream is under TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The certificate of the peer, in DER. `None` without TLS, and if the peer has none.
    #[must_use]
    pub fn peer_certificate(&self) -> Option<Vec<u8>> {
        self.tls.as_ref().and_then(Tls::peer_certificate)
    }

    /// The process at the other end of a Unix socket, at the time when it connected. `None` for
    /// TCP.
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
