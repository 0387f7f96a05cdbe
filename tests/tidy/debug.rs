//! Rust's debug output is for developers: no text of the library or the program contains it.

use crate::assert_none;
use crate::tree::{self, File};

/// Where debug output becomes no text for a user as it is: numbers of JSON, values that the log
/// records, names of variants that are turned into words, and keys of a map.
const ALLOWED: [(&str, usize); 4] = [
    ("formats/src/json/number.rs", 1),
    ("src/cli/log.rs", 1),
    ("src/channel/reason.rs", 2),
    ("src/task/libvirt/identity.rs", 1),
];

fn debug_output(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        let in_library = ["src/", "formats/src/"]
            .iter()
            .any(|at| file.path.starts_with(at));
        let is_test = file.path.ends_with("tests.rs") || file.path.contains("/tests/");
        if !in_library || is_test || !file.is_rust() {
            continue;
        }
        let code = without_tests(&file.text);
        let lines: Vec<_> = (1..)
            .zip(code.lines())
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
            .filter(|(_, line)| line.contains(":?}") || line.contains(":#?}"))
            .map(|(number, _)| number)
            .collect();
        let allowed = ALLOWED.iter().find(|(path, _)| *path == file.path);
        if lines.len() != allowed.map_or(0, |(_, count)| *count) {
            complaints.push(format!("{}: debug output at lines {lines:?}", file.path));
        }
    }
    complaints
}

/// The text before the module of unit tests at its end.
fn without_tests(text: &str) -> &str {
    let marks = text.match_indices("#[cfg(test)]\n");
    let mut ends = marks.filter(|(at, _)| {
        let mut after = text[*at..]
            .lines()
            .skip_while(|line| line.starts_with("#["));
        after
            .next()
            .is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'))
    });
    ends.next().map_or(text, |(at, _)| &text[..at])
}

#[test]
fn no_text_contains_debug_output() {
    assert_none(&debug_output(&tree::files()));
}

#[test]
fn debug_output_is_found() {
    let found = debug_output(&[
        File::new(
            "src/a.rs",
            "f(\"{x}\");\n// {x:?}\nf(\"{0:?}\");\n#[cfg(test)]\nmod tests;\n\"{:?}\"\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n\"{:?}\" }",
        ),
        File::new("src/b/tests.rs", "\"{:?}\""),
        File::new("tests/c.rs", "\"{:?}\""),
        File::new("src/cli/log.rs", ""),
    ]);
    let expected = [
        "src/a.rs: debug output at lines [3, 6]",
        "src/cli/log.rs: debug output at lines []",
    ];
    assert_eq!(found, expected);
}
