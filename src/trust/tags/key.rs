//! The function from the content of a block to its tag.
//!
//! A tag is AES-256 under one key of POLYVAL (RFC 8452) under another key of the number of the
//! block, its length, and its bytes of ciphertext. Both keys are derived from the volume key and
//! the UUID. There is no nonce: an almost universal hash that is encrypted is a message
//! authentication code, and the same content at the same place has the same tag.

use aes::Aes256Enc;
use aes::cipher::{Array, BlockCipherEncrypt as _, KeyInit as _};
use luksmith_formats::trust::tags::{BLOCK, LOST, NEVER, TAG, Tag};
use polyval::Polyval;
use polyval::universal_hash::UniversalHash as _;

#[cfg(target_arch = "x86_64")]
use super::x86_64::Powers;
use crate::secret::{
    LockError, LockedBox, LockedBytes, VolumeKey, scrub_stack, scrub_stack_of_kernels,
};
use crate::trust::derive;

/// The bytes of a block.
pub(super) const BLOCK_LEN: usize = 4096;
const _: () = assert!(BLOCK_LEN as u64 == BLOCK);

/// The keys of all tags of a volume, in locked memory.
pub struct TagKey {
    keys: LockedBox<Keys>,
    check: [u8; 16],
}

struct Keys {
    hash: Hash,
    cipher: Aes256Enc,
}

/// The key of POLYVAL.
#[allow(
    clippy::large_enum_variant,
    reason = "it is in locked memory, and not copied"
)]
enum Hash {
    Portable(Polyval),
    #[cfg(target_arch = "x86_64")]
    Wide(Powers),
}

impl Hash {
    fn new(key: &[u8; TAG]) -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(powers) = Powers::new(key) {
            return Self::Wide(powers);
        }
        Self::portable(key)
    }

    fn portable(key: &[u8; TAG]) -> Self {
        let mut own = polyval::Key::default();
        own.copy_from_slice(key);
        Self::Portable(Polyval::new(&own))
    }

    /// The hash of the number of a block, its length and its content.
    fn of(&self, number: u64, block: &[u8]) -> [u8; TAG] {
        let mut head = [0; TAG];
        let (at, length) = head.split_at_mut(TAG / 2);
        at.copy_from_slice(&number.to_le_bytes());
        length.copy_from_slice(&(block.len() as u64).to_le_bytes());
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Wide(powers) if block.len().is_multiple_of(TAG) => powers.hash(&head, block),
            #[cfg(target_arch = "x86_64")]
            Self::Wide(powers) => {
                let mut padded = block.to_vec();
                padded.resize(block.len().next_multiple_of(TAG), 0);
                powers.hash(&head, &padded)
            }
            Self::Portable(hash) => {
                let mut hash = hash.clone();
                hash.update(&[head.into()]);
                hash.update_padded(block);
                hash.finalize().into()
            }
        }
    }
}

impl TagKey {
    /// The keys for a volume with this volume key and UUID.
    ///
    /// # Errors
    /// [`LockError`] when memory cannot be locked.
    pub fn new(key: &VolumeKey, uuid: &str) -> Result<Self, LockError> {
        let derived = |info: &[u8]| derive(key, uuid.as_bytes(), info);
        let hash = derived(b"luksmith tags: hash")?;
        let cipher = derived(b"luksmith tags: cipher")?;
        let check = derived(b"luksmith tags: check")?;
        let keys = keys(&hash, &cipher);
        // The expansion of the keys left copies of them on the stack.
        scrub_stack();
        Ok(Self {
            keys: keys?,
            check: check.first_chunk().copied().unwrap_or_default(),
        })
    }

    /// A value that tells these keys from others, and nothing of the keys.
    pub(super) fn check(&self) -> [u8; 16] {
        self.check
    }

    /// The tags of consecutive blocks. The last one may be shorter.
    pub(super) fn tags(&self, first: u64, content: &[u8]) -> Vec<Tag> {
        let blocks = content.chunks(BLOCK_LEN);
        let mut tags: Vec<_> = (first..)
            .zip(blocks)
            .map(|(number, block)| self.keys.hash.of(number, block).into())
            .collect();
        self.keys.cipher.encrypt_blocks(&mut tags);
        scrub_stack_of_kernels();
        tags.into_iter().map(|tag| usual(tag.into())).collect()
    }
}

// Not inlined, so that its copies of the keys are on the part of the stack that is scrubbed.
#[inline(never)]
fn keys(hash: &LockedBytes, cipher: &LockedBytes) -> Result<LockedBox<Keys>, LockError> {
    let mut key = Array::default();
    key.copy_from_slice(cipher);
    LockedBox::new(Keys {
        hash: Hash::new(hash.first_chunk().unwrap_or(&[0; TAG])),
        cipher: Aes256Enc::new(&key),
    })
}

/// The tag, or another one if it is the mark of a block without content.
fn usual(mut tag: Tag) -> Tag {
    if tag == NEVER || tag == LOST {
        tag[0] ^= 1;
    }
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8, uuid: &str) -> TagKey {
        TagKey::new(&VolumeKey::copy_from(&[byte; 64]).unwrap(), uuid).unwrap()
    }

    #[test]
    fn a_tag_depends_on_the_key_the_volume_the_place_the_length_and_every_bit() {
        let mut content: Vec<u8> = (0..=255).cycle().take(BLOCK_LEN).collect();
        let tag = |key: &TagKey, first, content: &[u8]| key.tags(first, content)[0];
        let one = key(1, "a");
        let right = tag(&one, 7, &content);
        assert_eq!(tag(&key(1, "a"), 7, &content), right);
        assert_ne!(tag(&key(2, "a"), 7, &content), right);
        assert_ne!(tag(&key(1, "b"), 7, &content), right);
        assert_ne!(tag(&one, 8, &content), right);
        assert_ne!(tag(&one, 7, &content[..3584]), right);
        for bit in [0, 7, 8, 4095 * 8, 4096 * 8 - 1] {
            content[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(tag(&one, 7, &content), right, "bit {bit}");
            content[bit / 8] ^= 1 << (bit % 8);
        }
        // A block has its tag whatever is beside it.
        let both = [&content[..], &content[..512]].concat();
        let tags = one.tags(7, &both);
        assert_eq!(tags, [right, tag(&one, 8, &content[..512])]);
    }

    #[test]
    fn every_implementation_gives_the_hash_of_the_crate() {
        let mut key = [0x25; TAG];
        for length in [0, 16, 48, 64, 80, 512, 4080, 4096] {
            let content: Vec<u8> = (0..length)
                .map(|at| u8::try_from(at % 251).unwrap() ^ key[3])
                .collect();
            let right = Hash::portable(&key).of(length as u64, &content);
            assert_eq!(Hash::new(&key).of(length as u64, &content), right);
            key[length % TAG] ^= content.first().copied().unwrap_or(1);
        }
        let odd = [7; 100];
        assert_eq!(
            Hash::new(&key).of(1, &odd),
            Hash::portable(&key).of(1, &odd)
        );
    }

    #[test]
    fn no_content_has_the_mark_of_a_block_without_one() {
        assert_ne!(usual(NEVER), NEVER);
        assert_ne!(usual(LOST), LOST);
        assert_eq!(usual([5; TAG]), [5; TAG]);
    }
}
