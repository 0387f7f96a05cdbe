//! The tokens of a LUKS2 header with which this library opens keyslots: each says where the
//! passphrase of its keyslots is.
//!
//! Reference: LUKS2 On-Disk Format 1.1, section 3.5. A header is written by strangers: a token can
//! name a server, a key of this user, or a chip of this machine. So this module never looks for
//! tokens. Its caller names one token or one type, and with it permits the use of what such tokens
//! name. What reaches other machines needs a permission of its own in [`TokenOptions`].
//!
//! A further type is a variant of [`TokenType`] with a file of its own, which parses the JSON of
//! the token strictly, and a variant of [`TokenError`].

#[cfg(feature = "tang")]
pub mod clevis;
mod error;
mod keyring;
mod kind;
mod malformed;
pub mod recovery;
mod sealed;
mod token;
#[cfg(feature = "tpm2")]
pub mod tpm2;

pub use error::TokenError;
pub use keyring::keyring_token;
pub use kind::TokenType;
pub use malformed::MalformedToken;
pub use token::{Context, Token, TokenOptions};
