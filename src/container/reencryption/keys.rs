//! The two keys of a reencryption, and the digest that protects its metadata.

use luksmith_formats::luks2::{self, Progress, REENCRYPT_VERSION, Reencryption};

use super::ReencryptionError;
use crate::Interrupt;
use crate::container::digest::KeyDigest;
use crate::container::{Container, Header, UnlockError, Unlocked, Which};
use crate::secret::{LockedBytes, Passphrase, VolumeKey};

/// The volume keys before and after a reencryption. Their digests matched.
#[derive(Debug)]
pub struct ReencryptionKeys {
    /// `None` if everything is converted, and no passphrase opens the old key any more.
    pub(super) previous: Option<VolumeKey>,
    /// `None` if it is the same key.
    pub(super) following: Option<VolumeKey>,
}

impl ReencryptionKeys {
    /// The key of the data that is not converted. `None` if it could not be opened, which is only
    /// so if everything is converted.
    pub(crate) fn previous(&self) -> Option<&VolumeKey> {
        self.previous.as_ref()
    }

    /// The key of the data that is converted.
    pub(crate) fn following(&self) -> Option<&VolumeKey> {
        self.following.as_ref().or(self.previous.as_ref())
    }
}

/// Which keyslots of the volume key some passphrases open.
#[derive(Debug)]
#[non_exhaustive]
pub struct MatchedKeyslots {
    /// The volume key.
    pub unlocked: Unlocked,
    /// Each keyslot that one of the passphrases opens, with the index of the passphrase.
    pub opened: Vec<(u32, usize)>,
    /// The keyslots of the volume key that none of them opens.
    pub others: Vec<u32>,
}

impl Container {
    /// Finds the keyslots of the volume key that each of `passphrases` opens. This takes as long as
    /// the KDFs of all keyslots, for each passphrase.
    ///
    /// # Errors
    /// Returns [`UnlockError::WrongPassphrase`] if none opens any.
    pub fn match_keyslots(
        &self,
        passphrases: &[Passphrase],
        interrupt: &Interrupt,
    ) -> Result<MatchedKeyslots, UnlockError> {
        let mut unlocked = None;
        let mut opened = Vec::new();
        let mut others = Vec::new();
        for slot in self.keyslots().into_iter().filter(|slot| slot.bound) {
            let mut by = None;
            for (index, passphrase) in passphrases.iter().enumerate() {
                match self.unlock(passphrase, Which::Slot(slot.slot), interrupt) {
                    Ok(found) => {
                        unlocked.get_or_insert(found);
                        by = Some(index);
                        break;
                    }
                    Err(UnlockError::WrongPassphrase) => {}
                    // Such a keyslot cannot be sealed anew, so it counts as not opened.
                    Err(UnlockError::Unsupported { .. }) => break,
                    Err(error) => return Err(error),
                }
            }
            match by {
                Some(index) => opened.push((slot.slot, index)),
                None => others.push(slot.slot),
            }
        }
        match unlocked {
            Some(unlocked) => Ok(MatchedKeyslots {
                unlocked,
                opened,
                others,
            }),
            None => Err(UnlockError::WrongPassphrase),
        }
    }

    /// Opens both keys of the reencryption in progress, and verifies the digest that protects its
    /// metadata.
    ///
    /// The old key is not needed if everything is converted: then only the header is left to
    /// change.
    ///
    /// # Errors
    /// Returns [`ReencryptionError`]; [`ReencryptionError::Unverified`] if the metadata is not that
    /// which the reencryption began with.
    pub fn unlock_reencryption(
        &self,
        passphrases: &[Passphrase],
        interrupt: &Interrupt,
    ) -> Result<ReencryptionKeys, ReencryptionError> {
        let found = self.reencryption()?.ok_or(ReencryptionError::NotPending)?;
        let following = self.key_of_digest(found.following_digest, passphrases, interrupt)?;
        let following = following.ok_or(ReencryptionError::NewKey)?;
        let keys = if found.following_digest == found.previous_digest {
            ReencryptionKeys {
                previous: Some(following),
                following: None,
            }
        } else {
            ReencryptionKeys {
                previous: self.key_of_digest(found.previous_digest, passphrases, interrupt)?,
                following: Some(following),
            }
        };
        if keys.previous.is_none() {
            return match found.progress {
                Progress::Finished => Ok(keys),
                Progress::Clean { .. } | Progress::Hot { .. } => Err(ReencryptionError::OldKey),
            };
        }
        self.verify_reencryption(&found, &keys, interrupt)?;
        Ok(keys)
    }

    fn key_of_digest(
        &self,
        digest: u32,
        passphrases: &[Passphrase],
        interrupt: &Interrupt,
    ) -> Result<Option<VolumeKey>, ReencryptionError> {
        let mut skipped = None;
        for slot in self.keyslots_of_digest(digest) {
            for passphrase in passphrases {
                match self.unlock(passphrase, Which::Slot(slot), interrupt) {
                    Ok(unlocked) => return Ok(Some(unlocked.key)),
                    Err(UnlockError::WrongPassphrase) => {}
                    Err(error @ (UnlockError::Unsupported { .. } | UnlockError::Io(_))) => {
                        skipped = Some(error);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        match skipped {
            Some(error) => Err(error.into()),
            None => Ok(None),
        }
    }

    fn verify_reencryption(
        &self,
        found: &Reencryption,
        keys: &ReencryptionKeys,
        interrupt: &Interrupt,
    ) -> Result<(), ReencryptionError> {
        let Header::Luks2(header) = &self.header else {
            return Err(ReencryptionError::NotPending);
        };
        let digests = header.metadata.digests().values();
        let mut of_it = digests.filter(|digest| digest.keyslots.contains(&found.keyslot));
        let (Some(digest), None) = (of_it.next(), of_it.next()) else {
            return Err(ReencryptionError::Unverified);
        };
        let covered = VolumeKey::from_locked(covered(header, keys)?);
        let digest = KeyDigest::of_luks2(digest);
        match digest.agrees(&covered, &self.options.limits, interrupt)? {
            true => Ok(()),
            false => Err(ReencryptionError::Unverified),
        }
    }
}

/// What the verification digest of a header covers, with both keys. It is in locked memory.
pub(super) fn covered(
    header: &luks2::Header,
    keys: &ReencryptionKeys,
) -> Result<LockedBytes, ReencryptionError> {
    let rest = header.metadata.reencryption_covered()?;
    let version = [b'v', b'0' + REENCRYPT_VERSION];
    let key = |key: &Option<VolumeKey>| key.as_ref().map_or(0, |key| key.as_bytes().len());
    let length = version.len() + key(&keys.previous) + key(&keys.following) + rest.len();
    let mut bytes = LockedBytes::new(length)?;
    let mut at = 0;
    let mut put = |part: &[u8]| {
        bytes[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    };
    put(&version);
    for key in [&keys.previous, &keys.following].into_iter().flatten() {
        put(key.as_bytes());
    }
    put(&rest);
    Ok(bytes)
}
