//! LUKS images: both versions, both copies, and all that is refused.

use std::sync::{Arc, OnceLock};

use luksmith::Interrupt;
use luksmith::backend::memory::MemoryBackend;
use luksmith::container::{Container, CreateOptions, OpenOptions, Undo, Version};
use luksmith::kdf::calibrate::Cost;
use luksmith::secret::Passphrase;
use luksmith_formats::json::{Value, json};
use luksmith_formats::luks2::{Header, Position};
use luksmith_formats::{Hash, Limits};

use support::tagged::Tagged;

use crate::judge::{self, Case, be32, put, table};

/// The offset of the data of [`luks1`].
pub(crate) const LUKS1_DATA: usize = 2 << 20;
/// The offset of the data of [`luks2`].
pub(crate) const LUKS2_DATA: usize = 1 << 20;
/// The size of a copy of the header of [`luks2`].
const COPY: usize = 16 << 10;
const DATA: usize = 64 << 10;

fn make(version: Version, detached: bool) -> Vec<u8> {
    let cost = Cost::Pbkdf2 {
        hash: Hash::Sha256,
        iterations: 1000,
    };
    let mut options = CreateOptions::new(version, cost);
    options.data_offset = (version == Version::Luks2 && !detached).then_some(LUKS2_DATA as u64);
    options.detached = detached;
    let size = usize::try_from(options.layout().unwrap().header_size).unwrap();
    let storage = Arc::new(MemoryBackend::new(size + if detached { 0 } else { DATA }));
    let passphrase = Passphrase::copy_from(b"passphrase").unwrap();
    let (open, interrupt) = (OpenOptions::new(Undo::NotLookedFor), Interrupt::new());
    Container::create(storage.clone(), options, open, &passphrase, &interrupt).unwrap();
    storage.to_bytes()
}

/// A good LUKS1 image.
pub(crate) fn luks1() -> Vec<u8> {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| make(Version::Luks1, false)).clone()
}

/// A good LUKS2 image.
pub(crate) fn luks2() -> Vec<u8> {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| make(Version::Luks2, false)).clone()
}

/// Rewrites a copy of the header with changed JSON and a correct checksum.
fn rewrite(image: &mut [u8], position: Position, change: impl Fn(&mut Value)) {
    use sha2::Digest as _;
    let start = usize::try_from(position.offset(COPY as u64)).unwrap();
    let copy = &mut image[start..start + COPY];
    let header = Header::parse(copy, position, &Limits::default()).unwrap();
    let mut json = header.json().clone();
    change(&mut json);
    copy[4096..].fill(0);
    put(copy, 4096, json.to_string().as_bytes());
    copy[448..512].fill(0);
    let checksum = sha2::Sha256::digest(&*copy);
    put(copy, 448, &checksum);
}

/// Changes the JSON of both copies.
fn both(image: &mut [u8], change: impl Fn(&mut Value)) {
    for position in Position::ALL {
        rewrite(image, position, &change);
    }
}

#[test]
fn the_declared_version_counts() {
    let (one, two) = (luks1(), luks2());
    for (image, format, id) in [
        (&one, "luks", ""),
        (&one, "luks1", ""),
        (&one, "luks2", "luks.version"),
        (&two, "luks", ""),
        (&two, "luks2", ""),
        (&two, "luks1", "luks.version"),
        (&one, "raw", "format.other"),
        (&two, "raw", "format.other"),
        (&two, "qcow2", "format.not"),
    ] {
        judge::one(format, &judge::inspect(image, format), id);
    }
    let report = judge::inspect(&two, "luks");
    assert_eq!(report.virtual_size, Some(DATA as u64));
    assert_eq!(report.encryption.name(), "luks2");
}

#[test]
fn luks1_headers() {
    let cases: &[Case] = &[
        ("version 3", "luks.version", |i| put(i, 6, &[0, 3])),
        ("a null cipher", "luks.header", |i| {
            put(i, 8, b"cipher_null\0")
        }),
        ("an unknown mode", "luks.header", |i| put(i, 40, b"ecb\0")),
        ("an unknown hash", "luks.header", |i| put(i, 72, b"md5\0")),
        ("a key of 7 bytes", "luks.header", |i| be32(i, 108, 7)),
        ("keyslots on each other", "luks.header", |i| {
            let first = i[248..252].to_vec();
            put(i, 296, &first);
        }),
        ("data in the keyslots", "luks.header", |i| be32(i, 104, 16)),
        ("data behind the image", "luks.size", |i| {
            be32(i, 104, u32::MAX)
        }),
        ("cut in the keyslots", "luks.size", |i| i.truncate(64 << 10)),
        ("cut in the header", "luks.header", |i| i.truncate(500)),
        ("detached", "luks.detached", |i| be32(i, 104, 0)),
        ("the most iterations", "policy.kdf-ceiling", |i| {
            be32(i, 212, i32::MAX.cast_unsigned())
        }),
        ("few iterations", "policy.kdf-floor", |i| be32(i, 212, 999)),
        (
            "a digest of the most iterations",
            "policy.kdf-ceiling",
            |i| be32(i, 164, u32::MAX),
        ),
        ("no keyslot in use", "luks.keyslots", |i| {
            be32(i, 208, 0x0000_dead)
        }),
        ("data longer than it was", "", |i| {
            i.resize(LUKS1_DATA + 4 * DATA, 0)
        }),
    ];
    table("luks1", &luks1(), cases);
}

#[test]
fn luks2_copies() {
    let cases: &[Case] = &[
        ("a damaged first copy", "luks.header", |i| {
            put(i, 5000, b"x")
        }),
        ("a damaged second copy", "luks.copies", |i| {
            put(i, COPY + 5000, b"x")
        }),
        ("no second copy", "luks.copies", |i| {
            i[COPY..2 * COPY].fill(0)
        }),
        ("a size that there is not", "luks.header", |i| {
            put(i, 8, &[1])
        }),
        ("another token in the second copy", "luks.copies", |i| {
            rewrite(i, Position::Secondary, |json| {
                json["tokens"]["0"] = json!({"type": "x", "keyslots": []});
            });
        }),
        ("another token in both copies", "", |i| {
            both(i, |json| {
                json["tokens"]["0"] = json!({"type": "x", "keyslots": []})
            });
        }),
        ("an older second copy", "luks.copies", |i| {
            put(i, COPY + 16, &0_u64.to_be_bytes());
            rewrite_sealed(i);
        }),
    ];
    table("luks2", &luks2(), cases);
}

/// Corrects the checksum of the second copy after a change of its binary header.
fn rewrite_sealed(image: &mut [u8]) {
    use sha2::Digest as _;
    let copy = &mut image[COPY..2 * COPY];
    copy[448..512].fill(0);
    let checksum = sha2::Sha256::digest(&*copy);
    put(copy, 448, &checksum);
}

#[test]
fn luks2_metadata() {
    let cases: &[Case] = &[
        ("a null cipher for the data", "luks.header", |i| {
            both(i, |json| {
                json["segments"]["0"]["encryption"] = "cipher_null-ecb".into()
            });
        }),
        ("a null cipher for a keyslot", "luks.header", |i| {
            both(i, |json| {
                json["keyslots"]["0"]["area"]["encryption"] = "cipher_null-ecb".into();
            });
        }),
        ("a segment that is not encrypted", "luks.segment", |i| {
            both(i, |json| {
                json["segments"]["0"] =
                    json!({"type": "linear", "offset": "1048576", "size": "dynamic"});
                json["digests"]["0"]["segments"] = json!([]);
            });
        }),
        ("a requirement", "luks.requirements", |i| {
            both(i, |json| {
                json["config"]["requirements"] = json!({"mandatory": ["future"]});
            });
        }),
        (
            "authenticated encryption without tags",
            "luks.integrity",
            |i| {
                both(i, |json| {
                    json["segments"]["0"]["integrity"] = json!({"type": "hmac(sha256)", "journal_encryption": "none", "journal_integrity": "none"});
                });
            },
        ),
        ("a fixed size", "", |i| {
            both(i, |json| json["segments"]["0"]["size"] = "4096".into());
        }),
        ("a size behind the image", "luks.size", |i| {
            both(i, |json| {
                json["segments"]["0"]["size"] = "1125899906842624".into()
            });
        }),
        ("an offset behind the image", "luks.size", |i| {
            both(i, |json| {
                json["segments"]["0"]["offset"] = "1125899906842624".into()
            });
        }),
        ("cut in the keyslots", "luks.size", |i| i.truncate(64 << 10)),
        ("the most iterations", "policy.kdf-ceiling", |i| {
            both(i, |json| {
                json["keyslots"]["0"]["kdf"]["iterations"] = 2_147_483_647.into()
            });
        }),
        ("few iterations", "policy.kdf-floor", |i| {
            both(i, |json| {
                json["keyslots"]["0"]["kdf"]["iterations"] = 10.into()
            });
        }),
        ("argon2 with 64 GiB", "policy.kdf-ceiling", |i| {
            both(i, |json| {
                let salt = json["keyslots"]["0"]["kdf"]["salt"].clone();
                json["keyslots"]["0"]["kdf"] = json!({"type": "argon2id", "time": 4, "memory": 64 << 20, "cpus": 4, "salt": salt});
            });
        }),
    ];
    table("luks2", &luks2(), cases);
    judge::one(
        "detached",
        &judge::inspect(&make(Version::Luks2, true), "luks2"),
        "luks.detached",
    );
}

#[test]
fn authenticated_encryption() {
    const SUPERBLOCK: usize = 1 << 20;
    let good = Tagged::named("hmac-plain64-4096");
    let cases: &[Case] = &[
        ("a cipher that is not supported", "luks.header", |i| {
            both(i, |json| {
                json["segments"]["0"]["integrity"]["type"] = "hmac(sha1)".into();
            });
        }),
        ("no superblock", "luks.integrity", |i| {
            i[SUPERBLOCK..][..512].fill(0)
        }),
        ("an unknown version", "luks.integrity", |i| {
            put(i, SUPERBLOCK + 8, &[7])
        }),
        ("tags of another size", "luks.integrity", |i| {
            put(i, SUPERBLOCK + 10, &[48])
        }),
        ("sectors of another size", "luks.integrity", |i| {
            put(i, SUPERBLOCK + 28, &[2])
        }),
        ("data behind the image", "luks.integrity", |i| {
            put(i, SUPERBLOCK + 18, &[1])
        }),
        ("cut before the superblock", "luks.size", |i| {
            i.truncate(SUPERBLOCK)
        }),
        ("a write in the journal", "luks.tags", |i| {
            put(i, SUPERBLOCK + 4096 + 4, &[0; 4])
        }),
    ];
    table("luks2", &good.image, cases);
    let report = judge::inspect(&good.image, "luks2");
    judge::one("good", &report, "luks.tags");
    assert_eq!(report.virtual_size, Some(good.size));
}
