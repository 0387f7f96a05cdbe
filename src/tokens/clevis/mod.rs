//! Tokens of type `clevis`: the passphrase is encrypted, and a Tang server helps to decrypt it.
//!
//! References: RFC 7515 to 7518 (JWS, JWE, JWK, JWA), RFC 7638 (thumbprints), and the protocol of
//! Tang (McCallum-Relyea). The token has a JWE. Its header names a pin: `tang`, a server, or `sss`,
//! of which some of several further JWEs are enough.
//!
//! The header of a volume is written by strangers, and so is the URL in it. A request is sent only
//! to a URL that the caller has permitted, and only when all of the token was parsed. A server gets
//! a point that is random to it, so plain HTTP shows nothing of the passphrase, and a false server
//! gives a key that does not decrypt.

mod advertisement;
mod error;
mod jwe;
mod open;
mod point;
mod server;
mod shares;

pub use advertisement::Advertisement;
pub use error::ClevisError;
pub(super) use open::passphrase;
