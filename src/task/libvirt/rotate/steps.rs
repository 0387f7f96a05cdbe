//! The rotation of one secret, step by step.
//!
//! At each point the value that the secret has opens every one of its volumes, so that domains
//! start. The journal describes each step before it begins, so that another run can complete it:
//!
//! 1. Add a keyslot for the new passphrase to each volume, and open it.
//! 2. Keep the old passphrase in a second secret.
//! 3. Set the new value and read it back.
//! 4. Remove the old keyslots, the second secret and the journal.

use uuid::Uuid;

use super::error::RotateError;
use super::journal::{Journal, Place, Slots, Stage};
use super::volume::Volume;
use crate::container::Which;
use crate::libvirt::xml::{SecretXml, Usage};
use crate::libvirt::{Connection, LibvirtError, Secret};
use crate::secret::{Passphrase, Purpose, SecretSource};
use crate::task::{Advice, Error, Note, Watch};

/// One secret and all volumes that it opens.
pub(super) struct Steps<'a> {
    pub(super) watch: &'a dyn Watch,
    pub(super) connection: &'a Connection,
    pub(super) secret: Secret,
    pub(super) uuid: Uuid,
    pub(super) volumes: Vec<Volume<'a>>,
    pub(super) place: Place,
    /// The present passphrase of a private secret.
    pub(super) key: Option<&'a dyn SecretSource>,
    /// The source of the new passphrase. `None` is a random one.
    pub(super) new_key: Option<&'a dyn SecretSource>,
}

/// What was done to one volume.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rotated {
    /// The path or the name of the volume.
    pub volume: String,
    /// The keyslot of the new passphrase.
    pub keyslot: u32,
    /// The keyslots that were removed.
    pub removed: Vec<u32>,
}

/// The present value of the secret.
struct Present {
    passphrase: Passphrase,
    private: bool,
    /// The keyslot of each volume that it opens, in the order of the volumes.
    slots: Vec<u32>,
}

impl Steps<'_> {
    pub(super) fn run(&self) -> Result<Vec<Rotated>, Error> {
        let begun = self.place.read()?;
        for volume in &self.volumes {
            volume.settle(self.watch)?;
        }
        let mut carried = vec![Vec::new(); self.volumes.len()];
        if let Some(journal) = &begun {
            self.check_volumes(journal)?;
            if journal.stage == Stage::Removing && self.is_private()? {
                // The new value was set. Removing the old keyslots needs no passphrase.
                return self.finish(journal, false);
            }
        }
        let present = self.present(begun.as_ref())?;
        if let Some(journal) = &begun {
            let all_new = present
                .slots
                .iter()
                .zip(&journal.volumes)
                .all(|(slot, volume)| *slot == volume.new);
            if all_new && !present.private {
                return self.finish(journal, true);
            }
            for ((volume, slots), carried) in
                self.volumes.iter().zip(&journal.volumes).zip(&mut carried)
            {
                if present.private && journal.stage == Stage::Setting {
                    // libvirt does not tell which of the two values the secret has. Both keyslots
                    // stay until it certainly has a third value.
                    carried.extend(slots.old.iter().copied().chain([slots.new]));
                } else {
                    // The secret has the old value, and the passphrase of this keyslot is lost.
                    volume.remove(self.watch, slots.new)?;
                }
            }
        }
        let new = self.new_passphrase()?;
        if new.ct_eq(&present.passphrase) {
            return Err(RotateError::SamePassphrase.into());
        }
        let kept = begun.map_or_else(Uuid::new_v4, |journal| journal.kept);
        let mut journal = Journal {
            secret: self.uuid,
            kept,
            stage: Stage::Adding,
            volumes: Vec::new(),
        };
        for (volume, mut old) in self.volumes.iter().zip(carried) {
            old.extend(volume.all_opened(self.watch, &present.passphrase)?);
            old.sort_unstable();
            old.dedup();
            let (uuid, new) = (
                volume.read(self.watch)?.uuid().to_owned(),
                volume.free_slot(self.watch, &old)?,
            );
            journal.volumes.push(Slots {
                place: volume.place.clone(),
                uuid,
                new,
                old,
            });
        }
        self.place.write(&journal, self.watch)?;
        for (volume, slots) in self.volumes.iter().zip(&journal.volumes) {
            volume.add(self.watch, slots.new, &new, &present.passphrase)?;
            self.prove(volume, slots.new, &new)?;
        }
        self.keep(&journal, &present)?;
        journal.stage = Stage::Setting;
        self.place.write(&journal, self.watch)?;
        if let Err(error) = self.secret.store(&new) {
            let advice = match self.secret.store(&present.passphrase) {
                Ok(()) => Advice::OldValueRestored,
                Err(_) => Advice::OldValueKept(journal.kept),
            };
            return Err(Error::from(error).advise(advice));
        }
        journal.stage = Stage::Removing;
        self.place.write(&journal, self.watch)?;
        self.finish(&journal, !present.private)
    }

    /// Removes the old keyslots, now that the secret has the new value. A value that is `readable`
    /// is read from libvirt again, and has to open every volume first.
    fn finish(&self, journal: &Journal, readable: bool) -> Result<Vec<Rotated>, Error> {
        if readable {
            let held = self.secret.value()?;
            for (volume, slots) in self.volumes.iter().zip(&journal.volumes) {
                self.prove(volume, slots.new, &held)?;
            }
        }
        let mut rotated = Vec::new();
        for (volume, slots) in self.volumes.iter().zip(&journal.volumes) {
            for slot in slots.old.iter().filter(|slot| **slot != slots.new) {
                volume.remove(self.watch, *slot)?;
            }
            rotated.push(Rotated {
                volume: slots.place.clone(),
                keyslot: slots.new,
                removed: slots.old.clone(),
            });
        }
        match self.connection.secret(&journal.kept) {
            Ok(kept) => kept.undefine()?,
            Err(LibvirtError::NoSecret(_)) => {}
            Err(error) => return Err(error.into()),
        }
        self.place.clear()?;
        Ok(rotated)
    }

    /// The value of the secret, which has to open every volume. A value that opens nothing is
    /// replaced by the one that an interrupted rotation has kept.
    fn present(&self, begun: Option<&Journal>) -> Result<Present, Error> {
        let (passphrase, private) = match self.secret.value() {
            Ok(passphrase) => (passphrase, false),
            Err(error @ LibvirtError::Private(_)) => {
                let Some(key) = self.key else {
                    return Err(Error::from(error).advise(Advice::GivePresentPassphrase));
                };
                let label = format!("secret {}", self.uuid);
                let purpose = Purpose::unlock(&label, self.watch.interrupt());
                (key.read(purpose)?, true)
            }
            Err(error) => return Err(error.into()),
        };
        let failed = match self.slots(&passphrase) {
            Ok(slots) => {
                return Ok(Present {
                    passphrase,
                    private,
                    slots,
                });
            }
            Err(error) => error,
        };
        let kept = begun.and_then(|journal| self.connection.secret(&journal.kept).ok());
        let Some(kept) = kept.and_then(|kept| kept.value().ok()).filter(|_| !private) else {
            return Err(failed);
        };
        let slots = self.slots(&kept)?;
        self.secret.store(&kept)?;
        self.watch.notes(Note::KeptPassphraseRestored);
        Ok(Present {
            passphrase: kept,
            private,
            slots,
        })
    }

    fn slots(&self, passphrase: &Passphrase) -> Result<Vec<u32>, Error> {
        let slots = self.volumes.iter().map(|volume| {
            let opened = volume.opens(self.watch, passphrase, Which::Any)?;
            opened.ok_or_else(|| RotateError::DoesNotOpen(volume.place.clone()).into())
        });
        slots.collect()
    }

    fn is_private(&self) -> Result<bool, Error> {
        match self.secret.value() {
            Err(LibvirtError::Private(_)) => Ok(true),
            Ok(_) | Err(LibvirtError::NoValue(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn new_passphrase(&self) -> Result<Passphrase, Error> {
        let Some(source) = self.new_key else {
            return Ok(Passphrase::generate()?);
        };
        let label = format!("the new passphrase of secret {}", self.uuid);
        let new = source.read(Purpose::new_secret(&label, self.watch.interrupt()))?;
        if !new.is_text() {
            return Err(RotateError::NotText.into());
        }
        Ok(new)
    }

    fn prove(&self, volume: &Volume<'_>, slot: u32, passphrase: &Passphrase) -> Result<(), Error> {
        match volume.opens(self.watch, passphrase, Which::Slot(slot))? {
            Some(_) => Ok(()),
            None => {
                let place = volume.place.clone();
                Err(RotateError::NotProven { slot, place }.into())
            }
        }
    }

    /// Keeps the old passphrase in a second secret.
    fn keep(&self, journal: &Journal, present: &Present) -> Result<(), Error> {
        let kept = match self.connection.secret(&journal.kept) {
            Ok(kept) => kept,
            Err(LibvirtError::NoSecret(_)) => {
                let usage = format!("luksmith rotation of {}", self.uuid);
                let description = "the old passphrase, until a rotation has come to its end";
                let definition = SecretXml::new(Some(Usage::volume(usage)))
                    .uuid(Some(journal.kept.to_string()))
                    .description(Some(description.to_owned()))
                    .private(present.private);
                self.connection.define_secret(&definition.to_xml()?)?
            }
            Err(error) => return Err(error.into()),
        };
        Ok(kept.store(&present.passphrase)?)
    }

    /// Fails if the journal lists other volumes than the secret has now.
    fn check_volumes(&self, journal: &Journal) -> Result<(), Error> {
        let mut same = self.volumes.len() == journal.volumes.len();
        for (volume, slots) in self.volumes.iter().zip(&journal.volumes) {
            same &= volume.place == slots.place && volume.read(self.watch)?.uuid() == slots.uuid;
        }
        if same {
            return Ok(());
        }
        let places = journal
            .volumes
            .iter()
            .map(|slots| slots.place.as_str())
            .collect::<Vec<_>>()
            .join(", ");
        Err(RotateError::OtherVolumes(places).into())
    }
}
