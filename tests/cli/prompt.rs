//! Questions on a terminal. The program runs in a new session with a pseudo-terminal.

use rustix::termios::{LocalModes, tcgetattr};

use crate::session::{CHEAP, Session};
use crate::terminal::Terminal;

const GOOD: &str = "vB7kq plinth otter gelid\n";

fn create<'a>(extra: &[&'a str]) -> Vec<&'a str> {
    ["create", "disk.img", "--size", "1M"]
        .into_iter()
        .chain(CHEAP)
        .chain(extra.iter().copied())
        .collect()
}

#[test]
fn a_new_passphrase_is_asked_twice_and_rated() {
    let session = Session::new();
    let mut terminal = Terminal::run(&session, &create(&[]));
    terminal.expect("New passphrase for disk.img: ");
    terminal.type_in(GOOD);
    terminal.expect("again: ");
    terminal.type_in(GOOD);
    terminal.expect("luksmith: note: the passphrase is strong");
    assert_eq!(terminal.exit_code(), 0);
    assert!(!terminal.seen.contains("plinth"));

    let mut terminal = Terminal::run(&session, &["key", "test", "disk.img"]);
    terminal.expect("assphrase for disk.img: ");
    terminal.type_in("wrong\n");
    terminal.expect("try again");
    terminal.expect("assphrase for disk.img: ");
    terminal.type_in(GOOD);
    terminal.expect("keyslot 0 opens the volume");
    assert_eq!(terminal.exit_code(), 0);
}

/// Answers the question for a new passphrase and its repetition.
fn answer(terminal: &mut Terminal, first: &str, second: &str) {
    terminal.expect("New passphrase for disk.img: ");
    terminal.type_in(first);
    terminal.expect("again: ");
    terminal.type_in(second);
}

#[test]
fn two_different_answers_are_asked_for_again() {
    let session = Session::new();
    let mut terminal = Terminal::run(&session, &create(&[]));
    answer(&mut terminal, GOOD, "something else\n");
    terminal.expect("the two passphrases are not the same; try again");
    answer(&mut terminal, GOOD, GOOD);
    terminal.expect("disk.img: LUKS2");
    assert_eq!(terminal.exit_code(), 0);
    let test = session.run_with(["key", "test", "disk.img"], GOOD.as_bytes());
    assert_eq!(test.code(), 0, "{}", test.stderr());
}

#[test]
fn a_new_passphrase_is_asked_for_three_times_at_most() {
    let session = Session::new();
    let mut terminal = Terminal::run(&session, &create(&[]));
    for said in ["; try again", "; try again", "luksmith: error: "] {
        answer(&mut terminal, GOOD, "something else\n");
        terminal.expect(said);
    }
    assert_eq!(terminal.exit_code(), 2);
    assert!(!session.exists("disk.img"));
}

#[test]
fn a_weak_passphrase_needs_force_weak() {
    let session = Session::new();
    let mut terminal = Terminal::run(&session, &create(&[]));
    answer(&mut terminal, "password\n", "password\n");
    terminal.expect("passphrase is very weak");
    terminal.expect("try again");
    terminal.expect("luksmith: hint: choose several");
    answer(&mut terminal, GOOD, GOOD);
    terminal.expect("passphrase is strong");
    assert_eq!(terminal.exit_code(), 0);

    let session = Session::new();
    let mut terminal = Terminal::run(&session, &create(&["--force-weak"]));
    answer(&mut terminal, "password\n", "password\n");
    terminal.expect("passphrase is very weak");
    terminal.expect("disk.img: LUKS2");
    assert_eq!(terminal.exit_code(), 0);
}

#[test]
fn the_source_prompt_is_the_terminal_and_never_a_pipe() {
    let session = Session::with_volume();
    let program = env!("CARGO_BIN_EXE_luksmith");
    let line = format!("cat key | exec '{program}' key test disk.img --key prompt");
    let mut terminal = Terminal::of(&session, &["sh", "-c", &line], &[]);
    terminal.expect("assphrase for disk.img: ");
    let key = String::from_utf8(session.read("key")).unwrap();
    terminal.type_in(&format!("{key}\n"));
    terminal.expect("keyslot 0 opens the volume");
    assert_eq!(terminal.exit_code(), 0);

    // Without --key a pipe is read, as by cryptsetup.
    let test = session.run_with(["key", "test", "disk.img"], key.as_bytes());
    assert_eq!(test.code(), 0, "{}", test.stderr());

    let without = std::process::Command::new("setsid")
        .args([
            "--wait", program, "key", "test", "disk.img", "--key", "prompt",
        ])
        .current_dir(session.folder())
        .stdin(std::fs::File::open(session.path("key")).unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&without.stderr);
    assert!(
        said.contains("no terminal to ask on") && said.contains("--key stdin"),
        "{said}"
    );
    assert_eq!(without.status.code(), Some(1));
}

#[test]
fn a_loss_is_asked_for_by_name() {
    let session = Session::with_volume();
    for (answer, code) in [("yes\n", 1), ("erase\n", 0)] {
        let mut terminal = Terminal::run(&session, &["header", "erase", "disk.img"]);
        terminal.expect("luksmith: warning: the only keyslot of disk.img");
        terminal.expect("Type erase to go on, anything else to stop: ");
        terminal.type_in(answer);
        assert_eq!(terminal.exit_code(), code);
    }
    session
        .run(["key", "test", "disk.img", "--key-file", "key"])
        .fails(2, "no keyslot is in use");
}

#[test]
fn ctrl_c_at_the_question_for_a_passphrase_ends_it() {
    let session = Session::with_volume();
    for args in [&create(&[])[..], &["key", "add", "disk.img"]] {
        let mut terminal = Terminal::run(&session, args);
        let args: Vec<&str> = args.to_vec();
        if args[0] == "create" {
            // The file exists.
            terminal.expect("Type overwrite to go on");
            terminal.type_in("overwrite\n");
        }
        terminal.expect("assphrase for disk.img: ");
        terminal.type_in("secr\u{3}");
        terminal.expect("interrupted");
        assert_eq!(terminal.exit_code(), 130, "{args:?}");
        let modes = tcgetattr(&terminal.keyboard).unwrap().local_modes;
        let usual = LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        assert!(modes.contains(usual), "{modes:?}");
        session.ok(["key", "test", "disk.img", "--key-file", "key"]);
    }
}

#[test]
fn ctrl_c_at_the_question_about_a_loss_ends_it_and_releases_the_image() {
    let session = Session::with_volume();
    let mut terminal = Terminal::run(&session, &["header", "erase", "disk.img"]);
    terminal.expect("Type erase to go on");
    terminal.type_in("era\u{3}");
    terminal.expect("interrupted");
    assert_eq!(terminal.exit_code(), 130);
    session.ok([
        "key",
        "change",
        "disk.img",
        "--key-file",
        "key",
        "--new-key-file",
        "key",
    ]
    .into_iter()
    .chain(CHEAP));
}
