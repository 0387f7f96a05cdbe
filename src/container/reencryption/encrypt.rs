//! The header of a volume whose data is plaintext, which is encrypted in place.

use std::sync::Arc;

use luksmith_formats::luks2::{Position, ReencryptKeyslot, ReencryptMode, Resilience, SegmentSize};

use super::ReencryptionError;
use super::begin::{Taken, VERIFICATION_ITERATIONS, check_later_steps};
use super::keys::{ReencryptionKeys, covered};
use crate::Interrupt;
use crate::backend::Backend;
use crate::container::create::luks2_header;
use crate::container::digest::KeyDigest;
use crate::container::plan::WritePlan;
use crate::container::rewrite::write_copies;
use crate::container::{
    CommitError, Container, CreateError, CreateOptions, Header, Health, KeyslotError, NewKeyslot,
    OpenOptions, Version, keyslot_info, material, open as opening,
};
use crate::secret::{Passphrase, VolumeKey};

/// The parameters of an encryption in place that begins.
#[non_exhaustive]
pub struct BeginEncryption<'a> {
    /// The volume, which is LUKS2. Its key is random. Nothing of its storage before the data is in
    /// use.
    pub volume: &'a CreateOptions,
    /// How a zone survives an interruption.
    pub resilience: Resilience,
    /// The size of the area for that, in bytes: a multiple of 4096. If there is less room, the area
    /// is smaller, and so are the zones.
    pub area_size: u64,
    /// The size of the smallest area that can be used, in bytes: a multiple of 4096.
    pub least_area: u64,
}

impl<'a> BeginEncryption<'a> {
    /// An encryption in place with an area of this size in bytes.
    #[must_use]
    pub fn new(volume: &'a CreateOptions, resilience: Resilience, area_size: u64) -> Self {
        Self {
            volume,
            resilience,
            area_size,
            least_area: 4096,
        }
    }
}

impl Container {
    /// Makes a header at the start of `storage` for data that is plaintext, and is encrypted in
    /// place by [`Reencrypt`](crate::reencrypt::Reencrypt). The data is not changed: it begins
    /// where the header ends, or is on another storage.
    ///
    /// # Errors
    /// Returns [`ReencryptionError`]. A crash before the end leaves no header.
    pub fn begin_encryption(
        storage: Arc<dyn Backend>,
        begin: &BeginEncryption<'_>,
        open: OpenOptions,
        passphrase: &Passphrase,
        interrupt: &Interrupt,
    ) -> Result<(Self, ReencryptionKeys), ReencryptionError> {
        let volume = begin.volume;
        if volume.version != Version::Luks2 {
            return Err(ReencryptionError::Luks1);
        }
        if begin.resilience == Resilience::Journal {
            return Err(ReencryptionError::JournalOfPlaintext);
        }
        let layout = volume.layout_within(storage.geometry().size)?;
        let key = VolumeKey::random(volume.key_size)?;
        let (hash, iterations) = (volume.hash, volume.digest_iterations);
        let digest = KeyDigest::new(&key, hash, iterations, interrupt)?;
        let new = NewKeyslot::new(passphrase, volume.kdf).slot(volume.keyslot);
        let (mut header, keyslot) = luks2_header(volume, &layout, &digest, &new)?;
        let present = header.clone();
        let mut taken = Taken::new(&present);
        let number = taken.number()?;
        let area = taken.area_up_to(begin.area_size, begin.least_area)?;
        let state =
            ReencryptKeyslot::forward(ReencryptMode::Encrypt, area, begin.resilience.clone());
        header
            .metadata
            .begin_encryption(number, &state)
            .map_err(ReencryptionError::NoSpaceInHeader)?;
        let keys = ReencryptionKeys {
            previous: None,
            following: Some(key),
        };
        let bytes = VolumeKey::from_locked(covered(&header, &keys)?);
        let verification = KeyDigest::new(&bytes, hash, VERIFICATION_ITERATIONS, interrupt)?;
        let verification = verification.into_luks2(vec![number], Vec::new());
        header
            .metadata
            .set_verification_digest(1, &verification)
            .map_err(ReencryptionError::NoSpaceInHeader)?;
        check_later_steps(&header, SegmentSize::Dynamic)?;
        let mut plan = WritePlan::default();
        let sealing = keyslot_info::luks2_sealing(&keyslot);
        let key = keys.following().ok_or(ReencryptionError::NewKey)?;
        let sealed = material::seal(key, passphrase, &sealing, &open.limits, interrupt);
        plan.write(keyslot.area.offset, sealed.map_err(create)?);
        plan.flush();
        write_copies(&mut plan, &header, [Position::Primary, Position::Secondary])?;
        plan.execute(&*storage, None)?;
        let header = Header::Luks2(header);
        let fingerprint =
            opening::current_fingerprint(&*storage, &header).map_err(CommitError::from)?;
        let container = Self {
            storage,
            options: open,
            header,
            health: Health::Good,
            fingerprint,
            pin: None,
        };
        Ok((container, keys))
    }
}

fn create(error: KeyslotError) -> ReencryptionError {
    CreateError::from(error).into()
}
