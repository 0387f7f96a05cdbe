//! The journal of a rotation: the keyslots and secrets that it uses, and the stage that it has
//! reached. There is one file for each secret that is being rotated.
//!
//! A keyslot is not known by its number: another program may have removed it and put another
//! passphrase into a keyslot of that number. So the journal also has its [`Mark`].

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::error::RotateError;
use super::mark::Mark;
use crate::task::Error;
use crate::task::libvirt::journal::{self, Place};

/// The stage that a rotation has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stage {
    /// Keyslots for the new passphrase are being made. The secret has the old value.
    Adding,
    /// Every volume opens with both passphrases. The secret may have either value.
    Setting,
    /// The secret has the new value. The old keyslots are being removed.
    Removing,
}

/// The content of a journal.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Journal {
    /// The secret.
    pub(super) secret: Uuid,
    /// The secret that keeps the new value while keyslots for it are made, and from then on the old
    /// value.
    pub(super) kept: Uuid,
    pub(super) stage: Stage,
    pub(super) volumes: Vec<Slots>,
    /// Some of the old keyslots do not have the old value, but earlier ones.
    #[serde(default)]
    pub(super) carries: bool,
}

impl Journal {
    /// The journal of a rotation that is about to begin, with no keyslots yet.
    pub(super) fn new<'a>(secret: Uuid, places: impl Iterator<Item = &'a String>) -> Self {
        let empty = |place: &String| Slots {
            place: place.clone(),
            ..Slots::default()
        };
        Self {
            secret,
            kept: Uuid::new_v4(),
            stage: Stage::Adding,
            volumes: places.map(empty).collect(),
            carries: false,
        }
    }
}

/// The keyslots of one volume.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Slots {
    /// The volume.
    pub(super) place: String,
    /// Its LUKS UUID.
    pub(super) uuid: String,
    /// The keyslot for the new passphrase.
    pub(super) new: u32,
    /// The keyslots that are removed when the secret has the new value.
    pub(super) old: Vec<u32>,
    /// What tells these keyslots from others with their numbers. A journal of an earlier version
    /// has none.
    #[serde(default)]
    pub(super) marks: BTreeMap<u32, Mark>,
}

fn name(secret: &Uuid) -> String {
    format!("rotate-{secret}")
}

/// Whether a rotation of this secret was begun and is not complete.
pub(in crate::task::libvirt) fn is_unfinished(directory: &Path, secret: &Uuid) -> bool {
    journal::is_unfinished(directory, &name(secret))
}

/// Locks the journal of a secret.
pub(in crate::task::libvirt) fn take(directory: &Path, secret: &Uuid) -> Result<Place, Error> {
    let place = Place::take(directory, &name(secret))?;
    place.ok_or_else(|| RotateError::Locked.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_of_an_earlier_version_has_no_marks() {
        let text = r#"{"secret": "6c1f3c1e-4c22-4e8c-8a0e-4f7a5d0f9a11",
            "kept": "6c1f3c1e-4c22-4e8c-8a0e-4f7a5d0f9a12", "stage": "removing",
            "volumes": [{"place": "/v", "uuid": "u", "new": 7, "old": [0, 1]}]}"#;
        let read: Journal = serde_json::from_str(text).unwrap();
        let slots = &read.volumes[0];
        assert_eq!((slots.new, &slots.old[..]), (7, &[0, 1][..]));
        assert!(slots.marks.is_empty());
    }
}
