//! Replaces the passphrase of a volume that a key store has, so that an interruption at any point
//! loses neither the old passphrase nor the new one, and the next run completes it.
//!
//! Two more references of the store, [`NEW`] and [`OLD`], keep both passphrases from before the
//! first change of the volume until after the last one:
//!
//! 1. Store the new passphrase under NEW, then the present one under OLD.
//! 2. Add a keyslot for the new passphrase, which is durable then, and open it.
//! 3. Store the new passphrase under the reference itself, where the store still has the present
//!    one. Read it back, and open the new keyslot with what was read.
//! 4. Read it again: a store without check-and-set may have got another value meanwhile. Then
//!    remove the keyslots that the old passphrase opens.
//! 5. Erase OLD, then NEW.
//!
//! So the value under the reference opens the volume at every point. The next run compares the
//! three values: what the reference has says at which step the interrupted run stopped. A keyslot
//! is removed only after the old passphrase has opened it, and only if it is still the same.

use crate::container::{Container, KeyslotMark, NewKeyslot, UnlockError, Unlocked, Which};
use crate::secret::{
    Expected, KeyStore, KeyStoreError, Passphrase, StoreReference, StoredValue, VolumeName,
};
use crate::task::cost::CostOptions;
use crate::task::{Error, Kind, Note, Watch, Work, Working};

/// The end of the reference that keeps the new passphrase.
pub const NEW: &str = ".luksmith-new";

/// The end of the reference that keeps the old passphrase.
pub const OLD: &str = ".luksmith-old";

/// Why the passphrase of a key store is not replaced, besides the errors of the store and of the
/// container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyRotateError {
    /// The key store is named without a reference.
    #[error("{0} has no reference")]
    NoReference(StoreReference),
    /// The value of the key store opens no keyslot.
    #[error("the value of {0} does not open the volume")]
    DoesNotOpen(StoreReference),
    /// The value of the key store opens no keyslot, but a passphrase that an interrupted run has
    /// kept does.
    #[error("the value of {lost} does not open the volume, and that of {kept} does")]
    Lost {
        /// The reference.
        lost: StoreReference,
        /// The reference of the passphrase that opens it.
        kept: StoreReference,
    },
    /// The new keyslot does not open with the value that the store returns.
    #[error("keyslot {0} does not open with what the key store returns")]
    NotProven(u32),
    /// The store had the new value, and has another one now.
    #[error("{0} got another value meanwhile")]
    Replaced(StoreReference),
}

impl From<KeyRotateError> for Error {
    fn from(error: KeyRotateError) -> Self {
        let kind = match &error {
            KeyRotateError::NoReference(_) => Kind::Parameters,
            KeyRotateError::DoesNotOpen(_) | KeyRotateError::Lost { .. } => Kind::WrongPassphrase,
            KeyRotateError::NotProven(_) => Kind::Storage,
            KeyRotateError::Replaced(_) => Kind::Busy,
        };
        Self::new(kind, error)
    }
}

/// What a rotation did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rotated {
    /// The keyslot of the new passphrase.
    pub keyslot: u32,
    /// The keyslots that were removed.
    pub removed: Vec<u32>,
}

/// Gives the volume of `container`, which is open for writing, a new random passphrase, and puts it
/// into the store in place of the present one. A rotation that was interrupted is completed
/// instead.
///
/// # Errors
/// [`KeyRotateError`], and those of the key store and of the container. At every failure the value
/// of the store opens the volume, unless the store has lost it; another run goes on.
pub fn rotate(
    container: &mut Container,
    store: &KeyStore,
    cost: &CostOptions,
    watch: &dyn Watch,
) -> Result<Rotated, Error> {
    let at = |end| store.reference().with(end).map(|it| store.at(it));
    let (Some(new), Some(old)) = (at(NEW), at(OLD)) else {
        return Err(KeyRotateError::NoReference(store.reference().clone()).into());
    };
    let uuid = container.uuid().to_owned();
    let label = container.volume_name().label.unwrap_or("").to_owned();
    let rotation = Rotation {
        store,
        new,
        old,
        volume: VolumeName::new(&uuid, &label),
        cost,
        watch,
    };
    let working = Working::begin(watch, Work::Rotate, Some(STEPS));
    let rotated = rotation.run(container, &working)?;
    working.finish();
    Ok(rotated)
}

/// The steps that a watch sees.
const STEPS: u64 = 5;

struct Rotation<'a> {
    store: &'a KeyStore,
    new: KeyStore,
    old: KeyStore,
    volume: VolumeName<'a>,
    cost: &'a CostOptions,
    watch: &'a dyn Watch,
}

impl Rotation<'_> {
    fn run(&self, container: &mut Container, working: &Working<'_>) -> Result<Rotated, Error> {
        self.check(self.store)?;
        let present = self.get(self.store)?;
        let mut begun = self.begun()?;
        if let Some((new, old)) = &begun {
            self.watch.notes(Note::RotationGoesOn);
            if present.is(new) {
                working.advance(3);
                return self.finish(container, new, old.as_ref(), working);
            }
            if !old.as_ref().is_none_or(|old| present.is(old)) {
                self.give_up(container, &present, new, old.as_ref())?;
                begun = None;
            }
        }
        let Some(present) = present.0 else {
            return Err(self.failed(KeyStoreError::NoValue));
        };
        let opened = self.opened(container, &present.passphrase)?;
        let Some(unlocked) = opened.into_iter().next() else {
            return Err(KeyRotateError::DoesNotOpen(self.store.reference().clone()).into());
        };

        let new = match begun {
            Some((new, old)) => {
                if old.is_none() {
                    self.put(&self.old, &present.passphrase, Expected::Nothing)?;
                }
                new
            }
            None => {
                container.check_free(None)?;
                let new = Passphrase::generate()?;
                self.put(&self.new, &new, Expected::Nothing)?;
                self.put(&self.old, &present.passphrase, Expected::Nothing)?;
                new
            }
        };
        working.advance(1);
        if self.opened(container, &new)?.is_empty() {
            let key_size = unlocked.key().as_bytes().len();
            let kdf = self
                .cost
                .of_another_keyslot(container, key_size, self.watch)?;
            let keyslot = NewKeyslot::new(&new, kdf);
            let slot = container.add_keyslot(&unlocked, &keyslot, self.watch.interrupt())?;
            self.prove(container, &new, slot)?;
        }
        working.advance(1);
        let expected = Expected::Value(present.revision.as_deref());
        self.put(self.store, &new, expected)?;
        working.advance(1);
        self.finish(container, &new, Some(&present.passphrase), working)
    }

    /// What an interrupted run has kept: the new passphrase, and the old one if it came so far, or
    /// if it did not come further than to erase it.
    fn begun(&self) -> Result<Option<(Passphrase, Option<Passphrase>)>, Error> {
        let new = self.get(&self.new)?.0;
        let old = self.get(&self.old)?.0;
        match (new, old) {
            (Some(new), old) => Ok(Some((new.passphrase, old.map(|old| old.passphrase)))),
            (None, Some(_)) => {
                // Erasing begins with OLD, and storing with NEW.
                Err(self.failed_at(&self.old, KeyStoreError::Present))
            }
            (None, None) => Ok(None),
        }
    }

    /// Removes the keyslots of the old passphrase, now that the store has the new one.
    fn finish(
        &self,
        container: &mut Container,
        new: &Passphrase,
        old: Option<&Passphrase>,
        working: &Working<'_>,
    ) -> Result<Rotated, Error> {
        let read = self.get(self.store)?;
        let proven = match &read.0 {
            Some(read) => self.opened(container, &read.passphrase)?,
            None => Vec::new(),
        };
        let Some(keyslot) = proven.iter().find_map(Unlocked::slot) else {
            return Err(KeyRotateError::DoesNotOpen(self.store.reference().clone()).into());
        };
        let old = match old {
            Some(old) => self.opened(container, old)?,
            None => Vec::new(),
        };
        let old: Vec<(u32, KeyslotMark)> = old
            .iter()
            .filter_map(|it| it.slot().zip(it.mark().cloned()))
            .collect();
        working.advance(1);
        // The derivations took a while.
        if !self.get(self.store)?.is(new) {
            return Err(KeyRotateError::Replaced(self.store.reference().clone()).into());
        }
        let mut removed = Vec::new();
        for (slot, mark) in old {
            container.remove_marked_keyslot(slot, &mark, false)?;
            removed.push(slot);
        }
        self.erase(&self.old)?;
        self.erase(&self.new)?;
        working.advance(1);
        Ok(Rotated { keyslot, removed })
    }

    /// Removes what an interrupted run has added, if the store has got another value since that
    /// opens the volume.
    fn give_up(
        &self,
        container: &mut Container,
        present: &Present,
        new: &Passphrase,
        old: Option<&Passphrase>,
    ) -> Result<(), Error> {
        let opens = match &present.0 {
            Some(present) => self.opened(container, &present.passphrase)?,
            None => Vec::new(),
        };
        if opens.is_empty() {
            for (kept, passphrase) in [(&self.new, Some(new)), (&self.old, old)] {
                let opened = match passphrase {
                    Some(passphrase) => self.opened(container, passphrase)?,
                    None => Vec::new(),
                };
                if !opened.is_empty() {
                    let (lost, kept) = (self.store.reference().clone(), kept.reference().clone());
                    return Err(KeyRotateError::Lost { lost, kept }.into());
                }
            }
            return Err(KeyRotateError::DoesNotOpen(self.store.reference().clone()).into());
        }
        for unlocked in self.opened(container, new)? {
            if let Some((slot, mark)) = unlocked.slot().zip(unlocked.mark()) {
                container.remove_marked_keyslot(slot, mark, false)?;
            }
        }
        self.erase(&self.old)?;
        self.erase(&self.new)
    }

    /// Every keyslot of the volume that the passphrase opens, whatever its priority is.
    fn opened(
        &self,
        container: &Container,
        passphrase: &Passphrase,
    ) -> Result<Vec<Unlocked>, Error> {
        let mut opened = Vec::new();
        for keyslot in container.keyslots().iter().filter(|keyslot| keyslot.bound) {
            let which = Which::Slot(keyslot.slot);
            match container.unlock(passphrase, which, self.watch.interrupt()) {
                Ok(unlocked) => opened.push(unlocked),
                Err(UnlockError::WrongPassphrase) => {}
                // A keyslot that cannot be tried stays.
                Err(_) => self.watch.check()?,
            }
        }
        Ok(opened)
    }

    fn prove(&self, container: &Container, new: &Passphrase, slot: u32) -> Result<(), Error> {
        match container.unlock(new, Which::Slot(slot), self.watch.interrupt()) {
            Ok(_) => Ok(()),
            Err(UnlockError::WrongPassphrase) => Err(KeyRotateError::NotProven(slot).into()),
            Err(error) => Err(error.into()),
        }
    }

    fn get(&self, store: &KeyStore) -> Result<Present, Error> {
        match store.get(Some(self.volume), self.watch.interrupt()) {
            Ok(value) => Ok(Present(Some(value))),
            Err(KeyStoreError::NoValue) => Ok(Present(None)),
            Err(error) => Err(self.failed_at(store, error)),
        }
    }

    /// Stores a value, and reads it back.
    fn put(
        &self,
        store: &KeyStore,
        value: &Passphrase,
        expected: Expected<'_>,
    ) -> Result<(), Error> {
        let interrupt = self.watch.interrupt();
        let stored = store.store(value, expected, Some(self.volume), interrupt);
        stored.map_err(|error| self.failed_at(store, error))?;
        Ok(())
    }

    fn erase(&self, store: &KeyStore) -> Result<(), Error> {
        let erased = store.erase(Some(self.volume), self.watch.interrupt());
        erased.map_err(|error| self.failed_at(store, error))
    }

    fn check(&self, store: &KeyStore) -> Result<(), Error> {
        let checked = store.check(Some(self.volume), self.watch.interrupt());
        checked.map_err(|error| self.failed_at(store, error))
    }

    fn failed(&self, error: KeyStoreError) -> Error {
        self.failed_at(self.store, error)
    }

    fn failed_at(&self, store: &KeyStore, error: KeyStoreError) -> Error {
        error.of(store.reference().to_string()).into()
    }
}

/// The value of a key store, if it has one.
struct Present(Option<StoredValue>);

impl Present {
    fn is(&self, passphrase: &Passphrase) -> bool {
        let value = self.0.as_ref();
        value.is_some_and(|value| value.passphrase.ct_eq(passphrase))
    }
}
