//! What Cargo.toml puts into the packages, and into the package on crates.io.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use support::peers::run;

use crate::{of_repository, text_of};

/// The names in quotes of one table of Cargo.toml.
fn quoted(table: &str) -> Vec<String> {
    let manifest = text_of("Cargo.toml");
    let begin = format!("\n[package.metadata.{table}]\n");
    let (_, after) = manifest
        .split_once(&begin)
        .expect("Cargo.toml has the table");
    let table = after.split("\n[").next().unwrap_or_default();
    let lines = table.lines().filter(|line| line.starts_with("    "));
    lines
        .flat_map(|line| {
            line.split('"')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect()
}

fn files(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(of_repository(folder)).unwrap();
    let entries = entries.map(|entry| entry.unwrap());
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    files
        .map(|entry| format!("{folder}/{}", entry.file_name().display()))
        .collect()
}

#[test]
fn both_packages_have_the_units_the_pages_and_the_documents() {
    for table in ["deb", "generate-rpm"] {
        let listed = quoted(table);
        let has = |name: &str| listed.iter().any(|one| one == name);
        for made in [
            "man/*.1",
            "luksmith.bash",
            "_luksmith",
            "luksmith.fish",
            "licences",
        ] {
            assert!(has(&format!("target/package/{made}")), "{table}: {made}");
        }
        for file in files("packaging") {
            let is_unit = ["service", "socket", "timer", "sysusers"].iter();
            let is_unit = is_unit
                .map(|kind| format!(".{kind}"))
                .any(|kind| file.ends_with(&kind));
            assert!(has(&file) == is_unit, "{table}: {file}");
        }
        for file in [
            "target/release/luksmith",
            "README.md",
            "SECURITY.md",
            "CHANGELOG.md",
            "docs/*.md",
        ] {
            assert!(has(file), "{table}: {file}");
        }
        let sources = listed.iter().filter(|name| name.starts_with("packaging/"));
        for source in sources {
            assert!(
                of_repository(source).exists(),
                "{table}: {source} does not exist"
            );
        }
    }
}

#[test]
fn both_packages_have_the_helpers_of_luksmith() {
    let (deb, rpm) = (text_of("Cargo.toml"), text_of("packaging/rpm/post"));
    let listed = rpm
        .lines()
        .find_map(|line| line.strip_prefix("for helper in "));
    let listed: BTreeSet<_> = listed
        .unwrap()
        .trim_end_matches("; do")
        .split(' ')
        .collect();
    assert_eq!(
        listed,
        BTreeSet::from(["directory", "systemd-creds", "vault"])
    );
    for helper in listed {
        assert!(deb.contains(&format!("dest = \"usr/libexec/luksmith/key-{helper}\"")));
        // The program knows itself by this name: without a request it refuses its arguments.
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join(format!("key-{helper}"));
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_luksmith"), &link).unwrap();
        let said = support::peers::output(Command::new(link).arg("--help"));
        let said = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
        assert!(!said.contains("Usage: luksmith"), "{helper}: {said}");
    }
}

/// cargo lists what it would upload: all files that the code includes, and no tests.
#[test]
fn the_packages_for_crates_io_have_what_they_include() {
    for (package, needed) in [
        (
            "luksmith",
            &["src/main.rs", "README.md", "docs/library.md", "LICENSE-MIT"][..],
        ),
        (
            "luksmith-formats",
            &["src/lib.rs", "README.md", "LICENSE-MIT", "LICENSE-APACHE"],
        ),
    ] {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "package",
            "--list",
            "--offline",
            "--allow-dirty",
            "--package",
            package,
        ]);
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        let listed = String::from_utf8(run(&mut cargo)).unwrap();
        let listed: Vec<_> = listed.lines().collect();
        for file in needed {
            assert!(listed.contains(file), "{package}: {file}");
        }
        let known = ["src", "examples", "docs"];
        let other = listed.iter().find(|file| {
            let folder = Path::new(file)
                .parent()
                .and_then(|folder| folder.iter().next());
            folder.is_some_and(|folder| known.iter().all(|known| folder != *known))
        });
        assert_eq!(other, None, "{package}");
    }
}
