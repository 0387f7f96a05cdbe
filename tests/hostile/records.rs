//! Undo records from an attacker: their bytes are written to the header only if they are the old
//! bytes of a header, and all of them are before the data.

use luksmith::container::{
    CommitError, Container, OpenOptions, Repaired, Settled, Undo, UndoError, Unproven,
};
use luksmith_formats::luks1;
use sha2::{Digest as _, Sha256};
use std::sync::{Arc, Mutex};

use crate::image::{DATA, LUKS1_DATA, MemoryUndo, luks1, storage, with_luks1};

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// A range of a record: its offset, its old bytes, and what the change wrote to each unit.
struct Range<'a>(u64, &'a [u8], &'a [u8]);

/// The content of a record after its checksum, for the volume in `image`.
fn body(image: &[u8], has_hashes: bool, ranges: &[Range<'_>]) -> Vec<u8> {
    let uuid = &image[168..208];
    let mut body = [uuid, uuid].concat();
    body.extend((ranges.len() as u64).to_le_bytes());
    for Range(offset, old, new) in ranges {
        body.extend(offset.to_le_bytes());
        body.extend((old.len() as u64).to_le_bytes());
        body.extend(*old);
        for unit in new.chunks(512).filter(|_| has_hashes) {
            body.push(1);
            body.extend(sha256(unit));
        }
    }
    body
}

fn sealed(magic: &[u8], body: &[u8]) -> Vec<u8> {
    [magic, &sha256(body), body].concat()
}

const MAGIC_1: &[u8] = b"luksmith undo 1\n";
const MAGIC_2: &[u8] = b"luksmith undo 2\n";

fn record(image: &[u8], ranges: &[Range<'_>]) -> Vec<u8> {
    sealed(MAGIC_2, &body(image, true, ranges))
}

/// Settles the record, and returns the bytes of the storage after that.
fn settle(
    image: &[u8],
    record: Vec<u8>,
    unproven: Unproven,
) -> (Result<Settled, UndoError>, Vec<u8>) {
    let storage = storage(image.to_vec());
    let undo = MemoryUndo(Mutex::new(Some(record)));
    let options = OpenOptions::new(Undo::Store(Arc::new(undo)));
    let settled = match Container::settle(&*storage, &options, unproven) {
        Ok(Some(Repaired::Interrupted { settled, .. })) => Ok(settled),
        Err(CommitError::Undo(error)) => Err(error),
        other => panic!("{other:?}"),
    };
    (settled, storage.to_bytes())
}

/// The image after the first half of a change of its first two sectors, and their old bytes.
fn half_changed() -> (Vec<u8>, Vec<u8>) {
    let old = luks1()[..1024].to_vec();
    let mut image = luks1();
    image[700] ^= 1;
    (image, old)
}

#[test]
fn a_record_of_a_header_is_applied() {
    let (image, old) = half_changed();
    let mut new = image[..1024].to_vec();
    new[100] ^= 1;
    let good = record(&image, &[Range(0, &old, &new)]);
    let (settled, bytes) = settle(&image, good, Unproven::Refuse);
    assert_eq!(settled.unwrap(), Settled::RolledBack);
    assert!(bytes == luks1());
}

#[test]
fn a_record_of_anything_else_is_refused() {
    let (image, old) = half_changed();
    let header = &image[..1024];
    let size = image.len() as u64;
    let data = LUKS1_DATA as u64;
    let zeroes = [0; 1024];
    let present = &image[LUKS1_DATA..LUKS1_DATA + 1024];
    let mut last_sectors = image.clone();
    last_sectors.truncate(LUKS1_DATA);
    let last_sectors = last_sectors.split_off(LUKS1_DATA - 512);
    // Moves the data, so that more seems to be the header.
    let further = with_luks1(|header: &mut luks1::Header| header.payload_offset += 128);
    let further = &further[..1024];
    let across = [last_sectors.as_slice(), &present[..512]].concat();
    let outside = [
        (
            "data",
            record(
                &image,
                &[Range(0, &old, header), Range(data, &zeroes, present)],
            ),
        ),
        (
            "data only",
            record(&image, &[Range(data, &zeroes, present)]),
        ),
        (
            "across",
            record(&image, &[Range(data - 512, &zeroes, &across)]),
        ),
        (
            "moved data",
            record(
                &image,
                &[Range(0, further, header), Range(data, &zeroes, present)],
            ),
        ),
        ("no header", record(&image, &[Range(0, &zeroes, header)])),
        (
            "across the end",
            record(&image, &[Range(size - 512, &zeroes, &zeroes)]),
        ),
        (
            "behind the end",
            record(&image, &[Range(size, &zeroes, &zeroes)]),
        ),
        ("far", record(&image, &[Range(1 << 62, &zeroes, &zeroes)])),
    ];
    for (name, record) in outside {
        for unproven in [Unproven::Refuse, Unproven::Apply] {
            let (settled, bytes) = settle(&image, record.clone(), unproven);
            assert!(
                matches!(settled, Err(UndoError::Outside { .. })),
                "{name}: {settled:?}"
            );
            assert!(bytes == image, "{name}: written");
        }
    }

    let good = body(&image, true, &[Range(0, &old, header)]);
    let mut many = good.clone();
    many[80..88].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut long = good.clone();
    long[96..104].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut last = good.clone();
    last[88..96].copy_from_slice(&(u64::MAX - 100).to_le_bytes());
    let mut more = good.clone();
    more.push(0);
    let hash = good.len() - 33;
    let mut hashes = good.clone();
    hashes[hash] = 255;
    let twice = [Range(0, &old, header), Range(512, &zeroes, header)];
    let damaged = [
        ("no content", sealed(MAGIC_2, &[])),
        ("many ranges", sealed(MAGIC_2, &many)),
        ("a long range", sealed(MAGIC_2, &long)),
        ("past 2^64", sealed(MAGIC_2, &last)),
        ("more bytes", sealed(MAGIC_2, &more)),
        ("more hashes", sealed(MAGIC_2, &hashes)),
        ("cut", sealed(MAGIC_2, &good[..good.len() - 1])),
        ("overlapping", record(&image, &twice)),
        (
            "backwards",
            record(
                &image,
                &[Range(1024, &zeroes, header), Range(0, &old, header)],
            ),
        ),
        ("an empty range", record(&image, &[Range(0, &[], &[])])),
        ("a wrong checksum", [MAGIC_2, &[0; 32], &good].concat()),
    ];
    for (name, record) in damaged {
        let (settled, bytes) = settle(&image, record, Unproven::Apply);
        assert!(
            matches!(settled, Err(UndoError::Damaged { .. })),
            "{name}: {settled:?}"
        );
        assert!(bytes == image, "{name}: written");
    }
    assert_eq!(image.len(), LUKS1_DATA + DATA);
}

#[test]
fn a_record_without_hashes_is_applied_only_on_request() {
    let (image, old) = half_changed();
    let first = sealed(MAGIC_1, &body(&image, false, &[Range(0, &old, &[])]));
    let (settled, bytes) = settle(&image, first.clone(), Unproven::Refuse);
    assert!(
        matches!(settled, Err(UndoError::NoHashes { .. })),
        "{settled:?}"
    );
    assert!(bytes == image);
    let (settled, bytes) = settle(&image, first.clone(), Unproven::Discard);
    assert!(
        matches!(settled, Ok(Settled::Discarded { .. })),
        "{settled:?}"
    );
    assert!(bytes == image);
    let (settled, bytes) = settle(&image, first.clone(), Unproven::Apply);
    assert!(
        matches!(settled, Ok(Settled::Applied { .. })),
        "{settled:?}"
    );
    assert!(bytes == luks1());
    // Where all bytes are old, nothing has to be chosen.
    let (settled, bytes) = settle(&luks1(), first, Unproven::Refuse);
    assert_eq!(settled.unwrap(), Settled::NotBegun);
    assert!(bytes == luks1());
}
