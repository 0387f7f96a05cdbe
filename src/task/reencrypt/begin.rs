//! Prepares the first commit of a reencryption: keyslots of the new key for the passphrases.

use luksmith_formats::hash::Hash;

use super::options::Options;
use super::target::{Target, Zones};
use crate::container::{
    BeginReencryption, Container, MatchedKeyslots, PreparedReencryption, ReencryptionError, Version,
};
use crate::reencrypt;
use crate::secret::Passphrase;
use crate::task::{Advice, Error, Watch};

/// Finds the keyslots that the passphrases open.
///
/// # Errors
/// [`Kind::WrongPassphrase`](crate::task::Kind::WrongPassphrase) if they open none; a keyslot that
/// none of them opens, unless such keyslots may be dropped; a cipher that does not work.
pub(super) fn matched(
    container: &Container,
    target: &Target,
    options: &Options,
    passphrases: &[Passphrase],
    watch: &dyn Watch,
) -> Result<MatchedKeyslots, Error> {
    let matched = container.match_keyslots(passphrases, watch.interrupt())?;
    if !matched.others.is_empty() && !options.drop_others {
        let slots: Vec<_> = matched.others.iter().map(u32::to_string).collect();
        let slots = slots.join(", ");
        let message = format!(
            "none of the passphrases opens these keyslots, which would open nothing after the \
             reencryption: {slots}"
        );
        return Err(Error::parameters(message).advise(Advice::DropKeyslots));
    }
    reencrypt::check_cipher(target.cipher, target.sector_size, target.key_size)?;
    Ok(matched)
}

/// Makes the new volume key, and seals it with the passphrases. Nothing is written.
///
/// # Errors
/// A header without room for that, and failed key derivations.
pub(super) fn prepare(
    container: &Container,
    (target, zones): (&Target, &Zones),
    options: &Options,
    (matched, passphrases): (&MatchedKeyslots, &[Passphrase]),
    online: bool,
    watch: &dyn Watch,
) -> Result<PreparedReencryption, Error> {
    let hash = options.hash.unwrap_or(Hash::Sha256);
    let area = |zone: u64| reencrypt::area_size(&zones.resilience, zone.min(target.size));
    let cost = &options.cost;
    let begin = BeginReencryption {
        cipher: target.cipher,
        key_size: target.key_size,
        sector_size: target.sector_size,
        hash,
        kdf: cost.of_keyslot(hash, Version::Luks2, target.key_size, watch)?,
        digest_iterations: cost.of_digest(hash, watch)?,
        keep_key: false,
        area_size: area(zones.size),
        least_area: area(zones.unit),
        resilience: zones.resilience.clone(),
        keyslots: matched
            .opened
            .iter()
            .filter_map(|(slot, index)| Some((*slot, passphrases.get(*index)?)))
            .collect(),
        online,
    };
    let prepared = container.prepare_reencryption(&matched.unlocked, &begin, watch.interrupt());
    prepared.map_err(|error| {
        let full = matches!(
            error,
            ReencryptionError::NoRoom { .. }
                | ReencryptionError::NoNumber { .. }
                | ReencryptionError::NoSpaceInHeader(_)
        );
        Error::from(error).advise_if(full, Advice::FewerKeyslots)
    })
}
