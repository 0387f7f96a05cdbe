//! Simulated histories: a writer works on a store with faults and is killed at any request; the
//! next one finds every flushed write, and otherwise a part of the writes from the first one on.

use std::cell::Cell;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use luksmith::backend::{Backend, IoError};
use luksmith::objects::{ObjectsBackend, ObjectsError, ObjectsOptions};
use luksmith::sectors::{Cipher, Sectors};
use luksmith_formats::objects::volume::Volume;

use crate::faults::{Faults, Handle, Objects, Random, index};

const BLOCK: usize = 4096;
const BLOCKS: u64 = 48;

pub(crate) fn options() -> ObjectsOptions {
    ObjectsOptions::new()
        .write(true)
        .take_over(true)
        .uploads(2)
        .connections(1)
        .pause(Duration::from_micros(20))
        .timeout(Duration::from_secs(20))
}

pub(crate) fn make(objects: &Objects, size: u64) {
    let volume = Volume::new([7; 16], size).with_object_size(16 << 10);
    ObjectsBackend::create(objects.handle(), &volume, &options()).unwrap();
}

/// The journal of a volume, if it has one.
pub(crate) struct Local {
    file: Option<(tempfile::TempDir, PathBuf)>,
    /// The length up to which it is durable.
    synced: Cell<u64>,
}

impl Local {
    pub(crate) fn none() -> Self {
        let synced = Cell::new(0);
        Self { file: None, synced }
    }

    /// In memory.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = folder.path().join("journal");
        Self {
            file: Some((folder, path)),
            ..Self::none()
        }
    }

    pub(crate) fn path(&self) -> Option<PathBuf> {
        self.file.as_ref().map(|(_, path)| path.clone())
    }

    pub(crate) fn make(&self, objects: &Objects, size: u64) {
        let volume = Volume::new([7; 16], size).with_object_size(16 << 10);
        let volume = match self.file {
            Some(_) => volume.with_journal(),
            None => volume,
        };
        ObjectsBackend::create(objects.handle(), &volume, &options()).unwrap();
    }

    fn length(&self) -> u64 {
        let file = self.path().and_then(|path| path.metadata().ok());
        file.map_or(0, |file| file.len())
    }

    /// What is in the file is durable.
    fn mark(&self) {
        self.synced.set(self.length());
    }

    /// The host fails: of what is not durable, the beginning may be there, or all but some pages.
    fn lose(&self, random: &mut Random) {
        let (length, synced) = (self.length(), self.synced.get());
        if length > synced
            && let Some(path) = self.path()
        {
            let kept = synced + random.below(length - synced + 1);
            let file = std::fs::File::options().write(true).open(path).unwrap();
            if random.below(2) == 0 {
                return file.set_len(kept).unwrap();
            }
            let lost = random.below(length - kept + 1);
            file.write_all_at(&vec![0; index(lost)], kept).unwrap();
        }
    }
}

/// A block whose every word is this number.
pub(crate) fn block(stamp: u64) -> Sectors<Cipher> {
    let mut bytes = Sectors::<Cipher>::with_len(BLOCK);
    for word in bytes.as_mut_slice().chunks_exact_mut(8) {
        word.copy_from_slice(&stamp.to_le_bytes());
    }
    bytes
}

/// The number in each block, which has to be the same everywhere in it.
pub(crate) fn stamps(volume: &dyn Backend) -> Result<Vec<u64>, IoError> {
    let size = index(volume.geometry().size);
    let mut bytes = Sectors::<Cipher>::with_len(size);
    volume.read_at(0, &mut bytes)?;
    let blocks = bytes.as_slice().chunks_exact(BLOCK);
    let stamps = blocks.map(|block| {
        let (words, _) = block.as_chunks::<8>();
        assert!(words.iter().all(|word| *word == words[0]), "a torn block");
        u64::from_le_bytes(words[0])
    });
    Ok(stamps.collect())
}

/// What was done to each block, in order, and up to where it was flushed.
struct Model {
    /// The changes since the first one: a block and its new number.
    changes: Vec<(u64, u64)>,
    flushed: usize,
    stamp: u64,
}

impl Model {
    /// Finds how many of the changes are in the volume.
    #[track_caller]
    fn check(&mut self, found: &[u64], seed: u64) {
        let mut now = vec![0; found.len()];
        let mut matched = (self.flushed == 0 && now == found).then_some(0);
        for (number, (block, stamp)) in self.changes.iter().enumerate() {
            now[index(*block)] = *stamp;
            if number + 1 >= self.flushed && now == found {
                matched = Some(number + 1);
            }
        }
        let Some(matched) = matched else {
            panic!(
                "history {seed}: of {} changes {} were flushed, and found is {found:?}",
                self.changes.len(),
                self.flushed
            );
        };
        self.changes.truncate(matched);
        self.flushed = matched;
    }

    /// One change, flush, checkpoint or collection.
    fn step(
        &mut self,
        volume: &ObjectsBackend,
        random: &mut Random,
        local: &Local,
    ) -> Result<(), Failed> {
        let at = random.below(BLOCKS);
        match random.below(40) {
            0..=24 => {
                self.stamp += 1;
                self.changes.push((at, self.stamp));
                volume.write_at(at * BLOCK as u64, &block(self.stamp))?;
            }
            25..=28 => {
                let count = random.below(6).min(BLOCKS - at) + 1;
                let end = (at + count).min(BLOCKS);
                self.changes.extend((at..end).map(|block| (block, 0)));
                volume.discard(at * BLOCK as u64..end * BLOCK as u64)?;
            }
            29..=35 => {
                volume.flush()?;
                local.mark();
                self.flushed = self.changes.len();
            }
            36 => volume.checkpoint()?,
            37 => volume.collect()?,
            38 => drop(volume.sweep()?),
            _ => {
                let name = format!("s{}", random.below(3));
                match random.below(2) {
                    0 => match volume.make_snapshot(&name) {
                        Err(ObjectsError::SnapshotExists) => {}
                        other => other?,
                    },
                    _ => match volume.delete_snapshot(&name) {
                        Err(ObjectsError::NoSnapshot) => {}
                        other => other?,
                    },
                }
            }
        }
        Ok(())
    }
}

/// The writer failed: it is dead, or fenced.
#[derive(Debug)]
struct Failed;

impl From<IoError> for Failed {
    fn from(_: IoError) -> Self {
        Self
    }
}

impl From<ObjectsError> for Failed {
    fn from(_: ObjectsError) -> Self {
        Self
    }
}

fn history(seed: u64, local: &Local) {
    let mut random = Random::new(seed);
    let objects = Objects::default();
    local.make(&objects, BLOCKS * BLOCK as u64);
    let options = || options().journal(local.path());
    let mut model = Model {
        changes: Vec::new(),
        flushed: 0,
        stamp: 0,
    };
    let mut before: Vec<Arc<Handle>> = Vec::new();
    for _ in 0..4 {
        let faults = Faults {
            refused: random.below(60),
            dropped: random.below(60),
            delayed: random.below(40),
            hidden: random.below(40),
            stale: 300,
            dead_after: Some(random.below(220)),
        };
        let handle = objects.with_faults(random.next(), faults);
        // Few objects make a checkpoint, which collects garbage too.
        let few = options().checkpoint_objects(4 + random.below(20));
        // A small journal begins anew often, and writers wait for that.
        let few = few.journal_size(1 + random.below(80_000));
        let opened = ObjectsBackend::open(handle.clone(), None, few);
        local.mark();
        if let Ok(volume) = opened {
            // The client may die before it has read all.
            if let Ok(found) = stamps(&volume) {
                model.check(&found, seed);
                while model.step(&volume, &mut random, local).is_ok() {}
            }
            drop(volume);
            local.lose(&mut random);
        }
        before.push(handle);
        // What earlier clients had sent may still arrive.
        let late = index(random.below(before.len() as u64 * 2));
        if let Some(handle) = before.get(late) {
            handle.settle();
        }
    }
    let volume = ObjectsBackend::open(objects.handle(), None, options()).unwrap();
    model.check(&stamps(&volume).unwrap(), seed);
    volume
        .verify()
        .unwrap_or_else(|error| panic!("history {seed}: {error}"));
    volume.collect().unwrap();
    volume.sweep().unwrap();
    assert_eq!(
        stamps(&volume).unwrap(),
        state(&model),
        "history {seed}, collected"
    );
    drop(volume);
    let volume = ObjectsBackend::open(objects.handle(), None, options().write(false)).unwrap();
    assert_eq!(
        stamps(&volume).unwrap(),
        state(&model),
        "history {seed}, read only"
    );
    volume.verify().unwrap();
}

fn state(model: &Model) -> Vec<u64> {
    let mut now = vec![0; index(BLOCKS)];
    for (block, stamp) in &model.changes {
        now[index(*block)] = *stamp;
    }
    now
}

/// How many histories run at the same time.
const THREADS: usize = 4;

#[test]
fn flushed_writes_survive_every_history() {
    every_history(Local::none);
}

#[test]
fn flushed_writes_survive_every_history_with_a_journal() {
    every_history(Local::new);
}

fn every_history(local: fn() -> Local) {
    let (first, count) = match std::env::var("LUKSMITH_TEST_LONG") {
        Ok(_) => (1000, 20_000),
        Err(_) => (0, 150),
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS as u64 {
            scope.spawn(move || {
                (first + thread..first + count)
                    .step_by(THREADS)
                    .for_each(|seed| history(seed, &local()))
            });
        }
    });
}
