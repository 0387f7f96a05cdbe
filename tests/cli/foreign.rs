//! Text that others wrote: names of files, what headers, images and XML contain. No command prints
//! a character that a terminal obeys, or that turns the direction of what is around it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use luksmith_formats::json::Value;
use luksmith_formats::text::is_control;

use crate::session::{CHEAP, Ran, Session};

/// Characters of each kind: C0, DEL, C1, bidirectional controls, a separator, the byte order mark.
const BAD: &str =
    "x\u{1b}[31m\u{7f}\u{9b}31m\u{85}\u{202e}\u{2066}\u{200f}\u{61c}\u{2028}\u{feff}\ny";

/// The arguments of a command: `NAME` is the hostile name.
fn args(command: &str) -> Vec<String> {
    let words = command.split(' ').map(|word| word.replace("NAME", BAD));
    let cheap = CHEAP
        .iter()
        .filter(|_| command.starts_with("create") || command.starts_with("key a"));
    words.chain(cheap.map(|word| (*word).to_owned())).collect()
}

/// Checks what a command printed, and that it ended with this code.
#[track_caller]
fn clean(ran: &Ran, code: i32, command: &str) -> String {
    let (stdout, stderr) = (ran.stdout(), ran.stderr());
    assert_eq!(ran.code(), code, "{command}: {stderr}");
    for text in [&stdout, &stderr] {
        let bad = text.chars().find(|c| *c != '\n' && is_control(*c));
        assert_eq!(bad, None, "{command}: {text:?}");
    }
    // A name with a line end makes no line of its own.
    let forged = stdout
        .lines()
        .chain(stderr.lines())
        .find(|line| line.starts_with('y'));
    assert_eq!(forged, None, "{command}");
    stdout
}

fn session() -> Session {
    let session = Session::new();
    let create = "create NAME --size 1M --key-file key --label NAME --subsystem NAME";
    let ran = session.run(args(create));
    clean(&ran, 0, create);
    let token = format!(
        "{{\"type\":\"own\",\"keyslots\":[],\"text {0}\":\"{0}\"}}",
        BAD.replace('\n', "\\n").replace('\u{1b}', "")
    );
    session.write("token.json", token.as_bytes());
    session.run(args("token import NAME --json-file token.json"));
    session
}

#[test]
fn commands_on_volumes_print_no_control_characters() {
    let session = session();
    for command in [
        "info NAME",
        "info NAME --json",
        "info NAME --dump-json-metadata",
        "token list NAME",
        "token list NAME --json",
        "token export NAME --token-id 0",
        "key list NAME",
        "key list NAME --json",
        "key test NAME --key-file key",
        "key add NAME --key-file key --new-key-file other",
        "header backup NAME --out NAMEbackup",
        "verify-ciphertext NAME --force-share",
        "verify-ciphertext NAME --json",
        "inspect NAME --format luks2 --json",
        "inspect NAME --format luks2",
        "identify NAME",
        "identify NAME --json",
        "resize NAME --size 2M --key-file key",
        "libvirt xml disk NAME --secret usage=volume:NAME",
        "libvirt xml secret ./NAMEvolume",
        "create NAMEother --size 1M --key-file key --json",
        "decrypt NAME NAMEplain --key-file key",
    ] {
        let ran = session.run(args(command));
        let known = [0, 1, 6];
        assert!(known.contains(&ran.code()), "{command}: {}", ran.stderr());
        let stdout = clean(&ran, ran.code(), command);
        if command.contains("json") {
            let value: Value = stdout
                .parse()
                .unwrap_or_else(|error| panic!("{command}: {error}: {stdout}"));
            if let Some(image) = value.get("image") {
                assert!(
                    image.as_str().unwrap().starts_with(BAD),
                    "{command}: {stdout}"
                );
            }
        }
    }
}

#[test]
fn errors_print_no_control_characters() {
    let session = session();
    session.write(
        "policy.toml",
        format!(
            "formats = ['{}']",
            BAD.replace(['\n', '\u{1b}', '\u{7f}'], "")
        )
        .as_bytes(),
    );
    for command in [
        "info NAMEmissing",
        "info nbd://NAME/x --timeout 1",
        "info nbd+unix:///x?socket=NAME --timeout 1",
        "create NAME --size 1M --key-file key",
        "key test NAME --key-file NAMEmissing",
        "key test NAME --key NAME",
        "create x --cipher NAME --size 1M --key-file key",
        "create x --hash NAME --size 1M --key-file key",
        "benchmark --kernel NAME",
        "NAME",
        "info --NAME",
        "token import NAME --json-file key",
        "header restore NAME --from key",
        "inspect NAME --format qcow2",
        "inspect NAME --format luks2 --policy policy.toml",
        "audit NAMEmissing",
        "audit NAME --policy NAMEmissing",
        "serve NAMEmissing --socket s --key-file key",
        "serve NAME --export NAME,NAME=1 --socket s",
        "qemu args NAME --key-file NAMEmissing",
        "libvirt xml disk volume:NAME",
        "libvirt secret get NAME",
        "decrypt NAME NAMEmissing/plain --key-file key",
    ] {
        let ran = session.run(args(command));
        assert_ne!(ran.code(), 0, "{command}: {}", ran.stdout());
        clean(&ran, ran.code(), command);
    }
}

/// The header of a qcow2 image with the name of a backing file, and a descriptor of VMDK.
#[test]
fn images_and_xml_of_others_print_no_control_characters() {
    let session = Session::new();
    let mut qcow2 = vec![0; 65536];
    qcow2[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    qcow2[8..16].copy_from_slice(&512_u64.to_be_bytes());
    qcow2[16..20].copy_from_slice(&u32::try_from(BAD.len()).unwrap().to_be_bytes());
    qcow2[20..24].copy_from_slice(&16_u32.to_be_bytes());
    qcow2[96..104].copy_from_slice(&[0, 0, 0, 4, 0, 0, 0, 104]);
    qcow2[512..512 + BAD.len()].copy_from_slice(BAD.as_bytes());
    session.write("qcow2", &qcow2);
    session.write(
        "vmdk",
        format!("# Disk DescriptorFile\nversion=1\n{BAD}=\"{BAD}\"\nRW 1 FLAT \"{BAD}\" 0\n")
            .as_bytes(),
    );
    let xml = BAD.replace('\u{1b}', "").replace('\n', "&#10;");
    session.write(
        "domain.xml",
        format!(
            "<domain type='kvm'><name>{xml}</name><seclabel type='none' model='{xml}'/><devices>
         <disk type='file'><source file='{}/{xml}'/><target dev='{xml}'/></disk>
         <disk type='network'><source protocol='{xml}' name='{xml}'><host name='h'/></source></disk>
         <graphics type='vnc' listen='0.0.0.0'/></devices><{xml}></domain>",
            session.folder().display()
        )
        .as_bytes(),
    );
    let domain = String::from_utf8(session.read("domain.xml")).unwrap();
    let well_formed = domain.replace(&format!("<{xml}>"), "");
    session.write("good.xml", well_formed.as_bytes());
    for (command, code) in [
        ("inspect qcow2 --format qcow2", 10),
        ("inspect qcow2 --format qcow2 --json", 10),
        ("inspect vmdk --format vmdk", 10),
        ("inspect vmdk --format vmdk --json", 10),
        ("identify vmdk", 0),
        ("audit domain.xml good.xml", 11),
        ("audit domain.xml good.xml --json", 11),
        ("audit domain.xml good.xml --sarif", 11),
    ] {
        let ran = session.run(command.split(' '));
        let stdout = clean(&ran, code, command);
        assert!(stdout.len() > 20, "{command}");
        if command.contains("--json") || command.contains("--sarif") {
            stdout.parse::<Value>().unwrap();
        }
    }
}

#[test]
fn names_that_are_not_utf8_survive_in_json() {
    let session = Session::with_volume();
    let name = OsString::from_vec(b"a\xff\\b\xc3\xa9".to_vec());
    std::fs::rename(session.path("disk.img"), session.folder().join(&name)).unwrap();
    std::fs::write(
        session.folder().join("xml"),
        "<domain><name>d</name><seclabel type='none'/></domain>",
    )
    .unwrap();
    let run = |before: &[&str], after: &[&str]| {
        let before = before.iter().map(OsString::from);
        let all = before
            .chain([name.clone()])
            .chain(after.iter().map(OsString::from));
        let ran = session.run(all);
        let value: Value = ran
            .stdout()
            .parse()
            .unwrap_or_else(|error| panic!("{error}: {}", ran.stderr()));
        value
    };
    let hex = "61ff5c62c3a9";
    for command in [
        &["info", "--json"][..],
        &["inspect", "--format", "luks2", "--json"],
        &["identify", "--json"],
        &["verify-ciphertext", "--json"],
    ] {
        let value = run(command, &[]);
        assert_eq!(value["image"], r"a\xff\bé", "{command:?}");
        assert_eq!(value["image_bytes"], hex, "{command:?}");
    }
    std::fs::rename(session.folder().join("xml"), session.folder().join(&name)).unwrap();
    let value = run(&["audit", "--json"], &[]);
    assert_eq!(value["findings"][0]["origin"], r"a\xff\bé");
    assert_eq!(value["findings"][0]["origin_bytes"], hex);
    let value = run(&["audit", "--sarif"], &[]);
    let place = &value["runs"][0]["results"][0]["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "a%FF%5Cb%C3%A9");
    // A name in UTF-8 has no bytes there.
    std::fs::rename(session.folder().join(&name), session.path("é")).unwrap();
    let value: Value = session
        .run(["identify", "é", "--json"])
        .stdout()
        .parse()
        .unwrap();
    assert!(value["image_bytes"].is_null() && value["image"] == "é");
}
