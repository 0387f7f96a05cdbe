//! The packages of others: their licences, duplicates and origins, and the oldest Rust that they
//! need, as `cargo metadata` reports them. The lists are those of deny.toml.

use crate::assert_none;
use crate::tree::{self, File, root};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

struct Rules {
    licences: Vec<String>,
    duplicates: BTreeSet<String>,
    rust: (u32, u32),
}

impl Rules {
    fn read() -> Self {
        let text = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml is there");
        let rust = version(env!("CARGO_PKG_RUST_VERSION"));
        let rules = Self {
            licences: list(&text, "allow"),
            duplicates: list(&text, "skip").into_iter().collect(),
            rust: rust.expect("rust-version is set"),
        };
        assert!(
            rules.licences.contains(&"MIT".to_owned()),
            "deny.toml has its list of licences"
        );
        rules
    }
}

/// The first string on each line of a list of deny.toml.
fn list(text: &str, name: &str) -> Vec<String> {
    let begin = format!("{name} = [");
    text.lines()
        .skip_while(|line| *line != begin)
        .skip(1)
        .take_while(|line| *line != "]")
        .filter_map(|line| line.split('"').nth(1).map(str::to_owned))
        .collect()
}

fn complaints(packages: &[Value], rules: &Rules) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        *versions.entry(name).or_default() += 1;
        let licence = package["license"].as_str().unwrap_or_default();
        if !allowed(licence, &rules.licences) {
            complaints.push(format!(
                "{name}: the licence {licence:?} is not in deny.toml"
            ));
        }
        let source = package["source"].as_str();
        if source
            .is_some_and(|source| !source.starts_with("registry+https://github.com/rust-lang/"))
        {
            complaints.push(format!("{name}: comes from {source:?}"));
        }
        let rust = package["rust_version"].as_str().and_then(version);
        if rust.is_some_and(|rust| rust > rules.rust) {
            complaints.push(format!("{name}: needs Rust {}", package["rust_version"]));
        }
    }
    for (name, count) in versions {
        match (count > 1, rules.duplicates.contains(name)) {
            (true, false) => complaints.push(format!(
                "{name}: {count} versions, and deny.toml does not say why"
            )),
            (false, true) => {
                complaints.push(format!("{name}: one version: its line in deny.toml can go"))
            }
            _ => {}
        }
    }
    complaints
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Whether an SPDX expression can be met by the licences of the list. Old manifests write `/` for
/// OR.
fn allowed(expression: &str, licences: &[String]) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace(" WITH ", "+WITH+");
    let words: Vec<String> = spaced
        .split_whitespace()
        .map(|word| word.replace("+WITH+", " WITH "))
        .collect();
    let mut words = words.iter().map(String::as_str).peekable();
    any(&mut words, licences) && words.next().is_none()
}

type Words<'a, I> = std::iter::Peekable<I>;

fn any<'a, I: Iterator<Item = &'a str>>(words: &mut Words<'a, I>, licences: &[String]) -> bool {
    let mut met = all(words, licences);
    while words.next_if_eq(&"OR").is_some() {
        met |= all(words, licences);
    }
    met
}

fn all<'a, I: Iterator<Item = &'a str>>(words: &mut Words<'a, I>, licences: &[String]) -> bool {
    let mut met = one(words, licences);
    while words.next_if_eq(&"AND").is_some() {
        met &= one(words, licences);
    }
    met
}

fn one<'a, I: Iterator<Item = &'a str>>(words: &mut Words<'a, I>, licences: &[String]) -> bool {
    match words.next() {
        Some("(") => {
            let met = any(words, licences);
            words.next() == Some(")") && met
        }
        Some(word) => licences.iter().any(|licence| licence == word),
        None => false,
    }
}

/// The most crates of a build without features, luksmith included.
const MOST_CRATES: usize = 80;

/// Features of serde_json that change the meaning of code in the whole program of a dependant.
const CONTAGIOUS: [&str; 2] = ["arbitrary_precision", "preserve_order"];

/// Where the code of each feature is. Only there may its own dependencies be named.
const FEATURES: &[(&str, &[&str])] = &[
    (
        "cli",
        &["src/cli/", "src/main.rs", "src/task/measure/chart/"],
    ),
    (
        "nbd",
        &[
            "src/channel/",
            "src/backend/nbd/",
            "src/export/nbd/",
            "src/task/listen",
        ],
    ),
    (
        "s3",
        &["src/objects/s3/", "src/http.rs", "src/xml.rs", "src/xml/"],
    ),
    ("http", &["src/backend/http/", "src/http.rs"]),
    (
        "libvirt",
        &[
            "src/libvirt/",
            "src/qemu/",
            "src/task/libvirt/",
            "src/xml.rs",
            "src/xml/",
            "src/sys/library.rs",
        ],
    ),
    ("rbd", &["src/backend/rbd/", "src/sys/library.rs"]),
    (
        "vet",
        &[
            "src/vet/",
            "src/audit/",
            "src/xml.rs",
            "src/xml/",
            "src/inflate.rs",
        ],
    ),
    ("ciphers", &["src/crypt/", "src/kdf/hashes.rs"]),
    ("integrity", &["src/crypt/authenticated/"]),
    ("qcow2-compressed", &["src/inflate.rs"]),
    ("tang", &["src/tokens/clevis/", "src/http.rs"]),
    // rustls has a module that is called aws_lc_rs too.
    (
        "tpm2",
        &[
            "src/tokens/tpm2/",
            "src/channel/credentials.rs",
            "src/http.rs",
        ],
    ),
];

/// The dependencies that only features need, each with the places that may name it.
fn places(manifest: &str) -> BTreeMap<String, Vec<&'static str>> {
    let mut places: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for (feature, folders) in FEATURES {
        let begin = format!("\n{feature} = [");
        let list = manifest.split_once(&begin);
        let (_, list) = list.unwrap_or_else(|| panic!("Cargo.toml has no feature {feature}"));
        let list = list.split(']').next().unwrap_or_default();
        for dependency in list.split('"').filter_map(|word| word.strip_prefix("dep:")) {
            let places = places.entry(dependency.replace('-', "_")).or_default();
            places.extend_from_slice(folders);
        }
    }
    places
}

fn out_of_their_features(files: &[File], manifest: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (dependency, places) in places(manifest) {
        let path = format!("{dependency}::");
        let others = files.iter().filter(|file| {
            let here = places.iter().any(|place| file.path.starts_with(place));
            file.is_rust() && file.path.starts_with("src/") && !here
        });
        for file in others {
            for (number, line) in file.code().lines().enumerate() {
                let named = line.match_indices(&path).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
                });
                if named {
                    let number = number + 1;
                    complaints.push(format!("{}:{number}: names {dependency}", file.path));
                }
            }
        }
    }
    complaints
}

/// The crates that a build of the library links, as `cargo tree` prints them.
fn linked(options: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "-p", "luksmith", "-e", "normal"])
        .args(["--prefix", "none", "--no-dedupe"])
        .args(options)
        .current_dir(root())
        .output()
        .expect("cargo is there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let crates = String::from_utf8_lossy(&output.stdout).into_owned();
    crates.lines().map(str::to_owned).collect()
}

#[test]
fn a_build_without_features_has_few_crates() {
    let crates = linked(&["--no-default-features", "-f", "{lib} {p}"]);
    assert!(crates.len() > 20, "{crates:#?}");
    assert!(crates.len() <= MOST_CRATES, "{}: {crates:#?}", crates.len());
}

#[test]
fn no_feature_changes_the_code_of_dependants() {
    let features = linked(&["--all-features", "-f", "{p} {f}"]);
    let serde_json = features.iter().find(|line| line.starts_with("serde_json "));
    let serde_json = serde_json.map_or("", String::as_str);
    for feature in CONTAGIOUS {
        assert!(!serde_json.contains(feature), "{serde_json}");
    }
}

#[test]
fn dependencies_of_features_stay_in_their_features() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(places(&manifest).len() > 20);
    assert_none(&out_of_their_features(&tree::files(), &manifest));
}

#[test]
fn dependencies_out_of_their_features_are_found() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let files = [
        File::new("src/volume/mod.rs", "\nuse rustls::Stream; // clap::Parser"),
        File::new("src/channel/tls.rs", "use rustls::Stream;"),
        File::new(
            "src/audit/mod.rs",
            "fn own_toml::f() { toml::from_str(text) }",
        ),
        File::new("src/libvirt/mod.rs", "fn f() { toml::from_str(text) }"),
    ];
    assert_eq!(
        out_of_their_features(&files, &manifest),
        [
            "src/volume/mod.rs:2: names rustls",
            "src/libvirt/mod.rs:1: names toml"
        ]
    );
}

#[test]
fn dependencies_keep_the_rules() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--all-features",
        ])
        .current_dir(root())
        .output()
        .expect("cargo is there");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    assert!(packages.len() > 20);
    assert_none(&complaints(packages, &Rules::read()));
}

#[test]
fn broken_rules_are_found() {
    let rules = Rules {
        licences: vec!["MIT".into()],
        duplicates: ["twice", "once"].map(str::to_owned).into(),
        rust: (1, 89),
    };
    let found = complaints(
        &[
            json!({"name": "copyleft", "license": "GPL-3.0"}),
            json!({"name": "none", "license": null}),
            json!({"name": "young", "license": "MIT", "rust_version": "1.90.0"}),
            json!({"name": "elsewhere", "license": "MIT", "source": "git+https://example.org/x"}),
            json!({"name": "pair", "license": "MIT"}),
            json!({"name": "pair", "license": "MIT"}),
            json!({"name": "twice", "license": "MIT"}),
            json!({"name": "twice", "license": "MIT"}),
            json!({"name": "once", "license": "MIT", "rust_version": "1.89"}),
        ],
        &rules,
    );
    let expected = [
        "copyleft: the licence \"GPL-3.0\" is not in deny.toml",
        "none: the licence \"\" is not in deny.toml",
        "young: needs Rust \"1.90.0\"",
        "elsewhere: comes from Some(\"git+https://example.org/x\")",
        "once: one version: its line in deny.toml can go",
        "pair: 2 versions, and deny.toml does not say why",
    ];
    assert_eq!(found, expected);
}

#[test]
fn licence_expressions_are_read() {
    let licences = ["MIT", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
    for good in [
        "MIT",
        "GPL-3.0 OR MIT",
        "GPL-3.0/MIT",
        "(MIT OR GPL-3.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
    ] {
        assert!(allowed(good, &licences), "{good}");
    }
    for bad in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT",
        "MIT MIT",
        "Apache-2.0",
    ] {
        assert!(!allowed(bad, &licences), "{bad}");
    }
}
