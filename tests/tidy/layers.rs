//! Dependencies between the library's modules run downward only.

use crate::assert_none;
use crate::tree::{self, File};

/// Each module with what it may name. A module that is not here has no place yet: give it one.
const LAYERS: &[(&str, &[&str])] = &[
    ("cli", &["cli"]), // the library by its public name, as any program
    (
        "task",
        &[
            "location",
            "container",
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
            "interrupt",
            "sys",
        ],
    ),
    ("location", &[]),
    (
        "container",
        &[
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
    ("audit", &["vet", "backend", "xml"]),
    ("libvirt", &["secret", "sys", "xml"]),
    ("export", &["volume", "channel", "backend", "sectors"]),
    ("qemu", &["secret"]),
    ("vet", &["backend", "sectors", "interrupt"]),
    (
        "volume",
        &["layout", "crypt", "backend", "sectors", "interrupt"],
    ),
    ("layout", &["door", "crypt", "backend", "sectors"]),
    ("door", &["backend", "sectors"]),
    ("crypt", &["xts", "secret", "sectors"]),
    ("kdf", &["secret", "sys", "interrupt"]),
    ("secret", &["sys", "interrupt"]),
    ("xts", &[]),
    ("backend", &["channel", "sectors", "sys"]),
    ("channel", &["secret", "sys"]),
    ("sectors", &[]),
    ("sys", &[]),
    ("xml", &[]),
    ("interrupt", &[]),
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
        for named in named_modules(&file.code()) {
            let known = LAYERS.iter().any(|(name, _)| *name == named);
            if known && named != module && !allowed.contains(&named.as_str()) {
                complaints.push(format!("{}: {module} may not name {named}", file.path));
            }
        }
    }
    complaints
}

/// The modules after each `crate::`, also in a group.
fn named_modules(code: &str) -> Vec<String> {
    let name = |text: &str| {
        let text = text.trim_start();
        let end = text
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(text.len());
        text[..end].to_owned()
    };
    let mut names = Vec::new();
    for part in code.split("crate::").skip(1) {
        let Some(group) = part.strip_prefix('{') else {
            names.push(name(part));
            continue;
        };
        let mut depth = 0;
        names.push(name(group));
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => names.push(name(&group[at + 1..])),
                _ => {}
            }
        }
    }
    names
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
    ]);
    let expected = [
        "src/xts/mod.rs: xts may not name backend",
        "src/backend/file.rs: backend may not name volume",
        "src/kdf/mod.rs: kdf may not name container",
        "src/novel.rs: the module novel has no layer",
    ];
    assert_eq!(found, expected);
}
