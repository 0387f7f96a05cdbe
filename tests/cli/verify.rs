//! `verify-ciphertext`: its output and exit codes.

use std::os::unix::fs::FileExt;
use std::process::Command;

use support::{peers, qcow2};

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
    // What the file system does not store is a hole.
    let [hole, zero] = ["hole", "zero"].map(|kind| format!("{kind}: 4 KiB at byte 16777216\n"));
    assert!(said.contains(&hole) || said.contains(&zero), "{said}");
    for line in [" at byte 16781360\n", " at byte 16785616\n"] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

/// The document of a search, which ends with this code.
fn document(session: &Session, args: &str, code: i32) -> serde_json::Value {
    let args = format!("verify-ciphertext {args} --json");
    let ran = session.run(args.split(' '));
    assert_eq!(ran.code(), code, "{args}: {}", ran.stderr());
    serde_json::from_str(&ran.stdout()).unwrap()
}

/// A member of the area with this name, or 0 if there is no such area.
fn member(document: &serde_json::Value, area: &str, name: &str) -> u64 {
    let areas = document["areas"].as_array().unwrap();
    let area = areas.iter().find(|there| there["area"] == area);
    area.map_or(0, |area| area[name].as_u64().unwrap())
}

#[test]
fn holes_are_counted_apart_and_not_read() {
    let session = Session::new();
    let args = "create disk.img --size 1T --key-file key --luks2-keyslots-size 1M";
    session.ok(args.split(' ').chain(CHEAP));
    // A terabyte would take an hour.
    let report = document(&session, "disk.img", 0);
    let (hole, size) = (
        member(&report, "data", "hole"),
        member(&report, "data", "size"),
    );
    assert!(hole >= size - (1 << 20) && size == 1 << 40, "{report}");
    assert_eq!(report["hole"]["listed"][0]["why"], "hole");
    let areas = report["areas"].as_array().unwrap();
    let holes: u64 = areas
        .iter()
        .map(|area| area["hole"].as_u64().unwrap())
        .sum();
    assert_eq!(report["hole"]["bytes"], holes);
}

#[test]
fn only_the_data_of_a_qcow2_image_is_judged() {
    let session = Session::new();
    session.write(
        "plain",
        &[vec![0; 1 << 20], vec![b'p'; 300 << 10], vec![0; 1 << 20]].concat(),
    );
    let args = "encrypt plain disk.qcow2 --format qcow2 --sparse --key-file key";
    session.ok(args.split(' ').chain(CHEAP));
    let report = document(&session, "disk.qcow2 --format qcow2", 0);
    assert_eq!(
        (&report["format"], &report["type"]),
        (&"qcow2".into(), &"luks1".into())
    );
    // Five clusters; the rest of the last one is encrypted zeroes.
    assert_eq!(member(&report, "data", "size"), 320 << 10);
    assert_eq!(member(&report, "data", "random"), 320 << 10);
    assert!(member(&report, "keyslot 0", "random") >= 250_000);
    let areas = report["areas"].as_array().unwrap();
    let sizes = areas.iter().map(|area| area["size"].as_u64().unwrap());
    assert_eq!(sizes.sum::<u64>(), session.read("disk.qcow2").len() as u64);

    // Plaintext in a cluster with data is found at its place in the image.
    let whole = session.read("disk.qcow2");
    let at = areas.iter().find(|area| area["area"] == "data").unwrap()["offset"]
        .as_u64()
        .unwrap();
    let mut image = whole.clone();
    let place = usize::try_from(at).unwrap() + 70_144;
    image[place..place + 1024].fill(b'x');
    session.write("disk.qcow2", &image);
    let report = document(&session, "disk.qcow2 --format qcow2", 11);
    let found = &report["suspicious"]["listed"];
    assert_eq!(
        (&found[0]["offset"], &found[0]["size"]),
        (&place.into(), &1024.into())
    );
    assert_eq!(report["suspicious"]["regions"], 1);
    let report = document(
        &session,
        "disk.qcow2 --format qcow2 --sample 100 --seed 1",
        11,
    );
    assert_eq!(report["suspicious"]["listed"], *found);
    assert_eq!(
        report["areas"]
            .as_array()
            .unwrap()
            .iter()
            .find(|area| area["area"] == "data")
            .unwrap()["sampled"]["of"],
        5
    );

    // In a cluster that is not in use it is not: old tables are there too.
    let mut image = whole.clone();
    image.extend([b'x'; 65_536]);
    session.write("disk.qcow2", &image);
    document(&session, "disk.qcow2 --format qcow2", 0);

    // A compressed cluster is not encrypted, whatever it looks like.
    let mut image = whole.clone();
    assert_eq!(qcow2::compress(&mut image, 16, &[7; 65_536]), 1);
    session.write("disk.qcow2", &image);
    let ran = session.run("verify-ciphertext disk.qcow2 --format qcow2".split(' '));
    ran.fails(11, "of compressed clusters are not encrypted");
    assert!(
        ran.stdout().contains(": compressed, not encrypted\n"),
        "{}",
        ran.stdout()
    );
    let report = document(&session, "disk.qcow2 --format qcow2", 11);
    assert_eq!(report["suspicious"]["listed"][0]["why"], "compressed");

    // Tables that lead out of the image.
    let l1 = usize::try_from(u64::from_be_bytes(whole[40..48].try_into().unwrap())).unwrap();
    for (entry, said) in [
        ((u64::MAX / 2) & !0x1ff, "L1 table"),
        (1 << 40, "L1 table"),
        (65_537, "L1 table"),
    ] {
        let mut image = whole.clone();
        image[l1..l1 + 8].copy_from_slice(&entry.to_be_bytes());
        session.write("disk.qcow2", &image);
        let ran = session.run("verify-ciphertext disk.qcow2 --format qcow2".split(' '));
        ran.fails(4, said);
    }
    let ran = session.run("verify-ciphertext disk.qcow2 --format qcow2 --no-header".split(' '));
    ran.fails(1, "a qcow2 image has its header inside");
    session.write("disk.qcow2", &whole);
    let ran = session.run("verify-ciphertext disk.qcow2".split(' '));
    assert_ne!(ran.code(), 0);
}

/// An overlay as QEMU makes it, with a snapshot whose clusters the disk no longer has.
#[test]
fn snapshots_and_overlays_of_qemu_are_judged() {
    let session = Session::new();
    let (Some(img), Some(io)) = (peers::find("qemu-img"), peers::find("qemu-io")) else {
        return;
    };
    let run = |program: &std::path::Path, args: &[&str]| {
        let mut command = Command::new(program);
        command.current_dir(session.folder()).args(&args[..1]);
        command.args(["--object", "secret,id=key,file=key"]);
        peers::run(command.args(&args[1..]));
    };
    let options =
        "encrypt.format=luks,encrypt.iter-time=10,encrypt.key-secret=key,cluster_size=4096";
    let create = [
        "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "base", "-o", options, "over", "4M",
    ];
    run(&img, &create);
    session.write("base", &[b'b'; 4 << 20]);
    let opts = "driver=qcow2,encrypt.key-secret=key,file.filename=over";
    let write = |commands: &[&str]| {
        let mut command = Command::new(&io);
        command.current_dir(session.folder());
        command.args(["--object", "secret,id=key,file=key", "--image-opts", opts]);
        for text in commands {
            command.args(["-c", text]);
        }
        peers::run(&mut command);
    };
    write(&["write -P 1 0 1M", "write -P 2 2M 4k"]);
    run(&img, &["snapshot", "-c", "one", "--image-opts", opts]);
    write(&["write -P 3 0 8k", "discard 512k 512k"]);
    std::fs::remove_file(session.path("base")).unwrap();
    let report = document(&session, "over --format qcow2", 0);
    // All of the snapshot, and two clusters that were written since.
    let data = (1 << 20) + 4096 + 8192;
    assert_eq!(member(&report, "data", "size"), data);
    assert_eq!(member(&report, "data", "random"), data);

    // An image whose data is elsewhere, and one that is not encrypted.
    let options = options.replace("4096", "65536") + ",data_file=guest";
    run(
        &img,
        &["create", "-q", "-f", "qcow2", "-o", &options, "with", "1M"],
    );
    let ran = session.run("verify-ciphertext with --format qcow2".split(' '));
    ran.fails(4, "the data of the image is in another file");
    run(&img, &["create", "-q", "-f", "qcow2", "open", "1M"]);
    let ran = session.run("verify-ciphertext open --format qcow2".split(' '));
    ran.fails(4, "not encrypted with LUKS");
}
