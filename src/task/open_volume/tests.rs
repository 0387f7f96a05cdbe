use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::backend::{Backend, Geometry, IoError, Operation};
use crate::container::{Configure, NewKeyslot};
use crate::kdf::calibrate::Cost;
use crate::location::Location;
use crate::secret::VolumeKey;
use crate::sectors::{Cipher, Sectors};
use crate::task::new_volume::{Extent, NewVolume, Plan};
use crate::task::{Silent, trust};
use crate::trust::TrustDir;

const SIZE: u64 = 1 << 20;

fn passphrase(text: &str) -> Passphrase {
    Passphrase::copy_from(text.as_bytes()).unwrap()
}

/// A volume in a new file, unlocked.
fn made(folder: &TempDir) -> OpenVolume {
    let watch = Silent::default();
    let location = Location::Path(folder.path().join("disk.img"));
    let mut new = NewVolume::default();
    (new.cost.iterations, new.cost.memory_kib) = (Some(4), Some(32));
    let plan = Plan::look(new, &location, Extent::Exactly(SIZE)).unwrap();
    let made = plan.make(&passphrase("a"), &watch).unwrap();
    OpenVolume::made(made, Image::new(location), &watch).unwrap()
}

#[test]
fn the_size_is_asked_for_with_one_lock_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let volume = made(&folder);
    *written(&volume.opened) = None;
    std::thread::scope(|scope| {
        let header = written(&volume.header);
        let asked = scope.spawn(|| volume.size());
        std::thread::sleep(Duration::from_millis(200));
        // The thread waits for the header, and another one can unlock the volume meanwhile.
        assert!(!asked.is_finished());
        assert!(volume.opened.try_write().is_ok());
        drop(header);
        assert_eq!(asked.join().unwrap(), Some(SIZE));
    });
}

#[test]
fn an_unlocked_volume_does_not_take_an_unbound_keyslot() {
    let folder = tempfile::tempdir().unwrap();
    let (volume, watch) = (made(&folder), Silent::default());
    let cost = Cost::Pbkdf2 {
        hash: luksmith_formats::hash::Hash::Sha256,
        iterations: 1000,
    };
    let (given, key) = (passphrase("u"), VolumeKey::random(64).unwrap());
    let new = NewKeyslot::new(&given, cost).slot(Some(5));
    let added = written(&volume.header).add_unbound_keyslot(key, &new, watch.interrupt());
    assert_eq!(added.unwrap(), 5);
    for is_locked in [false, true] {
        if is_locked {
            *written(&volume.opened) = None;
        }
        let error = volume.unlock(&given, Which::Slot(5), &watch).unwrap_err();
        assert!(error.line().contains("volume key"), "{}", error.line());
        assert_eq!(volume.is_unlocked(), !is_locked);
    }
    volume.unlock(&passphrase("a"), Which::Any, &watch).unwrap();
}

/// Storage of which one call fails.
struct Fails {
    storage: Arc<dyn Backend>,
    call: Call,
    /// How many calls of this kind succeed before.
    after: AtomicU32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Call {
    Flush,
    Resize,
}

impl Fails {
    fn check(&self, call: Call) -> Result<(), IoError> {
        let left = &self.after;
        let one_less = |left: u32| left.checked_sub(1);
        if call != self.call
            || left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
                .is_ok()
        {
            return Ok(());
        }
        let error = std::io::Error::other("a test");
        Err(IoError::from_os(Operation::Resize, 0, error))
    }
}

impl Backend for Fails {
    fn geometry(&self) -> Geometry {
        self.storage.geometry()
    }

    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        self.storage.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, from: &Sectors<Cipher>) -> Result<(), IoError> {
        self.storage.write_at(offset, from)
    }

    fn flush(&self) -> Result<(), IoError> {
        self.check(Call::Flush)?;
        self.storage.flush()
    }

    fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        self.storage.discard(range)
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<(), IoError> {
        self.storage.write_zeroes(range)
    }

    fn resize(&self, size: u64) -> Result<(), IoError> {
        self.check(Call::Resize)?;
        self.storage.resize(size)
    }
}

#[test]
fn after_a_shrink_that_failed_the_size_is_that_of_header_and_storage() {
    for (call, is_cut) in [(Call::Resize, false), (Call::Flush, true)] {
        let folder = tempfile::tempdir().unwrap();
        let mut volume = made(&folder);
        volume.data.backend = Arc::new(Fails {
            storage: volume.data.backend.clone(),
            call,
            after: AtomicU32::new(0),
        });
        let error = volume.resize(SIZE / 2, true).unwrap_err();
        assert!(error.line().contains("a test"), "{}", error.line());
        let expected = if is_cut { SIZE / 2 } else { SIZE };
        assert_eq!(volume.size(), Some(expected), "{call:?}");
        let found = volume.volume().unwrap();
        found.read_at(expected - 1, &mut [0]).unwrap();
        found.read_at(expected, &mut [0]).unwrap_err();
    }
}

#[test]
fn the_option_trust_compares_the_header_with_its_pin() {
    let folder = tempfile::tempdir().unwrap();
    let watch = Silent::default();
    let pins = folder.path().join("pins");
    let mut options = Named::new();
    options.set("trust", pins.display().to_string());
    options.check(Task::Open).unwrap();
    let volume = made(&folder);
    let dir = TrustDir::make(&pins).unwrap();
    {
        let header = read(&volume.header);
        let unlocked = &volume.opened().unwrap().unlocked;
        let pin = trust::Volume::new(&volume.image, &dir, &header);
        pin.init(&header, unlocked).unwrap();
    }
    let location = volume.image.location.clone();
    drop(volume);
    let open = || {
        let image = options.image(location.clone()).unwrap();
        OpenVolume::open(image, false, OpenOptions::new(), &watch)
    };
    let configure = |volume: &OpenVolume, label: &str| {
        let label = Configure::new().label(label.to_owned());
        written(&volume.header).configure(&label).unwrap();
    };
    configure(&open().unwrap(), "with the pin");
    drop(open().unwrap());
    let unpinned = Image::new(location.clone());
    let unpinned = OpenVolume::open(unpinned, false, OpenOptions::new(), &watch);
    configure(&unpinned.unwrap(), "without it");
    let refused = open().err().unwrap();
    assert_eq!(refused.kind(), Kind::NotTrusted);
    assert!(
        refused.line().contains("the label was changed"),
        "{}",
        refused.line()
    );
}
