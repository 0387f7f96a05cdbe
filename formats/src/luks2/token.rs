//! Tokens (section 3.5): notes on how the passphrase of a keyslot is come by. What a token holds is its own
//! matter, and stays in the JSON untouched.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::node::Node;
use crate::error::FormatError;

/// What every token has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Token {
    /// Its type, such as `systemd-tpm2`.
    pub kind: String,
    /// The keyslots that it unlocks; may be none.
    pub keyslots: Vec<u32>,
}

impl Token {
    pub(super) fn read(node: &Node<'_>) -> Result<Self, FormatError> {
        Ok(Self {
            kind: node.member("type")?.string()?.to_string(),
            keyslots: node.member("keyslots")?.references()?,
        })
    }
}
