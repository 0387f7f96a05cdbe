//! Damaged images through the whole library: nothing panics, and operations that only read do not
//! write.

use std::sync::Arc;

use luksmith::Interrupt;
use luksmith::backend::memory::MemoryBackend;
use luksmith::container::{Container, OpenOptions, Undo, Which};
use luksmith_formats::Limits;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::image::{COPY, luks1, luks2, passphrase, storage};
use crate::luks2::seal;

/// Low limits, so that a changed cost is refused or cheap.
fn cheap() -> OpenOptions {
    let mut limits = Limits::default();
    limits.argon2_memory_kib = 1024;
    limits.argon2_work_kib = 8192;
    limits.pbkdf2_iterations = 20_000;
    OpenOptions::new(Undo::NotLookedFor).limits(limits)
}

/// Opens, shows, unlocks, reads and repairs an image. Returns whether the data of the volume was
/// read.
fn use_image(image: Vec<u8>) -> bool {
    let storage = storage(image.clone());
    let reached = read_all(&storage);
    assert!(storage.to_bytes() == image, "reading has written");
    if Container::repair(storage.clone(), cheap()).is_ok() {
        assert!(Container::open(storage, cheap()).is_ok());
    }
    reached
}

fn read_all(storage: &Arc<MemoryBackend>) -> bool {
    let Ok(container) = Container::open(storage.clone(), cheap()) else {
        return false;
    };
    let shown = format!(
        "{container:?} {} {:?} {:?}",
        container.uuid(),
        container.keyslots(),
        container.requirements()
    );
    assert!(!shown.is_empty());
    _ = container.volume_key_size();
    _ = container.data_segment();
    _ = container.data_size(u64::MAX);
    _ = container.backup();
    let (passphrase, interrupt) = (passphrase(), Interrupt::new());
    for slot in container.keyslots() {
        _ = container.unlock(&passphrase, Which::Slot(slot.slot), &interrupt);
    }
    let Ok(unlocked) = container.unlock(&passphrase, Which::Any, &interrupt) else {
        return false;
    };
    let Ok(volume) = container.volume(storage.clone(), &unlocked) else {
        return false;
    };
    let mut bytes = [0; 1000];
    let fits = volume.size() >= 1000;
    assert_eq!(volume.read_at(0, &mut bytes).is_ok(), fits);
    true
}

/// Bytes that often have a meaning in headers.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        any::<u8>(),
        Just(0),
        Just(0xff),
        Just(b'0'),
        Just(b'9'),
        Just(b'"'),
        Just(b',')
    ]
}

fn damage(most: usize) -> impl Strategy<Value = Vec<(usize, u8)>> {
    vec((0..most, byte()), 1..5)
}

#[test]
fn undamaged_images_reach_their_data() {
    assert!(use_image(luks1()));
    assert!(use_image(luks2()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_luks1_image_never_panics(damage in damage(592), cut in 0..3_usize << 20) {
        let mut image = luks1();
        for (at, byte) in damage {
            image[at] = byte;
        }
        image.truncate(cut);
        use_image(image);
    }

    #[test]
    fn a_damaged_luks2_image_never_panics(
        binary in damage(512),
        text in damage(1400),
        which in 0..3_u8,
        both: bool,
        sealed: bool,
    ) {
        let mut image = luks2();
        for start in [0, COPY] {
            let copy = &mut image[start..start + COPY];
            if which != 1 {
                binary.iter().for_each(|(at, byte)| copy[*at] = *byte);
            }
            if which != 0 {
                text.iter().for_each(|(at, byte)| copy[4096 + at] = *byte);
            }
            if sealed {
                seal(copy);
            }
            if !both {
                break;
            }
        }
        use_image(image);
    }

    #[test]
    fn digits_that_change_never_panic(digits in vec((0..200_usize, b'0'..=b'9'), 1..3)) {
        let mut image = luks2();
        for start in [0, COPY] {
            let copy = &mut image[start..start + COPY];
            let text = &mut copy[4096..6000];
            let places: Vec<usize> =
                (0..text.len()).filter(|&at| text[at].is_ascii_digit()).collect();
            for (place, digit) in &digits {
                text[places[place % places.len()]] = *digit;
            }
            seal(copy);
        }
        use_image(image);
    }

    #[test]
    fn random_bytes_are_no_image(mut bytes in vec(any::<u8>(), 0..20_000), magic: bool) {
        if magic && bytes.len() > 8 {
            bytes[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
        }
        prop_assert!(!use_image(bytes));
    }
}
