//! `verify-ciphertext`: its output and exit codes.

use std::os::unix::fs::FileExt;

use crate::session::{CHEAP, Session};

/// A volume whose 2 MiB of data are all written.
fn full() -> Session {
    let session = Session::new();
    session.write("plain", &vec![b'p'; 2 << 20]);
    let args = ["encrypt", "plain", "disk.img", "--key-file", "key"];
    session.ok(args.iter().chain(&CHEAP));
    session
}

fn plant(session: &Session, offset: u64, bytes: &[u8]) {
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).open(session.path("disk.img")).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

/// Its output for a finding.
fn finds<const N: usize>(session: &Session, args: [&str; N]) -> (String, String) {
    let ran = session.run(args);
    assert_eq!(ran.code(), 11, "{}", ran.stderr());
    (ran.stdout(), ran.stderr())
}

/// Its message if there is nothing to examine.
fn fails<const N: usize>(session: &Session, args: [&str; N]) -> String {
    let ran = session.run(args);
    assert_eq!(ran.code(), 4, "{}", ran.stderr());
    ran.stderr()
}

#[test]
fn a_clean_volume_passes() {
    let session = full();
    let said = session.ok(["verify-ciphertext", "disk.img"]);
    assert!(said.starts_with("disk.img: LUKS2 header\narea"), "{said}");
    assert!(said.contains("data           16777216  2 MiB"), "{said}");
    let said = session.ok(["verify-ciphertext", "disk.img", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(report["verdict"], "accept");
    assert_eq!(report["type"], "luks2");
    assert_eq!(report["suspicious"]["regions"], 0);
    let bound = report["false_alarm_bound"].as_f64().unwrap();
    assert!(bound > 0.0 && bound < 1e-13, "{bound}");
}

#[test]
fn plaintext_is_a_failure_that_names_its_place() {
    let session = full();
    plant(&session, (16 << 20) + 8192, &[b'x'; 1024]);
    plant(&session, (16 << 20) + 65536, b"\x7fELF\x02\x01\x01");
    plant(&session, (16 << 20) + 65543, &[0; 505]);
    let (said, error) = finds(&session, ["verify-ciphertext", "disk.img"]);
    let lines: Vec<_> = said
        .lines()
        .filter(|line| line.starts_with("susp"))
        .collect();
    let expected = [
        "suspicious: 1 KiB at byte 16785408: low entropy",
        "suspicious: 512 bytes at byte 16842752: ELF program",
    ];
    assert_eq!(lines, expected);
    let expected = "luksmith: error: disk.img: 2 regions do not look like ciphertext, 1.5 KiB (1536 bytes) in all\n";
    assert!(error.starts_with(expected), "{error}");

    let (said, _) = finds(&session, ["verify-ciphertext", "disk.img", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(report["verdict"], "findings");
    let listed = &report["suspicious"]["listed"];
    assert_eq!(listed[0]["offset"], 16_785_408);
    assert_eq!(listed[0]["why"], "low-entropy");
    assert_eq!(listed[1]["signature"], "ELF program");
}

#[test]
fn a_sample_prints_its_confidence() {
    let session = full();
    let args = [
        "verify-ciphertext",
        "disk.img",
        "--sample",
        "10",
        "--seed",
        "5",
    ];
    let said = session.ok(args);
    assert!(
        said.contains("sample: 10 of 32 pieces of 64 KiB, seed 5\n"),
        "{said}"
    );
    assert!(
        said.contains("with 95 % confidence, less than 30.000 %"),
        "{said}"
    );
    let said = session.ok(["verify-ciphertext", "disk.img", "--sample", "10"]);
    assert!(said.contains(", seed "), "{said}");
}

#[test]
fn without_a_header_all_is_data() {
    let session = full();
    let said = session.ok(["verify-ciphertext", "key", "--no-header"]);
    assert!(
        said.starts_with("key: no header; all of it is searched as data\n"),
        "{said}"
    );
    // The header contains text, which is a finding if the header is searched as data.
    finds(&session, ["verify-ciphertext", "disk.img", "--no-header"]);
    finds(&session, ["verify-ciphertext", "plain"]);
    let args = ["verify-ciphertext", "disk.img", "--header", "plain"];
    let error = fails(&session, args);
    assert!(error.contains("plain: there is no LUKS header"), "{error}");
    fails(&session, ["verify-ciphertext", "none.img"]);
}

/// Partly written sectors in a new volume are not a finding. The output says where zeroes are.
#[test]
fn what_was_written_in_part_is_no_finding() {
    let session = Session::new();
    let args = ["create", "disk.img", "--size", "1M", "--key-file", "key"];
    session.ok(args.iter().chain(&CHEAP));
    // The state after a write of 48 bytes, at the start of a sector and within one.
    let cipher: Vec<u8> = (0..48_u8).map(|n| n.wrapping_mul(167) ^ n >> 1).collect();
    plant(&session, (16 << 20) + 4096, &cipher);
    plant(&session, (16 << 20) + 8192 + 160, &cipher);
    let said = session.ok(["verify-ciphertext", "disk.img"]);
    for line in [
        "zero: 4 KiB at byte 16777216\n",
        " at byte 16781360\n",
        " at byte 16785616\n",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
}
