//! TLS over a socket, for one receiver and many senders.
//!
//! The mutex of the connection's state is held while bytes are encrypted or decrypted, and never
//! during a system call. Encrypted bytes reach the socket in the order in which the connection
//! produced them, because a thread takes them out only while it holds the lock of the senders.

use std::io::{self, IoSlice, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, Connection, ServerConnection};

use super::credentials::{ClientTls, ServerTls};
use super::error::TlsError;
use super::socket::{LOOK, Socket};

/// The size of the buffer for encrypted bytes. A record is at most 16 KiB, so one system call can
/// receive several.
const INCOMING: usize = 128 * 1024;

pub(super) struct Tls {
    connection: Mutex<Connection>,
    incoming: Mutex<Incoming>,
}

/// Encrypted bytes from the socket that have not been decrypted yet.
struct Incoming {
    bytes: Box<[u8]>,
    begin: usize,
    end: usize,
    /// Whether no more bytes follow.
    ended: bool,
}

impl Tls {
    pub(super) fn connect(
        socket: &Socket,
        credentials: &ClientTls,
        server_name: &str,
        go_on: &dyn Fn() -> io::Result<()>,
    ) -> Result<Self, TlsError> {
        let name = ServerName::try_from(server_name.to_owned()).map_err(|_| TlsError::Name {
            name: server_name.to_owned(),
        })?;
        let connection = ClientConnection::new(Arc::clone(&credentials.config), name)
            .map_err(TlsError::handshake)?;
        Self::begin(socket, connection.into(), credentials.handshake_time, go_on)
    }

    pub(super) fn accept(socket: &Socket, credentials: &ServerTls) -> Result<Self, TlsError> {
        let connection =
            ServerConnection::new(Arc::clone(&credentials.config)).map_err(TlsError::handshake)?;
        let time = credentials.handshake_time;
        Self::begin(socket, connection.into(), time, &|| Ok(()))
    }

    fn begin(
        socket: &Socket,
        mut connection: Connection,
        within: Duration,
        go_on: &dyn Fn() -> io::Result<()>,
    ) -> Result<Self, TlsError> {
        let before = socket.timeout().map_err(TlsError::Io)?;
        let mut stream = Handshake {
            socket,
            until: Instant::now() + within,
            go_on,
        };
        connection
            .complete_io(&mut stream)
            .map_err(TlsError::of_io)?;
        socket.set_timeout(before).map_err(TlsError::Io)?;
        Ok(Self {
            connection: Mutex::new(connection),
            incoming: Mutex::new(Incoming {
                bytes: vec![0; INCOMING].into_boxed_slice(),
                begin: 0,
                end: 0,
                ended: false,
            }),
        })
    }

    pub(super) fn recv(
        &self,
        socket: &Socket,
        sending: &Mutex<Vec<u8>>,
        buf: &mut [u8],
    ) -> io::Result<usize> {
        let mut incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let (taken, has_output) = self.decrypt(&mut incoming, buf);
            if has_output {
                self.send_own(socket, sending);
            }
            match taken {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                taken => return taken,
            }
            incoming.begin = 0;
            incoming.end = 0;
            incoming.end = socket.recv(&mut incoming.bytes)?;
            incoming.ended = incoming.end == 0;
        }
    }

    /// Decrypts received bytes until `buf` is full or no bytes are left. Also returns whether TLS
    /// itself has something to send. `WouldBlock` means that more bytes have to be received first.
    fn decrypt(&self, incoming: &mut Incoming, buf: &mut [u8]) -> (io::Result<usize>, bool) {
        let mut connection = self.connection();
        let mut filled = 0;
        let taken = loop {
            match connection.reader().read(&mut buf[filled..]) {
                Ok(0) => break Ok(filled),
                Ok(n) => {
                    filled += n;
                    continue;
                }
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => break Err(error),
                Err(_) => {}
            }
            if incoming.begin == incoming.end && !incoming.ended {
                break Err(io::ErrorKind::WouldBlock.into());
            }
            let mut left = &incoming.bytes[incoming.begin..incoming.end];
            match connection.read_tls(&mut left) {
                Ok(_) => incoming.begin = incoming.end - left.len(),
                Err(error) => break Err(error),
            }
            if let Err(error) = connection.process_new_packets() {
                // The connection repeats this error on every call. Nothing more is received.
                incoming.ended = true;
                break Err(TlsError::handshake(error).into());
            }
        };
        let taken = match taken {
            // The error occurs again on the next call, after these valid bytes.
            Err(_) if filled > 0 => Ok(filled),
            taken => taken,
        };
        (taken, connection.wants_write())
    }

    /// Sends messages of TLS itself, such as an alert or a key update. If a sender is active, it
    /// sends them.
    fn send_own(&self, socket: &Socket, sending: &Mutex<Vec<u8>>) {
        while self.connection().wants_write() {
            let mut outgoing = match sending.try_lock() {
                Ok(outgoing) => outgoing,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            if self.encrypt(&mut outgoing, &[]).is_err() {
                return;
            }
            // A receiver must not wait for a peer that does not read. The rest is sent before the
            // next message.
            let sent = socket.send_now(&outgoing);
            outgoing.drain(..sent);
        }
    }

    pub(super) fn send(
        &self,
        socket: &Socket,
        sending: &Mutex<Vec<u8>>,
        mut parts: &mut [IoSlice<'_>],
        send: &mut dyn FnMut(&mut [IoSlice<'_>]) -> io::Result<()>,
    ) -> io::Result<()> {
        {
            let mut outgoing = sending.lock().unwrap_or_else(PoisonError::into_inner);
            IoSlice::advance_slices(&mut parts, 0);
            while !parts.is_empty() {
                let encrypted = self.encrypt(&mut outgoing, parts)?;
                IoSlice::advance_slices(&mut parts, encrypted);
                send(&mut [IoSlice::new(&outgoing)])?;
                outgoing.clear();
            }
        }
        self.send_own(socket, sending);
        Ok(())
    }

    /// Encrypts the beginning of `parts`, as much as the connection takes, and appends it to
    /// `outgoing`. Returns how many bytes of `parts` that was.
    fn encrypt(&self, outgoing: &mut Vec<u8>, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut connection = self.connection();
        let encrypted = connection.writer().write_vectored(parts)?;
        while connection.wants_write() {
            connection.write_tls(outgoing)?;
        }
        if encrypted == 0 && !parts.is_empty() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(encrypted)
    }

    /// Tells the peer that the stream ends, without waiting for the peer or for a sender.
    pub(super) fn close_notify(&self, socket: &Socket, sending: &Mutex<Vec<u8>>) {
        self.connection().send_close_notify();
        self.send_own(socket, sending);
    }

    pub(super) fn peer_certificate(&self) -> Option<Vec<u8>> {
        let connection = self.connection();
        let chain = connection.peer_certificates()?;
        Some(chain.first()?.as_ref().to_vec())
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The socket during the handshake, with a deadline for the handshake as a whole.
struct Handshake<'a> {
    socket: &'a Socket,
    until: Instant,
    go_on: &'a dyn Fn() -> io::Result<()>,
}

impl Handshake<'_> {
    /// The time that is left, or an error if there is none.
    fn left(&self) -> io::Result<Duration> {
        (self.go_on)()?;
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(left)
    }
}

impl Read for Handshake<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            self.socket.set_timeout(Some(self.left()?.min(LOOK)))?;
            match self.socket.recv(buf) {
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                received => return received,
            }
        }
    }
}

impl Write for Handshake<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    /// Sends a whole flight (a sequence of handshake messages) at once. A peer that rejects the
    /// first message can then still send its alert.
    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let go_on = &mut |_| self.left().map(drop);
        self.socket.send_all_while(&mut parts.to_vec(), go_on)?;
        Ok(parts.iter().map(|part| part.len()).sum())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
