//! The units, as `systemd-analyze` judges them, and the command of the check.

use std::path::Path;
use std::process::Command;

use support::peers::{find, output};

use crate::text_of;

const UNITS: [&str; 4] = [
    "luksmith-serve@.service",
    "luksmith-serve@.socket",
    "luksmith-check.service",
    "luksmith-check.timer",
];

/// The program that is tested, and not one that is installed.
const PROGRAM: &str = env!("CARGO_BIN_EXE_luksmith");

/// The units in a folder, with the program that is tested.
fn units() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for unit in UNITS {
        let text = text_of(&format!("packaging/{unit}")).replace("/usr/bin/luksmith", PROGRAM);
        std::fs::write(folder.path().join(unit), text).unwrap();
    }
    folder
}

fn analyze(program: &Path, folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    let out = output(
        command
            .args(arguments)
            .args(UNITS.map(|unit| folder.join(unit))),
    );
    let said = [out.stdout, out.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(out.status.success() && !said.contains("Unknown"), "{said}");
    said
}

#[test]
fn systemd_finds_no_fault_in_the_units() {
    let Some(program) = find("systemd-analyze") else {
        return;
    };
    let folder = units();
    let said = analyze(&program, folder.path(), &["verify", "--man=no"]);
    assert!(!said.contains("luksmith"), "{said}");
}

#[test]
fn the_services_are_confined() {
    let Some(program) = find("systemd-analyze") else {
        return;
    };
    let folder = units();
    for service in UNITS.iter().filter(|unit| unit.ends_with(".service")) {
        let mut command = Command::new(&program);
        // The threshold is an exposure of 2.0.
        command.args(["security", "--offline=true", "--threshold=20", "--no-pager"]);
        let out = output(command.arg(folder.path().join(service)));
        let said = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "{service}: {said}");
        assert!(said.contains("Overall exposure level"), "{service}: {said}");
    }
}

/// The command of the check runs both programs, prints a document of each, and fails if the first
/// or the second one fails.
#[test]
fn the_check_prints_two_documents_and_fails_if_either_program_does() {
    let unit = text_of("packaging/luksmith-check.service");
    let script = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart=/bin/sh -c '"))
        .and_then(|line| line.strip_suffix('\''))
        .expect("the check is a command of the shell")
        .replace("/usr/bin/luksmith", "luksmith");
    let folder = tempfile::tempdir().unwrap();
    let fake = folder.path().join("luksmith");
    std::fs::write(&fake, "#!/bin/sh\necho \"$*\"\nexit ${CODE_$2:-0}\n").unwrap();
    let fake_text =
        "#!/bin/sh\necho \"$*\"\ncase $2 in audit) exit $AUDIT ;; *) exit $ROTATE ;; esac\n";
    std::fs::write(&fake, fake_text).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&fake, mode).unwrap();
    for (audit, rotate, code) in [(0, 0, 0), (11, 0, 11), (0, 4, 4), (11, 4, 11)] {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &script]).env("PATH", folder.path());
        shell.env("CONNECT", "test:///default");
        shell
            .env("AUDIT", audit.to_string())
            .env("ROTATE", rotate.to_string());
        let out = output(&mut shell);
        assert_eq!(out.status.code(), Some(code));
        let said = String::from_utf8_lossy(&out.stdout);
        let expected = "--json audit --connect test:///default --host \n\
                        --json libvirt rotate --connect test:///default --all --check \n";
        assert_eq!(said.replace(" \n", "\n"), expected.replace(" \n", "\n"));
    }
    // And the program that is tested knows these arguments.
    for line in [
        "--json audit --connect test:///x --host --help",
        "--json libvirt rotate --connect test:///x --all --check --help",
    ] {
        let out = output(Command::new(PROGRAM).args(line.split(' ')));
        assert!(out.status.success(), "{line}");
    }
}
