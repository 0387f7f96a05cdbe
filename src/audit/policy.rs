//! The policy for domains and hosts. The default is strict.

use std::path::{Component, Path};

use serde::Deserialize;

use super::rule::{Place, Rule};

/// What is allowed. The default has no exceptions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// The largest disk in bytes. Default: 16 TiB.
    pub max_size: u64,
    /// The folders in which backing files and external data files may be. Default:
    /// `/var/lib/libvirt`.
    pub trusted_paths: Vec<String>,
    /// Disks that the guest encrypts itself, as `DOMAIN:TARGET`. `*` is any name.
    pub guest_encrypted: Vec<String>,
    /// Disks for which a transport with TLS (or SSH) is enough, as `DOMAIN:TARGET`. `*` is any
    /// name.
    pub transport_is_enough: Vec<String>,
    /// The findings that are accepted.
    pub exceptions: Vec<Exception>,
}

/// A finding that is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub struct Exception {
    /// The id of the rule.
    pub rule: String,
    /// The place: names from the outside in, such as `vm1:vda` or `migration_address`. `*` is any
    /// name. `None` is all places.
    #[serde(rename = "where")]
    pub place: Option<String>,
    /// The reason, which reports repeat.
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
    /// The reason of an exception for a finding.
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

    /// Whether a path is in a trusted folder.
    pub(super) fn trusts(&self, path: &str) -> bool {
        self.trusted_paths
            .iter()
            .any(|folder| lies_in(path, folder))
    }
}

/// Whether a path is in a folder, and has no `..`.
pub(super) fn lies_in(path: &str, folder: &str) -> bool {
    let path = Path::new(path);
    let climbs = path.components().any(|part| part == Component::ParentDir);
    !climbs && path.starts_with(folder)
}

/// Whether each name of a pattern is that of the place, or `*`. Further names of the place are
/// ignored.
fn matches(pattern: &str, names: &str) -> bool {
    let mut names = names.split(':');
    pattern
        .split(':')
        .all(|one| names.next().is_some_and(|name| one == "*" || one == name))
}
