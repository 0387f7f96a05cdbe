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

mod connection;
mod connections;
mod error;
mod execute;
mod handshake;
mod in_flight;
mod input;
mod listener;
mod options;
mod peer;
mod replies;
mod second_thread;
mod serve_error;
mod shared;
mod stopping;
mod transmission;

use std::sync::Arc;

pub use listener::Listener;
pub use options::Options;
pub use serve_error::ServeError;

use super::Export;
use super::budget::Budget;
use super::busy_poll::BusyPollers;
use super::pool::Pool;
use super::refusals::Refusals;
use super::wake::Wake;
use connections::Connections;
use shared::Shared;
use stopping::Stopping;

/// A server of exports. It can be stopped from any thread ([`stopper`](Self::stopper)).
pub struct Server {
    shared: Arc<Shared>,
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
        let wake = Wake::new().map_err(|source| ServeError::System {
            doing: "make an event",
            source,
        })?;
        let wake = Arc::new(wake);
        let shared = Shared {
            exports,
            budget: Arc::new(Budget::new(options.max_in_flight)),
            pool: Pool::new("nbd-waits", options.max_waiting),
            busy_pollers: BusyPollers::of_this_machine(),
            stopping: Arc::default(),
            connections: Connections::new(&options),
            refusals: Refusals::default(),
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
    /// the requests received before, and flushes every export: at once, so that slow requests of
    /// one client do not delay what others have written, and again at the end. All threads of the
    /// server have ended when this returns.
    ///
    /// # Errors
    /// [`ServeError::System`] at the beginning, [`ServeError::Flush`] at the end.
    pub fn run(&self, listeners: Vec<Listener>) -> Result<(), ServeError> {
        let listened = listener::listen(&self.shared, &listeners);
        drop(listeners);
        self.shared.stopping.ask();
        let early = std::thread::scope(|scope| {
            // A thread for each: storage that hangs delays only its own export. Without a thread,
            // the export is flushed at the end only.
            let begin = |export| {
                let thread = std::thread::Builder::new().name("nbd-flush".to_owned());
                thread.spawn_scoped(scope, move || flush(export)).ok()
            };
            let flushes: Vec<_> = self.shared.exports.iter().map(begin).collect();
            listener::wait_for_all(&self.shared);
            self.shared.pool.close();
            let done = flushes.into_iter().flatten();
            done.filter_map(|flush| flush.join().ok())
                .collect::<Vec<_>>()
        });
        self.shared.refusals.finish();
        // Every export is flushed, even if one fails. After a failure each later flush only repeats
        // it, so the first one is the one to tell.
        let last: Vec<_> = self.shared.exports.iter().map(flush).collect();
        let flushed = early.into_iter().chain(last);
        flushed.collect::<Result<(), _>>().and(listened)
    }
}

fn flush(export: &Arc<Export>) -> Result<(), ServeError> {
    export.flush().map_err(|source| ServeError::Flush {
        name: export.name().to_owned(),
        source,
    })
}

/// Stops a server; see [`Server::stopper`].
#[derive(Clone)]
pub struct Stopper {
    stopping: Arc<Stopping>,
    wake: Arc<Wake>,
}

impl Stopper {
    /// Asks the server to stop: it accepts no further client and no further request.
    pub fn stop(&self) {
        self.stopping.ask();
        self.wake.up();
    }
}
