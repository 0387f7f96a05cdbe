//! Are the primitives right?
//!
//! Every published vector is run. `manifest.json` says where each file comes from and how many
//! vectors it has, and each test asserts that it ran that many.

#![allow(missing_docs)]

mod integrity;
mod kdf;
mod kernels;
mod reencryption;
mod xts;

use std::path::PathBuf;

use serde_json::Value;

/// Parses a vector file, after checking that it is the one in the manifest.
struct Vectors {
    file: &'static str,
    json: Value,
    count: u64,
}

impl Vectors {
    fn load(file: &'static str) -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
        let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
        let manifest: Value = serde_json::from_slice(&read("manifest.json")).unwrap();
        let entry = manifest
            .as_array()
            .unwrap()
            .iter()
            .find(|entry| entry["file"] == file)
            .unwrap_or_else(|| panic!("{file} is not in the manifest"));
        let bytes = read(file);
        let digest = <sha2::Sha256 as digest::Digest>::digest(&bytes);
        assert_eq!(entry["sha256"], hex::encode(digest), "{file} was changed");
        Self {
            file,
            json: serde_json::from_slice(&bytes).unwrap(),
            count: entry["count"].as_u64().unwrap(),
        }
    }

    /// Asserts that no vector was skipped.
    fn assert_all_ran(&self, ran: u64) {
        assert_eq!(
            ran, self.count,
            "{} has another number of vectors",
            self.file
        );
    }
}

/// The bytes of a member in hex.
fn bytes(object: &Value, member: &str) -> Vec<u8> {
    let text = object[member]
        .as_str()
        .unwrap_or_else(|| panic!("{member} missing in {object}"));
    hex::decode(text).unwrap()
}

/// A number, which is written as a number or as a decimal string.
fn number(object: &Value, member: &str) -> u32 {
    let value = &object[member];
    let number = value
        .as_u64()
        .or_else(|| value.as_str().and_then(|text| text.parse().ok()))
        .unwrap_or_else(|| panic!("{member} missing in {object}"));
    u32::try_from(number).unwrap()
}
