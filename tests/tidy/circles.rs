//! There is no circle of files: if a file names items of another one, directly or through further
//! files, then the other file names no items of the first one. `names` defines what counts as
//! naming.

use std::collections::{BTreeMap, BTreeSet};

use crate::assert_none;
use crate::names::Names;
use crate::tree::{self, File};

/// One complaint for each circle: its files, and what they name of each other.
fn circles(files: &[File]) -> Vec<String> {
    let dependencies = Names::new(files).dependencies();
    let below: BTreeMap<_, _> = dependencies
        .keys()
        .map(|file| (*file, reachable(&dependencies, file)))
        .collect();
    let mut complaints = Vec::new();
    let mut done = BTreeSet::new();
    for (file, reached) in &below {
        if !reached.contains(file) || done.contains(file) {
            continue;
        }
        let circle: BTreeSet<_> = reached
            .iter()
            .filter(|other| below[*other].contains(file))
            .copied()
            .collect();
        complaints.push(described(&dependencies, &circle));
        done.extend(circle);
    }
    complaints
}

type Dependencies<'a> = BTreeMap<&'a str, BTreeMap<&'a str, String>>;

fn reachable<'a>(dependencies: &Dependencies<'a>, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&str> = vec![from];
    while let Some(file) = next.pop() {
        for named in dependencies[file].keys() {
            if reached.insert(*named) {
                next.push(named);
            }
        }
    }
    reached
}

fn described(dependencies: &Dependencies<'_>, circle: &BTreeSet<&str>) -> String {
    let mut lines = vec![format!("a circle of {} files:", circle.len())];
    for file in circle {
        for (named, item) in &dependencies[file] {
            if circle.contains(named) {
                lines.push(format!("    {file} names {item} of {named}"));
            }
        }
    }
    lines.join("\n")
}

#[test]
fn no_files_name_each_other() {
    assert_none(&circles(&tree::files()));
}

/// The complaints about files with these paths and texts.
fn circle(files: &[(&str, &str)]) -> String {
    let files: Vec<_> = files
        .iter()
        .map(|(path, text)| File::new(path, text))
        .collect();
    circles(&files).join("\n")
}

#[test]
fn circles_are_found() {
    let siblings = circle(&[
        (
            "src/a/mod.rs",
            "mod one; mod two; mod three; pub use one::One;",
        ),
        (
            "src/a/one.rs",
            "use super::two; pub struct One; fn f() -> two::Two { two::Two }",
        ),
        (
            "src/a/two.rs",
            "use crate::a::{three::{THREE as LIMIT}}; pub struct Two;",
        ),
        // By a re-export.
        (
            "src/a/three.rs",
            "pub const THREE: u8 = 3; fn f(_: &crate::a::One) {}",
        ),
    ]);
    let expected = "a circle of 3 files:
    src/a/one.rs names two::Two of src/a/two.rs
    src/a/three.rs names crate::a::One of src/a/one.rs
    src/a/two.rs names crate::a::three::THREE of src/a/three.rs";
    assert_eq!(siblings, expected);

    for (parent, child) in [
        ("mod b; use b::B; struct A;", "use super::A; pub struct B;"),
        (
            "mod b; pub use b::B; struct A(B);",
            "use super::A; pub struct B;",
        ),
        (
            "mod b; struct A; fn f() { b::g() }",
            "pub fn g() { let _ = super::A; }",
        ),
        (
            "mod b; struct A; fn f() { b::g() }",
            "mod inner { use super::super::A; } pub fn g() {}",
        ),
        (
            "macro_rules! m { () => {} } mod b; use self::b::*;",
            "m!();",
        ),
    ] {
        let found = circle(&[("src/a.rs", parent), ("src/a/b.rs", child)]);
        assert!(
            found.starts_with("a circle of 2 files:"),
            "{parent} {child}: {found}"
        );
    }
}

#[test]
fn what_is_no_circle_is_none() {
    for (parent, child) in [
        (
            "mod b; pub use b::B; pub struct A;",
            "use super::A; pub struct B(A);",
        ),
        (
            "mod b; struct A; impl A { fn f(&self) { self.g() } }",
            "impl super::A { fn g(&self) {} }",
        ),
        (
            "mod b; /// [`b::B`]\nstruct A; // b::B",
            "use super::A; pub struct B;",
        ),
        (
            "mod b; struct A; #[cfg(test)] mod tests { use super::b::B; }",
            "use super::A; pub struct B;",
        ),
        (
            "mod b; use b::B; struct A(B);",
            "#[cfg(test)] use super::A; pub struct B;",
        ),
        (
            "mod b; struct A; use luksmith::b::B;",
            "use super::A; pub struct B;",
        ),
        (
            "mod b; use b as c; struct A;",
            "use super::A; pub struct B;",
        ),
    ] {
        let found = circle(&[("src/a.rs", parent), ("src/a/b.rs", child)]);
        assert_eq!(found, "", "{parent} {child}");
    }
    // One package's module of another one's name.
    let found = circle(&[
        ("src/cli/a.rs", "use crate::b::B; pub struct A;"),
        ("src/b.rs", "use crate::cli::a::A; pub struct B;"),
    ]);
    assert_eq!(found, "");
}
