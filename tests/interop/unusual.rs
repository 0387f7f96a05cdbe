//! Headers with a valid checksum and unusual metadata. What cryptsetup shows, we show, save and
//! erase. Whether it opens may differ, but it is never called damaged.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use luksmith::container::{CreateOptions, Version};
use luksmith_formats::json::{Value, json};
use sha2::Digest as _;
use support::peers;

use crate::cryptsetup::Cryptsetup;
use crate::ours;
use crate::payload::{file, sparse};

const MIB: u64 = 1 << 20;
const KEY: &[u8] = b"one";
const COPY: usize = 16 << 10;

/// One change of both copies of a good header, with a correct checksum after it.
enum Change {
    /// Of the tree.
    Json(fn(&mut Value)),
    /// Of the text: these bytes in place of `"z"`, the content of a token.
    Text(&'static [u8]),
    /// Of bytes at this offset of each copy.
    Bytes(usize, &'static [u8]),
}
use Change::{Bytes, Json, Text};

/// Whether a passphrase opens with us.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ours {
    Opens,
    Refuses,
}
use Ours::{Opens, Refuses};

/// Headers that cryptsetup 2.6 shows.
#[rustfmt::skip]
fn shown() -> Vec<(&'static str, Change, Ours)> {
    vec![
        ("untouched", Json(|v| _ = v), Opens),
        // Members that are not needed, of which the first two come from old versions of cryptsetup.
        ("argon2 left in pbkdf2", Json(|v| { let kdf = &mut v["keyslots"]["0"]["kdf"]; kdf["time"] = json!(4); kdf["memory"] = json!(32); kdf["cpus"] = json!(1); }), Opens),
        ("another member in a KDF", Json(|v| v["keyslots"]["0"]["kdf"]["x"] = json!([1])), Opens),
        ("more members everywhere", Json(|v| for place in ["", "/config", "/keyslots/0", "/keyslots/0/area", "/segments/0", "/digests/0", "/tokens/0"] { set(v, place, "x", json!([1, {}])); }), Opens),
        ("a keyslot twice in a digest", Json(|v| v["digests"]["0"]["keyslots"] = json!(["0", "0"])), Opens),
        ("a segment twice in a digest", Json(|v| v["digests"]["0"]["segments"] = json!(["0", "0"])), Opens),
        ("a keyslot twice in a token", Json(|v| v["tokens"]["0"]["keyslots"] = json!(["0", "0"])), Opens),
        ("token 40", Json(|v| v["tokens"]["40"] = v["tokens"]["0"].clone()), Opens),
        ("token 00", Json(|v| v["tokens"]["00"] = v["tokens"]["0"].clone()), Opens),
        ("a token with other types", Json(|v| v["tokens"]["0"]["x"] = json!({"n": [1.5e3, null, true]})), Opens),
        ("a 64-bit number with zeros", Json(|v| v["segments"]["0"]["offset"] = json!("02097152")), Opens),
        ("an unknown config flag", Json(|v| v["config"]["flags"] = json!(["x", "x"])), Opens),
        ("optional requirements", Json(|v| v["config"]["requirements"] = json!({"optional": ["x"]})), Opens),
        ("a priority in quotes", Json(|v| v["keyslots"]["0"]["priority"] = json!("2")), Opens),
        // json-c takes more than JSON.
        ("NaN", Text(b"NaN"), Opens),
        ("Infinity", Text(b"-Infinity"), Opens),
        ("a byte that is not UTF-8", Text(b"\"z\xff\""), Opens),
        ("half a surrogate pair", Text(b"\"\\ud800\""), Opens),
        ("a control character", Text(b"\"\x01\""), Opens),
        ("a comment", Text(b"/* z */ 1 // z\n"), Opens),
        ("single quotes", Text(b"'z'"), Opens),
        ("a comma at the end", Text(b"[1,]"), Opens),
        ("words in capitals", Text(b"[TRUE,Null]"), Opens),
        ("a leading zero", Text(b"01"), Opens),
        ("many digits", Text(b"99999999999999999999999999"), Opens),
        ("deep", Text(b"[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]"), Opens),
        // Fields of the binary header.
        ("a label that is not UTF-8", Bytes(24, b"\xff\xfe"), Opens),
        ("a label without an end", Bytes(24, &[b'a'; 48]), Opens),
        ("a UUID without an end", Bytes(168, &[b'a'; 40]), Opens),
        // What only matters for opening.
        ("an unknown KDF", Json(|v| v["keyslots"]["0"]["kdf"] = json!({"type": "scrypt"})), Refuses),
        ("an unknown KDF hash", Json(|v| v["keyslots"]["0"]["kdf"]["hash"] = json!("blake9")), Refuses),
        ("no iterations", Json(|v| v["keyslots"]["0"]["kdf"]["iterations"] = json!(0)), Refuses),
        ("a salt of 2 bytes", Json(|v| v["keyslots"]["0"]["kdf"]["salt"] = json!("AAA=")), Refuses),
        ("an unknown splitter hash", Json(|v| v["keyslots"]["0"]["af"]["hash"] = json!("blake9")), Refuses),
        ("other stripes", Json(|v| v["keyslots"]["0"]["af"]["stripes"] = json!(8000)), Refuses),
        ("an unknown area cipher", Json(|v| v["keyslots"]["0"]["area"]["encryption"] = json!("foo-bar")), Refuses),
        ("a null area cipher", Json(|v| v["keyslots"]["0"]["area"]["encryption"] = json!("cipher_null-ecb")), Refuses),
        ("an odd area key", Json(|v| v["keyslots"]["0"]["area"]["key_size"] = json!(63)), Refuses),
        ("a key of no bytes", Json(|v| v["keyslots"]["0"]["key_size"] = json!(0)), Refuses),
        ("an unknown keyslot type beside", Json(|v| { let mut new = v["keyslots"]["0"].clone(); new["type"] = json!("new"); new["area"]["offset"] = json!("290816"); v["keyslots"]["9"] = new; }), Opens),
        ("an unknown digest", Json(|v| v["digests"]["0"]["type"] = json!("new")), Refuses),
        ("an unknown digest hash", Json(|v| v["digests"]["0"]["hash"] = json!("blake9")), Refuses),
        ("a digest without iterations", Json(|v| v["digests"]["0"]["iterations"] = json!(0)), Refuses),
        ("a digest without a digest", Json(|v| drop(v["digests"]["0"].as_object_mut().unwrap().remove("digest"))), Refuses),
        ("an unknown cipher", Json(|v| v["segments"]["0"]["encryption"] = json!("foo-bar")), Refuses),
        ("a null cipher", Json(|v| v["segments"]["0"]["encryption"] = json!("cipher_null-ecb")), Refuses),
        ("integrity", Json(|v| v["segments"]["0"]["integrity"] = json!({"type": "hmac(sha256)", "journal_encryption": "none", "journal_integrity": "none"})), Refuses),
        ("large sectors", Json(|v| v["segments"]["0"]["sector_size"] = json!(8192)), Refuses),
        ("an unknown segment type", Json(|v| v["segments"]["0"] = json!({"type": "new", "offset": "2097152", "size": "dynamic"})), Refuses),
        ("a plain segment", Json(|v| { v["segments"]["0"] = json!({"type": "linear", "offset": "2097152", "size": "dynamic"}); v["digests"]["0"]["segments"] = json!([]); }), Refuses),
        ("an unknown requirement", Json(|v| v["config"]["requirements"] = json!({"mandatory": ["new"]})), Refuses),
        ("a drive that encrypts", Json(|v| v["config"]["requirements"] = json!({"mandatory": ["opal"]})), Refuses),
        ("a reencryption", Json(reencrypting), Refuses),
        ("a reencryption with an unknown hash", Json(|v| { reencrypting(v); v["keyslots"]["3"]["area"]["hash"] = json!("blake9"); }), Refuses),
        ("an offline reencryption", Json(|v| v["config"]["requirements"] = json!({"mandatory": ["offline-reencrypt"]})), Refuses),
    ]
}

/// Headers that cryptsetup 2.6 refuses too.
#[rustfmt::skip]
fn refused() -> Vec<(&'static str, Change)> {
    vec![
        ("no config", Json(|v| drop(v.as_object_mut().unwrap().remove("config")))),
        ("an empty config", Json(|v| v["config"] = json!({}))),
        ("another json_size", Json(|v| v["config"]["json_size"] = json!("12287"))),
        ("a number in place of a string", Json(|v| v["segments"]["0"]["offset"] = json!(2097152))),
        ("a string in place of a number", Json(|v| v["keyslots"]["0"]["key_size"] = json!("64"))),
        ("a token without a type", Json(|v| v["tokens"]["0"] = json!({"keyslots": []}))),
        ("a token for no keyslot", Json(|v| v["tokens"]["0"]["keyslots"] = json!(["9"]))),
        ("flags that are no strings", Json(|v| v["config"]["flags"] = json!([1]))),
        ("a keyslot without an area", Json(|v| drop(v["keyslots"]["0"].as_object_mut().unwrap().remove("area")))),
        ("two objects", Text(b"1}}}{")),
        ("a bad escape", Text(b"\"\\z\"")),
        ("a byte behind the end", Bytes(16000, b" ")),
    ]
}

fn set(json: &mut Value, place: &str, name: &str, value: Value) {
    let object = json.pointer_mut(place).and_then(Value::as_object_mut);
    object.unwrap().insert(name, value);
}

/// A reencryption in progress, as cryptsetup writes it.
fn reencrypting(json: &mut Value) {
    json["config"]["requirements"] = json!({"mandatory": ["online-reencrypt-v2"]});
    json["keyslots"]["3"] = json!({
        "type": "reencrypt", "key_size": 1, "mode": "reencrypt", "direction": "forward", "priority": 0,
        "area": {"type": "checksum", "offset": "1048576", "size": "4096", "hash": "sha256", "sector_size": 4096},
    });
    let segment = json["segments"]["0"].clone();
    for (id, flag) in [("1", "backup-previous"), ("2", "backup-final")] {
        let mut backup = segment.clone();
        backup["flags"] = json!([flag]);
        json["segments"][id] = backup;
    }
    json["digests"]["0"]["segments"] = json!(["0", "1", "2"]);
}

struct Place {
    folder: tempfile::TempDir,
    image: PathBuf,
    key: PathBuf,
    good: Vec<u8>,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = sparse(folder.path(), "a.img", 3 * MIB);
        let key = file(folder.path(), "key", KEY);
        let mut options = CreateOptions::new(Version::Luks2, ours::QUICK);
        options.data_offset = Some(2 * MIB);
        options.blank = true;
        ours::create(&image, KEY, options);
        let token = json!({"type": "own", "keyslots": ["0"], "content": "z"});
        ours::open(&image).add_token(Some(0), token, false).unwrap();
        let good = std::fs::read(&image).unwrap();
        Self {
            folder,
            image,
            key,
            good,
        }
    }

    /// Writes the image with a changed header.
    fn change(&self, change: &Change) {
        let mut image = self.good.clone();
        for start in [0, COPY] {
            let copy = &mut image[start..start + COPY];
            let area = &copy[4096..];
            let end = area.iter().position(|&byte| byte == 0).unwrap();
            let text = area[..end].to_vec();
            match change {
                Json(change) => {
                    let mut json = Value::parse(&text).unwrap();
                    change(&mut json);
                    put(&mut copy[4096..], json.to_string().as_bytes());
                }
                Text(new) => {
                    let at = text.windows(3).position(|found| found == b"\"z\"").unwrap();
                    put(
                        &mut copy[4096..],
                        &[&text[..at], new, &text[at + 3..]].concat(),
                    );
                }
                Bytes(at, new) => copy[*at..at + new.len()].copy_from_slice(new),
            }
            copy[448..512].fill(0);
            let checksum = sha2::Sha256::digest(&*copy);
            copy[448..480].copy_from_slice(&checksum);
        }
        std::fs::write(&self.image, image).unwrap();
    }

    fn luksmith(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_luksmith"));
        peers::output(command.args(args).current_dir(self.folder.path()))
    }

    fn key_test(&self) -> Output {
        let key = self.key.to_str().unwrap();
        self.luksmith(&["key", "test", "a.img", "--key-file", key])
    }
}

fn put(area: &mut [u8], text: &[u8]) {
    area.fill(0);
    area[..text.len()].copy_from_slice(text);
}

fn dumps(cryptsetup: &Cryptsetup, image: &Path) -> bool {
    let all = ["luksDump", "isLuks"].map(|verb| cryptsetup.output(verb, &[image]));
    all.iter().all(|output| output.status.success())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_cryptsetup_shows_we_show_and_save() {
    let Some(cryptsetup) = Cryptsetup::find() else {
        return;
    };
    let place = Place::new();
    for (name, change, ours) in shown() {
        place.change(&change);
        assert!(
            dumps(&cryptsetup, &place.image),
            "{name}: cryptsetup refuses"
        );
        let before = std::fs::read(&place.image).unwrap();
        for args in [
            &["info", "a.img"][..],
            &["info", "a.img", "--json"],
            &["info", "a.img", "--dump-json-metadata"],
            &["key", "list", "a.img"],
            &["key", "list", "a.img", "--json"],
            &["token", "list", "a.img"],
            &["header", "backup", "a.img", "a.hdr"],
        ] {
            let output = place.luksmith(args);
            assert!(
                output.status.success(),
                "{name}: {args:?}: {}",
                said(&output)
            );
        }
        let backup = place.folder.path().join("a.hdr");
        let saved = std::fs::read(&backup).unwrap();
        assert!(before.starts_with(&saved), "{name}");
        std::fs::remove_file(backup).unwrap();

        let args = [
            "decrypt",
            "a.img",
            "out",
            "--key-file",
            "key",
            "--force",
            "overwrite",
        ];
        let opened = place.luksmith(&args);
        let success = opened.status.success();
        assert_eq!(success, ours == Opens, "{name}: {}", said(&opened));
        assert!(
            !said(&opened).contains("damaged"),
            "{name}: {}",
            said(&opened)
        );
        assert!(
            std::fs::read(&place.image).unwrap() == before,
            "{name}: written"
        );

        let erased = place.luksmith(&["header", "erase", "a.img", "--force", "erase"]);
        assert!(erased.status.success(), "{name}: {}", said(&erased));
        assert!(dumps(&cryptsetup, &place.image), "{name}: after erase");
        assert!(!place.key_test().status.success(), "{name}: after erase");
        let after = std::fs::read(&place.image).unwrap();
        assert!(
            after[32768..32768 + 4096] != before[32768..32768 + 4096],
            "{name}"
        );
    }
}

#[test]
fn what_is_not_understood_is_not_called_damaged() {
    let Some(cryptsetup) = Cryptsetup::find() else {
        return;
    };
    let place = Place::new();
    for (name, change) in refused() {
        place.change(&change);
        assert!(
            !dumps(&cryptsetup, &place.image),
            "{name}: cryptsetup shows it"
        );
        let before = std::fs::read(&place.image).unwrap();
        for args in [
            &["info", "a.img"][..],
            &["key", "list", "a.img"],
            &["header", "repair", "a.img"],
            &["config", "a.img", "--label", "x"],
        ] {
            let output = place.luksmith(args);
            let said = said(&output);
            assert_eq!(output.status.code(), Some(4), "{name}: {args:?}: {said}");
            assert!(said.contains("its checksum is valid"), "{name}: {said}");
            assert!(!said.contains("damaged"), "{name}: {said}");
            assert!(!said.contains("restore"), "{name}: {said}");
        }
        assert!(
            std::fs::read(&place.image).unwrap() == before,
            "{name}: written"
        );
    }
}

/// What is kept is in the header that cryptsetup reads after one of our changes.
#[test]
fn a_change_keeps_what_json_does_not_know() {
    let Some(cryptsetup) = Cryptsetup::find() else {
        return;
    };
    let place = Place::new();
    for (new, kept) in [
        (&b"\"z\xff\""[..], &b"\"z\xff\""[..]),
        (b"NaN", b"NaN"),
        (b"\"\xf4\x8f\xbe\x80\"", b"\"\xf4\x8f\xbe\x80\""),
    ] {
        place.change(&Text(new));
        let changed = place.luksmith(&["config", "a.img", "--label", "x"]);
        assert!(changed.status.success(), "{}", said(&changed));
        let dump = cryptsetup.run(
            "luksDump",
            &["--dump-json-metadata".as_ref(), place.image.as_os_str()],
        );
        assert!(
            dump.windows(kept.len()).any(|found| found == kept),
            "{kept:?}"
        );
        let image = std::fs::read(&place.image).unwrap();
        assert!(
            image[4096..COPY]
                .windows(kept.len())
                .any(|found| found == kept)
        );
        assert!(place.key_test().status.success());
    }
}

type Luks1Case = (&'static str, usize, &'static [u8], Ours);

/// LUKS1 headers with an unknown cipher or hash. cryptsetup does not show an unknown hash.
#[test]
fn unusual_luks1_headers_are_shown_and_saved() {
    let Some(cryptsetup) = Cryptsetup::find() else {
        return;
    };
    let place = Place::new();
    let cases: [Luks1Case; 8] = [
        ("untouched", 0, b"LUKS", Opens),
        ("a UUID that is not UTF-8", 168, b"\xff", Opens),
        ("a UUID without an end", 168, &[b'a'; 40], Opens),
        ("an unknown cipher", 8, b"foo\0", Refuses),
        ("an unknown mode", 40, b"foo-bar\0", Refuses),
        ("a null cipher", 8, b"cipher_null\0", Refuses),
        ("no digest iterations", 164, &[0; 4], Refuses),
        ("an unknown hash", 72, b"blake9\0", Refuses),
    ];
    for (name, at, bytes, ours) in cases {
        std::fs::write(&place.image, vec![0; usize::try_from(3 * MIB).unwrap()]).unwrap();
        let mut options = CreateOptions::new(Version::Luks1, ours::QUICK);
        options.blank = true;
        ours::create(&place.image, KEY, options);
        let mut image = std::fs::read(&place.image).unwrap();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        std::fs::write(&place.image, &image).unwrap();
        assert_eq!(dumps(&cryptsetup, &place.image), at != 72, "{name}");
        for args in [
            &["info", "a.img"][..],
            &["info", "a.img", "--json"],
            &["key", "list", "a.img"],
            &["header", "backup", "a.img", "a.hdr"],
        ] {
            let output = place.luksmith(args);
            assert!(
                output.status.success(),
                "{name}: {args:?}: {}",
                said(&output)
            );
        }
        std::fs::remove_file(place.folder.path().join("a.hdr")).unwrap();
        let tested = place.key_test();
        let code = if ours == Opens { 0 } else { 4 };
        assert_eq!(
            tested.status.code(),
            Some(code),
            "{name}: {}",
            said(&tested)
        );
        assert!(
            !said(&tested).contains("damaged"),
            "{name}: {}",
            said(&tested)
        );
        let erased = place.luksmith(&["header", "erase", "a.img", "--force", "erase"]);
        assert!(erased.status.success(), "{name}: {}", said(&erased));
        let after = std::fs::read(&place.image).unwrap();
        // A text without an end is cut by its last byte.
        let kept = bytes.len() - 1;
        assert_eq!(after[at..at + kept], bytes[..kept], "{name}");
        assert!(!place.key_test().status.success(), "{name}");
    }
}
