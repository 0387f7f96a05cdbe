//! Whole images, which the library makes with cheap costs, and changes of both copies of their
//! headers.

use std::sync::{Arc, Mutex, OnceLock};

use luksmith::Interrupt;
use luksmith::backend::memory::MemoryBackend;
use luksmith::container::{
    Container, CreateOptions, OpenError, OpenOptions, Undo, UndoStore, UnlockError, Unlocked,
    Version, Which,
};
use luksmith::kdf::calibrate::Cost;
use luksmith::secret::Passphrase;
use luksmith_formats::json::Value;
use luksmith_formats::luks2::Position;
use luksmith_formats::{Hash, Limits, luks1};

use crate::luks2::{json_of, put_text, seal};

pub(crate) const PASSPHRASE: &[u8] = b"passphrase";
/// The size of the data after the header, in bytes.
pub(crate) const DATA: usize = 64 << 10;
/// The size of one copy of the header of [`luks2`].
pub(crate) const COPY: usize = 16 << 10;
/// The offset of the data of [`luks2`].
pub(crate) const LUKS2_DATA: usize = 1 << 20;
/// The offset of the data of [`luks1`].
pub(crate) const LUKS1_DATA: usize = 2 << 20;

pub(crate) const COST: Cost = Cost::Pbkdf2 {
    hash: Hash::Sha256,
    iterations: 1000,
};

pub(crate) fn options(version: Version) -> CreateOptions {
    let mut options = CreateOptions::new(version, COST);
    options.data_offset = (version == Version::Luks2).then_some(LUKS2_DATA as u64);
    options
}

pub(crate) fn passphrase() -> Passphrase {
    Passphrase::copy_from(PASSPHRASE).unwrap()
}

pub(crate) fn make(options: CreateOptions) -> Vec<u8> {
    let layout = options.layout().unwrap();
    let detached = options.detached;
    let size = usize::try_from(layout.header_size).unwrap() + if detached { 0 } else { DATA };
    let storage = Arc::new(MemoryBackend::new(size));
    Container::create(
        storage.clone(),
        options,
        OpenOptions::new(Undo::NotLookedFor),
        &passphrase(),
        &Interrupt::new(),
    )
    .unwrap();
    storage.to_bytes()
}

/// A good LUKS1 image with one keyslot.
pub(crate) fn luks1() -> Vec<u8> {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| make(options(Version::Luks1))).clone()
}

/// A good LUKS2 image with one keyslot.
pub(crate) fn luks2() -> Vec<u8> {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| make(options(Version::Luks2))).clone()
}

/// Changes the LUKS1 header.
pub(crate) fn with_luks1(change: impl FnOnce(&mut luks1::Header)) -> Vec<u8> {
    let mut image = luks1();
    let mut header = luks1::Header::parse(&image[..592], &Limits::default()).unwrap();
    change(&mut header);
    image[..592].copy_from_slice(&header.to_bytes());
    image
}

/// Changes the metadata of both copies, and corrects their checksums.
pub(crate) fn with_json(change: impl Fn(&mut Value)) -> Vec<u8> {
    let mut image = luks2();
    for start in [0, COPY] {
        edit_copy(&mut image[start..start + COPY], &change);
    }
    image
}

pub(crate) fn edit_copy(copy: &mut [u8], change: impl Fn(&mut Value)) {
    let mut json = json_of(copy);
    change(&mut json);
    put_text(copy, json.to_string().as_bytes());
    seal(copy);
}

/// Changes bytes of one copy, and corrects its checksum.
pub(crate) fn edit_binary(image: &mut [u8], position: Position, at: usize, bytes: &[u8]) {
    let start = usize::try_from(position.offset(COPY as u64)).unwrap();
    let copy = &mut image[start..start + COPY];
    copy[at..at + bytes.len()].copy_from_slice(bytes);
    seal(copy);
}

pub(crate) fn storage(image: Vec<u8>) -> Arc<MemoryBackend> {
    Arc::new(MemoryBackend::from_bytes(image))
}

pub(crate) fn open(storage: &Arc<MemoryBackend>) -> Result<Container, OpenError> {
    Container::open(storage.clone(), OpenOptions::new(Undo::NotLookedFor))
}

pub(crate) fn unlock(container: &Container) -> Result<Unlocked, UnlockError> {
    container.unlock(&passphrase(), Which::Any, &Interrupt::new())
}

/// An undo store in memory, so that no change is refused for lack of one.
#[derive(Default)]
pub(crate) struct MemoryUndo(pub(crate) Mutex<Option<Vec<u8>>>);

impl UndoStore for MemoryUndo {
    fn load(&self) -> std::io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap().clone())
    }
    fn save(&self, record: &[u8]) -> std::io::Result<()> {
        *self.0.lock().unwrap() = Some(record.to_vec());
        Ok(())
    }
    fn clear(&self) -> std::io::Result<()> {
        *self.0.lock().unwrap() = None;
        Ok(())
    }
    fn keep_copy(&self, _: luksmith::container::Kept, _: &[u8]) -> std::io::Result<String> {
        Ok("the copy".into())
    }
    fn name(&self) -> String {
        "the undo record".into()
    }
}

/// Options with a new undo store.
pub(crate) fn with_undo() -> OpenOptions {
    OpenOptions::new(MemoryUndo::default().into())
}
