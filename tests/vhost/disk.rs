//! A server in this process, of a volume in memory.

use std::ops::Range;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use luksmith::backend::memory::MemoryBackend;
use luksmith::backend::{Backend, Geometry, IoError, Operation};
use luksmith::crypt::{IvSector, SectorCrypt};
use luksmith::export::Export;
use luksmith::export::vhost_user::{Disk, Options, ServeError, Server, Stopper};
use luksmith::formats::CipherSpec;
use luksmith::secret::VolumeKey;
use luksmith::sectors::{Cipher, Sectors};
use luksmith::volume::Volume;
use support::vhost_guest::{FEATURES, Guest};

/// The size of a volume here, in bytes.
pub(crate) const SIZE: u64 = 8 << 20;

/// Memory that counts flushes, whose flush can fail, and that can be slow.
pub(crate) struct Storage {
    memory: MemoryBackend,
    pub(crate) flushes: AtomicUsize,
    pub(crate) flush_fails: AtomicBool,
    pub(crate) slow: AtomicBool,
    /// How many reads wait until another one has begun; see [`meet`](Self::meet).
    pub(crate) to_meet: AtomicUsize,
    reading: AtomicUsize,
}

impl Storage {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            memory: MemoryBackend::new(usize::try_from(SIZE).unwrap()),
            flushes: AtomicUsize::new(0),
            flush_fails: AtomicBool::new(false),
            slow: AtomicBool::new(false),
            to_meet: AtomicUsize::new(0),
            reading: AtomicUsize::new(0),
        })
    }

    /// Waits until [`to_meet`](Self::to_meet) reads have begun. They never end if they come one
    /// after the other.
    fn meet(&self) -> Result<(), IoError> {
        let wanted = self.to_meet.load(Ordering::Relaxed);
        let begun = Instant::now();
        self.reading.fetch_add(1, Ordering::Relaxed);
        while self.reading.load(Ordering::Relaxed) < wanted {
            if begun.elapsed() > Duration::from_secs(20) {
                let error = std::io::Error::other("no other read has begun");
                return Err(IoError::from_os(Operation::Read, 0, error));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn wait(&self) {
        if self.slow.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Backend for Storage {
    fn geometry(&self) -> Geometry {
        self.memory.geometry()
    }
    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        self.wait();
        self.meet()?;
        self.memory.read_at(offset, into)
    }
    fn write_at(&self, offset: u64, from: &Sectors<Cipher>) -> Result<(), IoError> {
        self.wait();
        self.memory.write_at(offset, from)
    }
    fn flush(&self) -> Result<(), IoError> {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        if self.flush_fails.swap(false, Ordering::Relaxed) {
            let error = std::io::Error::other("broken");
            return Err(IoError::from_os(Operation::Flush, 0, error));
        }
        Ok(())
    }
    fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        self.memory.discard(range)
    }
    fn write_zeroes(&self, range: Range<u64>) -> Result<(), IoError> {
        self.memory.write_zeroes(range)
    }
    fn resize(&self, size: u64) -> Result<(), IoError> {
        self.memory.resize(size)
    }
}

/// An export of this storage.
pub(crate) fn export(storage: &Arc<Storage>) -> Export {
    let key = VolumeKey::copy_from(&[7; 64]).unwrap();
    let crypt = SectorCrypt::new(CipherSpec::AES_XTS_PLAIN64, 4096, &key).unwrap();
    let volume = Volume::new(storage.clone(), crypt, 0, SIZE, IvSector(0), false).unwrap();
    Export::new("the disk", Arc::new(volume))
}

/// A running server of one disk.
pub(crate) struct Served {
    pub(crate) export: Arc<Export>,
    folder: tempfile::TempDir,
    stopper: Stopper,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

impl Served {
    pub(crate) fn start(export: Export) -> Self {
        Self::with(export, 512, Options::default())
    }

    pub(crate) fn with(export: Export, block_size: u32, options: Options) -> Self {
        let export = Arc::new(export);
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        let disk = Disk::new(export.clone(), listener);
        let disk = disk.with_block_size(block_size).unwrap();
        let server = Server::new(options).unwrap();
        let stopper = server.stopper();
        let thread = std::thread::spawn(move || server.run(vec![disk]));
        Self {
            export,
            folder,
            stopper,
            thread: Some(thread),
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// A guest with this number of rings and all features.
    pub(crate) fn guest(&self, rings: usize) -> Guest {
        Guest::connect(&self.socket(), rings, FEATURES).unwrap()
    }

    /// Whether the server still serves a guest.
    pub(crate) fn serves(&self) -> bool {
        let bytes = self.guest(1).read(0, 0, 512);
        bytes.is_ok_and(|bytes| bytes.len() == 512)
    }

    /// Whether the server has ended by itself.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Stops the server, and returns its end.
    pub(crate) fn stop(mut self) -> Result<(), ServeError> {
        self.stopper.stop();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
