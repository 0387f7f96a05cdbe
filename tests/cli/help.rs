//! Every command has help.

use crate::session::Session;

/// All commands, as `--help` lists them.
pub(crate) fn commands(session: &Session, path: &[&str]) -> Vec<Vec<String>> {
    let help = session.ok(path.iter().copied().chain(["--help"]));
    let listed = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty());
    // A name begins in the third column. Text that begins further right continues a description.
    let entries = listed.filter_map(|line| {
        line.strip_prefix("  ")
            .filter(|entry| !entry.starts_with(' '))
    });
    let names = entries.filter_map(|entry| entry.split_whitespace().next());
    let mut all = Vec::new();
    for name in names.filter(|name| *name != "help") {
        let mut path: Vec<&str> = path.to_vec();
        path.push(name);
        all.push(path.iter().map(ToString::to_string).collect());
        all.extend(commands(session, &path));
    }
    all
}

#[test]
fn every_command_has_examples() {
    let session = Session::new();
    let all = commands(&session, &[]);
    assert!(all.len() >= 27, "only {} commands were found", all.len());
    for path in all {
        let help = session.ok(path.iter().map(String::as_str).chain(["--help"]));
        assert!(help.contains("\nExamples:\n  "), "{path:?}");
    }
}

#[test]
fn manual_pages_and_completions_cover_all() {
    let session = Session::new();
    std::fs::create_dir(session.path("man")).unwrap();
    session.ok(["man", "--out", "man"]);
    for page in [
        "luksmith",
        "luksmith-create",
        "luksmith-key-volume-key",
        "luksmith-header-restore",
    ] {
        let text = String::from_utf8(session.read(&format!("man/{page}.1"))).unwrap();
        assert!(
            text.contains(".SH NAME") && text.contains("Examples:"),
            "{page}"
        );
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(
            session.ok(["completions", shell]).contains("volume-key"),
            "{shell}"
        );
    }
}
