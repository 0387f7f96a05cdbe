//! What a rotation of passphrases did, or what a check of them found.

use std::fmt;

use luksmith_formats::json::{Value, json};
use uuid::Uuid;

use crate::task::libvirt::rotate::{Finding, Rotated};

/// The line about a volume whose passphrase was replaced.
impl fmt::Display for Rotated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: keyslot {} has the new passphrase; ",
            self.volume, self.keyslot
        )?;
        let removed: Vec<_> = self.removed.iter().map(u32::to_string).collect();
        match removed.len() {
            0 => write!(f, "no keyslot was removed"),
            1 => write!(f, "keyslot {} was removed", removed.join(", ")),
            _ => write!(f, "keyslots {} were removed", removed.join(", ")),
        }
    }
}

/// The document of a rotation: the volumes with their secrets, and an object for each failure.
#[must_use]
pub fn rotated(rotated: &[(Uuid, Rotated)], failed: Vec<Value>) -> Value {
    let rotated = rotated.iter().map(|(secret, volume)| {
        json!({
            "secret": secret.to_string(),
            "image": volume.volume,
            "keyslot": volume.keyslot,
            "removed": volume.removed,
        })
    });
    json!({
        "verdict": null,
        "checked": null,
        "findings": [],
        "rotated": rotated.collect::<Vec<_>>(),
        "failed": failed,
    })
}

/// The document of a check of this many volumes.
#[must_use]
pub fn checked(volumes: usize, findings: &[Finding]) -> Value {
    let verdict = match findings.is_empty() {
        true => "accept",
        false => "findings",
    };
    let findings = findings.iter().map(|finding| {
        json!({
            "id": finding.fault.to_string(),
            "secret": finding.secret.map(|uuid| uuid.to_string()),
            "image": finding.volume,
            "detail": finding.message,
        })
    });
    json!({
        "verdict": verdict,
        "checked": volumes,
        "findings": findings.collect::<Vec<_>>(),
        "rotated": [],
        "failed": [],
    })
}
