//! Edits of metadata: validated as a whole, keeping what is not known, or changing nothing.

use super::{
    FormatError, Keyslot, Kind, Priority, Segment, Value, copy, good, json, keyslot, other, pbkdf2,
    set,
};
use luksmith_formats::luks2::{Header, Metadata};

/// The metadata of a good header with a change to its JSON.
fn metadata(change: fn(&mut Value)) -> Metadata {
    super::parse(&super::changed(change).0).unwrap().metadata
}

fn with_unknown_members() -> Metadata {
    metadata(|json| {
        for place in [
            "/keyslots/0",
            "/keyslots/0/area",
            "/keyslots/0/af",
            "/segments/0",
            "/digests/0",
            "/config",
        ] {
            set(json, &format!("{place}/unknown"), json!(7));
        }
        set(
            json,
            "/segments/0/encryption",
            json!("aes-xts-plain64:sha256"),
        );
        set(json, "/keyslots/0/af/hash", json!("SHA512"));
        copy(json, "/tokens", "1", "30");
    })
}

#[test]
fn setting_what_was_read_changes_nothing() {
    let mut metadata = with_unknown_members();
    let before = metadata.clone();
    metadata
        .edit(|draft| {
            for (id, keyslot) in before.keyslots() {
                draft.set_keyslot(*id, keyslot)?;
            }
            for (id, segment) in before.segments() {
                draft.set_segment(*id, segment)?;
            }
            for (id, digest) in before.digests() {
                draft.set_digest(*id, digest)?;
            }
            draft.set_flags(&before.config().flags)?;
            draft.set_requirements(&before.config().requirements)
        })
        .unwrap();
    assert_eq!(metadata.to_text(), before.to_text());
    assert_eq!(metadata, before);
}

#[test]
fn a_changed_object_keeps_members_that_are_not_known() {
    let mut metadata = with_unknown_members();
    metadata
        .set_keyslot(0, &keyslot(1 << 20, pbkdf2()))
        .unwrap();
    metadata.set_priority(0, Priority::Prefer).unwrap();
    let object = &metadata.value()["keyslots"]["0"];
    assert_eq!(
        (
            &object["unknown"],
            &object["area"]["unknown"],
            &object["af"]["unknown"]
        ),
        (&json!(7), &json!(7), &json!(7))
    );
    assert_eq!(object["area"]["offset"], json!("1048576"));
    assert_eq!(object["kdf"]["type"], json!("pbkdf2"));
    assert_eq!(object["priority"], json!(2));
    metadata.set_priority(0, Priority::Normal).unwrap();
    assert_eq!(metadata.value()["keyslots"]["0"].get("priority"), None);
}

#[test]
fn a_removed_keyslot_leaves_digests_and_tokens() {
    let mut metadata = good().metadata;
    metadata.remove_keyslot(1).unwrap();
    assert!(!metadata.keyslots().contains_key(&1));
    assert_eq!(metadata.digests()[&0].keyslots, [0]);
    assert_eq!(metadata.tokens()[&0].keyslots, [0_u32; 0]);
    metadata.remove_keyslot(0).unwrap();
    assert_eq!(metadata.digests()[&0].segments, [0]);
    assert_eq!(
        refused(&mut metadata, |m| m.remove_keyslot(0)).field,
        "keyslots.0"
    );
}

#[test]
fn keyslots_move_between_digests() {
    let mut metadata = good().metadata;
    assert_eq!(
        refused(&mut metadata, |m| m.assign_keyslot_to_digest(1, None)).field,
        "keyslots.1"
    );
    assert_eq!(
        refused(&mut metadata, |m| m.assign_keyslot_to_digest(1, Some(5))).field,
        "digests.5"
    );
    metadata.assign_keyslot_to_digest(1, Some(1)).unwrap();
    assert_eq!(metadata.digest_of_keyslot(1).unwrap().0, 1);
    assert_eq!(metadata.digests()[&0].keyslots, [0]);
}

#[test]
fn an_edit_that_would_not_validate_changes_nothing() {
    let mut metadata = good().metadata;
    let new = keyslot(1 << 20, pbkdf2());
    assert_eq!(
        refused(&mut metadata, |m| m.set_keyslot(5, &new)).field,
        "keyslots.5"
    );
    assert_eq!(
        refused(&mut metadata, |m| m.add_keyslot(32, &new, 0)).field,
        "keyslots"
    );
    let over = keyslot(32768, pbkdf2());
    assert_eq!(
        refused(&mut metadata, |m| m.add_keyslot(5, &over, 0)).field,
        "keyslots.5.area.offset"
    );
    assert_eq!(
        refused(&mut metadata, |m| m.set_token(0, json!({"keyslots": []}))).field,
        "tokens.0.type"
    );
    assert_eq!(
        refused(&mut metadata, |m| m.set_token(0, json!(1))).field,
        "tokens.0"
    );
    assert_eq!(
        refused(&mut metadata, |m| m.assign_token(0, 9, true)).field,
        "tokens.0.keyslots.1"
    );
    assert_eq!(
        refused(&mut metadata, |m| m.assign_token(9, 0, true)).field,
        "tokens.9"
    );
    assert_eq!(
        refused(&mut metadata, |m| m.remove_token(9)).field,
        "tokens.9"
    );
    assert_eq!(
        refused(&mut metadata, |m| m.set_priority(9, Priority::Prefer)).field,
        "keyslots.9"
    );
    let reencrypt = vec!["online-reencrypt-v2".to_owned()];
    assert_eq!(
        refused(&mut metadata, |m| m.set_requirements(reencrypt.clone())).field,
        "config.requirements.mandatory"
    );
    assert_eq!(
        refused(&mut metadata, |m| m.edit(|draft| draft.remove_digest(0))).field,
        "keyslots.0"
    );
    assert_eq!(
        refused(&mut metadata, |m| m.edit(|draft| draft.remove_segment(0))).field,
        "segments"
    );
    let mut deep = json!(0);
    for _ in 0..200 {
        deep = json!([deep]);
    }
    let token = json!({"type": "own", "keyslots": [], "deep": deep});
    assert_eq!(
        refused(&mut metadata, |m| m.set_token(3, token.clone())).field,
        "json"
    );
    metadata.add_keyslot(31, &new, 0).unwrap();
    assert_eq!(metadata.digest_of_keyslot(31).unwrap().0, 0);
}

/// A token with a number inside of this many arrays.
fn nested(levels: usize) -> Value {
    let deep = (0..levels).fold(json!(0), |inner, _| json!([inner]));
    json!({"type": "own", "keyslots": [], "deep": deep})
}

/// cryptsetup refuses such headers as a whole. `tests/interop/tokens.rs` compares with it.
#[test]
fn what_cryptsetup_refuses_is_kept_and_not_made() {
    let nameless = json!({"type": "", "keyslots": []});
    let mut metadata = metadata(|_| {});
    let error = refused(&mut metadata, |m| m.set_token(0, nameless.clone()));
    assert_eq!(error.field, "tokens.0.type");
    let cut = json!({"type": "\0own", "keyslots": []});
    let error = refused(&mut metadata, |m| m.set_token(0, cut.clone()));
    assert_eq!(error.field, "tokens.0.type");
    // The metadata, the tokens, the token, 28 arrays and the number are 32 levels.
    metadata.set_token(0, nested(28)).unwrap();
    let error = refused(&mut metadata, |m| m.set_token(0, nested(29)));
    assert_eq!(error.field, "tokens.0");
    assert!(
        error.cause.contains("cryptsetup reads 32 levels"),
        "{error}"
    );

    // Other changes of a header that is so already are not prevented.
    let mut metadata = self::metadata(|value| {
        value["tokens"]["1"] = json!({"type": "", "keyslots": []});
        value["tokens"]["2"] = nested(29);
    });
    metadata.set_priority(0, Priority::Prefer).unwrap();
    let error = refused(&mut metadata, |m| m.set_token(3, nameless.clone()));
    assert_eq!(error.field, "tokens.3.type");
    assert_eq!(metadata.tokens()[&1].kind, "");
}

#[test]
fn a_keyslot_of_unknown_type_stays_and_cannot_be_made() {
    let mut metadata = metadata(other);
    let keyslot = metadata.keyslots()[&3].clone();
    assert!(matches!(&keyslot, Keyslot::Other(keyslot) if keyslot.kind == "new"));
    assert_eq!(
        refused(&mut metadata, |m| m.set_keyslot(3, &keyslot)).field,
        "keyslots.3.type"
    );
    metadata.set_flags(vec!["allow-discards".into()]).unwrap();
    assert_eq!(metadata.value()["keyslots"]["3"]["type"], json!("new"));
    metadata.remove_keyslot(3).unwrap();
}

#[test]
fn requirements_are_sorted_out() {
    let mut metadata = good().metadata;
    assert!(metadata.requirements().is_empty());
    let names = [
        "offline-reencrypt",
        "inline-hw-tags",
        "opal",
        "from-the-future",
    ];
    metadata
        .set_requirements(names.map(String::from).to_vec())
        .unwrap();
    let found = metadata.requirements();
    assert!(
        found.reencrypt
            && found.offline_reencrypt
            && found.inline_hw_tags
            && found.opal
            && !found.is_empty()
    );
    assert_eq!(found.unknown, ["from-the-future"]);
    metadata.set_requirements(vec![]).unwrap();
    assert_eq!(metadata, good().metadata);
    let reencrypting = self::metadata(super::reencrypting);
    assert_eq!(reencrypting.requirements().online_reencrypt, Some(2));
    assert!(reencrypting.data_segment().is_ok());
}

#[test]
fn free_areas_are_found_between_the_others() {
    let mut metadata = good().metadata;
    let end = metadata.keyslots_area().end;
    let size = 258_048;
    assert_eq!(metadata.free_area(size, &[]), Some(32768 + 3 * size));
    let avoid = 32768 + 3 * size..32768 + 3 * size + 1;
    assert_eq!(
        metadata.free_area(size, std::slice::from_ref(&avoid)),
        Some(32768 + 3 * size + 4096)
    );
    metadata.remove_keyslot(1).unwrap();
    assert_eq!(metadata.free_area(size, &[]), Some(32768 + size));
    assert_eq!(metadata.free_area(size + 4096, &[]), Some(32768 + 3 * size));
    let rest = end - (32768 + 3 * size);
    assert_eq!(metadata.free_area(rest, &[]), Some(32768 + 3 * size));
    assert_eq!(metadata.free_area(rest + 1, &[]), None);
    assert_eq!(metadata.free_area(u64::MAX, &[]), None);
    assert_eq!(
        metadata.free_area(1, std::slice::from_ref(&(0..u64::MAX))),
        None
    );
}

#[test]
fn only_one_encrypted_segment_is_a_volume() {
    let Header { metadata, .. } = good();
    assert!(matches!(metadata.data_segment(), Ok((0, segment)) if segment.offset == 16 << 20));
    let opal = self::metadata(|json| set(json, "/segments/0/type", json!("hw-opal")));
    assert!(matches!(&opal.segments()[&0], Segment::Other(segment) if segment.kind == "hw-opal"));
    let error = opal.data_segment().unwrap_err();
    assert_eq!(
        (error.kind, error.field.as_str()),
        (Kind::Unsupported, "segments.0.type")
    );
}

fn refused(
    metadata: &mut Metadata,
    edit: impl FnOnce(&mut Metadata) -> Result<(), FormatError>,
) -> FormatError {
    let before = metadata.clone();
    let error = edit(metadata).unwrap_err();
    assert_eq!(*metadata, before, "{error}");
    error
}
