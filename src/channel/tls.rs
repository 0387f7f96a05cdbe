//! TLS over a socket, for one reader and many senders.
//!
//! The connection's state is behind a mutex that is held while bytes are turned and never over a system call. What
//! it gives to send reaches the socket in its order, because only who holds the turn of the senders takes it out.

use std::io::{self, IoSlice, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, Connection, ServerConnection};

use super::credentials::{ClientTls, ServerTls};
use super::error::TlsError;
use super::socket::Socket;

/// Records hold 16 KiB at most; several come with one system call.
const INCOMING: usize = 128 * 1024;

pub(super) struct Tls {
    connection: Mutex<Connection>,
    incoming: Mutex<Incoming>,
}

/// Encrypted bytes from the socket that the connection has not taken yet.
struct Incoming {
    bytes: Box<[u8]>,
    begin: usize,
    end: usize,
    /// No more will come.
    ended: bool,
}

impl Tls {
    pub(super) fn connect(
        socket: &Socket,
        credentials: &ClientTls,
        server_name: &str,
    ) -> Result<Self, TlsError> {
        let name = ServerName::try_from(server_name.to_owned()).map_err(|_| TlsError::Name {
            name: server_name.to_owned(),
        })?;
        let connection = ClientConnection::new(Arc::clone(&credentials.config), name)
            .map_err(TlsError::handshake)?;
        Self::begin(socket, connection.into(), credentials.handshake_time)
    }

    pub(super) fn accept(socket: &Socket, credentials: &ServerTls) -> Result<Self, TlsError> {
        let connection =
            ServerConnection::new(Arc::clone(&credentials.config)).map_err(TlsError::handshake)?;
        Self::begin(socket, connection.into(), credentials.handshake_time)
    }

    fn begin(
        socket: &Socket,
        mut connection: Connection,
        within: Duration,
    ) -> Result<Self, TlsError> {
        let before = socket.timeout().map_err(TlsError::Io)?;
        let mut stream = Handshake {
            socket,
            until: Instant::now() + within,
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
            let (taken, answers) = self.turn_incoming(&mut incoming, buf);
            if answers {
                self.send_answers(socket, sending);
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

    /// Decrypts what has come until `buf` is full or nothing is left, and says whether TLS itself has something to
    /// send. `WouldBlock`: more has to come first.
    fn turn_incoming(&self, incoming: &mut Incoming, buf: &mut [u8]) -> (io::Result<usize>, bool) {
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
                // It says so again whenever it is asked; the socket is of no use any more.
                incoming.ended = true;
                break Err(TlsError::handshake(error).into());
            }
        };
        let taken = match taken {
            // What is wrong comes up again, after the bytes that were right.
            Err(_) if filled > 0 => Ok(filled),
            taken => taken,
        };
        (taken, connection.wants_write())
    }

    /// Sends what TLS itself has to say (an alert, a new key) unless a sender is at it, which takes it along.
    fn send_answers(&self, socket: &Socket, sending: &Mutex<Vec<u8>>) {
        while self.connection().wants_write() {
            let mut outgoing = match sending.try_lock() {
                Ok(outgoing) => outgoing,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            if self.turn_outgoing(&mut outgoing, &[]).is_err() {
                return;
            }
            // A reader must not wait for a peer that does not read: what is left goes before the next message.
            let gone = socket.send_now(&outgoing);
            outgoing.drain(..gone);
        }
    }

    pub(super) fn send(
        &self,
        socket: &Socket,
        sending: &Mutex<Vec<u8>>,
        mut parts: &mut [IoSlice<'_>],
    ) -> io::Result<()> {
        {
            let mut outgoing = sending.lock().unwrap_or_else(PoisonError::into_inner);
            IoSlice::advance_slices(&mut parts, 0);
            while !parts.is_empty() {
                let turned = self.turn_outgoing(&mut outgoing, parts)?;
                IoSlice::advance_slices(&mut parts, turned);
                socket.send_all(&mut [IoSlice::new(&outgoing)])?;
                outgoing.clear();
            }
        }
        self.send_answers(socket, sending);
        Ok(())
    }

    /// Encrypts the beginning of `parts`, as much as the connection holds, onto `outgoing`, and says how much.
    fn turn_outgoing(&self, outgoing: &mut Vec<u8>, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut connection = self.connection();
        let turned = connection.writer().write_vectored(parts)?;
        while connection.wants_write() {
            connection.write_tls(outgoing)?;
        }
        if turned == 0 && !parts.is_empty() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(turned)
    }

    /// Tells the peer that this is the end, without waiting for it or for a sender.
    pub(super) fn say_goodbye(&self, socket: &Socket, sending: &Mutex<Vec<u8>>) {
        self.connection().send_close_notify();
        self.send_answers(socket, sending);
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The socket during the handshake, which as a whole has to end in time.
struct Handshake<'a> {
    socket: &'a Socket,
    until: Instant,
}

impl Handshake<'_> {
    fn limit(&self) -> io::Result<()> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.socket.set_timeout(Some(left))
    }
}

impl Read for Handshake<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.limit()?;
        self.socket.recv(buf)
    }
}

impl Write for Handshake<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    /// A whole flight at once: a peer that does not like its beginning still gets to say why.
    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.limit()?;
        self.socket.send_all(&mut parts.to_vec())?;
        Ok(parts.iter().map(|part| part.len()).sum())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
