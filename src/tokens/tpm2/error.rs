//! Why a TPM did not unseal or seal a secret.

use std::io;

use super::pcrs::{Bank, Pcrs};
use crate::secret::{LockError, SecretError};

/// Why a TPM did not unseal or seal a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Tpm2Error {
    /// There is no TPM at this place.
    #[error("no TPM at {device}")]
    NoDevice {
        /// The device or socket.
        device: String,
    },
    /// The TPM cannot be opened, or is not one.
    #[error("the TPM at {device} cannot be opened")]
    Open {
        /// The device or socket.
        device: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The exchange of messages with the TPM failed.
    #[error("the TPM at {device} does not answer")]
    Exchange {
        /// The device or socket.
        device: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The program at the other end of the socket belongs to another user.
    #[error("the program at {device} belongs to user {owner}, which could be no TPM")]
    Foreign {
        /// The socket.
        device: String,
        /// The number of the user.
        owner: u32,
    },
    /// A response of the TPM is not in the form of the specification.
    #[error("the TPM sent a malformed response: {0}")]
    Malformed(&'static str),
    /// The response does not prove that it comes from the TPM with which the session began.
    #[error("the response of the TPM has a wrong HMAC: something changed it on its way")]
    Forged,
    /// A member of the token is missing or has a value that it cannot have.
    #[error("the token is not valid: {0}")]
    Token(String),
    /// The token needs something that is not supported.
    #[error("the token is not supported: {0}")]
    Unsupported(&'static str),
    /// The sealed secret is not of this TPM.
    #[error("the secret was sealed by another TPM, or this TPM was cleared since")]
    OtherTpm,
    /// The PCRs have other values than when the secret was sealed.
    #[error("the secret is bound to {pcrs} ({bank}), which have other values now")]
    Pcrs {
        /// The PCRs.
        pcrs: Pcrs,
        /// Their bank.
        bank: Bank,
    },
    /// The policy of the sealed secret is another one than the token states.
    #[error("the policy of the sealed secret is not the one that the token states")]
    Policy,
    /// The secret needs a PIN.
    #[error("the secret of the TPM needs a PIN")]
    NeedsPin,
    /// The new PIN is empty, or is not a line of text.
    #[error("a PIN is a line of text, without a newline at its end")]
    BadPin,
    /// The PIN is wrong. The TPM counts this.
    #[error("wrong PIN")]
    WrongPin,
    /// The TPM refuses to try PINs for a time, after too many wrong ones.
    #[error("the TPM is locked after too many wrong PINs, for as long as it is set to wait")]
    Lockout,
    /// The owner hierarchy of the TPM has a password.
    #[error("the owner hierarchy of the TPM has a password, which is not supported")]
    OwnerPassword,
    /// The key in the TPM under which the secret is sealed has a password.
    #[error(
        "the key in the TPM with which the secret was sealed has a password, which is not supported"
    )]
    KeyPassword,
    /// The TPM has no active PCRs of the bank that a new secret is bound to.
    #[error("the TPM has no {pcrs} in its {bank} bank")]
    NoPcrs {
        /// The PCRs.
        pcrs: Pcrs,
        /// Their bank.
        bank: Bank,
    },
    /// Other programs use all memory of the TPM.
    #[error("the TPM has no memory left: other programs have left objects or sessions in it")]
    NoMemory,
    /// The persistent key that the token names is not in the TPM, or is another one.
    #[error("the TPM has no key {0:#x} as the one with which the secret was sealed")]
    NoKey(u32),
    /// The TPM refused a command.
    #[error("the TPM refused {command} with code {code:#x}")]
    Refused {
        /// The command, as the specification calls it.
        command: &'static str,
        /// The code of the response (TPM 2.0 Library, part 2, section 6.6).
        code: u32,
    },
    /// The secret that the TPM unsealed has no size that is used.
    #[error("the sealed secret has {0} bytes")]
    Size(usize),
    /// The new secret was sealed, but what the TPM unsealed is not the same.
    #[error("the TPM unsealed something else than was sealed")]
    NotVerified,
    /// A computation with a public key of the TPM failed.
    #[error("the TPM has a public key that is not valid")]
    PublicKey,
    /// The interrupt was set.
    #[error("interrupted")]
    Interrupted,
    /// No locked memory or no random bytes.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl Tpm2Error {
    /// Whether the TPM may unseal the secret of another token.
    #[must_use]
    pub fn is_of_the_token(&self) -> bool {
        matches!(
            self,
            Self::Token(_)
                | Self::Unsupported(_)
                | Self::OtherTpm
                | Self::Pcrs { .. }
                | Self::Policy
                | Self::NoPcrs { .. }
                | Self::NoKey(_)
                | Self::KeyPassword
                | Self::Size(_)
        )
    }
}

impl From<LockError> for Tpm2Error {
    fn from(error: LockError) -> Self {
        Self::Secret(error.into())
    }
}
