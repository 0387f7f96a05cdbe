//! The header: it compiles, it declares what the library exports, and with the same parameters.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use support::peers;

use crate::{here, installed};

/// The library in the folder `lib` of its prefix.
fn library() -> std::path::PathBuf {
    installed().join("lib/libluksmith.so.0")
}

/// The header without comments, lines of the preprocessor and line breaks.
fn declarations() -> String {
    let text = std::fs::read_to_string(here().join("include/luksmith.h")).unwrap();
    let mut code = String::new();
    let mut rest = text.as_str();
    while let Some((before, comment)) = rest.split_once("/*") {
        code.push_str(before);
        rest = comment.split_once("*/").expect("a comment ends").1;
    }
    code.push_str(rest);
    let lines = code.lines().filter(|line| !line.starts_with('#'));
    let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    words.join(" ")
}

/// Each function of the header, with its whole declaration.
fn declared() -> BTreeMap<String, String> {
    let code = declarations();
    let functions = code.split(';').filter_map(|statement| {
        let statement = statement.trim();
        let statement = statement
            .rsplit_once('{')
            .map_or(statement, |(_, rest)| rest.trim());
        if statement.starts_with("typedef") {
            return None;
        }
        let (before, _) = statement.split_once('(')?;
        let name = before.rsplit([' ', '*']).next()?;
        Some((name.to_owned(), statement.to_owned()))
    });
    functions.collect()
}

/// The types of C, by those of the functions in Rust.
const TYPES: &[(&str, &str)] = &[
    ("*const c_char", "const char *"),
    ("*mut c_char", "char *"),
    ("*const c_void", "const void *"),
    ("*mut c_void", "void *"),
    ("Out<'_, *mut c_char>", "char **"),
    ("Out<'_, u32>", "uint32_t *"),
    ("Out<'_, *mut LuksmithKey>", "luksmith_key **"),
    ("Out<'_, *mut LuksmithVolume>", "luksmith_volume **"),
    ("Out<'_, *mut LuksmithServer>", "luksmith_server **"),
    ("ErrorOut<'_>", "luksmith_error **"),
    ("Option<KeyFunction>", "luksmith_key_function "),
    ("c_int", "int "),
    ("u32", "uint32_t "),
    ("u64", "uint64_t "),
    ("usize", "size_t "),
];

/// The declarations that a type of Rust may have in C. A handle that a function changes is `const`
/// in neither of them.
fn in_c(rust: &str) -> Vec<String> {
    if let Some((_, c)) = TYPES.iter().find(|(known, _)| *known == rust) {
        return vec![(*c).to_owned()];
    }
    let handle = |text: &str| {
        let name = text
            .strip_prefix("Luksmith")
            .expect("a handle")
            .to_lowercase();
        format!("luksmith_{name} *")
    };
    if let Some(name) = rust.strip_prefix("Option<Box<") {
        return vec![handle(name.trim_end_matches('>'))];
    }
    let name = rust.strip_prefix("Option<&");
    let handle = handle(
        name.unwrap_or_else(|| panic!("{rust}"))
            .trim_end_matches('>'),
    );
    vec![format!("const {handle}"), handle]
}

/// Each function of the source, with its return type and its parameters.
fn defined() -> BTreeMap<String, (String, Vec<(String, String)>)> {
    let mut functions = BTreeMap::new();
    for file in std::fs::read_dir(here().join("src")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        for function in words.join(" ").split("extern \"C\" fn ").skip(1) {
            let (name, rest) = function.split_once('(').unwrap();
            if !name.starts_with("luksmith_") {
                continue;
            }
            let (parameters, rest) = rest.split_once(')').unwrap();
            let (returned, _) = rest.split_once('{').unwrap();
            let returned = returned.trim().trim_start_matches("->").trim();
            let parameters = parameters.split(", ").filter_map(|parameter| {
                // A type may have a comma itself, and then no colon follows.
                parameter.trim().trim_end_matches(',').split_once(": ")
            });
            let parameters = parameters.map(|(name, of)| {
                let of = match of {
                    "Out<'_" => {
                        let at = text.find(&format!("{name}: Out<'_, ")).unwrap();
                        let of = &text[at + name.len() + 2..];
                        of.split_inclusive('>').next().unwrap()
                    }
                    of => of,
                };
                (name.to_owned(), of.to_owned())
            });
            functions.insert(name.to_owned(), (returned.to_owned(), parameters.collect()));
        }
    }
    functions
}

#[test]
fn declarations_are_those_of_the_functions() {
    let declared = declared();
    let defined = defined();
    let names: Vec<_> = declared.keys().collect();
    assert_eq!(names, defined.keys().collect::<Vec<_>>());
    for (name, (returned, parameters)) in &defined {
        let declaration = &declared[name];
        let result = match returned.as_str() {
            "" => vec!["void ".to_owned()],
            // The caller of such a function does not change the text.
            returned => in_c(returned),
        };
        let begins = |of: &String| declaration.starts_with(&format!("{of}{name}("));
        assert!(result.iter().any(begins), "{declaration}: {returned}");
        let (_, list) = declaration.split_once('(').unwrap();
        let list = list.trim_end_matches(')');
        let stated: Vec<&str> = list.split(", ").filter(|one| *one != "void").collect();
        assert_eq!(stated.len(), parameters.len(), "{declaration}");
        for ((parameter, of), stated) in parameters.iter().zip(stated) {
            let is = |c: &String| format!("{c}{parameter}") == *stated;
            assert!(in_c(of).iter().any(is), "{declaration}: {stated}: {of}");
        }
    }
}

/// These only return the address of a constant.
const CONSTANT: [&str; 2] = ["luksmith_kind_name", "luksmith_version"];

/// Functions that others share, and that catch the panics of these.
const SHARED: [&str; 2] = ["make", "transfer"];

/// A panic in any other function would end the process.
#[test]
fn every_function_catches_panics() {
    let mut functions = 0;
    for file in std::fs::read_dir(here().join("src")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for function in text.split("#[unsafe(no_mangle)]").skip(1) {
            let (head, body) = function.split_once("{\n").unwrap();
            let name = head.split_once("fn ").unwrap().1;
            let name = name.split_once('(').unwrap().0;
            let calls = |shared: &&str| body.contains(&format!(" {shared}("));
            let catches = catches(body) || SHARED.iter().any(calls);
            assert!(catches || CONSTANT.contains(&name), "{name}");
            functions += 1;
        }
        for shared in SHARED {
            if let Some((_, function)) = text.split_once(&format!("fn {shared}(")) {
                assert!(catches(function.split_once("{\n").unwrap().1), "{shared}");
            }
        }
    }
    assert_eq!(functions, declared().len());
}

/// Whether the body of a function begins with what catches panics.
fn catches(body: &str) -> bool {
    let body = body.trim_start();
    body.starts_with("run(error, ") || body.starts_with("caught(")
}

#[test]
fn lines_have_at_most_100_columns() {
    let header = std::fs::read_to_string(here().join("include/luksmith.h")).unwrap();
    for line in header.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
}

#[test]
fn the_kinds_have_their_numbers() {
    let code = declarations();
    let source = std::fs::read_to_string(here().join("src/error.rs")).unwrap();
    for (name, number) in [
        ("parameters", 1),
        ("permission", 2),
        ("wrong-passphrase", 3),
        ("memory", 4),
        ("over-limit", 5),
        ("storage", 6),
        ("no-space", 7),
        ("damaged", 8),
        ("unsupported", 9),
        ("busy", 10),
        ("exists", 11),
        ("interrupted", 12),
        ("not-trusted", 13),
    ] {
        let constant = name.to_uppercase().replace('-', "_");
        let in_header = format!("LUKSMITH_{constant} = {number},");
        assert!(code.contains(&in_header), "{in_header}");
        assert!(
            source.contains(&format!("{number} => c\"{name}\",")),
            "{name}"
        );
        let kind: String = name
            .split('-')
            .map(|word| word[..1].to_uppercase() + &word[1..])
            .collect();
        assert!(
            source.contains(&format!("Kind::{kind} => {number},")),
            "{kind}"
        );
    }
}

#[test]
fn it_compiles_as_c_and_as_cpp() {
    for (compiler, language, standard) in [("cc", "c", "c99"), ("c++", "c++", "c++11")] {
        let Some(compiler) = peers::find(compiler) else {
            return;
        };
        let mut command = Command::new(compiler);
        command
            .args(["-x", language, &format!("-std={standard}"), "-fsyntax-only"])
            .args(["-Wall", "-Wextra", "-Werror", "-pedantic"])
            .arg(here().join("include/luksmith.h"));
        peers::run(&mut command);
    }
}

/// What a tool prints of the library.
fn of_the_library(tool: &str, options: &[&str]) -> Option<String> {
    let mut command = Command::new(peers::find(tool)?);
    let printed = peers::run(command.args(options).arg(library()));
    Some(String::from_utf8(printed).expect("it is text"))
}

#[test]
fn nothing_else_is_exported() {
    let Some(printed) = of_the_library("nm", &["-D", "--defined-only"]) else {
        return;
    };
    let exported = printed.lines().filter_map(|line| line.split(' ').nth(2));
    let exported: BTreeSet<String> = exported.map(str::to_owned).collect();
    assert_eq!(exported, declared().into_keys().collect());
}

#[test]
fn it_links_what_rust_links() {
    let Some(printed) = of_the_library("readelf", &["--dynamic", "--wide"]) else {
        return;
    };
    let named = |kind: &str| {
        let kind = format!("({kind})");
        let lines = printed.lines().filter(|line| line.contains(&kind));
        let names = lines.filter_map(|line| line.split_once('[')?.1.strip_suffix(']'));
        names.map(str::to_owned).collect::<BTreeSet<_>>()
    };
    assert_eq!(
        named("SONAME"),
        BTreeSet::from(["libluksmith.so.0".to_owned()])
    );
    let allowed = ["ld-linux-", "libc.so", "libgcc_s.so", "libm.so"];
    for library in named("NEEDED") {
        let is_allowed = allowed.iter().any(|name| library.starts_with(name));
        assert!(is_allowed, "it links {library}");
    }
}

#[test]
fn what_is_installed_is_complete() {
    let prefix = installed();
    let link = std::fs::read_link(prefix.join("lib/libluksmith.so")).unwrap();
    assert_eq!(link, Path::new("libluksmith.so.0"));
    let Some(version) = crate::flags(&["--modversion"]) else {
        return;
    };
    assert_eq!(version, [env!("CARGO_PKG_VERSION")]);
}
