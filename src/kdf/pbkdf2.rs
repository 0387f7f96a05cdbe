//! PBKDF2 with HMAC (RFC 8018, section 5.2), for every hash that LUKS has.
//!
//! The loop is our own because it must be able to stop: a header may ask for minutes of it.

use hmac::digest::FixedOutput;
use hmac::{Hmac, KeyInit, Mac};
use luksmith_formats::Hash;

use super::KdfError;
use crate::Interrupt;
use crate::secret::scrub_stack;
use crate::sys::memory::wipe;

/// Iterations between two looks at the interrupt: a few milliseconds with the slowest hash.
const STRIDE: u32 = 4096;

/// Fills `out` with the key derived from `passphrase`.
///
/// # Errors
/// [`KdfError::Interrupted`]; [`KdfError::Parameters`] for no iterations. What `out` holds then is no key.
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
        Hash::Sha256 => derive::<Hmac<sha2::Sha256>>,
        Hash::Sha384 => derive::<Hmac<sha2::Sha384>>,
        Hash::Sha512 => derive::<Hmac<sha2::Sha512>>,
        Hash::Ripemd160 => derive::<Hmac<ripemd::Ripemd160>>,
        Hash::Whirlpool => derive::<Hmac<whirlpool::Whirlpool>>,
    };
    let derived = derive(passphrase, salt, iterations, out, interrupt);
    scrub_stack();
    if derived.is_err() {
        wipe(out);
    }
    derived
}

/// Not inlined, so that all its copies lie below the frame that scrubs the stack.
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

fn not_allowed(cause: &str) -> KdfError {
    KdfError::Parameters {
        function: "pbkdf2",
        cause: cause.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_crate_for_every_hash_and_odd_lengths() {
        for hash in Hash::ALL {
            for len in [1, 19, 20, 21, 64, 65, 200] {
                let (mut ours, mut theirs) = (vec![0; len], vec![0; len]);
                pbkdf2(hash, b"pass", b"salt", 5, &mut ours, &Interrupt::new()).unwrap();
                let oracle = match hash {
                    Hash::Sha1 => ::pbkdf2::pbkdf2_hmac::<sha1::Sha1>,
                    Hash::Sha224 => ::pbkdf2::pbkdf2_hmac::<sha2::Sha224>,
                    Hash::Sha256 => ::pbkdf2::pbkdf2_hmac::<sha2::Sha256>,
                    Hash::Sha384 => ::pbkdf2::pbkdf2_hmac::<sha2::Sha384>,
                    Hash::Sha512 => ::pbkdf2::pbkdf2_hmac::<sha2::Sha512>,
                    Hash::Ripemd160 => ::pbkdf2::pbkdf2_hmac::<ripemd::Ripemd160>,
                    Hash::Whirlpool => ::pbkdf2::pbkdf2_hmac::<whirlpool::Whirlpool>,
                };
                oracle(b"pass", b"salt", 5, &mut theirs);
                assert_eq!(ours, theirs, "{hash}, {len} bytes");
            }
        }
    }

    #[test]
    fn stops_when_asked() {
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
    fn no_iterations_is_an_error() {
        let result = pbkdf2(Hash::Sha1, b"p", b"s", 0, &mut [0; 20], &Interrupt::new());
        assert!(matches!(result, Err(KdfError::Parameters { .. })));
    }
}
