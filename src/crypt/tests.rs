//! Compares every cipher with a literal implementation of its specification.

use ::cbc::cipher::Block;
use sha2::Digest;

use super::modes::Both;
use super::*;

/// A literal implementation of the specification: one block at a time, without the crates of the
/// modes.
struct Oracle {
    data: OneBlock,
    essiv: Option<OneBlock>,
    tweak: Option<OneBlock>,
    spec: CipherSpec,
}

type OneBlock = Box<dyn Fn(&mut [u8])>;

fn one_block(cipher: BlockCipher, key: &[u8]) -> OneBlock {
    fn with<C: Both + 'static>(key: &[u8]) -> OneBlock {
        let cipher = C::new_from_slice(key).unwrap();
        Box::new(move |bytes| {
            let mut block = Block::<C>::default();
            block.copy_from_slice(bytes);
            cipher.encrypt_block(&mut block);
            bytes.copy_from_slice(&block);
        })
    }
    match (cipher, key.len()) {
        (BlockCipher::Aes, 16) => with::<aes::Aes128>(key),
        (BlockCipher::Aes, 24) => with::<aes::Aes192>(key),
        (BlockCipher::Aes, _) => with::<aes::Aes256>(key),
        #[cfg(feature = "ciphers")]
        (BlockCipher::Serpent, _) => with::<serpent::Serpent>(key),
        #[cfg(feature = "ciphers")]
        (BlockCipher::Twofish, _) => with::<::twofish::Twofish>(key),
        #[cfg(feature = "ciphers")]
        (BlockCipher::Camellia, 16) => with::<camellia::Camellia128>(key),
        #[cfg(feature = "ciphers")]
        (BlockCipher::Camellia, 24) => with::<camellia::Camellia192>(key),
        #[cfg(feature = "ciphers")]
        (BlockCipher::Camellia, _) => with::<camellia::Camellia256>(key),
        #[cfg(feature = "ciphers")]
        (BlockCipher::Cast5, _) => with::<cast5::Cast5>(key),
        _ => unreachable!("{cipher:?} is not built, or has no blocks of this kind"),
    }
}

fn digest(hash: EssivHash, key: &[u8]) -> Vec<u8> {
    match hash {
        EssivHash::Sha256 => sha2::Sha256::digest(key).to_vec(),
        #[cfg(feature = "ciphers")]
        EssivHash::Sha3_256 => sha3::Sha3_256::digest(key).to_vec(),
        #[cfg(feature = "ciphers")]
        EssivHash::Sm3 => sm3::Sm3::digest(key).to_vec(),
        #[cfg(not(feature = "ciphers"))]
        EssivHash::Sha3_256 | EssivHash::Sm3 => unreachable!("{hash:?} is not built"),
    }
}

impl Oracle {
    fn new(spec: CipherSpec, key: &[u8]) -> Self {
        let with = |key: &[u8]| one_block(spec.cipher, key);
        let (data, tweak) = match spec.mode {
            Mode::Xts => (&key[..key.len() / 2], Some(with(&key[key.len() / 2..]))),
            Mode::Cbc | Mode::Ecb => (key, None),
            Mode::Adiantum => unreachable!("adiantum has vectors"),
        };
        let essiv = match spec.iv {
            IvGenerator::Essiv(hash) => Some(with(&digest(hash, key))),
            _ => None,
        };
        Self {
            data: with(data),
            essiv,
            tweak,
            spec,
        }
    }

    fn encrypt(&self, number: u64, sector: &mut [u8]) {
        let size = match self.spec.cipher {
            BlockCipher::Cast5 => 8,
            _ => 16,
        };
        let mut chain = vec![0; size];
        match self.spec.iv {
            IvGenerator::Plain => chain[..4].copy_from_slice(&number.to_le_bytes()[..4]),
            IvGenerator::Plain64Be => chain[size - 8..].copy_from_slice(&number.to_be_bytes()),
            _ => chain[..8].copy_from_slice(&number.to_le_bytes()),
        }
        for cipher in [&self.essiv, &self.tweak].into_iter().flatten() {
            cipher(&mut chain);
        }
        for block in sector.chunks_mut(size) {
            match self.spec.mode {
                Mode::Xts => {
                    xor(block, &chain);
                    (self.data)(block);
                    xor(block, &chain);
                    double(&mut chain);
                }
                Mode::Cbc => {
                    xor(block, &chain);
                    (self.data)(block);
                    chain.copy_from_slice(block);
                }
                Mode::Ecb => (self.data)(block),
                Mode::Adiantum => unreachable!("adiantum has vectors"),
            }
        }
    }
}

fn xor(block: &mut [u8], other: &[u8]) {
    block.iter_mut().zip(other).for_each(|(a, b)| *a ^= b);
}

fn double(tweak: &mut [u8]) {
    let mut carry = 0;
    for byte in tweak.iter_mut() {
        (*byte, carry) = ((*byte << 1) | carry, *byte >> 7);
    }
    tweak[0] ^= carry * 0x87;
}

fn is_built(spec: &CipherSpec) -> bool {
    check_built(*spec).is_ok()
}

fn plaintext(len: usize) -> Sectors<Plain> {
    let mut sectors = Sectors::<Plain>::zeroed(len);
    let bytes = sectors.as_mut_slice().iter_mut().zip(0u64..);
    bytes.for_each(|(byte, n)| *byte = ((n * n) >> 5).to_le_bytes()[0]);
    sectors
}

/// Sectors that are encrypted together are what they are one by one.
#[test]
fn sectors_do_not_depend_on_their_number() {
    let key: Vec<u8> = (0..64u8).map(|n| n.wrapping_mul(151) ^ 9).collect();
    for name in [
        "aes-cbc-essiv:sha256",
        "aes-xts-essiv:sha256",
        "serpent-cbc-plain64",
        "serpent-xts-plain64",
        "twofish-cbc-essiv:sha256",
        "twofish-xts-essiv:sha256",
        "twofish-ecb",
        "camellia-cbc-plain64be",
        "camellia-xts-plain64",
        "cast5-cbc-plain64",
    ] {
        let spec = CipherSpec::parse(name).unwrap();
        if !is_built(&spec) {
            continue;
        }
        let key = VolumeKey::copy_from(&key[..spec.default_key_size()]).unwrap();
        let crypt = SectorCrypt::new(spec, 512, &key).unwrap();
        let first = IvSector(u64::from(u32::MAX) - 30);
        let mut expected = Vec::new();
        for (part, n) in plaintext(150 * 512).as_slice().chunks(512).zip(0..) {
            let mut one = Sectors::<Plain>::with_len(512);
            one.as_mut_slice().copy_from_slice(part);
            let cipher = crypt.encrypt(first.after_bytes(n * 512), one);
            expected.extend_from_slice(cipher.as_slice());
        }
        for count in (0..20).chain([31, 32, 33, 63, 64, 65, 100, 128, 150]) {
            let len = count * 512;
            let cipher = crypt.encrypt(first, plaintext(len));
            assert!(cipher.as_slice() == &expected[..len], "{name} {count}");
            let plain = crypt.decrypt(first, cipher);
            assert!(
                plain.as_slice() == plaintext(len).as_slice(),
                "{name} {count}"
            );
        }
    }
}

/// Encrypts from and decrypts to windows, whose boundaries are not those of sectors.
fn through_windows(crypt: &SectorCrypt, first: IvSector, plain: &[u8], cipher: &[u8]) {
    for piece in [plain.len(), plain.len() / 3, 1000, 1] {
        let mut memory = plain.to_vec();
        let windows: Vec<_> = memory.chunks_mut(piece).map(Window::from).collect();
        let encrypted = crypt.encrypt_from(first, Windows::new(&windows));
        assert!(encrypted.as_slice() == cipher, "{crypt:?} from {piece}");
        drop(windows);
        assert!(memory == plain);
        memory.fill(0);
        let windows: Vec<_> = memory.chunks_mut(piece).map(Window::from).collect();
        crypt.decrypt_into(first, &encrypted, Windows::new(&windows));
        drop(windows);
        assert!(memory == plain, "{crypt:?} into {piece}");
    }
}

#[test]
fn every_cipher_is_what_the_specification_says() {
    let key: Vec<u8> = (0..64u8).map(|n| n.wrapping_mul(73) ^ 5).collect();
    let mut count = 0;
    // Adiantum is compared with published vectors.
    let blocks = CipherSpec::all().filter(|spec| spec.mode != Mode::Adiantum);
    for spec in blocks.filter(is_built) {
        for &key_size in spec.key_sizes() {
            // The others are slow.
            let sector_sizes = match spec.cipher {
                BlockCipher::Aes => &[512, 1024, 2048, 4096][..],
                _ => &[512, 1024],
            };
            count += 1;
            for &sector_size in sector_sizes {
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
                    through_windows(&crypt, IvSector(first), plain.as_slice(), &expected);
                    let cipher = crypt.encrypt(IvSector(first), plain);
                    assert!(
                        cipher.as_slice() == expected,
                        "{spec} {key_size} {sector_size}"
                    );
                    let plain = crypt.decrypt(IvSector(first), cipher);
                    let original = plaintext(plain.len());
                    assert!(plain.as_slice() == original.as_slice(), "{spec} {key_size}");
                }
            }
        }
    }
    // AES: xts and cbc with 6 IVs, ecb with 7, each with 3 key sizes. Without the feature there is
    // one hash of ESSIV. The others: three such ciphers, and cast5.
    let all = match cfg!(feature = "ciphers") {
        true => 4 * (6 + 6 + 7) * 3 + 7,
        false => (4 + 4 + 5) * 3,
    };
    assert_eq!(count, all);
}

#[test]
#[cfg(not(feature = "ciphers"))]
fn a_cipher_that_is_not_built_names_its_feature() {
    let others = CipherSpec::all().filter(|spec| !is_built(spec));
    let mut count = 0;
    for spec in others {
        let key = VolumeKey::copy_from(&vec![1; spec.default_key_size()]).unwrap();
        let error = SectorCrypt::new(spec, 512, &key).unwrap_err();
        assert!(matches!(error, CryptError::MissingFeature(_)), "{spec}");
        let text = error.to_string();
        let name = match (spec.cipher, spec.iv) {
            (BlockCipher::Aes, IvGenerator::Essiv(hash)) => hash.hash().name(),
            (cipher, _) => cipher.name(),
        };
        assert!(
            text.starts_with(name) && text.contains("\"ciphers\""),
            "{text}"
        );
        count += 1;
    }
    // Three ciphers as AES, cast5, adiantum, and AES with two hashes of ESSIV.
    assert_eq!(count, 3 * (6 + 6 + 7) + 7 + 2 * 3 + 2 * 3);
}

#[test]
fn what_volumes_do_not_use_is_refused() {
    let essiv_cast5 = CipherSpec {
        cipher: BlockCipher::Cast5,
        mode: Mode::Cbc,
        iv: IvGenerator::Essiv(EssivHash::Sha256),
    };
    let key = |len| VolumeKey::copy_from(&vec![1; len]).unwrap();
    let refused = |spec, size, len| SectorCrypt::new(spec, size, &key(len)).unwrap_err();
    let error = refused(essiv_cast5, 512, 16);
    assert!(matches!(error, CryptError::Unsupported(spec) if spec == essiv_cast5));
    for size in [0, 256, 513, 8192] {
        let error = refused(CipherSpec::AES_XTS_PLAIN64, size, 64);
        assert!(matches!(error, CryptError::SectorSize(refused) if refused == size));
    }
    for spec in CipherSpec::all() {
        for len in [0, 1, 15, 17, 33, 47, 65, 96, 128] {
            assert!(
                matches!(refused(spec, 512, len), CryptError::Key(_)),
                "{spec} {len}"
            );
        }
    }
}

/// RFC 2144, appendix B.1.
#[cfg(feature = "ciphers")]
#[test]
fn cast5_is_that_of_its_rfc() {
    let key = hex::decode("0123456712345678234567893456789a").unwrap();
    let key = VolumeKey::copy_from(&key).unwrap();
    let spec = CipherSpec::parse("cast5-ecb").unwrap();
    let crypt = SectorCrypt::new(spec, 512, &key).unwrap();
    let block = |text| hex::decode(text).unwrap().repeat(64);
    let mut plain = Sectors::<Plain>::zeroed(512);
    plain
        .as_mut_slice()
        .copy_from_slice(&block("0123456789abcdef"));
    let cipher = crypt.encrypt(IvSector(3), plain);
    assert_eq!(cipher.as_slice(), block("238b4fe5847e44b2"));
    let plain = crypt.decrypt(IvSector(5), cipher);
    assert_eq!(plain.as_slice(), block("0123456789abcdef"));
}

#[test]
#[should_panic(expected = "windows of another length")]
fn windows_of_another_length_are_refused() {
    let key = VolumeKey::copy_from(&[3; 64]).unwrap();
    let crypt = SectorCrypt::new(CipherSpec::AES_XTS_PLAIN64, 512, &key).unwrap();
    let mut memory = [0; 1024];
    let windows = [Window::from(&mut memory[..])];
    let sectors = Sectors::<Cipher>::zeroed(512);
    crypt.decrypt_into(IvSector(0), &sectors, Windows::new(&windows));
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

#[test]
fn the_kernels_use_no_more_of_the_stack_than_is_overwritten() {
    use crate::secret::stack_tests::{LIMIT, depth_of};
    for kernel in Kernel::available() {
        if kernel == Kernel::Portable {
            continue;
        }
        for key_size in [32, 64] {
            let key = VolumeKey::random(key_size).unwrap();
            let spec = CipherSpec::parse("aes-xts-plain64").unwrap();
            for sector_size in [512, 4096] {
                let crypt = SectorCrypt::with_kernel(spec, sector_size, &key, kernel).unwrap();
                let (tweaks, size) = crypt.prepare(IvSector(0), 65536);
                let mut data = vec![0; 65536];
                let depth = depth_of(|| crypt.cipher.encrypt(tweaks, size, &mut data));
                assert!(depth <= LIMIT, "{kernel}, {key_size}: {depth}");
                let depth = depth_of(|| crypt.cipher.decrypt(tweaks, size, &mut data));
                assert!(depth <= LIMIT, "{kernel}, {key_size}: {depth}");
            }
        }
    }
}
