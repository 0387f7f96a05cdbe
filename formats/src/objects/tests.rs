//! Objects of every kind are read as they were written, and no changed byte is accepted.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::checkpoint::{Index, KeptSnapshot, LeafPlace, Root, SegmentUse};
use super::claim::{Claim, Fence};
use super::journal::{self, Begin, Entry, HEAD, head};
use super::leaf::{self, Extent};
use super::name::{self, Name};
use super::segment::{Header, Record};
use super::uri::{Uri, UriError};
use super::volume::Volume;
use super::{Position, RootId};
use crate::error::FormatError;

const UUID: [u8; 16] = [7; 16];
const ROOT: RootId = RootId {
    epoch: 3,
    number: 9,
};
const AT: Position = Position {
    epoch: 3,
    sequence: 70,
};

fn claim() -> Claim {
    let mut claim = Claim::new(UUID, 3, [1; 16]);
    claim.base = Some(ROOT);
    claim.host = "höst".into();
    claim.time = 5;
    claim
}

fn header() -> Header {
    let mut header = Header::new(UUID, AT, [1; 16], [2; 32]);
    header.records = vec![
        Record::Data {
            block: 8190,
            sums: vec![[1; 8], [2; 8], [3; 8]],
        },
        Record::Hole {
            block: 5,
            count: 1 << 30,
        },
        Record::Resize { size: 12345 },
    ];
    header
}

fn index() -> Index {
    Index {
        leaves: vec![
            (0, LeafPlace::new(ROOT, 0, 0, 1)),
            (7, LeafPlace::new(ROOT, 1, 36, 8192)),
        ],
        segments: vec![(AT, SegmentUse::new(300, 5))],
        snapshots: vec![KeptSnapshot::new("a".into(), ROOT, 1)],
    }
}

fn root() -> Root {
    let mut root = Root::new(UUID, ROOT, [4; 16]);
    (root.position, root.size) = (AT, 99);
    root
}

fn extents() -> Vec<Extent> {
    vec![Extent::new(0, 1, AT, 5), Extent::new(8, 8184, AT, 9)]
}

/// Every kind of object: its bytes, and whether bytes are read as the same object.
type Same = fn(&[u8]) -> Result<bool, FormatError>;
fn objects() -> Vec<(Vec<u8>, Same)> {
    let mut pack = Vec::new();
    leaf::encode(&mut pack, UUID, 4, &extents());
    assert_eq!(pack.len(), leaf::length(2));
    vec![
        (Volume::new(UUID, 4096).encode(), |b| {
            let (one, other) = (Volume::decode(b)?, Volume::new(UUID, 4096));
            assert_ne!(one, other.clone().with_unfenced());
            let unfenced = Volume::decode(&other.clone().with_unfenced().encode())?;
            Ok(one == other && unfenced.unfenced)
        }),
        (claim().encode(), |b| {
            Ok(Claim::decode(b, UUID, 3)? == claim())
        }),
        (Fence::new(UUID, (3, 70), 4, [1; 16]).encode(), |b| {
            Ok(Fence::decode(b, UUID, 3, 70)? == Fence::new(UUID, (3, 70), 4, [1; 16]))
        }),
        (header().encode(), |b| {
            Ok(Header::decode(b, UUID, AT)? == header())
        }),
        (root().encode(), |b| {
            Ok(Root::decode(b, UUID, ROOT)? == root())
        }),
        (index().encode(UUID, ROOT), |b| {
            Ok(Index::decode(b, UUID, ROOT)? == index())
        }),
        (pack, |b| Ok(leaf::decode(b, UUID, 4)? == extents())),
    ]
}

#[test]
fn every_object_is_read_as_it_was_written() {
    for (number, (bytes, same)) in objects().into_iter().enumerate() {
        assert_eq!(same(&bytes), Ok(true), "object {number}");
    }
}

#[test]
fn no_changed_or_missing_byte_is_accepted() {
    for (number, (bytes, same)) in objects().into_iter().enumerate() {
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            assert!(same(&changed).is_err(), "object {number}, byte {at}");
            assert!(same(&bytes[..at]).is_err(), "object {number} of {at} bytes");
        }
    }
}

#[test]
fn an_object_of_another_place_is_refused() {
    let other = [8; 16];
    assert!(Claim::decode(&claim().encode(), UUID, 4).is_err());
    assert!(Claim::decode(&claim().encode(), other, 3).is_err());
    let next = Position {
        epoch: 3,
        sequence: 71,
    };
    assert!(Header::decode(&header().encode(), UUID, next).is_err());
    assert!(Header::decode(&claim().encode(), UUID, AT).is_err());
    let next = RootId {
        epoch: 3,
        number: 10,
    };
    assert!(Root::decode(&root().encode(), UUID, next).is_err());
    assert!(Index::decode(&index().encode(UUID, ROOT), UUID, next).is_err());
    let mut pack = Vec::new();
    leaf::encode(&mut pack, UUID, 4, &extents());
    assert!(leaf::decode(&pack, UUID, 5).is_err());
    assert!(leaf::decode(&pack, other, 4).is_err());
}

#[test]
fn objects_with_a_valid_checksum_and_wrong_contents_are_refused() {
    for (volume, cause) in [
        (Volume::new(UUID, 0).with_object_size(4097), "object size"),
        (
            Volume::new(UUID, 0).with_object_size(128 << 20),
            "object size",
        ),
        (Volume::new(UUID, u64::MAX), "size"),
    ] {
        assert_eq!(Volume::decode(&volume.encode()).unwrap_err().field, cause);
    }
    for record in [
        Record::Hole {
            block: u64::MAX,
            count: 2,
        },
        Record::Hole { block: 1, count: 0 },
        Record::Data {
            block: 1,
            sums: vec![],
        },
        Record::Resize { size: u64::MAX },
    ] {
        let mut header = header();
        header.records.push(record);
        assert!(Header::decode(&header.encode(), UUID, AT).is_err());
    }
    for change in [
        |index: &mut Index| index.leaves.swap(0, 1),
        |index: &mut Index| index.segments[0].1.live = 6,
        |index: &mut Index| index.segments.push(index.segments[0]),
        |index: &mut Index| index.snapshots.push(index.snapshots[0].clone()),
        |index: &mut Index| index.leaves[0].1.root.number = 0,
    ] {
        let mut index = index();
        change(&mut index);
        assert!(Index::decode(&index.encode(UUID, ROOT), UUID, ROOT).is_err());
    }
    for wrong in [
        vec![Extent::new(0, 2, AT, 0), Extent::new(1, 1, AT, 0)],
        vec![Extent::new(8191, 2, AT, 0)],
        vec![Extent::new(0, 0, AT, 0)],
    ] {
        let mut pack = Vec::new();
        leaf::encode(&mut pack, UUID, 4, &wrong);
        assert!(leaf::decode(&pack, UUID, 4).is_err());
    }
    let early = Fence::new(UUID, (3, 70), 2, [1; 16]);
    assert!(Fence::decode(&early.encode(), UUID, 3, 70).is_err());
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_never_taken_for_an_object(bytes: Vec<u8>, at in 0usize..48) {
        for (good, same) in objects() {
            prop_assert!(same(&bytes).is_err());
            let mut mixed = good;
            mixed.truncate(at);
            mixed.extend_from_slice(&bytes);
            prop_assert!(same(&mixed).is_err());
        }
    }

    #[test]
    fn names_that_are_read_are_written_in_one_way(text in "[emsv]/?[0-9a-f]{0,9}/?[0-9a-zA-Z]{0,17}(/[a-z0-9]{1,5})?") {
        if let Some(Name::Segment(at)) = Name::parse(&text) {
            prop_assert_eq!(name::segment(at), text);
        }
    }
}

#[test]
fn frames_of_a_journal_are_read_as_they_were_written() {
    let block = 7;
    for entry in [
        Entry::Begin(Begin::new(UUID, 3, [1; 16])),
        Entry::End { sequence: 70 },
        Entry::Synced { length: 5 },
        Entry::Data {
            position: AT,
            block,
            bytes: &[5; 8192],
        },
        Entry::Hole {
            position: AT,
            block,
            count: 3,
        },
        Entry::Resize {
            position: AT,
            size: 12345,
        },
    ] {
        let frame = entry.encode();
        let (begin, payload) = frame.split_first_chunk::<HEAD>().unwrap();
        let (length, sum) = head(*begin).unwrap();
        assert_eq!((length, sum), (payload.len(), super::segment::sum(payload)));
        assert_eq!(Entry::decode(payload), Some(entry));
        if !matches!(entry, Entry::Data { .. }) {
            assert_eq!(Entry::decode(&payload[..length - 1]), None);
        }
    }
    assert_eq!(head([0; HEAD]), None);
    assert_eq!(head([0xff; HEAD]), None);
    // Frames that say what was durable are found among other bytes, if they are whole.
    let said = |length| Entry::Synced { length }.encode();
    let bytes = [
        vec![0; 7],
        said(90),
        vec![0xff; 30],
        said(50),
        vec![0, 0, 0, 10],
    ]
    .concat();
    assert_eq!(journal::synced(&bytes), Some(90));
    let mut damaged = bytes.clone();
    damaged[7 + HEAD + 9] ^= 1;
    assert_eq!(journal::synced(&damaged), Some(50));
    assert_eq!(journal::synced(&bytes[8..60]), None);
}

#[test]
fn names_are_read_as_they_are_written() {
    for (text, expected) in [
        (name::VOLUME.into(), Name::Volume),
        (name::claim(3), Name::Claim(3)),
        (name::segment(AT), Name::Segment(AT)),
        (name::root(ROOT), Name::Root(ROOT)),
        (name::index(ROOT), Name::Index(ROOT)),
        (name::pack(ROOT, 17), Name::Pack(ROOT, 17)),
    ] {
        assert_eq!(Name::parse(&text), Some(expected), "{text}");
    }
    for text in [
        "",
        "e/1/open",
        "e/0000000A/open",
        "s/",
        "s/.x",
        "m/00000001/00000001",
        "x/y",
    ] {
        assert_eq!(Name::parse(text), None, "{text}");
    }
}

#[test]
fn a_uri_names_bucket_prefix_and_snapshot() {
    let uri = Uri::parse("s3://my.bucket/vms/vm%201@monday?region=eu-central-1&profile=b").unwrap();
    assert_eq!(
        (uri.bucket.as_str(), uri.prefix.as_str()),
        ("my.bucket", "vms/vm 1")
    );
    assert_eq!(uri.snapshot.as_deref(), Some("monday"));
    assert_eq!(
        (uri.region.as_deref(), uri.profile.as_deref()),
        (Some("eu-central-1"), Some("b"))
    );
    let uri = Uri::parse("s3://abc/v?endpoint=http://127.0.0.1:8080/&ca=/etc/ca.pem").unwrap();
    assert_eq!(uri.endpoint.as_deref(), Some("http://127.0.0.1:8080"));
    assert_eq!(uri.ca.as_deref(), Some("/etc/ca.pem"));
}

#[test]
fn every_mistake_in_a_uri_has_its_error() {
    for (text, error) in [
        ("s3://abc", UriError::Form),
        ("s3://abc/", UriError::Form),
        ("s3://abc/a//b", UriError::Form),
        ("s3://abc/../b", UriError::Form),
        ("s3://ab/v", UriError::Bucket),
        ("s3://Abc/v", UriError::Bucket),
        ("s3://-abc/v", UriError::Bucket),
        ("s3://id:secret@abc/v", UriError::Key),
        ("s3://abc/v?secret_key=x", UriError::Key),
        ("s3://abc/v?endpoint=https://u:p@h", UriError::Key),
        ("s3://abc/v@", UriError::Snapshot),
        ("s3://abc/v@a b", UriError::Snapshot),
        ("s3://abc/%ff", UriError::Encoding("the prefix")),
        ("s3://abc/a%0ab", UriError::Encoding("the prefix")),
        ("s3://abc/v#x", UriError::Fragment),
        ("s3://abc/v?region=a&region=b", UriError::Repeated("region")),
        (
            "s3://abc/v?journals=/j",
            UriError::Parameter("journals".into()),
        ),
        ("s3://abc/v?endpoint=h:80", UriError::Endpoint),
        ("s3://abc/v?endpoint=http://h/x", UriError::Endpoint),
        ("s3://abc/v?ca=ca.pem", UriError::Path("ca")),
        ("s3://abc/v?journal=j", UriError::Path("journal")),
        ("s3://abc/v?cache=c", UriError::Path("cache")),
        ("s3://abc/v?cache-size=1G", UriError::CacheSize),
        ("s3://abc/v?cache=/c&cache-size=much", UriError::CacheSize),
    ] {
        assert_eq!(Uri::parse(text), Err(error), "{text}");
    }
}
