//! What somebody wants of domains and hosts: a TOML file, or the strict default.

use std::path::{Component, Path};

use serde::Deserialize;

use super::rule::{Place, Rule};

/// What is wanted. The default declares no exceptions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// The largest disk in bytes. Default: 16 TiB.
    pub max_size: u64,
    /// Folders in which backing files and external data files may lie. Default: `/var/lib/libvirt`.
    pub trusted_paths: Vec<String>,
    /// Disks that their guest encrypts itself, as `DOMAIN:TARGET`; `*` is any.
    pub guest_encrypted: Vec<String>,
    /// Disks for which a transport with TLS (or SSH) is enough, as `DOMAIN:TARGET`; `*` is any.
    pub transport_is_enough: Vec<String>,
    /// What is known and wanted as it is.
    pub exceptions: Vec<Exception>,
}

/// A finding that is known and wanted as it is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Exception {
    /// The id of the rule.
    pub rule: String,
    /// Where: names from the outside in, such as `vm1:vda` or `migration_address`; `*` is any. All of it, where it is not said.
    #[serde(rename = "where")]
    pub place: Option<String>,
    /// Why; reports repeat it.
    pub because: String,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_size: 16 << 40,
            trusted_paths: vec!["/var/lib/libvirt".to_owned()],
            guest_encrypted: Vec::new(),
            transport_is_enough: Vec::new(),
            exceptions: Vec::new(),
        }
    }
}

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// It is no TOML, or has members or values that there are not.
    #[error("the policy cannot be understood")]
    Text(#[from] toml::de::Error),
    /// An exception from a rule that there is not.
    #[error("the policy makes an exception from {0:?}, and there is no such rule")]
    Rule(String),
}

/// The file as it is written; what is not there is the default.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    max_size: Option<u64>,
    trusted_paths: Option<Vec<String>>,
    #[serde(default)]
    guest_encrypted: Vec<String>,
    #[serde(default)]
    transport_is_enough: Vec<String>,
    #[serde(default)]
    exception: Vec<Exception>,
}

impl Policy {
    /// Reads a policy from TOML; `docs/audit.md` has an example with every member.
    ///
    /// # Errors
    /// [`PolicyError`] for a member, a value or a rule that there is not.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let file: File = toml::from_str(text)?;
        let unknown = |one: &&Exception| super::rules().all(|rule| rule.id != one.rule);
        if let Some(exception) = file.exception.iter().find(unknown) {
            return Err(PolicyError::Rule(exception.rule.clone()));
        }
        let strict = Self::default();
        Ok(Self {
            max_size: file.max_size.unwrap_or(strict.max_size),
            trusted_paths: file.trusted_paths.unwrap_or(strict.trusted_paths),
            guest_encrypted: file.guest_encrypted,
            transport_is_enough: file.transport_is_enough,
            exceptions: file.exception,
        })
    }

    /// Why a finding is excepted.
    pub(super) fn exception(&self, rule: &Rule, place: &Place) -> Option<String> {
        let covers = |one: &&Exception| {
            one.rule == rule.id
                && (one.place.as_ref()).is_none_or(|pattern| matches(pattern, &place.names()))
        };
        let exception = self.exceptions.iter().find(covers)?;
        Some(exception.because.clone())
    }

    pub(super) fn guest_encrypts(&self, place: &Place) -> bool {
        let names = place.names();
        self.guest_encrypted.iter().any(|one| matches(one, &names))
    }

    pub(super) fn transport_suffices(&self, place: &Place) -> bool {
        let names = place.names();
        let mut patterns = self.transport_is_enough.iter();
        patterns.any(|one| matches(one, &names))
    }

    /// Whether a path lies in a trusted folder.
    pub(super) fn trusts(&self, path: &str) -> bool {
        self.trusted_paths
            .iter()
            .any(|folder| lies_in(path, folder))
    }
}

/// Whether a path lies in a folder, without leaving it again.
pub(super) fn lies_in(path: &str, folder: &str) -> bool {
    let path = Path::new(path);
    let climbs = path.components().any(|part| part == Component::ParentDir);
    !climbs && path.starts_with(folder)
}

/// Whether each name of a pattern is that of the place, or `*`; what the place has beyond it does not matter.
fn matches(pattern: &str, names: &str) -> bool {
    let mut names = names.split(':');
    pattern
        .split(':')
        .all(|one| names.next().is_some_and(|name| one == "*" || one == name))
}
