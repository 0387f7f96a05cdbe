//! The pin of a header: what is compared with it when a container is opened, and how it changes
//! with the header.

use luksmith_formats::trust::pin::{Difference, Facts, Hash256, KeyPrint, Material, PartKind, Pin};
use sha2::{Digest as _, Sha256};

use super::digest::KeyDigest;
use super::plan::WritePlan;
use super::{Container, Header, Unlocked};
use crate::backend::Backend;
use crate::door;
use crate::secret::VolumeKey;
use crate::trust::{Changing, Checked, Pinned, Refused, TrustError, fingerprint};

/// The size of the pieces in which key material is read, in bytes.
const PIECE: u64 = 1 << 20;

/// What the header says, without key material.
fn said(header: &Header) -> Facts {
    match header {
        Header::Luks1(header) => Facts::of_luks1(header),
        Header::Luks2(header) => Facts::of_luks2(header),
    }
}

fn material(header: &Header) -> Vec<Material> {
    match header {
        Header::Luks1(header) => Material::of_luks1(header),
        Header::Luks2(header) => Material::of_luks2(header),
    }
}

/// What the header says, with hashes of its key material. `known` has hashes that need not be
/// computed.
fn facts(
    header: &Header,
    storage: &dyn Backend,
    known: impl Fn(&Material) -> Option<Hash256>,
) -> Result<Facts, TrustError> {
    let mut hashes = Vec::new();
    for material in material(header) {
        let hash = match known(&material) {
            Some(hash) => hash,
            None => hash_of(storage, &material)?,
        };
        hashes.push((material.keyslot, hash));
    }
    Ok(said(header).with_material(hashes))
}

fn hash_of(storage: &dyn Backend, material: &Material) -> Result<Hash256, TrustError> {
    let mut hash = Sha256::new();
    let mut at = material.area.start;
    while at < material.area.end {
        let length = PIECE.min(material.area.end - at);
        let piece = door::read(storage, at, usize::try_from(length).unwrap_or(0))?;
        hash.update(&piece);
        at += length;
    }
    Ok(hash.finalize().into())
}

/// Compares the header on this storage with its pin.
pub(super) fn check(
    pinned: &Pinned,
    header: &Header,
    storage: &dyn Backend,
) -> Result<Checked, Refused> {
    pinned.check(&said(header), || facts(header, storage, |_| None))
}

/// A change of the pin, before a header that need not be readable is overwritten by a plan.
pub(super) struct Overwriting {
    checked: Checked,
    changing: Changing,
}

impl Overwriting {
    /// Writes the pin before the plan that restores a header. It has to have the volume key that is
    /// pinned.
    pub(super) fn restores(
        pinned: &Pinned,
        plan: &WritePlan,
        next: &Header,
        storage: &dyn Backend,
    ) -> Result<Self, TrustError> {
        let next = facts(next, &plan.preview(storage), |_| None)?;
        let pin = pinned.find(&next.uuid)?;
        let digest = |facts: &Facts, number| {
            let part = facts.part(PartKind::Digest, number, "");
            part.map(|part| part.hash)
        };
        let mut keys = pin.keys.iter();
        if !keys.all(|key| digest(&pin.current, key.digest) == digest(&next, key.digest)) {
            let what = "the backup has another volume key than the pinned one";
            return Err(TrustError::NotKept(what));
        }
        Self::begin(Checked::before(pinned, pin), next)
    }

    /// Writes the pin before the plan that repairs a header, which has to be the pinned one then.
    pub(super) fn repairs(
        pinned: &Pinned,
        plan: &WritePlan,
        next: &Header,
        storage: &dyn Backend,
    ) -> Result<Self, TrustError> {
        let next = facts(next, &plan.preview(storage), |_| None)?;
        let pin = pinned.find(&next.uuid)?;
        let mut same = next.clone();
        same.sequence = pin.current.sequence;
        let differences = pin.differences(&same);
        if !differences.is_empty() {
            return Err(TrustError::Changed(differences));
        }
        Self::begin(Checked::before(pinned, pin), next)
    }

    fn begin(mut checked: Checked, next: Facts) -> Result<Self, TrustError> {
        let changing = checked.begin(next, &[])?;
        Ok(Self { checked, changing })
    }

    /// Writes the pin after the plan, which is complete and durable.
    pub(super) fn end(mut self) {
        self.checked.end(self.changing);
    }
}

impl Container {
    /// What the header says, with hashes of its key material: what a pin keeps of it.
    ///
    /// # Errors
    /// [`TrustError::Io`].
    pub fn facts(&self) -> Result<Facts, TrustError> {
        facts(&self.header, &*self.storage, |_| None)
    }

    /// How the header differs from what is pinned. Empty if the pin accepts it.
    ///
    /// # Errors
    /// [`TrustError::Io`].
    pub fn differences(&self, pin: &Pin) -> Result<Vec<Difference>, TrustError> {
        let facts = self.facts()?;
        match pin.accepts(&facts) {
            true => Ok(Vec::new()),
            false => Ok(pin.differences(&facts)),
        }
    }

    /// The fingerprints of the volume key, and during a reencryption of both.
    ///
    /// # Errors
    /// [`TrustError::NotKept`] if the passphrase has opened only one of the two keys of a
    /// reencryption, and [`TrustError::Memory`].
    pub fn key_prints(&self, unlocked: &Unlocked) -> Result<Vec<KeyPrint>, TrustError> {
        let Header::Luks2(header) = &self.header else {
            return Ok(vec![print(0, &unlocked.key)?]);
        };
        let digests = header.metadata.digests().iter();
        let mut own =
            digests.filter(|(_, digest)| KeyDigest::of_luks2(digest).is_same(&unlocked.digest));
        let own = own.next().map_or(0, |(id, _)| *id);
        let mut prints = vec![print(own, &unlocked.key)?];
        if let Ok(Some(found)) = self.reencryption()
            && let Some(previous) = found.previous.digest()
            && previous != found.following_digest
        {
            let other = match own == previous {
                true => found.following_digest,
                false => previous,
            };
            let Some(key) = &unlocked.other else {
                let what = "the passphrase opens only one of the two keys of the reencryption";
                return Err(TrustError::NotKept(what));
            };
            prints.push(print(other, key)?);
        }
        Ok(prints)
    }

    /// Writes the pin before a plan that results in `next`, if there is a pin.
    pub(super) fn begin_pin(
        &mut self,
        plan: &WritePlan,
        next: &Header,
        keys: &[KeyPrint],
    ) -> Result<Option<Changing>, TrustError> {
        let Some(checked) = &mut self.pin else {
            return Ok(None);
        };
        let before = material(&self.header);
        let known = |material: &Material| {
            let same = before.contains(material) && !plan.touches(&material.area);
            let part = checked.now().part(PartKind::Material, material.keyslot, "");
            part.filter(|_| same).map(|part| part.hash)
        };
        let next = facts(next, &plan.preview(&*self.storage), known)?;
        checked.begin(next, keys).map(Some)
    }

    /// Writes the pin after that plan.
    pub(super) fn end_pin(&mut self, changing: Option<Changing>) {
        if let (Some(checked), Some(changing)) = (&mut self.pin, changing) {
            checked.end(changing);
        }
    }

    /// Checks that this is a volume key that is pinned, if there is a pin. The key of an unbound
    /// keyslot is not.
    pub(super) fn check_pinned_key(
        &self,
        digest: &KeyDigest,
        key: &VolumeKey,
    ) -> Result<(), TrustError> {
        let Some(checked) = &self.pin else {
            return Ok(());
        };
        let of_volume = match &self.header {
            Header::Luks1(_) => true,
            Header::Luks2(header) => {
                let mut digests = header.metadata.digests().values();
                digests.any(|found| {
                    !found.segments.is_empty() && KeyDigest::of_luks2(found).is_same(digest)
                })
            }
        };
        match of_volume {
            true => checked.check_key(key),
            false => Ok(()),
        }
    }
}

/// The fingerprint of the key that this digest checks.
pub(super) fn print(digest: u32, key: &VolumeKey) -> Result<KeyPrint, TrustError> {
    Ok(KeyPrint::new(digest, fingerprint(key)?))
}
