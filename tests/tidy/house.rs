//! Required files exist, every test file is compiled, and no file has a path or a host of one
//! machine.

use crate::assert_none;
use crate::tree::{self, File};

/// The files that a reader expects at the root.
const EXPECTED: &[&str] = &[
    ".ci/run",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "SECURITY.md",
    "deny.toml",
    "test",
];

fn text_of<'a>(files: &'a [File], path: &str) -> &'a str {
    files
        .iter()
        .find(|file| file.path == path)
        .map_or("", |file| file.text.as_str())
}

fn missing(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for path in EXPECTED {
        if text_of(files, path).trim().is_empty() {
            complaints.push(format!("{path} is missing or empty"));
        }
    }
    if !text_of(files, "README.md").contains("./test") {
        complaints.push("README.md does not say that ./test passes every test".into());
    }
    let map = text_of(files, "ARCHITECTURE.md");
    let mut modules: Vec<&str> = files
        .iter()
        .filter_map(|file| file.path.strip_prefix("src/")?.split(['/', '.']).next())
        .filter(|module| !["lib", "main"].contains(module))
        .collect();
    modules.dedup();
    for module in modules {
        if !map.contains(module) {
            complaints.push(format!("ARCHITECTURE.md does not name src/{module}"));
        }
    }
    complaints
}

/// Every Rust file of tests/ is compiled: a `main.rs` as a test binary that Cargo.toml lists, a
/// file of a folder with its own Cargo.toml from that package's root, and every other file as a
/// module. Fuzz targets are listed in their package.
fn forgotten_tests(files: &[File]) -> Vec<String> {
    let manifest = text_of(files, "Cargo.toml");
    let is_package = |folder: &str| {
        let manifest = format!("tests/{folder}/Cargo.toml");
        files.iter().any(|file| file.path == manifest)
    };
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let Some(path) = file
            .path
            .strip_prefix("tests/")
            .filter(|path| !path.starts_with("fuzz/"))
        else {
            continue;
        };
        let is_root = [("main", ""), ("lib", "/src")].iter().any(|(name, below)| {
            let folder = path.strip_suffix(&format!("{below}/{name}.rs"));
            folder.is_some_and(is_package)
        });
        if is_root {
            continue;
        }
        let stem = path.trim_end_matches(".rs").trim_end_matches("/mod");
        let Some((folder, name)) = stem.rsplit_once('/') else {
            complaints.push(format!("{}: a test has a folder", file.path));
            continue;
        };
        let listed = format!("[[test]]\nname = \"{folder}\"\npath = \"{}\"", file.path);
        if name == "main" {
            if !manifest.contains(&listed) {
                complaints.push(format!("{}: Cargo.toml has no [[test]] for it", file.path));
            }
            continue;
        }
        let parents = [
            format!("tests/{folder}/main.rs"),
            format!("tests/{folder}/lib.rs"),
            format!("tests/{folder}.rs"),
            format!("tests/{folder}/mod.rs"),
        ];
        let reached = parents.iter().any(|parent| {
            files
                .iter()
                .any(|file| file.path == *parent && file.code().contains(&format!("mod {name};")))
        });
        if !reached {
            complaints.push(format!(
                "{}: no mod names it, so it does not run",
                file.path
            ));
        }
    }
    complaints
}

/// Paths and hosts of one machine, split here so that this file does not have them.
const OF_ONE_MACHINE: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("arti", "factory"),
    concat!("index.", "crates.io"),
    concat!("deb.", "debian.org"),
];

fn of_one_machine(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        for (number, line) in file.text.lines().enumerate() {
            for word in OF_ONE_MACHINE.iter().filter(|word| line.contains(*word)) {
                complaints.push(format!("{}:{}: {word}", file.path, number + 1));
            }
        }
    }
    complaints
}

#[test]
fn the_house_is_whole() {
    assert_none(&missing(&tree::files()));
}

#[test]
fn no_test_is_forgotten() {
    assert_none(&forgotten_tests(&tree::files()));
}

#[test]
fn nothing_is_of_one_machine() {
    assert_none(&of_one_machine(&tree::files()));
}

#[test]
fn what_is_missing_is_found() {
    let mut files: Vec<File> = EXPECTED
        .iter()
        .map(|path| File::new(path, "./test of src/crypt.rs"))
        .collect();
    files.push(File::new("src/crypt.rs", ""));
    assert_none(&missing(&files));
    files.retain(|file| file.path != "LICENSE");
    files.push(File::new("src/vet/mod.rs", ""));
    assert_eq!(
        missing(&files),
        [
            "LICENSE is missing or empty",
            "ARCHITECTURE.md does not name src/vet"
        ]
    );
}

#[test]
fn forgotten_tests_are_found() {
    let found = forgotten_tests(&[
        File::new(
            "Cargo.toml",
            "[[test]]\nname = \"a\"\npath = \"tests/a/main.rs\"\n",
        ),
        File::new("tests/a/main.rs", "mod one;\n// mod two;"),
        File::new("tests/a/one.rs", "mod three;"),
        File::new("tests/a/one/three.rs", ""),
        File::new("tests/a/two.rs", ""),
        File::new("tests/b/main.rs", ""),
        File::new("tests/c.rs", ""),
        File::new("tests/fuzz/targets/t.rs", ""),
        File::new("tests/d/Cargo.toml", ""),
        File::new("tests/d/src/lib.rs", "mod five;\nmod six;"),
        File::new("tests/d/src/four.rs", ""),
        File::new("tests/d/src/five.rs", ""),
        File::new("tests/d/src/six/mod.rs", "mod seven;"),
        File::new("tests/d/src/six/seven.rs", ""),
        File::new("tests/d/src/six/eight.rs", ""),
        File::new("tests/e/Cargo.toml", ""),
        File::new("tests/e/main.rs", "mod nine;"),
        File::new("tests/e/nine.rs", ""),
    ]);
    let expected = [
        "tests/a/two.rs: no mod names it, so it does not run",
        "tests/b/main.rs: Cargo.toml has no [[test]] for it",
        "tests/c.rs: a test has a folder",
        "tests/d/src/four.rs: no mod names it, so it does not run",
        "tests/d/src/six/eight.rs: no mod names it, so it does not run",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_machine_is_found() {
    let text = format!("fine\nsee {}main", OF_ONE_MACHINE[0]);
    let expected = [format!("notes.md:2: {}", OF_ONE_MACHINE[0])];
    assert_eq!(of_one_machine(&[File::new("notes.md", &text)]), expected);
}
