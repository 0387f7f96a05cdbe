//! The open connections: ends those that take too long, and waits for all when the server stops.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::net::Shutdown;

use crate::channel::Socket;

/// The open connections, by number.
#[derive(Default)]
pub(super) struct Connections(Mutex<State>);

#[derive(Default)]
struct State {
    open: HashMap<u64, Connection>,
    ended: Vec<JoinHandle<()>>,
    next: u64,
    /// Whether any client has had an export.
    served: bool,
}

struct Connection {
    /// A second handle to the socket, to shut it down.
    socket: Socket,
    /// When the client has to have chosen an export; `None` once it has.
    deadline: Option<Instant>,
    thread: Option<JoinHandle<()>>,
}

impl Connections {
    // No code panics while it holds the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self) -> usize {
        self.state().open.len()
    }

    /// Whether a client has had an export, and no connection is open any more.
    pub(super) fn all_have_left(&self) -> bool {
        let state = self.state();
        state.served && state.open.is_empty()
    }

    /// Ends the handshakes that have taken too long. Returns the earliest deadline of the others.
    pub(super) fn end_late(&self) -> Option<Instant> {
        let (state, now) = (self.state(), Instant::now());
        let deadlines = state.open.values().filter_map(|connection| {
            let deadline = connection.deadline?;
            if deadline <= now {
                connection.socket.shutdown();
                return None;
            }
            Some(deadline)
        });
        deadlines.min()
    }

    /// Receives no further requests. Clients still get the replies to requests that were received.
    pub(super) fn end_requests(&self) {
        for connection in self.state().open.values() {
            // It fails if the client has closed the connection already.
            let _ = rustix::net::shutdown(&connection.socket, Shutdown::Read);
        }
    }

    /// Shuts all connections down, in both directions.
    pub(super) fn end_all(&self) {
        for connection in self.state().open.values() {
            connection.socket.shutdown();
        }
    }

    /// Joins the threads of connections that have ended.
    pub(super) fn reap(&self) {
        let ended = std::mem::take(&mut self.state().ended);
        for thread in ended {
            let _ = thread.join();
        }
    }

    /// Adds a connection whose client has to choose an export before `deadline`. Returns its
    /// number.
    pub(super) fn enter(&self, socket: Socket, deadline: Instant) -> u64 {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        let connection = Connection {
            socket,
            deadline: Some(deadline),
            thread: None,
        };
        state.open.insert(number, connection);
        number
    }

    /// Records the thread of a connection.
    pub(super) fn runs(&self, number: u64, thread: JoinHandle<()>) {
        let mut state = self.state();
        match state.open.get_mut(&number) {
            Some(connection) => connection.thread = Some(thread),
            None => state.ended.push(thread),
        }
    }

    /// Records that the client has an export, and so no deadline.
    pub(super) fn has_export(&self, number: u64) {
        let mut state = self.state();
        state.served = true;
        if let Some(connection) = state.open.get_mut(&number) {
            connection.deadline = None;
        }
    }

    /// Removes a connection.
    pub(super) fn leave(&self, number: u64) {
        let mut state = self.state();
        if let Some(connection) = state.open.remove(&number) {
            state.ended.extend(connection.thread);
        }
    }
}
