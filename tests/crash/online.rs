//! A reencryption beside a client that writes, cut at any moment: what the client has flushed is
//! there, and what it has written since is there or not, block by block.
//!
//! The reencryption was begun before, or begins while the client writes.
//!
//! The client and the reencryption run in two threads. The recording has the writes of both, so a
//! cut can be between any of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use luksmith::Interrupt;
use luksmith::backend::{Backend, Geometry, IoError};
use luksmith::container::{Container, OpenOptions, Undo, Which};
use luksmith::reencrypt::{Idle, Online, Resume, open_to_read};
use luksmith::sectors::{Cipher, Sectors};
use luksmith::volume::Volume;
use luksmith_formats::luks2::{Progress, Resilience};
use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};
use support::peers;

use crate::disk::{Disk, Event, Log, State};
use crate::reencryption::{Case, ZONE, case, checksum, resumed};
use crate::states;
use crate::volume::passphrase;

const BLOCK: usize = 4096;

fn cases() -> Vec<Case> {
    let mut small = case("online, checksum 512 to 4096", checksum(4096));
    small.sectors = (512, 4096);
    let mut detached = case("online, detached, checksum", checksum(4096));
    detached.detached = true;
    let mut detached_journal = case("online, detached, journal", Resilience::Journal);
    detached_journal.detached = true;
    vec![
        case("online, checksum", checksum(4096)),
        case("online, journal", Resilience::Journal),
        small,
        detached,
        detached_journal,
    ]
}

/// A disk on which a flush takes a while, so that the client can act meanwhile.
struct Slow(Arc<Disk>);

impl Backend for Slow {
    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }
    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        self.0.read_at(offset, into)
    }
    fn write_at(&self, offset: u64, from: &Sectors<Cipher>) -> Result<(), IoError> {
        self.0.write_at(offset, from)
    }
    fn flush(&self) -> Result<(), IoError> {
        std::thread::sleep(Duration::from_micros(300));
        self.0.flush()
    }
    fn discard(&self, range: std::ops::Range<u64>) -> Result<(), IoError> {
        self.0.discard(range)
    }
    fn write_zeroes(&self, range: std::ops::Range<u64>) -> Result<(), IoError> {
        self.0.write_zeroes(range)
    }
    fn resize(&self, size: u64) -> Result<(), IoError> {
        self.0.resize(size)
    }
}

/// The length of the recording when a request of the client began, and when it had its reply.
#[derive(Clone, Copy)]
struct Time {
    began: usize,
    ended: usize,
}

/// What the client has done: the contents of each block, and its flushes.
struct Client {
    blocks: BTreeMap<usize, Vec<(Time, Vec<u8>)>>,
    flushes: Vec<Time>,
}

impl Client {
    fn new(payload: &[u8]) -> Self {
        let start = Time { began: 0, ended: 0 };
        let blocks = payload
            .chunks(BLOCK)
            .map(|block| vec![(start, block.to_vec())]);
        Self {
            blocks: blocks.enumerate().collect(),
            flushes: vec![start],
        }
    }

    /// Writes and flushes until the other thread has ended.
    fn act(&mut self, volume: &Volume, log: &Log, rng: &mut TestRng, ended: &AtomicBool) {
        let size = usize::try_from(volume.size()).unwrap();
        let mut present = vec![0; size];
        volume.read_at(0, &mut present).unwrap();
        let mut number = 0_u32;
        while !ended.load(Ordering::Acquire) || number < 8 {
            number += 1;
            let began = log.lock().unwrap().len();
            if rng.random_range(0..4) == 0 {
                volume.flush().unwrap();
                let ended = log.lock().unwrap().len();
                self.flushes.push(Time { began, ended });
                continue;
            }
            let aligned = rng.random_range(0..3) > 0;
            let unit = if aligned { BLOCK } else { 1 };
            let length = rng.random_range(1..=2 * BLOCK / unit) * unit;
            let at = rng.random_range(0..=(size - length) / unit) * unit;
            let bytes: Vec<u8> = (0..length)
                .map(|n| (number.wrapping_mul(0x9e37_79b9) >> (n % 24)).to_le_bytes()[0])
                .collect();
            volume.write_at(at as u64, &bytes).unwrap();
            let ended = log.lock().unwrap().len();
            present[at..at + length].copy_from_slice(&bytes);
            for block in at / BLOCK..(at + length).div_ceil(BLOCK) {
                let content = present[block * BLOCK..][..BLOCK].to_vec();
                let time = Time { began, ended };
                self.blocks.get_mut(&block).unwrap().push((time, content));
            }
            std::thread::sleep(Duration::from_micros(rng.random_range(0..300)));
        }
    }

    /// Checks the payload after a cut: the events before `certain` happened, and those before
    /// `possible` may have. `torn` says that a write which was not flushed may leave anything.
    fn check(&self, payload: &[u8], (certain, possible): (usize, usize), torn: bool, what: &str) {
        let flush = self.flushes.iter().filter(|flush| flush.ended <= certain);
        let flush = flush.map(|flush| flush.began).max().unwrap();
        for (block, contents) in &self.blocks {
            let kept = contents.iter().rposition(|(time, _)| time.ended <= flush);
            let mut later = contents[kept.unwrap()..].iter();
            let found = &payload[block * BLOCK..][..BLOCK];
            let may_be = later
                .clone()
                .filter(|(time, _)| time.began < possible.max(1));
            let may_be_torn = torn && may_be.clone().count() > 1;
            assert!(
                may_be_torn || may_be.clone().any(|(_, content)| content == found),
                "{what}: block {block} is none of the {} that it may be (of all later ones: {})",
                may_be.count(),
                later.any(|(_, content)| content == found),
            );
        }
    }
}

struct Run {
    before: State,
    events: Vec<Event>,
    client: Client,
}

/// When the reencryption begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begin {
    Before,
    Meanwhile,
}

/// A whole reencryption beside a client.
fn run(case: &Case, begin: Begin, seed: u8) -> Run {
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut before = case.before();
    if begin == Begin::Before {
        let (disk, _, _) = before.start();
        let shared: Arc<dyn Backend> = disk.clone();
        drop(case.begin(&shared).unwrap());
        before.disk = disk.bytes();
    }

    let (disk, _, log) = before.start();
    let shared: Arc<dyn Backend> = Arc::new(Slow(disk));
    let (header, data) = case.parts(&shared);
    let mut resume = Resume::default();
    resume.zone = Some(ZONE);
    let (volume, start): (_, Box<dyn FnOnce() -> Online>) = match begin {
        Begin::Before => {
            let (container, keys) = case.begin(&shared).unwrap();
            let online = Online::resume(container, data, &keys, resume).unwrap();
            (online.volume().clone(), Box::new(move || online))
        }
        Begin::Meanwhile => {
            let open = OpenOptions::new(Undo::NotLookedFor);
            let container = Container::open(header, open).unwrap();
            let interrupt = Interrupt::new();
            let unlocked = container.unlock(&passphrase("old"), Which::Any, &interrupt);
            let mut idle = Idle::open(container, data, &unlocked.unwrap()).unwrap();
            let volume = idle.volume().clone();
            let start = move || {
                let prepared = case.prepared(idle.container(), true).unwrap();
                let keys = idle.begin(prepared).unwrap();
                Online::of_begun(idle, &keys, resume).unwrap()
            };
            (volume, Box::new(start))
        }
    };
    let mut client = Client::new(&case.payload());
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (client, rng, log, ended) = (&mut client, &mut rng, &log, &ended);
        scope.spawn(move || client.act(&volume, log, rng, ended));
        std::thread::sleep(Duration::from_micros(500));
        let mut online = start();
        while online.step().unwrap() > 0 {}
        online.finish().unwrap();
        ended.store(true, Ordering::Release);
    });
    let recorded = log.lock().unwrap().clone();
    let (events, places) = case.split_and_place(recorded);
    let place = |time: &mut Time| {
        time.began = places[time.began];
        time.ended = places[time.ended];
    };
    client.flushes.iter_mut().for_each(place);
    client
        .blocks
        .values_mut()
        .flatten()
        .for_each(|(time, _)| place(time));
    Run {
        before,
        events,
        client,
    }
}

/// The payload after the state was taken up and finished.
fn recovered(case: &Case, state: &State, what: &str) -> Vec<u8> {
    let (disk, _, log) = state.start();
    let disk: Arc<dyn Backend> = disk;
    let (header, data) = case.parts(&disk);
    let open = OpenOptions::new(Undo::NotLookedFor);
    let mut container = Container::open(header, open)
        .unwrap_or_else(|error| panic!("{}, {what}: {error:?}", case.name));
    let mut seen = None;
    if container.reencryption().unwrap().is_some() {
        let keys = container.unlock_reencryption(&[passphrase("old")], &Interrupt::new());
        let volume = open_to_read(&container, data.clone(), &keys.unwrap())
            .unwrap_or_else(|error| panic!("{}, {what}: {error:?}", case.name));
        seen = Some(all(&volume));
        assert!(
            log.lock().unwrap().is_empty(),
            "{}, {what}: written",
            case.name
        );
        container = case
            .run(&disk, false)
            .unwrap_or_else(|error| panic!("{}, {what}: {error:?}", case.name));
    }
    let unlocked = container.unlock(&passphrase("old"), Which::Any, &Interrupt::new());
    let volume = container.volume(data, &unlocked.unwrap()).unwrap();
    let payload = all(&volume);
    if let Some(seen) = seen {
        assert!(
            seen == payload,
            "{}, {what}: read before, it differs",
            case.name
        );
    }
    payload
}

fn all(volume: &Volume) -> Vec<u8> {
    let mut payload = vec![0; usize::try_from(volume.size()).unwrap()];
    volume.read_at(0, &mut payload).unwrap();
    payload
}

#[test]
fn no_cut_beside_a_client_loses_what_it_flushed() {
    let (rounds, every) = if support::is_long() { (20, 1) } else { (1, 3) };
    let mut count = 0;
    let all = cases().into_iter().enumerate();
    for ((index, case), begin) in
        all.flat_map(|case| [Begin::Before, Begin::Meanwhile].map(|begin| (case.clone(), begin)))
    {
        // In a short run each case has one of both.
        if rounds == 1 && (index % 2 == 0) == (begin == Begin::Before) && index > 1 {
            continue;
        }
        for seed in 0..rounds {
            let run = run(&case, begin, seed);
            let torn = case.unit() < BLOCK;
            let mut states = 0;
            states::for_each_torn_cut(
                &run.before,
                &run.events,
                |offset| case.tear(offset),
                |state, cut, what| {
                    states += 1;
                    // A short run tries a part of them: each one takes the whole reencryption up.
                    if states % every != 0 {
                        return;
                    }
                    count += 1;
                    let payload = recovered(&case, state, what);
                    let what = format!("{}, seed {seed}, {what}", case.name);
                    run.client
                        .check(&payload, (cut.start, cut.end), torn, &what);
                },
            );
        }
    }
    assert!(count > 300, "{count}");
}

/// cryptsetup takes up what is left beside a client, and keeps what the client has flushed.
#[test]
fn cryptsetup_recovers_the_states_that_a_cut_beside_a_client_leaves() {
    let Some(cryptsetup) = peers::find("cryptsetup") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    for case in cases() {
        let run = run(&case, Begin::Before, 77);
        let torn = case.unit() < BLOCK;
        let tear = |offset: usize| case.tear(offset).max(4096);
        let (mut number, mut tried) = (0, 0);
        states::for_each_torn_cut(&run.before, &run.events, tear, |state, cut, what| {
            number += 1;
            let (disk, _, _) = state.start();
            let disk: Arc<dyn Backend> = disk;
            let open = OpenOptions::new(Undo::NotLookedFor);
            let container = Container::open(case.parts(&disk).0, open).unwrap();
            let Some(found) = container.reencryption().unwrap() else {
                return;
            };
            let every = match found.progress {
                Progress::Hot { .. } => 23,
                _ => 41,
            };
            if number % every != 0 {
                return;
            }
            tried += 1;
            let payload = recovered(
                &case,
                &resumed(&cryptsetup, folder.path(), &case, state),
                what,
            );
            let what = format!("{}, cryptsetup, {what}", case.name);
            run.client
                .check(&payload, (cut.start, cut.end), torn, &what);
        });
        assert!(tried > 3, "{}: {tried}", case.name);
    }
}
