//! Adiantum (Crowley and Biggers, "Adiantum: length-preserving encryption for entry-level
//! processors", 2018) with XChaCha12 or XChaCha20, AES-256, NH and Poly1305.
//!
//! A whole sector is one block of this cipher: each bit of the ciphertext depends on each bit of
//! the plaintext. A hash of the sector and its tweak is added to the last 16 bytes, AES encrypts
//! them, the result is the nonce of the stream cipher for all other bytes, and a hash of these is
//! subtracted again.
//!
//! No table is indexed by a secret, and no branch depends on one.

use std::marker::PhantomData;

use ::cbc::cipher::{
    BlockCipherDecrypt, BlockCipherEncrypt, KeyInit, KeyIvInit, StreamCipher,
    consts::{U24, U32},
};
use aes::Aes256;
use luksmith_formats::IvGenerator;
use poly1305::Poly1305;
use poly1305::universal_hash::UniversalHash;
use zeroize::Zeroizing;

use super::modes::{Keyed, SectorCipher, locked};
use crate::xts::Tweaks;

/// The right part of a message, which AES encrypts.
const BLOCK: usize = 16;
/// The tweak of dm-crypt: an IV of 32 bytes.
const TWEAK: usize = 32;

/// NH adds the products of pairs of words, for units of this many bytes.
const UNIT: usize = 16;
/// Each pass begins one unit later in the key.
const PASSES: usize = 4;
/// NH hashes pieces of this many bytes.
const PIECE: usize = 1024;
/// The words of NH's key.
const NH_WORDS: usize = (PIECE + (PASSES - 1) * UNIT) / 4;

/// A stream cipher with a nonce of 192 bits.
pub(super) trait Stream:
    KeyIvInit<KeySize = U32, IvSize = U24> + StreamCipher + 'static
{
}
impl<S: KeyIvInit<KeySize = U32, IvSize = U24> + StreamCipher + 'static> Stream for S {}

/// `None` if the key does not have 32 bytes.
pub(super) fn adiantum<S: Stream>(key: &[u8], iv: IvGenerator) -> Keyed {
    Some(locked(Sectors {
        cipher: Adiantum::<S>::new(key.try_into().ok()?),
        big_endian: iv == IvGenerator::Plain64Be,
    }))
}

/// The cipher of messages of any length from 16 bytes on.
struct Adiantum<S> {
    stream_key: Zeroizing<[u8; 32]>,
    block: Aes256,
    tweak_hash: Poly1305,
    message_hash: Poly1305,
    nh_key: Zeroizing<[u32; NH_WORDS]>,
    stream: PhantomData<fn() -> S>,
}

impl<S: Stream> Adiantum<S> {
    /// The other keys are the output of the stream cipher with a nonce that no message has.
    fn new(key: &[u8; 32]) -> Self {
        let mut derived = Zeroizing::new([0; 32 + 16 + 16 + 4 * NH_WORDS]);
        S::new(key.into(), &nonce(&[])).apply_keystream(&mut *derived);
        let (block, rest) = derived.split_first_chunk::<32>().expect("long enough");
        let (tweak_hash, rest) = rest.split_first_chunk::<16>().expect("long enough");
        let (message_hash, rest) = rest.split_first_chunk::<16>().expect("long enough");
        let mut nh_key = Zeroizing::new([0; NH_WORDS]);
        for (word, bytes) in nh_key.iter_mut().zip(rest.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Self {
            stream_key: Zeroizing::new(*key),
            block: Aes256::new(block.into()),
            tweak_hash: poly1305(tweak_hash),
            message_hash: poly1305(message_hash),
            nh_key,
            stream: PhantomData,
        }
    }

    fn encrypt(&self, tweak: &[u8], message: &mut [u8]) {
        let (left, right) = parts(message);
        let of_tweak = self.hash_tweak(tweak, left);
        let hash = of_tweak.wrapping_add(self.hash_message(left));
        let mut middle = u128::from_le_bytes(*right).wrapping_add(hash).to_le_bytes();
        self.block.encrypt_block((&mut middle).into());
        self.apply_stream(&middle, left);
        let hash = of_tweak.wrapping_add(self.hash_message(left));
        *right = u128::from_le_bytes(middle).wrapping_sub(hash).to_le_bytes();
    }

    fn decrypt(&self, tweak: &[u8], message: &mut [u8]) {
        let (left, right) = parts(message);
        let of_tweak = self.hash_tweak(tweak, left);
        let hash = of_tweak.wrapping_add(self.hash_message(left));
        let mut middle = u128::from_le_bytes(*right).wrapping_add(hash).to_le_bytes();
        self.apply_stream(&middle, left);
        self.block.decrypt_block((&mut middle).into());
        let hash = of_tweak.wrapping_add(self.hash_message(left));
        *right = u128::from_le_bytes(middle).wrapping_sub(hash).to_le_bytes();
    }

    fn apply_stream(&self, middle: &[u8; BLOCK], left: &mut [u8]) {
        S::new((&*self.stream_key).into(), &nonce(middle)).apply_keystream(left);
    }

    /// The hash of the tweak and of the length of the left part in bits.
    fn hash_tweak(&self, tweak: &[u8], left: &[u8]) -> u128 {
        let mut bytes = [0; 16 + TWEAK];
        bytes[..16].copy_from_slice(&(8 * left.len() as u128).to_le_bytes());
        bytes[16..][..tweak.len()].copy_from_slice(tweak);
        let hash = self.tweak_hash.clone();
        u128::from_le_bytes(hash.compute_unpadded(&bytes[..16 + tweak.len()]).into())
    }

    /// Poly1305 of the NH hashes of all pieces.
    fn hash_message(&self, left: &[u8]) -> u128 {
        let mut hash = self.message_hash.clone();
        for piece in left.chunks(PIECE) {
            let sums = nh(&self.nh_key, piece);
            for [low, high] in sums.as_chunks::<2>().0 {
                let block = u128::from(*low) | u128::from(*high) << 64;
                hash.update(&[block.to_le_bytes().into()]);
            }
        }
        u128::from_le_bytes(hash.finalize().into())
    }
}

fn parts(message: &mut [u8]) -> (&mut [u8], &mut [u8; BLOCK]) {
    message
        .split_last_chunk_mut()
        .expect("a sector is longer than a block")
}

/// A nonce that begins with these bytes: a bit follows them, so that the length is part of it.
fn nonce(bytes: &[u8]) -> ::cbc::cipher::array::Array<u8, U24> {
    let mut nonce = [0; 24];
    nonce[..bytes.len()].copy_from_slice(bytes);
    nonce[bytes.len()] = 1;
    nonce.into()
}

/// Poly1305 as a hash: nothing is added at the end.
fn poly1305(key: &[u8; 16]) -> Poly1305 {
    let mut whole = Zeroizing::new([0; 32]);
    whole[..16].copy_from_slice(key);
    Poly1305::new((&*whole).into())
}

/// NH of a piece. The end of its last unit is filled with zeroes.
fn nh(key: &[u32; NH_WORDS], piece: &[u8]) -> [u64; PASSES] {
    let mut sums = [0_u64; PASSES];
    let keys = key.windows(PASSES * UNIT / 4).step_by(UNIT / 4);
    for (unit, keys) in piece.chunks(UNIT).zip(keys) {
        let mut bytes = [0; UNIT];
        bytes[..unit.len()].copy_from_slice(unit);
        let mut words = [0; UNIT / 4];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        for (sum, key) in sums.iter_mut().zip(keys.as_chunks::<{ UNIT / 4 }>().0) {
            let factor = |n: usize| u64::from(words[n].wrapping_add(key[n]));
            *sum = sum
                .wrapping_add(factor(0) * factor(2))
                .wrapping_add(factor(1) * factor(3));
        }
    }
    sums
}

/// The cipher of sectors, whose tweak is an IV of dm-crypt.
struct Sectors<S> {
    cipher: Adiantum<S>,
    /// Whether the number is at the end of the IV.
    big_endian: bool,
}

impl<S> Sectors<S> {
    fn next(&self, tweaks: &mut Tweaks) -> [u8; TWEAK] {
        let mut iv = [0; TWEAK];
        let number = tweaks.next_tweak();
        let begin = if self.big_endian {
            TWEAK - number.len()
        } else {
            0
        };
        iv[begin..][..number.len()].copy_from_slice(&number);
        iv
    }
}

impl<S: Stream> SectorCipher for Sectors<S> {
    fn encrypt(&self, mut tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        for sector in data.chunks_exact_mut(sector_size) {
            self.cipher.encrypt(&self.next(&mut tweaks), sector);
        }
    }

    fn decrypt(&self, mut tweaks: Tweaks, sector_size: usize, data: &mut [u8]) {
        for sector in data.chunks_exact_mut(sector_size) {
            self.cipher.decrypt(&self.next(&mut tweaks), sector);
        }
    }
}

#[cfg(test)]
mod tests {
    use chacha20::{XChaCha12, XChaCha20};
    use luksmith_formats::CipherSpec;
    use luksmith_formats::json::Value;

    use super::super::{IvSector, SectorCrypt};
    use super::*;
    use crate::secret::VolumeKey;
    use crate::sectors;

    /// `tests/vectors/manifest.json` says where they come from.
    #[test]
    fn published_vectors() {
        fn both_ways<S: Stream>(key: &[u8], tweak: &[u8], plain: &[u8], cipher: &[u8]) {
            let adiantum = Adiantum::<S>::new(key.try_into().unwrap());
            let mut message = plain.to_vec();
            adiantum.encrypt(tweak, &mut message);
            assert!(message == cipher, "{} bytes", plain.len());
            adiantum.decrypt(tweak, &mut message);
            assert!(message == plain, "{} bytes", plain.len());
        }
        let text = include_str!("../../tests/vectors/adiantum.json");
        let vectors = Value::parse(text.as_bytes()).unwrap();
        let mut rounds = Vec::new();
        for test in vectors["tests"].as_array().unwrap() {
            let bytes = |member: &str| hex::decode(test[member].as_str().unwrap()).unwrap();
            let (key, tweak, plain) = (bytes("key"), bytes("tweak"), bytes("pt"));
            let run = match test["rounds"].as_u64().unwrap() {
                12 => both_ways::<XChaCha12>,
                20 => both_ways::<XChaCha20>,
                other => panic!("{other} rounds"),
            };
            run(&key, &tweak, &plain, &bytes("ct"));
            rounds.push(test["rounds"].as_u64().unwrap());
        }
        assert_eq!(rounds, [[12; 18], [20; 18]].concat());
    }

    #[test]
    fn the_tweak_of_a_sector_is_its_iv() {
        let key: [u8; 32] = std::array::from_fn(|n| u8::try_from(n * 7).unwrap());
        let number = 0x0102_0304_0506_0708_u64;
        let low = number.to_le_bytes();
        let plain: [u8; 4] = *low.first_chunk().unwrap();
        let cases: [(&str, usize, &[u8]); 3] = [
            ("plain", 0, &plain),
            ("plain64", 0, &low),
            ("plain64be", 24, &number.to_be_bytes()),
        ];
        for (iv, at, bytes) in cases {
            let mut tweak = [0; 32];
            tweak[at..][..bytes.len()].copy_from_slice(bytes);
            let mut expected = [0x5a; 1024];
            Adiantum::<XChaCha20>::new(&key).encrypt(&tweak, &mut expected);
            let spec = CipherSpec::parse(&format!("xchacha20,aes-adiantum-{iv}")).unwrap();
            let key = VolumeKey::copy_from(&key).unwrap();
            let crypt = SectorCrypt::new(spec, 1024, &key).unwrap();
            let mut data = sectors::Sectors::<sectors::Plain>::zeroed(2048);
            data.as_mut_slice().fill(0x5a);
            // The second sector is the one with this number.
            let data = crypt.encrypt(IvSector(number - 2), data);
            assert!(data.as_slice()[1024..] == expected, "{iv}");
            let data = crypt.decrypt(IvSector(number - 2), data);
            assert!(data.as_slice() == [0x5a; 2048], "{iv}");
        }
    }
}
