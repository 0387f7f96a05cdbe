//! Superblocks and journals of dm-integrity that no kernel writes, beside good ones. Whatever they
//! say, no byte is returned that was not written, and nothing panics.

use std::sync::Arc;

use luksmith::Interrupt;
use luksmith::backend::IoError;
use luksmith::backend::memory::MemoryBackend;
use luksmith::container::{Container, OpenOptions, Undo, VolumeError};
use luksmith::layout::IntegrityError;
use luksmith::secret::VolumeKey;
use luksmith::volume::Volume;
use luksmith_formats::Kind;
use proptest::prelude::*;
use support::allocation::peak_of;
use support::tagged::Tagged;

/// Where the superblock is in the images.
const START: usize = 1 << 20;
const MOST_MEMORY: usize = 16 << 20;

fn volume(image: Vec<u8>, key: &[u8]) -> Result<Volume, VolumeError> {
    let data = Arc::new(MemoryBackend::from_bytes(image));
    let options = OpenOptions::new(Undo::NotLookedFor);
    let container = Container::open(data.clone(), options).unwrap();
    let key = VolumeKey::copy_from(key).unwrap();
    let unlocked = container.unlock_with_key(key, &Interrupt::new()).unwrap();
    container.volume(data, &unlocked)
}

fn changed(good: &Tagged, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut image = good.image.clone();
    change(&mut image[START..]);
    image
}

/// Reads everything. A sector is what was written to it, or an error.
fn read_all(good: &Tagged, volume: &Volume) {
    let unit = volume.unit() as usize;
    let mut content = vec![0; unit];
    for at in (0..volume.size().min(8 << 20)).step_by(unit) {
        match volume.read_at(at, &mut content) {
            Ok(()) => {
                let written = support::tagged::pattern(at, unit as u64);
                assert!(content == written, "{}: other bytes at {at}", good.name);
            }
            Err(IoError::TagMismatch { .. }) => {}
            Err(error) => panic!("{}: {error}", good.name),
        }
    }
}

fn put(at: usize, bytes: &[u8]) -> impl FnOnce(&mut [u8]) {
    move |superblock| superblock[at..at + bytes.len()].copy_from_slice(bytes)
}

#[test]
fn each_superblock_is_refused_for_its_own_reason() {
    let good = Tagged::named("hmac-plain64-4096");
    read_all(&good, &volume(good.image.clone(), &good.key).unwrap());
    for (name, at, bytes, kind, words) in [
        ("no magic", 0, &b"x"[..], Kind::Malformed, "there is none"),
        ("version 0", 8, &[0], Kind::Unsupported, "1 to 6 are"),
        ("version 7", 8, &[7], Kind::Unsupported, "1 to 6 are"),
        ("tiny areas", 9, &[2], Kind::Malformed, "areas"),
        ("huge areas", 9, &[0xff], Kind::Malformed, "areas"),
        ("no tags", 10, &[0, 0], Kind::Malformed, "tag"),
        ("huge tags", 10, &[0xff, 0xff], Kind::Malformed, "tag"),
        ("no journal", 12, &[0; 4], Kind::Malformed, "no journal"),
        ("a huge journal", 12, &[0xff; 4], Kind::OverLimit, "at most"),
        ("no data", 16, &[0; 8], Kind::Malformed, "not a number"),
        (
            "part of a sector",
            16,
            &[1],
            Kind::Malformed,
            "not a number",
        ),
        (
            "data behind the storage",
            18,
            &[1],
            Kind::Malformed,
            "ends at",
        ),
        ("data of 72 bits", 23, &[0xff], Kind::Malformed, "too large"),
        ("codes in the journal", 24, &[9], Kind::Unsupported, "codes"),
        (
            "tags being computed",
            24,
            &[10],
            Kind::Unsupported,
            "computed",
        ),
        ("a bitmap", 24, &[12], Kind::Unsupported, "bitmap"),
        (
            "inline tags",
            24,
            &[40],
            Kind::Unsupported,
            "in the sectors",
        ),
        ("an unknown flag", 25, &[1], Kind::Unsupported, "not known"),
        ("huge sectors", 28, &[63], Kind::Malformed, "no sectors"),
    ] {
        let image = changed(&good, put(at, bytes));
        let (outcome, peak) = peak_of(|| volume(image, &good.key));
        assert!(peak < MOST_MEMORY, "{name}: {peak}");
        match outcome {
            Err(VolumeError::Integrity(IntegrityError::Superblock(error))) => {
                assert_eq!(error.kind, kind, "{name}: {error}");
                assert!(error.cause.contains(words), "{name}: {error}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    // What the header says of tags and sectors has to agree.
    for (at, byte) in [(10, 48), (10, 28), (28, 0), (28, 2)] {
        let image = changed(&good, put(at, &[byte]));
        let outcome = volume(image, &good.key);
        assert!(
            matches!(
                outcome,
                Err(VolumeError::Integrity(IntegrityError::Mismatch { .. }))
            ),
            "{outcome:?}"
        );
    }
    // Another padding or size of areas has other places, where nothing matches.
    for change in [(9, 14), (9, 31), (24, 0), (24, 24)] {
        let image = changed(&good, put(change.0, &[change.1]));
        match volume(image, &good.key) {
            Ok(volume) => read_all(&good, &volume),
            Err(VolumeError::Integrity(_)) => {}
            Err(error) => panic!("{change:?}: {error}"),
        }
    }
}

#[test]
fn a_write_in_the_journal_is_refused_wherever_it_is() {
    let good = Tagged::named("areas");
    let places = good.places();
    let section = usize::try_from(places.section_size()).unwrap();
    assert_eq!(places.sections(), 2);
    for number in 0..2 {
        // The last entry: 504 / 104 are 4 in each of 8 sectors.
        let at = 4096 + number * section + 7 * 512 + 3 * 104 + 4;
        let image = changed(&good, put(at, &[0xfe]));
        let outcome = volume(image, &good.key);
        let expected = u32::try_from(number).unwrap();
        assert!(
            matches!(
                outcome,
                Err(VolumeError::Integrity(IntegrityError::Journal { section }))
                    if section == expected
            ),
            "{outcome:?}"
        );
    }
    // Commit IDs and the ends of journal sectors are no entries.
    let image = changed(&good, put(4096 + 504, &[0; 8]));
    assert!(volume(image, &good.key).is_ok());
}

#[test]
fn a_storage_that_is_cut_off_is_refused() {
    let good = Tagged::named("gcm-512");
    let end = usize::try_from(good.places().end()).unwrap();
    for length in [START, START + 256, START + 512, START + 4096, end - 512] {
        let image = good.image[..length].to_vec();
        let outcome = volume(image, &good.key);
        assert!(
            matches!(
                outcome,
                Err(VolumeError::Integrity(IntegrityError::Superblock(_)))
            ),
            "{length}: {outcome:?}"
        );
    }
    read_all(
        &good,
        &volume(good.image[..end].to_vec(), &good.key).unwrap(),
    );
}

#[test]
fn another_volume_key_opens_nothing() {
    let good = Tagged::named("gcm-512");
    let data = Arc::new(MemoryBackend::from_bytes(good.image));
    let options = OpenOptions::new(Undo::NotLookedFor);
    let container = Container::open(data, options).unwrap();
    // A key of another size, and one that HMAC pads to the same.
    for key in [
        &[7; 16][..],
        &good.key[..15],
        &[&good.key[..], &[0]].concat(),
    ] {
        let key = VolumeKey::copy_from(key).unwrap();
        let outcome = container.unlock_with_key(key, &Interrupt::new());
        assert!(matches!(outcome, Err(VolumeError::WrongKey)), "{outcome:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Any changes of the superblock, the journal, the tags and the data.
    #[test]
    fn changes_give_errors_and_never_other_data(
        which in 0..4_usize,
        changes in prop::collection::vec((0..2_usize, any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let names = ["hmac-random-512", "gcm-512", "chacha-512", "aegis-512"];
        let good = vector(names[which]);
        let image = changed(good, |image| {
            for (where_, at, byte) in &changes {
                let part = [32, image.len()][*where_];
                image[at.index(part)] = *byte;
            }
        });
        match volume(image, &good.key) {
            Ok(volume) => read_all(good, &volume),
            Err(VolumeError::Integrity(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn vector(name: &str) -> &'static Tagged {
    static ALL: std::sync::OnceLock<Vec<Tagged>> = std::sync::OnceLock::new();
    let small = || {
        let mut all = Tagged::all();
        all.retain(|vector| vector.image.len() < 8 << 20);
        all
    };
    let mut all = ALL.get_or_init(small).iter();
    all.find(|vector| vector.name == name).unwrap()
}
