//! The NBD server, for clients such as QEMU, libvirt, libnbd's tools, nbdkit and Linux's nbd
//! client.
//!
//! It implements *The NBD protocol* (`doc/proto.md` of the NBD project): the fixed newstyle
//! handshake, TLS, structured replies, extended headers, and the metadata context
//! `base:allocation`.
//!
//! Each connection has a thread. While the storage answers from memory, that thread serves the
//! requests one after the other, and a second thread of the connection takes part where long
//! requests follow each other. While the storage makes its callers wait, requests go to a pool of
//! threads.
//!
//! A slow client delays only itself: nothing that connections share is held while a thread waits
//! for a client, and the memory for its requests is bounded ([`Options`]).
//!
//! All connections to an export use the same volume, so a flush on one connection is a flush for
//! all. Data for which a client got the reply to a flush is on stable storage, even if the server
//! is killed.

mod busy_poll;
mod connections;
mod error;
mod execute;
mod handshake;
mod in_flight;
mod input;
mod listener;
mod replies;
mod second_thread;
mod transmission;

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
use busy_poll::BusyPollers;
use connections::Connections;
use listener::Wake;

/// The most bytes that a client can write or read with one request.
const MAX_PAYLOAD: u32 = luksmith_formats::nbd::DEFAULT_PAYLOAD;

/// The pieces in which a long request is done, in bytes. They stay in the second-level cache.
const PIECE: u64 = 256 << 10;

/// Limits of a server and rules for its clients.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// The most clients at once. Further ones wait until one leaves. Default: 128.
    ///
    /// Each can occupy about 1.5 MiB of memory, whatever it asks for, besides the buffers of its
    /// socket in the kernel.
    pub max_connections: usize,
    /// The most bytes of requests in memory at once, for all clients together, beyond those
    /// 1.5 MiB for each. Default: 64 MiB.
    pub max_in_flight: usize,
    /// The most threads that wait for slow storage. Default: 128.
    pub max_waiting: usize,
    /// The time within which a client has to choose its export. Default: 10 s.
    pub handshake_time: Duration,
    /// The time that clients have to receive their last replies when the server stops. Default:
    /// 5 s.
    pub stop_time: Duration,
    /// The numbers of the users that can connect. `None` is for every user whom the permissions of
    /// the socket admit. If it is set, no client can connect over TCP, where its user is not known.
    pub allow_uids: Option<Vec<u32>>,
    /// If it is set, clients learn and get nothing before they have started TLS.
    pub tls: Option<ServerTls>,
    /// Stop when the last client has left, once any client has had an export.
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

/// Why a server could not start or did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Two exports have the same name.
    #[error("two exports are named {0:?}")]
    SameName(String),
    /// A name or description cannot be a string of the protocol.
    #[error("the name or description of export {name:?} is not valid in NBD")]
    BadText {
        /// The export's name.
        name: String,
        /// What is wrong.
        source: luksmith_formats::FormatError,
    },
    /// The system refused something that every server needs.
    #[error("cannot {doing}")]
    System {
        /// The operation that failed.
        doing: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// Data that clients have written may not be on stable storage.
    #[error("the last flush of export {name:?} failed")]
    Flush {
        /// The export's name.
        name: String,
        /// The error of the storage.
        source: IoError,
    },
}

/// A listening socket to which clients connect.
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

/// A server of exports. It can be stopped from any thread ([`stopper`](Self::stopper)).
pub struct Server {
    shared: Arc<Shared>,
}

/// What all connections share.
struct Shared {
    exports: Vec<Arc<Export>>,
    options: Options,
    budget: Arc<Budget>,
    pool: Pool,
    busy_pollers: BusyPollers,
    stopping: Arc<AtomicBool>,
    connections: Connections,
    wake: Arc<Wake>,
}

impl Server {
    /// A server of these exports. Clients cannot reach it before [`run`](Self::run). An export can
    /// be shared with other servers as an `Arc`.
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
            busy_pollers: BusyPollers::new(
                std::thread::available_parallelism().map_or(1, usize::from),
            ),
            stopping: Arc::default(),
            connections: Connections::default(),
            wake,
            options,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// A handle that stops this server, from any thread.
    pub fn stopper(&self) -> Stopper {
        Stopper {
            stopping: self.shared.stopping.clone(),
            wake: self.shared.wake.clone(),
        }
    }

    /// Serves the clients that connect to `listeners` until the server is stopped. Then replies to
    /// the requests received before, and flushes every export. All threads of the server have ended
    /// when this returns.
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
        // Every export is flushed, even if one fails.
        let flushed: Vec<_> = flushed.collect();
        flushed.into_iter().collect::<Result<(), _>>().and(listened)
    }
}

impl Shared {
    /// The export of this name. The empty name also finds the only export, whatever its name is.
    fn find(&self, name: &str) -> Option<Arc<Export>> {
        let named = self.exports.iter().find(|export| export.name() == name);
        match (&self.exports[..], named) {
            (_, Some(export)) => Some(export.clone()),
            ([only], None) if name.is_empty() => Some(only.clone()),
            _ => None,
        }
    }
}

/// Stops a server; see [`Server::stopper`].
#[derive(Clone)]
pub struct Stopper {
    stopping: Arc<AtomicBool>,
    wake: Arc<Wake>,
}

impl Stopper {
    /// Asks the server to stop: it accepts no further client and no further request.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake.up();
    }
}
