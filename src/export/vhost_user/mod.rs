//! The vhost-user-blk server, for virtual machines: QEMU, libvirt, cloud-hypervisor, Firecracker.
//!
//! It implements *Vhost-user Protocol* (QEMU's `docs/interop/vhost-user.rst`) for the block device
//! of the VIRTIO specification. The client, an emulator, shares the memory of its guest with the
//! server. The server takes the guest's requests from there, and decrypts to it. Nothing passes
//! through the emulator.
//!
//! Each listening socket is for one export and one client at a time. Each queue that a client sets
//! up has a thread. A client that breaks the protocol is dropped, and no other client notices.
//!
//! A write is on stable storage once the guest got the answer to a flush that it asked for later,
//! or once it got the answer to the write itself, if the guest has switched the cache off. If the
//! server is killed, an emulator that connects to another one asks it to do again what was not
//! answered.
//!
//! The server never sends plaintext through the socket, and never has ciphertext in memory that the
//! guest can access.

mod client;
mod device;
mod disk;
mod memory;
mod options;
mod request;
mod ring;
mod serve_error;
mod session;
mod shared;
mod slots;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

pub use disk::Disk;
pub use options::Options;
pub use serve_error::ServeError;

use super::Export;
use super::busy_poll::BusyPollers;
use super::pool::Pool;
use super::refusals::Refusals;
use super::wake::Wake;
use shared::Shared;
use slots::Slot;

/// How long to wait before clients are accepted again if the system has run out of descriptors or
/// threads.
const BACKOFF: Duration = Duration::from_millis(50);

/// A server of disks. It can be stopped from any thread ([`stopper`](Self::stopper)).
pub struct Server {
    shared: Arc<Shared>,
}

impl Server {
    /// A server with these options. Clients are served from [`run`](Self::run) on.
    ///
    /// # Errors
    /// [`ServeError::System`].
    pub fn new(options: Options) -> Result<Self, ServeError> {
        let wake = Wake::new().map_err(|source| ServeError::System {
            doing: "make an event",
            source,
        })?;
        let shared = Shared {
            pool: Pool::new("vhost-waits", options.max_waiting),
            busy_pollers: BusyPollers::of_this_machine(),
            helpers: std::thread::available_parallelism().map_or(0, |all| all.get() - 1),
            refusals: Refusals::default(),
            stopping: AtomicBool::new(false),
            wake,
            options,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// A handle that stops this server, from any thread.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(self.shared.clone())
    }

    /// Serves the clients that connect to the disks until the server is stopped. Then ends what
    /// was begun for them, and flushes every export. All threads of the server have ended when
    /// this returns.
    ///
    /// # Errors
    /// [`ServeError::System`] at the beginning, [`ServeError::Flush`] at the end.
    pub fn run(&self, disks: Vec<Disk>) -> Result<(), ServeError> {
        let shared = &self.shared;
        let exports: Vec<_> = (disks.iter()).map(|disk| disk.export().clone()).collect();
        let slots = disks.into_iter().map(Slot::new);
        let slots = slots.collect::<io::Result<Vec<_>>>();
        let listened = slots.and_then(|mut slots| {
            let listened = listen(shared, &mut slots);
            // The sockets are closed first, so that no client connects that would not be served.
            let clients: Vec<_> = slots.into_iter().flat_map(Slot::close).collect();
            clients.iter().for_each(client::Client::stop);
            drop(clients);
            listened
        });
        shared.pool.close();
        shared.refusals.finish();
        // Every export is flushed, even if one fails.
        let flushed: Vec<_> = exports.iter().map(flush).collect();
        let listened = listened.map_err(|source| ServeError::System {
            doing: "wait for clients",
            source,
        });
        flushed.into_iter().collect::<Result<(), _>>().and(listened)
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
pub struct Stopper(Arc<Shared>);

impl Stopper {
    /// Asks the server to stop. It takes no further request.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::Release);
        self.0.wake.up();
    }
}

/// Accepts clients until the server stops.
fn listen(shared: &Arc<Shared>, slots: &mut [Slot]) -> io::Result<()> {
    let mut served = false;
    let mut idle_since: Option<Instant> = None;
    while !shared.stopping.load(Ordering::Acquire) {
        for slot in &mut *slots {
            slot.next_client(shared);
        }
        let idle = slots.iter().all(Slot::is_idle);
        served |= !idle;
        let idle = idle && served && shared.options.exit_when_idle;
        idle_since = idle.then(|| idle_since.unwrap_or_else(Instant::now));
        let left = idle_since.map(|since| shared.options.idle_time.saturating_sub(since.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(());
        }
        for number in ready(shared, slots, left)? {
            if let Some(slot) = slots.get_mut(number)
                && let Err(error) = slot.accept(shared)
            {
                let why = "cannot accept a client; it waits";
                shared.refusals.warn(format_args!("{why}: {error}"));
                std::thread::sleep(BACKOFF);
            }
        }
    }
    Ok(())
}

/// Waits until clients connect, a client leaves, the server stops, or this time is over. Returns
/// the numbers of the slots to whose sockets clients have connected.
fn ready(shared: &Shared, slots: &[Slot], left: Option<Duration>) -> io::Result<Vec<usize>> {
    // Rounded up, so that the time is over when the wait ends.
    let limit = left.and_then(|left| Timespec::try_from(left + Duration::from_millis(1)).ok());
    let open: Vec<usize> = (0..slots.len())
        .filter(|number| slots[*number].has_room())
        .collect();
    let mut fds = vec![PollFd::from_borrowed_fd(shared.wake.as_fd(), PollFlags::IN)];
    let sockets = open.iter().map(|number| slots[*number].listener.as_fd());
    fds.extend(sockets.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
    match poll(&mut fds, limit.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    shared.wake.reset();
    let ready = open.iter().zip(fds.iter().skip(1));
    let ready = ready.filter(|(_, fd)| !fd.revents().is_empty());
    Ok(ready.map(|(number, _)| *number).collect())
}
