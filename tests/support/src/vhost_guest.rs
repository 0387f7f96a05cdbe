//! A guest without a machine: memory with rings in it, and a client that connects them to a
//! vhost-user server. Descriptors are written as a test states them, also wrong ones.

use std::cell::Cell;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

mod memory;

pub use memory::{
    DATA, Descriptor, INDIRECT, MEMORY, Memory, NEXT, RING, WRITE, header, headers, kind, range,
};
use memory::{available, table, used};

/// Where the guest's memory is in the client.
const OF_CLIENT: u64 = 1 << 40;
/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The features of the VIRTIO specification that the client chooses if they are offered.
pub const FEATURES: u64 = 1 << 2 // the number of segments
    | 1 << 5 // read-only
    | 1 << 6 // block size
    | 1 << 9 // flush
    | 1 << 10 // topology
    | 1 << 11 // write-back cache
    | 1 << 12 // several queues
    | 1 << 13 // discard
    | 1 << 14 // zeroes
    | 1 << 28 // indirect descriptors
    | 1 << 29 // the index of the next event
    | 1 << 30 // protocol features
    | 1 << 32; // version 1

/// One ring of the guest.
struct Ring {
    kick: EventFd,
    call: EventFd,
    /// Waits for `call`.
    called: Epoll,
    /// How many requests were made available.
    available: u16,
    /// How many there were when the server was last told, or did not want to know.
    told: Cell<u16>,
    /// How many that have ended were seen.
    seen: u16,
}

/// A guest that is connected to a server.
pub struct Guest {
    /// The memory.
    pub memory: Memory,
    /// The connection, for other messages.
    pub frontend: Frontend,
    /// The socket of the connection.
    pub socket: UnixStream,
    /// The features that the server offered.
    pub offered: u64,
    rings: Vec<Ring>,
}

impl Guest {
    /// Connects, with this number of rings, and with those of `features` that are offered.
    ///
    /// # Errors
    /// Those of the connection: the server may have refused the client.
    pub fn connect(socket: &Path, rings: usize, features: u64) -> Result<Self> {
        let guest = Self::prepare(socket, rings, features, Memory::new()?)?;
        let guest = guest.share()?;
        (0..rings).try_for_each(|ring| guest.start(ring, 0))?;
        Ok(guest)
    }

    /// Connects the rings in the memory of another guest, whose server is gone, as an emulator
    /// does: the server has to begin with the first request that has not ended.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn reconnect(self, socket: &Path, features: u64) -> Result<Self> {
        let indexes: Vec<_> = (0..self.rings.len())
            .map(|ring| self.memory.u16(used(ring) + 2))
            .collect();
        let state: Vec<_> = (self.rings.iter())
            .map(|ring| (ring.available, ring.seen))
            .collect();
        let mut guest = Self::prepare(socket, indexes.len(), features, self.memory)?;
        for (ring, (available, seen)) in guest.rings.iter_mut().zip(state) {
            (ring.available, ring.seen) = (available, seen);
        }
        let guest = guest.share()?;
        for (ring, index) in indexes.into_iter().enumerate() {
            guest.start(ring, index)?;
            guest.kick(ring);
        }
        Ok(guest)
    }

    fn prepare(socket: &Path, rings: usize, features: u64, memory: Memory) -> Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let socket = stream.try_clone()?;
        let mut frontend = Frontend::from_stream(stream, 256);
        frontend.set_owner().map_err(Error::other)?;
        let offered = frontend.get_features().map_err(Error::other)?;
        let chosen = offered & features;
        frontend.set_features(chosen).map_err(Error::other)?;
        if chosen & 1 << 30 != 0 {
            let protocol = frontend.get_protocol_features().map_err(Error::other)?;
            let ours = VhostUserProtocolFeatures::MQ
                | VhostUserProtocolFeatures::CONFIG
                | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
                | VhostUserProtocolFeatures::REPLY_ACK;
            let chosen = frontend.set_protocol_features(protocol & ours);
            chosen.map_err(Error::other)?;
            // Every message is answered, so an error is seen where it happens.
            let answered = vhost::vhost_user::message::VhostUserHeaderFlag::NEED_REPLY;
            frontend.set_hdr_flags(answered);
        }
        let ring = || -> Result<Ring> {
            let call = EventFd::new(EFD_NONBLOCK)?;
            let called = Epoll::new()?;
            let event = EpollEvent::new(EventSet::IN, 0);
            called.ctl(ControlOperation::Add, call.as_raw_fd(), event)?;
            Ok(Ring {
                kick: EventFd::new(EFD_NONBLOCK)?,
                call,
                called,
                available: 0,
                told: Cell::new(0),
                seen: 0,
            })
        };
        Ok(Self {
            memory,
            frontend,
            socket,
            offered,
            rings: (0..rings).map(|_| ring()).collect::<Result<_>>()?,
        })
    }

    /// Tells the server where the memory is.
    fn share(self) -> Result<Self> {
        let region = self.region();
        self.frontend
            .set_mem_table(&[region])
            .map_err(Error::other)?;
        Ok(self)
    }

    /// The region that is all memory of the guest.
    pub fn region(&self) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: MEMORY,
            userspace_addr: OF_CLIENT,
            mmap_offset: 0,
            mmap_handle: self.memory.file().as_raw_fd(),
        }
    }

    /// Sets up a ring, whose next request has this index.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn start(&self, ring: usize, index: u16) -> Result<()> {
        let config = VringConfigData {
            queue_max_size: RING,
            queue_size: RING,
            flags: 0,
            desc_table_addr: OF_CLIENT + table(ring),
            used_ring_addr: OF_CLIENT + used(ring),
            avail_ring_addr: OF_CLIENT + available(ring),
            log_addr: None,
        };
        let (frontend, events) = (&self.frontend, &self.rings[ring]);
        let enable = |()| -> std::result::Result<(), vhost::Error> {
            let mut frontend = frontend.clone();
            match self.offered & 1 << 30 {
                0 => Ok(()),
                _ => frontend.set_vring_enable(ring, true),
            }
        };
        (frontend.set_vring_num(ring, RING))
            .and_then(|()| frontend.set_vring_base(ring, index))
            .and_then(|()| frontend.set_vring_addr(ring, &config))
            .and_then(|()| frontend.set_vring_kick(ring, &events.kick))
            .and_then(|()| frontend.set_vring_call(ring, &events.call))
            .and_then(enable)
            .map_err(Error::other)
    }

    /// Bytes of the configuration.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn config(&mut self, offset: u32, len: u32) -> Result<Vec<u8>> {
        let buffer = vec![0; usize::try_from(len).map_err(Error::other)?];
        let flags = VhostUserConfigFlags::empty();
        let answer = self.frontend.get_config(offset, len, flags, &buffer);
        Ok(answer.map_err(Error::other)?.1)
    }

    /// Writes descriptors into the table of a ring, from `first` on.
    pub fn describe(&self, ring: usize, first: u16, descriptors: &[Descriptor]) {
        self.memory.describe(ring, first, descriptors);
    }

    /// Writes a chain of descriptors into the table of a ring, from `first` on: the address, the
    /// length and the flags of each.
    pub fn chain(&self, ring: usize, first: u16, parts: &[(u64, u32, u16)]) {
        self.memory.chain(ring, first, parts);
    }

    /// Makes a chain available, without telling the server.
    pub fn make_available(&mut self, ring: usize, head: u16) {
        self.queue(ring).make_available(head);
    }

    /// Sets the index of the available ring, whatever is in it.
    pub fn set_available(&mut self, ring: usize, index: u16) {
        self.memory.set_u16(available(ring) + 2, index);
    }

    /// Tells the server that there are requests.
    pub fn kick(&self, ring: usize) {
        let _ = self.rings[ring].kick.write(1);
    }

    /// The next request that has ended: its head, and how many bytes it got. `None` if none has.
    pub fn poll(&mut self, ring: usize) -> Option<(u16, u32)> {
        self.queue(ring).poll()
    }

    /// Waits for the next request that has ended.
    ///
    /// # Errors
    /// If none ends in a long time.
    pub fn wait(&mut self, ring: usize) -> Result<(u16, u32)> {
        self.queue(ring).wait()
    }

    fn queue(&mut self, number: usize) -> Queue<'_> {
        Queue {
            memory: &self.memory,
            socket: &self.socket,
            ring: &mut self.rings[number],
            number,
        }
    }

    /// All rings, each for a thread.
    pub fn queues(&mut self) -> Vec<Queue<'_>> {
        let (memory, socket) = (&self.memory, &self.socket);
        let rings = self.rings.iter_mut().enumerate();
        rings
            .map(|(number, ring)| Queue {
                memory,
                socket,
                ring,
                number,
            })
            .collect()
    }

    /// Carries out one request, whose parts are in descriptors of their own, and returns its
    /// status. `data` is what the server reads.
    ///
    /// # Errors
    /// If it does not end.
    pub fn request(
        &mut self,
        ring: usize,
        header: &[u8],
        data: &[u8],
        answer: u32,
    ) -> Result<(u8, Vec<u8>)> {
        let at = headers(ring);
        self.memory.write(at, header);
        self.memory.write(at + 64, &[0xff]);
        let mut parts = vec![(at, header.len(), 0)];
        let place = DATA + (ring as u64 * (1 << 20));
        if !data.is_empty() {
            self.memory.write(place, data);
            parts.push((place, data.len(), 0));
        }
        let len = usize::try_from(answer).map_err(Error::other)?;
        if len > 0 {
            parts.push((place, len, WRITE));
        }
        parts.push((at + 64, 1, WRITE));
        let last = parts.len() - 1;
        let descriptors: Vec<_> = (parts.into_iter().enumerate())
            .map(|(n, (address, len, flags))| Descriptor {
                address,
                len: u32::try_from(len).unwrap_or(u32::MAX),
                flags: if n < last { flags | NEXT } else { flags },
                next: u16::try_from(n + 1).unwrap_or(0),
            })
            .collect();
        self.describe(ring, 0, &descriptors);
        self.make_available(ring, 0);
        self.kick(ring);
        let (head, _) = self.wait(ring)?;
        assert_eq!(head, 0, "another request has ended");
        Ok((
            self.memory.read(at + 64, 1)[0],
            self.memory.read(place, len),
        ))
    }

    /// Reads bytes of the disk.
    ///
    /// # Errors
    /// If it does not end, or fails.
    pub fn read(&mut self, ring: usize, sector: u64, len: u32) -> Result<Vec<u8>> {
        let (status, bytes) = self.request(ring, &header(kind::READ, sector), &[], len)?;
        ok(status)?;
        Ok(bytes)
    }

    /// Writes bytes to the disk.
    ///
    /// # Errors
    /// If it does not end, or fails.
    pub fn write(&mut self, ring: usize, sector: u64, data: &[u8]) -> Result<()> {
        ok(self.request(ring, &header(kind::WRITE, sector), data, 0)?.0)
    }

    /// Flushes the disk.
    ///
    /// # Errors
    /// If it does not end, or fails.
    pub fn flush(&mut self, ring: usize) -> Result<()> {
        ok(self.request(ring, &header(kind::FLUSH, 0), &[], 0)?.0)
    }

    /// Whether the server closes the connection.
    pub fn is_dropped(&self) -> bool {
        has_left(&self.socket, PATIENCE.as_secs())
    }
}

/// Whether the server has closed the connection, or does so in this many seconds.
fn has_left(socket: &UnixStream, seconds: u64) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::RDHUP)];
    let limit = Timespec {
        tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX),
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&limit)).is_ok_and(|ready| ready > 0)
}

/// One ring of a guest.
pub struct Queue<'a> {
    /// The memory of the guest.
    pub memory: &'a Memory,
    socket: &'a UnixStream,
    ring: &'a mut Ring,
    /// Its number.
    pub number: usize,
}

impl Queue<'_> {
    /// Writes a chain of descriptors into the table, from `first` on: the address, the length and
    /// the flags of each.
    pub fn chain(&self, first: u16, parts: &[(u64, u32, u16)]) {
        self.memory.chain(self.number, first, parts);
    }

    /// Makes a chain available, without telling the server.
    pub fn make_available(&mut self, head: u16) {
        let next = self.ring.available;
        let at = available(self.number) + 4 + 2 * u64::from(next % RING);
        self.memory.write(at, &head.to_le_bytes());
        self.ring.available = next.wrapping_add(1);
        self.memory
            .set_u16(available(self.number) + 2, next.wrapping_add(1));
    }

    /// Tells the server that there are requests, if it wants to know.
    pub fn kick_if_needed(&self) {
        fence(Ordering::SeqCst);
        let now = self.ring.available;
        let wanted = used(self.number) + 4 + 8 * u64::from(RING);
        let wanted = self.memory.u16(wanted);
        // The server has not looked at the last requests, since it wants to be told of the first
        // one of them.
        let untold = now.wrapping_sub(self.ring.told.get());
        if now.wrapping_sub(wanted).wrapping_sub(1) < untold {
            let _ = self.ring.kick.write(1);
        }
        self.ring.told.set(now);
    }

    /// The next request that has ended: its head, and how many bytes it got. `None` if none has.
    pub fn poll(&mut self) -> Option<(u16, u32)> {
        let seen = self.ring.seen;
        if self.memory.u16(used(self.number) + 2) == seen {
            return None;
        }
        let at = used(self.number) + 4 + 8 * u64::from(seen % RING);
        let element = self.memory.read(at, 8);
        self.ring.seen = seen.wrapping_add(1);
        let head = u16::from_le_bytes([element[0], element[1]]);
        let len = u32::from_le_bytes([element[4], element[5], element[6], element[7]]);
        Some((head, len))
    }

    /// Waits for the next request that has ended.
    ///
    /// # Errors
    /// If none ends in a long time.
    pub fn wait(&mut self) -> Result<(u16, u32)> {
        let begun = Instant::now();
        loop {
            // The server is to tell of the next one.
            let event = available(self.number) + 4 + 2 * u64::from(RING);
            self.memory.set_u16(event, self.ring.seen);
            fence(Ordering::SeqCst);
            if let Some(ended) = self.poll() {
                return Ok(ended);
            }
            if begun.elapsed() > PATIENCE {
                return Err(Error::from(ErrorKind::TimedOut));
            }
            if has_left(self.socket, 0) {
                // What ended before the connection is there by now.
                return self
                    .poll()
                    .ok_or_else(|| Error::from(ErrorKind::BrokenPipe));
            }
            let _ = self.ring.called.wait(100, &mut [EpollEvent::default()]);
            let _ = self.ring.call.read();
        }
    }
}

fn ok(status: u8) -> Result<()> {
    match status {
        0 => Ok(()),
        status => Err(Error::other(format!("the status {status}"))),
    }
}
