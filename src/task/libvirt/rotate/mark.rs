//! What a journal records of a keyslot besides its number.

use serde::{Deserialize, Serialize};

use crate::container::KeyslotMark;

/// The salt of a keyslot and the SHA-256 of its key material, in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    salt: String,
    /// `None` until the keyslot is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    material: Option<String>,
}

impl Mark {
    /// The mark of a keyslot that will have this salt.
    pub(super) fn of_salt(salt: &[u8]) -> Self {
        Self {
            salt: hex(salt),
            material: None,
        }
    }

    /// Whether this is the keyslot.
    pub(super) fn is(&self, found: &KeyslotMark) -> bool {
        let material = self.material.as_ref();
        self.salt == hex(&found.salt) && material.is_none_or(|it| *it == hex(&found.material))
    }
}

impl From<&KeyslotMark> for Mark {
    fn from(found: &KeyslotMark) -> Self {
        Self {
            salt: hex(&found.salt),
            material: Some(hex(&found.material)),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_that_of_one_keyslot() {
        let found = KeyslotMark {
            salt: vec![0, 255],
            material: [7; 32],
        };
        let mark = Mark::from(&found);
        let again: Mark = serde_json::from_str(&serde_json::to_string(&mark).unwrap()).unwrap();
        assert!(again.is(&found) && Mark::of_salt(&[0, 255]).is(&found));
        let mut other = found.clone();
        other.material[31] = 8;
        assert!(!mark.is(&other) && Mark::of_salt(&[0, 255]).is(&other));
        other.salt = vec![0, 254];
        assert!(!Mark::of_salt(&[0, 255]).is(&other));
    }
}
