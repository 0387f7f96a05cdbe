//! The device of a mounted file system: requests are read from it, and replies written to it.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;

use super::wire::{self, BEFORE_DATA};
use crate::sectors::{Plain, Sectors};
use crate::sys::fuse;

/// A descriptor of the device. The reply to a request goes to the descriptor that it came from.
pub(super) struct Device(OwnedFd);

impl Device {
    pub(super) fn new(device: OwnedFd) -> Self {
        Self(device)
    }

    /// Another descriptor for requests of the same file system, with a queue of its own.
    pub(super) fn another(&self) -> io::Result<Self> {
        fuse::clone_device(self.0.as_fd()).map(Self)
    }

    /// Waits for the next request. Its first bytes are put into `start`, and the data of a write,
    /// or what else follows, into `data`. Returns the length of the request, or `None` once the
    /// file system is unmounted.
    pub(super) fn receive(
        &self,
        start: &mut [u8; BEFORE_DATA],
        data: &mut Sectors<Plain>,
    ) -> io::Result<Option<usize>> {
        loop {
            let mut parts = [IoSliceMut::new(start), IoSliceMut::new(data.as_mut_slice())];
            match rustix::io::readv(&self.0, &mut parts) {
                Ok(len) => return Ok(Some(len)),
                // The process that asked has taken its request back.
                Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => {}
                Err(Errno::NODEV) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The reply that a request has to get. If it gets none, such as after a panic, this tells the
/// kernel that the request has failed.
pub(super) struct Reply {
    device: Arc<Device>,
    unique: u64,
    sent: bool,
}

impl Reply {
    pub(super) fn to(device: &Arc<Device>, unique: u64) -> Self {
        Self {
            device: device.clone(),
            unique,
            sent: false,
        }
    }

    /// Replies with these bytes.
    pub(super) fn send(self, bytes: &[u8]) {
        self.write(bytes, 0);
    }

    /// Replies that the request has failed.
    pub(super) fn fail(self, error: Errno) {
        self.write(&[], error.raw_os_error());
    }

    /// There is to be no reply.
    pub(super) fn omit(mut self) {
        self.sent = true;
    }

    fn write(mut self, bytes: &[u8], error: i32) {
        self.sent = true;
        self.write_now(bytes, error);
    }

    fn write_now(&self, bytes: &[u8], error: i32) {
        let header = wire::out_header(self.unique, bytes.len(), error);
        let parts = [IoSlice::new(&header), IoSlice::new(bytes)];
        // A reply is taken as a whole. It fails if the process that asked has gone, or the file
        // system was unmounted by force: then nothing waits for it.
        let _ = rustix::io::writev(&self.device.0, &parts);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.sent {
            self.write_now(&[], Errno::IO.raw_os_error());
        }
    }
}
