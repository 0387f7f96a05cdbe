//! The command: its exit codes, the files that it opens and does not open, and its output.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::judge::{be32, be64, put};
use crate::{luks, qcow2};

fn luksmith(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_luksmith"))
        .current_dir(folder)
        .args(arguments)
        .output()
        .unwrap()
}

#[track_caller]
fn fails(folder: &Path, arguments: &[&str], code: i32, says: &str) {
    let output = luksmith(folder, arguments);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert!(text.contains(says), "{arguments:?}: {text}");
}

#[test]
fn the_exit_code_depends_on_the_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut bad = qcow2::good();
    put(&mut bad, 2048, b"/etc/passwd\n");
    be64(&mut bad, 8, 2048);
    be32(&mut bad, 16, 12);
    std::fs::write(folder.join("good"), qcow2::good()).unwrap();
    std::fs::write(folder.join("bad"), &bad).unwrap();

    let output = luksmith(folder, &["inspect", "--format", "qcow2", "good"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
    fails(
        folder,
        &["inspect", "--format", "qcow2", "bad"],
        10,
        "bad is rejected as qcow2",
    );
    fails(
        folder,
        &["inspect", "--format", "qcow2", "good", "--max-size", "1M"],
        6,
        "good is against the policy as qcow2",
    );
    fails(folder, &["inspect", "good"], 1, "--format");
    fails(folder, &["inspect", "--format", "auto", "good"], 1, "auto");

    let output = luksmith(folder, &["inspect", "--format", "qcow2", "bad", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["verdict"], "reject");
    assert_eq!(report["size"], 4 << 20);
    assert_eq!(report["encryption"], "none");
    assert_eq!(report["references"][0], r#""/etc/passwd\n""#);
    let finding = &report["findings"][0];
    assert_eq!(finding["id"], "qcow2.backing-file");
    assert_eq!(finding["severity"], "reject");
    assert_eq!(finding["offset"], 8);
    assert_eq!(finding["field"], "backing_file_offset");
}

#[test]
fn policies_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("disk"), luks::luks1()).unwrap();
    std::fs::write(folder.join("site"), "encryption = 'forbidden'").unwrap();
    std::fs::write(folder.join("none"), "encryption = 'perhaps'").unwrap();
    let inspect = ["inspect", "--format", "luks1", "disk", "--policy"];
    fails(
        folder,
        &[&inspect[..], &["site"]].concat(),
        6,
        "against the policy",
    );
    fails(
        folder,
        &[&inspect[..], &["none"]].concat(),
        1,
        "docs/inspect.md shows every member",
    );
    fails(
        folder,
        &[&inspect[..], &["missing"]].concat(),
        4,
        "cannot read missing",
    );
}

#[test]
fn links_are_followed_only_on_request_and_nothing_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("good"), qcow2::good()).unwrap();
    symlink("good", folder.join("link")).unwrap();
    symlink("missing", folder.join("dangling")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, folder.join("fifo"), rustix::fs::Mode::RUSR).unwrap();
    for command in [&["inspect", "--format", "qcow2"][..], &["identify"]] {
        let with = |more: &[&'static str]| [command, more].concat();
        fails(folder, &with(&["link"]), 4, "--follow-symlinks");
        fails(folder, &with(&["dangling"]), 4, "symbolic link");
        fails(folder, &with(&["fifo"]), 4, "fifo");
        fails(folder, &with(&["/dev/zero"]), 4, "character device");
        fails(folder, &with(&["."]), 4, "directory");
        let output = luksmith(folder, &with(&["link", "--follow-symlinks"]));
        assert_eq!(output.status.code(), Some(0));
    }
}

#[test]
fn identify_says_that_it_guesses() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("disk"), qcow2::good()).unwrap();
    std::fs::write(folder.join("zero"), [0; 4096]).unwrap();
    let text = |arguments: &[&str]| String::from_utf8(luksmith(folder, arguments).stdout).unwrap();
    assert_eq!(
        text(&["identify", "disk"]),
        "disk: looks like qcow2 at byte 0 (a guess)\n"
    );
    assert!(text(&["identify", "zero"]).contains("may be raw (a guess)"));
    let json: Value = serde_json::from_str(&text(&["identify", "disk", "--json"])).unwrap();
    assert_eq!(json["guess"], true);
    assert_eq!(json["looks_like"][0]["format"], "qcow2");
}
