//! The first commit of a reencryption: the keyslots of the new key, its digest, and the description
//! of the reencryption.

use std::ops::Range;

use luksmith_formats::luks2::{
    self, Area, CryptSegment, Keyslot, Luks2Keyslot, MAX_DIGESTS, MAX_OBJECTS, NewReencryption,
    Priority, Progress, ReencryptKeyslot, ReencryptMode, Resilience, SegmentSize,
};
use luksmith_formats::{CipherSpec, Hash};

use super::ReencryptionError;
use super::keys::{ReencryptionKeys, covered};
use crate::Interrupt;
use crate::container::digest::KeyDigest;
use crate::container::keyslots::{NewKeyslot, Protection, luks2_keyslot};
use crate::container::plan::WritePlan;
use crate::container::{
    CommitError, Container, Header, KeyslotError, Unlocked, keyslot_info, material, pinned,
};
use crate::kdf::calibrate::Cost;
use crate::secret::{Passphrase, VolumeKey};

/// The iterations of the verification digest. What it covers has two random keys, so it needs no
/// calibration.
pub(super) const VERIFICATION_ITERATIONS: u32 = 1000;

/// The size of the smallest area, in bytes.
const LEAST_AREA: u64 = 4096;

/// The parameters of a reencryption that begins.
#[non_exhaustive]
pub struct BeginReencryption<'a> {
    /// The new cipher.
    pub cipher: CipherSpec,
    /// The size of the new key, in bytes. Ignored if the key is kept.
    pub key_size: usize,
    /// The new encryption sector size, in bytes.
    pub sector_size: u32,
    /// The hash of the digests and of the anti-forensic splitter.
    pub hash: Hash,
    /// The PBKDF2 iterations of the digest of the new key.
    pub digest_iterations: u32,
    /// The cost of each new keyslot.
    pub kdf: Cost,
    /// Whether the volume key stays the same, and only the cipher or the sector size changes.
    pub keep_key: bool,
    /// How a zone survives an interruption.
    pub resilience: Resilience,
    /// The size of the area for that, in bytes: a multiple of 4096. If there is less room, the area
    /// is smaller, and so are the zones.
    pub area_size: u64,
    /// The size of the smallest area that can be used, in bytes: a multiple of 4096.
    pub least_area: u64,
    /// The keyslots that are sealed anew, each with its passphrase. All other keyslots of the old
    /// key are removed at the end.
    pub keyslots: Vec<(u32, &'a Passphrase)>,
    /// Whether the header records from the start on that clients may write meanwhile.
    pub online: bool,
}

impl BeginReencryption<'_> {
    /// A new key of `key_size` bytes for this cipher, with SHA-256, a digest of 1000 iterations,
    /// and no keyslot yet.
    #[must_use]
    pub fn new(
        cipher: CipherSpec,
        key_size: usize,
        sector_size: u32,
        kdf: Cost,
        resilience: Resilience,
        area_size: u64,
    ) -> Self {
        Self {
            cipher,
            key_size,
            sector_size,
            hash: Hash::Sha256,
            digest_iterations: 1000,
            kdf,
            keep_key: false,
            resilience,
            area_size,
            least_area: LEAST_AREA,
            keyslots: Vec::new(),
            online: false,
        }
    }
}

/// A reencryption that can begin: its keys are made and sealed, and nothing is written yet.
pub struct PreparedReencryption {
    plan: WritePlan,
    next: luks2::Header,
    keys: ReencryptionKeys,
}

impl Container {
    /// Begins a reencryption: everything is prepared in one commit, and no data is changed. The old
    /// passphrases open the volume until the end.
    ///
    /// # Errors
    /// Returns [`ReencryptionError`]. Nothing has changed then, unless writing itself failed.
    pub fn begin_reencryption(
        &mut self,
        unlocked: &Unlocked,
        begin: &BeginReencryption<'_>,
        interrupt: &Interrupt,
    ) -> Result<ReencryptionKeys, ReencryptionError> {
        let prepared = self.prepare_reencryption(unlocked, begin, interrupt)?;
        self.commit_reencryption(prepared)
    }

    /// Writes what [`prepare_reencryption`](Self::prepare_reencryption) has prepared. The header
    /// must not have changed since then.
    ///
    /// # Errors
    /// Returns [`ReencryptionError::Commit`].
    pub fn commit_reencryption(
        &mut self,
        prepared: PreparedReencryption,
    ) -> Result<ReencryptionKeys, ReencryptionError> {
        let PreparedReencryption { plan, next, keys } = prepared;
        let found = next.metadata.reencryption()?;
        let prints = match (&keys.following, found) {
            (Some(key), Some(found)) => {
                let print = pinned::print(found.following_digest, key);
                vec![print.map_err(CommitError::from)?]
            }
            _ => Vec::new(),
        };
        self.commit_with_keys(&plan, Header::Luks2(next), &prints)?;
        Ok(keys)
    }

    /// As [`begin_reencryption`](Self::begin_reencryption), but writes nothing. This takes as long
    /// as the KDFs of the new keyslots.
    ///
    /// # Errors
    /// Returns [`ReencryptionError`].
    pub fn prepare_reencryption(
        &self,
        unlocked: &Unlocked,
        begin: &BeginReencryption<'_>,
        interrupt: &Interrupt,
    ) -> Result<PreparedReencryption, ReencryptionError> {
        self.check_free(None)?;
        let Header::Luks2(header) = &self.header else {
            return Err(ReencryptionError::Luks1);
        };
        if !self.is_own_volume_key(unlocked) {
            return Err(KeyslotError::WrongKey.into());
        }
        let mut next = header.clone();
        let keys = ReencryptionKeys {
            previous: Some(VolumeKey::copy_from(unlocked.key.as_bytes())?),
            following: match begin.keep_key {
                true => None,
                false => Some(VolumeKey::random(begin.key_size)?),
            },
        };
        let mut plan = WritePlan::default();
        let mut taken = Taken::new(header);
        let mut keyslots = Vec::new();
        begin
            .cipher
            .check_writable()
            .map_err(crate::crypt::CryptError::from)
            .map_err(KeyslotError::from)?;
        if let Some(key) = &keys.following {
            begin
                .cipher
                .check_key_size(key.as_bytes().len())
                .map_err(crate::crypt::CryptError::from)
                .map_err(KeyslotError::from)?;
            for (replaced, passphrase) in &begin.keyslots {
                let (slot, keyslot) = self.sealed(
                    &mut plan, &mut taken, header, key, begin, *replaced, passphrase, interrupt,
                )?;
                keyslots.push((slot, Keyslot::Luks2(keyslot), *replaced));
            }
            plan.flush();
        }
        let keyslot = taken.number()?;
        let area = taken.area_up_to(begin.area_size, begin.least_area)?;
        let (_, present) = header.metadata.data_segment()?;
        let mut digests = (0..MAX_DIGESTS).filter(|id| {
            let metadata = &header.metadata;
            !metadata.digests().contains_key(id) && !metadata.other_digests().contains_key(id)
        });
        let mut free_digest = || {
            let what = "digest";
            digests.next().ok_or(ReencryptionError::NoNumber { what })
        };
        let digest = match &keys.following {
            None => None,
            Some(key) => {
                let digest = KeyDigest::new(key, begin.hash, begin.digest_iterations, interrupt)?;
                Some((free_digest()?, digest.into_luks2(Vec::new(), Vec::new())))
            }
        };
        let mut following = CryptSegment::new(present.offset, begin.cipher, begin.sector_size);
        following.iv_tweak = present.iv_tweak;
        following.size = present.size;
        next.metadata
            .begin_reencryption(NewReencryption {
                keyslots,
                digest,
                keyslot,
                state: ReencryptKeyslot::forward(
                    ReencryptMode::Reencrypt,
                    area,
                    begin.resilience.clone(),
                ),
                following,
            })
            .map_err(ReencryptionError::NoSpaceInHeader)?;
        let covered = VolumeKey::from_locked(covered(&next, &keys)?);
        let verification =
            KeyDigest::new(&covered, begin.hash, VERIFICATION_ITERATIONS, interrupt)?;
        let verification = verification.into_luks2(vec![keyslot], Vec::new());
        next.metadata
            .set_verification_digest(free_digest()?, &verification)
            .map_err(ReencryptionError::NoSpaceInHeader)?;
        if begin.online {
            next.metadata
                .set_online(true)
                .map_err(ReencryptionError::NoSpaceInHeader)?;
        }
        check_later_steps(&next, present.size)?;
        self.write_luks2(&mut plan, &mut next)?;
        Ok(PreparedReencryption { plan, next, keys })
    }

    /// Seals the new key with a passphrase, in free space.
    #[allow(clippy::too_many_arguments)]
    fn sealed(
        &self,
        plan: &mut WritePlan,
        taken: &mut Taken<'_>,
        header: &luks2::Header,
        key: &VolumeKey,
        begin: &BeginReencryption<'_>,
        replaced: u32,
        passphrase: &Passphrase,
        interrupt: &Interrupt,
    ) -> Result<(u32, Luks2Keyslot), ReencryptionError> {
        let present = header.metadata.keyslots().get(&replaced);
        let present = present.ok_or(KeyslotError::NotInUse(replaced))?;
        let priority = present.as_luks2().map(|present| present.priority);
        let new =
            NewKeyslot::new(passphrase, begin.kdf).priority(priority.unwrap_or(Priority::Normal));
        let protection = Protection {
            hash: begin.hash,
            ..Protection::as_present(header)
        };
        let keyslot = luks2_keyslot(header, key.as_bytes().len(), &new, protection, &taken.areas);
        let keyslot = keyslot.map_err(|error| match error {
            KeyslotError::NoRoom { needed } => ReencryptionError::NoRoom {
                what: "a new keyslot",
                needed,
            },
            other => other.into(),
        })?;
        let Area { offset, size, .. } = keyslot.area;
        taken.areas.push(offset..offset + size);
        let sealing = keyslot_info::luks2_sealing(&keyslot);
        let limits = &self.options.limits;
        let sealed = material::seal(key, passphrase, &sealing, limits, interrupt)?;
        plan.write(keyslot.area.offset, sealed);
        Ok((taken.number()?, keyslot))
    }
}

/// What new keyslots have taken of the free numbers and of the free room.
pub(super) struct Taken<'a> {
    header: &'a luks2::Header,
    numbers: Vec<u32>,
    areas: Vec<Range<u64>>,
}

impl<'a> Taken<'a> {
    pub(super) fn new(header: &'a luks2::Header) -> Self {
        Self {
            header,
            numbers: Vec::new(),
            areas: Vec::new(),
        }
    }

    pub(super) fn number(&mut self) -> Result<u32, ReencryptionError> {
        let used = self.header.metadata.keyslots();
        let mut free =
            (0..MAX_OBJECTS).filter(|id| !used.contains_key(id) && !self.numbers.contains(id));
        let what = "keyslot number";
        let number = free.next().ok_or(ReencryptionError::NoNumber { what })?;
        self.numbers.push(number);
        Ok(number)
    }

    fn area(&mut self, size: u64, what: &'static str) -> Result<Range<u64>, ReencryptionError> {
        let free = self.header.metadata.free_area(size, &self.areas);
        let needed = size;
        let start = free.ok_or(ReencryptionError::NoRoom { what, needed })?;
        self.areas.push(start..start + size);
        Ok(start..start + size)
    }
}

impl Taken<'_> {
    /// An area of this size. If there is less room, one that is smaller by a quarter once or
    /// several times.
    pub(super) fn area_up_to(
        &mut self,
        size: u64,
        least: u64,
    ) -> Result<Range<u64>, ReencryptionError> {
        let least = least.max(LEAST_AREA);
        let mut wanted = size.max(least);
        loop {
            match self.area(wanted, "the area of the reencryption") {
                Err(ReencryptionError::NoRoom { .. }) if wanted > least => {
                    wanted = (wanted / 4 * 3 / LEAST_AREA * LEAST_AREA).max(least);
                }
                found => return found,
            }
        }
    }
}

/// Checks that the header has room for the largest state of the reencryption: three segments that
/// map data, with long numbers.
pub(super) fn check_later_steps(
    header: &luks2::Header,
    size: SegmentSize,
) -> Result<(), ReencryptionError> {
    let end = match size {
        SegmentSize::Dynamic => 1 << 62,
        SegmentSize::Fixed(size) => size,
    };
    let mut later = header.clone();
    let length = (end / 3 / 4096 * 4096).max(512);
    let progress = Progress::Hot {
        start: length,
        length,
    };
    later
        .metadata
        .set_progress(progress, end)
        .and_then(|()| later.metadata.set_online(true))
        .map_err(ReencryptionError::NoSpaceInHeader)
}
