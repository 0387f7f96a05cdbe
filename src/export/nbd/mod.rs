//! The NBD server: volumes for QEMU, libvirt, libnbd's tools, nbdkit, Linux's nbd client (*The NBD protocol*,
//! `doc/proto.md`: fixed newstyle, TLS, structured replies, extended headers, `base:allocation`).
//!
//! Each connection has a thread, which serves its requests one after the other as long as the storage answers from
//! memory; a second one shares long requests with it, where they follow each other. Where the storage waits, requests go to
//! a pool of threads. A client holds up nobody but itself: nothing
//! that is shared is held over a wait for a client, and what is in memory for it is bounded ([`Options`]).
//!
//! Exports share one cache for all connections, their volume's, so a flush on one holds for all. What a client has
//! been told to be flushed is on stable storage, also after a kill.

mod connections;
mod error;
mod execute;
mod flight;
mod handshake;
mod input;
mod listener;
mod replies;
mod second;
mod transmission;
mod vigil;

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Export;
use super::budget::Budget;
use super::pool::Pool;
use crate::backend::IoError;
use crate::channel::ServerTls;
use connections::Connections;
use listener::Wake;
use vigil::Watch;

/// The most bytes that a client writes or reads at once.
const MAX_PAYLOAD: u32 = luksmith_formats::nbd::DEFAULT_PAYLOAD;

/// Long requests are done in pieces of this, in bytes, which stay in the second cache.
const PIECE: u64 = 256 << 10;

/// The rules of a server.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// How many clients at once; more wait until one leaves. Default: 128.
    ///
    /// Each may have about 1.5 MiB in memory for itself, whatever it asks for, and what the system lets its socket hold.
    pub max_connections: usize,
    /// How many bytes of requests may be in memory at once for all clients beyond that. Default: 64 MiB.
    pub max_in_flight: usize,
    /// How many threads wait for slow storage. Default: 128.
    pub max_waiting: usize,
    /// In which time a client has to choose its export. Default: 10 s.
    pub handshake_time: Duration,
    /// How long clients have to take their last answers when the server stops. Default: 5 s.
    pub stop_time: Duration,
    /// Which users may connect, by number; all whom the socket lets in, if none is given. Over TCP nobody can say who
    /// he is, so with this set none may.
    pub allow_uids: Option<Vec<u32>>,
    /// With this, nothing is told or given to anybody but under TLS.
    pub tls: Option<ServerTls>,
    /// Stop when the last client that had an export has left.
    pub exit_when_idle: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_connections: 128,
            max_in_flight: 64 << 20,
            max_waiting: 128,
            handshake_time: Duration::from_secs(10),
            stop_time: Duration::from_secs(5),
            allow_uids: None,
            tls: None,
            exit_when_idle: false,
        }
    }
}

/// Why a server ended that was not to, or how it did.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Two exports have one name.
    #[error("two exports are named {0:?}")]
    SameName(String),
    /// A name or description is no string of the protocol.
    #[error("export {name:?} cannot be told to clients")]
    BadText {
        /// The export's name.
        name: String,
        /// What is wrong.
        source: luksmith_formats::FormatError,
    },
    /// The system refused what every server needs.
    #[error("cannot {doing}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// What clients have written may not be on stable storage.
    #[error("the last flush of export {name:?} failed")]
    Flush {
        /// The export's name.
        name: String,
        /// What the storage said.
        source: IoError,
    },
}

/// Where clients connect: a socket that listens.
#[derive(Debug)]
pub enum Listener {
    /// A Unix socket.
    Unix(UnixListener),
    /// A TCP socket.
    Tcp(TcpListener),
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(listener) => listener.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        }
    }
}

/// Exports and the rules by which clients get them.
pub struct Server {
    shared: Arc<Shared>,
}

/// What connections share.
struct Shared {
    exports: Vec<Arc<Export>>,
    options: Options,
    budget: Arc<Budget>,
    pool: Pool,
    watch: Watch,
    stopping: Arc<AtomicBool>,
    connections: Connections,
    wake: Arc<Wake>,
}

impl Server {
    /// A server of these exports, which nobody can reach before [`run`](Self::run).
    ///
    /// # Errors
    /// [`ServeError::SameName`], [`ServeError::BadText`], [`ServeError::System`].
    pub fn new(
        exports: impl IntoIterator<Item: Into<Arc<Export>>>,
        options: Options,
    ) -> Result<Self, ServeError> {
        let exports: Vec<Arc<Export>> = exports.into_iter().map(Into::into).collect();
        for (n, export) in exports.iter().enumerate() {
            for text in [export.name(), export.description()] {
                luksmith_formats::nbd::check_string(text, "text").map_err(|source| {
                    ServeError::BadText {
                        name: export.name().to_owned(),
                        source,
                    }
                })?;
            }
            if exports[..n]
                .iter()
                .any(|other| other.name() == export.name())
            {
                return Err(ServeError::SameName(export.name().to_owned()));
            }
        }
        let wake = Arc::new(Wake::new()?);
        let shared = Shared {
            exports,
            budget: Arc::new(Budget::new(options.max_in_flight)),
            pool: Pool::new("nbd-waits", options.max_waiting),
            watch: Watch::new(std::thread::available_parallelism().map_or(1, usize::from)),
            stopping: Arc::default(),
            connections: Connections::default(),
            wake,
            options,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// What stops this server, from any thread.
    pub fn stopper(&self) -> Stopper {
        Stopper {
            stopping: self.shared.stopping.clone(),
            wake: self.shared.wake.clone(),
        }
    }

    /// Serves whoever connects, until it is stopped; then whatever was asked before is answered, and everything is
    /// flushed. No thread of this server is left when it returns.
    ///
    /// # Errors
    /// [`ServeError::System`] at the beginning, [`ServeError::Flush`] at the end.
    pub fn run(&self, listeners: Vec<Listener>) -> Result<(), ServeError> {
        let listened = listener::listen(&self.shared, &listeners);
        drop(listeners);
        self.shared.stopping.store(true, Ordering::Release);
        listener::wait_for_all(&self.shared);
        self.shared.pool.close();
        let flushed = self.shared.exports.iter().map(|export| {
            export.flush().map_err(|source| ServeError::Flush {
                name: export.name().to_owned(),
                source,
            })
        });
        // All of them, whatever one says.
        let flushed: Vec<_> = flushed.collect();
        flushed.into_iter().collect::<Result<(), _>>().and(listened)
    }
}

impl Shared {
    /// The export of this name; the only one, or that without a name, by no name.
    fn find(&self, name: &str) -> Option<Arc<Export>> {
        let named = self.exports.iter().find(|export| export.name() == name);
        match (&self.exports[..], named) {
            (_, Some(export)) => Some(export.clone()),
            ([only], None) if name.is_empty() => Some(only.clone()),
            _ => None,
        }
    }
}

/// Stops a server.
#[derive(Clone)]
pub struct Stopper {
    stopping: Arc<AtomicBool>,
    wake: Arc<Wake>,
}

impl Stopper {
    /// Asks the server to stop: no new client, no new request.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake.up();
    }
}
