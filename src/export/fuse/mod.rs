//! A volume as a file of this machine (FUSE).
//!
//! It speaks the protocol between Linux and a file system in a process (`linux/fuse.h`). The root
//! of the file system is the file itself, so its mount point is a file too.
//!
//! Each thread reads a request from the kernel into a buffer of its own. The data of a write are
//! encrypted in the buffer in which they arrive, and what was decrypted is given to the kernel from
//! its buffer. Both are wiped before the next request.
//!
//! A write is on stable storage once an `fsync` that was called after it has returned. Without
//! direct I/O, the plaintext stays in the page cache of the kernel until the file is unmounted.

mod device;
mod file;
mod options;
mod serve_error;
mod wire;

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

pub use options::Options;
pub use serve_error::ServeError;

use super::Export;
use super::pool::Pool;
use crate::sectors::Sectors;
use device::{Device, Reply};
use file::{File, Work};
use wire::{BEFORE_DATA, Header, IN_HEADER, MOST, Request};

/// How many requests of the page cache, and of programs that do not wait, the kernel makes at once.
const BACKGROUND: u16 = 64;

/// A server of one export as a file.
pub struct Server {
    file: Arc<File>,
    pool: Arc<Pool>,
    threads: usize,
}

impl Server {
    /// A server of this export.
    #[must_use]
    pub fn new(export: Arc<Export>, options: &Options) -> Self {
        Self {
            file: Arc::new(File::new(export, options.direct_io)),
            pool: Arc::new(Pool::new("fuse-waits", options.max_waiting)),
            threads: options.threads.max(1),
        }
    }

    /// Serves the file system that was mounted with this descriptor of `/dev/fuse`, until it is
    /// unmounted and all users have closed the file. Then ends what was begun, and flushes the
    /// export.
    ///
    /// # Errors
    /// [`ServeError`].
    pub fn run(&self, device: OwnedFd) -> Result<(), ServeError> {
        let first = Arc::new(Device::new(device));
        let served = match self.shake_hands(&first) {
            Ok(true) => self.serve(&first).map_err(|source| ServeError::System {
                doing: "read requests of the kernel",
                source,
            }),
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        self.pool.close();
        let flushed = self.file.export().flush().map_err(ServeError::Flush);
        flushed.and(served)
    }

    /// Agrees with the kernel on what both can do. Returns whether the file system is still
    /// mounted.
    fn shake_hands(&self, device: &Arc<Device>) -> Result<bool, ServeError> {
        let failed = |source| ServeError::System {
            doing: "agree with the kernel",
            source,
        };
        let (mut start, mut more) = ([0; BEFORE_DATA], Sectors::with_len(MOST));
        let received = device.receive(&mut start, &mut more).map_err(failed)?;
        if received.is_none() {
            return Ok(false);
        }
        let header = Header::parse(&start);
        let reply = Reply::to(device, header.unique);
        if !header.is_init() {
            return Err(failed(io::ErrorKind::InvalidData.into()));
        }
        let most = u32::try_from(MOST).unwrap_or(u32::MAX);
        let agreed = wire::init(&start[IN_HEADER..], most, BACKGROUND);
        reply.send(&agreed.ok_or(ServeError::OldKernel)?);
        Ok(true)
    }

    fn serve(&self, first: &Arc<Device>) -> io::Result<()> {
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for number in 1..self.threads {
                // Old kernels and some sandboxes have no such descriptors. One is enough for all.
                let device = first.another().map_or_else(|_| first.clone(), Arc::new);
                let builder = std::thread::Builder::new().name(format!("fuse-{number}"));
                match builder.spawn_scoped(scope, move || self.answer(&device)) {
                    Ok(thread) => threads.push(thread),
                    Err(error) => {
                        tracing::warn!("fewer threads serve the file: {error}");
                        break;
                    }
                }
            }
            let served = self.answer(first);
            let failed = |_| Err(io::Error::other("a thread failed"));
            let others = threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(failed));
            others.fold(served, io::Result::and)
        })
    }

    /// Answers requests that come through this descriptor until the file system is unmounted.
    fn answer(&self, device: &Arc<Device>) -> io::Result<()> {
        let (mut start, mut data) = ([0; BEFORE_DATA], Sectors::with_len(MOST));
        while let Some(len) = device.receive(&mut start, &mut data)? {
            let header = Header::parse(&start);
            let reply = Reply::to(device, header.unique);
            let request = header.request(&start[IN_HEADER..BEFORE_DATA.min(len).max(IN_HEADER)]);
            let bytes = match request {
                Request::Write { len, .. } => {
                    let all = std::mem::replace(&mut data, Sectors::empty());
                    let bytes = all.shortened((len as usize).min(MOST));
                    data = Sectors::with_len(MOST);
                    bytes
                }
                _ => Sectors::empty(),
            };
            self.begin(Work {
                request,
                bytes,
                reply,
            });
        }
        Ok(())
    }

    /// Carries out a request, here or in the pool.
    fn begin(&self, work: Work) {
        let waits = self.file.waits(work.request);
        let file = self.file.clone();
        let job = move || file.carry_out(work);
        if !waits {
            // The reply then says that the request has failed.
            let _ = catch_unwind(AssertUnwindSafe(job));
            return;
        }
        if let Err(job) = self.pool.submit(Box::new(job)) {
            let _ = catch_unwind(AssertUnwindSafe(job));
        }
    }
}
