//! Every public struct that callers could write as a literal, and that may get another field, is
//! `#[non_exhaustive]`.

use crate::assert_none;
use crate::tree::{self, File};

/// Structs whose fields a specification fixes, by the folder or file and the names; no names mean
/// all structs there.
const FIXED: &[(&str, &[&str])] = &[
    // Structures on disk and on the wire, field for field.
    ("formats/src/image/", &[]),
    ("formats/src/nbd/", &[]),
    ("formats/src/objects/mod.rs", &["Position", "RootId"]),
    ("formats/src/luks1/", &[]),
    ("formats/src/luks2/digest.rs", &["Digest"]),
    ("formats/src/luks2/header.rs", &["Header"]),
    (
        "formats/src/luks2/keyslot.rs",
        &["Luks2Keyslot", "Area", "Af"],
    ),
    ("formats/src/luks2/metadata.rs", &["NewConfig"]),
    (
        "formats/src/luks2/reencryption/steps.rs",
        &["NewReencryption"],
    ),
    // A cipher's three parts, the costs of argon2, what the kernel tells of a peer.
    ("formats/src/cipher.rs", &["CipherSpec"]),
    ("src/kdf/argon2.rs", &["Argon2Cost"]),
    ("src/channel/socket.rs", &["Credentials"]),
    ("src/vet/ciphertext/pieces.rs", &["Sample"]),
];

fn is_fixed(path: &str, name: &str) -> bool {
    FIXED.iter().any(|(place, names)| {
        path.starts_with(place) && (names.is_empty() || names.contains(&name))
    })
}

/// The public structs of `code` whose fields are all public, if they can be written as literals.
fn literals(code: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("\npub struct ") {
        let attributes = code[..at].rsplit("\n\n").next().unwrap_or("");
        let rest = &code[at + "\npub struct ".len()..];
        let name = rest
            .split(|c: char| !c.is_alphanumeric())
            .next()
            .unwrap_or("");
        let Some((head, fields)) = rest.split_once('{') else {
            continue;
        };
        let fields = fields.split("\n}").next().unwrap_or("");
        let all_public = fields
            .lines()
            .map(str::trim)
            .filter(|line| line.contains(": "))
            .all(|line| line.starts_with("pub "));
        let is_literal = !head.contains([';', '(']) && all_public;
        if is_literal && !attributes.contains("#[non_exhaustive]") {
            found.push(name);
        }
    }
    found
}

fn cannot_grow(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let is_library = file.path.starts_with("src/") || file.path.starts_with("formats/src/");
        if !is_library || file.path.starts_with("src/cli/") {
            continue;
        }
        for name in literals(&file.code()) {
            if !is_fixed(&file.path, name) {
                complaints.push(format!(
                    "{}: {name} needs #[non_exhaustive] and a constructor, or a line in growth.rs",
                    file.path
                ));
            }
        }
    }
    complaints
}

#[test]
fn public_structs_can_grow() {
    assert_none(&cannot_grow(&tree::files()));
}

#[test]
fn a_struct_that_cannot_grow_is_found() {
    let find = |path: &str, text: &str| cannot_grow(&[File::new(path, text)]).len();
    let open = "\n\n/// Sizes.\n#[derive(Debug)]\npub struct Info<'a> {\n    /// One.\n    pub size: u64,\n}\n";
    let closed = open.replace("pub struct", "#[non_exhaustive]\npub struct");
    let private = open.replace("    pub size", "    size");
    assert_eq!(find("src/backend/mod.rs", open), 1);
    assert_eq!(find("src/backend/mod.rs", &closed), 0);
    assert_eq!(find("src/backend/mod.rs", &private), 0);
    assert_eq!(find("src/cli/info.rs", open), 0);
    assert_eq!(find("formats/src/nbd/reply.rs", open), 0);
    assert_eq!(find("src/backend/mod.rs", "\n\npub struct Marker;\n"), 0);
    let fixed = open.replace("Info<'a>", "Credentials");
    assert_eq!(find("src/channel/socket.rs", &fixed), 0);
    assert_eq!(find("src/channel/tls.rs", &fixed), 1);
}
