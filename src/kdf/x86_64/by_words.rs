//! PBKDF2 with HMAC (RFC 8018, section 5.2; RFC 2104) on the words of a hash instead of bytes, for
//! SHA-256 and SHA-512.

use sha2::digest::Digest;

/// A word of a hash.
pub(in crate::kdf) trait Word: Copy + Default {
    /// Its bytes.
    type Bytes: AsRef<[u8]>;

    /// The word in the first bytes of a digest, which are as many as it has.
    fn read(bytes: &[u8]) -> Self;

    /// Its bytes in a digest.
    fn bytes(self) -> Self::Bytes;
}

macro_rules! words {
    ($($word:ty),*) => {$(
        impl Word for $word {
            type Bytes = [u8; size_of::<Self>()];

            fn read(bytes: &[u8]) -> Self {
                bytes.first_chunk().map_or(0, |bytes| Self::from_be_bytes(*bytes))
            }

            fn bytes(self) -> Self::Bytes {
                self.to_be_bytes()
            }
        }
    )*};
}
words!(u32, u64);

/// Eight words: a state of the hash, or a digest.
pub(in crate::kdf) type Words<K> = [<K as Kernel>::Word; 8];

/// The instructions of this CPU that iterate a hash. A value is the proof that the CPU has them.
pub(in crate::kdf) trait Kernel: Copy {
    /// A word of the hash.
    type Word: Word;
    /// A block of the hash: sixteen words as bytes.
    type Block: AsRef<[u8]> + AsMut<[u8]> + Copy;
    /// The hash of any bytes.
    type Hash: Digest;

    /// A block of zeros.
    const ZEROS: Self::Block;
    /// The initial state.
    const START: Words<Self>;
    /// How many blocks of a derived key are computed at once, at the most two.
    const AT_ONCE: usize;

    /// The instructions, if this CPU has them.
    fn detect() -> Option<Self>;

    /// Hashes one block.
    fn compress(state: &mut Words<Self>, block: &Self::Block);

    /// Runs `iterations` steps for each block: replaces its U with the HMAC of U, and adds it to
    /// its sum.
    fn iterate<const BLOCKS: usize>(
        self,
        keyed: &Keyed<Self>,
        us: &mut [Words<Self>; BLOCKS],
        sums: &mut [Words<Self>; BLOCKS],
        iterations: u32,
    );
}

/// The size of a digest in bytes.
pub(in crate::kdf) const fn size<K: Kernel>() -> usize {
    size_of::<Words<K>>()
}

/// A digest as words.
pub(in crate::kdf) fn words<K: Kernel>(digest: &[u8]) -> Words<K> {
    let mut words = [K::Word::default(); 8];
    for (word, bytes) in words.iter_mut().zip(digest.chunks(size_of::<K::Word>())) {
        *word = K::Word::read(bytes);
    }
    words
}

/// The states of the two hashes of HMAC after the padded key, where each HMAC starts.
pub(in crate::kdf) struct Keyed<K: Kernel> {
    pub(super) inner: Words<K>,
    pub(super) outer: Words<K>,
}

impl<K: Kernel> Keyed<K> {
    pub(in crate::kdf) fn new(passphrase: &[u8]) -> Self {
        let mut key = K::ZEROS;
        if let Some(key) = key.as_mut().get_mut(..passphrase.len()) {
            key.copy_from_slice(passphrase);
        } else {
            key.as_mut()[..size::<K>()].copy_from_slice(&K::Hash::digest(passphrase));
        }
        let after = |pad: u8| {
            let mut block = key;
            block.as_mut().iter_mut().for_each(|byte| *byte ^= pad);
            let mut state = K::START;
            K::compress(&mut state, &block);
            state
        };
        Self {
            inner: after(0x36),
            outer: after(0x5c),
        }
    }
}
