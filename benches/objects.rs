//! How fast a volume in an object store is, and what it uploads: `cargo bench --bench objects`.
//!
//! The store is in this process, and answers over HTTP on the loopback interface. It takes 20 ms
//! for each request, and each connection carries 90 MiB/s. The output is Markdown; dated results
//! are in `benches/record/`.

#![allow(missing_docs, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use luksmith::backend::Backend as _;
use luksmith::objects::s3::{Account, Credentials, S3Store};
use luksmith::objects::{Creation, ObjectsBackend, ObjectsOptions, Store, StoreError};
use luksmith::sectors::{Cipher, Sectors};
use luksmith_formats::objects::uri::Uri;
use luksmith_formats::objects::volume::Volume;
use support::bench::{Arguments, cpu_model, record};
use support::s3_double::{BUCKET, S3Double, Service};

const MIB: u64 = 1 << 20;
const BLOCK: u64 = 4096;

/// How long the store takes for each request.
const LATENCY: Duration = Duration::from_millis(20);
/// How many bytes a second one connection carries.
const RATE: u64 = 90 * MIB;

/// How long each way works.
const A_WHILE: Duration = Duration::from_secs(4);

/// The variable that makes a process measure its memory. Its value is the endpoint of the service
/// and the size of the volume, with a space between them.
const MEMORY: &str = "LUKSMITH_BENCH_MEMORY";

/// The bytes that are written and read in order.
const SEQUENTIAL: u64 = 512 * MIB;

fn slow() -> S3Double {
    S3Double::start(Service {
        latency: LATENCY,
        rate: RATE,
        ..Service::default()
    })
}

fn store(double: &S3Double) -> Arc<S3Store> {
    store_at(&double.endpoint)
}

fn store_at(endpoint: &str) -> Arc<S3Store> {
    let account = Account::new(Credentials::new("id", "secret", None), "r");
    let uri = Uri::parse(&format!("s3://{BUCKET}/v?endpoint={endpoint}")).unwrap();
    Arc::new(S3Store::new(&uri, account, Duration::from_secs(30)).unwrap())
}

/// The same without HTTP: a store in the memory of this process.
#[derive(Default)]
struct Near(Mutex<BTreeMap<String, Arc<[u8]>>>);

impl Near {
    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Arc<[u8]>>> {
        self.0.lock().unwrap()
    }
}

fn takes(bytes: usize) {
    std::thread::sleep(LATENCY + Duration::from_secs_f64(bytes as f64 / RATE as f64));
}

impl Store for Near {
    fn create(&self, name: &str, parts: &[&[u8]]) -> Result<Creation, StoreError> {
        let object: Arc<[u8]> = parts.concat().into();
        takes(object.len());
        match self.objects().entry(name.to_owned()) {
            Entry::Occupied(_) => Ok(Creation::Exists),
            Entry::Vacant(place) => {
                place.insert(object);
                Ok(Creation::Created)
            }
        }
    }

    fn read(&self, name: &str, range: Range<u64>) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(object) = self.objects().get(name).cloned() else {
            takes(0);
            return Ok(None);
        };
        let clip = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(object.len());
        let bytes = &object[clip(range.start)..clip(range.end)];
        takes(bytes.len());
        Ok(Some(bytes.to_vec()))
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        takes(0);
        self.objects().remove(name);
        Ok(())
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        takes(0);
        let objects = self.objects();
        let found = objects.iter().filter(|(name, _)| name.starts_with(prefix));
        Ok(found
            .map(|(name, object)| (name.clone(), object.len() as u64))
            .collect())
    }
}

fn options() -> ObjectsOptions {
    ObjectsOptions::new().write(true)
}

fn make(double: &S3Double, size: u64, object_size: u64) {
    make_in(store(double), size, object_size);
}

fn make_in(store: Arc<dyn Store>, size: u64, object_size: u64) {
    let volume = Volume::new([1; 16], size).with_object_size(u32::try_from(object_size).unwrap());
    ObjectsBackend::create(store, &volume, &options()).unwrap();
}

fn open(double: &S3Double, options: ObjectsOptions) -> ObjectsBackend {
    ObjectsBackend::open(store(double), None, options).unwrap()
}

fn empty(len: u64) -> Sectors<Cipher> {
    Sectors::with_len(usize::try_from(len).unwrap())
}

fn bytes(len: u64, seed: u64) -> Sectors<Cipher> {
    let mut bytes = empty(len);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for word in bytes.as_mut_slice().chunks_exact_mut(8) {
        state = state.wrapping_mul(0xd129_42dd_4aab_c11d).rotate_left(17) | 1;
        word.copy_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// A number that looks random.
fn mixed(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 11
}

/// How often a second threads do something, and how often they did.
fn rate(threads: u64, work: impl Fn(u64) + Sync) -> (f64, u64) {
    let (next, begin) = (AtomicU64::new(0), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while begin.elapsed() < A_WHILE {
                    work(next.fetch_add(1, Ordering::Relaxed));
                }
            });
        }
    });
    let done = next.load(Ordering::Relaxed);
    (done as f64 / begin.elapsed().as_secs_f64(), done)
}

fn row(name: &str, value: f64, bar: &str) {
    record(name, "luksmith", value);
    println!("| {name} | {value:.2} | {bar} |");
}

fn synced_writes() {
    for (threads, bar) in [(1, "≥ 42"), (32, "≥ 1100")] {
        let double = slow();
        make(&double, 1 << 30, 8 * MIB);
        let volume = open(&double, options());
        let block = bytes(BLOCK, 1);
        double.count();
        let (a_second, done) = rate(threads, |number| {
            volume
                .write_at(mixed(number) % (1 << 18) * BLOCK, &block)
                .unwrap();
            volume.flush().unwrap();
        });
        row(
            &format!("synced 4 KiB writes a second, depth {threads}"),
            a_second,
            bar,
        );
        let uploaded = double.received() as f64 / (done * BLOCK) as f64;
        row(
            &format!("bytes uploaded for each of them, depth {threads}"),
            uploaded,
            "recorded",
        );
    }
}

/// Flushes are done when a local file has the data, on the disk of the target folder.
fn journaled_writes() {
    let double = slow();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let volume = Volume::new([1; 16], 1 << 30).with_journal();
    ObjectsBackend::create(store(&double), &volume, &options()).unwrap();
    let journal = Some(folder.path().join("journal"));
    let volume = open(&double, options().journal(journal));
    let block = bytes(BLOCK, 1);
    for (threads, bar) in [(1, "recorded"), (32, "≥ 10000")] {
        let (a_second, _) = rate(threads, |number| {
            volume
                .write_at(mixed(number) % (1 << 18) * BLOCK, &block)
                .unwrap();
            volume.flush().unwrap();
        });
        row(
            &format!("synced 4 KiB writes a second with a journal, depth {threads}"),
            a_second,
            bar,
        );
    }
    volume.close().unwrap();
}

fn in_order() {
    let double = slow();
    make(&double, SEQUENTIAL, 8 * MIB);
    double.count();
    write_in_order(open(&double, options()), "sequential writes, MiB/s");
    row(
        "bytes uploaded for each of them",
        double.received() as f64 / SEQUENTIAL as f64,
        "≤ 1.01",
    );
    let volume = open(&double, options().write(false));
    read_in_order(&volume, "sequential reads, MiB/s, 16 threads");

    for (threads, bar) in [(1, "≥ 44"), (32, "≥ 1400")] {
        double.count();
        let (a_second, done) = rate(threads, |number| {
            let mut into = empty(BLOCK);
            let at = mixed(number) % (SEQUENTIAL / BLOCK) * BLOCK;
            volume.read_at(at, &mut into).unwrap();
        });
        row(
            &format!("cold 4 KiB reads a second, depth {threads}"),
            a_second,
            bar,
        );
        row(
            "requests for each of them, map in memory",
            double.count() as f64 / done as f64,
            "1",
        );
    }
    let volume = open(&double, options().write(false));
    double.count();
    let mut into = empty(BLOCK);
    for leaf in 0..8 {
        volume.read_at(leaf * 32 * MIB, &mut into).unwrap();
    }
    row(
        "requests for a read, map not in memory",
        double.count() as f64 / 8.0,
        "2",
    );
}

fn in_order_without_http() {
    let store: Arc<dyn Store> = Arc::new(Near::default());
    make_in(store.clone(), SEQUENTIAL, 8 * MIB);
    let volume = ObjectsBackend::open(store.clone(), None, options()).unwrap();
    write_in_order(volume, "sequential writes without HTTP, MiB/s");
    let volume = ObjectsBackend::open(store, None, options().write(false)).unwrap();
    read_in_order(&volume, "sequential reads without HTTP, MiB/s, 16 threads");
}

fn write_in_order(volume: ObjectsBackend, name: &str) {
    let begin = Instant::now();
    for at in 0..SEQUENTIAL / MIB {
        volume.write_at(at * MIB, &bytes(MIB, at)).unwrap();
    }
    volume.flush().unwrap();
    let took = begin.elapsed().as_secs_f64();
    row(name, (SEQUENTIAL / MIB) as f64 / took, "≥ 200");
    volume.close().unwrap();
}

fn read_in_order(volume: &ObjectsBackend, name: &str) {
    let next = AtomicU64::new(0);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut into = empty(MIB);
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= SEQUENTIAL / MIB {
                        return;
                    }
                    volume.read_at(at * MIB, &mut into).unwrap();
                }
            });
        }
    });
    let took = begin.elapsed().as_secs_f64();
    row(name, (SEQUENTIAL / MIB) as f64 / took, "≥ 400");
}

/// Random blocks are overwritten until four times the volume was written.
fn garbage() {
    const SIZE: u64 = 128 * MIB;
    let double = S3Double::start(Service::default());
    make(&double, SIZE, MIB);
    let volume = open(&double, options().checkpoint_bytes(8 * MIB));
    for at in 0..SIZE / MIB {
        volume.write_at(at * MIB, &bytes(MIB, at)).unwrap();
    }
    volume.flush().unwrap();
    volume.collect().unwrap();
    double.count();
    let writes = 4 * SIZE / BLOCK;
    let block = bytes(BLOCK, 7);
    for number in 0..writes {
        volume
            .write_at(mixed(number) % (SIZE / BLOCK) * BLOCK, &block)
            .unwrap();
    }
    volume.flush().unwrap();
    volume.collect().unwrap();
    let status = volume.status();
    row(
        "live part of what is stored, after random writes",
        status.live as f64 / status.stored as f64,
        "0.7",
    );
    let uploaded = double.received() as f64 / (writes * BLOCK) as f64;
    row("bytes uploaded for each of them", uploaded, "≤ 1.9");
}

/// The most memory that a process has used which writes and reads blocks everywhere in a volume.
fn memory() {
    let mut used = Vec::new();
    for (size, name) in [(1_u64 << 30, "1 GiB"), (16 << 40, "16 TiB")] {
        let double = S3Double::start(Service::default());
        make(&double, size, 8 * MIB);
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.env(MEMORY, format!("{} {size}", double.endpoint));
        let output = child.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let kib: f64 = String::from_utf8(output.stdout).unwrap().parse().unwrap();
        let row_name = format!("memory of a writer of {name}, MiB");
        row(&row_name, kib / 1024.0, "≤ 256");
        used.push(kib);
    }
    row("the second over the first", used[1] / used[0], "flat");
}

/// Writes 65,536 blocks in as many parts of the volume, and reads some. Prints the most memory that
/// this process had, in KiB.
fn use_memory(endpoint: &str, size: u64) {
    const WRITES: u64 = 1 << 16;
    let volume = ObjectsBackend::open(store_at(endpoint), None, options()).unwrap();
    let block = bytes(BLOCK, 1);
    let place = |number: u64| number * (size / WRITES) / BLOCK * BLOCK;
    for number in 0..WRITES {
        volume.write_at(place(number), &block).unwrap();
    }
    volume.flush().unwrap();
    volume.checkpoint().unwrap();
    let mut into = empty(BLOCK);
    for number in 0..WRITES / 64 {
        volume
            .read_at(place(mixed(number) % WRITES), &mut into)
            .unwrap();
    }
    volume.close().unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    print!("{kib}");
}

fn main() {
    if let Ok(of) = std::env::var(MEMORY) {
        let (endpoint, size) = of.split_once(' ').unwrap();
        return use_memory(endpoint, size.parse().unwrap());
    }
    let Some(arguments) = Arguments::read() else {
        return;
    };
    println!("{}\n\n| | luksmith | goal |\n|---|---|---|", cpu_model());
    for (name, measure) in [
        ("synced", synced_writes as fn()),
        ("journal", journaled_writes),
        ("order", in_order),
        ("without", in_order_without_http),
        ("garbage", garbage),
        ("memory", memory),
    ] {
        if arguments.want(name) {
            measure();
        }
    }
}
