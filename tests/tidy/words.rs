//! Comments and docs: lines of at most 100 columns, and no words that leave out the actor.

use crate::assert_none;
use crate::tree::{self, File};

const COLUMNS: usize = 100;

/// Words that name no actor. CONTRIBUTING.md says what to write in their place.
const VAGUE: [&str; 3] = ["nobody", "somebody", "whoever"];

/// The text of a line that is a comment: of Rust after `//`, of a script after `#`.
fn comment<'a>(file: &File, line: &'a str) -> Option<&'a str> {
    let line = line.trim_start();
    if file.is_rust() {
        let text = line.strip_prefix("//")?;
        Some(text.trim_start_matches(['/', '!']))
    } else if file.text.starts_with("#!/") {
        line.strip_prefix('#')
    } else {
        None
    }
}

fn unclear(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        for (number, line) in file.text.lines().enumerate() {
            let Some(text) = comment(file, line) else {
                continue;
            };
            let place = format!("{}:{}", file.path, number + 1);
            let columns = line.chars().count();
            if columns > COLUMNS && text.contains(' ') && !text.contains("://") {
                complaints.push(format!("{place}: {columns} columns in a comment"));
            }
            let words = text.split(|c: char| !c.is_alphanumeric());
            for word in words.filter(|word| VAGUE.contains(&word.to_lowercase().as_str())) {
                complaints.push(format!("{place}: {word}: name the actor"));
            }
            let in_docs = ["src/", "formats/src/", "docs/"];
            if in_docs.iter().any(|folder| file.path.starts_with(folder))
                && text
                    .trim_end()
                    .trim_end_matches(['.', ';', ':', ','])
                    .ends_with(" alone")
            {
                complaints.push(format!("{place}: alone: say 'only' before what it limits"));
            }
        }
    }
    complaints
}

#[test]
fn comments_are_clear() {
    assert_none(&unclear(&tree::files()));
}

#[test]
fn unclear_comments_are_found() {
    let long = format!("    // {}", "a ".repeat(50));
    let rust =
        format!("{long}\n/// For Nobody.\nlet nobody = 1;\n//! Takes blocks alone.\n// Fine.");
    let found = unclear(&[
        File::new("src/crypt.rs", &rust),
        File::new("tests/cli/main.rs", "// blocks alone."),
        File::new("run", "#!/bin/sh\n# whoever runs it\n"),
        File::new("notes.toml", "# somebody\n"),
    ]);
    let expected = [
        "src/crypt.rs:1: 107 columns in a comment",
        "src/crypt.rs:2: Nobody: name the actor",
        "src/crypt.rs:4: alone: say 'only' before what it limits",
        "run:2: whoever: name the actor",
    ];
    assert_eq!(found, expected);
}
