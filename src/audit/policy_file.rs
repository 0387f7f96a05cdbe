//! The TOML file that a policy is written in.

use serde::Deserialize;

use super::policy::{Exception, Policy};
use super::rules;

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
