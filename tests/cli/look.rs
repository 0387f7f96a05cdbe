//! How the output looks: colours, the width of tables, spinners, and how much is said.

use std::process::Command;

use crate::session::{CHEAP, Session};
use crate::terminal::Terminal;

const ESCAPE: char = '\u{1b}';

/// The program with these environment variables, and no others that concern colours.
fn command(session: &Session, variables: &[(&str, &str)], args: &[&str]) -> Command {
    let mut command = session.command(args);
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS"] {
        command.env_remove(name);
    }
    command.env("TERM", "xterm").envs(variables.iter().copied());
    command
}

#[test]
fn words_are_coloured_where_the_user_wants_it() {
    let session = Session::new();
    let fails = ["info", "no-such.img"];
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str], bool, bool);
    let cases: [Case<'_>; 8] = [
        (&[], &[], false, true),
        (&[], &["--color", "never"], false, false),
        (&[("NO_COLOR", "1")], &["--color", "always"], true, true),
        (&[("NO_COLOR", "1")], &[], false, false),
        (&[("TERM", "dumb")], &[], false, false),
        (&[("CLICOLOR", "0")], &[], false, false),
        (&[("CLICOLOR_FORCE", "1")], &[], true, true),
        (
            &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")],
            &[],
            false,
            false,
        ),
    ];
    for (variables, options, in_pipe, on_terminal) in cases {
        let args = [&fails[..], options].concat();
        let piped = command(&session, variables, &args).output().unwrap();
        let said = String::from_utf8(piped.stderr).unwrap();
        assert_eq!(
            said.contains(ESCAPE),
            in_pipe,
            "{variables:?} {options:?}: {said:?}"
        );
        let words = [&[env!("CARGO_BIN_EXE_luksmith")][..], &args].concat();
        let said = Terminal::of(&session, &words, variables).rest();
        assert!(said.contains("no-such.img"), "{said:?}");
        assert_eq!(
            said.contains(ESCAPE),
            on_terminal,
            "{variables:?} {options:?}: {said:?}"
        );
    }
    // Also errors of the arguments, which are found before the options are known.
    for (option, coloured) in [("--color=always", true), ("--color=never", false)] {
        let ran = command(&session, &[], &["info", option]).output().unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(said.contains(ESCAPE), coloured, "{said:?}");
    }
}

#[test]
fn tables_fit_the_terminal() {
    let session = Session::with_volume();
    session.ok([
        "key",
        "add",
        "disk.img",
        "--key-file",
        "key",
        "--new-key-file",
        "key",
    ]
    .into_iter()
    .chain([
        "--pbkdf",
        "argon2id",
        "--pbkdf-memory",
        "1048",
        "--pbkdf-force-iterations",
        "4",
    ]));
    let widest = |columns: &str, args: &[&str]| {
        let ran = command(&session, &[("COLUMNS", columns)], args)
            .output()
            .unwrap();
        assert!(ran.status.success());
        let text = String::from_utf8(ran.stdout).unwrap();
        text.lines().map(|line| line.chars().count()).max().unwrap()
    };
    for args in [
        &["key", "list", "disk.img"][..],
        &["verify-ciphertext", "disk.img"],
    ] {
        assert!(widest("200", args) > 60, "{args:?} is narrow anyway");
        for columns in ["60", "80"] {
            assert!(
                widest(columns, args) <= columns.parse().unwrap(),
                "{args:?} in {columns}"
            );
        }
    }
}

#[test]
fn a_slow_key_derivation_shows_a_spinner_on_a_terminal() {
    let session = Session::new();
    session.write("key", b"a passphrase");
    session.ok([
        "create",
        "slow.img",
        "--size",
        "1M",
        "--key-file",
        "key",
        "--pbkdf",
        "pbkdf2",
    ]
    .into_iter()
    .chain(["--pbkdf-force-iterations", "10000000"]));
    let test = ["key", "test", "slow.img", "--key-file", "key"];
    let words = [&[env!("CARGO_BIN_EXE_luksmith")][..], &test].concat();
    let mut terminal = Terminal::of(&session, &words, &[]);
    terminal.expect("deriving the key");
    terminal.expect("keyslot 0 opens the volume");
    let quiet = [&words[..], &["-q"]].concat();
    let opens = "keyslot 0 opens the volume";
    for (words, variables, line) in [(&quiet, &[][..], ""), (&words, &[("TERM", "dumb")], opens)] {
        let said = Terminal::of(&session, words, variables).rest();
        assert_eq!(said.trim_end(), line, "{variables:?}");
    }
}

#[test]
fn more_and_less_is_said_on_demand() {
    let session = Session::with_volume();
    let decrypt = ["decrypt", "disk.img", "-", "--key-file", "key", "-v"];
    let said = session.run(decrypt).stderr();
    for part in [
        "keyslot 0 opens: pbkdf2-sha256 with 1000 iterations took ",
        "aes-xts-plain64, ",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert!(said.contains("-byte sectors, kernel "), "{said}");

    session.write("newline", b"one\n");
    let add = [
        "key",
        "add",
        "disk.img",
        "--key-file",
        "key",
        "--new-key-file",
        "newline",
    ];
    let noted = session.run(add.into_iter().chain(CHEAP));
    assert!(
        noted.stderr().contains("luksmith: note: "),
        "{}",
        noted.stderr()
    );
    let quiet = session.run(add.into_iter().chain(CHEAP).chain(["--quiet"]));
    assert_eq!((quiet.code(), quiet.stderr().as_str()), (0, ""));
    let create = ["create", "new.img", "--size", "1M", "--key-file", "key"];
    let quiet = session.run(create.into_iter().chain(CHEAP).chain(["-q"]));
    assert_eq!((quiet.code(), quiet.stdout().as_str()), (0, ""));
    session
        .run(["info", "no-such.img", "-q"])
        .fails(4, "no-such.img");
    session
        .run(["info", "disk.img", "-q", "-v"])
        .fails(1, "cannot be used with");
}

#[test]
fn the_tokens_are_a_line_each() {
    let session = Session::with_volume();
    for kind in ["one", "two"] {
        let token = format!("{{\"type\":\"{kind}\",\"keyslots\":[]}}");
        session.write("token", token.as_bytes());
        let import = ["token", "import", "disk.img", "--json-file", "token"];
        assert_eq!(session.run(import).code(), 0);
    }
    let shown = session.run(["token", "list", "disk.img"]).stdout();
    let rows = shown.lines().map(|line| {
        let words: Vec<_> = line.split_whitespace().take(2).collect();
        words.join(" ")
    });
    assert_eq!(rows.collect::<Vec<_>>(), ["token type", "0 one", "1 two"]);
}

#[test]
fn a_raw_volume_with_the_name_of_an_image_is_noted() {
    let session = Session::new();
    let create = |args: &str| {
        let line = format!("create {args} --size 1M --key-file key");
        session.run(line.split(' ').chain(CHEAP)).stderr()
    };
    let note = "note: raw.qcow2 is a raw volume";
    let said = create("raw.qcow2");
    assert!(
        said.contains(note) && said.contains("--format qcow2"),
        "{said}"
    );
    assert!(!create("disk.img").contains("raw volume"));
    assert!(!create("image.qcow2 --format qcow2").contains("raw volume"));
}
