//! One connection, with its requests in flight.
//!
//! A thread sends its request itself and waits for the reply. One thread receives the replies of
//! all requests ([`super::receive`]). The buffer that a read fills is moved into the table of
//! requests in flight and comes back with the reply, so the bytes are received directly into it.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use luksmith_formats::nbd::{Command, CommandFlags, Extent, Request};

use super::coverage::Coverage;
use super::error::{NbdError, Problem};
use super::handshake::{Export, Replies};
use super::journal::{Journal, Record};
use super::patience::{LOOK, Patience, Progress, Wait};
use crate::channel::Channel;
use crate::sectors::{Cipher, Sectors};

/// How many bytes of data for later requests, and replies to them, may come before the reply to a
/// request.
const LATER_DATA: u64 = 32 << 20;
const LATER_REPLIES: usize = 16;

/// A connection after the handshake.
pub(super) struct Connection {
    pub(super) channel: Channel,
    pub(super) export: Export,
    pub(super) journal: Arc<Journal>,
    server: Arc<str>,
    table: Mutex<Table>,
    /// How many requests are in flight, for the choice of a connection.
    load: AtomicUsize,
    created: Instant,
    /// When bytes were last received, in milliseconds after `created`.
    last_received: AtomicU64,
    /// How many bytes of data have been received that requests have asked for.
    received: AtomicU64,
    /// How many requests have been completed.
    completed: AtomicUsize,
    /// How many bytes of data belong to the requests in flight.
    in_flight: AtomicU64,
    patience: Patience,
    broken: OnceLock<Arc<NbdError>>,
    receiver: Mutex<Option<JoinHandle<()>>>,
}

/// The requests in flight. A cookie is the index of a slot and a serial number.
#[derive(Default)]
struct Table {
    slots: Vec<Slot>,
    free: Vec<usize>,
    serial: u64,
    closed: bool,
}

enum Slot {
    Free,
    InFlight(InFlight),
    /// The receiver has taken the request out.
    Receiving,
    Completed(Completion),
}

/// The buffer and the record that a request owns while it is in flight.
#[derive(Default)]
pub(super) struct Resources {
    /// The buffer of a read.
    pub(super) into: Option<Sectors<Cipher>>,
    /// The record of a change, which enters the journal when the server acknowledges the change.
    pub(super) record: Option<Record>,
    /// The extents that a BLOCK_STATUS asks for.
    pub(super) extents: Option<Vec<Extent>>,
}

/// A request in flight.
pub(super) struct InFlight {
    pub(super) request: Request,
    pub(super) resources: Resources,
    /// Which bytes of a read have been received.
    pub(super) coverage: Coverage,
    /// The first error of a structured reply.
    pub(super) error: Option<Problem>,
    /// How many chunks of the reply have been received.
    pub(super) chunks: u64,
    thread: Thread,
}

/// How a request ended. If the record of a change is still there, the change was not acknowledged.
pub(super) struct Completion {
    pub(super) outcome: Result<(), Arc<NbdError>>,
    pub(super) resources: Resources,
}

/// A request that was sent. The thread that sent it waits for it.
pub(super) struct Pending {
    cookie: u64,
    sent: Wait,
    /// The bytes of its data.
    len: u64,
    /// When it was sent: the data received and the requests completed on the connection, and those
    /// in flight.
    received: u64,
    completed: usize,
    data_before: u64,
    requests_before: usize,
}

impl Connection {
    /// A connection without a receiver. Only [`receive::start`](super::receive::start) calls this.
    pub(super) fn new(
        channel: Channel,
        export: Export,
        server: Arc<str>,
        journal: Arc<Journal>,
        patience: Patience,
    ) -> Self {
        Self {
            channel,
            export,
            journal,
            server,
            table: Mutex::default(),
            load: AtomicUsize::new(0),
            created: Instant::now(),
            last_received: AtomicU64::new(0),
            received: AtomicU64::new(0),
            completed: AtomicUsize::new(0),
            in_flight: AtomicU64::new(0),
            patience,
            broken: OnceLock::new(),
            receiver: Mutex::new(None),
        }
    }

    /// For the receiver: [`close`](Self::close) waits for this thread to end.
    pub(super) fn set_receiver(&self, receiver: JoinHandle<()>) {
        *lock(&self.receiver) = Some(receiver);
    }

    /// Sends a request. If the connection is broken already, returns the resources.
    pub(super) fn send(
        &self,
        command: Command,
        flags: CommandFlags,
        (offset, len): (u64, u64),
        payload: &[u8],
        resources: Resources,
    ) -> Result<Pending, Resources> {
        let flags = match (self.export.replies, command) {
            // With extended headers the flag says that the length is that of the payload.
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
        let asked = (resources.into.as_ref()).map_or(payload.len(), Sectors::len) as u64;
        let request = self.table().insert(request, resources)?;
        let requests_before = self.load.fetch_add(1, Ordering::Relaxed);
        let data_before = self.in_flight.fetch_add(asked, Ordering::Relaxed);
        self.transmit(request, payload);
        Ok(Pending {
            cookie: request.cookie,
            sent: Wait::begin(),
            len: asked,
            received: self.received.load(Ordering::Relaxed),
            completed: self.completed.load(Ordering::Relaxed),
            data_before,
            requests_before,
        })
    }

    fn transmit(&self, request: Request, payload: &[u8]) {
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
        // A server that receives nothing, or a byte now and then, fails as one that sends as little
        // does.
        let (mut wait, mut moved, mut active) = (Wait::begin(), 0, Instant::now());
        let mut given_up = None;
        let mut go_on = |sent: usize| {
            if sent > 0 {
                moved += sent as u64;
                active = Instant::now();
            }
            let progress = Progress { moved, replies: 0 };
            wait.left(&self.patience, active, progress)
                .map_err(|problem| {
                    given_up = Some(problem);
                    io::Error::from(io::ErrorKind::TimedOut)
                })
        };
        let mut parts = [IoSlice::new(header), IoSlice::new(payload)];
        let sent = self
            .channel
            .send_while(&mut parts, &mut |sent| go_on(sent).map(drop));
        if let Err(error) = sent {
            self.fail(given_up.unwrap_or(Problem::Connection(error)));
        }
    }

    /// Waits for the reply. If that takes longer than [`Patience`] allows, the connection and all
    /// its requests fail.
    pub(super) fn wait(&self, mut pending: Pending) -> Completion {
        loop {
            if let Some(completion) = self.table().remove(pending.cookie) {
                self.load.fetch_sub(1, Ordering::Relaxed);
                self.in_flight.fetch_sub(pending.len, Ordering::Relaxed);
                return completion;
            }
            let active =
                self.created + Duration::from_millis(self.last_received.load(Ordering::Relaxed));
            match pending
                .sent
                .left(&self.patience, active, self.progress(&pending))
            {
                Ok(left) => std::thread::park_timeout(left),
                // The receiver then completes all requests.
                Err(problem) => {
                    self.fail(problem);
                    std::thread::park_timeout(LOOK);
                }
            }
        }
    }

    /// What the server has done since a request was sent. Replies to later requests may come first,
    /// but must not delay this one without end.
    fn progress(&self, pending: &Pending) -> Progress {
        let moved = self.received.load(Ordering::Relaxed) - pending.received;
        let most = pending.data_before + pending.len + LATER_DATA;
        let replies = self.completed.load(Ordering::Relaxed) - pending.completed;
        let replies = replies.min(pending.requests_before + LATER_REPLIES);
        Progress {
            moved: moved.min(most),
            replies: u32::try_from(replies).unwrap_or(u32::MAX),
        }
    }

    /// Marks the connection as broken and shuts it down. Only the first reason is kept.
    pub(super) fn fail(&self, problem: Problem) {
        let server = self.server.clone();
        let _ = self.broken.set(Arc::new(NbdError {
            server,
            source: problem,
        }));
        self.table().closed = true;
        self.channel.shutdown();
    }

    pub(super) fn patience(&self) -> &Patience {
        &self.patience
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.get().is_some()
    }

    /// Roughly how many requests are in flight.
    pub(super) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// Sends `NBD_CMD_DISC`, which has no reply.
    pub(super) fn disconnect(&self) {
        if !self.is_broken() {
            let request = Request {
                flags: CommandFlags::NONE,
                command: Command::Disconnect,
                cookie: 0,
                offset: 0,
                len: 0,
            };
            self.transmit(request, &[]);
        }
    }

    /// Closes the connection. When this returns, every acknowledged change is in the journal, and
    /// every other request has failed.
    pub(super) fn close(&self) {
        self.fail(Problem::Closed);
        let receiver = lock(&self.receiver).take();
        if let Some(receiver) = receiver {
            // A receiver that has panicked has ended too.
            let _ = receiver.join();
        }
    }

    /// For the receiver: bytes were received.
    pub(super) fn note_received(&self) {
        let now = u64::try_from(self.created.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_received.store(now, Ordering::Relaxed);
    }

    /// For the receiver: bytes of data were received that a request has asked for.
    pub(super) fn note_data(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// For the receiver: takes a request out of the table, to give it back or to complete it.
    pub(super) fn take(&self, cookie: u64) -> Option<InFlight> {
        self.table().take(cookie)
    }

    /// For the receiver: puts a request back, for which more chunks follow.
    pub(super) fn give_back(&self, request: InFlight) {
        let index = index_of(request.request.cookie);
        self.table().slots[index] = Slot::InFlight(request);
    }

    /// For the receiver: completes a request.
    pub(super) fn complete(&self, mut request: InFlight, outcome: Result<(), Problem>) {
        let outcome = outcome.map_err(|source| {
            let server = self.server.clone();
            Arc::new(NbdError { server, source })
        });
        self.completed.fetch_add(1, Ordering::Relaxed);
        // The record enters the journal before the caller can see that the change was made.
        if outcome.is_ok()
            && let Some(record) = request.resources.record.take()
        {
            self.journal.enter(record);
        }
        self.deliver(request, outcome);
    }

    /// For the receiver when it ends: fails all requests in flight.
    pub(super) fn fail_all(&self) {
        let Some(reason) = self.broken.get() else {
            return;
        };
        let requests = self.table().take_all();
        for request in requests {
            self.deliver(request, Err(reason.clone()));
        }
    }

    fn deliver(&self, request: InFlight, outcome: Result<(), Arc<NbdError>>) {
        let index = index_of(request.request.cookie);
        let resources = request.resources;
        self.table().slots[index] = Slot::Completed(Completion { outcome, resources });
        request.thread.unpark();
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

impl Table {
    fn insert(&mut self, request: Request, resources: Resources) -> Result<Request, Resources> {
        if self.closed {
            return Err(resources);
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::Free);
            self.slots.len() - 1
        });
        self.serial += 1;
        let request = Request {
            cookie: self.serial << INDEX_BITS | index as u64,
            ..request
        };
        self.slots[index] = Slot::InFlight(InFlight {
            request,
            resources,
            coverage: Coverage::default(),
            error: None,
            chunks: 0,
            thread: std::thread::current(),
        });
        Ok(request)
    }

    fn take(&mut self, cookie: u64) -> Option<InFlight> {
        let slot = self.slots.get_mut(index_of(cookie))?;
        match std::mem::replace(slot, Slot::Receiving) {
            Slot::InFlight(request) if request.request.cookie == cookie => Some(request),
            other => {
                *slot = other;
                None
            }
        }
    }

    fn take_all(&mut self) -> Vec<InFlight> {
        let take = |slot: &mut Slot| match std::mem::replace(slot, Slot::Receiving) {
            Slot::InFlight(request) => Some(request),
            other => {
                *slot = other;
                None
            }
        };
        self.slots.iter_mut().filter_map(take).collect()
    }

    fn remove(&mut self, cookie: u64) -> Option<Completion> {
        let index = index_of(cookie);
        let slot = self.slots.get_mut(index)?;
        match std::mem::replace(slot, Slot::Free) {
            Slot::Completed(completion) => {
                self.free.push(index);
                Some(completion)
            }
            other => {
                *slot = other;
                None
            }
        }
    }
}

/// How many bits of a cookie are the index. Each thread has few requests in flight, and no process
/// has more threads than this allows.
const INDEX_BITS: u32 = 24;

fn index_of(cookie: u64) -> usize {
    usize::try_from(cookie & ((1 << INDEX_BITS) - 1)).unwrap_or(usize::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
