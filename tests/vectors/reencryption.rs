//! The bytes that the verification digest of a reencryption covers, in metadata that cryptsetup
//! made.

use luksmith::Interrupt;
use luksmith::kdf::pbkdf2;
use luksmith_formats::luks2::{Metadata, Progress};
use serde_json::Value;

use crate::{Vectors, bytes};

const HEADER: u64 = 16384;

fn metadata(value: &Value) -> Metadata {
    let text = value.to_string();
    let mut area = vec![0; 12288];
    area[..text.len()].copy_from_slice(text.as_bytes());
    Metadata::parse(&area, 4096, HEADER).unwrap()
}

#[test]
fn the_verification_digest_is_that_of_cryptsetup() {
    let vectors = Vectors::load("reencryption.json");
    let mut ran = 0;
    for vector in vectors.json.as_array().unwrap() {
        let metadata = metadata(&vector["metadata"]);
        let version = u8::try_from(vector["version"].as_u64().unwrap()).unwrap();
        let mut message = vec![b'v', b'0' + version];
        for member in ["backup-previous", "backup-final"] {
            if !vector[member].is_null() {
                message.extend(bytes(vector, member));
            }
        }
        message.extend(metadata.reencryption_covered().unwrap());
        let keyslots = metadata.keyslots().iter();
        let mut of_it = keyslots.filter(|(_, keyslot)| keyslot.kind() == "reencrypt");
        let (keyslot, _) = of_it.next().unwrap();
        let (_, digest) = metadata.digest_of_keyslot(*keyslot).unwrap();
        let mut computed = vec![0; digest.digest.len()];
        let interrupt = Interrupt::new();
        let (hash, salt) = (digest.hash, &digest.salt);
        pbkdf2(
            hash,
            &message,
            salt,
            digest.iterations,
            &mut computed,
            &interrupt,
        )
        .unwrap();
        assert_eq!(computed, digest.digest, "{}", vector["name"]);
        ran += 1;
    }
    vectors.assert_all_ran(ran);
}

/// A reencryption that began, and has converted nothing.
#[test]
fn the_state_is_read_as_cryptsetup_wrote_it() {
    let vectors = Vectors::load("reencryption.json");
    let mut supported = Vec::new();
    for vector in vectors.json.as_array().unwrap() {
        let name = vector["name"].as_str().unwrap();
        let mut metadata = metadata(&vector["metadata"]);
        let Ok(found) = metadata.reencryption() else {
            continue;
        };
        let found = found.unwrap();
        supported.push(name);
        assert_eq!(found.progress, Progress::Clean { converted: 0 }, "{name}");
        let covered = metadata.reencryption_covered().unwrap();
        let size = 9 << 20;
        for progress in [
            Progress::Hot {
                start: 0,
                length: 1 << 20,
            },
            Progress::Clean { converted: 1 << 20 },
            Progress::Hot {
                start: 1 << 20,
                length: 4096,
            },
            Progress::Hot {
                start: 8 << 20,
                length: 1 << 20,
            },
            Progress::Finished,
        ] {
            metadata.set_progress(progress, size).unwrap();
            let again = metadata.reencryption().unwrap().unwrap();
            assert_eq!(again.progress, progress, "{name}");
            assert_eq!(metadata.reencryption_covered().unwrap(), covered, "{name}");
        }
        metadata.finish_reencryption().unwrap();
        assert!(metadata.requirements().is_empty(), "{name}");
        let (_, segment) = metadata.data_segment().unwrap();
        assert_eq!(segment, &found.following, "{name}");
        assert_eq!(metadata.digests().len(), 1, "{name}");
        assert_eq!(metadata.keyslots().len(), 1, "{name}");
    }
    assert_eq!(
        supported,
        ["checksum", "journal", "cipher", "keep-key", "fixed"]
    );
}

/// A header whose segments say something else than its backup segments is refused.
#[test]
fn segments_that_do_not_agree_are_refused() {
    let vectors = Vectors::load("reencryption.json");
    let whole = &vectors.json[0]["metadata"];
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut changed = whole.clone();
        change(&mut changed);
        assert_ne!(&changed, whole);
        let text = changed.to_string();
        let mut area = vec![0; 12288];
        area[..text.len()].copy_from_slice(text.as_bytes());
        let parsed = Metadata::parse(&area, 4096, HEADER);
        let found = parsed.and_then(|metadata| metadata.reencryption());
        assert!(found.is_err(), "{changed}");
    };
    let to = |pointer: &'static str, value: Value| {
        move |json: &mut Value| *json.pointer_mut(pointer).unwrap() = value.clone()
    };
    refused(&to("/segments/0/encryption", "aes-xts-plain".into()));
    refused(&to("/segments/0/sector_size", 2048.into()));
    refused(&to("/segments/0/iv_tweak", "8".into()));
    refused(&to("/segments/0/offset", "8392704".into()));
    refused(&to("/segments/0/size", "4096".into()));
    refused(&to("/segments/1/iv_tweak", "8".into()));
    refused(&to("/segments/2/offset", "8392704".into()));
    refused(&to("/digests/0/segments", serde_json::json!(["1"])));
    refused(&to("/digests/1/segments", serde_json::json!(["0", "2"])));
    refused(&to("/keyslots/2/direction", "backward".into()));
    refused(&to("/keyslots/2/mode", "encrypt".into()));
    refused(&to("/keyslots/2/area/type", "datashift".into()));
    refused(&to(
        "/config/requirements/mandatory",
        serde_json::json!(["online-reencrypt"]),
    ));
    refused(&|json: &mut Value| {
        json["segments"]["0"]["flags"] = serde_json::json!(["in-reencryption"]);
    });
}
