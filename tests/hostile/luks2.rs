//! The good LUKS2 headers from which the tests start, and functions that change them and correct
//! checksums.

use luksmith_formats::json::{Value, json};
use luksmith_formats::luks2::{
    Af, Area, Argon2Variant, CryptSegment, Digest, HEADER_SIZES, Header, Kdf, Keyslot,
    Luks2Keyslot, Metadata, NewConfig, Position, Priority, Segment,
};
use luksmith_formats::{CipherSpec, FormatError, Hash, Limits};
use sha2::Digest as _;

pub(crate) const SALT: [u8; 64] = [9; 64];

/// Two keyslots (argon2id, pbkdf2) with one volume key, an unbound one, two tokens, one segment at
/// 16 MiB.
pub(crate) fn good() -> Header {
    with_size(16 << 10)
}

pub(crate) fn with_size(hdr_size: u64) -> Header {
    let data = 16 << 20;
    let start = 2 * hdr_size;
    let config = NewConfig {
        json_size: hdr_size - 4096,
        keyslots_size: data - start,
    };
    let mut metadata = Metadata::new(config);
    metadata
        .edit(|draft| {
            draft.set_segment(0, &segment(data))?;
            draft.set_keyslot(0, &keyslot(start, argon2id()))?;
            draft.set_keyslot(1, &keyslot(start + 258_048, pbkdf2()))?;
            draft.set_keyslot(2, &unbound(start + 2 * 258_048))?;
            draft.set_digest(0, &digest(&[0, 1], &[0]))?;
            draft.set_digest(1, &digest(&[2], &[]))?;
            draft.set_token(
                0,
                json!({"type": "luks2-keyring", "keyslots": ["1"], "key_description": "d"}),
            )?;
            draft.set_token(
                1,
                json!({"type": "own", "keyslots": [], "x": {"y": [1, null, true, "z"]}}),
            )
        })
        .unwrap();
    Header {
        hdr_size,
        seqid: 3,
        label: "label".into(),
        subsystem: "subsystem".into(),
        uuid: "7ec41d1a-d896-4160-9053-1197d33d054c".into(),
        checksum: Hash::Sha256,
        metadata,
    }
}

pub(crate) fn segment(offset: u64) -> Segment {
    Segment::Crypt(CryptSegment::new(offset, CipherSpec::AES_XTS_PLAIN64, 4096))
}

pub(crate) fn keyslot(offset: u64, kdf: Kdf) -> Keyslot {
    Keyslot::Luks2(Luks2Keyslot {
        key_size: 64,
        priority: Priority::Normal,
        area: Area {
            offset,
            size: Luks2Keyslot::area_size(64),
            encryption: CipherSpec::AES_XTS_PLAIN64,
            key_size: 64,
        },
        kdf,
        af: Af {
            stripes: 4000,
            hash: Hash::Sha512,
        },
    })
}

fn unbound(offset: u64) -> Keyslot {
    let Keyslot::Luks2(mut keyslot) = keyslot(offset, pbkdf2()) else {
        unreachable!()
    };
    keyslot.key_size = 17;
    keyslot.priority = Priority::Ignore;
    Keyslot::Luks2(keyslot)
}

pub(crate) fn argon2id() -> Kdf {
    Kdf::Argon2 {
        variant: Argon2Variant::Id,
        passes: 4,
        memory_kib: 1 << 20,
        lanes: 4,
        salt: vec![1; 32],
    }
}

pub(crate) fn pbkdf2() -> Kdf {
    Kdf::Pbkdf2 {
        hash: Hash::Sha256,
        iterations: 1000,
        salt: vec![2; 32],
    }
}

pub(crate) fn digest(keyslots: &[u32], segments: &[u32]) -> Digest {
    Digest {
        keyslots: keyslots.to_vec(),
        segments: segments.to_vec(),
        hash: Hash::Sha256,
        iterations: 1000,
        salt: vec![3; 32],
        digest: vec![4; 32],
    }
}

pub(crate) fn bytes_of(header: &Header) -> Vec<u8> {
    header.to_bytes(Position::Primary, &SALT).unwrap()
}

pub(crate) fn parse(bytes: &[u8]) -> Result<Header, FormatError> {
    Header::parse(bytes, Position::Primary, &Limits::default())
}

/// A header of which everything is understood.
pub(crate) fn parse_usable(bytes: &[u8]) -> Result<Header, FormatError> {
    let header = parse(bytes)?;
    let refusal = header.metadata.not_understood().next().cloned();
    refusal.map_or(Ok(header), Err)
}

/// The metadata of a copy.
pub(crate) fn json_of(copy: &[u8]) -> Value {
    let area = &copy[4096..];
    let end = area.iter().position(|&byte| byte == 0).unwrap();
    Value::parse(&area[..end]).unwrap()
}

/// Replaces the text of a copy, padded with NULs.
pub(crate) fn put_text(copy: &mut [u8], text: &[u8]) {
    copy[4096..].fill(0);
    copy[4096..4096 + text.len()].copy_from_slice(text);
}

/// Corrects the SHA-256 checksum of a copy, without the code under test.
pub(crate) fn seal(copy: &mut [u8]) {
    copy[448..512].fill(0);
    let digest = sha2::Sha256::digest(&*copy);
    copy[448..480].copy_from_slice(&digest);
}

#[test]
fn all_sizes_and_both_copies_come_back_as_they_were() {
    for hdr_size in HEADER_SIZES {
        let header = with_size(hdr_size);
        for position in Position::ALL {
            let bytes = header.to_bytes(position, &SALT).unwrap();
            assert_eq!(bytes.len() as u64, hdr_size);
            assert_eq!(Header::probe_size(&bytes[..264], position), Ok(hdr_size));
            let read = Header::parse(&bytes, position, &Limits::default()).unwrap();
            assert_eq!(read, header);
            assert_eq!(read.to_bytes(position, &SALT).unwrap(), bytes);
            let other = if position == Position::Primary {
                Position::Secondary
            } else {
                Position::Primary
            };
            assert_eq!(
                Header::parse(&bytes, other, &Limits::default())
                    .unwrap_err()
                    .field,
                "magic"
            );
        }
    }
}

#[test]
fn all_checksum_hashes_are_written_and_read() {
    for hash in Hash::ALL {
        let header = Header {
            checksum: hash,
            ..good()
        };
        match header.to_bytes(Position::Primary, &SALT) {
            Ok(bytes) => assert_eq!(parse(&bytes).unwrap(), header),
            Err(error) => {
                let sha = matches!(
                    hash,
                    Hash::Sha1 | Hash::Sha224 | Hash::Sha256 | Hash::Sha384 | Hash::Sha512
                );
                assert!(!sha, "{error}");
                assert_eq!(error.field, "checksum_hash");
            }
        }
    }
}

#[test]
fn every_flipped_bit_before_the_padding_is_noticed() {
    let good = bytes_of(&good());
    for at in (0..512).chain(4096..4200) {
        let mut copy = good.clone();
        copy[at] ^= 1 << (at % 8);
        // The bytes of the checksum field after the 32 bytes of SHA-256 have no meaning.
        assert_eq!(parse(&copy).is_ok(), (480..512).contains(&at), "byte {at}");
    }
}

#[test]
fn offsets_of_the_secondary_header_are_those_of_the_device() {
    let mut copy = good().to_bytes(Position::Secondary, &SALT).unwrap();
    let text = json_of(&copy)
        .to_string()
        .replace("\"iterations\":1000", "\"iterations\":0000");
    put_text(&mut copy, text.replace("0000", "0").as_bytes());
    seal(&mut copy);
    let header = Header::parse(&copy, Position::Secondary, &Limits::default()).unwrap();
    let error = header.metadata.not_understood().next().unwrap();
    assert_eq!(error.field, "keyslots.1.kdf.iterations", "{error}");
    assert!(
        error.offset > 16384 + 4096 && error.offset < 32768,
        "{error}"
    );
    let place = usize::try_from(error.offset).unwrap() - 16384;
    assert!(copy[place..].starts_with(b"0,"), "{error}");
}

#[test]
fn a_header_that_was_made_wrong_is_not_written() {
    let header = good();
    let refused = |header: Header| header.to_bytes(Position::Primary, &SALT).unwrap_err().field;
    assert_eq!(
        refused(Header {
            label: "x".repeat(48),
            ..header.clone()
        }),
        "label"
    );
    assert_eq!(
        refused(Header {
            subsystem: "x\0".into(),
            ..header.clone()
        }),
        "subsystem"
    );
    assert_eq!(
        refused(Header {
            uuid: "x".repeat(40),
            ..header.clone()
        }),
        "uuid"
    );
    assert_eq!(
        refused(Header {
            hdr_size: 32 << 10,
            ..header.clone()
        }),
        "hdr_size"
    );
    assert_eq!(
        refused(Header {
            hdr_size: u64::MAX,
            ..header.clone()
        }),
        "hdr_size"
    );
    let empty = Metadata::new(NewConfig {
        json_size: 12288,
        keyslots_size: 0,
    });
    assert_eq!(
        refused(Header {
            metadata: empty,
            ..header
        }),
        "segments"
    );
}

#[test]
fn text_that_does_not_fit_is_refused_and_changes_nothing() {
    let mut header = good();
    let before = header.clone();
    let token = |length: usize| json!({"type": "own", "keyslots": [], "x": "x".repeat(length)});
    let used = header.metadata.to_text().len();
    let room = 12288 - 1 - used;
    let around = r#","5":{"type":"own","keyslots":[],"x":""}"#.len();
    let error = header
        .metadata
        .set_token(5, token(room - around + 1))
        .unwrap_err();
    assert_eq!(
        (error.kind, error.field.as_str()),
        (luksmith_formats::Kind::OverLimit, "json")
    );
    assert_eq!(header, before);
    header.metadata.set_token(5, token(room - around)).unwrap();
    assert_eq!(parse(&bytes_of(&header)).unwrap(), header);
}
