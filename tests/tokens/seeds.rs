//! The seeds of the fuzz target `tokens`, and random changes of them: nothing panics, nothing
//! opens.

use luksmith::tokens::clevis::Advertisement;
use luksmith::tokens::tpm2::Tpm2Token;
use luksmith_formats::json::Value;
use support::fuzz_input::tokens::{Parsers, judge};

use crate::mutations::mutations;

struct All;

impl Parsers for All {
    fn tpm2(token: &Value) -> Result<Value, String> {
        let read = Tpm2Token::read(token);
        read.map(|token| token.to_json())
            .map_err(|error| error.to_string())
    }

    fn advertisement(jws: &Value) -> Result<usize, String> {
        let read = Advertisement::of_jws("http://tang.example", jws);
        read.map(|found| found.thumbprints().count())
            .map_err(|error| error.to_string())
    }
}

/// What is said of a token whose servers are not permitted, and of a key that is not there.
const PARSED: [&str; 3] = [
    "which is not permitted",
    "shares were found",
    "of the kernel's keyrings cannot be read",
];

#[test]
fn seeds_of_each_kind_are_accepted_and_changes_of_them_are_judged() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/seeds/tokens");
    let mut accepted = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let seed = std::fs::read(entry.path()).unwrap();
        let judged = judge::<All>(&seed);
        let is_parsed = |why: &String| PARSED.iter().any(|text| why.contains(text));
        let is_good = judged.as_ref().err().is_none_or(is_parsed);
        let name = entry.file_name().into_string().unwrap();
        assert_eq!(is_good, !name.ends_with("-bad"), "{name}: {judged:?}");
        if is_good {
            accepted.push(seed[0]);
        }
        if let Ok(text) = std::str::from_utf8(&seed) {
            mutations(500, text, |changed| drop(judge::<All>(changed.as_bytes())));
        }
    }
    for letter in *b"chtbkar" {
        let name = char::from(letter);
        assert!(accepted.contains(&letter), "no good seed of {name}");
    }
}
