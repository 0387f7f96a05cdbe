//! Every change of luksmith keeps what luksmith does not know: tokens of other programs, and
//! members of JSON objects that are in no specification.

use crate::cryptsetup::Cryptsetup;
use crate::ours;
use crate::payload::{file, sparse};
use luksmith::Interrupt;
use luksmith::container::{
    Configure, Container, CreateOptions, Repaired, RestoreOptions, Version, Which,
};
use luksmith::secret::VolumeKey;
use luksmith_formats::json::{Value, json};
use luksmith_formats::luks2::{Metadata, Priority};
use std::path::Path;

const MIB: u64 = 1 << 20;
const ONE: &[u8] = b"one";
const TWO: &[u8] = b"two";

/// Where something unknown is put.
const PLACES: [&str; 8] = [
    "",
    "/config",
    "/segments/0",
    "/digests/0",
    "/keyslots/0",
    "/keyslots/0/area",
    "/keyslots/0/af",
    "/tokens/7",
];
const NAME: &str = "com.example.unknown";

fn unknown() -> Value {
    json!({
        "nested": [1, -2, 3.5, null, true, {"deep": {"e\u{0301}": "\u{1f511} \"\\\n"}}],
        "empty": {},
        "large": u64::MAX,
    })
}

fn token() -> Value {
    json!({"type": "example-unknown", "keyslots": ["0"], "tpm": {"pcrs": [7, 11], "blob": "AAECAw=="}})
}

/// A small volume with something unknown in every place.
fn volume(image: &Path) {
    let mut options = CreateOptions::new(Version::Luks2, ours::QUICK);
    options.data_offset = Some(2 * MIB);
    options.blank = true;
    ours::create(image, ONE, options);
    let id = ours::open(image)
        .add_token(Some(7), token(), false)
        .unwrap();
    assert_eq!(id, 7);
    ours::edit_luks2(image, |header| {
        let mut value = header.json().clone();
        for place in PLACES {
            let object = value
                .pointer_mut(place)
                .and_then(Value::as_object_mut)
                .unwrap();
            object.insert(NAME, unknown());
        }
        let json_size = header.metadata.config().json_size;
        let mut area = value.to_string().into_bytes();
        area.resize(usize::try_from(json_size).unwrap(), 0);
        header.metadata = Metadata::parse(&area, 4096, header.hdr_size).unwrap();
    });
}

/// Checks that all that is unknown is still there, as cryptsetup reads it.
fn is_whole(cryptsetup: &Cryptsetup, image: &Path, after: &str) {
    let value = cryptsetup.json(image);
    for place in PLACES {
        let found = value.pointer(&format!("{place}/{NAME}"));
        assert_eq!(found, Some(&unknown()), "{place} after {after}: {value}");
    }
    assert_eq!(value["tokens"]["7"]["tpm"], token()["tpm"], "after {after}");
    assert_eq!(
        value["tokens"]["7"]["keyslots"],
        json!(["0"]),
        "after {after}"
    );
    let args = ["export", "--token-id=7", image.to_str().unwrap()];
    let exported: Value = Value::parse(&cryptsetup.run("token", &args)).unwrap();
    assert_eq!(exported, value["tokens"]["7"], "after {after}");
}

/// Tokens that one of both refuses are refused by both.
#[test]
fn cryptsetup_reads_every_token_that_is_written() {
    let Some(cryptsetup) = Cryptsetup::find() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let image = &sparse(folder.path(), "image", 4 * MIB);
    volume(image);
    let nested = |levels| (0..levels).fold(json!(0), |inner, _| json!([inner]));
    let with = |value: Value| json!({"type": "own", "keyslots": [], "value": value});
    for (taken, token) in [
        (true, with(nested(28))),
        (false, with(nested(29))),
        (false, json!({"type": "", "keyslots": []})),
        (false, json!({"type": "\0", "keyslots": []})),
        (true, json!({"type": "a\0b", "keyslots": []})),
        (true, json!({"type": "t".repeat(5000), "keyslots": []})),
        (true, json!({"type": "luks2-keyring", "keyslots": ["0"]})),
        (false, json!({"type": "own", "keyslots": ["9"]})),
        (false, json!({"type": "own", "keyslots": [0]})),
        (false, json!({"type": 1, "keyslots": []})),
        (true, with(json!("a\0b \u{9b}\u{1f511}"))),
        (true, with("1e400".parse().unwrap())),
        (
            true,
            with("123456789012345678901234567890".parse().unwrap()),
        ),
        (true, with(json!({"": 1, "\0": 2}))),
    ] {
        let added = ours::open(image).add_token(Some(3), token.clone(), true);
        assert_eq!(added.is_ok(), taken, "{token}");
        // As if it were written: is it right to refuse it?
        let mut stored = false;
        ours::edit_luks2(image, |header| {
            let mut value = header.json().clone();
            value["tokens"]["3"] = token.clone();
            let json_size = header.metadata.config().json_size;
            let mut area = value.to_string().into_bytes();
            area.resize(usize::try_from(json_size).unwrap(), 0);
            if let Ok(metadata) = Metadata::parse(&area, 4096, header.hdr_size) {
                header.metadata = metadata;
                stored = true;
            }
        });
        let read = cryptsetup.output("luksDump", &[image]).status.success();
        assert_eq!(read, taken || !stored, "{token}");
        if stored {
            ours::open(image).remove_token(3).unwrap();
        }
    }
}

#[test]
fn what_is_unknown_survives_every_change() {
    let Some(cryptsetup) = Cryptsetup::find() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let image = &sparse(folder.path(), "image", 4 * MIB);
    let key = file(folder.path(), "key", TWO);
    volume(image);
    let whole = |after: &str| is_whole(&cryptsetup, image, after);
    whole("making it");
    let stop = Interrupt::default();

    ours::add_keyslot(image, ONE, b"other", Some(3));
    whole("adding a keyslot");
    let own = VolumeKey::random(32).unwrap();
    let passphrase = &ours::passphrase(b"unbound");
    let new = ours::quick(passphrase, Some(5));
    ours::open(image)
        .add_unbound_keyslot(own, &new, &stop)
        .unwrap();
    whole("adding an unbound keyslot");
    assert_eq!(ours::change_keyslot(image, ONE, TWO, None), 0);
    whole("changing the keyslot");
    assert_eq!(cryptsetup.slot_of(image, &key, &[]), Some(0));
    for priority in [Priority::Ignore, Priority::Prefer, Priority::Normal] {
        ours::open(image).set_priority(0, priority).unwrap();
        whole("setting its priority");
    }
    let other = json!({"type": "another", "keyslots": []});
    let id = ours::open(image)
        .add_token(None, other.clone(), false)
        .unwrap();
    whole("adding a token");
    ours::open(image).add_token(Some(id), other, true).unwrap();
    ours::open(image).assign_token(id, 3, true).unwrap();
    whole("assigning a token");
    ours::open(image).assign_token(7, 3, true).unwrap();
    ours::open(image).assign_token(7, 3, false).unwrap();
    whole("assigning the unknown token and taking that back");
    ours::open(image).remove_keyslot(3, false).unwrap();
    ours::open(image).remove_keyslot(5, false).unwrap();
    whole("removing keyslots");
    ours::open(image).remove_token(id).unwrap();
    whole("removing a token");
    let change = Configure::new()
        .label("label".to_owned())
        .subsystem("subsystem".to_owned())
        .uuid(uuid::Uuid::from_u128(1));
    ours::open(image).configure(&change).unwrap();
    whole("labels and UUID");

    let backup = ours::open(image).backup().unwrap();
    ours::open(image).remove_token(7).unwrap();
    Container::restore(
        ours::storage(image),
        &backup,
        RestoreOptions::new(),
        ours::options(image),
    )
    .unwrap();
    whole("restoring a backup");
    for (offset, repaired) in [
        (100, Repaired::PrimaryCopy),
        (16_484, Repaired::SecondaryCopy),
    ] {
        let mut bytes = std::fs::read(image).unwrap();
        bytes[offset] ^= 1;
        std::fs::write(image, bytes).unwrap();
        let done = Container::repair(ours::storage(image), ours::options(image)).unwrap();
        assert_eq!(done, [repaired]);
        whole("repairing a copy");
    }

    // LUKS1 has no place for any of it: the conversion is refused, and changes nothing.
    let before = std::fs::read(image).unwrap();
    ours::open(image).convert(Version::Luks1).unwrap_err();
    assert!(
        before == std::fs::read(image).unwrap(),
        "a refused conversion changed the image"
    );
}

/// If a keyslot gets another number, what is unknown in it and the tokens for it move with it.
#[test]
fn what_is_unknown_moves_with_its_keyslot() {
    let Some(cryptsetup) = Cryptsetup::find() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let image = &sparse(folder.path(), "image", 4 * MIB);
    volume(image);
    assert_eq!(ours::change_keyslot(image, ONE, TWO, Some(9)), 9);
    let value = cryptsetup.json(image);
    assert_eq!(value["tokens"]["7"]["keyslots"], json!(["9"]));
    assert_eq!(value["tokens"]["7"][NAME], unknown());
    for place in ["/keyslots/9", "/keyslots/9/area", "/keyslots/9/af"] {
        assert_eq!(value.pointer(place).unwrap()[NAME], unknown(), "{place}");
    }
    assert!(value["keyslots"].get("0").is_none());
}

/// Erasing removes the keyslots and keeps the rest.
#[test]
fn what_is_unknown_survives_erasing() {
    let Some(cryptsetup) = Cryptsetup::find() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let image = &sparse(folder.path(), "image", 4 * MIB);
    volume(image);
    ours::open(image).erase().unwrap();
    let value = cryptsetup.json(image);
    for place in PLACES
        .iter()
        .filter(|place| !place.starts_with("/keyslots"))
    {
        assert_eq!(value.pointer(place).unwrap()[NAME], unknown(), "{place}");
    }
    assert_eq!(value["keyslots"], json!({}));
    let container = ours::open(image);
    container
        .unlock(&ours::passphrase(ONE), Which::Any, &Interrupt::default())
        .unwrap_err();
}
