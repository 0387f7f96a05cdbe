//! The completions, in the shells themselves: the keys are typed on a terminal.

use support::peers;

use crate::session::Session;
use crate::terminal::Terminal;

/// What is typed, and the arguments with which the program is then called.
const TYPED: [(&str, &str); 6] = [
    ("luksmith info di\t\n", "<info><disk.img>"),
    ("luksmith decr\tdi\t\n", "<decrypt><disk.img>"),
    ("luksmith key test disk.img --key-file=my\t\n", "my.key>"),
    (
        "luksmith key test disk.img --key fil\tmy\t\n",
        "<--key><file:my.key>",
    ),
    (
        "luksmith key test disk.img --key prom\t\n",
        "<--key><prompt>",
    ),
    (
        "luksmith key test disk.img --key=prom\t\n",
        "<--key=prompt>",
    ),
];

/// Types in a shell that has read the script for `shell`. `define` makes `luksmith` a function that
/// prints its arguments.
fn complete(shell: &str, words: &[&str], setup: &str, define: &str) {
    if peers::find(shell).is_none() {
        return;
    }
    let session = Session::new();
    session.write("script", session.ok(["completions", shell]).as_bytes());
    session.write("disk.img", b"");
    session.write("my.key", b"");
    let mut terminal = Terminal::of(&session, words, &[("TERM", "dumb"), ("HOME", ".")]);
    // The answers show that the shell has read all before.
    terminal.type_in(&format!("{setup}\n"));
    terminal.type_in("source ./script && echo rea''dy\n");
    terminal.expect("ready\r");
    terminal.type_in(&format!("{define}\n"));
    terminal.type_in("echo def''ined\n");
    terminal.expect("defined\r");
    for (keys, expected) in TYPED {
        terminal.type_in(keys);
        terminal.expect(expected);
    }
    terminal.type_in("exit\n");
    assert_eq!(terminal.exit_code(), 0);
}

const DEFINE: &str = "luksmith() { printf '<%s>' \"$@\"; echo; }";

#[test]
fn bash() {
    complete(
        "bash",
        &["bash", "--norc", "--noprofile", "-i"],
        "true",
        DEFINE,
    );
}

#[test]
fn zsh() {
    let setup = "autoload -Uz compinit && compinit -u -D";
    complete("zsh", &["zsh", "-f", "-i"], setup, DEFINE);
}

#[test]
fn fish() {
    let define = "function luksmith; printf '<%s>' $argv; echo; end";
    complete("fish", &["fish", "--no-config", "-i"], "true", define);
}

#[test]
fn every_form_of_a_source_is_completed() {
    let session = Session::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = session.ok(["completions", shell]);
        for form in [
            "prompt",
            "stdin",
            "file:",
            "fd:",
            "credential:",
            "command:",
            "libvirt:",
            "helper:",
            "generate:helper:",
        ] {
            let mut words = script.split([' ', '"', '\'', ';']);
            assert!(words.any(|word| word == form), "{shell}: {form}");
        }
    }
}
