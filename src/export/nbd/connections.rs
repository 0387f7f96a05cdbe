//! The open connections and their places: ends those that take too long, and waits for all when the
//! server stops.
//!
//! Handshakes have places of their own, so that connections on which nothing happens do not keep
//! clients out. When these are full, the next client gets the place of the connection that was
//! silent longest. A client that has chosen an export waits until there is a place among those that
//! are served. No peer gets more than its share of either.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::net::Shutdown;

use super::options::Options;
use super::peer::{Client, Peer};
use crate::channel::Socket;

/// The open connections, by number.
pub(super) struct Connections {
    limits: Limits,
    state: Mutex<State>,
    /// A connection has left, or the server stops.
    changed: Condvar,
}

struct Limits {
    served: usize,
    served_of_peer: usize,
    handshakes: usize,
    handshakes_of_peer: usize,
}

#[derive(Default)]
struct State {
    open: HashMap<u64, Connection>,
    ended: Vec<JoinHandle<()>>,
    next: u64,
    /// Whether any client has had an export.
    served: bool,
    /// Whether the server stops.
    stopping: bool,
}

struct Connection {
    /// A second handle to the socket, to shut it down.
    socket: Socket,
    client: Client,
    phase: Phase,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Handshake {
        /// When the client has to have chosen an export.
        deadline: Instant,
        /// When the client last sent a whole message.
        active: Instant,
    },
    /// The client has chosen an export and waits for a place.
    Waiting,
    Served,
    /// The connection was shut down, and its thread ends soon.
    Closed,
}

/// Whether a client that has connected got a place.
pub(super) enum Entered {
    /// The client has the place of this number.
    Placed(u64),
    /// The client has the place of this number, for which the connection of this other client was
    /// closed.
    InPlaceOf(u64, Client),
    /// The peer of the client has as many connections as it may have, and all of them wait for a
    /// place.
    Refused,
}

impl Connections {
    pub(super) fn new(options: &Options) -> Self {
        let served = options.max_connections.max(1);
        let handshakes = options.max_handshakes.max(1);
        Self {
            limits: Limits {
                served,
                served_of_peer: options
                    .clients_per_peer
                    .unwrap_or(served.div_ceil(2))
                    .max(1),
                handshakes,
                handshakes_of_peer: handshakes.div_ceil(2),
            },
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    // No code panics while it holds the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self) -> usize {
        self.state().open.len()
    }

    /// Whether a client that connects now can get a place. If not, it is not accepted yet.
    pub(super) fn has_room(&self) -> bool {
        let waiting = |connection: &&Connection| connection.phase == Phase::Waiting;
        self.state().open.values().filter(waiting).count() < self.limits.handshakes
    }

    /// Whether a client has had an export, and no connection is open any more.
    pub(super) fn all_have_left(&self) -> bool {
        let state = self.state();
        state.served && state.open.is_empty()
    }

    /// Ends the handshakes that have taken too long. Returns the earliest deadline of the others.
    pub(super) fn end_late(&self) -> Option<Instant> {
        let (mut state, now) = (self.state(), Instant::now());
        let deadlines = state.open.values_mut().filter_map(|connection| {
            let Phase::Handshake { deadline, .. } = connection.phase else {
                return None;
            };
            if deadline <= now {
                connection.close();
                return None;
            }
            Some(deadline)
        });
        deadlines.min()
    }

    /// Receives no further requests. Clients still get the replies to requests that were received.
    pub(super) fn end_requests(&self) {
        let mut state = self.state();
        state.stopping = true;
        for connection in state.open.values() {
            // It fails if the client has closed the connection already.
            let _ = rustix::net::shutdown(&connection.socket, Shutdown::Read);
        }
        self.changed.notify_all();
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

    /// Adds a connection whose client has to choose an export before `deadline`.
    pub(super) fn enter(&self, socket: Socket, client: Client, deadline: Instant) -> Entered {
        let mut state = self.state();
        let of_peer = |connection: &Connection| connection.client.peer == client.peer;
        let all = |_: &Connection| true;
        let replaced = if state.handshakes(of_peer) >= self.limits.handshakes_of_peer {
            state.end_silent_longest(of_peer).map(Some)
        } else if state.handshakes(all) >= self.limits.handshakes {
            state.end_silent_longest(all).map(Some)
        } else {
            Some(None)
        };
        let Some(replaced) = replaced else {
            return Entered::Refused;
        };
        let number = state.next;
        state.next += 1;
        let active = Instant::now();
        let connection = Connection {
            socket,
            client,
            phase: Phase::Handshake { deadline, active },
            thread: None,
        };
        state.open.insert(number, connection);
        match replaced {
            Some(client) => Entered::InPlaceOf(number, client),
            None => Entered::Placed(number),
        }
    }

    /// Records the thread of a connection.
    pub(super) fn runs(&self, number: u64, thread: JoinHandle<()>) {
        let mut state = self.state();
        match state.open.get_mut(&number) {
            Some(connection) => connection.thread = Some(thread),
            None => state.ended.push(thread),
        }
    }

    /// Records that the client has sent a whole message of the handshake.
    pub(super) fn is_active(&self, number: u64) {
        if let Some(connection) = self.state().open.get_mut(&number)
            && let Phase::Handshake { active, .. } = &mut connection.phase
        {
            *active = Instant::now();
        }
    }

    /// Records that the client has chosen an export, and that it is this peer. Waits until there is
    /// a place for it. Returns false if there is none when the server stops, or if the connection
    /// was closed.
    pub(super) fn take_place(&self, number: u64, peer: Peer) -> bool {
        let mut state = self.state();
        match state.open.get_mut(&number) {
            Some(connection) if matches!(connection.phase, Phase::Handshake { .. }) => {
                connection.client.peer = peer;
                connection.phase = Phase::Waiting;
            }
            _ => return false,
        }
        loop {
            if state.next_to_be_served(&self.limits) == Some(number) {
                if let Some(connection) = state.open.get_mut(&number) {
                    connection.phase = Phase::Served;
                }
                state.served = true;
                // There may be a place for the next one too.
                self.changed.notify_all();
                return true;
            }
            if state.stopping {
                return false;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Removes a connection.
    pub(super) fn leave(&self, number: u64) {
        let mut state = self.state();
        if let Some(connection) = state.open.remove(&number) {
            state.ended.extend(connection.thread);
        }
        self.changed.notify_all();
    }
}

impl State {
    /// How many connections that `counts` accepts have a place among the handshakes.
    fn handshakes(&self, counts: impl Fn(&Connection) -> bool) -> usize {
        let in_handshake = |connection: &&Connection| {
            let phase = connection.phase;
            matches!(phase, Phase::Handshake { .. } | Phase::Waiting) && counts(connection)
        };
        self.open.values().filter(in_handshake).count()
    }

    /// Closes the connection that was silent longest in its handshake, and returns its client.
    /// `None` if there is none.
    fn end_silent_longest(&mut self, counts: impl Fn(&Connection) -> bool) -> Option<Client> {
        let silent = self
            .open
            .values_mut()
            .filter_map(|connection| match connection.phase {
                Phase::Handshake { active, .. } if counts(connection) => Some((active, connection)),
                _ => None,
            });
        let (_, connection) = silent.min_by_key(|(active, _)| *active)?;
        connection.close();
        Some(connection.client.clone())
    }

    /// The client that has waited longest, of those for which there is a place.
    fn next_to_be_served(&self, limits: &Limits) -> Option<u64> {
        let served = || {
            let all = self.open.values();
            all.filter(|connection| connection.phase == Phase::Served)
        };
        if served().count() >= limits.served {
            return None;
        }
        let waiting = self.open.iter().filter(|(_, connection)| {
            let peer = &connection.client.peer;
            connection.phase == Phase::Waiting
                && served().filter(|other| other.client.peer == *peer).count()
                    < limits.served_of_peer
        });
        waiting.map(|(number, _)| *number).min()
    }
}

impl Connection {
    fn close(&mut self) {
        self.phase = Phase::Closed;
        self.socket.shutdown();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    fn connections(served: usize, handshakes: usize) -> Connections {
        Connections::new(&Options {
            max_connections: served,
            max_handshakes: handshakes,
            ..Options::default()
        })
    }

    fn client(pid: i32) -> Client {
        Client::process(pid, 0)
    }

    fn enter(connections: &Connections, pid: i32) -> (Entered, UnixStream) {
        let (here, there) = UnixStream::pair().unwrap();
        let deadline = Instant::now() + Duration::from_secs(3600);
        let entered = connections.enter(here.into(), client(pid), deadline);
        there
            .set_read_timeout(Some(Duration::from_millis(1)))
            .unwrap();
        (entered, there)
    }

    fn number(entered: &Entered) -> u64 {
        match entered {
            Entered::Placed(number) | Entered::InPlaceOf(number, _) => *number,
            Entered::Refused => panic!("refused"),
        }
    }

    fn is_closed(stream: &mut UnixStream) -> bool {
        stream.read(&mut [0]).is_ok_and(|read| read == 0)
    }

    #[test]
    fn the_handshake_that_was_silent_longest_ends_for_the_next_client() {
        let connections = connections(8, 4);
        let mut first: Vec<_> = (1..=4).map(|pid| enter(&connections, pid)).collect();
        assert!(
            first
                .iter()
                .all(|(entered, _)| matches!(entered, Entered::Placed(_)))
        );
        connections.is_active(number(&first[0].0));
        let next = enter(&connections, 5);
        assert!(matches!(&next.0, Entered::InPlaceOf(_, who) if who.peer == client(2).peer));
        let closed: Vec<_> = (first.iter_mut())
            .map(|(_, stream)| is_closed(stream))
            .collect();
        assert_eq!(closed, [false, true, false, false]);
    }

    #[test]
    fn a_peer_has_at_most_half_of_the_handshakes() {
        let connections = connections(8, 4);
        let mut other = enter(&connections, 1);
        let mut flood: Vec<_> = (0..10).map(|_| enter(&connections, 2)).collect();
        assert!(!is_closed(&mut other.1));
        let open = flood
            .iter_mut()
            .filter_map(|(_, stream)| (!is_closed(stream)).then_some(()));
        assert_eq!(open.count(), 2);
        // A third peer finds a place without ending another connection.
        assert!(matches!(enter(&connections, 3).0, Entered::Placed(_)));
    }

    #[test]
    fn clients_wait_for_a_place_in_order_and_a_peer_has_at_most_half() {
        let connections = connections(4, 16);
        let numbers: Vec<_> = [1, 1, 1, 2, 3, 4]
            .map(|pid| (number(&enter(&connections, pid).0), client(pid).peer))
            .into();
        let placed = Mutex::new(Vec::new());
        let take = |at: usize| {
            let (number, peer) = &numbers[at];
            if connections.take_place(*number, peer.clone()) {
                placed.lock().unwrap().push(at);
            }
        };
        let until = |placed_and_waiting: (usize, usize)| loop {
            let state = connections.state();
            let waiting = state.open.values();
            let waiting = waiting.filter(|one| one.phase == Phase::Waiting).count();
            drop(state);
            if (placed.lock().unwrap().len(), waiting) == placed_and_waiting {
                break;
            }
            std::thread::yield_now();
        };
        std::thread::scope(|scope| {
            take(0);
            take(1);
            for at in 2..6 {
                let take = &take;
                scope.spawn(move || take(at));
            }
            until((4, 2));
            let mut served = placed.lock().unwrap().clone();
            served.sort_unstable();
            // The third connection of the first peer waits, although it came before the others.
            assert!(!served.contains(&2), "{served:?}");
            connections.leave(numbers[0].0);
            until((5, 1));
            assert!(placed.lock().unwrap().contains(&2));
            // The last one is told that the server stops.
            connections.end_requests();
        });
        assert_eq!(placed.lock().unwrap().len(), 5);
    }

    #[test]
    fn clients_that_wait_are_not_closed_for_others() {
        let connections = connections(1, 2);
        std::thread::scope(|scope| {
            let first = number(&enter(&connections, 1).0);
            assert!(connections.take_place(first, client(1).peer));
            let mut waiting: Vec<_> = (2..=3).map(|pid| (enter(&connections, pid), pid)).collect();
            for ((entered, _), pid) in &waiting {
                let (number, pid) = (number(entered), *pid);
                let connections = &connections;
                scope.spawn(move || connections.take_place(number, client(pid).peer));
            }
            while connections.has_room() {
                std::thread::yield_now();
            }
            assert!(matches!(enter(&connections, 4).0, Entered::Refused));
            assert!(
                waiting
                    .iter_mut()
                    .all(|((_, stream), _)| !is_closed(stream))
            );
            connections.end_requests();
        });
    }
}
