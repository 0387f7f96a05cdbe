//! The rotation of one secret, step by step.
//!
//! At each point the value that the secret has opens every one of its volumes, so that domains
//! start. The journal describes each step before it begins, so that another run can complete it:
//!
//! 1. Keep the new passphrase in a second secret. Add a keyslot for it to each volume, and open it.
//! 2. Keep the old passphrase in the second secret.
//! 3. Set the new value and read it back.
//! 4. Remove the old keyslots, the second secret and the journal.
//!
//! A keyslot is removed only with proof that it is still the same: its mark in the journal, or the
//! passphrase that the second secret keeps. After an interruption, a person may have put another
//! passphrase into a keyslot of that number.

use uuid::Uuid;

use super::error::RotateError;
use super::journal::{Journal, Slots, Stage};
use super::kept::Kept;
use super::mark::Mark;
use super::options::RotateOptions;
use super::volume::{Proof, Volume};
use crate::container::Which;
use crate::libvirt::{Connection, LibvirtError, Secret};
use crate::secret::{self, Passphrase, Purpose};
use crate::task::libvirt::inventory::Stranger;
use crate::task::libvirt::journal::Place;
use crate::task::{Advice, Error, Kind, Note, Watch};

/// One secret and all volumes that it opens.
pub(super) struct Steps<'a> {
    pub(super) watch: &'a dyn Watch,
    pub(super) connection: &'a Connection,
    pub(super) options: &'a RotateOptions<'a>,
    pub(super) secret: Secret,
    pub(super) uuid: Uuid,
    pub(super) volumes: Vec<Volume<'a>>,
    /// Encrypted images that no secret is for.
    pub(super) strangers: Vec<Stranger>,
    pub(super) place: Place,
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

/// The present passphrase.
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
        let begun = begun.map(|journal| self.matched(journal)).transpose()?;
        if let Some(journal) = &begun
            && journal.stage == Stage::Removing
            && self.is_private()?
        {
            // The new value was set. Removing the old keyslots needs no passphrase.
            return self.finish(journal, false);
        }
        let present = self.present(begun.as_ref())?;
        let mut journal = Journal::new(self.uuid, self.volumes.iter().map(|it| &it.place));
        if let Some(begun) = &begun {
            if !present.private && self.is_new(begun, &present)? {
                return self.finish(begun, true);
            }
            self.take_over(begun, &present, &mut journal)?;
        }
        let new = self.new_passphrase()?;
        if new.ct_eq(&present.passphrase) {
            return Err(RotateError::SamePassphrase.into());
        }
        self.is_the_only_one(&present.passphrase)?;
        self.opens_no_stranger(&present.passphrase)?;
        Kept::check(self.connection, &journal.kept, &self.uuid)?;
        let salts = self.choose(&mut journal, &present)?;
        self.place.write(&journal, self.watch)?;
        if let Err(error) = self.add(&mut journal, salts, &new, &present) {
            self.take_back(&mut journal, &new);
            return Err(error);
        }
        self.set(&mut journal, &new, &present)?;
        self.finish(&journal, !present.private)
    }

    /// A journal with its volumes in the order of those that the secret has now.
    fn matched(&self, mut journal: Journal) -> Result<Journal, Error> {
        let mut left = std::mem::take(&mut journal.volumes);
        let places: Vec<_> = left.iter().map(|slots| slots.place.clone()).collect();
        for volume in &self.volumes {
            let uuid = volume.read(self.watch)?.uuid().to_owned();
            let mut all = left.iter();
            if let Some(found) = all.position(|it| it.uuid == uuid && volume.is_at(&it.place)) {
                journal.volumes.push(left.swap_remove(found));
            }
        }
        if left.is_empty() && journal.volumes.len() == self.volumes.len() {
            return Ok(journal);
        }
        Err(RotateError::OtherVolumes(places.join(", ")).into())
    }

    /// Whether the secret has the new value of an interrupted rotation.
    fn is_new(&self, begun: &Journal, present: &Present) -> Result<bool, Error> {
        for ((volume, slots), opened) in self.each(begun).zip(&present.slots) {
            if *opened != slots.new || !self.is_there(volume, slots)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the new keyslot is in use, and its mark does not show that it is another one.
    fn is_there(&self, volume: &Volume<'_>, slots: &Slots) -> Result<bool, Error> {
        let found = volume.mark(self.watch, slots.new)?;
        let mark = slots.marks.get(&slots.new);
        Ok(found.is_some_and(|found| mark.is_none_or(|mark| mark.is(&found))))
    }

    /// Removes the keyslots that an interrupted rotation has added, now that the secret has another
    /// value. Old keyslots that this value does not open are entered into the next journal.
    fn take_over(
        &self,
        begun: &Journal,
        present: &Present,
        journal: &mut Journal,
    ) -> Result<(), Error> {
        // libvirt does not tell which of the two values a private secret has. Both keyslots stay
        // until it certainly has a third value.
        let either = present.private && begun.stage == Stage::Setting;
        let mut opened = begun.volumes.iter().zip(&present.slots);
        let carries =
            either || begun.carries || !opened.all(|(slots, opened)| slots.old.contains(opened));
        let kept = self.kept(begun)?;
        if !either {
            // The present passphrase is no proof: a keyslot that it opens must stay.
            let passphrase = kept.as_ref().and_then(Kept::value);
            let passphrase = passphrase.filter(|it| !it.ct_eq(&present.passphrase));
            for (volume, slots) in self.each(begun) {
                self.remove(volume, slots, slots.new, passphrase.as_ref())?;
            }
        }
        if !carries {
            return self.forget(begun);
        }
        journal.carries = true;
        if kept.is_some() {
            journal.kept = begun.kept;
        }
        for ((volume, slots), next) in self.each(begun).zip(&mut journal.volumes) {
            let new = either.then_some(slots.new);
            for slot in slots.old.iter().copied().chain(new) {
                let found = volume.mark(self.watch, slot)?;
                let mark = slots.marks.get(&slot);
                let same = mark
                    .zip(found.as_ref())
                    .is_some_and(|(it, found)| it.is(found));
                if same || (mark.is_none() && found.is_some()) {
                    next.old.push(slot);
                    next.marks.extend(mark.map(|mark| (slot, mark.clone())));
                }
            }
        }
        Ok(())
    }

    /// Chooses the keyslot of each volume for the new passphrase, and notes the old ones. Returns
    /// the salts of the new keyslots.
    fn choose(&self, journal: &mut Journal, present: &Present) -> Result<Vec<Vec<u8>>, Error> {
        let mut salts = Vec::new();
        for (volume, slots) in self.volumes.iter().zip(&mut journal.volumes) {
            volume.read(self.watch)?.uuid().clone_into(&mut slots.uuid);
            for (slot, mark) in volume.all_opened(self.watch, &present.passphrase)? {
                slots.marks.insert(slot, mark);
                slots.old.push(slot);
            }
            slots.old.sort_unstable();
            slots.old.dedup();
            slots.new = volume.free_slot(self.watch, &slots.old)?;
            let mut salt = vec![0; 32];
            secret::random(&mut salt)?;
            slots.marks.insert(slots.new, Mark::of_salt(&salt));
            salts.push(salt);
        }
        Ok(salts)
    }

    /// Adds the new keyslots, and keeps the old passphrase.
    fn add(
        &self,
        journal: &mut Journal,
        salts: Vec<Vec<u8>>,
        new: &Passphrase,
        present: &Present,
    ) -> Result<(), Error> {
        let kept = Kept::define(self.connection, &journal.kept, &self.uuid, present.private)?;
        // QEMU chooses the salt itself. Until the journal has it, the passphrase proves which
        // keyslot is the new one.
        kept.store(new)?;
        for (index, (volume, salt)) in self.volumes.iter().zip(salts).enumerate() {
            let slot = journal.volumes[index].new;
            volume.add(self.watch, (slot, salt), new, &present.passphrase)?;
            let mark = self.prove(volume, slot, new)?;
            journal.volumes[index].marks.insert(slot, mark);
            self.place.write(journal, self.watch)?;
        }
        kept.store(&present.passphrase)
    }

    /// Sets the new value, or takes everything back.
    fn set(&self, journal: &mut Journal, new: &Passphrase, present: &Present) -> Result<(), Error> {
        journal.stage = Stage::Setting;
        // A copy that a block job began meanwhile may have only the old keyslots.
        let rest = |volume: &Volume<'_>| volume.check_at_rest(self.watch);
        let written = self.place.write(journal, self.watch);
        if let Err(error) = written.and_then(|()| self.volumes.iter().try_for_each(rest)) {
            self.take_back(journal, new);
            return Err(error);
        }
        if let Err(error) = self.secret.store(new) {
            let error = Error::from(error);
            if self.secret.store(&present.passphrase).is_ok() {
                self.take_back(journal, new);
                return Err(error.advise(Advice::OldValueRestored));
            }
            let deleted = matches!(self.kept(journal), Ok(None));
            return Err(error.advise_if(!deleted, Advice::OldValueKept(journal.kept)));
        }
        journal.stage = Stage::Removing;
        self.place.write(journal, self.watch)
    }

    /// Removes what a failed rotation has added, while the secret certainly has the old value. What
    /// cannot be removed now stays in the journal, for another run.
    fn take_back(&self, journal: &mut Journal, new: &Passphrase) {
        journal.stage = Stage::Adding;
        let taken = || {
            self.place.write(journal, self.watch)?;
            for (volume, slots) in self.each(journal) {
                self.remove(volume, slots, slots.new, Some(new))?;
            }
            if journal.carries {
                Ok(())
            } else {
                self.forget(journal)
            }
        };
        // The caller gets the error that led here.
        let _: Result<(), Error> = taken();
    }

    /// Removes the old keyslots, now that the secret has the new value. A value that is `readable`
    /// is read from libvirt again, and has to open every volume first.
    fn finish(&self, journal: &Journal, readable: bool) -> Result<Vec<Rotated>, Error> {
        let held = readable.then(|| self.secret.value()).transpose()?;
        for (volume, slots) in self.each(journal) {
            match &held {
                Some(held) => drop(self.prove(volume, slots.new, held)?),
                None if self.is_there(volume, slots)? => {}
                None => return Err(not_proven(volume, slots.new)),
            }
        }
        let kept = self.kept(journal)?;
        let kept = kept.filter(|_| journal.stage != Stage::Adding);
        let old = kept.as_ref().and_then(Kept::value);
        if let Some(old) = &old {
            self.is_the_only_one(old)?;
        }
        let mut rotated = Vec::new();
        for (volume, slots) in self.each(journal) {
            let mut removed = Vec::new();
            for slot in slots.old.iter().filter(|slot| **slot != slots.new) {
                if self.remove(volume, slots, *slot, old.as_ref())? {
                    removed.push(*slot);
                }
            }
            rotated.push(Rotated {
                volume: volume.place.clone(),
                keyslot: slots.new,
                removed,
            });
        }
        self.forget(journal)?;
        Ok(rotated)
    }

    /// Removes a keyslot of the journal, if its mark or this passphrase proves that it is still the
    /// same. Returns whether the keyslot is removed.
    fn remove(
        &self,
        volume: &Volume<'_>,
        slots: &Slots,
        slot: u32,
        passphrase: Option<&Passphrase>,
    ) -> Result<bool, Error> {
        let mark = slots.marks.get(&slot);
        let gone = volume.remove(self.watch, slot, Proof { mark, passphrase })?;
        if !gone {
            self.watch.notes(Note::KeyslotStays {
                volume: &volume.place,
                keyslot: slot,
            });
        }
        Ok(gone)
    }

    /// Removes the second secret and the journal.
    fn forget(&self, journal: &Journal) -> Result<(), Error> {
        if let Some(kept) = self.kept(journal)? {
            kept.undefine()?;
        }
        self.place.clear()
    }

    fn kept(&self, journal: &Journal) -> Result<Option<Kept>, Error> {
        Kept::find(self.connection, &journal.kept, &self.uuid)
    }

    /// The volumes with their entries in a journal.
    fn each<'j>(
        &'j self,
        journal: &'j Journal,
    ) -> impl Iterator<Item = (&'j Volume<'j>, &'j Slots)> {
        self.volumes.iter().zip(&journal.volumes)
    }

    /// What opens every volume: the value of the secret, or what an interrupted rotation has kept,
    /// or the passphrase that the caller gives.
    fn present(&self, begun: Option<&Journal>) -> Result<Present, Error> {
        let (failed, private) = match self.secret.value() {
            Ok(passphrase) => match self.slots(&passphrase) {
                Ok(slots) => {
                    return Ok(Present {
                        passphrase,
                        private: false,
                        slots,
                    });
                }
                Err(error) if error.kind() == Kind::WrongPassphrase => (error, false),
                Err(error) => return Err(error),
            },
            Err(error @ LibvirtError::Private(_)) => {
                let error = Error::from(error).advise(Advice::GivePresentPassphrase);
                (error, true)
            }
            Err(error @ LibvirtError::NoValue(_)) => (error.into(), false),
            Err(error) => return Err(error.into()),
        };
        let kept = begun.filter(|journal| !private && journal.stage != Stage::Adding);
        let kept = kept
            .map(|journal| self.kept(journal))
            .transpose()?
            .flatten();
        if let Some(passphrase) = kept.and_then(|kept| kept.value())
            && let Ok(slots) = self.slots(&passphrase)
        {
            self.secret.store(&passphrase)?;
            self.watch.notes(Note::KeptPassphraseRestored);
            return Ok(Present {
                passphrase,
                private,
                slots,
            });
        }
        let Some(key) = self.options.key else {
            return Err(failed);
        };
        let label = format!("secret {}", self.uuid);
        let passphrase = key.read(Purpose::unlock(&label, self.watch.interrupt()))?;
        let slots = self.slots(&passphrase)?;
        Ok(Present {
            passphrase,
            private,
            slots,
        })
    }

    fn slots(&self, passphrase: &Passphrase) -> Result<Vec<u32>, Error> {
        let slots = self.volumes.iter().map(|volume| {
            let opened = volume.opens(self.watch, passphrase, Which::Any)?;
            let opened = opened.map(|(slot, _)| slot);
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
        let Some(source) = self.options.new_key else {
            return Ok(Passphrase::generate()?);
        };
        let label = format!("the new passphrase of secret {}", self.uuid);
        let new = source.read(Purpose::new_secret(&label, self.watch.interrupt()))?;
        if !new.is_text() {
            return Err(RotateError::NotText.into());
        }
        Ok(new)
    }

    /// Fails unless the passphrase opens the keyslot, and returns the mark of what it opened there.
    fn prove(
        &self,
        volume: &Volume<'_>,
        slot: u32,
        passphrase: &Passphrase,
    ) -> Result<Mark, Error> {
        match volume.opens(self.watch, passphrase, Which::Slot(slot))? {
            Some((_, mark)) => Ok(mark),
            None => Err(not_proven(volume, slot)),
        }
    }

    /// Fails if another secret opens one of the volumes with the same passphrase: it would open
    /// nothing afterwards.
    fn is_the_only_one(&self, passphrase: &Passphrase) -> Result<(), Error> {
        for volume in &self.volumes {
            let mut same = Vec::new();
            for other in &volume.others {
                match self
                    .connection
                    .secret(other)
                    .and_then(|secret| secret.value())
                {
                    Ok(value) if value.ct_eq(passphrase) => same.push(other.to_string()),
                    Ok(_) | Err(LibvirtError::NoValue(_) | LibvirtError::NoSecret(_)) => {}
                    Err(LibvirtError::Private(_)) => {
                        let (secret, place) = (*other, volume.place.clone());
                        return Err(RotateError::MaySharePassphrase { secret, place }.into());
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            if !same.is_empty() {
                let (secrets, place) = (same.join(", "), volume.place.clone());
                return Err(RotateError::SharesPassphrase { secrets, place }.into());
            }
        }
        Ok(())
    }

    /// Fails if the passphrase opens an image that no secret is for, such as a copy that libvirt
    /// has forgotten: no passphrase would be known for it afterwards.
    fn opens_no_stranger(&self, passphrase: &Passphrase) -> Result<(), Error> {
        let mut opened = Vec::new();
        for stranger in &self.strangers {
            let (limits, remote) = (self.options.limits, self.options.remote);
            match stranger.opens(Some(passphrase), limits, remote, self.watch) {
                Ok(true) => opened.push(stranger.place.clone()),
                Ok(false) => {}
                Err(error) if error.kind() == Kind::Interrupted => return Err(error),
                Err(error) => self.watch.notes(Note::NotTried {
                    volume: &stranger.place,
                    error: &error,
                }),
            }
        }
        if opened.is_empty() {
            return Ok(());
        }
        Err(RotateError::OpensStranger(opened.join(", ")).into())
    }
}

fn not_proven(volume: &Volume<'_>, slot: u32) -> Error {
    let place = volume.place.clone();
    RotateError::NotProven { slot, place }.into()
}
