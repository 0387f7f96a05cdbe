//! PBKDF2 with HMAC (RFC 8018, section 5.2), for every hash of LUKS.
//!
//! The `pbkdf2` crate cannot be interrupted, and a header may ask for minutes of work, so the loop
//! is implemented here. With SHA-256 on CPUs with the SHA extensions, two blocks of the derived key
//! are computed interleaved. With SHA-512, whose blocks are seldom more than one, a block is
//! computed faster on CPUs with BMI2.

#[cfg(feature = "ciphers")]
use hmac::SimpleHmac;
use hmac::digest::FixedOutput;
use hmac::{Hmac, KeyInit, Mac};
use luksmith_formats::Hash;

use super::error::KdfError;
use super::hashes;
#[cfg(target_arch = "x86_64")]
use super::x86_64::{
    by_words::{self, Kernel, Word as _},
    sha256::Sha256,
    sha512::Sha512,
};
use crate::Interrupt;
use crate::secret::scrub_stack;
use crate::sys::memory::wipe;

/// Iterations between two checks of the interrupt: a few milliseconds with the slowest hash.
const STRIDE: u32 = 4096;

/// Fills `out` with the key derived from `passphrase`.
///
/// # Errors
/// Returns [`KdfError::Interrupted`], or [`KdfError::Parameters`] if `iterations` is zero. `out` is
/// then zeros.
pub fn pbkdf2(
    hash: Hash,
    passphrase: &[u8],
    salt: &[u8],
    iterations: u32,
    out: &mut [u8],
    interrupt: &Interrupt,
) -> Result<(), KdfError> {
    let derive = match hash {
        Hash::Sha1 => derive::<Hmac<sha1::Sha1>>,
        Hash::Sha224 => derive::<Hmac<sha2::Sha224>>,
        #[cfg(target_arch = "x86_64")]
        Hash::Sha256 => derive_with::<Sha256, Hmac<sha2::Sha256>>,
        #[cfg(not(target_arch = "x86_64"))]
        Hash::Sha256 => derive::<Hmac<sha2::Sha256>>,
        Hash::Sha384 => derive::<Hmac<sha2::Sha384>>,
        #[cfg(target_arch = "x86_64")]
        Hash::Sha512 => derive_with::<Sha512, Hmac<sha2::Sha512>>,
        #[cfg(not(target_arch = "x86_64"))]
        Hash::Sha512 => derive::<Hmac<sha2::Sha512>>,
        #[cfg(feature = "ciphers")]
        Hash::Ripemd160 => derive::<Hmac<hashes::Ripemd160>>,
        #[cfg(feature = "ciphers")]
        Hash::Whirlpool => derive::<Hmac<hashes::Whirlpool>>,
        #[cfg(feature = "ciphers")]
        Hash::Sm3 => derive::<Hmac<hashes::Sm3>>,
        #[cfg(feature = "ciphers")]
        Hash::Sha3_224 => derive::<SimpleHmac<hashes::Sha3_224>>,
        #[cfg(feature = "ciphers")]
        Hash::Sha3_256 => derive::<SimpleHmac<hashes::Sha3_256>>,
        #[cfg(feature = "ciphers")]
        Hash::Sha3_384 => derive::<SimpleHmac<hashes::Sha3_384>>,
        #[cfg(feature = "ciphers")]
        Hash::Sha3_512 => derive::<SimpleHmac<hashes::Sha3_512>>,
        #[cfg(feature = "ciphers")]
        Hash::Blake2s256 => derive::<SimpleHmac<hashes::Blake2s256>>,
        #[cfg(feature = "ciphers")]
        Hash::Blake2b512 => derive::<SimpleHmac<hashes::Blake2b512>>,
        #[cfg(not(feature = "ciphers"))]
        _ => return Err(hashes::missing(hash).into()),
    };
    let derived = derive(passphrase, salt, iterations, out, interrupt);
    scrub_stack();
    if derived.is_err() {
        wipe(out);
    }
    derived
}

/// PBKDF2 with any HMAC. Not inlined, so that its copies of secrets are on the part of the stack
/// that the caller scrubs.
#[inline(never)]
fn derive<M: Mac + KeyInit + FixedOutput + Clone>(
    passphrase: &[u8],
    salt: &[u8],
    iterations: u32,
    out: &mut [u8],
    interrupt: &Interrupt,
) -> Result<(), KdfError> {
    if iterations == 0 {
        return Err(not_allowed("no iterations"));
    }
    let keyed = <M as KeyInit>::new_from_slice(passphrase)
        .map_err(|error| not_allowed(&error.to_string()))?;
    for (block, index) in out.chunks_mut(M::output_size()).zip(1u32..) {
        let mut mac = keyed.clone();
        Mac::update(&mut mac, salt);
        Mac::update(&mut mac, &index.to_be_bytes());
        let mut u = mac.finalize_fixed();
        block.copy_from_slice(&u[..block.len()]);

        let mut left = iterations - 1;
        while left > 0 {
            if interrupt.is_set() {
                return Err(KdfError::Interrupted);
            }
            let stride = left.min(STRIDE);
            for _ in 0..stride {
                let mut mac = keyed.clone();
                Mac::update(&mut mac, &u);
                u = mac.finalize_fixed();
                for (out, u) in block.iter_mut().zip(&u) {
                    *out ^= u;
                }
            }
            left -= stride;
        }
        wipe(&mut u);
    }
    Ok(())
}

/// Like [`derive`], with the instructions of `K` if this CPU has them.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
fn derive_with<K: Kernel, M: Mac + KeyInit + FixedOutput + Clone>(
    passphrase: &[u8],
    salt: &[u8],
    iterations: u32,
    out: &mut [u8],
    interrupt: &Interrupt,
) -> Result<(), KdfError> {
    match K::detect() {
        Some(kernel) => {
            derive_by_words::<K, M>(kernel, passphrase, salt, iterations, out, interrupt)
        }
        None => derive::<M>(passphrase, salt, iterations, out, interrupt),
    }
}

/// Like [`derive`], on words instead of bytes, and with as many blocks at a time as the kernel
/// computes at once.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
fn derive_by_words<K: Kernel, M: Mac + KeyInit + FixedOutput + Clone>(
    kernel: K,
    passphrase: &[u8],
    salt: &[u8],
    iterations: u32,
    out: &mut [u8],
    interrupt: &Interrupt,
) -> Result<(), KdfError> {
    if iterations == 0 {
        return Err(not_allowed("no iterations"));
    }
    let keyed = by_words::Keyed::new(passphrase);
    let mac = <M as KeyInit>::new_from_slice(passphrase)
        .map_err(|error| not_allowed(&error.to_string()))?;
    let first = |index: u32| {
        let mut mac = mac.clone();
        Mac::update(&mut mac, salt);
        Mac::update(&mut mac, &index.to_be_bytes());
        by_words::words::<K>(&mac.finalize_fixed())
    };
    let left = iterations - 1;
    let chunks = out.chunks_mut(K::AT_ONCE * by_words::size::<K>());
    for (blocks, index) in chunks.zip((1u32..).step_by(K::AT_ONCE)) {
        if blocks.len() > by_words::size::<K>() {
            let us = [first(index), first(index + 1)];
            fill(kernel, &keyed, us, left, blocks, interrupt)?;
        } else {
            fill(kernel, &keyed, [first(index)], left, blocks, interrupt)?;
        }
    }
    Ok(())
}

/// Fills `out` with up to `BLOCKS` blocks. `us` has the first U (RFC 8018) of each.
#[cfg(target_arch = "x86_64")]
fn fill<K: Kernel, const BLOCKS: usize>(
    kernel: K,
    keyed: &by_words::Keyed<K>,
    mut us: [by_words::Words<K>; BLOCKS],
    mut left: u32,
    out: &mut [u8],
    interrupt: &Interrupt,
) -> Result<(), KdfError> {
    let mut sums = us;
    while left > 0 {
        if interrupt.is_set() {
            return Err(KdfError::Interrupted);
        }
        let stride = left.min(STRIDE);
        kernel.iterate(keyed, &mut us, &mut sums, stride);
        left -= stride;
    }
    let words = sums.as_flattened();
    for (bytes, word) in out.chunks_mut(size_of::<K::Word>()).zip(words) {
        bytes.copy_from_slice(&word.bytes().as_ref()[..bytes.len()]);
    }
    Ok(())
}

fn not_allowed(cause: &str) -> KdfError {
    KdfError::Parameters {
        function: "pbkdf2",
        cause: cause.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::strategy::Strategy;

    use super::*;

    #[test]
    fn agrees_with_the_crate_for_every_hash_and_odd_lengths() {
        for hash in hashes::built() {
            for len in [1, 19, 20, 21, 32, 33, 61, 64, 65, 96, 97, 200] {
                let (mut ours, mut theirs) = (vec![0; len], vec![0; len]);
                pbkdf2(hash, b"pass", b"salt", 5, &mut ours, &Interrupt::new()).unwrap();
                let oracle = match hash {
                    Hash::Sha1 => ::pbkdf2::pbkdf2_hmac::<sha1::Sha1>,
                    Hash::Sha224 => ::pbkdf2::pbkdf2_hmac::<sha2::Sha224>,
                    Hash::Sha256 => ::pbkdf2::pbkdf2_hmac::<sha2::Sha256>,
                    Hash::Sha384 => ::pbkdf2::pbkdf2_hmac::<sha2::Sha384>,
                    Hash::Sha512 => ::pbkdf2::pbkdf2_hmac::<sha2::Sha512>,
                    #[cfg(feature = "ciphers")]
                    Hash::Ripemd160 => ::pbkdf2::pbkdf2_hmac::<hashes::Ripemd160>,
                    #[cfg(feature = "ciphers")]
                    Hash::Whirlpool => ::pbkdf2::pbkdf2_hmac::<hashes::Whirlpool>,
                    #[cfg(feature = "ciphers")]
                    Hash::Sm3 => ::pbkdf2::pbkdf2_hmac::<hashes::Sm3>,
                    #[cfg(feature = "ciphers")]
                    Hash::Sha3_224 => simple::<hashes::Sha3_224>,
                    #[cfg(feature = "ciphers")]
                    Hash::Sha3_256 => simple::<hashes::Sha3_256>,
                    #[cfg(feature = "ciphers")]
                    Hash::Sha3_384 => simple::<hashes::Sha3_384>,
                    #[cfg(feature = "ciphers")]
                    Hash::Sha3_512 => simple::<hashes::Sha3_512>,
                    #[cfg(feature = "ciphers")]
                    Hash::Blake2s256 => simple::<hashes::Blake2s256>,
                    #[cfg(feature = "ciphers")]
                    Hash::Blake2b512 => simple::<hashes::Blake2b512>,
                    #[cfg(not(feature = "ciphers"))]
                    _ => unreachable!("not built"),
                };
                oracle(b"pass", b"salt", 5, &mut theirs);
                assert_eq!(ours, theirs, "{hash}, {len} bytes");
            }
        }
    }

    /// The crate with a hash that its shorter function does not take.
    #[cfg(feature = "ciphers")]
    fn simple<D>(passphrase: &[u8], salt: &[u8], iterations: u32, out: &mut [u8])
    where
        D: digest::Digest + digest::common::BlockSizeUser + Clone + Sync,
    {
        ::pbkdf2::pbkdf2::<SimpleHmac<D>>(passphrase, salt, iterations, out).unwrap();
    }

    proptest::proptest! {
        /// Passphrases shorter and longer than a block of the hash, odd lengths, several strides.
        #[test]
        fn sha256_agrees_with_the_crate(
            passphrase in proptest::collection::vec(proptest::num::u8::ANY, 0..150),
            salt in proptest::collection::vec(proptest::num::u8::ANY, 0..150),
            iterations in (1..4u32, 0..3u32).prop_map(|(few, strides)| few + strides * STRIDE),
            len in 1..140usize,
        ) {
            let (mut ours, mut theirs) = (vec![0; len], vec![0; len]);
            pbkdf2(Hash::Sha256, &passphrase, &salt, iterations, &mut ours, &Interrupt::new()).unwrap();
            ::pbkdf2::pbkdf2_hmac::<sha2::Sha256>(&passphrase, &salt, iterations, &mut theirs);
            proptest::prop_assert_eq!(ours, theirs);
        }

        /// The same for SHA-512.
        #[test]
        fn sha512_agrees_with_the_crate(
            passphrase in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
            salt in proptest::collection::vec(proptest::num::u8::ANY, 0..150),
            iterations in (1..4u32, 0..3u32).prop_map(|(few, strides)| few + strides * STRIDE),
            len in 1..140usize,
        ) {
            let (mut ours, mut theirs) = (vec![0; len], vec![0; len]);
            pbkdf2(Hash::Sha512, &passphrase, &salt, iterations, &mut ours, &Interrupt::new()).unwrap();
            ::pbkdf2::pbkdf2_hmac::<sha2::Sha512>(&passphrase, &salt, iterations, &mut theirs);
            proptest::prop_assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn an_interrupt_ends_the_derivation() {
        let interrupt = Interrupt::new();
        let other = interrupt.clone();
        let started = std::time::Instant::now();
        let stopper = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(50));
            other.trigger();
        });
        let mut out = [0; 32];
        let result = pbkdf2(Hash::Sha256, b"p", b"s", u32::MAX, &mut out, &interrupt);
        assert!(matches!(result, Err(KdfError::Interrupted)));
        assert_eq!(out, [0; 32]);
        assert!(started.elapsed() < std::time::Duration::from_secs(5));
        stopper.join().unwrap();
    }

    #[test]
    fn zero_iterations_are_an_error() {
        let result = pbkdf2(Hash::Sha1, b"p", b"s", 0, &mut [0; 20], &Interrupt::new());
        assert!(matches!(result, Err(KdfError::Parameters { .. })));
    }
}
