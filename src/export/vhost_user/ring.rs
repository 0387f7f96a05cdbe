//! A ring of requests that is in use: its thread takes the chains that the guest makes available,
//! and carries them out.
//!
//! While the storage answers from memory, the thread does that itself. While the storage makes its
//! callers wait, requests go to a pool of threads. So does a long request if another one is there
//! already, and a processor may be free. While a guest keeps sending without delay, the thread
//! looks for its next request instead of sleeping, and the guest is told not to announce it.
//!
//! Requests are returned to the guest in the order in which it made them available. So the number
//! of those that were returned is all that another server needs to continue after this one was
//! killed: it carries out again the requests that were not returned, and no others.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use virtio_queue::{Queue, QueueOwnedT, QueueT};

use super::device::Device;
use super::memory::{Map, Memory};
use super::request::{Broken, Chain, Request};
use super::shared::Shared;
use crate::export::busy_poll::BusyPoll;
use crate::export::wake::Wake;

/// A request for as many bytes is long, so that another thread can carry it out.
const LONG: u64 = 128 << 10;

/// What the rings of one client share.
pub(super) struct Common {
    pub(super) device: Arc<Device>,
    pub(super) shared: Arc<Shared>,
    /// Whether a write is on stable storage before the guest is told of its end.
    pub(super) writethrough: AtomicBool,
    /// How many long requests other threads carry out.
    helping: AtomicUsize,
    pub(super) end_client: EndClient,
}

impl Common {
    pub(super) fn new(device: Arc<Device>, shared: Arc<Shared>, end_client: EndClient) -> Self {
        Self {
            device,
            shared,
            writethrough: AtomicBool::new(true),
            helping: AtomicUsize::new(0),
            end_client,
        }
    }

    /// Takes the place of a thread that carries out a long request.
    fn help(&self) -> bool {
        let one_more = |helping| (helping < self.shared.helpers).then(|| helping + 1);
        let (set, read) = (Ordering::AcqRel, Ordering::Acquire);
        self.helping.fetch_update(set, read, one_more).is_ok()
    }
}

/// Ends the connection of a client, because of this.
pub(super) type EndClient = Box<dyn Fn(&dyn std::fmt::Display) + Send + Sync>;

/// The event that tells the guest of requests that have ended. The client can replace it at any
/// time.
pub(super) type Call = Arc<Mutex<Option<OwnedFd>>>;

/// Tells the guest. An event that is full does so already.
pub(super) fn signal(call: &Call) {
    let call = call.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(call) = &*call {
        let _ = rustix::io::write(call, &1u64.to_ne_bytes());
    }
}

/// A ring whose thread runs.
pub(super) struct Ring {
    thread: Option<JoinHandle<()>>,
    stop: Arc<Wake>,
    state: Arc<State>,
}

/// What the thread of a ring needs.
pub(super) struct Start {
    pub(super) common: Arc<Common>,
    pub(super) memory: Arc<Memory>,
    pub(super) queue: Queue,
    pub(super) kick: OwnedFd,
    pub(super) call: Call,
}

struct State {
    common: Arc<Common>,
    memory: Arc<Memory>,
    call: Call,
    stopping: AtomicBool,
    inner: Mutex<Inner>,
    /// A request has ended.
    ended: Condvar,
}

struct Inner {
    queue: Queue,
    /// The chains that were taken and not returned, in their order.
    taken: VecDeque<Taken>,
    /// The number of the first of them.
    first: u64,
    /// How many of them are being carried out.
    in_progress: usize,
    /// A request was given up. It and those after it are never returned, so another server would
    /// carry them out again.
    stuck: bool,
    /// Whether the thread of the ring waits for the end of a request.
    waiting: bool,
}

struct Taken {
    head: u16,
    /// How many bytes the guest gets, once the request has ended.
    done: Option<u32>,
}

impl Ring {
    /// Starts the thread.
    pub(super) fn start(start: Start) -> io::Result<Self> {
        let stop = Arc::new(Wake::new()?);
        let state = Arc::new(State {
            common: start.common,
            memory: start.memory,
            call: start.call,
            stopping: AtomicBool::new(false),
            inner: Mutex::new(Inner {
                queue: start.queue,
                taken: VecDeque::new(),
                first: 0,
                in_progress: 0,
                stuck: false,
                waiting: false,
            }),
            ended: Condvar::new(),
        });
        let thread = Thread {
            state: state.clone(),
            kick: start.kick,
            stop: stop.clone(),
        };
        let builder = std::thread::Builder::new().name("vhost-user-ring".to_owned());
        let thread = builder.spawn(move || thread.run())?;
        Ok(Self {
            thread: Some(thread),
            stop,
            state,
        })
    }

    /// Stops the ring once the requests that were taken have been returned. Returns the index of
    /// the first request that was not.
    pub(super) fn stop(mut self) -> u16 {
        self.end();
        let inner = self.state.inner();
        let kept = u16::try_from(inner.taken.len()).unwrap_or(u16::MAX);
        inner.queue.next_avail().wrapping_sub(kept)
    }

    fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.state.stopping.store(true, Ordering::Release);
            self.stop.up();
            let _ = thread.join();
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.end();
    }
}

struct Thread {
    state: Arc<State>,
    kick: OwnedFd,
    stop: Arc<Wake>,
}

impl Thread {
    fn run(self) {
        let served = catch_unwind(AssertUnwindSafe(|| self.serve()));
        // What the pool still does belongs to this ring.
        drop(self.state.wait_until(|inner| inner.in_progress == 0));
        let end_client = &self.state.common.end_client;
        match served {
            Ok(Ok(())) => {}
            Ok(Err(broken)) => end_client(&broken),
            Err(_) => end_client(&"a request failed in the server"),
        }
    }

    fn serve(&self) -> Result<(), Broken> {
        let state = &*self.state;
        let mut waits = BusyPoll::new(&state.common.shared.busy_pollers);
        loop {
            let told = state.inner().queue.disable_notification(state.map());
            told.map_err(|_| Broken::Index)?;
            while let Some((number, chain)) = state.take()? {
                self.begin(number, chain)?;
                // A guest that never waits must not keep the ring from being stopped.
                if state.stops() {
                    break;
                }
            }
            if state.stops() {
                return Ok(());
            }
            let came = |_: &mut ()| match state.has_more() {
                Ok(false) if !state.stops() => None,
                came => Some(came.map(drop)),
            };
            waits.wait(&mut (), came, |()| self.sleep())?;
            // After the last look at the ring, which is gone if the memory is.
            if state.memory.is_lost() {
                return Err(Broken::Lost);
            }
        }
    }

    /// Waits until the guest says that there are requests, or the ring is to be stopped.
    fn sleep(&self) -> Result<(), Broken> {
        let state = &*self.state;
        let more = state.inner().queue.enable_notification(state.map());
        if state.memory.is_lost() {
            return Err(Broken::Lost);
        }
        if more.map_err(|_| Broken::Index)? {
            return Ok(());
        }
        let mut fds = [
            PollFd::from_borrowed_fd(self.kick.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return Err(Broken::Kick),
        }
        let [kick, _] = fds.map(|fd| !fd.revents().is_empty());
        if kick {
            match rustix::io::read(&self.kick, &mut [0; 8]) {
                Ok(8) | Err(Errno::AGAIN | Errno::INTR) => {}
                _ => return Err(Broken::Kick),
            }
        }
        Ok(())
    }

    /// Carries out a request, here or in the pool.
    fn begin(&self, number: u64, chain: Chain) -> Result<(), Broken> {
        let state = &self.state;
        let mut begun = Begun {
            state: state.clone(),
            number,
            done: None,
            helps: false,
        };
        let request = chain.parse(&state.memory)?;
        let waits = request.waits(&state.common.device.export);
        if !waits && chain.len() >= LONG && state.has_more()? {
            begun.helps = state.common.help();
        }
        if !waits && !begun.helps {
            begun.done = Some(state.execute(&chain, request)?);
            return Ok(());
        }
        let job = move || match begun.state.execute(&chain, request) {
            Ok(len) => begun.done = Some(len),
            Err(broken) => (begun.state.common.end_client)(&broken),
        };
        if let Err(job) = state.common.shared.pool.submit(Box::new(job)) {
            job();
        }
        Ok(())
    }
}

/// A request that is being carried out. When this is dropped, it is returned to the guest if it is
/// done, and given up otherwise, as after a panic.
struct Begun {
    state: Arc<State>,
    number: u64,
    done: Option<u32>,
    /// Whether it has the place of a long request.
    helps: bool,
}

impl Drop for Begun {
    fn drop(&mut self) {
        if self.helps {
            self.state.common.helping.fetch_sub(1, Ordering::AcqRel);
        }
        self.state.ended(self.number, self.done);
    }
}

impl State {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn map(&self) -> &Map {
        self.memory.map()
    }

    fn stops(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Whether there is a chain to take.
    fn has_more(&self) -> Result<bool, Broken> {
        let inner = self.inner();
        let available = inner.queue.avail_idx(self.map(), Ordering::Acquire);
        let available = available.map_err(|_| Broken::Index)?;
        Ok(available.0 != inner.queue.next_avail())
    }

    /// Waits for the ends of requests. Only the thread of the ring calls this.
    fn wait_until(&self, condition: impl Fn(&Inner) -> bool) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner();
        inner.waiting = true;
        while !condition(&inner) {
            inner = (self.ended.wait(inner)).unwrap_or_else(PoisonError::into_inner);
        }
        inner.waiting = false;
        inner
    }

    /// Takes the next chain that is available.
    fn take(&self) -> Result<Option<(u64, Chain)>, Broken> {
        // A guest cannot have more chains in use than its ring has descriptors.
        let room = |inner: &Inner| inner.taken.len() < usize::from(inner.queue.size());
        let mut inner = self.wait_until(|inner| room(inner) || inner.stuck);
        if inner.stuck {
            return Ok(None);
        }
        let mut available = inner.queue.iter(self.map()).map_err(|_| Broken::Index)?;
        let Some(descriptors) = available.next() else {
            return Ok(None);
        };
        let number = inner.first + inner.taken.len() as u64;
        inner.taken.push_back(Taken {
            head: descriptors.head_index(),
            done: None,
        });
        let chain = Chain::collect(descriptors)?;
        inner.in_progress += 1;
        Ok(Some((number, chain)))
    }

    fn execute(&self, chain: &Chain, request: Request) -> Result<u32, Broken> {
        let writethrough = self.common.writethrough.load(Ordering::Acquire);
        let done = chain.execute(request, &self.common.device, &self.memory, writethrough);
        match self.memory.is_lost() {
            true => Err(Broken::Lost),
            false => done,
        }
    }

    /// Records that a request has ended, and returns it to the guest, once those before it have
    /// been.
    fn ended(&self, number: u64, done: Option<u32>) {
        let mut guard = self.inner();
        let inner = &mut *guard;
        inner.in_progress -= 1;
        inner.stuck |= done.is_none();
        let at = usize::try_from(number.wrapping_sub(inner.first)).unwrap_or(usize::MAX);
        if let Some(taken) = inner.taken.get_mut(at) {
            taken.done = done;
        }
        let map = self.map();
        let mut tell = false;
        while let Some(Taken {
            head,
            done: Some(len),
        }) = inner.taken.front()
        {
            // The ring is in the memory of the guest, or it would not have been started.
            let _ = inner.queue.add_used(map, *head, *len);
            inner.taken.pop_front();
            inner.first += 1;
            tell = true;
        }
        tell = tell && inner.queue.needs_notification(map).unwrap_or(true);
        let waiting = inner.waiting;
        drop(guard);
        if tell {
            signal(&self.call);
        }
        if waiting {
            self.ended.notify_all();
        }
    }
}
