//! Changes of the keyslots of an opened volume.

use super::OpenVolume;
use crate::container::{NewKeyslot, Which};
use crate::secret::Passphrase;
use crate::task::cost::CostOptions;
use crate::task::keyslots::Obstacle;
use crate::task::{Advice, Error, Kind, Watch, Work, Working};

/// Which keyslot is removed, and what is permitted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Removal {
    /// Its number.
    pub slot: u32,
    /// It may be the last one that opens the volume.
    pub last: bool,
    /// It may be the one whose passphrase has unlocked the volume, so that nothing shows that
    /// another one opens.
    pub unproven: bool,
}

impl Removal {
    /// The keyslot of this number, if another one opens the volume.
    #[must_use]
    pub fn of(slot: u32) -> Self {
        Self {
            slot,
            ..Self::default()
        }
    }
}

impl OpenVolume {
    /// Adds a keyslot for `passphrase`, in `slot` or in a free one, and returns its number.
    ///
    /// # Errors
    /// [`Kind::Parameters`] if the volume is not unlocked, and those of
    /// [`Container::add_keyslot`](crate::container::Container::add_keyslot).
    pub fn add_keyslot(
        &self,
        passphrase: &Passphrase,
        slot: Option<u32>,
        cost: &CostOptions,
        watch: &dyn Watch,
    ) -> Result<u32, Error> {
        let opened = self.opened()?;
        let mut header = self.header_to_change()?;
        header
            .check_free(slot)
            .map_err(|error| self.failed(error))?;
        cost.check(&header)?;
        let size = opened.unlocked.key().as_bytes().len();
        let kdf = cost.of_another_keyslot(&header, size, watch)?;
        let new = NewKeyslot::new(passphrase, kdf).slot(slot);
        let working = Working::begin(watch, Work::Derive, None);
        let added = header.add_keyslot(&opened.unlocked, &new, watch.interrupt());
        let added = added.map_err(|error| self.failed(error))?;
        working.finish();
        Ok(added)
    }

    /// Replaces the passphrase `old` by `new`, and returns the number of the keyslot of the new
    /// one. `slot` is the keyslot that `old` has to open.
    ///
    /// # Errors
    /// [`Kind::WrongPassphrase`] if `old` opens no keyslot, and those of
    /// [`Container::change_keyslot`](crate::container::Container::change_keyslot).
    pub fn change_keyslot(
        &self,
        old: &Passphrase,
        slot: Option<u32>,
        new: &Passphrase,
        cost: &CostOptions,
        watch: &dyn Watch,
    ) -> Result<u32, Error> {
        let mut header = self.header_to_change()?;
        cost.check(&header)?;
        let working = Working::begin(watch, Work::Derive, None);
        let which = slot.map_or(Which::Any, Which::Slot);
        let unlocked = header.unlock(old, which, watch.interrupt());
        let unlocked = unlocked.map_err(|error| self.failed(error))?;
        working.finish();
        let size = unlocked.key().as_bytes().len();
        let kdf = cost.of_another_keyslot(&header, size, watch)?;
        let working = Working::begin(watch, Work::Derive, None);
        let new = NewKeyslot::new(new, kdf);
        let changed = header.change_keyslot(&unlocked, &new, watch.interrupt());
        let changed = changed.map_err(|error| self.failed(error))?;
        working.finish();
        Ok(changed)
    }

    /// Removes a keyslot, and returns how many others open the volume. The passphrase that has
    /// unlocked the volume proves that its own keyslot opens it.
    ///
    /// # Errors
    /// [`Kind::Permission`] for the last keyslot, and for one that is removed without such a proof,
    /// unless `removal` permits that; and those of
    /// [`Container::remove_keyslot`](crate::container::Container::remove_keyslot).
    pub fn remove_keyslot(&self, removal: Removal) -> Result<usize, Error> {
        let mut header = self.header_to_change()?;
        let opened = super::read(&self.opened).clone();
        let opened = opened.as_ref().map(|opened| &opened.unlocked);
        let slot = removal.slot;
        let (mark, obstacle) =
            crate::task::keyslots::to_remove(&header, slot, opened).map_err(|e| self.about(e))?;
        let permit = match obstacle {
            Some(Obstacle::Last) if !removal.last => Some("last-keyslot"),
            Some(Obstacle::Unproven) if !removal.unproven => Some("unproven"),
            _ => None,
        };
        if let (Some(obstacle), Some(permit)) = (obstacle, permit) {
            let error = Error::new(Kind::Permission, obstacle.of(slot, &self.image.location));
            return Err(error.advise(Advice::Permit(permit)));
        }
        let last = obstacle == Some(Obstacle::Last);
        let removed = header.remove_marked_keyslot(slot, &mark, last);
        removed.map_err(|error| self.failed(error))?;
        let left = header.keyslots();
        Ok(left.iter().filter(|keyslot| keyslot.bound).count())
    }

    fn failed(&self, error: impl Into<Error>) -> Error {
        self.about(error.into())
    }

    fn about(&self, error: Error) -> Error {
        error.about(&self.image.location)
    }
}
