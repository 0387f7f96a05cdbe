//! LUKS1 headers with one change each.

use luksmith_formats::luks1::{HEADER_SIZE, Header, Keyslot};
use luksmith_formats::{Limits, Version};

use crate::verdict::{Verdict, judge, malformed, over_limit, unsupported};

/// A header as cryptsetup makes it: 512-bit key, key material from sector 8 on, payload at sector
/// 4096.
pub(crate) fn good() -> Header {
    let keyslot = |slot: u32| Keyslot {
        active: slot < 2,
        iterations: if slot < 2 { 1000 } else { 0 },
        salt: [7; 32],
        key_material_offset: 8 + slot * 504,
        stripes: 4000,
    };
    Header {
        cipher_name: "aes".into(),
        cipher_mode: "xts-plain64".into(),
        hash_name: "sha256".into(),
        payload_offset: 4096,
        key_bytes: 64,
        digest: [1; 20],
        digest_salt: [2; 32],
        digest_iterations: 1000,
        uuid: "7ec41d1a-d896-4160-9053-1197d33d054c".into(),
        keyslots: std::array::from_fn(|slot| keyslot(u32::try_from(slot).unwrap())),
    }
}

const SLOT: usize = 208;

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..at + what.len()].copy_from_slice(what);
}

fn word(bytes: &mut [u8], at: usize, value: u32) {
    put(bytes, at, &value.to_be_bytes());
}

fn name(bytes: &mut [u8], at: usize, text: &str) {
    bytes[at..at + 32].fill(0);
    put(bytes, at, text.as_bytes());
}

type Change = fn(&mut Vec<u8>);

fn cases() -> Vec<(&'static str, Change, Verdict, u64)> {
    vec![
        (
            "nothing at all",
            |b| b.clear(),
            malformed("magic", "needs 6 bytes"),
            0,
        ),
        (
            "magic only",
            |b| b.truncate(6),
            malformed("version", "needs 2 bytes"),
            6,
        ),
        (
            "cut by one byte",
            |b| b.truncate(HEADER_SIZE - 1),
            malformed("keyslots.7.stripes", "only 3"),
            588,
        ),
        (
            "cut in a salt",
            |b| b.truncate(SLOT + 20),
            malformed("keyslots.0.salt", "needs 32 bytes"),
            216,
        ),
        (
            "wrong magic",
            |b| b[0] = b'l',
            malformed("magic", "not a LUKS header"),
            0,
        ),
        (
            "secondary magic",
            |b| put(b, 0, b"SKUL"),
            malformed("magic", "not a LUKS header"),
            0,
        ),
        (
            "version 2",
            |b| b[7] = 2,
            unsupported("version", "LUKS2"),
            6,
        ),
        (
            "version 0",
            |b| b[7] = 0,
            unsupported("version", "version 0"),
            6,
        ),
        (
            "version 257",
            |b| b[6] = 1,
            unsupported("version", "version 257"),
            6,
        ),
        (
            "cipher name without NUL",
            |b| b[8..40].fill(b'a'),
            unsupported("cipher_name", "unknown cipher"),
            8,
        ),
        (
            "cipher mode without NUL",
            |b| b[40..72].fill(b'a'),
            unsupported("cipher_mode", "unknown cipher"),
            40,
        ),
        (
            "hash without NUL",
            |b| b[72..104].fill(b'a'),
            unsupported("hash_name", "unknown hash"),
            72,
        ),
        (
            "uuid without NUL",
            |b| b[168..208].fill(b'a'),
            Verdict::Good,
            0,
        ),
        (
            "cipher name not UTF-8",
            |b| b[9] = 0xff,
            unsupported("cipher_name", "unknown cipher"),
            8,
        ),
        ("uuid not UTF-8", |b| b[168] = 0xc3, Verdict::Good, 0),
        (
            "empty cipher",
            |b| name(b, 8, ""),
            unsupported("cipher_name", "unknown cipher"),
            8,
        ),
        (
            "null cipher",
            |b| name(b, 8, "cipher_null"),
            unsupported("cipher_name", "CVE-2025-59054"),
            8,
        ),
        (
            "null by mode",
            |b| name(b, 40, "ecb(cipher_null)"),
            unsupported("cipher_mode", "null cipher"),
            40,
        ),
        (
            "driver name",
            |b| name(b, 8, "__driver-xts-aes-aesni"),
            unsupported("cipher_name", "kernel driver"),
            8,
        ),
        (
            "capi name",
            |b| name(b, 8, "capi:xts(aes)"),
            unsupported("cipher_name", "kernel driver"),
            8,
        ),
        (
            "unknown cipher",
            |b| name(b, 8, "des"),
            unsupported("cipher_name", "unknown cipher"),
            8,
        ),
        (
            "dash in the name",
            |b| name(b, 8, "aes-xts"),
            unsupported("cipher_name", "unknown cipher"),
            8,
        ),
        (
            "lrw-benbi",
            |b| name(b, 40, "lrw-benbi"),
            unsupported("cipher_mode", "unknown cipher"),
            40,
        ),
        (
            "unknown generator",
            |b| name(b, 40, "xts-random"),
            unsupported("cipher_mode", "unknown cipher"),
            40,
        ),
        (
            "unknown hash",
            |b| name(b, 72, "md5"),
            unsupported("hash_name", "unknown hash"),
            72,
        ),
        (
            "no key",
            |b| word(b, 108, 0),
            malformed("key_bytes", "no bytes"),
            108,
        ),
        (
            "key of 40 bytes",
            |b| word(b, 108, 40),
            unsupported("key_bytes", "no keys of 40 bytes"),
            108,
        ),
        (
            "huge key",
            |b| word(b, 108, u32::MAX),
            malformed("keyslots.0.key_material_offset", "after the payload"),
            248,
        ),
        (
            "digest without iterations",
            |b| word(b, 164, 0),
            malformed("digest_iterations", "no iterations"),
            164,
        ),
        (
            "payload in the header",
            |b| word(b, 104, 1),
            malformed("payload_offset", "overlaps the header"),
            104,
        ),
        (
            "payload in key material",
            |b| word(b, 104, 1000),
            malformed("keyslots.1.key_material_offset", "payload"),
            296,
        ),
        (
            "state 0",
            |b| word(b, SLOT, 0),
            malformed("keyslots.0.active", "0x00000000"),
            208,
        ),
        (
            "state off by one",
            |b| word(b, SLOT, 0x00AC_71F2),
            malformed("keyslots.0.active", "0x00ac71f2"),
            208,
        ),
        (
            "state of a disabled slot",
            |b| word(b, SLOT + 7 * 48, 0xDEAD_0000),
            malformed("keyslots.7.active", "0xdead0000"),
            544,
        ),
        (
            "no iterations",
            |b| word(b, SLOT + 4, 0),
            malformed("keyslots.0.iterations", "no iterations"),
            212,
        ),
        (
            "no stripes",
            |b| word(b, SLOT + 44, 0),
            malformed("keyslots.0.stripes", "is 0"),
            252,
        ),
        (
            "stripes of a disabled slot",
            |b| word(b, SLOT + 5 * 48 + 44, 4001),
            malformed("keyslots.5.stripes", "4001"),
            492,
        ),
        (
            "stripes that overflow",
            |b| word(b, SLOT + 44, u32::MAX),
            malformed("keyslots.0.stripes", "4294967295"),
            252,
        ),
        (
            "material at 0",
            |b| word(b, SLOT + 40, 0),
            malformed("keyslots.0.key_material_offset", "overlaps the header"),
            248,
        ),
        (
            "material in the header",
            |b| word(b, SLOT + 40, 1),
            malformed("keyslots.0.key_material_offset", "overlaps the header"),
            248,
        ),
        (
            "material in the payload",
            |b| word(b, SLOT + 40, 4095),
            malformed("keyslots.0.key_material_offset", "payload"),
            248,
        ),
        (
            "material at the end of all",
            |b| word(b, SLOT + 40, u32::MAX),
            malformed("keyslots.0.key_material_offset", "payload"),
            248,
        ),
        (
            "one sector into the next",
            |b| word(b, SLOT + 40, 13),
            malformed("keyslots.1.key_material_offset", "keyslot 0"),
            296,
        ),
        (
            "the same area",
            |b| word(b, SLOT + 48 + 40, 8),
            malformed("keyslots.1.key_material_offset", "keyslot 0"),
            296,
        ),
        (
            "a disabled slot over an active one",
            |b| word(b, SLOT + 6 * 48 + 40, 8),
            malformed("keyslots.6.key_material_offset", "keyslot 0"),
            536,
        ),
        (
            "two disabled slots",
            |b| word(b, SLOT + 6 * 48 + 40, 8 + 5 * 504),
            malformed("keyslots.6.key_material_offset", "keyslot 5"),
            536,
        ),
        (
            "material out of limits, detached",
            |b| {
                word(b, 104, 0);
                word(b, SLOT + 7 * 48 + 40, u32::MAX - 7);
            },
            over_limit("keyslots.7.key_material_offset", "limit"),
            584,
        ),
        // Similar good headers.
        ("untouched", |_| {}, Verdict::Good, 0),
        (
            "more bytes after it",
            |b| b.resize(1 << 20, 0xff),
            Verdict::Good,
            0,
        ),
        ("detached", |b| word(b, 104, 0), Verdict::Good, 0),
        (
            "payload right behind the material",
            |b| word(b, 104, 8 + 7 * 504 + 500),
            Verdict::Good,
            0,
        ),
        (
            "payload at an odd sector",
            |b| word(b, 104, 528_384 / 512 + 3009),
            Verdict::Good,
            0,
        ),
        (
            "payload at the last sector",
            |b| word(b, 104, u32::MAX),
            Verdict::Good,
            0,
        ),
        (
            "garbage after the NUL of a name",
            |b| b[12..40].fill(0xee),
            Verdict::Good,
            0,
        ),
        (
            "all slots disabled",
            |b| {
                for slot in 0..8 {
                    word(b, SLOT + slot * 48, 0xDEAD);
                }
            },
            Verdict::Good,
            0,
        ),
        (
            "all iterations there are",
            |b| word(b, SLOT + 4, u32::MAX),
            Verdict::Good,
            0,
        ),
        (
            "hash in capitals",
            |b| name(b, 72, "SHA256"),
            Verdict::Good,
            0,
        ),
        (
            "QEMU's mode",
            |b| name(b, 40, "xts-plain64:sha256"),
            Verdict::Good,
            0,
        ),
        (
            "version 1.0: first material at sector 2, the others unaligned",
            |b| {
                word(b, 108, 16);
                name(b, 40, "cbc-essiv:sha256");
                for slot in 0..8 {
                    word(
                        b,
                        SLOT + slot * 48 + 40,
                        2 + u32::try_from(slot).unwrap() * 125,
                    );
                }
                word(b, 104, 2 + 8 * 125);
            },
            Verdict::Good,
            0,
        ),
    ]
}

#[test]
fn each_change_gets_its_verdict() {
    for (name, change, expected, offset) in cases() {
        let mut bytes = good().to_bytes().to_vec();
        change(&mut bytes);
        let result = judge(name, expected, || {
            let header = Header::parse(&bytes, &Limits::default())?;
            header.check_usable().map(|()| header)
        });
        match result {
            Ok(header) => assert_eq!(
                Header::parse(&header.to_bytes(), &Limits::default()).unwrap(),
                header,
                "{name}"
            ),
            Err(error) => assert_eq!(error.offset, offset, "{name}: {error}"),
        }
    }
}

#[test]
fn bytes_come_back_as_they_were() {
    let bytes = good().to_bytes();
    let header = Header::parse(&bytes, &Limits::default()).unwrap();
    assert_eq!(header, good());
    assert_eq!(header.to_bytes(), bytes);
    assert_eq!(header.data_offset(), 2 << 20);
    assert_eq!(header.area(1), 512 * 512..512 * 512 + 256_000);
    assert_eq!(header.area(8), 0..0);
    assert_eq!(Version::detect(&bytes), Ok(Version::Luks1));
}

/// What only matters where a key is used does not keep a header from being shown and saved.
#[test]
fn what_is_only_needed_to_open_is_read_and_kept() {
    let changes: [(&str, Change); 6] = [
        ("unknown cipher", |b| name(b, 8, "des")),
        ("null cipher", |b| name(b, 8, "cipher_null")),
        ("unknown hash", |b| name(b, 72, "md5")),
        ("a name that is not UTF-8", |b| b[9] = 0xff),
        ("an odd key size", |b| word(b, 108, 40)),
        ("no iterations", |b| word(b, SLOT + 4, 0)),
    ];
    for (name, change) in changes {
        let mut bytes = good().to_bytes().to_vec();
        change(&mut bytes);
        let header = Header::parse(&bytes, &Limits::default()).unwrap();
        assert_eq!(header.to_bytes(), *bytes, "{name}");
        header.check_usable().unwrap_err();
    }
}

#[test]
fn a_key_that_is_no_whole_sector_long_is_rounded_up() {
    let mut header = good();
    header.cipher_mode = "cbc-plain64".into();
    header.key_bytes = 24;
    assert_eq!(header.area(0), 4096..4096 + 188 * 512);
    header.keyslots[1].key_material_offset = 8 + 187;
    assert_eq!(
        header.validate().unwrap_err().field,
        "keyslots.1.key_material_offset"
    );
    header.keyslots[1].key_material_offset = 8 + 188;
    header.validate().unwrap();
}

#[test]
fn names_that_do_not_fit_are_refused_before_writing() {
    let mut header = good();
    header.uuid = "x".repeat(40);
    assert_eq!(header.validate().unwrap_err().field, "uuid");
    header.uuid = "x".repeat(39);
    header.validate().unwrap();
    header.uuid = "a\0b".into();
    assert_eq!(header.validate().unwrap_err().field, "uuid");
}
