//! The key of one open container is passed to another one: it is refused, and nothing is written.

use std::sync::Arc;

use luksmith::Interrupt;
use luksmith::backend::Backend as _;
use luksmith::backend::memory::MemoryBackend;
use luksmith::container::{
    Container, CreateOptions, KeyslotError, NewKeyslot, Unlocked, Version, VolumeError, Which,
};
use luksmith::layout::{NewImage, Qcow2};
use luksmith::secret::{Passphrase, VolumeKey};
use luksmith::sectors::{Cipher, Sectors};

use crate::image::{
    COST, luks1, luks2, make, open, options, passphrase, storage, unlock, with_json, with_undo,
};

fn new<'a>(passphrase: &'a Passphrase, slot: Option<u32>) -> NewKeyslot<'a> {
    NewKeyslot::new(passphrase, COST).slot(slot)
}

/// Checks that every operation with a key refuses this one, and does not change the storage.
fn assert_refused(image: Vec<u8>, unlocked: &Unlocked) {
    let target = storage(image.clone());
    let mut container = Container::open(target.clone(), with_undo()).unwrap();
    let (passphrase, interrupt) = (passphrase(), Interrupt::new());

    let volume = container.volume(target.clone(), unlocked);
    assert!(matches!(volume, Err(VolumeError::WrongKey)), "{volume:?}");
    let added = container.add_keyslot(unlocked, &new(&passphrase, None), &interrupt);
    assert!(matches!(added, Err(KeyslotError::WrongKey)), "{added:?}");
    let changed = container.change_keyslot(unlocked, &new(&passphrase, None), &interrupt);
    assert!(
        matches!(changed, Err(KeyslotError::WrongKey)),
        "{changed:?}"
    );
    assert!(target.to_bytes() == image, "written");
    // Control: its own key is accepted by all of these operations.
    let own = unlock(&container).unwrap();
    container.volume(target, &own).unwrap();
    container
        .add_keyslot(&own, &new(&passphrase, None), &interrupt)
        .unwrap();
    container
        .change_keyslot(&own, &new(&passphrase, None), &interrupt)
        .unwrap();
}

#[test]
fn the_key_of_another_container_is_refused() {
    for (image, other) in [
        (luks1(), make(options(Version::Luks1))),
        (luks2(), make(options(Version::Luks2))),
        (luks1(), luks2()),
        (luks2(), luks1()),
    ] {
        let unlocked = unlock(&open(&storage(other)).unwrap()).unwrap();
        assert_refused(image, &unlocked);
    }
}

#[test]
fn the_key_of_another_qcow2_image_is_refused() {
    let new = || {
        let options = CreateOptions::new(Version::Luks1, COST).in_qcow2();
        let header_size = options.layout().unwrap().header_size;
        let storage = Arc::new(MemoryBackend::new(0));
        let image = Qcow2::create(storage, &NewImage::new(1 << 20, header_size)).unwrap();
        let header = image.header_storage();
        let (container, unlocked) = Container::create(
            header,
            options,
            with_undo(),
            &passphrase(),
            &Interrupt::new(),
        )
        .unwrap();
        (Arc::new(image), container, unlocked)
    };
    let (image, container, own) = new();
    let (_, _, other) = new();
    let volume = container.volume_in(image.clone(), &other);
    assert!(matches!(volume, Err(VolumeError::WrongKey)), "{volume:?}");
    container.volume_in(image, &own).unwrap();
}

/// Two containers may have the same volume key, but each one has to be unlocked itself.
#[test]
fn an_equal_volume_key_of_another_container_is_refused() {
    for version in [Version::Luks1, Version::Luks2] {
        let image = || {
            let mut options = options(version);
            options.volume_key = Some(VolumeKey::copy_from(&[7; 64]).unwrap());
            make(options)
        };
        let other = open(&storage(image())).unwrap();
        let interrupt = Interrupt::new();
        let unlocked = other
            .unlock_with_key(VolumeKey::copy_from(&[7; 64]).unwrap(), &interrupt)
            .unwrap();
        let target = storage(image());
        let volume = open(&target).unwrap().volume(target, &unlocked);
        assert!(matches!(volume, Err(VolumeError::WrongKey)), "{volume:?}");
        assert_refused(image(), &unlock(&other).unwrap());
    }
}

#[test]
fn a_container_that_is_opened_again_takes_the_key() {
    for image in [luks1(), luks2()] {
        let image = storage(image);
        let unlocked = unlock(&open(&image).unwrap()).unwrap();
        let mut again = Container::open(image.clone(), with_undo()).unwrap();
        let passphrase = passphrase();
        again
            .add_keyslot(&unlocked, &new(&passphrase, None), &Interrupt::new())
            .unwrap();
        let once_more = open(&image).unwrap();
        once_more.volume(image.clone(), &unlocked).unwrap();
    }
}

/// A conversion keeps the volume key and its digest, of which LUKS1 stores the first 20 bytes.
#[test]
fn a_converted_container_takes_the_key() {
    let image = storage(luks1());
    let mut container = Container::open(image.clone(), with_undo()).unwrap();
    let unlocked = unlock(&container).unwrap();
    container.convert(Version::Luks2).unwrap();
    container.volume(image.clone(), &unlocked).unwrap();

    let mut longer = options(Version::Luks2);
    longer.data_offset = Some(4 << 20);
    let image = storage(make(longer));
    let mut container = Container::open(image.clone(), with_undo()).unwrap();
    let unlocked = unlock(&container).unwrap();
    container.convert(Version::Luks1).unwrap();
    container.volume(image, &unlocked).unwrap();
}

/// The key of an unbound keyslot opens no data. It changes no keyslot of another key that has got
/// its number.
#[test]
fn the_key_of_an_unbound_keyslot_is_good_for_that_keyslot_only() {
    let image = storage(luks2());
    let mut container = Container::open(image.clone(), with_undo()).unwrap();
    let interrupt = Interrupt::new();
    let (passphrase, other) = (passphrase(), Passphrase::copy_from(b"unbound").unwrap());
    let key = VolumeKey::random(64).unwrap();
    let unbound = new(&other, Some(1));
    container
        .add_unbound_keyslot(key, &unbound, &interrupt)
        .unwrap();
    let unlocked = container
        .unlock(&other, Which::Slot(1), &interrupt)
        .unwrap();
    let volume = container.volume(image, &unlocked);
    assert!(matches!(volume, Err(VolumeError::WrongKey)));
    container
        .change_keyslot(&unlocked, &unbound, &interrupt)
        .unwrap();

    container.remove_keyslot(1, false).unwrap();
    let changed = container.change_keyslot(&unlocked, &unbound, &interrupt);
    assert!(matches!(changed, Err(KeyslotError::NotInUse(1))));
    let own = unlock(&container).unwrap();
    container
        .add_keyslot(&own, &new(&passphrase, Some(1)), &interrupt)
        .unwrap();
    let changed = container.change_keyslot(&unlocked, &unbound, &interrupt);
    assert!(
        matches!(changed, Err(KeyslotError::WrongKey)),
        "{changed:?}"
    );
}

/// Another program removes the keyslot that was opened, and gives its number to another passphrase
/// of the same volume. Neither a change nor a removal of the first keyslot touches the second.
#[test]
fn a_keyslot_that_got_the_number_of_another_is_not_changed_or_removed() {
    let interrupt = Interrupt::new();
    let (first, second) = (passphrase(), Passphrase::copy_from(b"second").unwrap());
    let third = Passphrase::copy_from(b"third").unwrap();
    for image in [luks1(), luks2()] {
        let image = storage(image);
        let mut container = Container::open(image.clone(), with_undo()).unwrap();
        let own = unlock(&container).unwrap();
        container
            .add_keyslot(&own, &new(&second, Some(1)), &interrupt)
            .unwrap();
        let opened = container.unlock(&second, Which::Slot(1), &interrupt);
        let opened = opened.unwrap();
        let mark = container.keyslot_mark(1).unwrap().unwrap();
        assert_eq!(opened.mark(), Some(&mark));

        let mut other = Container::open(image.clone(), with_undo()).unwrap();
        other.remove_keyslot(1, false).unwrap();
        other
            .add_keyslot(&own, &new(&third, Some(1)), &interrupt)
            .unwrap();
        let before = image.to_bytes();
        let mut again = Container::open(image.clone(), with_undo()).unwrap();
        let changed = again.change_keyslot(&opened, &new(&first, None), &interrupt);
        assert!(
            matches!(changed, Err(KeyslotError::Replaced(1))),
            "{changed:?}"
        );
        let removed = again.remove_marked_keyslot(1, &mark, false);
        assert!(
            matches!(removed, Err(KeyslotError::Replaced(1))),
            "{removed:?}"
        );
        assert!(image.to_bytes() == before, "written");

        // Control: the mark and the key of the keyslot that is there.
        let there = again.unlock(&third, Which::Any, &interrupt).unwrap();
        let slot = again.change_keyslot(&there, &new(&second, None), &interrupt);
        let slot = slot.unwrap();
        let mark = again.keyslot_mark(slot).unwrap().unwrap();
        again.remove_marked_keyslot(slot, &mark, false).unwrap();
        let gone = again.remove_marked_keyslot(slot, &mark, false);
        assert!(matches!(gone, Err(KeyslotError::NotInUse(_))), "{gone:?}");
    }
}

/// The mark of a keyslot is also that of its key material.
#[test]
fn a_keyslot_with_other_key_material_is_another() {
    for image in [luks1(), luks2()] {
        let image = storage(image);
        let mut container = Container::open(image.clone(), with_undo()).unwrap();
        let interrupt = Interrupt::new();
        let unlocked = unlock(&container).unwrap();
        let area = container.keyslots()[0].area.clone();
        let mut before = image.to_bytes();
        let other = &mut before[usize::try_from(area.start).unwrap()..][..512];
        other.fill(7);
        let mut written = Sectors::<Cipher>::zeroed(other.len());
        written.as_mut_slice().copy_from_slice(other);
        image.write_at(area.start, &written).unwrap();
        let passphrase = passphrase();
        let changed = container.change_keyslot(&unlocked, &new(&passphrase, None), &interrupt);
        assert!(
            matches!(changed, Err(KeyslotError::Replaced(0))),
            "{changed:?}"
        );
        let mark = unlocked.mark().unwrap();
        let removed = container.remove_marked_keyslot(0, mark, true);
        assert!(
            matches!(removed, Err(KeyslotError::Replaced(0))),
            "{removed:?}"
        );
        assert!(image.to_bytes() == before, "written");
    }
}

/// Each part of a digest is compared.
#[test]
fn a_digest_with_another_salt_is_another() {
    let unlocked = unlock(&open(&storage(luks2())).unwrap()).unwrap();
    let salt = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let changed = with_json(|json| json["digests"]["0"]["salt"] = salt.into());
    let target = storage(changed);
    let volume = open(&target).unwrap().volume(target, &unlocked);
    assert!(matches!(volume, Err(VolumeError::WrongKey)), "{volume:?}");
}
