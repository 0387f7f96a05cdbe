//! A process writes to a volume in a service that fails or kills it at any request. What it had
//! flushed is there afterwards, and of the rest a part from the first write on.
//!
//! The process is this test program again, which runs only [`the_writer`].

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use luksmith::backend::Backend as _;
use luksmith::objects::s3::{Account, Credentials, S3Store};
use luksmith::objects::{ObjectsBackend, ObjectsOptions};
use luksmith_formats::objects::uri::Uri;
use luksmith_formats::objects::volume::Volume;
use rustix::process::{Pid, Signal, kill_process};
use support::s3_double::{Fault, Moment, S3Double, Service};

use crate::faults::index;
use crate::histories::{block, stamps};

const BLOCKS: u64 = 16;
const WRITES: u64 = 30;

/// The variable that makes a process a writer. Its value is the URI of the volume.
const WRITER: &str = "LUKSMITH_TEST_WRITER";

fn store(uri: &str) -> Arc<S3Store> {
    let account = Account::new(Credentials::new("id", "secret", None), "r");
    let uri = Uri::parse(uri).unwrap();
    Arc::new(S3Store::new(&uri, account, Duration::from_secs(10)).unwrap())
}

fn options() -> ObjectsOptions {
    // Few objects make a checkpoint.
    ObjectsOptions::new()
        .write(true)
        .take_over(true)
        .uploads(2)
        .connections(2)
        .checkpoint_objects(4)
        .pause(Duration::from_millis(1))
}

/// The block of a write.
fn place(write: u64) -> u64 {
    write * 7 % BLOCKS
}

/// The blocks after so many writes.
fn state(writes: u64) -> Vec<u64> {
    let mut state = vec![0; index(BLOCKS)];
    for write in 1..=writes {
        state[index(place(write))] = write;
    }
    state
}

/// Writes and flushes, and says what was flushed.
#[test]
#[allow(clippy::print_stdout)] // for the test that started it
fn the_writer() {
    let Ok(uri) = std::env::var(WRITER) else {
        return;
    };
    let Ok(volume) = ObjectsBackend::open(store(&uri), None, options()) else {
        return;
    };
    for write in 1..=WRITES {
        if volume.write_at(place(write) * 4096, &block(write)).is_err() {
            return;
        }
        if write % 3 == 0 {
            if volume.flush().is_err() {
                return;
            }
            println!("flushed {write}");
        }
    }
    if volume.close().is_ok() {
        println!("flushed {WRITES}");
    }
}

struct World {
    double: S3Double,
    /// The number of the request with a fault, and the process to kill; 0 is none.
    armed: Arc<AtomicU64>,
    process: Arc<AtomicI32>,
    fault: Arc<std::sync::Mutex<Fault>>,
}

impl World {
    fn new() -> Self {
        let armed = Arc::new(AtomicU64::new(0));
        let process = Arc::new(AtomicI32::new(0));
        let fault = Arc::new(std::sync::Mutex::new(Fault::None));
        let (at, killed, what) = (armed.clone(), process.clone(), fault.clone());
        let double = S3Double::start(Service {
            fault: Box::new(
                move |asked| match at.load(Ordering::SeqCst) == asked.number {
                    true => *what.lock().unwrap(),
                    false => Fault::None,
                },
            ),
            closing: Box::new(move || {
                if let Some(process) = Pid::from_raw(killed.load(Ordering::SeqCst)) {
                    let _ = kill_process(process, Signal::KILL);
                }
            }),
            ..Service::default()
        });
        Self {
            double,
            armed,
            process,
            fault,
        }
    }

    /// Runs a writer on a new volume, with a fault at this request, and returns the last write
    /// that it had flushed, and how many requests there were.
    fn run(&self, number: u64, fault: Fault, kills: bool) -> (u64, u64) {
        self.double.restore(Default::default());
        let uri = self.double.uri("v");
        let volume = Volume::new([3; 16], BLOCKS * 4096).with_object_size(16 << 10);
        ObjectsBackend::create(store(&uri), &volume, &options()).unwrap();
        self.double.count();
        *self.fault.lock().unwrap() = fault;
        let mut writer = Command::new(std::env::current_exe().unwrap());
        writer
            .args(["crash::the_writer", "--exact", "--nocapture"])
            .env(WRITER, &uri);
        let writer = writer.stdout(Stdio::piped()).stderr(Stdio::null());
        let writer = writer.spawn().unwrap();
        let process = i32::try_from(writer.id()).unwrap();
        self.process
            .store(if kills { process } else { 0 }, Ordering::SeqCst);
        self.armed.store(number, Ordering::SeqCst);
        let output = writer.wait_with_output().unwrap();
        self.armed.store(0, Ordering::SeqCst);
        self.process.store(0, Ordering::SeqCst);
        let text = String::from_utf8(output.stdout).unwrap();
        let all = text
            .lines()
            .filter_map(|line| line.split_once("flushed ")?.1.parse().ok());
        (all.max().unwrap_or(0), self.double.count())
    }

    /// Opens the volume as the next writer does.
    #[track_caller]
    fn check(&self, flushed: u64, what: &str) {
        let open = || {
            let opened = ObjectsBackend::open(store(&self.double.uri("v")), None, options());
            opened.unwrap_or_else(|error| panic!("{what}: {error}"))
        };
        let volume = open();
        let found = stamps(&volume).unwrap();
        let fits = (flushed..=WRITES).any(|writes| state(writes) == found);
        assert!(
            fits,
            "{what}: {flushed} writes were flushed, and found is {found:?}"
        );
        volume
            .verify()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        volume.write_at(0, &block(99)).unwrap();
        volume.collect().unwrap();
        volume.sweep().unwrap();
        volume.close().unwrap();
        let volume = open();
        assert_eq!(stamps(&volume).unwrap()[0], 99, "{what}");
        volume
            .verify()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

#[test]
fn flushed_writes_survive_a_fault_at_every_request() {
    const KILLED: [Moment; 3] = [Moment::Before, Moment::HalfWay, Moment::After];
    let world = World::new();
    let (flushed, requests) = world.run(0, Fault::None, false);
    assert_eq!(flushed, WRITES);
    assert!(requests > 20, "{requests}");
    world.check(flushed, "without a fault");
    let killed = KILLED.map(|moment| (Fault::Closed(moment), true));
    let cut = KILLED.map(|moment| (Fault::Closed(moment), false));
    let refused = [500, 503, 409].map(|status| (Fault::Status(status), false));
    let late = [Fault::Delayed(Duration::from_millis(100)), Fault::Stale].map(|it| (it, false));
    let faults = [&killed[..], &cut, &refused, &late].concat();
    // A short run takes another fault for each request.
    let is_long = std::env::var("LUKSMITH_TEST_LONG").is_ok();
    for number in 1..=requests {
        let taken = index(number) % faults.len();
        for (at, (fault, kills)) in faults.iter().enumerate() {
            if !is_long && (at != taken || number % 2 == 0) {
                continue;
            }
            let what = format!("request {number}, {fault:?}, killed: {kills}");
            let (flushed, _) = world.run(number, *fault, *kills);
            // The first request is not sent again: there may be no service at all.
            let may_fail = *kills || number == 1;
            assert!(
                may_fail || flushed == WRITES,
                "{what}: {flushed} writes were flushed"
            );
            world.check(flushed, &what);
        }
    }
}
