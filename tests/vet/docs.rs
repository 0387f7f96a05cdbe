//! `docs/inspect.md` has all checks of the code, and no others. Its policy can be read. The tests
//! have an image that fails each check.

use std::collections::BTreeSet;

use luksmith::vet::{self, Feature, Format, Policy};

const TEXT: &str = include_str!("../../docs/inspect.md");

/// The ids of the checks, with each of which a line begins.
fn documented() -> BTreeSet<&'static str> {
    TEXT.lines()
        .filter_map(|line| line.strip_prefix("- `")?.split_once('`'))
        .map(|(id, _)| id)
        .filter(|id| id.contains('.'))
        .collect()
}

fn declared() -> BTreeSet<&'static str> {
    vet::checks().map(|check| check.id).collect()
}

#[test]
fn every_check_is_documented_and_nothing_else() {
    assert_eq!(documented(), declared());
    assert_eq!(vet::checks().count(), declared().len(), "an id comes twice");
}

#[test]
fn every_check_has_a_bad_image() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vet");
    let mut tests = String::new();
    for file in std::fs::read_dir(folder).unwrap() {
        tests += &std::fs::read_to_string(file.unwrap().path()).unwrap();
    }
    let untested: Vec<_> = declared()
        .into_iter()
        .filter(|id| !tests.contains(&format!("\"{id}\"")))
        .collect();
    assert_eq!(untested, [""; 0]);
}

#[test]
fn formats_and_features_are_named() {
    let names = Format::ALL.map(Format::name).into_iter();
    for name in names.chain(Feature::ALL.map(Feature::name)) {
        let named = ['`', '"'].map(|quote| format!("{quote}{name}{quote}"));
        assert!(named.iter().any(|name| TEXT.contains(name)), "{name}");
    }
}

#[test]
fn the_policy_in_the_text_is_the_default() {
    let (_, rest) = TEXT.split_once("```toml\n").expect("a policy");
    let (policy, _) = rest.split_once("```").expect("its end");
    let mut read = Policy::parse(policy).unwrap();
    let ciphers = read.ciphers.take();
    assert!(ciphers.is_some_and(|list| list.contains(&"aes-xts-plain64".to_owned())));
    assert_eq!(read, Policy::default());
}
