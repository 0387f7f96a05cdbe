//! A token of a header, and what the caller permits and gives to use it.

use std::time::Duration;

use luksmith_formats::json::Value;

use super::malformed::MalformedToken;
#[cfg(feature = "tpm2")]
use super::tpm2::Device;
use crate::Interrupt;
use crate::secret::{Purpose, SecretSource, VolumeName};

/// A token of a header, which a stranger may have written.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Token<'a> {
    /// Its number.
    pub id: u32,
    /// All of its JSON, with the members `type` and `keyslots`.
    pub json: &'a Value,
}

impl<'a> Token<'a> {
    /// The token with this number and JSON.
    #[must_use]
    pub fn new(id: u32, json: &'a Value) -> Self {
        Self { id, json }
    }

    /// The text of a member.
    pub(super) fn text(&self, member: &'static str) -> Result<&'a str, MalformedToken> {
        let value = self.json.get(member).and_then(Value::as_str);
        value.ok_or(MalformedToken::new(member, "is no text"))
    }
}

/// What the caller permits tokens to use. The default permits nothing outside of this machine.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TokenOptions {
    /// The TPM that tokens of type `systemd-tpm2` use.
    #[cfg(feature = "tpm2")]
    pub(super) tpm2_device: Device,
    /// The URLs of the Tang servers that may be asked: none by default. A header that names another
    /// one causes no request.
    pub tang_urls: Vec<String>,
    /// How long a server may take: 10 s by default.
    pub timeout: Duration,
}

impl Default for TokenOptions {
    fn default() -> Self {
        Self {
            #[cfg(feature = "tpm2")]
            tpm2_device: Device::default(),
            tang_urls: Vec::new(),
            timeout: Duration::from_secs(10),
        }
    }
}

#[cfg(feature = "tpm2")]
impl TokenOptions {
    setters! {
        /// The TPM that tokens of type `systemd-tpm2` use. The default is `/dev/tpmrm0`.
        tpm2_device: Device,
    }
}

/// What opening with a token needs besides the token.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Context<'a> {
    /// The source of what a person has: a recovery key, a PIN. It is read only if the token needs
    /// that.
    pub source: &'a dyn SecretSource,
    /// What the token opens, in words for the person who is asked.
    pub label: &'a str,
    /// The volume that the token opens.
    pub volume: VolumeName<'a>,
    /// What tokens may use.
    pub options: &'a TokenOptions,
    /// Stops a wait.
    pub interrupt: &'a Interrupt,
}

impl<'a> Context<'a> {
    /// With these parts.
    #[must_use]
    pub fn new(
        source: &'a dyn SecretSource,
        label: &'a str,
        volume: VolumeName<'a>,
        options: &'a TokenOptions,
        interrupt: &'a Interrupt,
    ) -> Self {
        Self {
            source,
            label,
            volume,
            options,
            interrupt,
        }
    }

    /// The purpose of reading [`source`](Self::source).
    pub(super) fn purpose(&self) -> Purpose<'a> {
        Purpose::unlock(self.label, self.interrupt).of(self.volume)
    }
}
