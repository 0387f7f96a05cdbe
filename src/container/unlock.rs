//! Unlocks a container: verifies the key that a passphrase gives, and makes the volume.
//!
//! References: LUKS1 On-Disk Format 1.2.3, section 4.3; LUKS2 On-Disk Format 1.1, sections 3.2 to
//! 3.4. A key is used only after its digest matches. A wrong key is neither returned nor kept.

use std::sync::Arc;
use std::time::Instant;

use luksmith_formats::FormatError;
use luksmith_formats::luks2::{self, Priority, SegmentSize};

use super::digest::KeyDigest;
use super::{Container, Header, KeyslotInfo, KeyslotMark, UnlockError, VolumeError, material};
use crate::Interrupt;
use crate::backend::Backend;
use crate::crypt::{CryptError, IvSector, SectorCrypt};
use crate::kdf::KdfError;
use crate::layout::Qcow2;
use crate::secret::{Passphrase, VolumeKey};
use crate::volume::Volume;

/// The keyslots on which a passphrase is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All keyslots that hold the volume key: first those of priority prefer, then those of
    /// priority normal. Those of priority ignore are not tried.
    Any,
    /// Only this keyslot, with any priority, bound or unbound.
    Slot(u32),
}

/// A key whose digest matched. Only [`Container::unlock`], [`Container::unlock_with_key`] and
/// [`Container::create`] make one.
///
/// It remembers the digest that it matched. Every operation refuses a key if the container has
/// another digest, with [`VolumeError::WrongKey`] or
/// [`KeyslotError::WrongKey`](super::KeyslotError::WrongKey). A container that is opened again has
/// the same digest, and accepts the key.
#[derive(Debug)]
pub struct Unlocked {
    pub(super) slot: Option<u32>,
    /// The mark of that keyslot.
    pub(super) mark: Option<KeyslotMark>,
    pub(super) key: VolumeKey,
    pub(super) bound: bool,
    pub(super) digest: KeyDigest,
    /// The key of the other side of a reencryption, if the same passphrase opens it.
    pub(super) other: Option<VolumeKey>,
}

impl Unlocked {
    /// The keyslot that opened. `None` if the caller gave the volume key itself.
    #[must_use]
    pub fn slot(&self) -> Option<u32> {
        self.slot
    }

    /// The mark of the keyslot that opened. `None` if the caller gave the volume key itself.
    #[must_use]
    pub fn mark(&self) -> Option<&KeyslotMark> {
        self.mark.as_ref()
    }

    /// The volume key, or the key of an unbound keyslot.
    #[must_use]
    pub fn key(&self) -> &VolumeKey {
        &self.key
    }

    /// Whether this is the volume key. False for the key of an unbound keyslot, which opens no
    /// data.
    #[must_use]
    pub fn is_volume_key(&self) -> bool {
        self.bound
    }
}

impl Container {
    /// Finds the keyslot that `passphrase` opens. This takes as long as the KDFs of the keyslots.
    ///
    /// # Errors
    /// Returns [`UnlockError::WrongPassphrase`] if none of the tried keyslots opens. With
    /// [`Which::Any`], a keyslot that cannot be tried is skipped: its area cannot be read, its KDF
    /// costs more than the limits allow, or it has something that is not supported. If no other
    /// keyslot opens, the error of a skipped one is returned, unless that is only not supported
    /// and another keyslot could be tried. Otherwise a skipped one is logged as a warning.
    pub fn unlock(
        &self,
        passphrase: &Passphrase,
        which: Which,
        interrupt: &Interrupt,
    ) -> Result<Unlocked, UnlockError> {
        let mut unlocked = self.open_any(passphrase, which, interrupt)?;
        unlocked.other = self.other_key(&unlocked, passphrase, interrupt)?;
        Ok(unlocked)
    }

    /// As [`unlock`](Self::unlock), without the other key of a reencryption.
    pub(super) fn open_any(
        &self,
        passphrase: &Passphrase,
        which: Which,
        interrupt: &Interrupt,
    ) -> Result<Unlocked, UnlockError> {
        let mut skipped: Vec<UnlockError> = Vec::new();
        let mut tried = false;
        let mut opened = None;
        for slot in self.candidates(which)? {
            match self.open_keyslot(&slot, passphrase, interrupt) {
                Ok(Some(unlocked)) => {
                    opened = Some(unlocked);
                    break;
                }
                Ok(None) => tried = true,
                Err(error) if is_of_one_keyslot(&error) => skipped.push(error),
                Err(error) => return Err(error),
            }
        }
        let worst = |error: &UnlockError| !matches!(error, UnlockError::Unsupported { .. });
        let reported = match &opened {
            Some(_) => None,
            None => skipped.iter().position(worst).or({
                // A wrong passphrase is more likely than that of the keyslot that was not tried.
                (!tried && !skipped.is_empty()).then_some(0)
            }),
        };
        let reported = reported.map(|index| skipped.remove(index));
        for error in skipped {
            let reason = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(reason, "a keyslot was not tried: {error}");
        }
        match (opened, reported) {
            (Some(unlocked), _) => Ok(unlocked),
            (None, Some(error)) => Err(error),
            (None, None) => Err(UnlockError::WrongPassphrase),
        }
    }

    /// Accepts the volume key itself, if its digest matches.
    ///
    /// # Errors
    /// Returns [`VolumeError::WrongKey`] if it does not match.
    pub fn unlock_with_key(
        &self,
        key: VolumeKey,
        interrupt: &Interrupt,
    ) -> Result<Unlocked, VolumeError> {
        let digest = self
            .volume_digest()
            .map_err(|error| VolumeError::Unsupported(error.to_string()))?;
        // HMAC pads keys with zeros, so keys of different lengths can have the same digest.
        let length = key.as_bytes().len();
        let fits = self.volume_key_size().map_or_else(
            || match self.authenticated_segment() {
                Some(segment) => segment.encryption.key_sizes().contains(&length),
                None => self
                    .data_segment()
                    .is_ok_and(|segment| segment.cipher.check_key_size(length).is_ok()),
            },
            |size| size == length,
        );
        if !fits || !digest.agrees(&key, &self.options.limits, interrupt)? {
            return Err(VolumeError::WrongKey);
        }
        self.check_pinned_key(&digest, &key)?;
        Ok(Unlocked {
            slot: None,
            mark: None,
            key,
            bound: true,
            digest,
            other: None,
        })
    }

    fn candidates(&self, which: Which) -> Result<Vec<KeyslotInfo>, UnlockError> {
        match which {
            Which::Slot(slot) => Ok(vec![
                self.keyslot(slot).ok_or(UnlockError::NoSuchKeyslot(slot))?,
            ]),
            Which::Any => {
                let mut slots = self.keyslots();
                slots.retain(|slot| slot.bound);
                if slots.is_empty() {
                    return Err(UnlockError::NoKeyslots);
                }
                slots.retain(|slot| slot.priority != Priority::Ignore);
                slots.sort_by_key(|slot| (slot.priority != Priority::Prefer, slot.slot));
                if slots.is_empty() {
                    Err(UnlockError::OnlyIgnored)
                } else {
                    Ok(slots)
                }
            }
        }
    }

    fn open_keyslot(
        &self,
        slot: &KeyslotInfo,
        passphrase: &Passphrase,
        interrupt: &Interrupt,
    ) -> Result<Option<Unlocked>, UnlockError> {
        let limits = &self.options.limits;
        let refused = |source| UnlockError::Kdf {
            slot: slot.slot,
            source,
        };
        let unsupported = |source| UnlockError::Unsupported {
            slot: slot.slot,
            source,
        };
        let sealing = slot.sealing.as_ref();
        let sealing = sealing.map_err(|why| unsupported(why.clone()))?;
        // Checked before the KDF of the keyslot runs in vain.
        let digest = self.digest_of(slot.slot).map_err(unsupported)?;
        digest.check_cost(limits).map_err(refused)?;
        let started = Instant::now();
        let (key, mark) =
            material::unseal(&*self.storage, slot, sealing, passphrase, limits, interrupt)?;
        let agrees = digest.agrees(&key, limits, interrupt).map_err(refused)?;
        if agrees {
            self.check_pinned_key(&digest, &key)?;
        }
        let (keyslot, seconds) = (slot.slot, started.elapsed().as_secs_f32());
        let outcome = if agrees { "opens" } else { "does not open" };
        tracing::info!(
            "keyslot {keyslot} {outcome}: {} took {seconds:.2} s",
            sealing.kdf
        );
        Ok(agrees.then_some(Unlocked {
            slot: Some(slot.slot),
            mark: Some(mark),
            key,
            bound: slot.bound,
            digest,
            other: None,
        }))
    }

    /// Whether `unlocked` is the volume key of this container.
    pub(crate) fn is_own_volume_key(&self, unlocked: &Unlocked) -> bool {
        unlocked.bound
            && self
                .volume_digest()
                .is_ok_and(|digest| digest.is_same(&unlocked.digest))
    }

    /// Whether `unlocked` is the key that keyslot `slot` of this container holds.
    pub(super) fn is_key_of(&self, slot: u32, unlocked: &Unlocked) -> bool {
        self.digest_of(slot)
            .is_ok_and(|digest| digest.is_same(&unlocked.digest))
    }

    /// The digest that checks the key of `slot`.
    fn digest_of(&self, slot: u32) -> Result<KeyDigest, FormatError> {
        let metadata = match &self.header {
            Header::Luks1(_) => return self.volume_digest(),
            Header::Luks2(header) => &header.metadata,
        };
        let other = metadata.other_digests().iter();
        match metadata.digest_of_keyslot(slot) {
            Some((_, digest)) => Ok(KeyDigest::of_luks2(digest)),
            None => Err(why(other, |digest| digest.keyslots.contains(&slot))),
        }
    }

    /// The digest that checks the volume key.
    fn volume_digest(&self) -> Result<KeyDigest, FormatError> {
        let header = match &self.header {
            Header::Luks1(header) => {
                header.check_digest()?;
                return KeyDigest::of_luks1(header);
            }
            Header::Luks2(header) => header,
        };
        let segment = header.metadata.key_segment();
        let other = header.metadata.other_digests().iter();
        match super::keyslot_info::volume_digest(header) {
            Some((_, digest)) => Ok(KeyDigest::of_luks2(digest)),
            None => Err(why(other, |digest| {
                segment.is_some_and(|id| digest.segments.contains(&id))
            })),
        }
    }

    /// The volume. `data` is the storage of the data: the storage of the header, or for a detached
    /// header another one. A volume with [authenticated
    /// encryption](Self::authenticated_segment) is only read: what does not match its tag is an
    /// error, and never data.
    ///
    /// # Errors
    /// Returns [`VolumeError::WrongKey`] if the key is not the volume key of this container, and
    /// [`VolumeError::Integrity`] if tags and data do not fit yet. Also refuses a pending
    /// reencryption, unknown requirements, more than one segment, a storage that ends before its
    /// segment, and the storage of a detached header itself.
    pub fn volume(
        &self,
        data: Arc<dyn Backend>,
        unlocked: &Unlocked,
    ) -> Result<Volume, VolumeError> {
        if !self.is_own_volume_key(unlocked) {
            return Err(VolumeError::WrongKey);
        }
        if let Some(volume) = self.tagged_volume(&data, unlocked)? {
            return Ok(volume);
        }
        let segment = self.data_segment_on(&*data)?;
        let size = segment.size_on(data.geometry().size)?;
        let crypt = SectorCrypt::new(segment.cipher, segment.sector_size, &unlocked.key)?;
        crypt.log();
        let read_only = data.geometry().read_only;
        Ok(Volume::new(
            data,
            crypt,
            segment.offset,
            size,
            segment.first_iv,
            read_only,
        )?)
    }

    /// The volume in an encrypted qcow2 image. The container was opened on the
    /// [`header_storage`](Qcow2::header_storage) of that image.
    ///
    /// # Errors
    /// Returns [`VolumeError::Unsupported`] if the header is not LUKS1, the only version that QEMU
    /// supports in such images. Otherwise the errors of [`volume`](Self::volume).
    pub fn volume_in(&self, image: Arc<Qcow2>, unlocked: &Unlocked) -> Result<Volume, VolumeError> {
        if !self.is_own_volume_key(unlocked) {
            return Err(VolumeError::WrongKey);
        }
        if !matches!(self.header, Header::Luks1(_)) {
            return Err(VolumeError::Unsupported("LUKS2 in a qcow2 image".into()));
        }
        let segment = self.data_segment()?;
        let crypt = SectorCrypt::new(segment.cipher, segment.sector_size, &unlocked.key)?;
        crypt.log();
        Ok(Volume::in_qcow2(image, crypt, false)?)
    }

    /// The size of the volume in bytes, on a storage of `storage_size` bytes. With authenticated
    /// encryption the storage itself says it: [`data_size_on`](Self::data_size_on).
    ///
    /// # Errors
    /// The same as for [`Container::volume`].
    pub fn data_size(&self, storage_size: u64) -> Result<u64, VolumeError> {
        self.data_segment()?.size_on(storage_size)
    }

    /// The segment of the data, if it can be on `data`. The storage of a detached header has no
    /// room for it.
    ///
    /// # Errors
    /// The same as for [`Container::data_segment`], and [`VolumeError::Detached`].
    pub fn data_segment_on(&self, data: &dyn Backend) -> Result<DataSegment, VolumeError> {
        let segment = self.data_segment()?;
        if segment.offset == 0 && std::ptr::addr_eq(data, &*self.storage) {
            return Err(VolumeError::Detached);
        }
        Ok(segment)
    }

    /// The segment of the data, if its sectors have no tags.
    ///
    /// # Errors
    /// Returns [`VolumeError::Unsupported`] if there is not exactly one segment that can be opened
    /// to read and to write.
    pub fn data_segment(&self) -> Result<DataSegment, VolumeError> {
        match &self.header {
            Header::Luks1(header) => Ok(DataSegment {
                offset: header.data_offset(),
                fixed_size: None,
                cipher: header
                    .cipher()
                    .map_err(|error| VolumeError::Unsupported(error.to_string()))?,
                sector_size: 512,
                first_iv: IvSector(0),
            }),
            Header::Luks2(header) => luks2_segment(header),
        }
    }
}

/// Whether an error concerns only the keyslot that was tried, so that others may still open.
fn is_of_one_keyslot(error: &UnlockError) -> bool {
    match error {
        UnlockError::Kdf { source, .. } => matches!(
            source,
            KdfError::OverLimit(_) | KdfError::MissingFeature(_) | KdfError::Material { .. }
        ),
        UnlockError::Crypt(error) => !matches!(error, CryptError::Lock(_)),
        UnlockError::Unsupported { .. } | UnlockError::Io(_) => true,
        UnlockError::WrongPassphrase
        | UnlockError::Trust(_)
        | UnlockError::NoSuchKeyslot(_)
        | UnlockError::NoKeyslots
        | UnlockError::OnlyIgnored
        | UnlockError::Memory(_) => false,
    }
}

/// Why the digest that is looked for cannot be computed.
fn why<'a>(
    mut others: impl Iterator<Item = (&'a u32, &'a luks2::OtherDigest)>,
    wanted: impl Fn(&luks2::OtherDigest) -> bool,
) -> FormatError {
    match others.find(|(_, digest)| wanted(digest)) {
        Some((_, digest)) => digest.why.clone(),
        None => FormatError::unsupported("digests", 0, "no digest is for this key"),
    }
}

/// The place of the data, and how it is encrypted.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct DataSegment {
    /// The offset of the data on its storage. 0 for a detached header.
    pub offset: u64,
    /// The size in bytes. `None` means up to the end of the storage.
    pub fixed_size: Option<u64>,
    /// The cipher of the data.
    pub cipher: luksmith_formats::CipherSpec,
    /// The encryption sector size, in bytes.
    pub sector_size: u32,
    /// The IV of the first sector.
    pub first_iv: IvSector,
}

impl DataSegment {
    /// How many bytes at the end of a storage of `storage_size` bytes are no whole sector. They are
    /// no part of the volume. QEMU shows a last sector there, which it fills with zeroes before it
    /// decrypts it; cryptsetup refuses such a storage, or leaves the bytes out.
    #[must_use]
    pub fn left_out(&self, storage_size: u64) -> u64 {
        match self.fixed_size {
            Some(size) => size % u64::from(self.sector_size),
            None => storage_size.saturating_sub(self.offset) % u64::from(self.sector_size),
        }
    }

    /// The size of the plaintext in whole sectors, in bytes, on a storage of `storage_size` bytes.
    pub(super) fn size_on(&self, storage_size: u64) -> Result<u64, VolumeError> {
        let needed = self.offset.saturating_add(self.fixed_size.unwrap_or(0));
        if storage_size < needed {
            return Err(VolumeError::TooSmall {
                size: storage_size,
                needed,
            });
        }
        let size = self.fixed_size.unwrap_or(storage_size - self.offset);
        Ok(size - size % u64::from(self.sector_size))
    }
}

fn luks2_segment(header: &luks2::Header) -> Result<DataSegment, VolumeError> {
    let config = header.metadata.config();
    if !config.requirements.is_empty() {
        return Err(VolumeError::Unsupported(format!(
            "requirements {}",
            config.requirements.join(", ")
        )));
    }
    let segment = header
        .metadata
        .data_segment()
        .map_err(|error| VolumeError::Unsupported(error.to_string()))?
        .1;
    Ok(DataSegment {
        offset: segment.offset,
        fixed_size: match segment.size {
            SegmentSize::Dynamic => None,
            SegmentSize::Fixed(size) => Some(size),
        },
        cipher: segment.encryption,
        sector_size: segment.sector_size,
        first_iv: IvSector(segment.iv_tweak),
    })
}
