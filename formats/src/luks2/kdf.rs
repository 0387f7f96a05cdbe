//! The KDF of a keyslot (section 3.2.2 of the specification).
//!
//! Members that the type does not have are ignored: when a change of the passphrase changed the
//! type, old versions of cryptsetup left those of the old type in place.
//!
//! Costs of any size are accepted here. [`Limits::check_kdf`](crate::Limits::check_kdf) checks them
//! immediately before a derivation.

use alloc::format;
use alloc::vec::Vec;
use core::fmt;

use crate::json::{Object, Value, json};

use super::node::{Node, encode};
use crate::error::FormatError;
use crate::hash::Hash;

/// The function that derives the key of a keyslot area from a passphrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kdf {
    /// PBKDF2 with HMAC.
    Pbkdf2 {
        /// The hash of the HMAC.
        hash: Hash,
        /// The iterations, at least 1.
        iterations: u32,
        /// The salt of 32 bytes.
        salt: Vec<u8>,
    },
    /// Argon2.
    Argon2 {
        /// argon2i or argon2id.
        variant: Argon2Variant,
        /// Passes over the memory (`time`), at least 1.
        passes: u32,
        /// Memory in KiB, at least 8 KiB for each lane.
        memory_kib: u32,
        /// Lanes (`cpus`), at least 1.
        lanes: u32,
        /// The salt of 32 bytes.
        salt: Vec<u8>,
    },
}

/// The function and its cost, without the salt.
impl fmt::Display for Kdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pbkdf2 {
                hash, iterations, ..
            } => write!(f, "pbkdf2-{hash} with {iterations} iterations"),
            Self::Argon2 {
                variant,
                passes,
                memory_kib,
                lanes,
                ..
            } => write!(
                f,
                "{} with {memory_kib} KiB, {passes} passes, {lanes} threads",
                variant.name()
            ),
        }
    }
}

/// The two variants of argon2 that LUKS2 has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argon2Variant {
    /// argon2i
    I,
    /// argon2id
    Id,
}

impl Argon2Variant {
    /// The name as it is written in headers.
    pub fn name(self) -> &'static str {
        match self {
            Self::I => "argon2i",
            Self::Id => "argon2id",
        }
    }
}

impl Kdf {
    pub(super) fn read(node: &Node<'_>) -> Result<Self, FormatError> {
        let kind = node.member("type")?;
        match kind.string()? {
            "pbkdf2" => Ok(Self::Pbkdf2 {
                hash: node.member("hash")?.hash()?,
                iterations: node.member("iterations")?.positive()?,
                salt: node.member("salt")?.salt()?,
            }),
            "argon2i" => Self::read_argon2(node, Argon2Variant::I),
            "argon2id" => Self::read_argon2(node, Argon2Variant::Id),
            other => Err(kind.unsupported(format!(
                "unknown KDF {}; known are pbkdf2, argon2i and argon2id",
                super::node::excerpt(other)
            ))),
        }
    }

    fn read_argon2(node: &Node<'_>, variant: Argon2Variant) -> Result<Self, FormatError> {
        let memory = node.member("memory")?;
        let memory_kib = memory.positive()?;
        let lanes = node.member("cpus")?.positive()?;
        if u64::from(memory_kib) < u64::from(lanes).saturating_mul(8) {
            return Err(memory.malformed(format!(
                "{memory_kib} KiB are less than 8 for each of {lanes} lanes"
            )));
        }
        Ok(Self::Argon2 {
            variant,
            passes: node.member("time")?.positive()?,
            memory_kib,
            lanes,
            salt: node.member("salt")?.salt()?,
        })
    }

    /// Sets the KDF of a keyslot. If the present object means the same, it is kept.
    pub(super) fn write(&self, keyslot: &mut Object) {
        let present = keyslot.get("kdf").map(|kdf| Self::read(&Node::root(kdf)));
        if present.as_ref() != Some(&Ok(self.clone())) {
            keyslot.insert("kdf", self.to_value());
        }
    }

    /// The object with exactly the members that cryptsetup writes.
    fn to_value(&self) -> Value {
        match self {
            Self::Pbkdf2 {
                hash,
                iterations,
                salt,
            } => json!({
                "type": "pbkdf2",
                "hash": hash.name(),
                "iterations": iterations,
                "salt": encode(salt),
            }),
            Self::Argon2 {
                variant,
                passes,
                memory_kib,
                lanes,
                salt,
            } => json!({
                "type": variant.name(),
                "time": passes,
                "memory": memory_kib,
                "cpus": lanes,
                "salt": encode(salt),
            }),
        }
    }
}
