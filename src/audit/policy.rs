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
#[non_exhaustive]
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

impl Policy {
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
