//! The connections that are up at the same time.
//!
//! There are several only where the server promises that a flush on one holds for all (`NBD_FLAG_CAN_MULTI_CONN`). One alone is
//! made at first; the others are made beside it when requests queue up on it, and no request waits for them: a server that has
//! enough clients may leave them hanging. Where one breaks, all are given up.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use luksmith_formats::nbd::TransmissionFlags;
use luksmith_formats::nbd::uri::Uri;

use super::connection::Connection;
use super::error::Problem;
use super::handshake;
use super::receive;
use super::witness::Witness;

/// So many requests in flight on one connection make others worth their while.
const BUSY: usize = 4;

/// How long the handshake of a further connection may take.
const PATIENCE: Duration = Duration::from_secs(3);

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

    /// The connection with the least to do.
    pub(super) fn pick(self: &Arc<Self>, uri: &Uri, witness: &Arc<Witness>) -> &Arc<Connection> {
        if self.first.load() >= BUSY && !self.growing.swap(true, Ordering::Relaxed) {
            let (session, uri, witness) = (self.clone(), uri.clone(), witness.clone());
            let grow = move || session.grow(&uri, &witness);
            let thread = std::thread::Builder::new().name("nbd connector".to_owned());
            // Without a thread there are fewer connections.
            drop(thread.spawn(grow));
        }
        self.connections()
            .min_by_key(|connection| connection.load())
            .unwrap_or(&self.first)
    }

    /// Makes the other connections; a server that does not want them, or shows something else there, is left with fewer.
    fn grow(&self, uri: &Uri, witness: &Witness) {
        for other in &self.others {
            let made = handshake::connect(uri, PATIENCE).and_then(|(channel, export)| {
                if export != self.first.export {
                    return Ok(None);
                }
                let server = uri.to_string().into();
                let (journal, patience) = (self.first.journal.clone(), self.first.patience());
                let made = receive::start(channel, export, server, journal, patience)?;
                match witness.recognise(&made) {
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
                    // Whoever closed the session has seen it, or is seen here.
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

    pub(super) fn say_goodbye(&self) {
        self.connections()
            .for_each(|connection| connection.say_goodbye());
    }

    /// Ends all connections; see [`Connection::close`].
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.connections().for_each(|connection| connection.close());
    }
}
