//! The volumes that they and we make. A row is one volume. Values that need not be combined with
//! every other one rotate from row to row, so that each value is beside many others.

use crate::ours;
use luksmith::container::{CreateOptions, Version};
use luksmith::kdf::calibrate::Cost;
use luksmith_formats::luks2::{Argon2Variant, HEADER_SIZES};
use luksmith_formats::{CipherSpec, Hash};
use std::collections::BTreeSet;

const MIB: u64 = 1 << 20;
/// Space for two keyslots of 512 bits.
const KEYSLOTS_SIZE: u64 = MIB / 2;

const CIPHERS: [&str; 4] = ["aes", "serpent", "twofish", "camellia"];

/// Mode, key size in bits, sector size.
const LUKS2_MODES: [(&str, usize, u32); 10] = [
    ("xts-plain64", 512, 4096),
    ("xts-plain64", 256, 512),
    ("xts-plain", 384, 1024),
    ("xts-plain64be", 256, 2048),
    ("xts-essiv:sha256", 384, 4096),
    ("cbc-essiv:sha256", 256, 4096),
    ("cbc-essiv:sha256", 128, 512),
    ("cbc-plain64", 192, 2048),
    ("cbc-plain", 256, 1024),
    ("cbc-plain64be", 128, 512),
];

/// Combinations that one cipher is enough for.
const LUKS2_MORE: [(&str, (&str, usize, u32)); 9] = [
    ("aes", ("xts-plain64", 384, 4096)),
    ("aes", ("xts-essiv:sha256", 512, 512)),
    ("aes", ("cbc-essiv:sha3-256", 256, 512)),
    ("serpent", ("xts-essiv:sha3-256", 512, 4096)),
    ("xchacha12,aes", ("adiantum-plain64", 256, 4096)),
    ("xchacha12,aes", ("adiantum-plain", 256, 1024)),
    ("xchacha20,aes", ("adiantum-plain64", 256, 512)),
    ("xchacha20,aes", ("adiantum-plain64", 256, 2048)),
    ("xchacha20,aes", ("adiantum-plain64be", 256, 4096)),
];

const LUKS1_MODES: [(&str, usize); 5] = [
    ("xts-plain64", 384),
    ("xts-plain", 256),
    ("cbc-essiv:sha256", 256),
    ("cbc-plain64", 192),
    ("cbc-plain", 128),
];

const HASHES: [Hash; 14] = [
    Hash::Sha256,
    Hash::Sha1,
    Hash::Sha224,
    Hash::Sha384,
    Hash::Sha512,
    Hash::Ripemd160,
    Hash::Whirlpool,
    Hash::Sm3,
    Hash::Sha3_224,
    Hash::Sha3_256,
    Hash::Sha3_384,
    Hash::Sha3_512,
    Hash::Blake2s256,
    Hash::Blake2b512,
];

/// Volumes that are only read: the version, the cipher, the key size in bits, the sector size.
const ONLY_READ: [(Version, &str, usize, u32); 6] = [
    (Version::Luks2, "aes-ecb", 256, 4096),
    (Version::Luks2, "serpent-ecb", 192, 512),
    (Version::Luks2, "cast5-cbc-plain64", 128, 4096),
    (Version::Luks2, "cast5-cbc-plain64be", 128, 512),
    (Version::Luks1, "cast5-cbc-plain", 128, 512),
    (Version::Luks1, "aes-ecb", 128, 512),
];

/// Where the header is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Before the data.
    Attached,
    /// In a separate file. The data begins at byte 0 of the other file.
    Detached,
    /// In a separate file. The data begins at this byte of the other file.
    DetachedAt(u64),
}

#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) version: Version,
    pub(crate) cipher: String,
    pub(crate) key_bits: usize,
    pub(crate) sector_size: u32,
    pub(crate) hash: Hash,
    /// `pbkdf2`, `argon2i` or `argon2id`.
    pub(crate) kdf: &'static str,
    pub(crate) slot: u32,
    /// LUKS2 only.
    pub(crate) metadata_size: u64,
    pub(crate) place: Place,
    /// Where attached data begins.
    data_offset: u64,
}

/// All volumes of the matrix.
pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (place, kdf) in [
        (Place::Detached, "argon2id"),
        (Place::DetachedAt(MIB + 4096), "pbkdf2"),
    ] {
        rows.push(Row {
            place,
            kdf,
            ..luks2(rows.len(), "aes", LUKS2_MODES[0])
        });
    }
    for cipher in CIPHERS {
        for mode in LUKS2_MODES {
            rows.push(luks2(rows.len(), cipher, mode));
        }
    }
    for (cipher, mode) in LUKS2_MORE {
        rows.push(luks2(rows.len(), cipher, mode));
    }
    let count = rows.len();
    for cipher in CIPHERS {
        for mode in LUKS1_MODES {
            rows.push(luks1(rows.len() - count, cipher, mode));
        }
    }
    rows.push(Row {
        place: Place::Detached,
        ..luks1(0, "aes", LUKS1_MODES[0])
    });
    rows.push(luks1(1, "xchacha12,aes", ("adiantum-plain64", 256)));
    rows
}

/// Volumes that only they make.
pub(crate) fn only_read() -> Vec<Row> {
    let row = |(version, cipher, key_bits, sector_size): (_, &str, _, _)| Row {
        cipher: cipher.into(),
        ..match version {
            Version::Luks1 => luks1(0, "", ("", key_bits)),
            Version::Luks2 => luks2(0, "", ("", key_bits, sector_size)),
        }
    };
    ONLY_READ.into_iter().map(row).collect()
}

fn luks2(index: usize, cipher: &str, (mode, key_bits, sector_size): (&str, usize, u32)) -> Row {
    let metadata_size = HEADER_SIZES[index % HEADER_SIZES.len()];
    Row {
        version: Version::Luks2,
        cipher: format!("{cipher}-{mode}"),
        key_bits,
        sector_size,
        // Every second row has pbkdf2, so that each hash is beside it.
        hash: HASHES[index / 2 % HASHES.len()],
        kdf: ["pbkdf2", "argon2id", "pbkdf2", "argon2i"][index % 4],
        slot: u32::try_from(index % 32).expect("below 32"),
        metadata_size,
        place: Place::Attached,
        data_offset: (2 * metadata_size + KEYSLOTS_SIZE).next_multiple_of(MIB),
    }
}

fn luks1(index: usize, cipher: &str, (mode, key_bits): (&str, usize)) -> Row {
    // Eight areas end at sector 4040. Data that begins there is aligned only to a page.
    let data_offset = [2 * MIB, 4040 * 512][index % 2];
    Row {
        version: Version::Luks1,
        cipher: format!("{cipher}-{mode}"),
        key_bits,
        sector_size: 512,
        hash: HASHES[index % HASHES.len()],
        kdf: "pbkdf2",
        slot: u32::try_from(index % 8).expect("below 8"),
        metadata_size: 0,
        place: Place::Attached,
        data_offset,
    }
}

impl Row {
    /// Where the data begins in its file.
    pub(crate) fn data_offset(&self) -> u64 {
        match self.place {
            Place::Attached => self.data_offset,
            Place::Detached => 0,
            Place::DetachedAt(offset) => offset,
        }
    }

    /// Bytes of payload. This is no round number, so that the end is tested too.
    pub(crate) fn payload_len(&self) -> usize {
        (512 << 10) + 3 * self.sector_size as usize
    }

    /// Bytes of the file that holds the data.
    pub(crate) fn image_size(&self) -> u64 {
        self.data_offset() + self.payload_len() as u64
    }

    /// Bytes for a header in a separate file.
    pub(crate) fn header_size(&self) -> Option<u64> {
        (self.place != Place::Attached).then_some(self.data_offset.max(2 * MIB))
    }

    /// As options of `cryptsetup luksFormat`.
    pub(crate) fn their_options(&self) -> Vec<String> {
        let mut options = vec![
            "--type".into(),
            self.version.to_string().to_lowercase(),
            "--cipher".into(),
            self.cipher.clone(),
            format!("--key-size={}", self.key_bits),
            format!("--hash={}", self.hash),
            format!("--key-slot={}", self.slot),
            format!("--pbkdf={}", self.kdf),
        ];
        if self.place != Place::Detached {
            options.push(format!("--offset={}", self.data_offset() / 512));
        }
        if self.version == Version::Luks2 {
            options.extend([
                format!("--sector-size={}", self.sector_size),
                format!("--luks2-metadata-size={}k", self.metadata_size / 1024),
                format!("--luks2-keyslots-size={}k", KEYSLOTS_SIZE / 1024),
            ]);
        }
        if self.kdf == "pbkdf2" {
            options.push("--pbkdf-force-iterations=1000".into());
        } else {
            options.extend([
                "--pbkdf-force-iterations=4".into(),
                "--pbkdf-memory=32".into(),
                "--pbkdf-parallel=1".into(),
            ]);
        }
        options
    }

    /// As options of the library.
    pub(crate) fn our_options(&self) -> CreateOptions {
        let luks2 = self.version == Version::Luks2;
        let mut options = CreateOptions::new(self.version, self.cost());
        options.cipher = CipherSpec::parse(&self.cipher).expect("the table names known ciphers");
        options.key_size = self.key_bits / 8;
        options.hash = self.hash;
        options.sector_size = self.sector_size;
        options.keyslot = self.slot;
        options.data_offset = (self.place != Place::Detached).then_some(self.data_offset());
        options.metadata_size = luks2.then_some(self.metadata_size);
        options.keyslots_size = luks2.then_some(KEYSLOTS_SIZE);
        options.detached = self.place != Place::Attached;
        options.blank = true;
        options
    }

    fn cost(&self) -> Cost {
        match self.kdf {
            "argon2i" => ours::quick_argon2(Argon2Variant::I),
            "argon2id" => ours::quick_argon2(Argon2Variant::Id),
            _ => Cost::Pbkdf2 {
                hash: self.hash,
                iterations: 1000,
            },
        }
    }
}

/// Every value of the tables is in some row.
#[test]
fn the_table_has_every_value() {
    fn values<T: Ord>(rows: &[Row], value: impl Fn(&Row) -> T) -> BTreeSet<T> {
        rows.iter().map(value).collect()
    }
    let (luks2, luks1): (Vec<_>, Vec<_>) = rows()
        .into_iter()
        .partition(|row| row.version == Version::Luks2);
    assert_eq!(values(&luks2, |row| row.slot), (0..32).collect());
    assert_eq!(values(&luks1, |row| row.slot), (0..8).collect());
    assert_eq!(values(&luks2, |row| row.metadata_size), HEADER_SIZES.into());
    assert_eq!(
        values(&luks2, |row| row.sector_size),
        [512, 1024, 2048, 4096].into()
    );
    assert_eq!(
        values(&luks2, |row| row.kdf),
        ["argon2i", "argon2id", "pbkdf2"].into()
    );
    let hashes: BTreeSet<String> = HASHES.iter().map(ToString::to_string).collect();
    assert_eq!(values(&luks1, |row| row.hash.to_string()), hashes);
    let pbkdf2: Vec<_> = luks2
        .iter()
        .filter(|row| row.kdf == "pbkdf2")
        .cloned()
        .collect();
    assert_eq!(values(&pbkdf2, |row| row.hash.to_string()), hashes);
    assert_eq!(
        values(&luks2, |row| row.cipher.clone()).len(),
        4 * 8 + 2 + 4
    );
    assert_eq!(values(&luks1, |row| row.cipher.clone()).len(), 4 * 5 + 1);
}
