//! The connections to the server that are open at the same time.
//!
//! There are several only if the server promises that a flush on one is a flush for all
//! (`NBD_FLAG_CAN_MULTI_CONN`). At first only one is opened. The others are opened by a thread of
//! their own once requests queue up on the first. No request waits for that, because a server that
//! has reached its limit of clients may let further ones wait. If one connection breaks, all are
//! closed.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use luksmith_formats::nbd::TransmissionFlags;
use luksmith_formats::nbd::uri::Uri;

use super::connection::Connection;
use super::error::Problem;
use super::handshake;
use super::identity::Identity;
use super::receive;

/// With this many requests in flight on the first connection, the others are opened.
const BUSY: usize = 4;

/// The time limit for the handshake of a further connection.
const HANDSHAKE_TIME: Duration = Duration::from_secs(3);

pub(super) struct Session {
    first: Arc<Connection>,
    others: Vec<OnceLock<Arc<Connection>>>,
    growing: AtomicBool,
    closed: AtomicBool,
}

impl Session {
    pub(super) fn new(first: Arc<Connection>, most: usize) -> Self {
        let many = first.export.has(TransmissionFlags::CAN_MULTI_CONN);
        let others = if many { most.saturating_sub(1) } else { 0 };
        Self {
            first,
            others: (0..others).map(|_| OnceLock::new()).collect(),
            growing: AtomicBool::new(others == 0),
            closed: AtomicBool::new(false),
        }
    }

    fn connections(&self) -> impl Iterator<Item = &Arc<Connection>> {
        std::iter::once(&self.first).chain(self.others.iter().filter_map(OnceLock::get))
    }

    pub(super) fn is_broken(&self) -> bool {
        self.connections().any(|connection| connection.is_broken())
    }

    /// The connection with the fewest requests in flight.
    pub(super) fn pick(self: &Arc<Self>, uri: &Uri, identity: &Arc<Identity>) -> &Arc<Connection> {
        if self.first.load() >= BUSY && !self.growing.swap(true, Ordering::Relaxed) {
            let (session, uri, identity) = (self.clone(), uri.clone(), identity.clone());
            let grow = move || session.grow(&uri, &identity);
            let thread = std::thread::Builder::new().name("nbd connector".to_owned());
            // If the thread cannot be started, there are fewer connections.
            drop(thread.spawn(grow));
        }
        self.connections()
            .min_by_key(|connection| connection.load())
            .unwrap_or(&self.first)
    }

    /// Opens the other connections. Stops at the first one that fails or has another export.
    fn grow(&self, uri: &Uri, identity: &Identity) {
        for other in &self.others {
            let patience = self.first.patience();
            let extents = self.first.export.allocation.is_some();
            let connected = handshake::connect(uri, extents, HANDSHAKE_TIME, patience);
            let made = connected.and_then(|(channel, export)| {
                if !export.is_like(&self.first.export) {
                    return Ok(None);
                }
                let server = uri.to_string().into();
                let (journal, patience) = (self.first.journal.clone(), patience.clone());
                let made = receive::start(channel, export, server, journal, patience)?;
                match identity.recognise(&made) {
                    Ok(()) => Ok(Some(made)),
                    Err(problem) => {
                        made.close();
                        Err(problem)
                    }
                }
            });
            match made {
                Ok(Some(connection)) => {
                    let connection = other.get_or_init(|| connection);
                    // Either `close` sees this connection, or this sees that `close` was called.
                    fence(Ordering::SeqCst);
                    if self.closed.load(Ordering::SeqCst) {
                        return connection.close();
                    }
                }
                Ok(None) => return,
                Err(problem @ Problem::OtherDisk) => {
                    tracing::warn!(
                        target: "luksmith::state",
                        "{uri}: {problem}, over a further connection; it is not used"
                    );
                    return;
                }
                Err(problem) => {
                    tracing::debug!(%uri, %problem, "no further connection");
                    return;
                }
            }
        }
    }

    pub(super) fn disconnect(&self) {
        self.connections()
            .for_each(|connection| connection.disconnect());
    }

    /// Ends all connections; see [`Connection::close`].
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.connections().for_each(|connection| connection.close());
    }
}
