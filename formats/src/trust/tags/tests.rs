//! What the parsers of tags take, and what they refuse.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

use alloc::vec::Vec;

use proptest::prelude::*;

use super::head::Head;
use super::log::{self, FRAME, Record};
use super::{FIRST, TAG, place};

#[test]
fn a_tag_is_within_a_sector() {
    for block in [0, 1, 31, 32, 1000, u64::from(u32::MAX)] {
        let at = place(block);
        assert_eq!(at / 512, (at + TAG as u64 - 1) / 512);
    }
    assert_eq!(place(0), FIRST);
    assert_eq!(place(u64::MAX), u64::MAX);
}

#[test]
fn a_head_is_read_as_it_was_written_and_no_other_one_is() {
    let mut head = Head::new([7; 16], 12345);
    head.settled = 9;
    let bytes = head.encode();
    assert_eq!(Head::decode(&bytes).unwrap(), head);
    for at in 0..56 {
        let mut other = bytes.clone();
        other[at] ^= 1;
        assert!(Head::decode(&other).is_err(), "byte {at}");
        assert!(Head::decode(&bytes[..at]).is_err(), "{at} bytes");
    }
    let head = log::head(3);
    assert_eq!(log::generation(&head), Some(3));
    for at in 0..32 {
        let mut other = head.clone();
        other[at] ^= 1;
        assert_eq!(log::generation(&other), None, "byte {at}");
    }
    assert_eq!(log::generation(&[0; 512]), None);
}

#[test]
fn a_frame_is_of_its_generation_and_place() {
    let frame = log::frame(5, 512, b"payload");
    let (begin, payload) = frame.split_first_chunk::<FRAME>().unwrap();
    assert_eq!(log::payload_length(*begin), Some(7));
    assert!(log::is_whole(*begin, 5, 512, payload));
    assert!(!log::is_whole(*begin, 4, 512, payload));
    assert!(!log::is_whole(*begin, 5, 1024, payload));
    assert!(!log::is_whole(*begin, 5, 512, b"paylOad"));
    assert_eq!(log::payload_length([0; FRAME]), None);
}

#[test]
fn records_are_read_as_they_were_written() {
    let tags = [[1; TAG], [2; TAG]];
    let records = [
        Record::Write {
            sequence: 1,
            block: 7,
            tags: &tags,
        },
        Record::Never {
            sequence: 2,
            block: 9,
            count: 1 << 20,
        },
        Record::Among {
            sequence: 3,
            block: 1,
            tags: &tags,
        },
        Record::Settled {
            sequence: 4,
            block: 1,
            tag: Some(tags[1]),
        },
        Record::Settled {
            sequence: 5,
            block: 2,
            tag: None,
        },
        Record::Durable { sequence: 2 },
    ];
    let mut payload = Vec::new();
    for record in &records {
        record.encode(&mut payload);
    }
    let mut rest = &payload[..];
    for record in &records {
        let (read, after) = Record::decode(rest).unwrap();
        assert_eq!(read, *record);
        rest = after;
    }
    assert!(rest.is_empty());
    assert_eq!(Record::decode(&payload[..21]), None);
    assert_eq!(Record::decode(&payload[..40]), None);
}

proptest! {
    #[test]
    fn no_bytes_are_too_much(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Record::decode(&bytes);
        let _ = Head::decode(&bytes);
        let _ = log::generation(&bytes);
        if let Some((begin, payload)) = bytes.split_first_chunk::<FRAME>() {
            let _ = log::payload_length(*begin);
            let _ = log::is_whole(*begin, 1, 512, payload);
        }
    }
}
