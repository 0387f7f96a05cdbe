//! Dependencies between the library's modules run downward only.

use std::collections::BTreeSet;

use crate::assert_none;
use crate::names::absolute_paths;
use crate::tree::{self, File};

/// Each module with the modules that it may name. Add a row for a new module.
const LAYERS: &[(&str, &[&str])] = &[
    ("cli", &["cli"]), // the library by its public name, as any program
    (
        "task",
        &[
            "location",
            "objects",
            "http",
            "tokens",
            "reencrypt",
            "partition",
            "container",
            "trust",
            "export",
            "audit",
            "vet",
            "libvirt",
            "qemu",
            "volume",
            "layout",
            "backend",
            "channel",
            "kdf",
            "crypt",
            "xts",
            "secret",
            "sectors",
            "xml",
            "inflate",
            "interrupt",
            "sys",
        ],
    ),
    ("location", &["feature"]),
    ("partition", &["backend", "sectors"]),
    (
        "container",
        &[
            "trust",
            "volume",
            "layout",
            "door",
            "crypt",
            "kdf",
            "secret",
            "backend",
            "sectors",
            "sys",
            "interrupt",
        ],
    ),
    (
        "reencrypt",
        &[
            "container",
            "volume",
            "layout",
            "door",
            "crypt",
            "kdf",
            "secret",
            "backend",
            "sectors",
        ],
    ),
    (
        "trust",
        &[
            "volume",
            "crypt",
            "backend",
            "sectors",
            "secret",
            "interrupt",
            "sys",
        ],
    ),
    ("objects", &["backend", "sectors", "http", "sys", "xml"]),
    ("audit", &["vet", "backend", "xml"]),
    ("libvirt", &["secret", "sys", "xml"]),
    (
        "tokens",
        &["kdf", "http", "secret", "sys", "interrupt", "feature"],
    ),
    (
        "export",
        &["volume", "channel", "backend", "sectors", "sys"],
    ),
    ("qemu", &["secret"]),
    ("vet", &["backend", "sectors", "interrupt", "inflate"]),
    (
        "volume",
        &["layout", "crypt", "backend", "sectors", "interrupt"],
    ),
    (
        "layout",
        &["door", "crypt", "backend", "sectors", "feature", "inflate"],
    ),
    ("door", &["backend", "sectors"]),
    ("crypt", &["xts", "secret", "sectors", "feature"]),
    ("kdf", &["secret", "sys", "interrupt", "feature"]),
    ("secret", &["sys", "interrupt"]),
    ("xts", &[]),
    (
        "backend",
        &[
            "channel",
            "http",
            "secret",
            "sectors",
            "sys",
            "interrupt",
            "feature",
        ],
    ),
    ("channel", &["secret", "sys"]),
    ("helpers", &["channel", "secret", "interrupt", "sys"]),
    ("sectors", &[]),
    ("sys", &[]),
    ("xml", &[]),
    ("feature", &[]),
    ("http", &[]),
    ("inflate", &[]),
    ("interrupt", &[]),
    ("setters", &[]),
];

fn upward(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let Some(path) = file.path.strip_prefix("src/") else {
            continue;
        };
        let module = path.split(['/', '.']).next().unwrap_or_default();
        if ["lib", "main"].contains(&module) {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            complaints.push(format!("{}: the module {module} has no layer", file.path));
            continue;
        };
        let paths = absolute_paths(file);
        let named: BTreeSet<_> = paths.iter().filter_map(|path| path.first()).collect();
        for named in named {
            let known = LAYERS.iter().any(|(name, _)| name == named);
            if known && named != module && !allowed.contains(&named.as_str()) {
                complaints.push(format!("{}: {module} may not name {named}", file.path));
            }
        }
    }
    complaints
}

#[test]
fn dependencies_run_downward() {
    assert_none(&upward(&tree::files()));
}

#[test]
fn upward_dependencies_are_found() {
    let found = upward(&[
        File::new("src/xts/mod.rs", "use crate::backend::Backend;"),
        File::new(
            "src/backend/file.rs",
            "use crate::{sectors::{Plain, Cipher}, volume};",
        ),
        File::new(
            "src/kdf/mod.rs",
            "fn f() { crate::container::open() } // crate::cli",
        ),
        File::new("src/novel.rs", ""),
        File::new("src/crypt.rs", "use crate::{xts, sectors::Sectors};"),
        File::new(
            "src/vet/luks.rs",
            "use super::super::container; use super::Report;",
        ),
        File::new(
            "src/door.rs",
            "mod tests { use super::super::{crypt, sectors}; }",
        ),
    ]);
    let expected = [
        "src/xts/mod.rs: xts may not name backend",
        "src/backend/file.rs: backend may not name volume",
        "src/kdf/mod.rs: kdf may not name container",
        "src/novel.rs: the module novel has no layer",
        "src/vet/luks.rs: vet may not name container",
        "src/door.rs: door may not name crypt",
    ];
    assert_eq!(found, expected);
}
