//! Digests (section 3.4): which keyslots hold the volume key of which segments, and how that key is recognised.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::json::{Object, Value, json};

use super::node::{Node, encode, excerpt, put_hash};
use crate::error::FormatError;
use crate::hash::Hash;

/// The length that LUKS1 and early LUKS2 store, whatever the hash.
const SHORT: usize = 20;

/// PBKDF2 of a volume key. Keyslots of a digest without segments are unbound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// The keyslots that hold this key.
    pub keyslots: Vec<u32>,
    /// The segments that are encrypted with it.
    pub segments: Vec<u32>,
    /// The hash of PBKDF2.
    pub hash: Hash,
    /// Its iterations, at least 1.
    pub iterations: u32,
    /// Its salt; 32 bytes.
    pub salt: Vec<u8>,
    /// Its output: 20 bytes, or as many as the hash has.
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

    /// Writes the members that are known over `object`; the others stay.
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

/// Object numbers as the metadata spells them: strings.
fn references(ids: &[u32]) -> Value {
    json!(ids.iter().map(ToString::to_string).collect::<Vec<String>>())
}
