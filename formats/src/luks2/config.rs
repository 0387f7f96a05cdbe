//! The config object (section 3.6): sizes, flags and mandatory requirements.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use super::node::Node;
use super::{ALIGNMENT, MAX_KEYSLOTS_SIZE};
use crate::error::FormatError;

/// The config object.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The size of the JSON area in bytes.
    pub json_size: u64,
    /// The size of the keyslots area in bytes.
    pub keyslots_size: u64,
    /// The flags, which are hints. An unknown flag is not an error.
    pub flags: Vec<String>,
    /// The features that a writer has to understand (`requirements.mandatory`).
    pub requirements: Vec<String>,
}

/// The mandatory requirements by kind. With an unknown requirement, a volume can be shown and a
/// passphrase tested, but every write is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Requirements {
    /// A reencryption of any kind is in progress.
    pub reencrypt: bool,
    /// An offline reencryption by the old `cryptsetup-reencrypt` is in progress.
    pub offline_reencrypt: bool,
    /// An online reencryption is in progress, with this version of its metadata. Version 1 has no
    /// digest that protects it (CVE-2021-4122).
    pub online_reencrypt: Option<u32>,
    /// Integrity tags are stored in the sectors of the device.
    pub inline_hw_tags: bool,
    /// A self-encrypting drive does the encryption.
    pub opal: bool,
    /// The unknown requirements.
    pub unknown: Vec<String>,
}

impl Config {
    pub(super) fn read(node: &Node<'_>, hdr_size: u64) -> Result<Self, FormatError> {
        let json_size = node.member("json_size")?;
        let expected = hdr_size.saturating_sub(ALIGNMENT);
        if json_size.u64()? != expected {
            let found = json_size.u64()?;
            return Err(
                json_size.malformed(format!("is {found}; the header's size makes it {expected}"))
            );
        }
        let keyslots_size = node.member("keyslots_size")?;
        let size = keyslots_size.u64()?;
        if !size.is_multiple_of(ALIGNMENT) || size > MAX_KEYSLOTS_SIZE {
            let cause =
                format!("{size} is not a multiple of {ALIGNMENT} up to {MAX_KEYSLOTS_SIZE}");
            return Err(keyslots_size.malformed(cause));
        }
        Ok(Self {
            json_size: expected,
            keyslots_size: size,
            flags: optional_strings(node, "flags")?,
            requirements: match node.optional("requirements")? {
                Some(requirements) => optional_strings(&requirements, "mandatory")?,
                None => Vec::new(),
            },
        })
    }

    /// The range of the keyslots area in bytes. It follows the two copies of the header.
    pub fn keyslots_area(&self) -> Range<u64> {
        let start = self.json_size.saturating_add(ALIGNMENT).saturating_mul(2);
        start..start.saturating_add(self.keyslots_size)
    }

    /// The mandatory requirements by kind.
    pub fn requirements(&self) -> Requirements {
        let mut sorted = Requirements::default();
        for name in &self.requirements {
            match name.as_str() {
                "offline-reencrypt" => sorted.offline_reencrypt = true,
                "online-reencrypt" => sorted.online_reencrypt = Some(1),
                "online-reencrypt-v2" => sorted.online_reencrypt = Some(2),
                "online-reencrypt-v3" => sorted.online_reencrypt = Some(3),
                "inline-hw-tags" => sorted.inline_hw_tags = true,
                "opal" | "opal-v2" => sorted.opal = true,
                _ => sorted.unknown.push(name.clone()),
            }
        }
        sorted.reencrypt = sorted.offline_reencrypt || sorted.online_reencrypt.is_some();
        sorted
    }
}

impl Requirements {
    /// Whether this version of luksmith may write the header.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn optional_strings(node: &Node<'_>, key: &str) -> Result<Vec<String>, FormatError> {
    match node.optional(key)? {
        Some(list) => list.strings(),
        None => Ok(Vec::new()),
    }
}
