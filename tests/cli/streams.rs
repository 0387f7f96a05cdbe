//! `encrypt` and `decrypt` with files and pipes.

use std::process::Stdio;

use luksmith_formats::json::Value;
use support::json_schema::Schemas;

use crate::session::{CHEAP, Session};

fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        state.to_le_bytes()[7]
    };
    std::iter::repeat_with(next).take(len).collect()
}

#[test]
fn there_and_back_by_file() {
    let session = Session::new();
    // Not a multiple of the copied chunks.
    let plain = noise((3 << 20) + 4096);
    session.write("plain.img", &plain);
    for kind in ["luks1", "luks2"] {
        let encrypt = [
            "encrypt",
            "plain.img",
            "disk.img",
            "--key-file",
            "key",
            "--type",
            kind,
            "--force",
            "overwrite",
        ];
        session.ok(encrypt.iter().chain(&CHEAP));
        session.ok([
            "decrypt",
            "disk.img",
            "back.img",
            "--key-file",
            "key",
            "--force",
            "overwrite",
        ]);
        assert!(session.read("back.img") == plain, "{kind}");
        assert!(
            !session
                .read("disk.img")
                .windows(64)
                .any(|window| window == &plain[..64]),
            "{kind}"
        );
    }
}

#[test]
fn there_and_back_by_pipe() {
    let session = Session::new();
    let plain = noise((2 << 20) + 512);
    let ran = session.run_with(
        ["encrypt", "-", "disk.img", "--key-file", "key"]
            .iter()
            .chain(&CHEAP),
        &plain,
    );
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    let ran = session.run(["decrypt", "disk.img", "-", "--key-file", "key"]);
    assert!(ran.0.stdout == plain);
}

/// Rust's runtime opens /dev/null in place of a closed descriptor.
#[test]
fn closed_streams_lose_nothing() {
    let session = Session::with_volume();
    let shell = |line: &str| {
        let program = session.command([""; 0]);
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", line, "sh"]).arg(program.get_program());
        shell.current_dir(session.folder()).stdin(Stdio::null());
        crate::session::Ran(shell.output().unwrap())
    };
    for args in [
        "decrypt disk.img - --key-file key",
        "header backup disk.img -",
        "key volume-key disk.img --key-file key --out - --force volume-key",
        "info disk.img",
        "info disk.img --json",
    ] {
        let ran = shell(&format!("\"$1\" {args} >&-"));
        ran.fails(4, "cannot write to stdout: it is closed");
        // A file of which all is thrown away is another matter.
        assert_eq!(
            shell(&format!("\"$1\" {args} >/dev/null")).code(),
            0,
            "{args}"
        );
    }
    let encrypt = format!(
        "\"$1\" encrypt - new.img --key-file key {} <&-",
        CHEAP.join(" ")
    );
    shell(&encrypt).fails(4, "cannot read stdin: it is closed");
    assert!(!session.exists("new.img"));
}

#[test]
fn paths_that_name_no_file_are_refused() {
    let session = Session::with_volume();
    let decrypt = ["decrypt", "disk.img", "/dev/stdout", "--key-file", "key"];
    session
        .run(decrypt)
        .fails(4, "hint: commands that write to standard output take -");
    session
        .run(["decrypt", "disk.img", ""])
        .fails(1, "<DESTINATION>: the path is empty");
    session.run(["info", ""]).fails(1, "the path is empty");
}

#[test]
fn a_limit_on_the_size_of_files_is_not_called_a_full_disk() {
    let session = Session::with_volume();
    let program = session.command([""; 0]);
    let mut resize = std::process::Command::new("prlimit");
    resize.arg("--fsize=20971520").arg(program.get_program());
    resize
        .args(["resize", "disk.img", "--size", "64M"])
        .current_dir(session.folder());
    crate::session::Ran(resize.output().unwrap()).fails(4, "no file may be as large here");
}

#[test]
fn a_broken_sector_is_padded_only_when_told() {
    let session = Session::new();
    session.write("plain.img", &noise(1000));
    let encrypt = ["encrypt", "plain.img", "disk.img", "--key-file", "key"];
    session
        .run(encrypt.iter().chain(&CHEAP))
        .fails(1, "luksmith: hint: --pad");
    session
        .run_with(
            ["encrypt", "-", "disk.img", "--key-file", "key"]
                .iter()
                .chain(&CHEAP),
            &noise(1000),
        )
        .fails(1, "--pad");
    assert!(!session.exists("disk.img"));
    session.ok(encrypt.iter().chain(&["--pad"]).chain(&CHEAP));
    session.ok(["decrypt", "disk.img", "back.img", "--key-file", "key"]);
    let mut padded = noise(1000);
    padded.resize(1024, 0);
    assert!(session.read("back.img") == padded);
}

#[test]
fn a_reader_that_goes_away_is_no_news() {
    let session = Session::with_volume();
    session.ok(["resize", "disk.img", "--size", "8M"]);
    let mut child = session
        .command(["decrypt", "disk.img", "-", "--key-file", "key"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(141), &b""[..])
    );
}

#[test]
fn holes_come_back_as_holes_when_asked() {
    use std::os::unix::fs::MetadataExt;
    let session = Session::new();
    let mut plain = vec![0; 4 << 20];
    plain[1 << 20] = 1;
    session.write("plain.img", &plain);
    session.ok(["encrypt", "plain.img", "disk.img", "--key-file", "key"]
        .iter()
        .chain(&CHEAP));
    session.ok([
        "decrypt",
        "disk.img",
        "back.img",
        "--key-file",
        "key",
        "--sparse",
    ]);
    assert!(session.read("back.img") == plain);
    assert!(session.path("back.img").metadata().unwrap().blocks() * 512 < 1 << 20);
    assert!(
        session.path("disk.img").metadata().unwrap().blocks() * 512 >= 4 << 20,
        "zeroes are encrypted like all else"
    );
}

#[test]
fn a_detached_header() {
    let session = Session::new();
    let plain = noise(1 << 20);
    session.write("plain.img", &plain);
    session.ok([
        "encrypt",
        "plain.img",
        "data.img",
        "--header",
        "data.hdr",
        "--key-file",
        "key",
    ]
    .iter()
    .chain(&CHEAP));
    assert_eq!(session.read("data.img").len(), plain.len());
    session
        .run(["info", "data.img"])
        .fails(4, "luksmith: hint: --header FILE");
    session.ok([
        "decrypt",
        "data.img",
        "back.img",
        "--header",
        "data.hdr",
        "--key-file",
        "key",
    ]);
    assert!(session.read("back.img") == plain);
}

#[test]
fn progress_as_json_tells_every_phase() {
    let session = Session::new();
    session.write("plain.img", &noise(1 << 20));
    let encrypt = [
        "--progress",
        "json",
        "encrypt",
        "plain.img",
        "disk.img",
        "--key-file",
        "key",
        "--json",
    ];
    let ran = session.run(encrypt.iter().chain(&CHEAP));
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    let stderr = ran.stderr();
    let events: Vec<Value> = stderr.lines().map(|line| line.parse().unwrap()).collect();
    let schemas = Schemas::read();
    let complaints = events
        .iter()
        .flat_map(|event| schemas.complaints_of_event(event));
    assert_eq!(complaints.collect::<Vec<_>>(), [""; 0]);
    let named = |name: &str| {
        let found = events
            .iter()
            .filter(|event| event["event"].as_str() == Some(name));
        found.cloned().collect::<Vec<_>>()
    };
    let first = events.first().unwrap();
    assert_eq!(first["event"].as_str(), Some("start"), "{stderr}");
    assert_eq!(first["command"].as_str(), Some("encrypt"));
    let phases = named("phase");
    let phases: Vec<_> = phases
        .iter()
        .map(|event| event["phase"].as_str().unwrap())
        .collect();
    assert_eq!(phases, ["kdf", "copy", "flush"], "{stderr}");
    let progress = named("progress");
    let last = progress.last().unwrap();
    assert_eq!(last["done"].as_u64(), Some(1_048_576));
    assert_eq!(last["total"].as_u64(), Some(1_048_576));
    let end = events.last().unwrap();
    assert_eq!(end["event"].as_str(), Some("end"));
    assert_eq!(end["exit_code"].as_u64(), Some(0));
    let result: serde_json::Value = serde_json::from_str(&ran.stdout()).unwrap();
    assert_eq!(result["size"], 1048576);
}

#[test]
fn what_lies_beyond_the_source_is_encrypted_zeroes() {
    let session = Session::new();
    let mut plain = noise((1 << 20) + 4096);
    session.write("plain.img", &plain);
    let encrypt = [
        "encrypt",
        "plain.img",
        "disk.img",
        "--size",
        "3M",
        "--key-file",
        "key",
    ];
    session.ok(encrypt.iter().chain(&CHEAP));
    session.ok(["decrypt", "disk.img", "back.img", "--key-file", "key"]);
    plain.resize(3 << 20, 0);
    assert!(session.read("back.img") == plain);
    // Nothing shows where the source ended.
    let image = session.read("disk.img");
    assert!(
        image[image.len() - (3 << 20)..]
            .chunks(4096)
            .all(|sector| sector.iter().any(|byte| *byte != 0))
    );
}

#[test]
fn a_dash_is_stdout_for_what_holds_keys() {
    let session = Session::with_volume();
    session.ok(["header", "backup", "disk.img", "disk.hdr"]);
    let piped = session.run(["header", "backup", "disk.img", "-"]);
    assert_eq!(piped.code(), 0, "{}", piped.stderr());
    assert!(piped.bytes() == session.read("disk.hdr"));
    assert!(!session.exists("-"));
}

/// Opening a FIFO would wait for a writer. It is refused as a source without waiting.
#[test]
fn a_fifo_is_no_source() {
    let session = Session::new();
    let fifo = session.path("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let encrypt = ["encrypt", "fifo", "disk.img", "--key-file", "key"];
    session
        .run(encrypt.iter().chain(&CHEAP))
        .fails(4, "neither a file nor a block device");
    assert!(!session.exists("disk.img"));
}

#[test]
fn help_and_version_that_cannot_be_written_fail() {
    let session = Session::new();
    for command in [
        "--version",
        "--help",
        "benchmark --help",
        "key -h",
        "info disk.img --help",
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let output = session
            .command(command.split(' '))
            .stdout(full.unwrap())
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(4), "{command}: {stderr}");
        assert!(stderr.contains("luksmith: error: "), "{command}: {stderr}");
    }
}
