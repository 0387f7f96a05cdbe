//! The two keys of a reencryption, and the digest that protects its metadata.

use luksmith_formats::luks2::{self, Progress, REENCRYPT_VERSION, Reencryption};

use super::ReencryptionError;
use crate::Interrupt;
use crate::container::digest::KeyDigest;
use crate::container::{Container, Header, KeyslotError, UnlockError, Unlocked, Which};
use crate::secret::{LockedBytes, Passphrase, VolumeKey};

/// The volume keys before and after a reencryption. Their digests matched.
#[derive(Debug)]
pub struct ReencryptionKeys {
    /// `None` if everything is converted, and no passphrase opens the old key any more, and if
    /// plaintext is encrypted in place.
    pub(super) previous: Option<VolumeKey>,
    /// `None` if it is the same key.
    pub(super) following: Option<VolumeKey>,
}

impl ReencryptionKeys {
    /// The key of the data that is not converted. `None` if it could not be opened, which is only
    /// so if everything is converted, and for plaintext.
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
                match self.open_any(passphrase, Which::Slot(slot.slot), interrupt) {
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
        let keys = match found.previous.digest() {
            Some(digest) if digest == found.following_digest => ReencryptionKeys {
                previous: Some(following),
                following: None,
            },
            digest => ReencryptionKeys {
                previous: match digest {
                    Some(digest) => self.key_of_digest(digest, passphrases, interrupt)?,
                    None => None,
                },
                following: Some(following),
            },
        };
        self.verified(&found, keys, interrupt)
    }

    /// The keys of the reencryption in progress, of which one was unlocked, and the other one opens
    /// with the same passphrase. Verifies the digest that protects its metadata.
    ///
    /// # Errors
    /// The same as for [`unlock_reencryption`](Self::unlock_reencryption).
    pub fn reencryption_keys(
        &self,
        unlocked: &Unlocked,
        interrupt: &Interrupt,
    ) -> Result<ReencryptionKeys, ReencryptionError> {
        let found = self.reencryption()?.ok_or(ReencryptionError::NotPending)?;
        let own = VolumeKey::copy_from(unlocked.key.as_bytes())?;
        let other = unlocked.other.as_ref();
        let other = other.map(|key| VolumeKey::copy_from(key.as_bytes()));
        let other = other.transpose()?;
        let previous = found.previous.digest();
        let is_previous = previous.is_some_and(|digest| self.is_of_digest(unlocked, digest));
        let keys = if previous == Some(found.following_digest) && is_previous {
            ReencryptionKeys {
                previous: Some(own),
                following: None,
            }
        } else if is_previous {
            ReencryptionKeys {
                previous: Some(own),
                following: Some(other.ok_or(ReencryptionError::NewKey)?),
            }
        } else if self.is_of_digest(unlocked, found.following_digest) {
            ReencryptionKeys {
                previous: other,
                following: Some(own),
            }
        } else {
            return Err(KeyslotError::WrongKey.into());
        };
        self.verified(&found, keys, interrupt)
    }

    /// The key of the other side of a reencryption, if the passphrase opens it.
    pub(in crate::container) fn other_key(
        &self,
        unlocked: &Unlocked,
        passphrase: &Passphrase,
        interrupt: &Interrupt,
    ) -> Result<Option<VolumeKey>, UnlockError> {
        let Ok(Some(found)) = self.reencryption() else {
            return Ok(None);
        };
        let Some(previous) = found.previous.digest() else {
            return Ok(None);
        };
        let digest = match self.is_of_digest(unlocked, previous) {
            true => found.following_digest,
            false if self.is_of_digest(unlocked, found.following_digest) => previous,
            false => return Ok(None),
        };
        if previous == found.following_digest {
            return Ok(None);
        }
        match self.key_of_digest(digest, std::slice::from_ref(passphrase), interrupt) {
            Ok(key) => Ok(key),
            Err(ReencryptionError::Unlock(error)) => Err(error),
            Err(_) => Ok(None),
        }
    }

    fn is_of_digest(&self, unlocked: &Unlocked, digest: u32) -> bool {
        let Header::Luks2(header) = &self.header else {
            return false;
        };
        let digest = header.metadata.digests().get(&digest);
        digest.is_some_and(|digest| KeyDigest::of_luks2(digest).is_same(&unlocked.digest))
    }

    /// The keys, after a check that nothing is missing which is needed, and of the digest that
    /// protects the metadata.
    fn verified(
        &self,
        found: &Reencryption,
        keys: ReencryptionKeys,
        interrupt: &Interrupt,
    ) -> Result<ReencryptionKeys, ReencryptionError> {
        if keys.previous.is_none() && !found.is_encryption() {
            return match found.progress {
                Progress::Finished => Ok(keys),
                Progress::Clean { .. } | Progress::Hot { .. } => Err(ReencryptionError::OldKey),
            };
        }
        self.verify_reencryption(found, &keys, interrupt)?;
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
                match self.open_any(passphrase, Which::Slot(slot), interrupt) {
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
