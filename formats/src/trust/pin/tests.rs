//! A pin is read as it was written, and every difference has words.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

use alloc::string::ToString;
use alloc::vec;

use sha2::Digest as _;

use super::*;
use crate::json::json;
use crate::luks2::{self, CryptSegment, Digest, Metadata, NewConfig, Position, Segment};
use crate::version::Version;
use crate::{CipherSpec, Hash, Limits, luks1};

fn luks1_header() -> luks1::Header {
    let mut header = luks1::Header {
        cipher_name: "aes".into(),
        cipher_mode: "xts-plain64".into(),
        hash_name: "sha256".into(),
        payload_offset: 4096,
        key_bytes: 32,
        digest: [1; 20],
        digest_salt: [2; 32],
        digest_iterations: 1000,
        uuid: "7a1b2c3d-0000-4000-8000-0123456789ab".into(),
        keyslots: Default::default(),
    };
    for (keyslot, offset) in header.keyslots.iter_mut().zip((8..).step_by(256)) {
        (keyslot.key_material_offset, keyslot.stripes) = (offset, 4000);
    }
    header.keyslots[0].active = true;
    header.keyslots[0].salt = [3; 32];
    header
}

fn luks2_header() -> luks2::Header {
    let config = NewConfig {
        json_size: 16384 - 4096,
        keyslots_size: 1 << 20,
    };
    let mut metadata = Metadata::new(config);
    let segment = CryptSegment::new(16 << 20, CipherSpec::AES_XTS_PLAIN64, 512);
    let digest = Digest {
        keyslots: vec![],
        segments: vec![0],
        hash: Hash::Sha256,
        iterations: 1000,
        salt: vec![1; 32],
        digest: vec![2; 32],
    };
    metadata
        .edit(|draft| {
            draft.set_segment(0, &Segment::Crypt(segment))?;
            draft.set_digest(0, &digest)?;
            draft.set_token(0, json!({"type": "a token", "keyslots": []}))
        })
        .unwrap();
    luks2::Header {
        hdr_size: 16384,
        seqid: 7,
        label: "a label".into(),
        subsystem: String::new(),
        uuid: "7a1b2c3d-0000-4000-8000-0123456789ab".into(),
        checksum: Hash::Sha256,
        metadata,
    }
}

fn words(pinned: &Facts, found: &Facts) -> Vec<String> {
    let differences = differences(pinned, found);
    differences.iter().map(ToString::to_string).collect()
}

fn pin(current: Facts) -> Pin {
    let place = Place::new("a \"place\"\nof two lines", Some("a header".into()));
    let key = KeyPrint {
        digest: 3,
        fingerprint: [0xa5; 32],
    };
    Pin::new(place, vec![key], current)
}

#[test]
fn a_pin_is_read_as_it_was_written() {
    let material = [(0, [9; 32]), (4, [8; 32])];
    let mut all = pin(Facts::of_luks2(&luks2_header()).with_material(material));
    for next in [None, Some(Facts::of_luks1(&luks1_header()))] {
        all.next = next;
        let bytes = all.to_bytes();
        assert_eq!(Pin::parse(&bytes).unwrap(), all);
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 2);
    }
}

#[test]
fn a_damaged_pin_is_refused() {
    let bytes = pin(Facts::of_luks1(&luks1_header())).to_bytes();
    for length in 0..bytes.len() {
        assert!(Pin::parse(&bytes[..length]).is_err(), "{length} bytes");
    }
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(Pin::parse(&damaged).is_err(), "byte {at}");
    }
    // What has the right checksum, and is no pin of this format.
    let text = core::str::from_utf8(&bytes).unwrap();
    let line = text.lines().next().unwrap();
    for (from, to) in [
        ("\"pin\":1", "\"pin\":2"),
        ("\"luks\":1", "\"luks\":3"),
        ("\"keyslot\"", "\"something\""),
        ("a5a5", "a5z5"),
    ] {
        let line = line.replace(from, to);
        let check = hex(&Sha256::digest(line.as_bytes()));
        let changed = format!("{line}\nsha256 {check}\n");
        assert!(Pin::parse(changed.as_bytes()).is_err(), "{to}");
    }
}

#[test]
fn both_copies_and_every_salt_say_the_same() {
    let header = luks2_header();
    let facts = Facts::of_luks2(&header);
    for (position, salt) in [(Position::Primary, 1), (Position::Secondary, 2)] {
        let bytes = header.to_bytes(position, &[salt; 64]).unwrap();
        let parsed = luks2::Header::parse(&bytes, position, &Limits::default()).unwrap();
        assert_eq!(Facts::of_luks2(&parsed), facts);
    }
}

#[test]
fn every_change_has_words() {
    let old = luks2_header();
    let facts = Facts::of_luks2(&old);
    let changed = |change: &dyn Fn(&mut luks2::Header)| {
        let mut new = old.clone();
        change(&mut new);
        words(&facts, &Facts::of_luks2(&new))
    };
    assert_eq!(changed(&|_| {}), [""; 0]);
    let same = "it has the pinned sequence number 7 and another content";
    assert_eq!(
        changed(&|header| header.label.clear()),
        [same, "the label was changed"]
    );
    let later = "another program changed it: its sequence number is 8, the pinned one 7";
    assert_eq!(changed(&|header| header.seqid = 8), [later]);
    assert_eq!(
        changed(&|header| {
            header.seqid = 6;
            header.metadata.remove_token(0).unwrap();
        }),
        [
            "it was rolled back: its sequence number is 6, the pinned one 7",
            "token 0 (a token) was removed"
        ]
    );
    assert_eq!(
        changed(&|header| {
            header.seqid = 8;
            let token = json!({"type": "other", "keyslots": []});
            header.metadata.set_token(1, token).unwrap();
            header
                .metadata
                .set_flags(vec!["allow-discards".into()])
                .unwrap();
        }),
        [
            later,
            "the configuration (sizes, flags, requirements) was changed",
            "token 1 (other) was added"
        ]
    );
    let luks1 = Facts::of_luks1(&luks1_header());
    assert_eq!(words(&facts, &luks1), ["it is LUKS1 now"]);
    let with = |hash| facts.clone().with_material([(0, [hash; 32])]);
    assert_eq!(
        words(&with(1), &with(2)),
        ["the key material of keyslot 0 was changed"]
    );
    assert_eq!(words(&with(1), &facts), [""; 0]);
}

#[test]
fn fields_of_unused_keyslots_say_nothing() {
    let header = luks1_header();
    let facts = Facts::of_luks1(&header);
    let mut unused = header.clone();
    (unused.keyslots[3].salt, unused.keyslots[3].iterations) = ([7; 32], 7);
    assert_eq!(Facts::of_luks1(&unused), facts);
    unused.keyslots[3].active = true;
    assert_eq!(
        words(&facts, &Facts::of_luks1(&unused)),
        ["keyslot 3 was added"]
    );
    let mut other = header;
    other.payload_offset = 8192;
    other.keyslots[3].key_material_offset = 9000;
    assert_eq!(
        words(&facts, &Facts::of_luks1(&other)),
        [
            "segment 0 was changed",
            "the place of key material was changed"
        ]
    );
}

#[test]
fn while_a_change_is_under_way_both_headers_are_accepted() {
    let (old, mut new) = (luks2_header(), luks2_header());
    (new.seqid, new.label) = (8, "new".into());
    let [before, after] = [&old, &new].map(Facts::of_luks2);
    let mut pin = pin(before.clone());
    assert!(pin.accepts(&before) && !pin.accepts(&after));
    pin.next = Some(after.clone());
    assert!(pin.accepts(&before) && pin.accepts(&after));
    // A copy of LUKS2 is one of both as a whole.
    let mut between = new;
    between.seqid = 7;
    assert!(!pin.accepts(&Facts::of_luks2(&between)));
    assert_eq!(pin.differences(&Facts::of_luks2(&between)).len(), 1);
}

#[test]
fn a_header_of_luks1_is_written_in_parts() {
    let old = luks1_header();
    let mut new = old.clone();
    (new.keyslots[0].active, new.keyslots[7].active) = (false, true);
    let mut between = old.clone();
    between.keyslots[7].active = true;
    let mut pin = pin(Facts::of_luks1(&old));
    let facts = Facts::of_luks1(&between);
    assert!(!pin.accepts(&facts));
    pin.next = Some(Facts::of_luks1(&new));
    assert!(pin.accepts(&facts));
    between.keyslots[7].salt = [1; 32];
    assert!(!pin.accepts(&Facts::of_luks1(&between)));
    between = old;
    between.keyslots[1].active = true;
    assert!(!pin.accepts(&Facts::of_luks1(&between)));
    assert_eq!(facts.version, Version::Luks1);
}
