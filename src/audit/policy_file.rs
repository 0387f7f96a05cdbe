//! The TOML file of a policy.

use serde::Deserialize;

use super::policy::{Exception, Policy};
use super::rules;
use crate::vet::toml_fault;

/// Why a policy cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The text is not TOML, or has unknown members or values.
    #[error("the policy cannot be read: {0}")]
    Text(String),
    /// The policy has an exception from an unknown rule.
    #[error("the policy has an exception from \"{0}\", and there is no such rule")]
    Rule(String),
}

/// The members of the file. A missing one has the default value.
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
    /// Reads a policy from TOML. `docs/audit.md` has an example with every member.
    ///
    /// # Errors
    /// Returns an error if the text is not TOML, or has an unknown member, value or rule.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let file: File =
            toml::from_str(text).map_err(|error| PolicyError::Text(toml_fault(text, &error)))?;
        let unknown = |one: &&Exception| rules().all(|rule| rule.id != one.rule);
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
}
