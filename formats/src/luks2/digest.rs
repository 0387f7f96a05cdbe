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

impl Digest {
    pub(super) fn read(node: &Node<'_>) -> Result<Self, FormatError> {
        let kind = node.member("type")?;
        if kind.string()? != "pbkdf2" {
            return Err(kind.unsupported(format!(
                "unknown digest {}; known is pbkdf2",
                excerpt(kind.string()?)
            )));
        }
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
            keyslots: node.member("keyslots")?.references()?,
            segments: node.member("segments")?.references()?,
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
