//! Finds what is wrong with secrets and volumes, without changing anything.

use std::fmt;

use uuid::Uuid;

use super::journal;
use super::rotation::Rotation;
use super::volume::Volume;
use crate::container::Which;
use crate::libvirt::LibvirtError;
use crate::secret::Passphrase;
use crate::task::libvirt::identity::Identity;
use crate::task::libvirt::inventory;
use crate::task::{Error, Kind, Watch, Work, Working};

/// A fault of a secret or a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What is wrong.
    pub fault: Fault,
    /// The secret.
    pub secret: Option<Uuid>,
    /// The volume.
    pub volume: Option<String>,
    /// A sentence that says what is wrong.
    pub message: String,
}

/// What can be wrong with a secret or a volume. Its `Display` is a name for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The XML of a domain or a volume could not be read.
    Unread,
    /// The secret has no value.
    NoValue,
    /// The secret opens several volumes.
    Shared,
    /// Several secrets open the volume with the same passphrase.
    SamePassphrase,
    /// A rotation of the secret was interrupted.
    Unfinished,
    /// No secret opens the volume.
    NoSecret,
    /// Whether the secret opens the volume could not be tested.
    Untested,
    /// The secret does not open the volume.
    WrongValue,
    /// The volume is missing or is not a LUKS volume.
    NoVolume,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unread => "unread",
            Self::NoValue => "no-value",
            Self::Shared => "shared",
            Self::SamePassphrase => "same-passphrase",
            Self::Unfinished => "unfinished",
            Self::NoSecret => "no-secret",
            Self::Untested => "untested",
            Self::WrongValue => "wrong-value",
            Self::NoVolume => "no-volume",
        })
    }
}

impl Rotation<'_> {
    /// Looks for faults of the selected volumes and their secrets, without changing anything. If
    /// everything is selected, secrets that belong to no volume are checked too.
    ///
    /// # Errors
    /// Failures of libvirt, and an interrupt. A volume that cannot be opened is a finding.
    pub fn check(&self, watch: &dyn Watch) -> Result<Vec<Finding>, Error> {
        let mut findings = Vec::new();
        for (what, error) in &self.inventory.unread {
            findings.push(Finding {
                fault: Fault::Unread,
                secret: None,
                volume: None,
                message: format!("{what} is not understood: {error}"),
            });
        }
        let mut secrets = self.secrets();
        if self.chosen.len() == self.inventory.volumes.len() {
            secrets.extend(self.inventory.secrets.iter().map(|known| known.uuid));
        }
        for secret in secrets {
            self.check_secret(secret, &mut findings)?;
        }
        let total = u64::try_from(self.chosen.len()).ok();
        let working = Working::begin(watch, Work::Check, total);
        for volume in self.chosen() {
            watch.check()?;
            self.check_volume(watch, volume, &mut findings)?;
            working.advance(1);
        }
        working.finish();
        Ok(findings)
    }

    fn check_secret(&self, secret: Uuid, findings: &mut Vec<Finding>) -> Result<(), Error> {
        let known = self.inventory.secrets.iter();
        let known = known.into_iter().find(|known| known.uuid == secret);
        let usage = known.and_then(|known| known.usage.as_ref());
        let named = usage.map_or_else(
            || format!("secret {secret}"),
            |usage| format!("secret {secret} ({usage})"),
        );
        let mut find = |fault, volume, message| {
            findings.push(Finding {
                fault,
                secret: Some(secret),
                volume,
                message,
            });
        };
        let found = self.connection.secret(&secret);
        match found.and_then(|secret| secret.value()) {
            Ok(_) | Err(LibvirtError::Private(_)) => {}
            Err(LibvirtError::NoValue(_)) => {
                find(Fault::NoValue, None, format!("{named} has no value"));
            }
            Err(LibvirtError::NoSecret(_)) => {
                find(
                    Fault::NoValue,
                    None,
                    format!("{named} was removed meanwhile"),
                );
            }
            Err(error) => return Err(error.into()),
        }
        if let Some(path) = self.inventory.missing(&secret) {
            let place = path.display().to_string();
            let message = format!("{named} is for {place}, and nothing is there");
            find(Fault::NoVolume, Some(place), message);
        }
        let opened = self.inventory.opened_by(&secret);
        if opened.len() > 1 {
            let places = opened
                .iter()
                .map(|(_, volume)| volume.place.as_str())
                .collect::<Vec<_>>()
                .join(", ");
            find(
                Fault::Shared,
                None,
                format!("{named} opens several volumes: {places}"),
            );
        }
        if journal::is_unfinished(&self.options.journals, &secret) {
            find(
                Fault::Unfinished,
                None,
                format!("a rotation of {named} was interrupted; another run completes it"),
            );
        }
        Ok(())
    }

    fn check_volume(
        &self,
        watch: &dyn Watch,
        (identity, known): (&Identity, &inventory::Volume),
        findings: &mut Vec<Finding>,
    ) -> Result<(), Error> {
        let place = known.place.as_str();
        self.check_passphrases(known, findings)?;
        let mut find = |fault, secret, message| {
            findings.push(Finding {
                fault,
                secret,
                volume: Some(place.to_owned()),
                message,
            });
        };
        if known.secrets.is_empty() {
            let names = known
                .named
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", ");
            let which = if names.is_empty() {
                "none is named".to_owned()
            } else {
                format!("{names} does not exist")
            };
            let message = format!("{place} has no secret: {which}");
            find(Fault::NoSecret, None, message);
            return Ok(());
        }
        for secret in &known.secrets {
            let untested = |why: &str| format!("{place} was not tried: {why}");
            let found = self.connection.secret(secret);
            let value = match found.and_then(|secret| secret.value()) {
                Ok(value) => value,
                Err(LibvirtError::Private(_)) => {
                    let message = untested(&format!("secret {secret} is private"));
                    find(Fault::Untested, Some(*secret), message);
                    continue;
                }
                // The secret has a finding of its own.
                Err(LibvirtError::NoValue(_) | LibvirtError::NoSecret(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            let volume = (identity, known);
            let volume = match Volume::new(self.connection, volume, secret, &self.options) {
                Ok(volume) => volume,
                Err(error) => {
                    find(Fault::Untested, Some(*secret), untested(&error.line()));
                    continue;
                }
            };
            let (fault, message) = match volume.opens(watch, &value, Which::Any) {
                Ok(Some(_)) => continue,
                Ok(None) => {
                    let message = format!("secret {secret} does not open {place}");
                    (Fault::WrongValue, message)
                }
                Err(error) if error.kind() == Kind::Interrupted => return Err(error),
                Err(error) if error.kind().is_of_storage() => (Fault::NoVolume, error.line()),
                Err(error) => (Fault::Untested, untested(&error.line())),
            };
            find(fault, Some(*secret), message);
        }
        Ok(())
    }
    /// Looks for secrets for the same volume with the same value. Rotating one of them would leave
    /// the other one with a value that opens nothing.
    fn check_passphrases(
        &self,
        known: &inventory::Volume,
        findings: &mut Vec<Finding>,
    ) -> Result<(), Error> {
        let mut values: Vec<(&Uuid, Passphrase)> = Vec::new();
        for secret in known.secrets.iter().chain(&known.also) {
            let found = self.connection.secret(secret);
            let value = match found.and_then(|secret| secret.value()) {
                Ok(value) => value,
                Err(
                    LibvirtError::Private(_) | LibvirtError::NoValue(_) | LibvirtError::NoSecret(_),
                ) => continue,
                Err(error) => return Err(error.into()),
            };
            let same = values.iter().find(|(_, other)| other.ct_eq(&value));
            if let Some((first, _)) = same {
                let message = format!(
                    "the secrets {first} and {secret} open {} with the same passphrase: neither \
                     can be rotated",
                    known.place
                );
                findings.push(Finding {
                    fault: Fault::SamePassphrase,
                    secret: Some(*secret),
                    volume: Some(known.place.clone()),
                    message,
                });
            }
            values.push((secret, value));
        }
        Ok(())
    }
}
