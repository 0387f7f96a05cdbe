//! `docs/audit.md` has a section for each rule of the code, with its texts, and no other section.
//! Its policy can be read. The tests break each rule.

use std::collections::BTreeMap;

use luksmith::audit::{self, Policy};

const TEXT: &str = include_str!("../../docs/audit.md");

/// The sections by the id in their heading.
fn sections() -> BTreeMap<&'static str, &'static str> {
    let sections = TEXT.split("\n### `").skip(1);
    sections
        .map(|section| section.split_once("`\n\n").expect("a heading"))
        .collect()
}

/// The id of each section, and the severity with which the section begins.
fn documented() -> BTreeMap<&'static str, &'static str> {
    let severity = |section: &'static str| section.split(':').next().unwrap_or_default();
    let sections = sections().into_iter();
    sections
        .map(|(id, section)| (id, severity(section)))
        .collect()
}

fn declared() -> BTreeMap<&'static str, &'static str> {
    audit::rules()
        .map(|rule| (rule.id, rule.severity.name()))
        .collect()
}

#[test]
fn every_rule_has_a_section_and_nothing_else() {
    assert_eq!(documented(), declared());
    assert_eq!(
        audit::rules().count(),
        declared().len(),
        "an id is used twice"
    );
}

/// Text without marks of code and line ends.
fn plain(text: &str) -> String {
    let text = text.replace('`', "");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_rule_says_why_and_what_to_do() {
    let sections = sections();
    for rule in audit::rules() {
        let section = plain(sections[rule.id]);
        for text in [
            format!(": {}. ", rule.meaning),
            format!("**Why**: {} ", rule.why),
            format!("**Fix**: {}", rule.fix),
        ] {
            assert!(section.contains(&plain(&text)), "{}: {text}", rule.id);
        }
        for text in [rule.why, rule.fix] {
            assert!(
                text.ends_with('.') && text.starts_with(char::is_alphanumeric),
                "{}",
                rule.id
            );
        }
        assert!(!rule.meaning.ends_with('.'), "{}", rule.id);
    }
}

#[test]
fn every_rule_is_broken_by_a_test() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/audit");
    let mut tests = String::new();
    for file in std::fs::read_dir(folder).unwrap() {
        tests += &std::fs::read_to_string(file.unwrap().path()).unwrap();
    }
    let untested: Vec<_> = declared()
        .into_keys()
        .filter(|id| !tests.contains(&format!("\"{id}\"")))
        .collect();
    assert_eq!(untested, [""; 0]);
}

#[test]
fn the_policy_in_the_text_has_every_member() {
    let (_, rest) = TEXT.split_once("```toml\n").expect("a policy");
    let (text, _) = rest.split_once("```").expect("its end");
    let policy = Policy::parse(text).unwrap();
    let strict = Policy::default();
    assert_eq!(
        (policy.max_size, &policy.trusted_paths),
        (strict.max_size, &strict.trusted_paths)
    );
    assert!(!policy.guest_encrypted.is_empty() && !policy.transport_is_enough.is_empty());
    assert!(policy.exceptions.iter().any(|one| one.place.is_some()));
}
