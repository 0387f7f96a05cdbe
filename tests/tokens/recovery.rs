//! Recovery keys of systemd-cryptenroll and ours.

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Stdio};

use luksmith_formats::json::json;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use support::peers;
use support::secret_search::SecretSearch;

use crate::site::Site;

#[test]
fn a_recovery_key_of_ours_is_as_one_of_systemd() {
    let (Some(_), Some(_)) = (
        peers::find("systemd-cryptenroll"),
        peers::find("cryptsetup"),
    ) else {
        return peers::skip("systemd-cryptenroll");
    };
    let site = Site::new();
    let added = site.luksmith("key add disk.img --key-file key --recovery-key --out ours");
    assert_eq!(added, "keyslot 1 added, with token 0\n");
    let mut enroll = site.command("systemd-cryptenroll", "--recovery-key disk.img");
    let theirs = peers::run(enroll.env("PASSWORD", "a passphrase"));
    site.write("theirs", theirs.trim_ascii());

    let expected = |slot: &str| json!({"type": "systemd-recovery", "keyslots": [slot]});
    assert_eq!(site.token(0), expected("1"));
    assert_eq!(site.token(1), expected("2"));
    // The same derivation of both keyslots.
    let info = site.luksmith("info disk.img --json");
    assert!(info.matches("sha512").count() >= 2, "{info}");
    assert!(info.matches(": 1000").count() >= 3, "{info}");

    for (file, slot, token) in [("ours", 1, 0), ("theirs", 2, 1)] {
        let test = format!("open --test-passphrase --key-file {file} --key-slot {slot} disk.img");
        site.run("cryptsetup", &test);
        let text = std::fs::read_to_string(site.path(file)).unwrap();
        assert_eq!(text.len(), 71);
        let plain = text.replace('-', "").to_uppercase();
        site.write("plain", plain.as_bytes());
        let opens = format!("keyslot {slot} opens the volume, by token {token}\n");
        for key in [file, "plain"] {
            let line = format!("key test disk.img --token-type systemd-recovery --key-file {key}");
            // A warning may follow: the other key opens no keyslot of the first token.
            let printed = site.luksmith(&line);
            assert!(printed.starts_with(&opens), "{printed}");
        }
        // Without the option the text is a passphrase, as it is.
        site.refused("key test disk.img --key-file plain");
    }
}

#[test]
fn what_cannot_be_done_with_a_token_is_refused_by_name() {
    let site = Site::new();
    site.luksmith("key add disk.img --key-file key --recovery-key --out recovery");
    site.import(&json!({"type": "systemd-fido2", "keyslots": ["0"]}));
    site.import(&json!({"type": "luks2-keyring", "keyslots": [], "key_description": "x"}));
    site.luksmith(
        "create luks1.img --type luks1 --size 1M --key-file key --pbkdf-force-iterations 1000",
    );
    for (line, code, expected) in [
        ("key test disk.img --token 7", 1, "no token 7"),
        (
            "key test disk.img --token 1",
            1,
            "type systemd-fido2, which is not known",
        ),
        (
            "key test disk.img --token 2",
            1,
            "token 2 is for no keyslot",
        ),
        (
            "key test disk.img --token-type fido2",
            1,
            "the types are luks2-keyring",
        ),
        (
            "key test disk.img --token-type clevis",
            1,
            "the header has systemd-recovery",
        ),
        ("key test luks1.img --token 0", 1, "LUKS1 has no tokens"),
        (
            "key test disk.img --token 0 --key-file key",
            2,
            "not a recovery key",
        ),
        (
            "key test disk.img --token 0 --keyslot 0 --key-file recovery",
            1,
            "no keyslot",
        ),
        (
            "key change disk.img --token 0 --key-file recovery",
            1,
            "no longer open",
        ),
        (
            "copy disk.img new.img --token 0 --key-file recovery",
            1,
            "--new-key SOURCE",
        ),
        (
            "key add disk.img --key-file key --recovery-key",
            1,
            "only on a terminal",
        ),
        (
            "key add luks1.img --key-file key --recovery-key --out x",
            1,
            "LUKS1 has no tokens",
        ),
        (
            "key add disk.img --key-file key --recovery-key --out key",
            5,
            "exists",
        ),
    ] {
        let (exit, error) = site.refused(line);
        assert_eq!(exit, code, "{line}: {error}");
        assert!(error.contains(expected), "{line}: {error}");
    }
    let opened = site.luksmith("key test disk.img --token 0 --key-file recovery --json");
    assert!(opened.contains("\"token\": 0"), "{opened}");
    let opened = site.luksmith("key test disk.img --key-file key --json");
    assert!(opened.contains("\"token\": null"), "{opened}");
}

/// A recovery key on stdout has not passed through a buffer that is no locked memory.
#[test]
fn a_recovery_key_on_stdout_was_only_in_locked_memory() {
    let site = Site::new();
    // The program cannot end, since the pipe of its last message is full.
    let (rest, mut messages) = io::pipe().unwrap();
    let flags = fcntl_getfl(&messages).unwrap();
    fcntl_setfl(&messages, flags | OFlags::NONBLOCK).unwrap();
    while messages.write(&[b'x'; 4096]).is_ok() {}
    while messages.write(b"x").is_ok() {}
    fcntl_setfl(&messages, flags).unwrap();
    let line = "key add disk.img --key-file key --recovery-key --out -";
    let mut command = site.command("luksmith", line);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(messages)
        .spawn()
        .unwrap();
    drop(command);
    let mut key = [0; 71];
    let stdout = child.stdout.as_mut().unwrap();
    stdout.read_exact(&mut key).unwrap();
    let found = found_in(&child, &key);
    assert!(child.try_wait().unwrap().is_none(), "it has ended");
    drop(rest);
    child.wait().unwrap();
    match found {
        Some([locked, other]) => {
            assert!(locked > 0, "the search finds nothing");
            assert_eq!(other, 0, "pieces of the key");
        }
        None => peers::skip("the right to read the memory of a process"),
    }
}

/// How many pieces of a secret are in the locked memory of a process, and in its other memory.
fn found_in(child: &Child, secret: &[u8]) -> Option<[usize; 2]> {
    let folder = format!("/proc/{}", child.id());
    let memory = std::fs::File::open(format!("{folder}/mem")).ok()?;
    let maps = std::fs::read_to_string(format!("{folder}/smaps")).ok()?;
    let search = SecretSearch::new(vec![("the key", secret)]);
    let (mut found, mut range) = ([0; 2], None);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        if let Some((start, end)) = first.split_once('-')
            && let (Some(start), Some(end)) = (hex(start), hex(end))
        {
            let is_writable = words.next().is_some_and(|mode| mode.starts_with("rw"));
            range = is_writable.then_some((start, end));
        } else if first == "VmFlags:"
            && let Some((start, end)) = range.take()
        {
            let is_locked = words.any(|flag| flag == "lo");
            let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
            // Some pages cannot be read. They have no data of the program.
            if memory.read_exact_at(&mut bytes, start).is_ok() {
                found[usize::from(!is_locked)] += search.found_in(&bytes).len();
            }
        }
    }
    Some(found)
}
