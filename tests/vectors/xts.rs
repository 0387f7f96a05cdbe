//! AES-XTS with every kernel that runs on this machine.
//!
//! The kernels accept whole blocks. Vectors that need ciphertext stealing are run too. Each of them
//! has to be refused with its data unchanged, and each test asserts how many there are.

use luksmith::xts::{Kernel, TweakForm, Tweaks, Xts, XtsError};
use serde_json::Value;

use crate::{Vectors, bytes};

/// The results of the vectors of a file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    computed: u64,
    refused_partial_block: u64,
    /// Vectors whose data is not a whole number of bytes. Only the blocks that ciphertext stealing
    /// does not change are compared.
    not_in_bytes: u64,
}

impl Outcome {
    fn add(&mut self, other: &Self) {
        self.computed += other.computed;
        self.refused_partial_block += other.refused_partial_block;
        self.not_in_bytes += other.not_in_bytes;
    }

    fn all(&self) -> u64 {
        self.computed + self.refused_partial_block + self.not_in_bytes
    }
}

/// Encrypts and decrypts one data unit with a kernel.
fn run(
    kernel: Kernel,
    key: &[u8],
    tweaks: Tweaks,
    plain: &[u8],
    cipher: &[u8],
    test: &Value,
) -> Outcome {
    let mut outcome = Outcome::default();
    let size = plain.len();
    let xts = Xts::new(kernel, key).unwrap();
    let bits = test["bits"].as_u64().unwrap_or(size as u64 * 8);
    if !bits.is_multiple_of(128) {
        undisturbed_blocks(&xts, tweaks, bits, plain, cipher);
    }
    if !bits.is_multiple_of(8) {
        outcome.not_in_bytes += 1;
        return outcome;
    }
    let (mut encrypted, mut decrypted) = (plain.to_vec(), cipher.to_vec());
    let results = [
        xts.encrypt(tweaks, size, &mut encrypted),
        xts.decrypt(tweaks, size, &mut decrypted),
    ];
    if size.is_multiple_of(16) {
        assert_eq!(results, [Ok(()); 2]);
        assert_eq!(encrypted, cipher, "{kernel}: {test}");
        assert_eq!(decrypted, plain, "{kernel}: {test}");
        outcome.computed += 1;
    } else {
        assert_eq!(results, [Err(XtsError::SectorSize(size)); 2]);
        assert_eq!(
            (&encrypted[..], &decrypted[..]),
            (plain, cipher),
            "{kernel}: {test}"
        );
        outcome.refused_partial_block += 1;
    }
    outcome
}

/// Compares the blocks that ciphertext stealing does not change: all but the last whole block.
fn undisturbed_blocks(xts: &Xts, tweaks: Tweaks, bits: u64, plain: &[u8], cipher: &[u8]) {
    let len = usize::try_from(bits / 128).unwrap().saturating_sub(1) * 16;
    if len > 0 {
        let mut encrypted = plain[..len].to_vec();
        xts.encrypt(tweaks, len, &mut encrypted).unwrap();
        assert_eq!(encrypted, cipher[..len]);
    }
}

fn whole_tweak(test: &Value, member: &str) -> Tweaks {
    let mut tweak = bytes(test, member);
    tweak.resize(16, 0);
    let number = u128::from_le_bytes(tweak.try_into().unwrap());
    Tweaks::new(number, 1, TweakForm::Whole)
}

/// Runs a file with a flat list of tests.
fn listed(file: &'static str, expected: &Outcome, tweaks: impl Fn(&Value) -> Vec<Tweaks>) {
    let vectors = Vectors::load(file);
    for kernel in Kernel::available() {
        let mut outcome = Outcome::default();
        for test in vectors.json["tests"].as_array().unwrap() {
            let (key, plain, cipher) = (bytes(test, "key"), bytes(test, "pt"), bytes(test, "ct"));
            let run = |tweaks| run(kernel, &key, tweaks, &plain, &cipher, test);
            // A vector counts once, even if it is run in several forms of tweaks.
            let outcomes: Vec<_> = tweaks(test).into_iter().map(run).collect();
            outcome.add(&outcomes[0]);
        }
        assert_eq!(outcome, *expected, "{file}");
        vectors.assert_all_ran(outcome.all());
    }
}

/// 600 vectors of each file have whole blocks. The others have odd numbers of bits, and with
/// AES-128 also odd numbers of bytes.
const CAVP_AES128: Outcome = Outcome {
    computed: 600,
    refused_partial_block: 200,
    not_in_bytes: 200,
};
const CAVP_AES256: Outcome = Outcome {
    computed: 600,
    refused_partial_block: 0,
    not_in_bytes: 400,
};

fn cavp_whole(file: &'static str, expected: &Outcome) {
    listed(file, expected, |test| vec![whole_tweak(test, "tweak")]);
}

/// The number of the data unit, in every form of tweak that gives the same bytes.
fn cavp_numbered(file: &'static str, expected: &Outcome) {
    listed(file, expected, |test| {
        let number = test["data_unit"].as_u64().unwrap().into();
        let forms = [TweakForm::Plain, TweakForm::Plain64, TweakForm::Whole];
        forms.map(|form| Tweaks::new(number, 1, form)).to_vec()
    });
}

#[test]
fn cavp_aes128_with_a_tweak_of_16_bytes() {
    cavp_whole("xts/cavp_128hexstr_aes128.json", &CAVP_AES128);
}

#[test]
fn cavp_aes256_with_a_tweak_of_16_bytes() {
    cavp_whole("xts/cavp_128hexstr_aes256.json", &CAVP_AES256);
}

#[test]
fn cavp_aes128_with_the_number_of_the_data_unit() {
    cavp_numbered("xts/cavp_dataunitseqno_aes128.json", &CAVP_AES128);
}

#[test]
fn cavp_aes256_with_the_number_of_the_data_unit() {
    cavp_numbered("xts/cavp_dataunitseqno_aes256.json", &CAVP_AES256);
}

#[test]
fn ieee_1619_annex_b() {
    let expected = Outcome {
        computed: 22,
        refused_partial_block: 11,
        ..Outcome::default()
    };
    listed("xts/ieee1619_2007_annexB.json", &expected, |test| {
        vec![whole_tweak(test, "tweak")]
    });
}

#[test]
fn openssl() {
    let expected = Outcome {
        computed: 4,
        refused_partial_block: 4,
        ..Outcome::default()
    };
    listed("xts/openssl_nonstandard.json", &expected, |test| {
        vec![whole_tweak(test, "tweak")]
    });
}

#[test]
fn wycheproof() {
    let vectors = Vectors::load("xts/wycheproof_aes_xts_test.json");
    for kernel in Kernel::available() {
        let mut outcome = Outcome::default();
        for group in vectors.json["testGroups"].as_array().unwrap() {
            for test in group["tests"].as_array().unwrap() {
                // A short IV is the start of the tweak. A vector that has to fail would be a
                // surprise.
                assert_eq!(test["result"], "valid", "{test}");
                let (key, plain, cipher) =
                    (bytes(test, "key"), bytes(test, "msg"), bytes(test, "ct"));
                outcome.add(&run(
                    kernel,
                    &key,
                    whole_tweak(test, "iv"),
                    &plain,
                    &cipher,
                    test,
                ));
            }
        }
        assert_eq!(outcome.computed + outcome.refused_partial_block, 123);
        vectors.assert_all_ran(outcome.all());
    }
}

/// Compares runs of sectors of every size with the primitive of the vectors, one sector at a time.
/// The runs have consecutive tweaks, batches that cross sectors, and tails.
#[test]
fn runs_of_sectors_are_sectors_one_by_one() {
    let key: Vec<u8> = (0..64u8).map(|n| n.wrapping_mul(37) ^ 11).collect();
    for kernel in Kernel::available() {
        for key in [&key[..32], &key[..48], &key[..]] {
            let xts = Xts::new(kernel, key).unwrap();
            for sector_size in [16, 48, 512, 528, 1024, 2048, 4096] {
                for sectors in [1, 2, 3, 63, 64, 65, 130] {
                    let len = sector_size * sectors;
                    let plain: Vec<u8> = (0..len)
                        .map(|n: usize| (n * n / 7).to_le_bytes()[0])
                        .collect();
                    let (first, step) = (u128::from(u32::MAX - 60), 8);
                    let mut run = plain.clone();
                    xts.encrypt(
                        Tweaks::new(first, step, TweakForm::Plain),
                        sector_size,
                        &mut run,
                    )
                    .unwrap();
                    let mut single = plain.clone();
                    for (n, sector) in single.chunks_mut(sector_size).enumerate() {
                        let number = (first + step * n as u128) & u128::from(u32::MAX);
                        oracle(key, number, sector);
                    }
                    assert!(
                        run == single,
                        "{kernel}: {sectors} sectors of {sector_size}"
                    );
                    xts.decrypt(
                        Tweaks::new(first, step, TweakForm::Plain),
                        sector_size,
                        &mut run,
                    )
                    .unwrap();
                    assert!(run == plain, "{kernel}: {sectors} sectors of {sector_size}");
                }
            }
        }
    }
}

/// The `xts-mode` crate.
fn oracle(key: &[u8], number: u128, sector: &mut [u8]) {
    fn with<C>(key: &[u8], number: u128, sector: &mut [u8])
    where
        C: cipher::KeyInit
            + cipher::BlockCipherEncrypt
            + cipher::BlockSizeUser<BlockSize = cipher::consts::U16>,
    {
        let (data, tweak) = key.split_at(key.len() / 2);
        let keyed = |key| C::new_from_slice(key).unwrap();
        let xts = xts_mode::Xts128::new(keyed(data), keyed(tweak));
        xts.encrypt_sector(sector, xts_mode::get_tweak_default(number));
    }
    match key.len() {
        32 => with::<aes::Aes128>(key, number, sector),
        48 => with::<aes::Aes192>(key, number, sector),
        _ => with::<aes::Aes256>(key, number, sector),
    }
}
