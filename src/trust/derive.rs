//! Keys and fingerprints of a volume key: HKDF with SHA-256 (RFC 5869).

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::secret::{LockError, LockedBytes, VolumeKey, scrub_stack};

/// The size of what is derived, in bytes: one block of HKDF.
pub(crate) const DERIVED: usize = 32;

/// Derives 32 bytes from a volume key. `salt` and `info` are not secret.
pub(crate) fn derive(key: &VolumeKey, salt: &[u8], info: &[u8]) -> Result<LockedBytes, LockError> {
    let (mut extracted, mut derived) = (LockedBytes::new(DERIVED)?, LockedBytes::new(DERIVED)?);
    mac_into(&mut extracted, salt, &[key.as_bytes()]);
    mac_into(&mut derived, &extracted, &[info, &[1]]);
    scrub_stack();
    Ok(derived)
}

// Not inlined, so that copies of secrets are on the part of the stack that is scrubbed.
#[inline(never)]
fn mac_into(out: &mut [u8], key: &[u8], parts: &[&[u8]]) {
    // HMAC takes a key of any size.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return;
    };
    for part in parts {
        mac.update(part);
    }
    out.copy_from_slice(&mac.finalize().into_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_that_of_rfc_5869() {
        // Test case 1; the block is the first 32 bytes of its output.
        let key = VolumeKey::copy_from(&[0x0b; 22]).unwrap();
        let salt: Vec<u8> = (0..=0x0c).collect();
        let info: Vec<u8> = (0xf0..=0xf9).collect();
        let derived = derive(&key, &salt, &info).unwrap();
        let expected = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf";
        let hex: String = derived.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
    }
}
