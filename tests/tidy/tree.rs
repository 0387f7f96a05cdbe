//! The files that git tracks, and their code without comments and strings.

use std::path::PathBuf;
use std::process::Command;

pub(crate) struct File {
    /// The path from the root of the repository, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The text with comments and the insides of strings left out; line breaks stay.
    pub(crate) fn code(&self) -> String {
        code(&self.text)
    }
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", ".."].iter().collect()
}

/// Every text file that git tracks, or that is new and not ignored.
pub(crate) fn files() -> Vec<File> {
    let root = root();
    let listed = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(&root)
        .output()
        .expect("git is there");
    assert!(listed.status.success(), "git ls-files failed");
    let listed = String::from_utf8(listed.stdout).expect("paths are UTF-8");
    let files: Vec<File> = listed
        .split_terminator('\0')
        .filter_map(|path| {
            Some(File::new(
                path,
                &std::fs::read_to_string(root.join(path)).ok()?,
            ))
        })
        .collect();
    assert!(files.len() > 50, "git lists only {} files", files.len());
    files
}

/// Where `word` stands alone in `code`: the line numbers.
pub(crate) fn lines_with(code: &str, word: &str) -> Vec<usize> {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut lines: Vec<usize> = code
        .match_indices(word)
        .filter(|(at, _)| {
            let starts = !word.starts_with(part_of_name) || !code[..*at].ends_with(part_of_name);
            let after = &code[at + word.len()..];
            starts && (!word.ends_with(part_of_name) || !after.starts_with(part_of_name))
        })
        .map(|(at, _)| code[..at].matches('\n').count() + 1)
        .collect();
    lines.dedup();
    lines
}

fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (skipped, len) = if rest.starts_with("//") {
            ("", rest.find('\n').unwrap_or(rest.len()))
        } else if rest.starts_with("/*") {
            ("", rest.find("*/").map_or(rest.len(), |at| at + 2))
        } else if let Some(len) =
            raw_string(rest).filter(|_| !out.ends_with(|c: char| c.is_alphanumeric()))
        {
            ("\"\"", len)
        } else if first == '"' {
            ("\"\"", quoted(rest, '"'))
        } else if rest.starts_with("'\\") || first == '\'' && rest.chars().nth(2) == Some('\'') {
            ("' '", quoted(rest, '\''))
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        out.push_str(skipped);
        out.extend(rest[..len].chars().filter(|c| *c == '\n'));
        rest = &rest[len..];
    }
    out
}

/// The length of the string or character that `rest` begins with.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of the raw string that `rest` begins with.
fn raw_string(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix("br").or(rest.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let inside = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let len = inside.find(&end)?;
    Some(rest.len() - inside.len() + len + end.len())
}

#[test]
fn comments_and_strings_are_left_out_and_lines_stay() {
    let text = "a // unsafe\n/* unsafe\n */ { 'b' } b \"uns\\\"afe\" '\\'' '\"' r#\"unsafe \"\n\"# br#\"{\"\"# for<'a> &'a unsafe_code\nunsafe {}";
    let code = code(text);
    assert_eq!(lines_with(&code, "unsafe"), [5]);
    assert_eq!(code.lines().count(), 5);
    assert_eq!(lines_with(&code, "b"), [3]);
    assert_eq!(lines_with(&code, "{"), [3, 5]);
}
