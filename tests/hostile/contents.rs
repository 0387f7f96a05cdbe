//! Valid headers that need something unsupported: they open and can be shown, and everything that
//! would touch the data or the header is refused.

use std::sync::Arc;

use luksmith::Interrupt;
use luksmith::backend::memory::MemoryBackend;
use luksmith::container::{
    Configure, Container, HeaderError, KeyslotError, NewKeyslot, OpenError, OpenOptions,
    RestoreOptions, Undo, UnlockError, Unlocked, Version, VolumeError,
};
use luksmith::kdf::calibrate::Cost;
use luksmith::secret::VolumeKey;
use luksmith_formats::json::{Value, json};
use luksmith_formats::luks2::Priority;
use luksmith_formats::{FormatError, Hash, Kind};

use crate::image::{
    LUKS2_DATA, luks2, open, passphrase, storage, unlock, with_json, with_luks1, with_undo,
};

fn new(passphrase: &luksmith::secret::Passphrase) -> NewKeyslot<'_> {
    NewKeyslot::new(
        passphrase,
        Cost::Pbkdf2 {
            hash: Hash::Sha256,
            iterations: 1000,
        },
    )
}

/// Tries every change. Each one must be refused with an error that names the requirements.
fn assert_unchangeable(image: &Arc<MemoryBackend>, unlocked: &Unlocked, requirement: &str) {
    let before = image.to_bytes();
    let mut container = Container::open(image.clone(), with_undo()).unwrap();
    let (passphrase, interrupt) = (passphrase(), Interrupt::new());
    let key = || VolumeKey::random(64).unwrap();
    let keyslots = [
        container.add_keyslot(unlocked, &new(&passphrase), &interrupt),
        container.add_unbound_keyslot(key(), &new(&passphrase), &interrupt),
        container.change_keyslot(unlocked, &new(&passphrase), &interrupt),
        container.remove_keyslot(0, true).map(|()| 0),
        container.set_priority(0, Priority::Prefer).map(|()| 0),
    ];
    for (number, result) in keyslots.into_iter().enumerate() {
        let Err(KeyslotError::Requirements(said)) = result else {
            panic!("{requirement}: keyslot change {number}: {result:?}");
        };
        assert!(said.contains(requirement));
    }
    let label = Configure::new().label("label".to_owned());
    let token = json!({"type": "own", "keyslots": []});
    let headers = [
        container.configure(&label),
        container.add_token(None, token.clone(), false).map(|_| ()),
        container.remove_token(0),
        container.assign_token(0, 0, true),
        container.convert(Version::Luks1),
        container.resize(&**image, 4096),
    ];
    for (number, result) in headers.into_iter().enumerate() {
        let Err(HeaderError::Requirements(said)) = result else {
            panic!("{requirement}: header change {number}: {result:?}");
        };
        assert!(said.contains(requirement));
    }
    let backup = container.backup().unwrap();
    let restored = Container::restore(
        image.clone(),
        &backup,
        RestoreOptions::new().other_uuid(true),
        with_undo(),
    );
    assert!(matches!(restored, Err(HeaderError::Mismatch(_))));
    assert!(image.to_bytes() == before, "{requirement}: written");
}

#[test]
fn requirements_forbid_data_and_changes() {
    for requirement in ["opal", "something-of-the-future"] {
        let image = storage(with_json(|json| {
            json["config"]["requirements"] = json!({"mandatory": [requirement]});
            json["tokens"]["0"] = json!({"type": "own", "keyslots": ["0"]});
        }));
        let container = open(&image).unwrap();
        assert_eq!(container.requirements(), [requirement]);
        assert_eq!(container.keyslots().len(), 1);
        let unlocked = unlock(&container).unwrap();
        let volume = container.volume(image.clone(), &unlocked);
        let Err(VolumeError::Unsupported(said)) = volume else {
            panic!("{requirement}: {volume:?}");
        };
        assert!(said.contains(requirement), "{said}");
        assert!(container.data_size(1 << 30).is_err());
        assert_unchangeable(&image, &unlocked, requirement);
    }
}

/// A header that cryptsetup leaves after an interrupted reencryption: two segments, and a keyslot
/// that describes the reencryption.
#[test]
fn a_pending_reencryption_forbids_data_and_changes() {
    let image = storage(with_json(|json| {
        let segment = json["segments"]["0"].clone();
        let mut first = segment.clone();
        first["size"] = json!("32768");
        let mut second = segment.clone();
        second["offset"] = json!((LUKS2_DATA + 32768).to_string());
        second["iv_tweak"] = json!("64");
        let mut backup = segment;
        backup["flags"] = json!(["backup-previous"]);
        json["segments"] = json!({"0": first, "1": second, "2": backup});
        json["digests"]["0"]["segments"] = json!(["0", "1", "2"]);
        let area = &json["keyslots"]["0"]["area"];
        let number = |field: &str| area[field].as_str().unwrap().parse::<u64>().unwrap();
        let free = number("offset") + number("size");
        json["keyslots"]["1"] = json!({
            "type": "reencrypt", "key_size": 1, "mode": "reencrypt", "direction": "forward",
            "area": {"type": "checksum", "offset": free.to_string(), "size": "4096",
                "hash": "sha256", "sector_size": 512}});
        json["config"]["requirements"] = json!({"mandatory": ["online-reencrypt-v2"]});
        json["tokens"]["0"] = json!({"type": "own", "keyslots": ["0"]});
    }));
    let container = open(&image).unwrap();
    assert_eq!(container.keyslots().len(), 1);
    let unlocked = unlock(&container).unwrap();
    let volume = container.volume(image.clone(), &unlocked);
    assert!(matches!(volume, Err(VolumeError::Unsupported(_))));
    assert_unchangeable(&image, &unlocked, "online-reencrypt-v2");
}

type Edit = fn(&mut Value);

/// Without the requirement that announces them, the data is refused too.
#[test]
fn segments_that_are_no_single_crypt_segment_are_refused() {
    let linear: Edit = |json| {
        json["segments"]["0"] =
            json!({"type": "linear", "offset": LUKS2_DATA.to_string(), "size": "dynamic"});
    };
    let two: Edit = |json| {
        let mut second = json["segments"]["0"].clone();
        json["segments"]["0"]["size"] = json!("32768");
        second["offset"] = json!((LUKS2_DATA + 32768).to_string());
        second["iv_tweak"] = json!("64");
        json["segments"]["1"] = second;
        json["digests"]["0"]["segments"] = json!(["0", "1"]);
    };
    let null: Edit = |json| json["segments"]["0"]["encryption"] = json!("cipher_null-ecb");
    let null_area: Edit =
        |json| json["keyslots"]["0"]["area"]["encryption"] = json!("cipher_null-ecb");
    let integrity: Edit = |json| {
        json["segments"]["0"]["integrity"] = json!({"type": "hmac(sha1)", "journal_encryption": "none", "journal_integrity": "none"});
    };
    let unknown: Edit = |json| json["segments"]["0"]["type"] = json!("hw-opal");
    let driver: Edit = |json| json["segments"]["0"]["encryption"] = json!("capi:xts(aes)-plain64");
    // Refused when the data is opened, and named with the field at fault before that.
    for (name, edit, field) in [
        ("linear", linear, None),
        ("two", two, None),
        ("unknown type", unknown, None),
        ("null", null, Some("segments.0.encryption")),
        ("null area", null_area, Some("keyslots.0.area.encryption")),
        ("integrity", integrity, Some("segments.0.integrity")),
        ("driver name", driver, Some("segments.0.encryption")),
    ] {
        let bytes = with_json(edit);
        let image = storage(bytes.clone());
        let mut container = open(&image).unwrap_or_else(|error| panic!("{name}: {error}"));
        let fields: Vec<_> = container.not_supported().into_iter().collect();
        let named = fields
            .first()
            .map(|error| (error.kind, error.field.as_str()));
        assert_eq!(
            named,
            field.map(|field| (Kind::Unsupported, field)),
            "{name}"
        );
        assert_eq!(container.keyslots().len(), 1, "{name}");
        match unlock(&container) {
            Ok(unlocked) => {
                let volume = container.volume(image.clone(), &unlocked);
                assert!(
                    matches!(volume, Err(VolumeError::Unsupported(_))),
                    "{name}: {volume:?}"
                );
                let resized = container.resize(&*image, 4096);
                assert!(
                    matches!(resized, Err(HeaderError::Unsupported(_))),
                    "{name}"
                );
            }
            Err(error) => {
                let refused = matches!(error, UnlockError::Unsupported { slot: 0, .. });
                assert!(refused && name == "null area", "{name}: {error:?}");
            }
        }
        assert!(image.to_bytes() == bytes, "{name}: written");
    }
    for (name, mode, field) in [
        ("cipher_null", "ecb", "cipher_name"),
        ("null", "cbc-plain", "cipher_name"),
        ("aes", "lrw-benbi", "cipher_mode"),
    ] {
        let image = storage(with_luks1(|header| {
            (header.cipher_name, header.cipher_mode) = (name.into(), mode.into());
        }));
        let container = open(&image).unwrap();
        let error = container.not_supported().remove(0);
        assert_eq!(
            (error.kind, error.field.as_str()),
            (Kind::Unsupported, field)
        );
        assert!(matches!(
            unlock(&container),
            Err(UnlockError::Unsupported { slot: 0, .. })
        ));
        assert!(container.data_segment().is_err(), "{name}");
    }
}

/// Why the only keyslot does not open, although the header is shown and its checksum is valid.
fn refusal(edit: impl Fn(&mut Value)) -> FormatError {
    let container = open(&storage(with_json(edit))).unwrap();
    match unlock(&container) {
        Err(UnlockError::Unsupported { slot: 0, source }) => source,
        other => panic!("{other:?}"),
    }
}

/// A digest that was cut to one byte would match one of 256 wrong keys.
#[test]
fn a_digest_of_another_length_is_refused() {
    for (digest, length) in [("", 0), ("AA==", 1), ("AAAAAAAAAAAAAAAAAAAAAA==", 16)] {
        let error = refusal(|json| json["digests"]["0"]["digest"] = json!(digest));
        assert_eq!(error.field, "digests.0.digest");
        assert!(error.cause.contains(&format!("{length} bytes")), "{error}");
    }
}

#[test]
fn a_keyslot_without_a_digest_is_refused() {
    let image = with_json(|json| json["digests"]["0"]["keyslots"] = json!([]));
    let Err(OpenError::NotUnderstood(error)) = open(&storage(image)) else {
        panic!("opened");
    };
    assert_eq!(error.field, "keyslots.0");
    assert!(error.cause.contains("belongs to no digest"), "{error}");
}

/// The present header is as a program wrote it, with passphrases that the backup does not have.
#[test]
fn a_backup_is_not_restored_over_a_header_that_is_valid_and_not_understood() {
    let backup = open(&storage(luks2())).unwrap().backup().unwrap();
    let image = with_json(|json| json["digests"]["0"]["keyslots"] = json!([]));
    for allow_other_uuid in [false, true] {
        let storage = storage(image.clone());
        let options = OpenOptions::new(Undo::NotLookedFor);
        let result = Container::restore(
            storage.clone(),
            &backup,
            RestoreOptions::new().other_uuid(allow_other_uuid),
            options,
        );
        assert!(
            matches!(result, Err(HeaderError::NotUnderstood(_))),
            "{result:?}"
        );
        assert!(storage.to_bytes() == image, "written");
    }
}

#[test]
fn a_keyslot_of_another_key_size_gives_no_key() {
    for size in [65, 1 << 20] {
        let error = refusal(|json| json["keyslots"]["0"]["key_size"] = json!(size));
        assert!(error.field.starts_with("keyslots.0"), "{size}: {error}");
    }
    for size in [16, 63] {
        let image = with_json(|json| json["keyslots"]["0"]["key_size"] = json!(size));
        let container = open(&storage(image)).unwrap();
        assert!(matches!(
            unlock(&container),
            Err(UnlockError::WrongPassphrase)
        ));
        let error = container.data_segment().unwrap_err().to_string();
        assert!(error.contains("keyslots.0.key_size"), "{size}: {error}");
    }
    // A key of the other size that the cipher has.
    let half = with_json(|json| json["keyslots"]["0"]["key_size"] = json!(32));
    let result = unlock(&open(&storage(half)).unwrap());
    assert!(
        matches!(result, Err(UnlockError::WrongPassphrase)),
        "{result:?}"
    );
}
