//! A disk and an undo store that record every write, flush and undo record in order. From the
//! recording the tests rebuild the states that a power failure can leave.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use luksmith::backend::memory::MemoryBackend;
use luksmith::backend::{Backend, Geometry, IoError};
use luksmith::container::{Kept, UndoStore};
use luksmith::sectors::{Cipher, Sectors};
use luksmith::trust::{PinStore, Pinned, Trust, TrustError};
use luksmith_formats::trust::pin::{Pin, Place};

/// An event of the disk or of the undo store.
#[derive(Clone)]
pub(crate) enum Event {
    Write {
        offset: usize,
        bytes: Vec<u8>,
    },
    Flush,
    Resize(usize),
    /// The content after a step of a move, which the file system makes atomically.
    Content(Vec<u8>),
    /// The record is durable after this event (a rename after a sync), and does not exist before
    /// it.
    SaveUndo(Vec<u8>),
    ClearUndo,
    /// The pin is durable after this event, and the one before it until then.
    SavePin(Vec<u8>),
}

pub(crate) type Log = Arc<Mutex<Vec<Event>>>;

/// The state after a crash: the bytes of the disk, and the undo record and the pin, if there are
/// such.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) disk: Vec<u8>,
    pub(crate) undo: Option<Vec<u8>>,
    pub(crate) pin: Option<Vec<u8>>,
}

impl State {
    /// A disk without an undo record, of which nothing is pinned.
    pub(crate) fn new(disk: Vec<u8>) -> Self {
        let (undo, pin) = (None, None);
        Self { disk, undo, pin }
    }

    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::Write { offset, bytes } => {
                self.disk[*offset..*offset + bytes.len()].copy_from_slice(bytes)
            }
            Event::Flush => {}
            Event::Resize(size) => self.disk.resize(*size, 0),
            Event::Content(content) => self.disk.clone_from(content),
            Event::SaveUndo(record) => self.undo = Some(record.clone()),
            Event::ClearUndo => self.undo = None,
            Event::SavePin(pin) => self.pin = Some(pin.clone()),
        }
    }

    /// The write, cut off after `length` bytes.
    pub(crate) fn apply_torn(&mut self, event: &Event, length: usize) {
        if let Event::Write { offset, bytes } = event {
            self.disk[*offset..*offset + length].copy_from_slice(&bytes[..length]);
        }
    }

    /// A recording disk and undo store that start in this state.
    pub(crate) fn start(&self) -> (Arc<Disk>, Arc<MemoryUndo>, Log) {
        let log = Log::default();
        let disk = Disk {
            inner: MemoryBackend::from_bytes(self.disk.clone()),
            log: log.clone(),
        };
        let undo = MemoryUndo {
            record: Mutex::new(self.undo.clone()),
            copies: Mutex::default(),
            pins: (self.pin.clone()).map(|pin| Arc::new(MemoryPins::new(pin, log.clone()))),
            log: log.clone(),
        };
        (Arc::new(disk), Arc::new(undo), log)
    }
}

pub(crate) struct Disk {
    inner: MemoryBackend,
    log: Log,
}

impl Disk {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.inner.to_bytes()
    }

    /// Another content after a step of a move.
    pub(crate) fn replace(&self, content: Vec<u8>) {
        self.inner.resize(content.len() as u64).unwrap();
        let mut sectors = Sectors::<Cipher>::with_len(content.len());
        sectors.as_mut_slice().copy_from_slice(&content);
        self.inner.write_at(0, &sectors).unwrap();
        self.record(Event::Content(content));
    }

    fn record(&self, event: Event) {
        self.log.lock().unwrap().push(event);
    }
}

impl Backend for Disk {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }
    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        self.inner.read_at(offset, into)
    }
    fn write_at(&self, offset: u64, from: &Sectors<Cipher>) -> Result<(), IoError> {
        self.inner.write_at(offset, from)?;
        self.record(Event::Write {
            offset: usize::try_from(offset).unwrap(),
            bytes: from.as_slice().to_vec(),
        });
        Ok(())
    }
    fn flush(&self) -> Result<(), IoError> {
        self.record(Event::Flush);
        Ok(())
    }
    fn discard(&self, _: Range<u64>) -> Result<(), IoError> {
        unreachable!("metadata is never discarded")
    }
    fn write_zeroes(&self, _: Range<u64>) -> Result<(), IoError> {
        unreachable!("metadata is written, not zeroed")
    }
    fn resize(&self, size: u64) -> Result<(), IoError> {
        self.inner.resize(size)?;
        self.record(Event::Resize(usize::try_from(size).unwrap()));
        Ok(())
    }
}

pub(crate) struct MemoryUndo {
    record: Mutex<Option<Vec<u8>>>,
    /// What it was told to keep a copy of.
    copies: Mutex<Vec<(Kept, Vec<u8>)>>,
    /// The pin of the volume, if it is pinned.
    pins: Option<Arc<MemoryPins>>,
    log: Log,
}

impl MemoryUndo {
    /// Whether the header is compared with a pin.
    pub(crate) fn trust(&self) -> Trust {
        match &self.pins {
            None => Trust::NotLookedFor,
            Some(pins) => Trust::Pinned(Pinned::new(pins.clone(), place())),
        }
    }

    pub(crate) fn pin(&self) -> Option<Vec<u8>> {
        self.pins.as_ref().map(|pins| pins.pin())
    }

    pub(crate) fn copies(&self) -> Vec<(Kept, Vec<u8>)> {
        self.copies.lock().unwrap().clone()
    }

    pub(crate) fn record(&self) -> Option<Vec<u8>> {
        self.record.lock().unwrap().clone()
    }
}

impl UndoStore for MemoryUndo {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.record())
    }
    fn save(&self, record: &[u8]) -> io::Result<()> {
        *self.record.lock().unwrap() = Some(record.to_vec());
        self.log
            .lock()
            .unwrap()
            .push(Event::SaveUndo(record.to_vec()));
        Ok(())
    }
    fn clear(&self) -> io::Result<()> {
        *self.record.lock().unwrap() = None;
        self.log.lock().unwrap().push(Event::ClearUndo);
        Ok(())
    }
    fn keep_copy(&self, what: Kept, bytes: &[u8]) -> io::Result<String> {
        self.copies.lock().unwrap().push((what, bytes.to_vec()));
        Ok("the test's copy".into())
    }
    fn name(&self) -> String {
        "the test's undo record".into()
    }
}

/// Where the volumes of these tests are pinned.
pub(crate) fn place() -> Place {
    Place::new("a disk", None)
}

/// The pin of one volume. It is empty until the volume is pinned.
pub(crate) struct MemoryPins {
    pin: Mutex<Vec<u8>>,
    log: Log,
}

impl MemoryPins {
    pub(crate) fn new(pin: Vec<u8>, log: Log) -> Self {
        let pin = Mutex::new(pin);
        Self { pin, log }
    }

    pub(crate) fn pin(&self) -> Vec<u8> {
        self.pin.lock().unwrap().clone()
    }
}

impl PinStore for MemoryPins {
    fn load(&self, uuid: &str) -> Result<Option<Vec<u8>>, TrustError> {
        let parsed = Pin::parse(&self.pin());
        let is_of = parsed.is_ok_and(|pin| pin.current.uuid == uuid);
        Ok(is_of.then(|| self.pin()))
    }
    fn save(&self, _: &str, pin: &[u8]) -> Result<(), TrustError> {
        *self.pin.lock().unwrap() = pin.to_vec();
        self.log.lock().unwrap().push(Event::SavePin(pin.to_vec()));
        Ok(())
    }
    fn lock(&self, _: &str, _: bool) -> Result<Option<Box<dyn Send>>, TrustError> {
        Ok(Some(Box::new(())))
    }
    fn uuids(&self) -> Result<Vec<String>, TrustError> {
        let parsed = Pin::parse(&self.pin());
        Ok(parsed.into_iter().map(|pin| pin.current.uuid).collect())
    }
    fn name(&self) -> String {
        "the test's pins".into()
    }
}
