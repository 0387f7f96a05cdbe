//! Unlocking: from a passphrase to the verified volume key, and from there to the plaintext device.
//!
//! LUKS1 On-Disk Format 1.2.3, section 4.3; LUKS2 On-Disk Format 1.1, sections 3.2 to 3.4. A key counts only after
//! its digest agrees; nothing of a wrong one is told or kept.

use std::sync::Arc;

use luksmith_formats::luks2::{self, Priority, SegmentSize};

use super::digest::KeyDigest;
use super::{Container, Header, KeyslotInfo, UnlockError, VolumeError, material};
use crate::Interrupt;
use crate::backend::Backend;
use crate::crypt::{IvSector, SectorCrypt};
use crate::kdf::KdfError;
use crate::layout::Qcow2;
use crate::secret::{Passphrase, VolumeKey};
use crate::volume::Volume;

/// Which keyslots a passphrase is tried on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All that hold the volume key: those of priority prefer first, then normal; those of priority ignore never.
    Any,
    /// This one alone, whatever its priority, bound or unbound.
    Slot(u32),
}

/// A key whose digest agreed. Only [`Container::unlock`], [`Container::unlock_with_key`] and
/// [`Container::create`] make one.
///
/// It remembers the digest that it agreed with. Every operation that takes it refuses it where the container has
/// another digest: [`VolumeError::WrongKey`], [`KeyslotError::WrongKey`](super::KeyslotError::WrongKey). A container
/// that is opened again has the same digest, and takes it.
#[derive(Debug)]
pub struct Unlocked {
    pub(super) slot: Option<u32>,
    pub(super) key: VolumeKey,
    pub(super) bound: bool,
    pub(super) digest: KeyDigest,
}

impl Unlocked {
    /// The keyslot that opened; `None` when the volume key itself was given.
    #[must_use]
    pub fn slot(&self) -> Option<u32> {
        self.slot
    }

    /// The key: the volume key, or an unbound keyslot's own.
    #[must_use]
    pub fn key(&self) -> &VolumeKey {
        &self.key
    }

    /// Whether it is the volume key; false for the key of an unbound keyslot, which opens no data.
    #[must_use]
    pub fn is_volume_key(&self) -> bool {
        self.bound
    }
}

impl Container {
    /// Finds the keyslot that `passphrase` opens. Takes as long as the keyslots' KDFs take.
    ///
    /// # Errors
    /// [`UnlockError::WrongPassphrase`] when no tried keyslot opens. A keyslot whose KDF costs more than the limits
    /// allow is passed over, and is the error if no other opens.
    pub fn unlock(
        &self,
        passphrase: &Passphrase,
        which: Which,
        interrupt: &Interrupt,
    ) -> Result<Unlocked, UnlockError> {
        let mut passed_over = None;
        for slot in self.candidates(which)? {
            match self.open_keyslot(&slot, passphrase, interrupt) {
                Ok(Some(unlocked)) => return Ok(unlocked),
                Ok(None) => {}
                Err(
                    error @ UnlockError::Kdf {
                        source: KdfError::OverLimit(_),
                        ..
                    },
                ) => {
                    passed_over.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(passed_over.unwrap_or(UnlockError::WrongPassphrase))
    }

    /// Accepts the volume key itself, if its digest agrees.
    ///
    /// # Errors
    /// [`VolumeError::WrongKey`] when it does not.
    pub fn unlock_with_key(
        &self,
        key: VolumeKey,
        interrupt: &Interrupt,
    ) -> Result<Unlocked, VolumeError> {
        let digest = self
            .volume_digest()
            .ok_or_else(|| VolumeError::Unsupported("no digest".into()))?;
        // HMAC pads with zeros, so keys of two lengths can have one digest.
        let length = key.as_bytes().len();
        let fits = self.volume_key_size().map_or_else(
            || {
                self.data_segment()
                    .is_ok_and(|segment| segment.cipher.check_key_size(length).is_ok())
            },
            |size| size == length,
        );
        if !fits || !digest.agrees(&key, &self.options.limits, interrupt)? {
            return Err(VolumeError::WrongKey);
        }
        Ok(Unlocked {
            slot: None,
            key,
            bound: true,
            digest,
        })
    }

    fn candidates(&self, which: Which) -> Result<Vec<KeyslotInfo>, UnlockError> {
        match which {
            Which::Slot(slot) => Ok(vec![
                self.keyslot(slot).ok_or(UnlockError::NoSuchKeyslot(slot))?,
            ]),
            Which::Any => {
                let mut slots = self.keyslots();
                slots.retain(|slot| slot.bound && slot.priority != Priority::Ignore);
                slots.sort_by_key(|slot| (slot.priority != Priority::Prefer, slot.slot));
                if slots.is_empty() {
                    Err(UnlockError::NoKeyslots)
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
        let Some(digest) = self.digest_of(slot.slot) else {
            return Ok(None);
        };
        // Before the keyslot's own cost is spent for nothing.
        digest.check_cost(limits).map_err(refused)?;
        let key = material::unseal(&*self.storage, slot, passphrase, limits, interrupt)?;
        let agrees = digest.agrees(&key, limits, interrupt).map_err(refused)?;
        Ok(agrees.then_some(Unlocked {
            slot: Some(slot.slot),
            key,
            bound: slot.bound,
            digest,
        }))
    }

    /// Whether it is the volume key of this container.
    pub(super) fn is_own_volume_key(&self, unlocked: &Unlocked) -> bool {
        unlocked.bound
            && self
                .volume_digest()
                .is_some_and(|digest| digest.is_same(&unlocked.digest))
    }

    /// Whether it is the key that this container's keyslot `slot` holds.
    pub(super) fn is_key_of(&self, slot: u32, unlocked: &Unlocked) -> bool {
        self.digest_of(slot)
            .is_some_and(|digest| digest.is_same(&unlocked.digest))
    }

    /// The digest that checks the key of `slot`.
    fn digest_of(&self, slot: u32) -> Option<KeyDigest> {
        match &self.header {
            Header::Luks1(_) => self.volume_digest(),
            Header::Luks2(header) => header
                .metadata
                .digest_of_keyslot(slot)
                .map(|(_, digest)| KeyDigest::of_luks2(digest)),
        }
    }

    /// The digest that checks the volume key.
    fn volume_digest(&self) -> Option<KeyDigest> {
        match &self.header {
            Header::Luks1(header) => KeyDigest::of_luks1(header).ok(),
            Header::Luks2(header) => {
                let (_, digest) = super::keyslot_info::volume_digest(header)?;
                Some(KeyDigest::of_luks2(digest))
            }
        }
    }

    /// The plaintext device. `data` is where the data lies: the storage of the header itself, or, for a detached
    /// header, the other one.
    ///
    /// # Errors
    /// [`VolumeError::WrongKey`] for a key that is not this container's volume key. Pending reencryption, unknown requirements and more than one segment are refused, a storage
    /// that ends before its segment, and the storage of a detached header itself.
    pub fn volume(
        &self,
        data: Arc<dyn Backend>,
        unlocked: &Unlocked,
    ) -> Result<Volume, VolumeError> {
        if !self.is_own_volume_key(unlocked) {
            return Err(VolumeError::WrongKey);
        }
        let segment = self.data_segment_on(&*data)?;
        let size = segment.size_on(data.geometry().size)?;
        let crypt = SectorCrypt::new(segment.cipher, segment.sector_size, &unlocked.key)?;
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

    /// The plaintext device in an encrypted qcow2 image, whose [`header_storage`](Qcow2::header_storage) this container was opened
    /// on.
    ///
    /// # Errors
    /// [`VolumeError::Unsupported`] where the header is not of LUKS1: QEMU knows no other in such images.
    pub fn volume_in(&self, image: Arc<Qcow2>, unlocked: &Unlocked) -> Result<Volume, VolumeError> {
        if !self.is_own_volume_key(unlocked) {
            return Err(VolumeError::WrongKey);
        }
        if !matches!(self.header, Header::Luks1(_)) {
            return Err(VolumeError::Unsupported("LUKS2 in a qcow2 image".into()));
        }
        let segment = self.data_segment()?;
        let crypt = SectorCrypt::new(segment.cipher, segment.sector_size, &unlocked.key)?;
        Ok(Volume::in_qcow2(image, crypt, false)?)
    }

    /// Size of the plaintext device in bytes, on a storage of `storage_size` bytes.
    ///
    /// # Errors
    /// As [`Container::volume`].
    pub fn data_size(&self, storage_size: u64) -> Result<u64, VolumeError> {
        self.data_segment()?.size_on(storage_size)
    }

    /// The segment that holds the data, if that can lie on `data`: the storage of a detached header has no room for it.
    ///
    /// # Errors
    /// As [`Container::data_segment`], and [`VolumeError::Detached`].
    pub fn data_segment_on(&self, data: &dyn Backend) -> Result<DataSegment, VolumeError> {
        let segment = self.data_segment()?;
        if segment.offset == 0 && std::ptr::addr_eq(data, &*self.storage) {
            return Err(VolumeError::Detached);
        }
        Ok(segment)
    }

    /// The one segment that holds the data.
    ///
    /// # Errors
    /// [`VolumeError::Unsupported`] when there is not exactly one that can be opened.
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

/// Where the data lies and how it is encrypted.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct DataSegment {
    /// First byte of the data on its storage; 0 is a detached header's.
    pub offset: u64,
    /// Bytes, or as far as the storage goes.
    pub fixed_size: Option<u64>,
    /// What the data is encrypted with.
    pub cipher: luksmith_formats::CipherSpec,
    /// Bytes that are encrypted as one unit.
    pub sector_size: u32,
    /// IV of the first sector.
    pub first_iv: IvSector,
}

impl DataSegment {
    /// Bytes of plaintext on a storage of `storage_size` bytes: whole sectors only.
    fn size_on(&self, storage_size: u64) -> Result<u64, VolumeError> {
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
