//! Passphrases: their sources and keyslots. No part of a passphrase is ever printed.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::process::Command;

use serde_json::Value;

use crate::session::{CHEAP, Session};

#[test]
fn two_lines_of_stdin_change_a_passphrase() {
    let session = Session::new();
    let create = ["create", "disk.img", "--size", "1M", "--key", "stdin"];
    let ran = session.run_with(create.iter().chain(&CHEAP), b"old words\nignored");
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    let change = [
        "key",
        "change",
        "disk.img",
        "--key",
        "stdin",
        "--new-key",
        "stdin",
    ];
    let ran = session.run_with(change.iter().chain(&CHEAP), b"old words\nnew words\n");
    assert_eq!(
        (ran.code(), ran.stdout().as_str()),
        (0, "keyslot 0 changed\n"),
        "{}",
        ran.stderr()
    );
    session
        .run_with(["key", "test", "disk.img"], b"old words\n")
        .fails(2, "no keyslot opens with this passphrase");
    assert_eq!(
        session
            .run_with(["key", "test", "disk.img"], b"new words\n")
            .code(),
        0
    );
}

#[test]
fn one_of_two_keyslots_with_the_same_passphrase_is_removed() {
    let session = Session::with_volume();
    let add = [
        "key",
        "add",
        "disk.img",
        "--key-file",
        "key",
        "--new-key-file",
        "key",
    ];
    session.ok(add.iter().chain(&CHEAP));
    session.ok(["key", "remove", "disk.img", "--key-file", "key"]);
    let test = ["key", "test", "disk.img", "--key-file", "key"];
    assert_eq!(session.ok(test), "keyslot 1 opens the volume\n");
    let help = session.ok(["key", "remove", "--help"]);
    assert!(
        help.contains("several keyslots have the same passphrase"),
        "{help}"
    );
}

#[test]
fn a_key_file_is_whole_bytes_and_a_line_is_not() {
    let session = Session::new();
    session.write("newline", b"words\n");
    let create = [
        "create",
        "disk.img",
        "--size",
        "1M",
        "--key-file",
        "newline",
    ];
    session.ok(create.iter().chain(&CHEAP));
    session
        .run_with(["key", "test", "disk.img"], b"words\n")
        .fails(2, "no keyslot opens");
    // It is not tried, which would take as long again.
    session
        .run_with(["key", "test", "disk.img"], b"words\n")
        .fails(2, "hint: a key file that ends with a newline");
    assert_eq!(
        session
            .run_with(["key", "test", "disk.img", "--key-file", "-"], b"words\n")
            .code(),
        0
    );
    session.write("inside", b"xxwords\nyy");
    session.ok([
        "key",
        "test",
        "disk.img",
        "--key",
        "file:inside,offset=2,size=6",
    ]);
    session.ok([
        "key",
        "test",
        "disk.img",
        "--key-file",
        "inside",
        "--keyfile-offset",
        "2",
        "--keyfile-size",
        "6",
    ]);
}

#[test]
fn all_of_stdin_serves_one_passphrase_only() {
    let session = Session::with_volume();
    let args = [
        "key",
        "change",
        "disk.img",
        "--key-file",
        "-",
        "--new-key",
        "stdin",
    ];
    session
        .run_with(args, b"secret")
        .fails(1, "luksmith: hint: --key stdin --new-key stdin");
}

#[test]
fn data_on_stdin_leaves_no_room_for_a_passphrase() {
    let session = Session::new();
    let args = ["encrypt", "-", "disk.img", "--key", "stdin"];
    session
        .run_with(args.iter().chain(&CHEAP), &[0; 4096])
        .fails(1, "standard input carries the data");
    assert!(!session.exists("disk.img"));
}

#[test]
fn a_program_prints_the_key() {
    use std::os::unix::fs::PermissionsExt;
    let session = Session::with_volume();
    let program = session.path("program");
    let source = format!("command:{}", program.display());
    let write = |text: &str, mode| {
        session.write("program", format!("#!/bin/sh\n{text}\n").as_bytes());
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let test = || session.run(["-vv", "key", "test", "disk.img", "--key", &source]);
    write("printf '\\033[31m one\\ntwo' >&2; printf secret", 0o700);
    let ran = test();
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    // What it says is shown with escapes, line by line; the secret is nowhere.
    let said = ran.stderr();
    assert!(said.contains("program: \\u{1b}[31m one\n"), "{said}");
    assert!(
        said.contains("program: two\n") && !said.contains("secret"),
        "{said}"
    );
    // All bytes count, as those of a file.
    write("echo secret", 0o700);
    test().fails(2, "without the newline at its end, the key opens");
    write("printf other; exit 1", 0o700);
    test().fails(4, "it failed with exit code 1");
    write("printf secret", 0o702);
    test().fails(2, "other users can write to");
    test().fails(2, "chmod go-w");
    let relative = session.run(["key", "test", "disk.img", "--key", "command:program"]);
    relative.fails(1, "absolute path");
    // A new passphrase, too.
    write("printf another", 0o700);
    let add = [
        "key",
        "add",
        "disk.img",
        "--key-file",
        "key",
        "--new-key",
        &source,
    ];
    session.ok(add.iter().chain(&CHEAP));
    assert_eq!(test().code(), 0);
}

#[test]
fn no_secret_is_ever_printed() {
    let session = Session::new();
    let secret = "hunter2-plinth-gelid";
    session.write("key", secret.as_bytes());
    let runs: [&[&str]; 6] = [
        &[
            "-vv",
            "create",
            "disk.img",
            "--size",
            "1M",
            "--key-file",
            "key",
        ],
        &["-vv", "key", "test", "disk.img", "--key-file", "key"],
        &[
            "-vv",
            "key",
            "add",
            "disk.img",
            "--key-file",
            "key",
            "--new-key-file",
            "other",
        ],
        &[
            "-vv",
            "key",
            "volume-key",
            "disk.img",
            "--key-file",
            "key",
            "--out",
            "vk",
            "--force",
            "volume-key",
        ],
        &["-vv", "info", "disk.img", "--json"],
        &["-vv", "info", "disk.img", "--dump-json-metadata"],
    ];
    let mut printed = Vec::new();
    for args in runs {
        let derives = args.iter().any(|arg| ["create", "add"].contains(arg));
        let mut command = session.command(args.iter().chain(CHEAP.iter().filter(|_| derives)));
        let output = command.env("LUKSMITH_LOG", "trace").output().unwrap();
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        printed.extend(output.stdout);
        printed.extend(output.stderr);
    }
    // A passphrase in the wrong place of the command line is not printed either.
    printed.extend(
        session
            .run(["key", "test", "disk.img", "--key", secret])
            .0
            .stderr,
    );
    let volume_key = session.read("vk");
    let hexadecimal = hex::encode(&volume_key);
    let text = String::from_utf8_lossy(&printed).into_owned();
    assert!(text.contains("\"uuid\""), "the runs printed something");
    assert!(
        !text.contains(secret) && !text.contains(&hexadecimal[..32]),
        "{text}"
    );
    assert!(
        !printed
            .windows(16)
            .any(|window| window == &volume_key[..16])
    );
}

#[test]
fn slots_priorities_and_unbound_keys() {
    let session = Session::with_volume();
    let add = [
        "key",
        "add",
        "disk.img",
        "--key-file",
        "key",
        "--new-key-file",
        "other",
        "--keyslot",
        "5",
    ];
    assert_eq!(session.ok(add.iter().chain(&CHEAP)), "keyslot 5 added\n");
    session
        .run(add.iter().chain(&CHEAP))
        .fails(5, "keyslot 5 is in use");
    session.ok([
        "key",
        "priority",
        "disk.img",
        "--keyslot",
        "5",
        "--priority",
        "ignore",
    ]);
    session
        .run(["key", "test", "disk.img", "--key-file", "other"])
        .fails(2, "no keyslot opens");
    session.ok([
        "key",
        "test",
        "disk.img",
        "--key-file",
        "other",
        "--keyslot",
        "5",
    ]);
    session.ok([
        "key",
        "priority",
        "disk.img",
        "--keyslot",
        "0",
        "--priority",
        "ignore",
    ]);
    let ignored = session.run(["key", "test", "disk.img", "--key-file", "key"]);
    ignored.fails(2, "all keyslots in use have the priority ignore");
    ignored.fails(2, "hint: --keyslot N tries one of them");
    let unbound = [
        "key",
        "add",
        "disk.img",
        "--unbound",
        "--key-size",
        "256",
        "--new-key-file",
        "other",
    ];
    assert_eq!(
        session.ok(unbound.iter().chain(&CHEAP)),
        "keyslot 1 added\n"
    );
    let list: serde_json::Value =
        serde_json::from_str(&session.ok(["key", "list", "disk.img", "--json"])).unwrap();
    let slots: Vec<_> = list["keyslots"]
        .as_array()
        .unwrap()
        .iter()
        .map(|slot| (&slot["keyslot"], &slot["bound"]))
        .collect();
    assert_eq!(
        format!("{slots:?}"),
        "[(Number(0), Bool(true)), (Number(1), Bool(false)), (Number(5), Bool(true))]"
    );
    session
        .run(["key", "test", "disk.img", "--keyslot", "9"])
        .fails(1, "luksmith info IMAGE");
}

#[test]
fn a_cost_over_the_limit_names_the_flag() {
    let session = Session::new();
    let create = [
        "create",
        "disk.img",
        "--size",
        "1M",
        "--key-file",
        "key",
        "--pbkdf",
        "pbkdf2",
    ];
    session.ok(create
        .into_iter()
        .chain(["--pbkdf-force-iterations", "3000"]));
    let test = ["key", "test", "disk.img", "--key-file", "key"];
    let ran = session.run(test.into_iter().chain(["--max-kdf-iterations", "2000"]));
    ran.fails(3, "luksmith: hint: --max-kdf-iterations raises the limit");
    session.ok(test.into_iter().chain(["--max-kdf-iterations", "3000"]));
    let argon2 = [
        "create",
        "a.img",
        "--size",
        "1M",
        "--key-file",
        "key",
        "--pbkdf-force-iterations",
        "4",
        "--pbkdf-memory",
        "64",
    ];
    session.ok(argon2);
    let test = ["key", "test", "a.img", "--key-file", "key"];
    for (flag, low) in [
        ("--max-kdf-memory", "32K"),
        ("--max-kdf-work", "64K"),
        ("--max-kdf-lanes", "1"),
    ] {
        session
            .run(test.into_iter().chain([flag, low]))
            .fails(3, &format!("luksmith: hint: {flag} raises the limit"));
    }
    session.ok(test);
}

#[test]
fn a_newline_at_the_end_of_a_key_is_named() {
    let session = Session::new();
    session.write("newline", b"secret\n");
    session.write("wrong", b"wrong\n");
    let create = ["create", "disk.img", "--size", "1M", "--key-file"];
    let ran = session.run(create.iter().chain(&["newline"]).chain(&CHEAP));
    assert!(
        ran.stderr().contains("ends with a newline"),
        "{}",
        ran.stderr()
    );
    session.ok(["key", "test", "disk.img", "--key-file", "newline"]);

    let again = ["--force", "overwrite"];
    let ran = session.run(create.iter().chain(&["key"]).chain(&CHEAP).chain(&again));
    assert!(!ran.stderr().contains("newline"), "{}", ran.stderr());
    let test = |key| session.run(["key", "test", "disk.img", "--key-file", key]);
    test("newline").fails(2, "without the newline at its end, the key opens");
    test("newline").fails(2, "--keyfile-size");
    test("wrong").fails(2, "without the newline at its end it does not open either");
    let ran = test("other");
    ran.fails(2, "no keyslot opens");
    assert!(!ran.stderr().contains("newline"), "{}", ran.stderr());
    session.ok([
        "key",
        "test",
        "disk.img",
        "--key-file",
        "newline",
        "--keyfile-size",
        "6",
    ]);
}

/// The keyslot that is removed is the one that was there when the user was asked.
#[test]
fn a_keyslot_that_changes_during_the_question_is_not_removed() {
    let session = Session::with_volume();
    session.write("other", b"other words");
    let add = "key add disk.img --key-file key --new-key-file other";
    session.ok(add.split(' ').chain(CHEAP));
    let at = second_area(&session);
    let fifo = session.path("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let remove = "key remove disk.img --keyslot 1 --key-file fifo";
    let remove = session.command(remove.split(' ')).spawn().unwrap();
    // This waits until the program has looked at the keyslot, and reads the passphrase.
    let mut passphrase = File::options().write(true).open(fifo).unwrap();
    let disk = File::options().write(true).open(session.path("disk.img"));
    disk.unwrap().write_all_at(&[7; 512], at).unwrap();
    let before = session.read("disk.img");
    passphrase.write_all(&session.read("key")).unwrap();
    drop(passphrase);
    let removed = remove.wait_with_output().unwrap();
    let said = String::from_utf8(removed.stderr).unwrap();
    assert_eq!(removed.status.code(), Some(5), "{said}");
    assert!(said.contains("keyslot 1 is not the one"), "{said}");
    assert!(session.read("disk.img") == before, "written");
}

/// The place of the key material of keyslot 1.
fn second_area(session: &Session) -> u64 {
    let header = session.ok(["info", "disk.img", "--dump-json-metadata"]);
    let header: Value = serde_json::from_str(&header).unwrap();
    let offset = &header["keyslots"]["1"]["area"]["offset"];
    offset.as_str().unwrap().parse().unwrap()
}
