//! Compares the header of a volume with its pin, and changes the pin together with the header.
//!
//! ```text
//!   step                                 pin              header on the storage
//!   1. write and sync the pin            current, next    current
//!   2. execute the write plan            current, next    current, or next, or between the two
//!   3. write and sync the pin            next             next
//! ```
//!
//! So each state that a crash can leave is accepted, and the next opening settles the pin on what
//! it has found.

use std::fmt;
use std::sync::Arc;

use luksmith_formats::trust::pin::{Facts, Hash256, KeyPrint, LARGEST, PartKind, Pin, Place};

use super::derive::derive;
use super::dir::{Entry, TrustDir};
use super::error::TrustError;
use crate::secret::{LockError, VolumeKey};

/// The file of the pin, and that of its lock.
const PIN: &str = "pin";
const LOCK: &str = "pin.lock";
/// What is derived from a volume key as its fingerprint.
const FINGERPRINT: &[u8] = b"luksmith pin";

/// A place where the pins of volumes survive a power failure, and that no storage can change.
pub trait PinStore: Send + Sync {
    /// The bytes of the pin of the volume with this UUID, if there is one.
    ///
    /// # Errors
    /// [`TrustError`].
    fn load(&self, uuid: &str) -> Result<Option<Vec<u8>>, TrustError>;
    /// Replaces the pin durably: after a crash it is the old or the new one.
    ///
    /// # Errors
    /// [`TrustError`].
    fn save(&self, uuid: &str, pin: &[u8]) -> Result<(), TrustError>;
    /// Takes the lock of the pin, which lasts until the value is dropped. If another process has
    /// it: waits for it, or returns `None`.
    ///
    /// # Errors
    /// [`TrustError::Busy`] if the other process keeps it, and others.
    fn lock(&self, uuid: &str, wait: bool) -> Result<Option<Box<dyn Send>>, TrustError>;
    /// The UUIDs of all volumes of which something is kept.
    ///
    /// # Errors
    /// [`TrustError`].
    fn uuids(&self) -> Result<Vec<String>, TrustError>;
    /// A name for messages, such as a path.
    fn name(&self) -> String;
}

impl PinStore for TrustDir {
    fn load(&self, uuid: &str) -> Result<Option<Vec<u8>>, TrustError> {
        match self.entry(uuid)? {
            Some(entry) => entry.read(PIN, LARGEST),
            None => Ok(None),
        }
    }

    fn save(&self, uuid: &str, pin: &[u8]) -> Result<(), TrustError> {
        self.make_entry(uuid)?.replace(PIN, pin)
    }

    fn lock(&self, uuid: &str, wait: bool) -> Result<Option<Box<dyn Send>>, TrustError> {
        let entry: Entry = self.make_entry(uuid)?;
        let lock = match wait {
            true => Some(entry.lock(LOCK)?),
            false => entry.try_lock(LOCK)?,
        };
        Ok(lock.map(|lock| Box::new(lock) as Box<dyn Send>))
    }

    fn uuids(&self) -> Result<Vec<String>, TrustError> {
        self.uuids()
    }

    fn name(&self) -> String {
        self.path().display().to_string()
    }
}

/// Whether the header of a volume is compared with a pin when it is opened.
#[derive(Clone, Debug)]
pub enum Trust {
    /// It is, and the pin changes with it.
    Pinned(Pinned),
    /// Pins are neither looked for nor kept up to date.
    NotLookedFor,
}

/// Where the pin of a volume is, and the place of the volume.
#[derive(Clone)]
pub struct Pinned {
    store: Arc<dyn PinStore>,
    place: Place,
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let store = self.store.name();
        f.debug_tuple("Pinned")
            .field(&store)
            .field(&self.place)
            .finish()
    }
}

/// Why a header was not accepted, and the pin that it was compared with.
pub(crate) struct Refused {
    pub(crate) error: TrustError,
    pub(crate) pin: Option<Box<Pin>>,
}

impl<E: Into<TrustError>> From<E> for Refused {
    fn from(error: E) -> Self {
        let error = error.into();
        Self { error, pin: None }
    }
}

impl Pinned {
    /// The pin in this store of the volume that is stored here.
    #[must_use]
    pub fn new(store: Arc<dyn PinStore>, place: Place) -> Self {
        Self { store, place }
    }

    /// The place of the volume.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The pin of the volume with this UUID, if there is one.
    ///
    /// # Errors
    /// [`TrustError::Damaged`], and those of the store.
    pub fn pin(&self, uuid: &str) -> Result<Option<Pin>, TrustError> {
        let Some(bytes) = self.store.load(uuid)? else {
            return Ok(None);
        };
        let uuid = uuid.to_owned();
        let parsed = Pin::parse(&bytes);
        parsed
            .map(Some)
            .map_err(|why| TrustError::Damaged { uuid, why })
    }

    /// Refuses a place at which another volume is pinned.
    fn check_place(&self, uuid: &str) -> Result<(), TrustError> {
        for other in self.store.uuids()? {
            let same = other.eq_ignore_ascii_case(uuid);
            if !same && self.pin(&other)?.is_some_and(|pin| pin.place == self.place) {
                return Err(TrustError::OtherVolume {
                    place: Box::new(self.place.clone()),
                    pinned: other,
                    found: uuid.to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Pins a volume that is not pinned yet.
    ///
    /// # Errors
    /// [`TrustError::Pinned`], [`TrustError::OtherVolume`] if another volume is pinned at this
    /// place, and those of the store.
    pub fn init(&self, facts: &Facts, keys: &[KeyPrint]) -> Result<Pin, TrustError> {
        let uuid = &facts.uuid;
        self.check_place(uuid)?;
        let _lock = self.store.lock(uuid, true)?;
        if self.store.load(uuid)?.is_some() {
            let uuid = uuid.clone();
            return Err(TrustError::Pinned { uuid });
        }
        self.save(Pin::new(self.place.clone(), keys.to_vec(), facts.clone()))
    }

    /// Fails if [`init`](Self::init) would refuse a volume with this UUID.
    ///
    /// # Errors
    /// Those of [`init`](Self::init).
    pub fn check_init(&self, uuid: &str) -> Result<(), TrustError> {
        self.check_place(uuid)?;
        match self.store.load(uuid)? {
            None => Ok(()),
            Some(_) => Err(TrustError::Pinned {
                uuid: uuid.to_owned(),
            }),
        }
    }

    /// Fails if another volume is pinned at this place, for a volume that is about to be made here.
    ///
    /// # Errors
    /// [`TrustError::OtherVolume`], and those of the store.
    pub fn check_free(&self) -> Result<(), TrustError> {
        self.check_place("a new volume")
    }

    /// Pins what the header says now, and its place, instead of what is pinned, which is `before`.
    ///
    /// # Errors
    /// [`TrustError::OtherKey`] if none of `keys` is pinned, [`TrustError::OtherVolume`] if another
    /// volume is pinned at this place, [`TrustError::Busy`] if the pin is no longer `before`, and
    /// those of the store.
    pub fn accept(
        &self,
        before: &Pin,
        facts: &Facts,
        keys: &[KeyPrint],
    ) -> Result<Pin, TrustError> {
        let uuid = &facts.uuid;
        self.check_place(uuid)?;
        let known = |key: &KeyPrint| {
            let mut pinned = before.keys.iter();
            pinned.any(|pinned| pinned.fingerprint == key.fingerprint)
        };
        if !keys.iter().any(known) {
            return Err(TrustError::OtherKey);
        }
        let _lock = self.store.lock(uuid, true)?;
        self.check_same(uuid, before)?;
        self.save(Pin::new(self.place.clone(), keys.to_vec(), facts.clone()))
    }

    fn check_same(&self, uuid: &str, pin: &Pin) -> Result<(), TrustError> {
        match self.pin(uuid)? {
            Some(found) if found == *pin => Ok(()),
            _ => Err(TrustError::Busy {
                uuid: uuid.to_owned(),
            }),
        }
    }

    fn save(&self, pin: Pin) -> Result<Pin, TrustError> {
        self.store.save(&pin.current.uuid, &pin.to_bytes())?;
        Ok(pin)
    }

    /// The pin of the volume with this UUID, whatever its place is.
    ///
    /// # Errors
    /// [`TrustError::OtherVolume`] if another volume is pinned at this place, else
    /// [`TrustError::NotKnown`] if there is no pin.
    pub fn known(&self, uuid: &str) -> Result<Pin, TrustError> {
        match self.pin(uuid) {
            Ok(Some(pin)) if pin.place == self.place => Ok(pin),
            other => {
                // A header may state any text as its UUID.
                self.check_place(uuid)?;
                other?.ok_or_else(|| TrustError::NotKnown {
                    uuid: uuid.to_owned(),
                    dir: self.store.name(),
                })
            }
        }
    }

    /// The pin of the volume with this UUID, which has to be at this place.
    pub(crate) fn find(&self, uuid: &str) -> Result<Pin, TrustError> {
        let pin = self.known(uuid)?;
        if pin.place != self.place {
            return Err(TrustError::Elsewhere {
                uuid: uuid.to_owned(),
                pinned: Box::new(pin.place),
                found: Box::new(self.place.clone()),
            });
        }
        Ok(pin)
    }

    /// Compares a header with its pin. `material` hashes the key material, and is called only if
    /// the header itself is as it is pinned.
    pub(crate) fn check(
        &self,
        header: &Facts,
        material: impl FnOnce() -> Result<Facts, TrustError>,
    ) -> Result<Checked, Refused> {
        let pin = self.find(&header.uuid)?;
        let refused = |pin: Pin, facts: &Facts| Refused {
            error: TrustError::Changed(pin.differences(facts)),
            pin: Some(Box::new(pin)),
        };
        if !without_material(&pin).accepts(header) {
            return Err(refused(pin, header));
        }
        let now = material()?;
        if !pin.accepts(&now) {
            return Err(refused(pin, &now));
        }
        let mut checked = Checked {
            pinned: self.clone(),
            pin,
            now,
        };
        checked.settle();
        Ok(checked)
    }
}

fn without_material(pin: &Pin) -> Pin {
    let mut header = pin.clone();
    header.current = pin.current.without_material();
    header.next = pin.next.as_ref().map(Facts::without_material);
    header
}

/// A header that was compared with its pin, for the changes that follow.
#[derive(Debug)]
pub(crate) struct Checked {
    pinned: Pinned,
    pin: Pin,
    now: Facts,
}

impl Checked {
    /// A header that need not be readable, before it is overwritten with one that is known.
    pub(crate) fn before(pinned: &Pinned, pin: Pin) -> Self {
        Self {
            pinned: pinned.clone(),
            now: pin.current.clone(),
            pin,
        }
    }

    /// What the header says now.
    pub(crate) fn now(&self) -> &Facts {
        &self.now
    }

    /// Pins what was found, after a change that was interrupted. If another process has the lock,
    /// that change is still under way, and the pin stays.
    fn settle(&mut self) {
        if self.pin.next.is_none() {
            return;
        }
        let uuid = self.now.uuid.clone();
        let settle = || {
            let Some(_lock) = self.pinned.store.lock(&uuid, false)? else {
                return Ok(None);
            };
            self.pinned.check_same(&uuid, &self.pin)?;
            self.pinned.save(settled(&self.pin, &self.now)).map(Some)
        };
        match settle() {
            Ok(Some(pin)) => self.pin = pin,
            Ok(None) => {}
            // A folder that cannot be written is no obstacle to reading.
            Err(error) => tracing::debug!("the pin is not settled: {error}"),
        }
    }

    /// Writes the pin before a change of the header to `next`. `keys` are added to those that are
    /// pinned. The change has to be made while the returned value exists.
    pub(crate) fn begin(&mut self, next: Facts, keys: &[KeyPrint]) -> Result<Changing, TrustError> {
        if next.uuid != self.now.uuid {
            return Err(TrustError::NotKept("it gives the volume another UUID"));
        }
        let lock = self.pinned.store.lock(&next.uuid, true)?;
        self.pinned.check_same(&next.uuid, &self.pin)?;
        let mut pin = self.pin.clone();
        pin.current = self.now.clone();
        pin.next = Some(next);
        pin.keys.extend(keys);
        self.pin = self.pinned.save(pin)?;
        Ok(Changing { _lock: lock })
    }

    /// Writes the pin after the change, which is complete and durable.
    pub(crate) fn end(&mut self, changing: Changing) {
        let Some(next) = self.pin.next.clone() else {
            return;
        };
        match self.pinned.save(settled(&self.pin, &next)) {
            Ok(pin) => self.pin = pin,
            // The pin accepts the header before the change too, until the next opening.
            Err(error) => tracing::warn!("the pin cannot be settled: {error}"),
        }
        self.now = next;
        drop(changing);
    }

    /// Checks that this is a volume key that is pinned.
    pub(crate) fn check_key(&self, key: &VolumeKey) -> Result<(), TrustError> {
        let fingerprint = fingerprint(key)?;
        let mut pinned = self.pin.keys.iter();
        match pinned.any(|pinned| pinned.fingerprint == fingerprint) {
            true => Ok(()),
            false => Err(TrustError::OtherKey),
        }
    }
}

/// While this exists, no other process changes the pin.
pub(crate) struct Changing {
    _lock: Option<Box<dyn Send>>,
}

/// The pin after the change, with the fingerprints of the keys that the header still has.
fn settled(pin: &Pin, now: &Facts) -> Pin {
    let has = |digest: u32| now.part(PartKind::Digest, digest, "").is_some();
    let mut keys = pin.keys.clone();
    if pin.current.version != now.version {
        // A header that is converted has one digest, number 0.
        keys.iter_mut().for_each(|key| key.digest = 0);
    } else {
        keys.retain(|key| has(key.digest));
    }
    let mut kept: Vec<KeyPrint> = Vec::new();
    for key in keys {
        if !kept.contains(&key) {
            kept.push(key);
        }
    }
    Pin::new(pin.place.clone(), kept, now.clone())
}

/// The fingerprint of a volume key, which says nothing about the key.
pub(crate) fn fingerprint(key: &VolumeKey) -> Result<Hash256, LockError> {
    let derived = derive(key, &[], FINGERPRINT)?;
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(&derived);
    Ok(fingerprint)
}
