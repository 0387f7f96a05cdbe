//! Every command that opens a volume compares it with its pin, and every change of ours keeps the
//! pin up to date.

use std::collections::BTreeSet;

use support::peers;
use support::program::Serving;

use crate::site::{CHEAP, NOT_TRUSTED, Site};

/// Every command with `--trust`, with what else it needs.
const COMMANDS: &[&str] = &[
    "info disk.img",
    "decrypt disk.img plain --key-file key",
    "key list disk.img",
    "key test disk.img --key-file key",
    "key add disk.img --key-file key --new-key-file other",
    "key change disk.img --key-file key --new-key-file other",
    "key remove disk.img --key-file key",
    "key rotate disk.img --secret helper:directory:disk",
    "key priority disk.img --keyslot 0 --priority prefer",
    "key volume-key disk.img --key-file key --out volume-key --force volume-key",
    "header backup disk.img backup",
    "header restore disk.img good.header --force restore --force other-key --force other-uuid",
    "header repair disk.img",
    "header erase disk.img --force erase",
    "convert disk.img --to luks1 --force convert",
    "token list disk.img",
    "token import disk.img --json-file token",
    "token add disk.img --key-description disk:key",
    "token export disk.img --token-id 0 --json-file token.json",
    "token unassign disk.img --token-id 0 --keyslot 0",
    "token remove disk.img --token-id 0",
    "config disk.img --label other",
    "resize disk.img --size 2M",
    "reencrypt disk.img --key-file key",
    "serve disk.img --socket socket --key-file key",
    "mount disk.img mounted --key-file key",
    "qemu args disk.img --key-file key",
    "dm-table disk.img",
    "verify-ciphertext disk.img",
    "trust verify disk.img",
];

/// What has `--trust` for a volume that is made or pinned, or shows what differs.
const OTHERS: [&str; 6] = [
    "create",
    "encrypt",
    "copy",
    "trust init",
    "trust accept",
    // tests/libvirt has a daemon.
    "libvirt rotate",
];

#[test]
fn every_command_that_opens_a_volume_refuses_a_changed_one() {
    let site = Site::pinned("luks2");
    site.write("token", br#"{"type": "example", "keyslots": ["0"]}"#);
    site.ok("header backup disk.img good.header");
    site.ok("config disk.img --label changed");
    let changed = site.read("disk.img");
    for command in COMMANDS {
        // A command that restores a header need not read the present one.
        if command.starts_with("header restore") {
            continue;
        }
        let said = site.fails(NOT_TRUSTED, &format!("{command} --trust pins"));
        assert!(said.contains("the label was changed"), "{command}: {said}");
        assert!(
            site.read("disk.img") == changed,
            "{command} has changed the volume"
        );
    }
    let said = site.fails(
        NOT_TRUSTED,
        "copy disk.img new.img --source-trust pins --key-file key",
    );
    assert!(said.contains("the label was changed"), "{said}");
    site.ok("header restore disk.img good.header --trust pins --force restore");
    site.ok("trust verify disk.img --trust pins --key-file key");

    let all: BTreeSet<String> = with_trust(&site, "");
    let known = COMMANDS.iter().map(|command| {
        let words = command.split(' ').take_while(|word| *word != "disk.img");
        words.collect::<Vec<_>>().join(" ")
    });
    let known: BTreeSet<String> = known.chain(OTHERS.map(str::to_owned)).collect();
    assert_eq!(all, known);
}

/// The commands below `path` whose help has `--trust`.
fn with_trust(site: &Site, path: &str) -> BTreeSet<String> {
    let help = site.ok(format!("{path} --help").trim_start());
    let mut found = BTreeSet::new();
    let is_group = help.contains("\nCommands:");
    if !is_group && help.contains("--trust <DIR>") {
        found.insert(path.to_owned());
    }
    let commands = help.split("\nCommands:\n").nth(1).unwrap_or_default();
    for line in commands.lines().take_while(|line| !line.is_empty()) {
        // Further lines of a description begin further to the right.
        let Some(word) = line
            .strip_prefix("  ")
            .filter(|rest| !rest.starts_with(' '))
        else {
            continue;
        };
        let name = word.split(' ').next().unwrap_or_default();
        if !["", "help"].contains(&name) {
            found.extend(with_trust(site, format!("{path} {name}").trim_start()));
        }
    }
    found
}

#[test]
fn our_own_changes_keep_the_pin() {
    let site = Site::pinned("luks2");
    site.write("token", br#"{"type": "example", "keyslots": ["0"]}"#);
    let verify = |key: &str| {
        let verify = format!("trust verify disk.img --trust pins --key-file {key}");
        let said = site.ok(&verify);
        assert!(said.contains("the header is as it is pinned"), "{said}");
    };
    // Each change, and a key that opens the volume after it.
    let all = |changes: &[(&str, &str)]| {
        for (command, key) in changes {
            site.ok(&format!("{command} --trust pins").replace("CHEAP", CHEAP));
            verify(key);
        }
    };
    all(&[
        ("config disk.img --label name", "key"),
        (
            "key add disk.img --key-file key --new-key-file other CHEAP",
            "other",
        ),
        ("key priority disk.img --keyslot 1 --priority prefer", "key"),
        (
            "key add disk.img --unbound --key-size 256 --new-key-file other CHEAP",
            "key",
        ),
        ("key remove disk.img --keyslot 2 --force unproven", "key"),
        ("token import disk.img --json-file token", "key"),
        ("token unassign disk.img --token-id 0 --keyslot 0", "key"),
        ("token remove disk.img --token-id 0", "key"),
        ("header backup disk.img backup", "key"),
        ("key remove disk.img --key-file other", "key"),
        ("header restore disk.img backup --force restore", "other"),
        ("header repair disk.img", "key"),
        (
            "reencrypt disk.img --key-file key --key-file other --init-only CHEAP",
            "key",
        ),
        (
            "reencrypt disk.img --key-file key --key-file other",
            "other",
        ),
    ]);
    // The volume key of a backup from before the reencryption is not the pinned one.
    let restore = "header restore disk.img backup --force restore --force other-key";
    let said = site.fails(1, &format!("{restore} --trust pins"));
    assert!(said.contains("has another volume key"), "{said}");
    all(&[
        ("resize disk.img --size 2M", "key"),
        ("key remove disk.img --key-file other", "key"),
        ("config disk.img --label=", "key"),
        ("convert disk.img --to luks1 --force convert", "key"),
        (
            "key change disk.img --key-file key --new-key-file other CHEAP",
            "other",
        ),
        ("convert disk.img --to luks2 --force convert", "other"),
    ]);
    let uuid = "7a1b2c3d-0000-4000-8000-0123456789ab";
    let other = format!("config disk.img --uuid {uuid} --force uuid --trust pins");
    let said = site.fails(1, &other);
    assert!(said.contains("it gives the volume another UUID"), "{said}");
    verify("other");
}

#[test]
fn new_volumes_are_pinned() {
    let site = Site::new();
    site.write("plain", &[7; 1 << 20]);
    for command in [
        "create a.img --size 1M --type luks1",
        "create b.img --size 1M --header b.header",
        "create c.qcow2 --format qcow2 --size 1M",
        "encrypt plain d.img",
        "copy a.img e.img --source-trust pins",
    ] {
        site.ok(&format!("{command} --trust pins --key-file key {CHEAP}"));
    }
    for volume in [
        "a.img",
        "b.img --header b.header",
        "c.qcow2 --format qcow2",
        "d.img",
        "e.img",
    ] {
        site.ok(&format!(
            "trust verify {volume} --trust pins --key-file key"
        ));
    }
    // Where a volume is pinned, no other one is made.
    let over = format!("create a.img --size 1M --key-file key --force overwrite {CHEAP}");
    let before = site.read("a.img");
    let said = site.fails(NOT_TRUSTED, &format!("{over} --trust pins"));
    assert!(said.contains("is pinned as volume"), "{said}");
    assert!(site.read("a.img") == before);
    let said = site.ok("trust status pins");
    for place in [
        "a.img",
        "b.img with its header in",
        "c.qcow2",
        "d.img",
        "e.img",
    ] {
        assert!(said.contains(place), "{place}: {said}");
    }
}

#[test]
fn a_server_goes_on_with_a_reencryption_and_keeps_the_pin() {
    if peers::find("nbdinfo").is_none() {
        return;
    }
    let site = Site::pinned("luks2");
    let begin = format!("reencrypt disk.img --key-file key --init-only --trust pins {CHEAP}");
    site.ok(&begin);
    let socket = site.path("run/socket");
    std::fs::create_dir(site.path("run")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(site.path("run"), mode).unwrap();
    let serve = "serve disk.img --socket run/socket --key-file key --trust pins";
    let serving = Serving::start(&mut site.command(serve), &socket);
    // Meanwhile others may look, whatever is being written.
    for _ in 0..3 {
        site.ok("info disk.img --trust pins");
    }
    serving.stop();
    // It goes on, or the server has ended it and another one begins.
    site.ok(&format!(
        "reencrypt disk.img --key-file key --trust pins {CHEAP}"
    ));
    site.ok("trust verify disk.img --trust pins --key-file key");
}
