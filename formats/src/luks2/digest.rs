//! Digests (section 3.4). A digest verifies a key, and says which keyslots hold the key and which
//! segments it opens.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::json::{Object, Value, json};

use super::node::{Node, encode, excerpt, put_hash};
use crate::error::FormatError;
use crate::hash::Hash;

/// The length that LUKS1 and early LUKS2 store for every hash, in bytes.
const SHORT: usize = 20;

/// The digest of a key: PBKDF2 of it. The keyslots of a digest without segments are unbound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// The keyslots that hold this key.
    pub keyslots: Vec<u32>,
    /// The segments that are encrypted with it.
    pub segments: Vec<u32>,
    /// The hash of PBKDF2.
    pub hash: Hash,
    /// The iterations, at least 1.
    pub iterations: u32,
    /// The salt of 32 bytes.
    pub salt: Vec<u8>,
    /// The output: 20 bytes, or the length of the hash.
    pub digest: Vec<u8>,
}

/// A digest that this crate cannot compute. No key is known to be the one of its keyslots.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OtherDigest {
    /// The keyslots that hold this key.
    pub keyslots: Vec<u32>,
    /// The segments that are encrypted with it.
    pub segments: Vec<u32>,
    /// What is not supported or not understood.
    pub why: FormatError,
}

impl Digest {
    /// Reads a digest. The members that every digest has are required.
    pub(super) fn read(node: &Node<'_>) -> Result<Result<Self, OtherDigest>, FormatError> {
        let kind = node.member("type")?;
        let keyslots = node.member("keyslots")?.references()?;
        let segments = node.member("segments")?.references()?;
        if kind.string()? != "pbkdf2" {
            let name = excerpt(kind.string()?);
            let why = kind.unsupported(format!("unknown digest {name}; known is pbkdf2"));
            return Ok(Err(OtherDigest {
                keyslots,
                segments,
                why,
            }));
        }
        Ok(match Self::read_pbkdf2(node) {
            Ok(digest) => Ok(Self {
                keyslots,
                segments,
                ..digest
            }),
            Err(why) => Err(OtherDigest {
                keyslots,
                segments,
                why,
            }),
        })
    }

    /// Everything but the references.
    fn read_pbkdf2(node: &Node<'_>) -> Result<Self, FormatError> {
        let hash = node.member("hash")?.hash()?;
        let digest_node = node.member("digest")?;
        let digest = digest_node.base64()?;
        if digest.len() != SHORT && digest.len() != hash.size() {
            let (found, size) = (digest.len(), hash.size());
            return Err(digest_node.malformed(format!(
                "the digest has {found} bytes instead of {SHORT} or {size}"
            )));
        }
        Ok(Self {
            keyslots: Vec::new(),
            segments: Vec::new(),
            hash,
            iterations: node.member("iterations")?.positive()?,
            salt: node.member("salt")?.salt()?,
            digest,
        })
    }

    /// Overwrites the known members of `object`. The others stay.
    pub(super) fn write(&self, object: &mut Object) {
        object.insert("type", "pbkdf2");
        object.insert("keyslots", references(&self.keyslots));
        object.insert("segments", references(&self.segments));
        put_hash(object, "hash", self.hash);
        object.insert("iterations", self.iterations);
        object.insert("salt", encode(&self.salt));
        object.insert("digest", encode(&self.digest));
    }
}

/// Object numbers as strings, which is how the metadata writes them.
fn references(ids: &[u32]) -> Value {
    json!(ids.iter().map(ToString::to_string).collect::<Vec<String>>())
}
