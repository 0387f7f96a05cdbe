//! A storage and the files of a store of tags in memory, whose power can fail at every call, and
//! which can lie.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use luksmith::backend::{Backend, Geometry, IoError, Operation};
use luksmith::crypt::{IvSector, SectorCrypt};
use luksmith::secret::VolumeKey;
use luksmith::sectors::{Cipher, Sectors};
use luksmith::trust::tags::{
    Covered, StoreFile, StoreFiles, TagKey, Tagged, TagsError, TagsOptions, make,
};
use luksmith::volume::Volume;

pub(crate) const BLOCK: usize = 4096;

/// Numbers that are the same for the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        let mut mixed = self.0 ^ (self.0 >> 33);
        mixed = mixed.wrapping_mul(0xff51_afd7_ed55_8ccd);
        (mixed ^ (mixed >> 33)) % end
    }

    pub(crate) fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).unwrap()
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// The power of the host and of the storage: it fails at one of the calls.
pub(crate) struct Power {
    calls: AtomicU64,
    fails_at: AtomicU64,
}

impl Power {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            calls: AtomicU64::new(0),
            fails_at: AtomicU64::new(u64::MAX),
        })
    }

    /// Counts a call. `Some(true)` if the power fails during it, `None` if it failed before.
    fn call(&self) -> Option<bool> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let fails_at = self.fails_at.load(Ordering::Relaxed);
        (call <= fails_at).then_some(call == fails_at)
    }

    pub(crate) fn is_off(&self) -> bool {
        self.calls.load(Ordering::Relaxed) > self.fails_at.load(Ordering::Relaxed)
    }
}

fn off() -> io::Error {
    io::Error::other("the power has failed")
}

/// Bytes of which some may not be durable. `unit` is written as a whole or not at all.
struct Medium {
    unit: usize,
    now: Vec<u8>,
    durable: Vec<u8>,
    /// The units that were written since the last flush, and their content, in order.
    pending: Vec<(usize, Vec<u8>)>,
}

impl Medium {
    fn new(unit: usize, size: usize) -> Self {
        Self {
            unit,
            now: vec![0; size],
            durable: vec![0; size],
            pending: Vec::new(),
        }
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = (at + bytes.len()).next_multiple_of(self.unit);
        if self.now.len() < end {
            self.now.resize(end, 0);
            self.durable.resize(end, 0);
        }
        self.now[at..at + bytes.len()].copy_from_slice(bytes);
        for unit in at / self.unit..(at + bytes.len()).div_ceil(self.unit) {
            let start = unit * self.unit;
            self.pending
                .push((unit, self.now[start..start + self.unit].to_vec()));
        }
    }

    fn sync(&mut self) {
        self.durable.clone_from(&self.now);
        self.pending.clear();
    }

    /// The power fails: of what is not durable, any part may be there.
    fn fail(&mut self, random: &mut Random) {
        let often = random.below(4) + 1;
        for (unit, bytes) in std::mem::take(&mut self.pending) {
            if random.below(4) < often {
                let start = unit * self.unit;
                self.durable[start..start + bytes.len()].copy_from_slice(&bytes);
            }
        }
        self.now.clone_from(&self.durable);
    }
}

/// A file of the store.
#[derive(Clone)]
struct MemoryFile(Arc<Mutex<Medium>>, Arc<Power>);

impl StoreFile for MemoryFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let medium = self.0.lock().unwrap();
        let from = usize::try_from(offset).unwrap().min(medium.now.len());
        let length = into.len().min(medium.now.len() - from);
        into[..length].copy_from_slice(&medium.now[from..from + length]);
        into[length..].fill(0);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let is_last = self.1.call().ok_or_else(off)?;
        let offset = usize::try_from(offset).unwrap();
        self.0.lock().unwrap().write(offset, bytes);
        if is_last { Err(off()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        match self.1.call().ok_or_else(off)? {
            true => Err(off()),
            false => {
                self.0.lock().unwrap().sync();
                Ok(())
            }
        }
    }
}

/// What the storage has, and every content that each block had.
pub(crate) struct Disk {
    medium: Mutex<Medium>,
    history: Mutex<Vec<Vec<Vec<u8>>>>,
    power: Arc<Power>,
    /// The next write of this fate fails.
    pub(crate) failing: Mutex<Option<Fate>>,
    /// Writes and flushes are confirmed, and nothing is stored.
    pub(crate) drops_writes: Mutex<bool>,
}

/// What a write leaves that the storage reports as failed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    Nothing,
    Everything,
    /// The blocks with even numbers.
    Half,
}

impl Disk {
    fn new(size: usize, power: Arc<Power>) -> Self {
        Self {
            medium: Mutex::new(Medium::new(BLOCK, size)),
            history: Mutex::new(vec![vec![vec![0; BLOCK]]; size / BLOCK]),
            power,
            failing: Mutex::new(None),
            drops_writes: Mutex::new(false),
        }
    }

    /// The content of the whole storage.
    pub(crate) fn image(&self) -> Vec<u8> {
        self.medium.lock().unwrap().now.clone()
    }

    /// Another content, which the storage keeps.
    pub(crate) fn replace(&self, image: Vec<u8>) {
        let mut medium = self.medium.lock().unwrap();
        medium.pending.clear();
        medium.durable.clone_from(&image);
        medium.now = image;
    }

    /// Every content that a block had.
    pub(crate) fn history(&self, block: usize) -> Vec<Vec<u8>> {
        self.history.lock().unwrap()[block].clone()
    }

    fn store(&self, offset: usize, bytes: &[u8], only: impl Fn(usize) -> bool) {
        let mut medium = self.medium.lock().unwrap();
        let mut history = self.history.lock().unwrap();
        for (number, bytes) in (offset / BLOCK..).zip(bytes.chunks(BLOCK)) {
            if only(number) {
                medium.write(number * BLOCK, bytes);
                let start = number * BLOCK;
                history[number].push(medium.now[start..start + BLOCK].to_vec());
            }
        }
    }
}

fn failed(operation: Operation, offset: u64) -> IoError {
    IoError::Failed {
        operation,
        offset,
        source: io::Error::other("the storage has failed"),
    }
}

impl Backend for Disk {
    fn geometry(&self) -> Geometry {
        Geometry::new(self.medium.lock().unwrap().now.len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        self.geometry()
            .check(Operation::Read, offset, into.len() as u64)?;
        let medium = self.medium.lock().unwrap();
        let at = usize::try_from(offset).unwrap();
        let length = into.len();
        into.as_mut_slice()
            .copy_from_slice(&medium.now[at..at + length]);
        Ok(())
    }

    fn write_at(&self, offset: u64, from: &Sectors<Cipher>) -> Result<(), IoError> {
        self.geometry()
            .check_change(Operation::Write, offset, from.len() as u64)?;
        let Some(is_last) = self.power.call() else {
            return Err(failed(Operation::Write, offset));
        };
        if *self.drops_writes.lock().unwrap() {
            return Ok(());
        }
        let at = usize::try_from(offset).unwrap();
        let fate = self.failing.lock().unwrap().take();
        match fate {
            None | Some(Fate::Everything) => self.store(at, from.as_slice(), |_| true),
            Some(Fate::Half) => self.store(at, from.as_slice(), |block| block % 2 == 0),
            Some(Fate::Nothing) => {}
        }
        match is_last || fate.is_some() {
            true => Err(failed(Operation::Write, offset)),
            false => Ok(()),
        }
    }

    fn flush(&self) -> Result<(), IoError> {
        match self.power.call() {
            Some(false) => {
                self.medium.lock().unwrap().sync();
                Ok(())
            }
            _ => Err(failed(Operation::Flush, 0)),
        }
    }

    fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        let length = usize::try_from(range.end - range.start).unwrap();
        let Some(is_last) = self.power.call() else {
            return Err(failed(Operation::Discard, range.start));
        };
        let at = usize::try_from(range.start).unwrap();
        self.store(at, &vec![0; length], |_| true);
        match is_last {
            true => Err(failed(Operation::Discard, range.start)),
            false => Ok(()),
        }
    }

    fn write_zeroes(&self, _: Range<u64>) -> Result<(), IoError> {
        Err(IoError::Unsupported(Operation::WriteZeroes))
    }

    fn resize(&self, _: u64) -> Result<(), IoError> {
        Err(IoError::Unsupported(Operation::Resize))
    }
}

/// A storage with a volume of whole blocks, and its tags on a host.
pub(crate) struct World {
    pub(crate) disk: Arc<Disk>,
    pub(crate) power: Arc<Power>,
    files: [MemoryFile; 3],
    blocks: usize,
}

/// An opened volume, and its storage with tags.
pub(crate) type Opened = (Volume, Arc<Tagged>);

fn key() -> VolumeKey {
    VolumeKey::copy_from(&[0x42; 64]).unwrap()
}

fn crypt() -> SectorCrypt {
    SectorCrypt::new("aes-xts-plain64".parse().unwrap(), 512, &key()).unwrap()
}

/// Logs that are soon full.
pub(crate) fn short_logs() -> TagsOptions {
    TagsOptions::new()
        .background(false)
        .log_bytes(3000)
        .log_blocks(12)
}

impl World {
    /// A volume of which nothing was written.
    pub(crate) fn new(blocks: usize) -> Self {
        let power = Power::new();
        let world = Self {
            disk: Arc::new(Disk::new(blocks * BLOCK, power.clone())),
            files: std::array::from_fn(|_| {
                MemoryFile(Arc::new(Mutex::new(Medium::new(512, 0))), power.clone())
            }),
            power,
            blocks,
        };
        let data = 0..(blocks * BLOCK) as u64;
        let options = short_logs();
        make(
            &world.files(),
            &world.tag_key(),
            &world.disk,
            data,
            true,
            &options,
            &mut |_| Ok(()),
        )
        .unwrap();
        world
    }

    fn tag_key(&self) -> TagKey {
        TagKey::new(&key(), "00000000-0000-0000-0000-000000000001").unwrap()
    }

    fn files(&self) -> StoreFiles {
        let [tags, first, second] = self.files.clone();
        StoreFiles::new(Box::new(tags), [Box::new(first), Box::new(second)])
    }

    pub(crate) fn size(&self) -> usize {
        self.blocks * BLOCK
    }

    /// Opens the volume with its tags.
    pub(crate) fn open(&self, options: TagsOptions) -> Result<Opened, TagsError> {
        let covered = Covered::new(0, IvSector(0), crypt());
        let disk: Arc<dyn Backend> = self.disk.clone();
        let tagged = Tagged::open(disk, covered, self.tag_key(), self.files(), options)?;
        let tagged = Arc::new(tagged);
        let size = self.size() as u64;
        let volume = Volume::new(tagged.clone(), crypt(), 0, size, IvSector(0), false)?;
        Ok((volume, tagged))
    }

    /// Opens the volume without its tags, as any other program does.
    pub(crate) fn open_without(&self) -> Volume {
        let size = self.size() as u64;
        Volume::new(self.disk.clone(), crypt(), 0, size, IvSector(0), false).unwrap()
    }

    /// The power fails after this number of further calls.
    pub(crate) fn fail_after(&self, calls: u64) {
        let now = self.power.calls.load(Ordering::Relaxed);
        self.power.fails_at.store(now + calls, Ordering::Relaxed);
    }

    /// How many calls there were.
    pub(crate) fn calls(&self) -> u64 {
        self.power.calls.load(Ordering::Relaxed)
    }

    /// The program was killed; what the system has stays.
    pub(crate) fn kill(&self) {
        self.power.fails_at.store(u64::MAX, Ordering::Relaxed);
    }

    /// The power of the host and of the storage failed, and is on again.
    pub(crate) fn restart(&self, random: &mut Random) {
        self.kill();
        self.disk.medium.lock().unwrap().fail(random);
        for file in &self.files {
            file.0.lock().unwrap().fail(random);
        }
    }
}
