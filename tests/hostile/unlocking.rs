//! A header states the cost of unlocking it. A cost over the limit is refused before any work, and
//! a permitted one can be interrupted.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use luksmith::Interrupt;
use luksmith::backend::memory::MemoryBackend;
use luksmith::backend::{Backend, Geometry, IoError, Operation};
use luksmith::container::{
    Container, NewKeyslot, OpenOptions, Undo, UnlockError, VolumeError, Which,
};
use luksmith::formats::Limits;
use luksmith::kdf::KdfError;
use luksmith::secret::{Passphrase, VolumeKey};
use luksmith::sectors::{Cipher, Sectors};
use luksmith_formats::json::{Value, json};

use crate::image::{open, passphrase, storage, unlock, with_json, with_luks1};
use support::allocation::peak_of;

const MOST_TIME: Duration = Duration::from_secs(1);
const MOST_MEMORY: usize = 64 << 20;

fn argon2(passes: u32, memory_kib: u32, lanes: u32) -> Value {
    json!({"type": "argon2id", "time": passes, "memory": memory_kib, "cpus": lanes,
        "salt": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="})
}

/// Checks that the header opens, and that unlocking is refused immediately with an error that names
/// the field and contains this part of the cause.
fn assert_refused(name: &str, image: Vec<u8>, field: &str, cause: &str) {
    let container = open(&storage(image)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let start = Instant::now();
    let (result, peak) = peak_of(|| unlock(&container));
    let took = start.elapsed();
    assert!(took < MOST_TIME, "{name}: took {took:?}");
    assert!(peak < MOST_MEMORY, "{name}: took {peak} bytes");
    let Err(UnlockError::Kdf {
        slot: 0,
        source: KdfError::OverLimit(error),
    }) = result
    else {
        panic!("{name}: {result:?}");
    };
    assert_eq!(error.field, field, "{name}");
    assert!(error.cause.contains(cause), "{name}: {error}");
}

#[test]
fn costs_of_luks1_are_refused_before_they_are_spent() {
    let huge = i32::MAX.cast_unsigned();
    let keyslot = with_luks1(|header| header.keyslots[0].iterations = huge);
    let cause = "asks for 2147483647 PBKDF2 iterations; the limit is 100000000";
    assert_refused("keyslot", keyslot, "kdf.iterations", cause);
    let digest = with_luks1(|header| header.digest_iterations = huge);
    assert_refused("digest", digest, "digest.iterations", cause);
}

#[test]
fn costs_of_luks2_are_refused_before_they_are_spent() {
    let kdf = |kdf: Value| with_json(|json| json["keyslots"]["0"]["kdf"] = kdf.clone());
    let iterations =
        |count: u32| with_json(|json| json["keyslots"]["0"]["kdf"]["iterations"] = json!(count));
    let digest = |count: u32| with_json(|json| json["digests"]["0"]["iterations"] = json!(count));
    let most = i32::MAX.cast_unsigned();
    let cases = [
        (
            "pbkdf2",
            iterations(most),
            "kdf.iterations",
            "asks for 2147483647",
        ),
        (
            "pbkdf2",
            iterations(100_000_001),
            "kdf.iterations",
            "limit is 100000000",
        ),
        (
            "digest",
            digest(most),
            "digest.iterations",
            "asks for 2147483647",
        ),
        (
            "64 GiB",
            kdf(argon2(4, 64 << 20, 4)),
            "kdf.memory",
            "asks for 67108864 KiB",
        ),
        ("all memory", kdf(argon2(1, most, 1)), "kdf.memory", "KiB"),
        (
            "passes",
            kdf(argon2(most, 1 << 20, 4)),
            "kdf.time",
            "memory times passes",
        ),
        (
            "lanes",
            kdf(argon2(4, 1 << 20, 17)),
            "kdf.cpus",
            "asks for 17",
        ),
        (
            "all lanes",
            kdf(argon2(4, 4 << 20, 500_000)),
            "kdf.cpus",
            "lanes",
        ),
    ];
    for (name, image, field, cause) in cases {
        assert_refused(name, image, field, cause);
    }
}

/// The expensive digest also applies to an unlock with the volume key.
#[test]
fn the_volume_key_does_not_pay_for_a_costly_digest() {
    let image = with_json(|json| json["digests"]["0"]["iterations"] = json!(i32::MAX));
    let container = open(&storage(image)).unwrap();
    let key = VolumeKey::random(64).unwrap();
    let start = Instant::now();
    let result = container.unlock_with_key(key, &Interrupt::new());
    assert!(start.elapsed() < MOST_TIME);
    assert!(matches!(
        result,
        Err(VolumeError::Kdf(KdfError::OverLimit(_)))
    ));
}

/// A keyslot that costs too much does not prevent others from opening.
#[test]
fn a_costly_keyslot_is_passed_over() {
    let image = with_json(|json| {
        let mut costly = json["keyslots"]["0"].clone();
        costly["kdf"] = argon2(4, 64 << 20, 4);
        costly["priority"] = json!(2);
        let offset = costly["area"]["offset"].as_str().unwrap().parse::<u64>();
        let size = costly["area"]["size"].as_str().unwrap().parse::<u64>();
        costly["area"]["offset"] = json!((offset.unwrap() + size.unwrap()).to_string());
        json["keyslots"]["1"] = costly;
        json["digests"]["0"]["keyslots"] = json!(["0", "1"]);
    });
    let container = open(&storage(image)).unwrap();
    assert_eq!(unlock(&container).unwrap().slot(), Some(0));
    let by_slot = container.unlock(&passphrase(), Which::Slot(1), &Interrupt::new());
    assert!(matches!(by_slot, Err(UnlockError::Kdf { slot: 1, .. })));
}

/// A storage whose bytes in a range cannot be read.
struct Unreadable(Arc<MemoryBackend>, Range<u64>);

impl Backend for Unreadable {
    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }
    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        let end = offset + into.as_slice().len() as u64;
        if offset < self.1.end && self.1.start < end {
            let source = std::io::Error::other("bad sector");
            return Err(IoError::Failed {
                operation: Operation::Read,
                offset,
                source,
            });
        }
        self.0.read_at(offset, into)
    }
    fn write_at(&self, offset: u64, from: &Sectors<Cipher>) -> Result<(), IoError> {
        self.0.write_at(offset, from)
    }
    fn flush(&self) -> Result<(), IoError> {
        self.0.flush()
    }
    fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        self.0.discard(range)
    }
    fn write_zeroes(&self, range: Range<u64>) -> Result<(), IoError> {
        self.0.write_zeroes(range)
    }
    fn resize(&self, size: u64) -> Result<(), IoError> {
        self.0.resize(size)
    }
}

/// A keyslot whose area cannot be read does not prevent others from opening. If none opens, the
/// failed read is the error, since that keyslot may be the one.
#[test]
fn a_keyslot_that_cannot_be_read_is_passed_over() {
    for image in [crate::image::luks1(), crate::image::luks2()] {
        let storage = storage(image);
        let mut container = open(&storage).unwrap();
        let unlocked = unlock(&container).unwrap();
        let other = Passphrase::copy_from(b"other").unwrap();
        let new = NewKeyslot::new(&other, crate::image::COST);
        let interrupt = Interrupt::new();
        container.add_keyslot(&unlocked, &new, &interrupt).unwrap();
        let first = container.keyslots()[0].area.clone();

        let options = OpenOptions::new(Undo::NotLookedFor);
        let unreadable = Arc::new(Unreadable(storage, first));
        let container = Container::open(unreadable, options).unwrap();
        let opened = container.unlock(&other, Which::Any, &interrupt).unwrap();
        assert_eq!(opened.slot(), Some(1));
        for which in [Which::Any, Which::Slot(0)] {
            let result = container.unlock(&passphrase(), which, &interrupt);
            assert!(matches!(result, Err(UnlockError::Io(_))), "{result:?}");
        }
        let result = container.unlock(&passphrase(), Which::Slot(1), &interrupt);
        assert!(matches!(result, Err(UnlockError::WrongPassphrase)));
    }
}

/// A keyslot that is not supported does not prevent others from opening, and does not hide that
/// the passphrase is wrong.
#[test]
fn a_keyslot_that_is_not_supported_is_passed_over() {
    let image = with_json(|json| {
        let mut new = json["keyslots"]["0"].clone();
        new["kdf"] = json!({"type": "new"});
        new["priority"] = json!(2);
        new["area"]["offset"] = json!((32768 + 258_048).to_string());
        json["keyslots"]["1"] = new;
        json["digests"]["0"]["keyslots"] = json!(["0", "1"]);
    });
    let container = open(&storage(image)).unwrap();
    assert_eq!(unlock(&container).unwrap().slot(), Some(0));
    let (other, interrupt) = (Passphrase::copy_from(b"other").unwrap(), Interrupt::new());
    let result = container.unlock(&other, Which::Any, &interrupt);
    assert!(matches!(result, Err(UnlockError::WrongPassphrase)));
    let result = container.unlock(&other, Which::Slot(1), &interrupt);
    assert!(matches!(
        result,
        Err(UnlockError::Unsupported { slot: 1, .. })
    ));
}

#[test]
fn limits_can_be_lowered_and_are_the_containers() {
    let image = storage(crate::image::luks2());
    let mut limits = Limits::default();
    limits.pbkdf2_iterations = 999;
    let options = OpenOptions::new(Undo::NotLookedFor).limits(limits);
    let container = luksmith::container::Container::open(image, options).unwrap();
    assert!(matches!(unlock(&container), Err(UnlockError::Kdf { .. })));
}

fn assert_interrupted(name: &str, image: Vec<u8>) {
    let container = open(&storage(image)).unwrap();
    let interrupt = Interrupt::new();
    let (result, took) = std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            let result = container.unlock(&passphrase(), Which::Any, &interrupt);
            (result, Instant::now())
        });
        std::thread::sleep(Duration::from_millis(100));
        assert!(!running.is_finished(), "{name}: over before the interrupt");
        let asked = Instant::now();
        interrupt.trigger();
        let (result, ended) = running.join().unwrap();
        (result, ended - asked)
    });
    assert!(took < MOST_TIME, "{name}: went on for {took:?}");
    let interrupted = matches!(
        result,
        Err(UnlockError::Kdf {
            source: KdfError::Interrupted,
            ..
        })
    );
    assert!(interrupted, "{name}: {result:?}");
}

#[test]
fn what_the_limits_allow_can_be_interrupted() {
    let iterations = json!(50_000_000);
    let keyslot = with_json(|json| json["keyslots"]["0"]["kdf"]["iterations"] = iterations.clone());
    assert_interrupted("pbkdf2", keyslot);
    let digest = with_json(|json| json["digests"]["0"]["iterations"] = iterations.clone());
    assert_interrupted("digest", digest);
    let luks1 = with_luks1(|header| header.keyslots[0].iterations = 50_000_000);
    assert_interrupted("LUKS1", luks1);
    let argon2 = with_json(|json| json["keyslots"]["0"]["kdf"] = argon2(300, 32 << 10, 1));
    assert_interrupted("argon2id", argon2);
}
