//! Arbitrary bytes and damaged headers never cause a panic, and a header that parses is written
//! back unchanged.

use luksmith_formats::luks2::{Header, Metadata, Position};
use luksmith_formats::{CipherSpec, Hash, Limits, Version, luks1};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::luks2::{SALT, bytes_of, good, seal};

/// Offsets, and bytes to write there.
fn damage(most: usize) -> impl Strategy<Value = Vec<(usize, u8)>> {
    vec(
        (
            0..most,
            prop_oneof![
                any::<u8>(),
                Just(b'0'),
                Just(b'9'),
                Just(b'"'),
                Just(b','),
                Just(b'}')
            ],
        ),
        1..6,
    )
}

fn damaged(mut bytes: Vec<u8>, damage: &[(usize, u8)]) -> Vec<u8> {
    for (at, byte) in damage {
        bytes[*at] = *byte;
    }
    bytes
}

fn reparses(header: &Header) {
    for position in Position::ALL {
        let bytes = header.to_bytes(position, &SALT).unwrap();
        assert_eq!(
            &Header::parse(&bytes, position, &Limits::default()).unwrap(),
            header
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// What a repair makes of a damaged LUKS1 header is a header, and changes nothing but the
    /// magic, the entries of keyslots that are not in use, and the state of others.
    #[test]
    fn a_repaired_luks1_header_is_whole(damage in damage(luks1::HEADER_SIZE)) {
        let before = damaged(crate::luks1::good().to_bytes().to_vec(), &damage);
        let Ok((after, fixes)) = luks1::Header::repaired(&before, &Limits::default()) else {
            return Ok(());
        };
        let header = luks1::Header::parse(&after, &Limits::default()).unwrap();
        prop_assert_eq!(fixes.is_empty(), before == after);
        prop_assert_eq!(&after[6..208], &before[6..208]);
        for (slot, keyslot) in header.keyslots.iter().enumerate() {
            let entry = 208 + 48 * slot + 4..256 + 48 * slot;
            prop_assert!(!keyslot.active || after[entry.clone()] == before[entry]);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..5000)) {
        for position in Position::ALL {
            _ = Header::probe_size(&bytes, position);
            _ = Header::parse(&bytes, position, &Limits::default());
        }
        _ = luks1::Header::parse(&bytes, &Limits::default());
        _ = luks1::Header::repaired(&bytes, &Limits::default());
        _ = Version::detect(&bytes);
        _ = Metadata::parse(&bytes, u64::MAX, u64::MAX);
    }

    #[test]
    fn arbitrary_text_is_no_cipher_that_reads_back_differently(text in "[a-z0-9:()_-]{0,40}|(aes|serpent)-(xts|cbc)-(plain|plain64|plain64be|essiv:sha256|plain64:sha1)") {
        if let Ok(spec) = CipherSpec::parse(&text) {
            prop_assert_eq!(CipherSpec::parse(&spec.to_string()), Ok(spec));
            let (name, mode) = spec.luks1_names();
            prop_assert_eq!(CipherSpec::from_luks1(&name, &mode), Ok(spec));
        }
        _ = Hash::parse(&text);
    }

    #[test]
    fn a_damaged_luks1_header_is_refused_or_reads_back(damage in damage(luks1::HEADER_SIZE)) {
        let bytes = damaged(crate::luks1::good().to_bytes().to_vec(), &damage);
        if let Ok(header) = luks1::Header::parse(&bytes, &Limits::default()) {
            prop_assert_eq!(luks1::Header::parse(&header.to_bytes(), &Limits::default()), Ok(header));
        }
    }

    #[test]
    fn a_damaged_binary_header_is_refused_or_reads_back(damage in damage(520)) {
        let mut copy = damaged(bytes_of(&good()), &damage);
        seal(&mut copy);
        if let Ok(header) = Header::parse(&copy, Position::Primary, &Limits::default()) {
            reparses(&header);
        }
    }

    #[test]
    fn damaged_metadata_is_refused_or_reads_back(damage in damage(2200)) {
        let text: Vec<_> = damage.iter().map(|(at, byte)| (at + 4096, *byte)).collect();
        let mut copy = damaged(bytes_of(&good()), &text);
        seal(&mut copy);
        if let Ok(header) = Header::parse(&copy, Position::Primary, &Limits::default()) {
            reparses(&header);
        }
    }

    #[test]
    fn numbers_survive_as_they_are(number in "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,40})?(e[+-][0-9]{1,5})?") {
        let mut header = good();
        let token = format!(r#"{{"type":"own","keyslots":[],"number":{number}}}"#);
        header.metadata.set_token(7, token.parse().unwrap()).unwrap();
        prop_assert!(header.metadata.to_text().contains(&token));
        reparses(&header);
    }
}
