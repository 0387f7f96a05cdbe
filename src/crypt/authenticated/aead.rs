//! AES-GCM and ChaCha20-Poly1305, whose key encrypts and authenticates.

use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::{AeadCore, AeadInOut, AesGcm, KeyInit};
use chacha20poly1305::ChaCha20Poly1305;

use super::opener::{Opener, SectorOpener};
use crate::secret::LockedBox;

/// The bytes of a code.
const CODE: usize = 16;
/// The bytes of a nonce, which is the IV.
const NONCE: usize = 12;
/// The bytes of the number of a sector.
const NUMBER: usize = 8;

struct Aead<A>(LockedBox<A>);

/// AES-GCM. `None` if AES has no keys of this length.
pub(in crate::crypt) fn gcm(key: &[u8]) -> Option<Opener> {
    match key.len() {
        16 => keyed::<AesGcm<aes::Aes128Enc, U12>>(key),
        24 => keyed::<AesGcm<aes::Aes192Enc, U12>>(key),
        32 => keyed::<AesGcm<aes::Aes256Enc, U12>>(key),
        _ => None,
    }
}

/// ChaCha20-Poly1305. `None` if it has no keys of this length.
pub(in crate::crypt) fn chacha20(key: &[u8]) -> Option<Opener> {
    keyed::<ChaCha20Poly1305>(key)
}

fn keyed<A>(key: &[u8]) -> Option<Opener>
where
    A: KeyInit + AeadInOut + AeadCore<NonceSize = U12, TagSize = U16> + Send + Sync + 'static,
{
    let cipher = A::new_from_slice(key).ok()?;
    let locked = LockedBox::new(cipher);
    Some(locked.map(|cipher| Box::new(Aead(cipher)) as Box<dyn SectorOpener>))
}

impl<A> SectorOpener for Aead<A>
where
    A: AeadInOut + AeadCore<NonceSize = U12, TagSize = U16> + Send + Sync,
{
    fn open(&self, number: u64, tag: &[u8], data: &mut [u8]) -> bool {
        let Some((code, rest)) = tag.split_first_chunk::<CODE>() else {
            return false;
        };
        let Some(nonce) = rest.first_chunk::<NONCE>() else {
            return false;
        };
        let mut associated = [0; NUMBER + NONCE];
        associated[..NUMBER].copy_from_slice(&number.to_le_bytes());
        associated[NUMBER..].copy_from_slice(nonce);
        self.0
            .decrypt_inout_detached(nonce.into(), &associated, data.into(), code.into())
            .is_ok()
    }
}
