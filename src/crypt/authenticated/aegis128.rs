//! AEGIS-128 (Wu and Preneel, "AEGIS: A Fast Authenticated Encryption Algorithm", version 1.1 of
//! the submission to CAESAR). The later AEGIS-128L is another cipher.
//!
//! No table is indexed by a secret, and no branch depends on one.

use aes::Block;
use aes::hazmat::cipher_round;
use subtle::ConstantTimeEq as _;

use super::opener::{Opener, SectorOpener};
use crate::secret::LockedBytes;

/// The bytes of a block, a key, an IV and a code.
const BLOCK: usize = 16;
/// The bytes of the number of a sector.
const NUMBER: usize = 8;

/// The Fibonacci sequence modulo 256: the constants of the initial state.
const FIBONACCI: [u128; 2] = [
    u128::from_be_bytes([
        0x00, 0x01, 0x01, 0x02, 0x03, 0x05, 0x08, 0x0d, 0x15, 0x22, 0x37, 0x59, 0x90, 0xe9, 0x79,
        0x62,
    ]),
    u128::from_be_bytes([
        0xdb, 0x3d, 0x18, 0x55, 0x6d, 0xc2, 0x2f, 0xf1, 0x20, 0x11, 0x31, 0x42, 0x73, 0xb5, 0x28,
        0xdd,
    ]),
];

/// The key, in locked memory.
struct Aegis128 {
    key: LockedBytes,
}

/// AEGIS-128 with this key of 16 bytes.
pub(in crate::crypt) fn aegis128(key: &[u8]) -> Opener {
    let key = LockedBytes::copy_from(key)?;
    Ok(Box::new(Aegis128 { key }))
}

impl SectorOpener for Aegis128 {
    fn open(&self, number: u64, tag: &[u8], data: &mut [u8]) -> bool {
        let parts = (
            self.key.first_chunk::<BLOCK>(),
            tag.split_first_chunk::<BLOCK>(),
        );
        let (Some(key), Some((code, rest))) = parts else {
            return false;
        };
        let Some(iv) = rest.first_chunk::<BLOCK>() else {
            return false;
        };
        let mut associated = [0; NUMBER + BLOCK];
        associated[..NUMBER].copy_from_slice(&number.to_le_bytes());
        associated[NUMBER..].copy_from_slice(iv);
        let mut state = State::new(key, iv);
        state.absorb(&associated);
        state.decrypt(data);
        let expected = state.code(associated.len(), data.len());
        expected.ct_eq(code).into()
    }
}

/// The five blocks of the state, as big-endian numbers.
struct State([u128; 5]);

impl State {
    fn new(key: &[u8; BLOCK], iv: &[u8; BLOCK]) -> Self {
        let (key, iv) = (u128::from_be_bytes(*key), u128::from_be_bytes(*iv));
        let mut state = Self([
            key ^ iv,
            FIBONACCI[1],
            FIBONACCI[0],
            key ^ FIBONACCI[0],
            key ^ FIBONACCI[1],
        ]);
        for _ in 0..5 {
            state.update(key);
            state.update(key ^ iv);
        }
        state
    }

    fn update(&mut self, message: u128) {
        let [a, b, c, d, e] = self.0;
        self.0 = [
            round(e, a ^ message),
            round(a, b),
            round(b, c),
            round(c, d),
            round(d, e),
        ];
    }

    fn absorb(&mut self, associated: &[u8]) {
        for part in associated.chunks(BLOCK) {
            let mut block = [0; BLOCK];
            block[..part.len()].copy_from_slice(part);
            self.update(u128::from_be_bytes(block));
        }
    }

    /// Decrypts whole blocks: sectors have no others.
    fn decrypt(&mut self, data: &mut [u8]) {
        for block in data.as_chunks_mut::<BLOCK>().0 {
            let [_, b, c, d, e] = self.0;
            let plain = u128::from_be_bytes(*block) ^ b ^ e ^ (c & d);
            self.update(plain);
            *block = plain.to_be_bytes();
        }
    }

    /// The code, from the lengths in bytes of what was authenticated only and of what was
    /// decrypted.
    fn code(mut self, associated: usize, data: usize) -> [u8; BLOCK] {
        let bits = |bytes: usize| (bytes as u64 * 8).to_le_bytes();
        let mut lengths = [0; BLOCK];
        lengths[..BLOCK / 2].copy_from_slice(&bits(associated));
        lengths[BLOCK / 2..].copy_from_slice(&bits(data));
        let last = self.0[3] ^ u128::from_be_bytes(lengths);
        for _ in 0..7 {
            self.update(last);
        }
        let code = self.0.into_iter().fold(0, |code, block| code ^ block);
        code.to_be_bytes()
    }
}

/// One round of AES, with a round key.
fn round(block: u128, key: u128) -> u128 {
    let mut block: Block = block.to_be_bytes().into();
    cipher_round(&mut block, &key.to_be_bytes().into());
    u128::from_be_bytes(block.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors in the submission, where ciphertext and code are of zeroes.
    #[test]
    fn vectors_of_the_submission() {
        for (associated, cipher, code) in [
            (
                &[][..],
                "951b050fa72b1a2fc16d2e1f01b07d7e",
                "a7d2a99773249542f422217ee888d5f1",
            ),
            (
                &[0; 16][..],
                "10b0dee65a97d751205c128a992473a1",
                "46dcb9ee93c46cf13731d41b9646c131",
            ),
        ] {
            let mut data = hex::decode(cipher).unwrap();
            let mut state = State::new(&[0; BLOCK], &[0; BLOCK]);
            state.absorb(associated);
            state.decrypt(&mut data);
            assert_eq!(data, [0; BLOCK]);
            let found = state.code(associated.len(), data.len());
            assert_eq!(hex::encode(found), code);
        }
    }
}
