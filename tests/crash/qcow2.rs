//! Crashes while an encrypted qcow2 image is written. In every state that a crash can leave, the
//! tables have no errors except leaks, and each sector has its content of the last flush, or
//! content that was written since.
//!
//! `check` checks the tables in every state, and `qemu-img check` in a sample of the states.

use std::ops::Range;
use std::process::Command;
use std::sync::Arc;

use luksmith::Interrupt;
use luksmith::backend::memory::MemoryBackend;
use luksmith::backend::{Backend, Geometry, IoError};
use luksmith::container::{Container, CreateOptions, OpenOptions, Undo, Unlocked, Version};
use luksmith::kdf::calibrate::Cost;
use luksmith::layout::{NewImage, Qcow2};
use luksmith::secret::Passphrase;
use luksmith::sectors::{Cipher, Sectors};
use luksmith::volume::Volume;
use luksmith_formats::Hash;
use luksmith_formats::image::qcow2::Header;

use crate::disk::{Disk, Event, Log, State};
use crate::states;
use support::peers;
use support::qcow2::check;
use support::qcow2::compress;

const KEY: &[u8] = b"text, for QEMU";
const SIZE: usize = 1 << 20;

/// The recording disk. Discarded bytes become zeroes.
struct Giving(Arc<Disk>);

impl Backend for Giving {
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
        self.0.flush()
    }
    fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        let len = usize::try_from(range.end - range.start).unwrap();
        self.0.write_at(range.start, &Sectors::zeroed(len))
    }
    fn write_zeroes(&self, range: Range<u64>) -> Result<(), IoError> {
        self.discard(range)
    }
    fn resize(&self, size: u64) -> Result<(), IoError> {
        self.0.resize(size)
    }
}

/// One operation on the volume.
#[derive(Clone, Copy)]
enum Act {
    Write(usize, usize),
    Zero(usize, usize),
    Discard(usize, usize),
    Resize(usize),
    Flush,
}

/// An operation, and the expected content of the disk after it.
struct Done {
    /// The number of events at its start.
    began: usize,
    /// For a flush, the number of events at its end.
    flushed: Option<usize>,
    model: Vec<u8>,
}

fn sealed(cluster_size: u32, refcount_bits: u32) -> (State, Unlocked) {
    let cost = Cost::Pbkdf2 {
        hash: Hash::Sha256,
        iterations: 1000,
    };
    let mut options = CreateOptions::new(Version::Luks1, cost);
    options.key_size = 32;
    let options = options.in_qcow2();
    let image = NewImage::new(SIZE as u64, options.layout().unwrap().header_size)
        .cluster_size(cluster_size)
        .refcount_bits(refcount_bits);
    // Large enough that it never grows, since growing would count as a flush in the recording.
    let storage = Arc::new(MemoryBackend::new(4 << 20));
    let image = Qcow2::create(storage.clone(), &image).unwrap();
    let key = Passphrase::copy_from(KEY).unwrap();
    let (open, interrupt) = (OpenOptions::new(Undo::NotLookedFor), Interrupt::default());
    let made = Container::create(image.header_storage(), options, open, &key, &interrupt);
    let (_, unlocked) = made.unwrap();
    drop(image);
    let disk = storage.to_bytes();
    (State::new(disk), unlocked)
}

fn volume(storage: Arc<dyn Backend>, unlocked: &Unlocked) -> Volume {
    let image = Arc::new(Qcow2::open(storage).unwrap());
    let container =
        Container::open(image.header_storage(), OpenOptions::new(Undo::NotLookedFor)).unwrap();
    let volume = container.volume_in(image, unlocked).unwrap();
    volume.with_compressed_plaintext()
}

fn pattern(seed: usize, len: usize) -> Vec<u8> {
    let words = (0..).map(|n: u64| (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n);
    words
        .flat_map(|word| word.wrapping_mul(0xbf58_476d_1ce4_e5b9).to_le_bytes())
        .take(len)
        .collect()
}

/// Executes the operations, and records the content of the disk after each.
fn run(volume: &Volume, log: &Log, acts: &[Act], first: Vec<u8>, cluster: usize) -> Vec<Done> {
    let events = || log.lock().unwrap().len();
    let mut model = first.clone();
    let mut done = vec![Done {
        began: 0,
        flushed: Some(0),
        model: first,
    }];
    for (number, act) in acts.iter().enumerate() {
        let began = events();
        match *act {
            Act::Write(offset, len) => {
                let bytes = pattern(number, len);
                volume.write_at(offset as u64, &bytes).unwrap();
                model[offset..offset + len].copy_from_slice(&bytes);
            }
            Act::Zero(offset, len) => {
                volume
                    .write_zeroes(offset as u64..(offset + len) as u64)
                    .unwrap();
                model[offset..offset + len].fill(0);
            }
            Act::Discard(offset, len) => {
                volume
                    .discard(offset as u64..(offset + len) as u64)
                    .unwrap();
                let (start, end) = (
                    offset.next_multiple_of(cluster),
                    (offset + len) / cluster * cluster,
                );
                if start < end {
                    model[start..end].fill(0);
                }
            }
            Act::Resize(size) => {
                volume.resize(size as u64).unwrap();
                model.resize(size, 0);
            }
            Act::Flush => volume.flush().unwrap(),
        }
        let flushed = matches!(act, Act::Flush).then(|| {
            let log = log.lock().unwrap();
            let last = log.iter().rposition(|event| matches!(event, Event::Flush));
            last.unwrap() + 1
        });
        done.push(Done {
            began,
            flushed,
            model: model.clone(),
        });
    }
    done
}

/// Checks that every sector has its content of the last completed flush, or of an operation that
/// began since.
fn assert_allowed(read: &[u8], done: &[Done], sure: usize, possible: usize, what: &str) {
    let flushed = |done: &Done| done.flushed.is_some_and(|events| events <= sure);
    let from = done.iter().rposition(flushed).unwrap();
    let since: Vec<&Done> = done[from..]
        .iter()
        .enumerate()
        .filter(|(number, done)| *number == 0 || done.began < possible)
        .map(|(_, done)| done)
        .collect();
    for (number, sector) in read.chunks(512).enumerate() {
        let range = number * 512..(number + 1) * 512;
        assert!(
            since
                .iter()
                .any(|done| done.model.get(range.clone()) == Some(sector)),
            "{what}: sector {number} is neither old nor new"
        );
    }
}

/// Checks the states of a crash at every point, and returns their number.
fn cut(before: &State, unlocked: &Unlocked, acts: &[Act], cluster: usize) -> usize {
    let first = read_all(&volume(
        Arc::new(MemoryBackend::from_bytes(before.disk.clone())),
        unlocked,
    ));
    let (disk, _, log) = before.start();
    let volume_of_log = volume(Arc::new(Giving(disk.clone())), unlocked);
    let done = run(&volume_of_log, &log, acts, first, cluster);
    drop(volume_of_log);
    assert_eq!(check(&disk.bytes()), Ok(0), "closed");
    qemu_check(&disk.bytes(), "closed", false);
    let events = log.lock().unwrap().clone();
    let mut count = 0;
    states::for_each_cut(before, &events, |state, cut, what| {
        if let Err(error) = check(&state.disk) {
            panic!("{what}: {error}");
        }
        let storage = MemoryBackend::from_bytes(state.disk.clone());
        let read = read_all(&volume(Arc::new(storage.into_read_only()), unlocked));
        assert_allowed(&read, &done, cut.start, cut.end, what);
        count += 1;
        if count % 50 == 0 {
            qemu_check(&state.disk, what, true);
        }
    });
    count
}

fn read_all(volume: &Volume) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(volume.size()).unwrap()];
    volume.read_at(0, &mut bytes).unwrap();
    bytes
}

/// Checks that `qemu-img check` finds nothing, or only leaks if these are permitted.
fn qemu_check(disk: &[u8], what: &str, leaks: bool) {
    let Some(qemu_img) = peers::find("qemu-img") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (image, key) = (folder.path().join("image"), folder.path().join("key"));
    std::fs::write(&image, disk).unwrap();
    std::fs::write(&key, KEY).unwrap();
    let mut command = Command::new(qemu_img);
    command.arg("check").arg("--object");
    command.arg(format!("secret,id=key,file={}", key.display()));
    command.arg("--image-opts").arg(format!(
        "driver=qcow2,encrypt.key-secret=key,file.filename={}",
        image.display()
    ));
    let output = peers::output(&mut command);
    // Exit code 3 means only leaks.
    let good = output.status.success() || leaks && output.status.code() == Some(3);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        good,
        "{what}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// All operations, overlapping, with clusters that are given up and used again.
fn acts() -> Vec<Act> {
    use Act::{Discard, Flush, Write, Zero};
    vec![
        Write(1000, 3000),
        Write(100_000, 512),
        Flush,
        Write(2000, 9000),
        Discard(0, 6000),
        Write(300_000, 5000),
        Flush,
        Write(0, 700),
        Zero(2048, 4096),
        Write(200_000, 20_000),
        Flush,
        Discard(190_000, 40_000),
        Flush,
        Write(400_000, 12_000),
        Write(205_000, 1000),
        Discard(400_000, 12_000),
        Write(401_000, 100),
        Flush,
        Flush,
    ]
}

#[test]
fn writes_and_discards() {
    for (cluster_size, refcount_bits) in [(512, 16), (4096, 16)] {
        let (before, unlocked) = sealed(cluster_size, refcount_bits);
        let states = cut(&before, &unlocked, &acts(), cluster_size as usize);
        assert!(states > 300, "{states}");
    }
}

#[test]
fn over_compressed_clusters() {
    for cluster in [512, 4096] {
        let (empty, unlocked) = sealed(u32::try_from(cluster).unwrap(), 16);
        let storage = Arc::new(MemoryBackend::from_bytes(empty.disk));
        volume(storage.clone(), &unlocked)
            .write_at(0, &pattern(99, 40 * cluster))
            .unwrap();
        let mut disk = storage.to_bytes();
        let plain: Vec<u8> = (0..40 * cluster)
            .map(|at| u8::try_from(at / 90 % 251).unwrap())
            .collect();
        assert_eq!(compress(&mut disk, 0, &plain), 40);
        assert_eq!(check(&disk), Ok(0));
        let before = State::new(disk);
        let acts = [
            Act::Write(100, 300),
            Act::Write(5 * cluster, cluster),
            Act::Flush,
            Act::Write(5 * cluster - 100, 3 * cluster),
            Act::Discard(10 * cluster, 4 * cluster),
            Act::Flush,
            Act::Zero(13 * cluster + 10, 2 * cluster),
            Act::Write(100 * cluster, 5 * cluster),
            Act::Discard(0, 9 * cluster),
            Act::Flush,
            Act::Write(11 * cluster, 100),
            Act::Discard(15 * cluster, 25 * cluster),
            Act::Flush,
            Act::Write(0, 2 * cluster),
            Act::Flush,
        ];
        assert!(cut(&before, &unlocked, &acts, cluster) > 100);
    }
}

#[test]
fn another_size() {
    let (before, unlocked) = sealed(512, 16);
    let larger = SIZE + (600 << 10);
    let acts = [
        Act::Write(SIZE - 3000, 3000),
        // The L1 table has one entry for each 32 KiB, and has to move.
        Act::Resize(larger),
        Act::Write(larger - 5000, 5000),
        Act::Flush,
        Act::Discard(SIZE, larger - SIZE),
        Act::Resize(SIZE),
        Act::Flush,
    ];
    assert!(cut(&before, &unlocked, &acts, 512) > 50);
}

#[test]
fn refcount_blocks_and_the_table_grow() {
    // A block covers 64 clusters, and a cluster of the table 64 blocks: 2 MiB, half of which is the
    // header.
    let (empty, unlocked) = sealed(512, 64);
    let storage = Arc::new(MemoryBackend::from_bytes(empty.disk));
    let full = volume(storage.clone(), &unlocked);
    full.write_at(0, &pattern(99, 950_000)).unwrap();
    full.flush().unwrap();
    drop(full);
    let before = State {
        disk: storage.to_bytes(),
        undo: None,
        pin: None,
    };
    let acts = [
        Act::Write(950_000, 40_000),
        Act::Flush,
        Act::Write(990_000, 30_000),
        Act::Flush,
    ];
    let (disk, _, log) = before.start();
    let last = volume(Arc::new(Giving(disk.clone())), &unlocked);
    run(&last, &log, &acts, vec![0; SIZE], 512);
    let table = |disk: &[u8]| Header::parse(disk).unwrap().refcount_table_offset;
    // Otherwise the test would show less than it claims.
    assert_ne!(table(&before.disk), table(&disk.bytes()));
    drop(last);
    cut(&before, &unlocked, &acts, 512);
}

#[test]
fn the_disk_beside_a_snapshot() {
    let Some(qemu_img) = peers::find("qemu-img") else {
        return;
    };
    let (empty, unlocked) = sealed(4096, 16);
    let storage = Arc::new(MemoryBackend::from_bytes(empty.disk));
    let first = volume(storage.clone(), &unlocked);
    first.write_at(0, &pattern(99, 60_000)).unwrap();
    first.flush().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (image, key) = (folder.path().join("image"), folder.path().join("key"));
    std::fs::write(&image, storage.to_bytes()).unwrap();
    std::fs::write(&key, KEY).unwrap();
    let mut command = Command::new(qemu_img);
    command.args(["snapshot", "--object"]);
    command.arg(format!("secret,id=key,file={}", key.display()));
    command.args(["-c", "one", "--image-opts"]).arg(format!(
        "driver=qcow2,encrypt.key-secret=key,file.filename={}",
        image.display()
    ));
    peers::run(&mut command);
    let before = State {
        disk: std::fs::read(&image).unwrap(),
        undo: None,
        pin: None,
    };
    let acts = [
        Act::Write(1000, 10_000),
        Act::Flush,
        Act::Discard(20_000, 20_000),
        Act::Write(24_000, 100),
        Act::Flush,
        Act::Write(300_000, 100),
        Act::Flush,
    ];
    assert!(cut(&before, &unlocked, &acts, 4096) > 50);
}

#[test]
fn a_wrong_order_is_found() {
    let (before, unlocked) = sealed(4096, 16);
    let (disk, _, log) = before.start();
    let volume = volume(Arc::new(Giving(disk)), &unlocked);
    volume.write_at(0, &[1; 4096]).unwrap();
    volume.flush().unwrap();
    let mut events = log.lock().unwrap().clone();
    // Simulates a missing flush before the pointers.
    let flush = events
        .iter()
        .position(|event| matches!(event, Event::Flush));
    events.remove(flush.unwrap());
    let mut broken = 0;
    states::for_each_cut(&before, &events, |state, _, _| {
        broken += usize::from(check(&state.disk).is_err());
    });
    assert!(broken > 0);
}
