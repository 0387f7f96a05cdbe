//! Tokens of type `systemd-recovery`: the passphrase is a recovery key, which a person keeps.
//!
//! Reference: systemd's `src/shared/recovery-key.c`. A recovery key has 256 random bits: 64 letters
//! of the modhex alphabet, in groups of 8 with dashes between them. The dashes are a part of the
//! passphrase.

use luksmith_formats::hash::Hash;
use luksmith_formats::json::{Value, json};

use super::error::TokenError;
use super::token::Context;
use crate::kdf::calibrate::Cost;
use crate::secret::{self, LockedBytes, Passphrase, SecretError};

/// The member `type`.
pub(super) const TYPE: &str = "systemd-recovery";

/// The letter of each value of four bits.
const LETTERS: &[u8; 16] = b"cbdefghijklnrtuv";

/// The random bytes of a key.
const BYTES: usize = 32;
/// The letters in each group.
const GROUP: usize = 8;
/// The letters of a key.
const PLAIN: usize = BYTES * 2;
/// The length of a key with its dashes.
const LEN: usize = PLAIN + PLAIN / GROUP - 1;

/// The cost of a keyslot for a recovery key, as systemd-cryptenroll has it. The key is as random as
/// a volume key, so a slow derivation would add nothing.
pub const COST: Cost = Cost::Pbkdf2 {
    hash: Hash::Sha512,
    iterations: 1000,
};

/// A token for a recovery key. Its list of keyslots is empty.
#[must_use]
pub fn token() -> Value {
    json!({"type": TYPE, "keyslots": []})
}

/// Generates a recovery key.
///
/// # Errors
/// [`SecretError::Lock`] or [`SecretError::Random`].
pub fn generate() -> Result<Passphrase, SecretError> {
    let mut bits = LockedBytes::new(BYTES)?;
    secret::random(&mut bits)?;
    let nibbles = bits.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    grouped(nibbles)
}

/// The key that a person gives, with or without dashes, in letters of either case.
pub(super) fn passphrase(context: &Context<'_>) -> Result<Passphrase, TokenError> {
    let given = context
        .source
        .read(context.purpose().named("recovery key"))?;
    normalized(given.as_bytes())
}

/// The passphrase that this text means.
fn normalized(text: &[u8]) -> Result<Passphrase, TokenError> {
    let text = text.trim_ascii();
    let is_dash = |(index, byte): (usize, &u8)| (index % (GROUP + 1) == GROUP) == (*byte == b'-');
    let has_form = match text.len() {
        PLAIN => true,
        LEN => text.iter().enumerate().all(is_dash),
        _ => false,
    };
    if !has_form {
        return Err(TokenError::NotRecoveryKey);
    }
    let letters = || text.iter().filter(|byte| **byte != b'-');
    let value = |letter: &u8| {
        let letter = letter.to_ascii_lowercase();
        LETTERS.iter().position(|known| *known == letter)
    };
    if letters().count() != PLAIN || letters().any(|letter| value(letter).is_none()) {
        return Err(TokenError::NotRecoveryKey);
    }
    let nibbles = letters().filter_map(value);
    Ok(grouped(
        nibbles.filter_map(|value| u8::try_from(value).ok()),
    )?)
}

/// The letters of these values of four bits, in groups.
fn grouped(nibbles: impl Iterator<Item = u8>) -> Result<Passphrase, SecretError> {
    let mut text = LockedBytes::new(LEN)?;
    let places = text.iter_mut().enumerate();
    let (dashes, letters): (Vec<_>, Vec<_>) =
        places.partition(|(index, _)| index % (GROUP + 1) == GROUP);
    for (_, dash) in dashes {
        *dash = b'-';
    }
    for ((_, place), nibble) in letters.into_iter().zip(nibbles) {
        *place = LETTERS[usize::from(nibble & 15)];
    }
    Ok(Passphrase::from_locked(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_eight_groups_of_eight_letters_and_is_never_the_same() {
        let (a, b) = (generate().unwrap(), generate().unwrap());
        assert!(!a.ct_eq(&b));
        let text = std::str::from_utf8(a.as_bytes()).unwrap();
        let groups: Vec<_> = text.split('-').collect();
        assert_eq!(groups.len(), 8);
        for group in groups {
            assert_eq!(group.len(), 8);
            assert!(group.bytes().all(|letter| LETTERS.contains(&letter)));
        }
    }

    #[test]
    fn a_key_is_recognised_with_and_without_dashes_in_either_case() {
        let key = generate().unwrap();
        let text = std::str::from_utf8(key.as_bytes()).unwrap().to_owned();
        let plain = text.replace('-', "");
        for form in [
            text.clone(),
            text.to_uppercase(),
            plain.clone(),
            plain.to_uppercase(),
            format!("{text}\n"),
        ] {
            assert!(normalized(form.as_bytes()).unwrap().ct_eq(&key), "{form}");
        }
        let moved = format!("-{}", text.replacen('-', "", 1));
        let cut = text.get(1..).unwrap().to_owned();
        for wrong in [
            String::new(),
            "-".repeat(LEN),
            "-".repeat(PLAIN),
            plain.replace(char::is_alphabetic, "a"),
            text.replace('-', "c"),
            moved,
            cut,
            format!("{text}c"),
            "\u{fffd}".repeat(32),
        ] {
            let refused = normalized(wrong.as_bytes());
            assert!(
                matches!(refused, Err(TokenError::NotRecoveryKey)),
                "{wrong}"
            );
        }
    }
}
