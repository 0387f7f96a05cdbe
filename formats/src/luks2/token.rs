//! Tokens (section 3.5), which describe how to get the passphrase of a keyslot. Their other members
//! stay in the JSON unchanged.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::node::Node;
use crate::error::FormatError;

/// The members that every token has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Token {
    /// The type, such as `systemd-tpm2`.
    pub kind: String,
    /// The keyslots that it unlocks, which may be none.
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
