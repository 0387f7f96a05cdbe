//! The connections that are up at the same time.
//!
//! There are several only where the server promises that a flush on one holds for all (`NBD_FLAG_CAN_MULTI_CONN`). One alone is
//! made at first; the others come when requests queue up on it. Where one of them breaks, all are given up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use luksmith_formats::nbd::TransmissionFlags;
use luksmith_formats::nbd::uri::Uri;

use super::connection::Connection;
use super::handshake;
use super::journal::Journal;

/// So many requests in flight on one connection make others worth their while.
const BUSY: usize = 4;

pub(super) struct Session {
    first: Arc<Connection>,
    others: Vec<OnceLock<Arc<Connection>>>,
    growing: AtomicBool,
}

impl Session {
    pub(super) fn new(first: Arc<Connection>, most: usize) -> Self {
        let many = first.export.has(TransmissionFlags::CAN_MULTI_CONN);
        let others = if many { most.saturating_sub(1) } else { 0 };
        Self {
            first,
            others: (0..others).map(|_| OnceLock::new()).collect(),
            growing: AtomicBool::new(others == 0),
        }
    }

    fn connections(&self) -> impl Iterator<Item = &Arc<Connection>> {
        std::iter::once(&self.first).chain(self.others.iter().filter_map(OnceLock::get))
    }

    pub(super) fn is_broken(&self) -> bool {
        self.connections().any(|connection| connection.is_broken())
    }

    /// The connection with the least to do.
    pub(super) fn pick(&self, uri: &Uri, patience: Duration) -> &Arc<Connection> {
        if self.first.load() >= BUSY && !self.growing.swap(true, Ordering::Relaxed) {
            self.grow(uri, patience);
        }
        self.connections()
            .min_by_key(|connection| connection.load())
            .unwrap_or(&self.first)
    }

    /// Makes the other connections; a server that does not want them, or shows something else there, is left with fewer.
    fn grow(&self, uri: &Uri, patience: Duration) {
        for other in &self.others {
            let made = handshake::connect(uri, patience).and_then(|(channel, export)| {
                if export != self.first.export {
                    return Ok(None);
                }
                let (server, journal) = (uri.to_string().into(), self.journal());
                Connection::start(channel, export, server, journal).map(Some)
            });
            match made {
                Ok(Some(connection)) => {
                    let _ = other.set(connection);
                }
                Ok(None) => break,
                Err(problem) => {
                    tracing::debug!(%uri, %problem, "no further connection");
                    break;
                }
            }
        }
    }

    fn journal(&self) -> Arc<Journal> {
        self.first.journal.clone()
    }

    pub(super) fn say_goodbye(&self) {
        self.connections()
            .for_each(|connection| connection.say_goodbye());
    }

    /// Ends all connections; see [`Connection::close`].
    pub(super) fn close(&self) {
        self.connections().for_each(|connection| connection.close());
    }
}
