//! One connection with its requests in flight.
//!
//! Whoever has a request sends it from its own thread and waits; one thread receives for all ([`super::receive`]). The buffer that a
//! read fills goes with the request into the table of what is in flight and comes back with the answer, so that the bytes go from the
//! socket straight to where they belong.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use luksmith_formats::nbd::{Command, CommandFlags, Request};

use super::coverage::Coverage;
use super::error::{NbdError, Problem};
use super::handshake::{Export, Replies};
use super::journal::{Journal, Record};
use crate::channel::Channel;
use crate::sectors::{Cipher, Sectors};

/// A connection that has its export.
pub(super) struct Connection {
    pub(super) channel: Channel,
    pub(super) export: Export,
    pub(super) journal: Arc<Journal>,
    server: Arc<str>,
    flights: Mutex<Flights>,
    /// How many requests are in flight, for who chooses a connection.
    load: AtomicUsize,
    born: Instant,
    /// When something came last, in milliseconds since it was born.
    heard: AtomicU64,
    /// How long the server may be silent.
    patience: Duration,
    broken: OnceLock<Arc<NbdError>>,
    receiver: Mutex<Option<JoinHandle<()>>>,
}

/// The requests in flight, by cookie: the index of a place, and a number that makes it new.
#[derive(Default)]
struct Flights {
    places: Vec<Place>,
    free: Vec<usize>,
    serial: u64,
    closed: bool,
}

enum Place {
    Free,
    Asked(Asked),
    /// The receiver has it.
    Receiving,
    Answered(Answer),
}

/// What a request brings along.
#[derive(Default)]
pub(super) struct Luggage {
    /// What a read fills.
    pub(super) into: Option<Sectors<Cipher>>,
    /// What is remembered of a change when it is acknowledged.
    pub(super) record: Option<Record>,
}

/// A request in flight.
pub(super) struct Asked {
    pub(super) request: Request,
    pub(super) luggage: Luggage,
    /// Which bytes of a read have come.
    pub(super) coverage: Coverage,
    /// The first error of a structured reply.
    pub(super) error: Option<Problem>,
    thread: Thread,
}

/// How a request ended. A record that has come back was not acknowledged.
pub(super) struct Answer {
    pub(super) outcome: Result<(), Arc<NbdError>>,
    pub(super) luggage: Luggage,
}

/// A request that was sent, to be waited for by the thread that sent it.
pub(super) struct Ticket {
    cookie: u64,
    sent: Instant,
}

impl Connection {
    /// A connection without a receiver: only [`receive::start`](super::receive::start) makes one.
    pub(super) fn new(
        channel: Channel,
        export: Export,
        server: Arc<str>,
        journal: Arc<Journal>,
        patience: Duration,
    ) -> Self {
        Self {
            channel,
            export,
            journal,
            server,
            flights: Mutex::default(),
            load: AtomicUsize::new(0),
            born: Instant::now(),
            heard: AtomicU64::new(0),
            patience,
            broken: OnceLock::new(),
            receiver: Mutex::new(None),
        }
    }

    /// For the receiver: [`close`](Self::close) waits for this thread to end.
    pub(super) fn set_receiver(&self, receiver: JoinHandle<()>) {
        *lock(&self.receiver) = Some(receiver);
    }

    /// Sends a request. Where the connection is broken already, the luggage comes back.
    pub(super) fn send(
        &self,
        command: Command,
        flags: CommandFlags,
        (offset, len): (u64, u64),
        payload: &[u8],
        luggage: Luggage,
    ) -> Result<Ticket, Luggage> {
        let flags = match (self.export.replies, command) {
            // With extended headers the length of a write is said to be that of what follows.
            (Replies::Extended, Command::Write) => flags | CommandFlags::PAYLOAD_LEN,
            _ => flags,
        };
        let request = Request {
            flags,
            command,
            cookie: 0,
            offset,
            len,
        };
        let request = self.flights().enter(request, luggage)?;
        self.load.fetch_add(1, Ordering::Relaxed);
        let sent = Instant::now();
        self.put_on_the_wire(request, payload);
        let cookie = request.cookie;
        Ok(Ticket { cookie, sent })
    }

    fn put_on_the_wire(&self, request: Request, payload: &[u8]) {
        let (compact, extended);
        let header: &[u8] = match self.export.replies {
            Replies::Extended => {
                extended = request.to_extended();
                &extended
            }
            Replies::Simple | Replies::Structured => {
                compact = request.to_compact();
                &compact
            }
        };
        let sent = self
            .channel
            .send(&mut [IoSlice::new(header), IoSlice::new(payload)]);
        match sent {
            Ok(()) => {}
            // A server that takes nothing is as silent as one that says nothing.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                self.fail(Problem::Silent(self.patience));
            }
            Err(error) => self.fail(Problem::Connection(error)),
        }
    }

    /// Waits for the answer. A server from which nothing at all comes for so long is given up, and all requests with it.
    pub(super) fn wait(&self, ticket: &Ticket) -> Answer {
        loop {
            if let Some(answer) = self.flights().leave(ticket.cookie) {
                self.load.fetch_sub(1, Ordering::Relaxed);
                return answer;
            }
            let heard = self.born + Duration::from_millis(self.heard.load(Ordering::Relaxed));
            let silent_for = heard.max(ticket.sent).elapsed();
            match self.patience.checked_sub(silent_for) {
                Some(left) if !left.is_zero() => std::thread::park_timeout(left),
                // The receiver answers everything then, in a moment.
                _ => {
                    self.fail(Problem::Silent(self.patience));
                    std::thread::park_timeout(self.patience);
                }
            }
        }
    }

    /// The connection is of no use any more. The first reason counts.
    pub(super) fn fail(&self, problem: Problem) {
        let server = self.server.clone();
        let _ = self.broken.set(Arc::new(NbdError {
            server,
            source: problem,
        }));
        self.flights().closed = true;
        self.channel.shutdown();
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.get().is_some()
    }

    /// How many requests are in flight, about.
    pub(super) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// Tells the server that this is the end (`NBD_CMD_DISC`, which has no answer).
    pub(super) fn say_goodbye(&self) {
        if !self.is_broken() {
            let request = Request {
                flags: CommandFlags::NONE,
                command: Command::Disconnect,
                cookie: 0,
                offset: 0,
                len: 0,
            };
            self.put_on_the_wire(request, &[]);
        }
    }

    /// Ends it, and returns when everything that was acknowledged is in the journal and everything else was answered.
    pub(super) fn close(&self) {
        self.fail(Problem::Closed);
        let receiver = lock(&self.receiver).take();
        if let Some(receiver) = receiver {
            // A receiver that panicked has nothing more to give.
            let _ = receiver.join();
        }
    }

    /// For the receiver: something came.
    pub(super) fn hear(&self) {
        let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard.store(now, Ordering::Relaxed);
    }

    /// For the receiver: takes a request out, to give it back or to answer it.
    pub(super) fn take(&self, cookie: u64) -> Option<Asked> {
        self.flights().take(cookie)
    }

    /// For the receiver: more is to come.
    pub(super) fn give_back(&self, asked: Asked) {
        let index = index_of(asked.request.cookie);
        self.flights().places[index] = Place::Asked(asked);
    }

    /// For the receiver: a request is answered.
    pub(super) fn answer(&self, mut asked: Asked, outcome: Result<(), Problem>) {
        let outcome = outcome.map_err(|source| {
            let server = self.server.clone();
            Arc::new(NbdError { server, source })
        });
        // Before anybody can see that the change was made.
        if outcome.is_ok()
            && let Some(record) = asked.luggage.record.take()
        {
            self.journal.enter(record);
        }
        self.deliver(asked, outcome);
    }

    /// For the receiver, which has ended: nobody waits any longer.
    pub(super) fn answer_all(&self) {
        let Some(reason) = self.broken.get() else {
            return;
        };
        let asked = self.flights().take_all();
        for asked in asked {
            self.deliver(asked, Err(reason.clone()));
        }
    }

    fn deliver(&self, asked: Asked, outcome: Result<(), Arc<NbdError>>) {
        let index = index_of(asked.request.cookie);
        let luggage = asked.luggage;
        self.flights().places[index] = Place::Answered(Answer { outcome, luggage });
        asked.thread.unpark();
    }

    fn flights(&self) -> MutexGuard<'_, Flights> {
        lock(&self.flights)
    }
}

impl Flights {
    fn enter(&mut self, request: Request, luggage: Luggage) -> Result<Request, Luggage> {
        if self.closed {
            return Err(luggage);
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::Free);
            self.places.len() - 1
        });
        self.serial += 1;
        let request = Request {
            cookie: self.serial << INDEX_BITS | index as u64,
            ..request
        };
        self.places[index] = Place::Asked(Asked {
            request,
            luggage,
            coverage: Coverage::default(),
            error: None,
            thread: std::thread::current(),
        });
        Ok(request)
    }

    fn take(&mut self, cookie: u64) -> Option<Asked> {
        let place = self.places.get_mut(index_of(cookie))?;
        match std::mem::replace(place, Place::Receiving) {
            Place::Asked(asked) if asked.request.cookie == cookie => Some(asked),
            other => {
                *place = other;
                None
            }
        }
    }

    fn take_all(&mut self) -> Vec<Asked> {
        let asked = |place: &mut Place| match std::mem::replace(place, Place::Receiving) {
            Place::Asked(asked) => Some(asked),
            other => {
                *place = other;
                None
            }
        };
        self.places.iter_mut().filter_map(asked).collect()
    }

    fn leave(&mut self, cookie: u64) -> Option<Answer> {
        let index = index_of(cookie);
        let place = self.places.get_mut(index)?;
        match std::mem::replace(place, Place::Free) {
            Place::Answered(answer) => {
                self.free.push(index);
                Some(answer)
            }
            other => {
                *place = other;
                None
            }
        }
    }
}

/// So many bits of a cookie are the index: no process has more threads.
const INDEX_BITS: u32 = 24;

fn index_of(cookie: u64) -> usize {
    usize::try_from(cookie & ((1 << INDEX_BITS) - 1)).unwrap_or(usize::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
