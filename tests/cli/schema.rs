//! The JSON of every command is as its schema in `docs/schema/` says.

use luksmith_formats::json::Value;
use support::json_schema::{Schemas, check};

use crate::help::commands;
use crate::session::{CHEAP, Ran, Session};

/// The commands that need a libvirtd or a QEMU, with the tests that check their JSON.
const ELSEWHERE: &[(&str, &str)] = &[
    ("libvirt provision", "tests/libvirt/json.rs"),
    ("libvirt attach", "tests/libvirt/json.rs"),
    ("libvirt detach", "tests/libvirt/json.rs"),
    ("libvirt rotate", "tests/libvirt/json.rs"),
    ("libvirt rekey", "tests/libvirt/json.rs"),
    ("libvirt secret define", "tests/libvirt/json.rs"),
    ("libvirt secret set", "tests/libvirt/json.rs"),
    ("libvirt secret get", "tests/libvirt/json.rs"),
    ("libvirt secret list", "tests/libvirt/json.rs"),
    ("libvirt secret remove", "tests/libvirt/json.rs"),
    ("dm-table", "tests/interop/dm_table.rs"),
    ("mount", "tests/fuse/mounted.rs"),
    ("unmount", "tests/fuse/life.rs"),
    ("key rotate", "tests/cli/helpers.rs"),
    ("objects status", "tests/objects/commands.rs"),
    ("objects gc", "tests/objects/commands.rs"),
    ("objects verify", "tests/objects/commands.rs"),
    ("objects snapshot create", "tests/objects/commands.rs"),
    ("objects snapshot list", "tests/objects/commands.rs"),
    ("objects snapshot delete", "tests/objects/commands.rs"),
    ("objects snapshot rollback", "tests/objects/commands.rs"),
    ("objects take-over", "tests/objects/commands.rs"),
    ("qemu amend add", "tests/libvirt/qemu.rs"),
    ("qemu amend change", "tests/libvirt/qemu.rs"),
    ("qemu amend remove", "tests/libvirt/qemu.rs"),
];

/// Commands in an order in which each finds what it needs. `CHEAP` stands for the options of a
/// cheap key derivation.
const SAMPLES: &[(i32, &str)] = &[
    (0, "create disk.img --size 1M --key-file key CHEAP"),
    (
        0,
        "create luks1.img --size 1M --type luks1 --key-file key CHEAP",
    ),
    (
        0,
        "create disk.qcow2 --format qcow2 --size 1M --key-file key CHEAP",
    ),
    (0, "encrypt plain whole.img --key-file key CHEAP"),
    (
        0,
        "encrypt plain whole.qcow2 --format qcow2 --sparse --key-file key CHEAP",
    ),
    (
        0,
        "copy whole.img copied.img --type luks1 --key-file key CHEAP",
    ),
    (0, "decrypt whole.img again --key-file key"),
    (0, "info disk.img"),
    (0, "info luks1.img"),
    (0, "info disk.qcow2 --format qcow2"),
    (
        0,
        "key add disk.img --key-file key --new-key-file other CHEAP",
    ),
    (
        0,
        "key add disk.img --unbound --key-size 256 --new-key-file other CHEAP",
    ),
    (0, "key list disk.img"),
    (0, "key list luks1.img"),
    (0, "key test disk.img --key-file other"),
    (0, "key priority disk.img --keyslot 1 --priority prefer"),
    (
        0,
        "key change disk.img --key-file other --new-key-file third CHEAP",
    ),
    (
        0,
        "key volume-key disk.img --key-file key --out volume-key --force volume-key",
    ),
    (0, "key remove disk.img --key-file third"),
    (0, "token import disk.img --json-file token"),
    (
        0,
        "token add disk.img --key-description disk:key --token-id 4",
    ),
    (0, "token list disk.img"),
    (0, "token list luks1.img"),
    (
        0,
        "token export disk.img --token-id 0 --json-file token.json",
    ),
    (0, "token unassign disk.img --token-id 0 --keyslot 0"),
    (0, "token remove disk.img --token-id 0"),
    (0, "config disk.img --label archive"),
    (
        0,
        "config luks1.img --uuid 7a1b2c3d-0000-4000-8000-0123456789ab --force uuid",
    ),
    (0, "resize disk.img --size 2M"),
    (0, "reencrypt whole.img --key-file key --init-only CHEAP"),
    (0, "info whole.img"),
    (0, "reencrypt whole.img --key-file key"),
    (
        0,
        "reencrypt --encrypt again --header again.header --key-file key --init-only CHEAP",
    ),
    (0, "info again --header again.header"),
    (
        0,
        "reencrypt --encrypt again --header again.header --key-file key",
    ),
    (0, "trust init disk.img --trust pins --key-file key"),
    (0, "trust accept disk.img --trust pins --key-file key"),
    (0, "trust init disk.img --trust pins --tags --key-file key"),
    (0, "trust verify disk.img --trust pins --key-file key"),
    (0, "trust status pins"),
    (0, "header backup disk.img backup"),
    (0, "header repair disk.img"),
    (0, "header erase disk.img --force erase"),
    (0, "header restore disk.img backup --force restore"),
    (0, "convert luks1.img --to luks2 --force convert"),
    (0, "inspect disk.img --format luks2"),
    (0, "inspect disk.img --format luks2 --out checked.img"),
    (10, "inspect disk.img --format qcow2"),
    (6, "inspect disk.img --format luks2 --max-size 1K"),
    (0, "identify disk.img"),
    (0, "verify-ciphertext whole.img"),
    (0, "verify-ciphertext whole.img --sample 1"),
    (11, "verify-ciphertext plain --no-header"),
    (11, "audit domain.xml --no-images"),
    (0, "audit domain.xml --no-images --fail-on never"),
    (0, "libvirt xml secret disk.img"),
    (0, "libvirt xml volume old.img"),
    (0, "libvirt xml disk old.img"),
    (0, "qemu args old.img --key-file key"),
    (
        0,
        "benchmark --kernel portable --sector-size 4096 --threads 1 --seconds 0.01",
    ),
    (0, "completions bash"),
    (0, "man"),
    (0, "man --out pages"),
];

fn prepared() -> Session {
    let session = Session::new();
    session.write("third", b"third");
    session.write("plain", &vec![b'a'; 1 << 20]);
    session.write("token", b"{\"type\": \"example\", \"keyslots\": [\"0\"]}");
    session.write(
        "domain.xml",
        b"<domain type='kvm'><name>d</name><seclabel type='none'/></domain>",
    );
    let old = "create old.img --size 1M --type luks1 --key-file key";
    session.ok(old.split(' ').chain(CHEAP));
    session
}

/// Runs a command with `--json`. Its stderr has only events.
#[track_caller]
fn run(session: &Session, command: &str) -> Ran {
    let words = command.split(' ').flat_map(|word| match word {
        "CHEAP" => CHEAP.to_vec(),
        word => vec![word],
    });
    let ran = session.run(words.chain(["--json"]));
    let schemas = Schemas::read();
    for line in ran.stderr().lines() {
        let event: Value = line
            .parse()
            .unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(schemas.complaints_of_event(&event), [""; 0], "{command}");
    }
    ran
}

#[test]
fn every_command_prints_what_its_schema_says() {
    let session = prepared();
    for (code, command) in SAMPLES {
        let ran = run(&session, command);
        assert_eq!(ran.code(), *code, "{command}: {}", ran.stderr());
        let document: Value = ran.stdout().parse().unwrap();
        check(&document);
        let name = document["command"].as_str().unwrap();
        assert!(command.starts_with(name), "{command}: {name}");
    }
}

#[test]
fn every_command_has_a_schema_and_a_sample() {
    let session = Session::new();
    let schemas = Schemas::read();
    let all: Vec<_> = commands(&session)
        .iter()
        .filter(|path| !path.is_empty())
        .map(|path| path.join(" "))
        .collect();
    let is_group = |path: &String| {
        let below = format!("{path} ");
        all.iter().any(|other| other.starts_with(&below))
    };
    let leaves: Vec<_> = all.iter().filter(|path| !is_group(path)).collect();
    assert!(leaves.len() > 45, "{leaves:?}");
    for command in &leaves {
        assert!(
            schemas.commands().contains(&command.as_str()),
            "{command} has no schema"
        );
        // Its own test checks it in tests/nbd.
        if *command == "serve" {
            continue;
        }
        let here = SAMPLES
            .iter()
            .any(|(_, sample)| sample.starts_with(command.as_str()));
        let elsewhere = ELSEWHERE.iter().any(|(name, test)| {
            let root = env!("CARGO_MANIFEST_DIR");
            let text = std::fs::read_to_string(format!("{root}/{test}")).unwrap();
            let last = command.split(' ').next_back().unwrap_or_default();
            let named = text.contains(command.as_str()) || text.contains(&format!("\"{last}\""));
            name == command && named
        });
        assert!(here || elsewhere, "{command} has no sample");
    }
    for command in schemas.commands() {
        assert!(
            leaves.iter().any(|leaf| *leaf == command),
            "there is no command {command}"
        );
    }
}

#[test]
fn errors_are_json_too() {
    let session = prepared();
    for (command, code, kind) in [
        ("info missing", 4, "storage"),
        ("info plain", 4, "damaged"),
        ("key test old.img --key-file other", 2, "wrong-passphrase"),
        ("create old.img --size 1M --key-file key", 5, "exists"),
        ("create new.img --no-such-option", 1, "parameters"),
        ("decrypt old.img - --key-file key", 1, "parameters"),
        ("header backup old.img -", 1, "parameters"),
        ("info old.img --trust third", 4, "storage"),
        ("inspect plain --format qcow2", 10, "rejected"),
    ] {
        let ran = run(&session, command);
        let stderr = ran.stderr();
        let last: Value = stderr.lines().last().unwrap().parse().unwrap();
        assert_eq!(last["event"].as_str(), Some("error"), "{stderr}");
        assert_eq!(last["kind"].as_str(), Some(kind), "{stderr}");
        assert_eq!(last["exit_code"].as_u64(), Some(code), "{stderr}");
        assert_eq!(ran.code(), i32::try_from(code).unwrap(), "{command}");
        assert!(!last["message"].as_str().unwrap().is_empty());
    }
}
