//! Which disks got new volumes, or what a check of them found.

use std::fmt;

use luksmith_formats::json::{Value, json};

use crate::task::libvirt::rekey::{Obstacle, Rekeyed};

/// The line about a disk that has a new volume.
impl fmt::Display for Rekeyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} is now {}; {}",
            self.target, self.domain, self.new, self.old
        )?;
        match (self.erased, self.secret_removed) {
            (false, _) => f.write_str(" stays as it was"),
            (true, true) => f.write_str(" is erased, and its secret was removed"),
            (true, false) => f.write_str(" is erased"),
        }
    }
}

/// The document of disks that got new volumes, with an object for each failure.
#[must_use]
pub fn rekeyed(rekeyed: &[Rekeyed], failed: Vec<Value>) -> Value {
    let rekeyed = rekeyed.iter().map(|disk| {
        json!({
            "domain": disk.domain,
            "target": disk.target,
            "live": disk.online,
            "image": disk.new,
            "secret": disk.secret.to_string(),
            "old_image": disk.old,
            "old_secret": disk.old_secret.to_string(),
            "erased": disk.erased,
            "secret_removed": disk.secret_removed,
        })
    });
    json!({
        "verdict": null,
        "checked": null,
        "findings": [],
        "rekeyed": rekeyed.collect::<Vec<_>>(),
        "failed": failed,
    })
}

impl Obstacle {
    /// Its name for programs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.error {
            Some(_) => "refused",
            None => "unfinished",
        }
    }
}

/// The line about a disk that would be refused.
impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            Some(error) => write!(f, "{}: {}", self.unit, error.line()),
            None => write!(
                f,
                "{}: an earlier run was interrupted; another run completes it",
                self.unit
            ),
        }
    }
}

/// The document of a check of this many disks.
#[must_use]
pub fn checked_to_rekey(disks: usize, obstacles: &[Obstacle]) -> Value {
    let verdict = match obstacles.is_empty() {
        true => "accept",
        false => "findings",
    };
    let findings = obstacles.iter().map(|obstacle| {
        json!({
            "id": obstacle.name(),
            "domain": obstacle.unit.domain_name,
            "target": obstacle.unit.target,
            "detail": obstacle.to_string(),
        })
    });
    json!({
        "verdict": verdict,
        "checked": disks,
        "findings": findings.collect::<Vec<_>>(),
        "rekeyed": [],
        "failed": [],
    })
}
