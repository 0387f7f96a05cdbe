//! The help, the manual pages, and the answers to arguments that are not understood.

use std::process::{Command, Stdio};

use support::peers;

use crate::session::Session;

/// The longest output of `-h`: what a large window shows at once.
const SCREEN: usize = 40;
const COLUMNS: usize = 80;

/// All commands, as `--help` lists them, and the program itself as the first one.
pub(crate) fn commands(session: &Session) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    let mut next = 0;
    while let Some(path) = all.get(next).cloned() {
        next += 1;
        let help = session.ok(path.iter().map(String::as_str).chain(["--help"]));
        let listed = help
            .lines()
            .skip_while(|line| *line != "Commands:")
            .skip(1)
            .take_while(|line| !line.is_empty());
        // A name begins in the third column. Text further right continues a description.
        let entries = listed.filter_map(|line| line.strip_prefix("  "));
        let entries = entries.filter(|entry| !entry.starts_with(' '));
        let names = entries.filter_map(|entry| entry.split_whitespace().next());
        for name in names.filter(|name| *name != "help") {
            all.push([path.clone(), vec![name.to_owned()]].concat());
        }
    }
    assert!(all.len() > 45, "only {} commands were found", all.len());
    all
}

/// What the program prints for `option` in a window of 80 columns.
fn help(session: &Session, path: &[String], option: &str) -> String {
    let ran = Command::new(env!("CARGO_BIN_EXE_luksmith"))
        .args(path)
        .arg(option)
        .current_dir(session.folder())
        .env("COLUMNS", COLUMNS.to_string())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .unwrap();
    assert!(ran.status.success(), "{path:?}");
    String::from_utf8(ran.stdout).unwrap()
}

/// The arguments of a help text, each with the heading above it.
fn listed(help: &str) -> Vec<(String, String)> {
    let mut heading = "";
    let mut all = Vec::new();
    for line in help.lines() {
        if line == "Examples:" {
            break;
        }
        if let Some(title) = line.strip_suffix(':').filter(|line| !line.starts_with(' ')) {
            heading = title;
        }
        let indent = line.len() - line.trim_start().len();
        let entry = line.trim_start();
        let option = entry.starts_with('-') && (indent == 2 || indent == 6);
        let positional = indent == 2 && (entry.starts_with('<') || entry.starts_with('['));
        if option || positional {
            let words = entry.split([' ', ',']).filter(|word| !word.is_empty());
            let name = words.take_while(|word| word.starts_with(['-', '<', '[']));
            let name = name
                .filter(|word| word.starts_with("--") || positional)
                .last();
            let name = name.unwrap_or(entry).trim_end_matches("...");
            all.push((heading.to_owned(), name.to_owned()));
        }
    }
    all
}

/// The headings besides `Arguments` and `Options`, and what belongs below them.
const HEADINGS: &[(&str, &[&str])] = &[
    (
        "Passphrase",
        &[
            "--key",
            "--key-file",
            "--keyfile-size",
            "--keyfile-offset",
            "--force-weak",
            "--helper-dir",
            "--master-key",
        ],
    ),
    (
        "New passphrase",
        &[
            "--new-key",
            "--new-key-file",
            "--new-keyfile-size",
            "--new-keyfile-offset",
            "--force-weak",
        ],
    ),
    (
        "Key derivation",
        &[
            "--pbkdf",
            "--iter-time",
            "--pbkdf-force-iterations",
            "--pbkdf-memory",
            "--pbkdf-parallel",
        ],
    ),
    (
        "Format",
        &[
            "--format",
            "--cluster-size",
            "--type",
            "--cipher",
            "--key-size",
            "--hash",
            "--sector-size",
            "--label",
            "--subsystem",
            "--uuid",
            "--keyslot",
            "--offset",
            "--luks2-metadata-size",
            "--luks2-keyslots-size",
            "--header",
            "--volume-key-file",
            "--preallocate",
        ],
    ),
    (
        "Limits on the key derivation that a header states",
        &[
            "--max-kdf-memory",
            "--max-kdf-work",
            "--max-kdf-lanes",
            "--max-kdf-iterations",
        ],
    ),
    (
        "Token",
        &[
            "--token",
            "--token-type",
            "--recovery-key",
            "--out",
            "--tang",
            "--tang-thumbprint",
            "--tang-url",
            "--tpm2",
            "--tpm2-device",
            "--tpm2-pcrs",
            "--tpm2-pin",
        ],
    ),
    ("Storage on a server", &["--timeout", "--connections"]),
    (
        "Where clients connect",
        &["--socket", "--listen", "--socket-mode", "--socket-group"],
    ),
    (
        "Which clients can connect",
        &[
            "--allow-uid",
            "--tls-cert",
            "--tls-key",
            "--tls-client-ca",
            "--tls-dir",
            "--insecure",
        ],
    ),
    (
        "Disk",
        &[
            "--target",
            "--bus",
            "--serial",
            "--cache",
            "--io",
            "--discard",
            "--read-only",
            "--shareable",
            "--keep-owner",
        ],
    ),
    (
        "Encryption",
        &[
            "--format",
            "--header",
            "--secret",
            "--type",
            "--engine",
            "--served",
            "--vhost-user",
            "--export",
            "--emulator-user",
            "--monitor",
            "--ceph-config",
            "--login",
            "--login-secret",
        ],
    ),
    (
        "Output",
        &["--verbose", "--quiet", "--json", "--color", "--progress"],
    ),
];

#[test]
fn each_argument_is_below_its_heading() {
    let session = Session::new();
    // An option that has one heading in all commands.
    let only = |name: &str| {
        [
            "--connections",
            "--helper-dir",
            "--key",
            "--keyfile-size",
            "--max-kdf-work",
            "--pbkdf",
            "--progress",
        ]
        .contains(&name)
    };
    let below = |heading: &str, name: &str| match heading {
        "Arguments" => !name.starts_with('-'),
        "Options" => name.starts_with("--") && !only(name),
        _ => HEADINGS
            .iter()
            .any(|(known, names)| *known == heading && names.contains(&name)),
    };
    for path in commands(&session) {
        let all = listed(&help(&session, &path, "--help"));
        assert!(
            all.iter().any(|(_, name)| name == "--verbose"),
            "{path:?}: {all:?}"
        );
        for (heading, name) in all {
            assert!(below(&heading, &name), "{path:?}: {name} below {heading:?}");
        }
    }
}

#[test]
fn the_short_help_fits_a_screen_and_the_long_one_has_examples() {
    let session = Session::new();
    for path in commands(&session) {
        let short = help(&session, &path, "-h");
        let lines: Vec<&str> = short.lines().collect();
        assert!(lines.len() <= SCREEN, "{path:?}: {} lines", lines.len());
        // Only the usage is not wrapped.
        for line in lines.iter().filter(|line| !line.starts_with("Usage: ")) {
            assert!(line.chars().count() <= COLUMNS, "{path:?}: {line}");
        }
        let long = help(&session, &path, "--help");
        assert!(long.contains("\nExamples:\n  "), "{path:?}");
    }
}

#[test]
fn without_arguments_the_program_says_where_to_begin() {
    let session = Session::new();
    let ran = session.run([] as [&str; 0]);
    assert_eq!((ran.code(), ran.stdout().as_str()), (1, ""));
    assert!(
        ran.stderr().contains("luksmith -h") && !ran.stderr().contains("error"),
        "{}",
        ran.stderr()
    );
    assert!(ran.stderr().lines().count() < 20);
    let ran = session.run(["key"]);
    assert_eq!((ran.code(), ran.stdout().as_str()), (1, ""));
    assert!(ran.stderr().contains("volume-key"), "{}", ran.stderr());
}

#[test]
fn commands_of_other_programs_are_answered() {
    let session = Session::new();
    for (verb, answer) in [
        ("luksFormat", "luksmith create IMAGE --size 10G"),
        ("open", "luksmith serve IMAGE --socket PATH"),
        ("luksOpen", "luksmith decrypt IMAGE PLAIN"),
        ("close", "luksmith serve IMAGE"),
        ("status", "luksmith serve IMAGE"),
        ("luksDump", "luksmith info"),
        ("isLuks", "luksmith info"),
        ("luksUUID", "luksmith info"),
        ("luksAddKey", "luksmith key add"),
        ("luksRemoveKey", "luksmith key remove"),
        ("luksKillSlot", "key remove --keyslot N"),
        ("luksChangeKey", "luksmith key change"),
        ("luksConvertKey", "luksmith key change"),
        ("luksHeaderBackup", "luksmith header backup"),
        ("luksHeaderRestore", "header restore"),
        ("repair", "luksmith header repair"),
        ("erase", "luksmith header erase"),
        ("luksErase", "luksmith header erase"),
        ("amend", "luksmith key add"),
        ("check", "luksmith inspect --format FORMAT"),
        ("secret-define", "luksmith libvirt secret define"),
        ("secret-set-value", "luksmith libvirt secret define, set"),
        ("vol-create", "luksmith libvirt provision"),
        ("attach-device", "luksmith libvirt attach"),
    ] {
        let ran = session.run([verb, "disk.img", "--verbose"]);
        assert_eq!((ran.code(), ran.stdout().as_str()), (1, ""), "{verb}");
        assert!(
            ran.stderr().contains(&format!("`{verb}` is a command of ")),
            "{}",
            ran.stderr()
        );
        assert!(ran.stderr().contains(answer), "{verb}: {}", ran.stderr());
    }
    let ran = session.run(["craete", "disk.img"]);
    assert!(
        ran.stderr().contains("similar subcommand exists: 'create'"),
        "{}",
        ran.stderr()
    );
}

#[test]
fn the_short_h_beside_other_arguments_is_not_taken_for_success() {
    let session = Session::new();
    for (args, said) in [
        (
            &["create", "x", "-h", "sha512", "--size", "1M"][..],
            "-h sha512 is --hash sha512",
        ),
        (
            &["create", "x", "--size", "1M", "-hsha512"],
            "-h sha512 is --hash sha512",
        ),
        (&["create", "x", "-h"], "-h HASH is --hash HASH"),
        (
            &["key", "add", "x", "-h", "sha512"],
            "which this command does not take",
        ),
    ] {
        let ran = session.run(args.iter().copied());
        assert_eq!((ran.code(), ran.stdout().as_str()), (1, ""), "{args:?}");
        assert!(ran.stderr().contains(said), "{args:?}: {}", ran.stderr());
        assert!(!session.exists("x"));
    }
    for args in [
        &["create", "-h"][..],
        &["-h"],
        &["key", "add", "-h"],
        &["create", "x", "--help"],
    ] {
        session.ok(args.iter().copied());
    }
}

#[test]
fn manual_pages_name_only_pages_that_exist() {
    let session = Session::new();
    session.ok(["man", "--out", "man"]);
    let mut pages = 0;
    for entry in std::fs::read_dir(session.path("man")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        pages += 1;
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(text.contains(".SH NAME\n"), "{name}");
        assert!(
            text.contains(".SH EXAMPLES\n.EX\n\\&luksmith "),
            "{name}: {text}"
        );
        assert_eq!(
            text.matches("\n.EX\n").count(),
            text.matches("\n.EE\n").count(),
            "{name}"
        );
        for word in text
            .split_whitespace()
            .filter_map(|word| word.strip_suffix("(1)"))
        {
            let page = word.replace('\\', "");
            assert!(session.exists(&format!("man/{page}.1")), "{name}: {page}");
        }
        let synopsis = text.split(".SH SYNOPSIS\n").nth(1).unwrap();
        let synopsis = synopsis.split(".SH").next().unwrap().replace('\\', "");
        assert!(synopsis.contains("[--progress HOW]"), "{name}: {synopsis}");
        if name == "luksmith-create" {
            assert!(synopsis.contains("[--size SIZE]"), "{synopsis}");
            assert!(synopsis.trim_end().ends_with(" IMAGE"), "{synopsis}");
        }
        if name == "luksmith-key-priority" {
            assert!(synopsis.contains(" --priority WHEN "), "{synopsis}");
        }
    }
    assert_eq!(pages, commands(&session).len());
    // The formatter has no complaint.
    if let Some(groff) = peers::find("groff") {
        let checked = Command::new(groff)
            .args([
                "-man",
                "-Kutf8",
                "-Tutf8",
                "-ww",
                "-z",
                "man/luksmith-create.1",
                "man/luksmith-verify-ciphertext.1",
            ])
            .current_dir(session.folder())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&checked.stderr), "");
    }
}

#[test]
fn options_of_cryptsetup_are_answered() {
    let session = Session::new();
    for (args, hint) in [
        ("key add x -y", "is asked for twice"),
        ("key test x -t 5", "`timeout 60 luksmith"),
        ("decrypt x y --tries 1", "three times"),
        ("decrypt x y --batch-mode", "--force WHAT"),
        ("decrypt x y --readonly", "`luksmith serve --read-only`"),
        ("info x -d key", "needs no passphrase"),
        ("info x --key-file key", "needs no passphrase"),
        (
            "info x --dump-volume-key",
            "`luksmith key volume-key IMAGE --out FILE`",
        ),
    ] {
        let ran = session.run(args.split(' '));
        ran.fails(1, hint);
        assert!(
            !ran.stderr().contains("as a value"),
            "{args}: {}",
            ran.stderr()
        );
    }
}

/// The same name permits something else in each command.
#[test]
fn what_is_forced_is_explained_for_the_command() {
    let session = Session::new();
    for (path, what) in [
        (
            "key remove",
            "unproven:     remove keyslot N without a passphrase",
        ),
        (
            "header repair",
            "unproven:          make a repair that no checksum proves",
        ),
        (
            "header repair",
            "overwrite:         overwrite other data in the place of the header",
        ),
        (
            "libvirt secret set",
            "overwrite: replace the value that the secret has",
        ),
    ] {
        let help = session.ok(path.split(' ').chain(["--help"]));
        assert!(help.contains(what), "{path}: {help}");
    }
}
