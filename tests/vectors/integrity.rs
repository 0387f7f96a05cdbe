//! Volumes with authenticated encryption that cryptsetup and the kernel made: what they wrote is
//! read, and a sector that does not match its tag is an error, and nothing else is.

use std::sync::Arc;

use luksmith::Interrupt;
use luksmith::backend::memory::MemoryBackend;
use luksmith::backend::{IoError, Operation};
use luksmith::container::{Container, OpenOptions, Undo, VolumeError};
use luksmith::layout::IntegrityError;
use luksmith::secret::VolumeKey;
use luksmith::volume::Volume;
use support::tagged::Tagged;

use crate::Vectors;

fn open(vector: &Tagged) -> Result<Volume, VolumeError> {
    let data = Arc::new(MemoryBackend::from_bytes(vector.image.clone()));
    let header = match &vector.header {
        Some(header) => Arc::new(MemoryBackend::from_bytes(header.clone())),
        None => data.clone(),
    };
    let container = Container::open(header, OpenOptions::new(Undo::NotLookedFor)).unwrap();
    assert_eq!(container.not_supported(), []);
    let key = VolumeKey::copy_from(&vector.key).unwrap();
    let unlocked = container.unlock_with_key(key, &Interrupt::new()).unwrap();
    assert_eq!(container.data_size_on(&*data).unwrap(), vector.size);
    container.volume(data, &unlocked)
}

/// Reads one sector.
fn read(volume: &Volume, vector: &Tagged, number: u64) -> Result<Vec<u8>, IoError> {
    let mut sector = vec![0x5a; usize::try_from(vector.sector_size).unwrap()];
    volume.read_at(number * vector.sector_size, &mut sector)?;
    Ok(sector)
}

/// The sectors that are errors, out of these. Each of the others is what was written.
fn errors(vector: &Tagged, numbers: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let volume = open(vector).unwrap();
    let mut wrong = Vec::new();
    for number in numbers {
        match read(&volume, vector, number) {
            Ok(content) => assert!(content == vector.sector(number), "{} {number}", vector.name),
            Err(IoError::TagMismatch { offset, len }) => {
                assert_eq!(offset, number * vector.sector_size);
                assert_eq!(u64::from(len), vector.sector_size);
                wrong.push(number);
            }
            Err(error) => panic!("{} {number}: {error}", vector.name),
        }
    }
    wrong
}

#[test]
fn what_the_kernel_wrote_is_read_and_what_it_never_wrote_is_an_error() {
    let file = Vectors::load("integrity.json");
    let mut ran = 0;
    for vector in Tagged::all() {
        ran += 1;
        if vector.has_journal() {
            let error = open(&vector).unwrap_err();
            assert!(
                matches!(
                    error,
                    VolumeError::Integrity(IntegrityError::Journal { section: 0 })
                ),
                "{error:?}"
            );
            continue;
        }
        let volume = open(&vector).unwrap();
        assert_eq!(volume.size(), vector.size);
        assert_eq!(u64::from(volume.sector_size()), vector.sector_size);
        let count = vector.size / vector.sector_size;
        let near: Vec<_> = (vector.written.iter())
            .flat_map(|number| number.saturating_sub(2)..(number + 3).min(count))
            .collect();
        let expected: Vec<_> = (near.iter())
            .filter(|number| !vector.written.contains(number))
            .copied()
            .collect();
        assert_eq!(errors(&vector, near), expected, "{}", vector.name);
    }
    let file_count = file.json["tests"].as_array().unwrap().len() as u64;
    assert_eq!(ran, file_count);
    file.assert_all_ran(ran);
}

#[test]
fn parts_of_sectors_and_several_areas_are_read() {
    for vector in Tagged::all() {
        if vector.has_journal() {
            continue;
        }
        let volume = open(&vector).unwrap();
        let two = vector.written.windows(2).find(|two| two[0] + 1 == two[1]);
        let first = two.unwrap()[0];
        let (size, at) = (vector.sector_size, first * vector.sector_size);
        let whole = [vector.sector(first), vector.sector(first + 1)].concat();
        for (from, until) in [(0, 1), (1, 511), (size - 7, size + 9), (0, 2 * size)] {
            let range = usize::try_from(from).unwrap()..usize::try_from(until).unwrap();
            let mut content = vec![0; range.len()];
            volume.read_at(at + from, &mut content).unwrap();
            assert!(content == whole[range], "{} {from}..{until}", vector.name);
        }
        let error = volume.read_at(vector.size - 1, &mut [0; 2]).unwrap_err();
        assert!(matches!(error, IoError::OutOfRange { .. }), "{error}");
    }
}

#[test]
fn a_changed_bit_is_an_error_of_its_sector_only() {
    for original in Tagged::all() {
        if original.has_journal() || original.image.len() > 8 << 20 {
            continue;
        }
        let changed = |at: usize, bit: u8| {
            let mut image = original.image.clone();
            image[at] ^= 1 << bit;
            Tagged {
                image,
                ..copy(&original)
            }
        };
        let tag_size = original.places().tag_size();
        let victim = original.written[1];
        let (data, tag) = original.place(victim);
        let size = usize::try_from(original.sector_size).unwrap();
        for at in [data, data + 17, data + size - 1] {
            let vector = changed(at, 3);
            assert_eq!(errors(&vector, original.written.clone()), [victim]);
        }
        // The code, and the IV if there is one.
        for at in (0..tag_size).step_by(3) {
            let vector = changed(tag + at, u8::try_from(at % 8).unwrap());
            assert_eq!(errors(&vector, original.written.clone()), [victim]);
        }
    }
}

#[test]
fn a_moved_sector_is_an_error() {
    for original in Tagged::all() {
        if original.has_journal() || original.image.len() > 8 << 20 {
            continue;
        }
        let size = usize::try_from(original.sector_size).unwrap();
        let tag_size = original.places().tag_size();
        let (one, other) = (original.written[0], original.written[1]);
        let ((data, tag), (other_data, other_tag)) = (original.place(one), original.place(other));
        let mut vector = copy(&original);
        swap(&mut vector.image, data, other_data, size);
        let both = errors(&vector, original.written.clone());
        assert_eq!(both, [one, other], "{}", original.name);
        // With their tags: the number of a sector is authenticated.
        swap(&mut vector.image, tag, other_tag, tag_size);
        let both = errors(&vector, original.written.clone());
        assert_eq!(both, [one, other], "{}", original.name);
        swap(&mut vector.image, data, other_data, size);
        swap(&mut vector.image, tag, other_tag, tag_size);
        assert_eq!(errors(&vector, original.written.clone()), [0; 0]);
    }
}

/// An earlier state of a sector and its tag is taken, as SECURITY.md says.
#[test]
fn a_replayed_sector_is_not_noticed() {
    let original = Tagged::named("gcm-512");
    let other = copy(&original);
    let (data, tag) = original.place(original.written[0]);
    let mut vector = copy(&original);
    vector.image[data..][..512].fill(0);
    assert_eq!(errors(&vector, [original.written[0]]).len(), 1);
    let tag_size = original.places().tag_size();
    vector.image[data..][..512].copy_from_slice(&other.image[data..][..512]);
    vector.image[tag..][..tag_size].copy_from_slice(&other.image[tag..][..tag_size]);
    assert_eq!(errors(&vector, [original.written[0]]), [0; 0]);
}

#[test]
fn nothing_is_written() {
    for name in ["hmac-plain64-4096", "aegis-512"] {
        let volume = open(&Tagged::named(name)).unwrap();
        assert!(volume.is_read_only());
        for outcome in [
            volume.write_at(0, &[1; 4096]),
            volume.write_zeroes(0..4096),
            volume.discard(0..4096),
            volume.resize(8192),
        ] {
            assert!(matches!(
                outcome,
                Err(IoError::ReadOnly(
                    Operation::Write
                        | Operation::WriteZeroes
                        | Operation::Discard
                        | Operation::Resize
                ))
            ));
        }
        volume.flush().unwrap();
        volume.prefetch(0..4096).unwrap();
    }
}

/// A storage that is only read and written in blocks.
#[test]
fn storages_with_larger_blocks_are_read() {
    for name in ["hmac-random-512", "gcm-4096", "padding"] {
        let vector = Tagged::named(name);
        for block in [512, 4096] {
            let data = MemoryBackend::from_bytes(vector.image.clone()).with_block_size(block);
            let data = Arc::new(data);
            let options = OpenOptions::new(Undo::NotLookedFor);
            let container = Container::open(data.clone(), options).unwrap();
            let key = VolumeKey::copy_from(&vector.key).unwrap();
            let unlocked = container.unlock_with_key(key, &Interrupt::new()).unwrap();
            let volume = container.volume(data, &unlocked).unwrap();
            let unit = u64::from(volume.unit());
            assert_eq!(unit, vector.sector_size.max(block.into()));
            // A unit has several sectors then, each of which has to match.
            let outcome = read(&volume, &vector, vector.written[0]);
            match unit == vector.sector_size {
                true => assert!(outcome.unwrap() == vector.sector(vector.written[0])),
                false => assert!(matches!(outcome, Err(IoError::TagMismatch { .. }))),
            }
        }
    }
}

fn copy(vector: &Tagged) -> Tagged {
    Tagged {
        name: vector.name.clone(),
        image: vector.image.clone(),
        header: vector.header.clone(),
        key: vector.key.clone(),
        written: vector.written.clone(),
        ..*vector
    }
}

fn swap(image: &mut [u8], one: usize, other: usize, length: usize) {
    for at in 0..length {
        image.swap(one + at, other + at);
    }
}
