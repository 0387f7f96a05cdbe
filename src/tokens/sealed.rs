//! Tokens of type `systemd-tpm2` as a source of passphrases.

use super::error::TokenError;
use super::token::{Context, Token};
#[cfg(feature = "tpm2")]
use super::tpm2::{self, Tpm2Token};
#[cfg(not(feature = "tpm2"))]
use crate::feature::MissingFeature;
use crate::secret::Passphrase;
#[cfg(feature = "tpm2")]
use crate::secret::Purpose;

/// The member `type`.
pub(super) const TYPE: &str = "systemd-tpm2";

/// What the TPM unseals. The source is asked for a PIN if the token needs one.
#[cfg(feature = "tpm2")]
pub(super) fn passphrase(
    token: &Token<'_>,
    context: &Context<'_>,
) -> Result<Passphrase, TokenError> {
    let token = Tpm2Token::read(token.json)?;
    let pin = match token.needs_pin() {
        false => None,
        true => {
            let label = format!("the TPM of {}", context.label);
            let purpose = Purpose::unlock(&label, context.interrupt).named("PIN");
            Some(context.source.read(purpose.of(context.volume))?)
        }
    };
    let device = &context.options.tpm2_device;
    Ok(tpm2::unseal(
        &token,
        device,
        pin.as_ref(),
        context.interrupt,
    )?)
}

/// This build has no way to a TPM.
#[cfg(not(feature = "tpm2"))]
pub(super) fn passphrase(_: &Token<'_>, _: &Context<'_>) -> Result<Passphrase, TokenError> {
    Err(MissingFeature::new("a token of type systemd-tpm2", "tpm2").into())
}
