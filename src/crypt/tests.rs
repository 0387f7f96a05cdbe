//! Compares every cipher with a literal implementation of its specification.

use cbc::cipher::Array;
use sha2::{Digest, Sha256};

use super::modes::Both;
use super::*;

/// A literal implementation of the specification: one block at a time, without the crates of the
/// modes.
struct Oracle {
    data: OneBlock,
    second: Option<OneBlock>,
    spec: CipherSpec,
}

type OneBlock = Box<dyn Fn(&mut [u8; 16])>;

fn one_block(cipher: BlockCipher, key: &[u8]) -> OneBlock {
    fn with<C: Both + 'static>(key: &[u8]) -> OneBlock {
        let cipher = C::new_from_slice(key).unwrap();
        Box::new(move |block| {
            let mut array = Array(*block);
            cipher.encrypt_block(&mut array);
            *block = array.0;
        })
    }
    match (cipher, key.len()) {
        (BlockCipher::Aes, 16) => with::<aes::Aes128>(key),
        (BlockCipher::Aes, 24) => with::<aes::Aes192>(key),
        (BlockCipher::Aes, _) => with::<aes::Aes256>(key),
        #[cfg(feature = "ciphers")]
        (BlockCipher::Serpent, _) => with::<serpent::Serpent>(key),
        #[cfg(feature = "ciphers")]
        (BlockCipher::Twofish, _) => with::<twofish::Twofish>(key),
        #[cfg(feature = "ciphers")]
        (BlockCipher::Camellia, 16) => with::<camellia::Camellia128>(key),
        #[cfg(feature = "ciphers")]
        (BlockCipher::Camellia, 24) => with::<camellia::Camellia192>(key),
        #[cfg(feature = "ciphers")]
        (BlockCipher::Camellia, _) => with::<camellia::Camellia256>(key),
        #[cfg(not(feature = "ciphers"))]
        _ => unreachable!("{cipher:?} is not built"),
    }
}

impl Oracle {
    fn new(spec: CipherSpec, key: &[u8]) -> Self {
        let (data, second) = match (spec.mode, spec.iv) {
            (Mode::Xts, _) => (&key[..key.len() / 2], Some(key[key.len() / 2..].to_vec())),
            (_, IvGenerator::EssivSha256) => (key, Some(Sha256::digest(key).to_vec())),
            _ => (key, None),
        };
        let second = second.map(|key| one_block(spec.cipher, &key));
        Self {
            data: one_block(spec.cipher, data),
            second,
            spec,
        }
    }

    fn encrypt(&self, number: u64, sector: &mut [u8]) {
        let mut chain = [0; 16];
        match self.spec.iv {
            IvGenerator::Plain => chain[..4].copy_from_slice(&number.to_le_bytes()[..4]),
            IvGenerator::Plain64Be => chain[8..].copy_from_slice(&number.to_be_bytes()),
            _ => chain[..8].copy_from_slice(&number.to_le_bytes()),
        }
        if let Some(second) = &self.second {
            second(&mut chain);
        }
        for block in sector.as_chunks_mut::<16>().0 {
            xor(block, &chain);
            (self.data)(block);
            if self.spec.mode == Mode::Xts {
                xor(block, &chain);
                double(&mut chain);
            } else {
                chain = *block;
            }
        }
    }
}

fn xor(block: &mut [u8; 16], other: &[u8; 16]) {
    block.iter_mut().zip(other).for_each(|(a, b)| *a ^= b);
}

fn double(tweak: &mut [u8; 16]) {
    let mut carry = 0;
    for byte in tweak.iter_mut() {
        (*byte, carry) = ((*byte << 1) | carry, *byte >> 7);
    }
    tweak[0] ^= carry * 0x87;
}

fn every_spec() -> impl Iterator<Item = CipherSpec> {
    use IvGenerator::{EssivSha256, Plain, Plain64, Plain64Be};
    let modes = [Mode::Xts, Mode::Cbc];
    let ivs = [Plain, Plain64, Plain64Be, EssivSha256];
    BlockCipher::ALL.into_iter().flat_map(move |cipher| {
        let of_mode = move |mode| ivs.map(|iv| CipherSpec { cipher, mode, iv });
        modes.into_iter().flat_map(of_mode)
    })
}

fn is_used(spec: &CipherSpec) -> bool {
    (spec.mode, spec.iv) != (Mode::Xts, IvGenerator::EssivSha256)
}

fn is_built(spec: &CipherSpec) -> bool {
    check_built(spec.cipher).is_ok()
}

fn plaintext(len: usize) -> Sectors<Plain> {
    let mut sectors = Sectors::<Plain>::zeroed(len);
    let bytes = sectors.as_mut_slice().iter_mut().zip(0u64..);
    bytes.for_each(|(byte, n)| *byte = ((n * n) >> 5).to_le_bytes()[0]);
    sectors
}

#[test]
fn every_cipher_is_what_the_specification_says() {
    let key: Vec<u8> = (0..64u8).map(|n| n.wrapping_mul(73) ^ 5).collect();
    let mut count = 0;
    for spec in every_spec().filter(is_used).filter(is_built) {
        for &key_size in spec.key_sizes() {
            for sector_size in [512, 1024, 2048, 4096] {
                let key = VolumeKey::copy_from(&key[..key_size]).unwrap();
                let crypt = SectorCrypt::new(spec, sector_size, &key).unwrap();
                let oracle = Oracle::new(spec, key.as_bytes());
                // A few sectors on both sides of the ends of 32 and 64 bits.
                for first in [0, u64::from(u32::MAX) - 7, u64::MAX - 7] {
                    let plain = plaintext(3 * sector_size as usize);
                    let mut expected = plain.as_slice().to_vec();
                    let mut number = first;
                    for sector in expected.chunks_mut(sector_size as usize) {
                        oracle.encrypt(number, sector);
                        number = number.wrapping_add(u64::from(sector_size) / 512);
                    }
                    let cipher = crypt.encrypt(IvSector(first), plain);
                    assert!(
                        cipher.as_slice() == expected,
                        "{spec} {key_size} {sector_size}"
                    );
                    let plain = crypt.decrypt(IvSector(first), cipher);
                    let original = plaintext(plain.len());
                    assert!(plain.as_slice() == original.as_slice(), "{spec} {key_size}");
                    count += 1;
                }
            }
        }
    }
    let ciphers = if cfg!(feature = "ciphers") { 4 } else { 1 };
    // (3 IVs x 2 key sizes of XTS + 4 IVs x 3 key sizes of CBC) x ciphers x 4 sector sizes x 3
    // places.
    assert_eq!(count, (3 * 2 + 4 * 3) * ciphers * 4 * 3);
}

#[test]
#[cfg(not(feature = "ciphers"))]
fn a_cipher_that_is_not_built_names_its_feature() {
    let key = VolumeKey::copy_from(&[1; 32]).unwrap();
    let others = every_spec().filter(is_used).filter(|spec| !is_built(spec));
    let mut count = 0;
    for spec in others {
        let error = SectorCrypt::new(spec, 512, &key).unwrap_err();
        assert!(matches!(error, CryptError::MissingFeature(_)), "{spec}");
        let text = error.to_string();
        assert!(
            text.starts_with(spec.cipher.name()) && text.contains("\"ciphers\""),
            "{text}"
        );
        count += 1;
    }
    assert_eq!(count, 3 * (3 + 4));
}

#[test]
fn what_volumes_do_not_use_is_refused() {
    let essiv_xts = CipherSpec {
        iv: IvGenerator::EssivSha256,
        ..CipherSpec::AES_XTS_PLAIN64
    };
    let key = |len| VolumeKey::copy_from(&vec![1; len]).unwrap();
    let refused = |spec, size, len| SectorCrypt::new(spec, size, &key(len)).unwrap_err();
    assert!(
        matches!(refused(essiv_xts, 512, 64), CryptError::Unsupported(spec) if spec == essiv_xts)
    );
    for size in [0, 256, 513, 8192] {
        let error = refused(CipherSpec::AES_XTS_PLAIN64, size, 64);
        assert!(matches!(error, CryptError::SectorSize(refused) if refused == size));
    }
    for spec in every_spec().filter(is_used) {
        for len in [0, 1, 15, 17, 48, 65, 128] {
            assert!(
                matches!(refused(spec, 512, len), CryptError::Key(_)),
                "{spec} {len}"
            );
        }
    }
}

#[test]
fn numbers_of_sectors_wrap() {
    assert_eq!(IvSector(5).after_bytes(4096), IvSector(13));
    assert_eq!(IvSector(u64::MAX).after_bytes(512), IvSector(0));
}

#[test]
fn debug_shows_no_key() {
    let key = VolumeKey::copy_from(&[0xab; 64]).unwrap();
    let crypt = SectorCrypt::new(CipherSpec::AES_XTS_PLAIN64, 4096, &key).unwrap();
    assert_eq!(
        format!("{crypt:?}"),
        "SectorCrypt(aes-xts-plain64, 4096-byte sectors)"
    );
}
