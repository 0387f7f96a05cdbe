//! Segments whose sectors have tags, which dm-integrity keeps (section 3.3, the member
//! `integrity`).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::node::{Node, excerpt, within};
use crate::authenticated::AuthenticatedCipher;
use crate::error::FormatError;
use crate::json::Object;

/// A segment of type `crypt` with authenticated encryption. It extends to the end of the device,
/// and begins with the superblock of dm-integrity, which says how much of that is data. Its IVs
/// count from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthenticatedSegment {
    /// The start in bytes. 0 for a detached header.
    pub offset: u64,
    /// The cipher.
    pub encryption: AuthenticatedCipher,
    /// The encryption sector size: 512, 1024, 2048 or 4096 bytes.
    pub sector_size: u32,
    /// The flags, known and unknown.
    pub flags: Vec<String>,
}

impl AuthenticatedSegment {
    /// Everything but the flags and the size. `integrity` is the member of that name.
    pub(super) fn read(
        node: &Node<'_>,
        integrity: &Node<'_>,
        offset: u64,
    ) -> Result<Self, FormatError> {
        let kind = integrity.member("type")?.string()?;
        for name in ["journal_encryption", "journal_integrity"] {
            let journal = integrity.member(name)?;
            let text = journal.string()?;
            if text != "none" {
                return Err(journal.unsupported(format!("is {}, not none", excerpt(text))));
            }
        }
        let encryption = node.member("encryption")?.string()?;
        let cipher = AuthenticatedCipher::parse(encryption, kind).ok_or_else(|| {
            integrity.unsupported(format!(
                "authenticated encryption (dm-integrity) by {} with {} is not supported; {} are \
                 only read",
                excerpt(encryption),
                excerpt(kind),
                AuthenticatedCipher::names()
            ))
        })?;
        if let Some(key_size) = integrity.optional("key_size")? {
            let (bytes, expected) = (key_size.u32()?, cipher.tag_key_size());
            if usize::try_from(bytes) != Ok(expected) {
                let cause = format!("keys of {bytes} bytes are not supported, only of {expected}");
                return Err(key_size.unsupported(cause));
            }
        }
        let tweak = node.member("iv_tweak")?;
        if tweak.u64()? != 0 {
            let cause =
                "IVs that do not begin at 0 are not supported with authenticated encryption";
            return Err(tweak.unsupported(cause));
        }
        Ok(Self {
            offset,
            encryption: cipher,
            sector_size: node.member("sector_size")?.sector_size()?,
            flags: Vec::new(),
        })
    }

    /// Overwrites the known members of `object` that only such a segment has.
    pub(super) fn write(&self, object: &mut Object) {
        object.insert("iv_tweak", 0_u64.to_string());
        object.insert("encryption", self.encryption.encryption());
        object.insert("sector_size", self.sector_size);
        within(object, "integrity", |integrity| {
            integrity.insert("type", self.encryption.integrity());
            integrity.insert("journal_encryption", "none");
            integrity.insert("journal_integrity", "none");
        });
    }
}
