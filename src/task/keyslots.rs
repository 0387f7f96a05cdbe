//! What has to be certain before a keyslot is removed.

use std::fmt::Display;

use super::Error;
use crate::container::{Container, KeyslotError, KeyslotMark, Unlocked};

/// Why a caller has to agree to the removal of a keyslot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// It is the last one that opens the volume.
    Last,
    /// Nothing proves that another one can be opened.
    Unproven,
}

impl Obstacle {
    /// What it means for a keyslot of a volume.
    #[must_use]
    pub fn of(self, slot: u32, volume: impl Display) -> String {
        match self {
            Self::Last => format!(
                "keyslot {slot} is the last one that opens {volume}: without it the data is lost, \
                 unless there is a header backup or the volume key"
            ),
            Self::Unproven => {
                format!("no passphrase has shown that {volume} opens without keyslot {slot}")
            }
        }
    }
}

/// The mark of a keyslot that is to be removed, and why the caller has to agree, if it has to.
/// `proof` is what a passphrase has opened.
///
/// # Errors
/// [`KeyslotError::NotInUse`], and a failed read.
pub fn to_remove(
    container: &Container,
    slot: u32,
    proof: Option<&Unlocked>,
) -> Result<(KeyslotMark, Option<Obstacle>), Error> {
    let mark = container.keyslot_mark(slot)?;
    let mark = mark.ok_or(KeyslotError::NotInUse(slot))?;
    let bound = container.keyslots();
    let mut bound = bound.iter().filter(|keyslot| keyslot.bound);
    let is_bound = bound.clone().any(|keyslot| keyslot.slot == slot);
    let is_last = is_bound && bound.all(|keyslot| keyslot.slot == slot);
    if is_last {
        return Ok((mark, Some(Obstacle::Last)));
    }
    // The keyslot that was opened may have been removed since.
    let other = proof.filter(|proof| proof.is_volume_key());
    let other = other.and_then(|proof| Some((proof.slot()?, proof.mark()?)));
    let proven = match other {
        Some((other, opened)) if other != slot => {
            container.keyslot_mark(other)?.as_ref() == Some(opened)
        }
        _ => false,
    };
    Ok((mark, (!proven).then_some(Obstacle::Unproven)))
}
