//! Served encrypted qcow2 images: clients see the holes, and QEMU reads what they wrote.

use std::process::Command;

use crate::served::{Folder, SIZE, content};
use support::peers::{find, run};

const KEY: [&str; 6] = [
    "--key-file",
    "key",
    "--pbkdf",
    "pbkdf2",
    "--pbkdf-force-iterations",
    "1000",
];

/// A folder with an empty image `disk.qcow2`.
pub(crate) fn with_image() -> Folder {
    let folder = Folder::new();
    let create = ["create", "disk.qcow2", "--format", "qcow2", "--size", "8M"];
    let mut command = folder.luksmith(create.iter().chain(&KEY));
    run(&mut command);
    folder
}

pub(crate) fn serve(folder: &Folder, more: &[&str]) -> crate::served::Served {
    let socket = ["disk.qcow2", "--format", "qcow2", "--socket", "s.sock"];
    folder.serve_with(&socket, &[&KEY[..2], more].concat())
}

/// The disk as QEMU reads it, after a check.
fn seen_by_qemu(folder: &Folder, qemu_img: &std::path::Path) -> Vec<u8> {
    let image = "driver=qcow2,encrypt.key-secret=s,file.filename=disk.qcow2";
    let qemu_img = |verb: &[&str], last: &[&str]| {
        let mut command = folder.program(qemu_img, verb);
        command.args(["--object", "secret,id=s,file=key", "--image-opts", image]);
        String::from_utf8(run(command.args(last))).unwrap()
    };
    let text = qemu_img(&["check"], &[]);
    assert!(text.contains("No errors were found"), "{text}");
    qemu_img(&["convert", "-O", "raw"], &["seen"]);
    std::fs::read(folder.path("seen")).unwrap()
}

#[test]
fn holes_are_reported_and_made() {
    let (Some(nbdinfo), Some(qemu_io)) = (find("nbdinfo"), find("qemu-io")) else {
        return;
    };
    let folder = with_image();
    let served = serve(&folder, &["--discard", "pass"]);
    let uri = served.uri();
    let map = || {
        let map = run(Command::new(&nbdinfo).args(["--map", &uri]));
        let words = String::from_utf8(map).unwrap();
        words
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(map(), ["0", &SIZE.to_string(), "3", "hole,zero"]);
    let io = |commands: &[&str]| {
        let mut command = folder.program(&qemu_io, ["-f", "raw", &uri]);
        commands.iter().for_each(|text| {
            command.args(["-c", text]);
        });
        let text = String::from_utf8(run(&mut command)).unwrap();
        assert!(!text.contains("failed"), "{text}");
    };
    io(&["write -P 7 1000k 100", "write -P 8 2M 1M", "flush"]);
    let (data, zero) = (["0", "data"], ["3", "hole,zero"]);
    let expected = [
        ("0", "983040", zero),
        ("983040", "65536", data),
        ("1048576", "1048576", zero),
        ("2097152", "1048576", data),
        ("3145728", "5242880", zero),
    ];
    let expected: Vec<&str> = expected
        .iter()
        .flat_map(|(offset, len, kind)| [*offset, *len, kind[0], kind[1]])
        .collect();
    assert_eq!(map(), expected);
    io(&[
        "discard 2M 512k",
        "read -P 0 2M 512k",
        "read -P 8 2560k 512k",
        "flush",
    ]);
    // The hole from before and the new one form one extent.
    assert_eq!(map()[8..12], ["1048576", "1572864", "3", "hole,zero"]);
    served.stop();
    if let Some(qemu_img) = find("qemu-img") {
        let disk = seen_by_qemu(&folder, &qemu_img);
        assert!(disk[1_024_000..1_024_100].iter().all(|byte| *byte == 7));
        assert!(disk[2 << 20..5 << 19].iter().all(|byte| *byte == 0));
        assert!(disk[5 << 19..3 << 20].iter().all(|byte| *byte == 8));
    }
}

#[test]
fn many_connections_fill_an_image() {
    let (Some(nbdcopy), Some(qemu_img)) = (find("nbdcopy"), find("qemu-img")) else {
        return;
    };
    let folder = with_image();
    folder.write("plain", &content());
    let served = serve(&folder, &[]);
    let source = folder.path("plain");
    run(Command::new(&nbdcopy)
        .args(["--flush", "--connections=4", "--request-size=32768"])
        .args([source.as_os_str(), served.uri().as_ref()]));
    let copied = folder.path("copied");
    run(Command::new(&nbdcopy).args([served.uri().as_ref(), copied.as_os_str()]));
    assert!(std::fs::read(&copied).unwrap() == content());
    served.stop();
    assert!(seen_by_qemu(&folder, &qemu_img) == content());
}

#[test]
fn compressed_clusters_are_read_only_if_allowed() {
    let Some(qemu_io) = find("qemu-io") else {
        return;
    };
    let folder = with_image();
    let image = "driver=qcow2,encrypt.key-secret=s,file.filename=disk.qcow2";
    let object = ["--object", "secret,id=s,file=key", "--image-opts", image];
    let mut write = folder.program(&qemu_io, object);
    run(write.args(["-c", "write -P 6 0 64k", "-c", "write -c -P 7 1M 64k"]));

    let seen = |more: &[&str]| {
        let served = serve(&folder, more);
        let mut command = folder.program(&qemu_io, ["-r", "-f", "raw", &served.uri()]);
        command.args(["-c", "read -P 6 0 64k", "-c", "read -P 7 1060k 4k"]);
        let output = command.output().unwrap();
        served.stop();
        String::from_utf8(output.stdout).unwrap()
    };
    let refused = seen(&[]);
    assert!(refused.contains("read failed"), "{refused}");
    assert!(refused.contains("read 65536/65536"), "{refused}");
    let read = seen(&["--compressed-plaintext"]);
    assert!(!read.contains("failed"), "{read}");

    let decrypt = |more: &[&str]| {
        let args = ["decrypt", "disk.qcow2", "-", "--format", "qcow2"];
        let args = args.iter().chain(&KEY[..2]).chain(more);
        folder.luksmith(args).output().unwrap()
    };
    let refused = decrypt(&[]);
    assert_eq!(refused.status.code(), Some(4));
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(text.contains("is not encrypted"), "{text}");
    assert!(
        text.contains("hint: --compressed-plaintext reads it"),
        "{text}"
    );
    let plain = decrypt(&["--compressed-plaintext"]).stdout;
    assert!(plain[1 << 20..][..64 << 10].iter().all(|byte| *byte == 7));
    assert!(plain[2 << 20..].iter().all(|byte| *byte == 0));
}
