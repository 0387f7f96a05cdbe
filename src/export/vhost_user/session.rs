//! What one client has set up: the memory of its guest, the features, and the rings. Here are the
//! answers to the messages of *Vhost-user Protocol* (QEMU's `docs/interop/vhost-user.rst`).
//!
//! A ring is stopped before anything that it uses changes, and is started again afterwards. After a
//! message for which that is so was answered, nothing happens with what it replaced.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig,
    VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use virtio_queue::{Queue, QueueT};

use super::device::{MAX_QUEUE_SIZE, MAX_QUEUES, WRITEBACK_AT, bits};
use super::memory::{MAX_REGIONS, Memory};
use super::ring::{Call, Common, Ring, Start, signal};

/// The protocol features that are offered. Without `LOG_SHMFD`, an emulator refuses to migrate the
/// guest, since the server would not tell it which pages were written.
const PROTOCOL_FEATURES: VhostUserProtocolFeatures = VhostUserProtocolFeatures::MQ
    .union(VhostUserProtocolFeatures::CONFIG)
    .union(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)
    .union(VhostUserProtocolFeatures::REPLY_ACK);

/// What a client has set up.
pub(super) struct Session {
    common: Arc<Common>,
    memory: Arc<Memory>,
    /// The features that the client has chosen.
    features: u64,
    writeback: bool,
    rings: Vec<Prepared>,
}

/// What a client has said of a ring.
#[derive(Default)]
struct Prepared {
    size: u16,
    /// The descriptors, the available ring and the used ring, in the memory of the client.
    places: Option<[u64; 3]>,
    next_available: u16,
    kick: Option<OwnedFd>,
    call: Call,
    enabled: bool,
    running: Option<Ring>,
}

impl Session {
    pub(super) fn new(common: Arc<Common>) -> Self {
        Self {
            common,
            memory: Arc::default(),
            features: 0,
            writeback: true,
            rings: (0..MAX_QUEUES).map(|_| Prepared::default()).collect(),
        }
    }

    /// Stops all rings. The guest gets the results of what was begun.
    pub(super) fn end(&mut self) {
        self.stop_all();
    }

    fn ring(&mut self, index: u32) -> Result<&mut Prepared> {
        let index = usize::try_from(index).map_err(|_| Error::InvalidParam)?;
        self.rings.get_mut(index).ok_or(Error::InvalidParam)
    }

    /// Stops the ring, changes what was said of it, and starts it again if it can be.
    fn change(&mut self, index: u32, change: impl FnOnce(&mut Prepared)) -> Result<()> {
        let ring = self.ring(index)?;
        ring.stop();
        change(ring);
        self.start(index)
    }

    fn start(&mut self, index: u32) -> Result<()> {
        let (common, memory) = (self.common.clone(), self.memory.clone());
        let event_idx = self.features & bits::EVENT_IDX != 0;
        self.ring(index)?.start(common, memory, event_idx)
    }

    fn stop_all(&mut self) {
        self.rings.iter_mut().for_each(Prepared::stop);
    }

    fn start_all(&mut self) -> Result<()> {
        let event_idx = self.features & bits::EVENT_IDX != 0;
        for ring in &mut self.rings {
            ring.start(self.common.clone(), self.memory.clone(), event_idx)?;
        }
        Ok(())
    }

    fn replace_memory(&mut self, memory: Memory) -> Result<()> {
        self.stop_all();
        self.memory = Arc::new(memory);
        self.start_all()
    }

    /// A guest that cannot ask for a flush, or has switched the cache off, gets the end of a write
    /// only when that is on stable storage.
    fn set_writethrough(&self) {
        let can_flush = self.features & bits::FLUSH != 0;
        let can_switch = self.features & bits::CONFIG_WCE != 0;
        let writethrough = !can_flush || (can_switch && !self.writeback);
        (self.common.writethrough).store(writethrough, Ordering::Release);
    }
}

impl Prepared {
    fn stop(&mut self) {
        if let Some(ring) = self.running.take() {
            self.next_available = ring.stop();
        }
    }

    /// Starts the ring, if the client has said all that is needed.
    fn start(&mut self, common: Arc<Common>, memory: Arc<Memory>, event_idx: bool) -> Result<()> {
        let (Some(places), Some(kick), true, None) =
            (self.places, &self.kick, self.enabled, &self.running)
        else {
            return Ok(());
        };
        let kick = kick.try_clone().map_err(Error::ReqHandlerError)?;
        let queue = self.queue(places, &memory, event_idx);
        let started = Ring::start(Start {
            common,
            memory,
            queue: queue.ok_or(Error::InvalidParam)?,
            kick,
            call: self.call.clone(),
        });
        self.running = Some(started.map_err(Error::ReqHandlerError)?);
        Ok(())
    }

    /// The queue; `None` if it is not in the memory of the guest.
    fn queue(&self, places: [u64; 3], memory: &Memory, event_idx: bool) -> Option<Queue> {
        let [descriptors, available, used] = places;
        let map = memory.map();
        let mut queue = Queue::new(MAX_QUEUE_SIZE).ok()?;
        queue.try_set_size(self.size).ok()?;
        let descriptors = memory.address(descriptors)?;
        queue.try_set_desc_table_address(descriptors).ok()?;
        let available = memory.address(available)?;
        queue.try_set_avail_ring_address(available).ok()?;
        let used = memory.address(used)?;
        queue.try_set_used_ring_address(used).ok()?;
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        if !queue.is_valid(map) {
            return None;
        }
        queue.set_next_avail(self.next_available);
        let returned = queue.used_idx(map, Ordering::Acquire).ok()?;
        queue.set_next_used(returned.0);
        Some(queue)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}

/// A descriptor of the client, which never makes a thread wait.
fn event(file: File) -> Result<OwnedFd> {
    let fd = OwnedFd::from(file);
    let set = rustix::io::ioctl_fionbio(&fd, true);
    set.map_err(|error| Error::ReqHandlerError(error.into()))?;
    Ok(fd)
}

fn no<T>(what: &'static str) -> Result<T> {
    Err(Error::InvalidOperation(what))
}

impl VhostUserBackendReqHandlerMut for Session {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.stop_all();
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        no("reset of the device")
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(self.common.device.features())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !self.common.device.features() != 0 {
            return Err(Error::InvalidParam);
        }
        self.stop_all();
        self.features = features;
        if features & bits::PROTOCOL_FEATURES == 0 {
            // Such a client cannot enable a ring.
            self.rings.iter_mut().for_each(|ring| ring.enabled = true);
        }
        self.set_writethrough();
        self.start_all()
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        let mut memory = Memory::default();
        for (region, file) in regions.iter().zip(files) {
            let with = memory.with(region, file);
            memory = with.map_err(Error::ReqHandlerError)?;
        }
        self.replace_memory(memory)?;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, size: u32) -> Result<()> {
        let size = u16::try_from(size).map_err(|_| Error::InvalidParam)?;
        if !size.is_power_of_two() || size > MAX_QUEUE_SIZE {
            return Err(Error::InvalidParam);
        }
        self.change(index, |ring| ring.size = size)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _: VhostUserVringAddrFlags,
        descriptors: u64,
        used: u64,
        available: u64,
        _: u64,
    ) -> Result<()> {
        let places = [descriptors, available, used];
        self.change(index, |ring| ring.places = Some(places))
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        // The upper half is for packed rings, which are not offered.
        let base = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        self.change(index, |ring| ring.next_available = base)
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let ring = self.ring(index)?;
        ring.stop();
        ring.kick = None;
        *ring.call.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let next = ring.next_available;
        Ok(VhostUserVringState::new(index, next.into()))
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> Result<()> {
        // Without an event the memory would have to be looked at all the time.
        let kick = event(file.ok_or(Error::InvalidParam)?)?;
        self.change(index.into(), |ring| ring.kick = Some(kick))
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let call = file.map(event).transpose()?;
        let ring = self.ring(index.into())?;
        *ring.call.lock().unwrap_or_else(PoisonError::into_inner) = call;
        // Requests may have ended while there was none.
        signal(&ring.call);
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, _: Option<File>) -> Result<()> {
        self.ring(index.into())?;
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(PROTOCOL_FEATURES)
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        match features & !PROTOCOL_FEATURES.bits() {
            0 => Ok(()),
            _ => Err(Error::InvalidParam),
        }
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(MAX_QUEUES as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.change(index, |ring| ring.enabled = enable)
    }

    fn get_config(&mut self, offset: u32, size: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        Ok(self.common.device.config(offset, size, self.writeback))
    }

    fn set_config(&mut self, offset: u32, bytes: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        let ([writeback @ (0 | 1)], WRITEBACK_AT) = (bytes, offset) else {
            return Err(Error::InvalidParam);
        };
        self.writeback = *writeback == 1;
        self.set_writethrough();
        Ok(())
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        no("a socket for graphics")
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        no("shared objects")
    }

    fn get_inflight_fd(&mut self, _: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        no("memory of requests in flight")
    }

    fn set_inflight_fd(&mut self, _: &VhostUserInflight, _: File) -> Result<()> {
        no("memory of requests in flight")
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(MAX_REGIONS as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        let memory = self.memory.with(region, file);
        self.replace_memory(memory.map_err(Error::ReqHandlerError)?)?;
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let memory = self.memory.without(region).ok_or(Error::InvalidParam)?;
        self.replace_memory(memory)
    }

    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        no("the state of the device")
    }

    fn check_device_state(&mut self) -> Result<()> {
        no("the state of the device")
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        no("shared memory of the server")
    }

    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Result<()> {
        no("a log of written pages")
    }
}

/// Why a region or a ring was refused, for a message.
pub(super) fn reason(error: &Error) -> String {
    let source: Option<&io::Error> = match error {
        Error::ReqHandlerError(source) | Error::SocketError(source) => Some(source),
        _ => None,
    };
    source.map_or_else(|| error.to_string(), ToString::to_string)
}
