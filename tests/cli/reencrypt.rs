//! `reencrypt`: what it refuses before anything is changed, and that tokens and passphrases stay.

use std::time::{Duration, Instant};

use crate::session::{CHEAP, Session};

/// A volume with the passphrases of `key` and `other`, and a token for the first one.
fn volume() -> Session {
    let session = Session::new();
    session.write(
        "plain",
        &(0..251).cycle().take(3 << 20).collect::<Vec<u8>>(),
    );
    session.write("token", b"{\"type\": \"example\", \"keyslots\": [\"0\"]}");
    let encrypt = "encrypt plain disk.img --sector-size 512 --key-file key";
    session.ok(encrypt.split(' ').chain(CHEAP));
    let add = "key add disk.img --key-file key --new-key-file other";
    session.ok(add.split(' ').chain(CHEAP));
    session.ok("token import disk.img --json-file token".split(' '));
    session
}

fn is_whole(session: &Session, key: &str) {
    let decrypt = format!("decrypt disk.img again --key-file {key} --force overwrite");
    session.ok(decrypt.split(' '));
    assert!(session.read("again") == session.read("plain"), "{key}");
}

#[test]
fn passphrases_and_tokens_stay() {
    let session = volume();
    let reencrypt = "reencrypt disk.img --key-file key --key-file other";
    session.ok(reencrypt.split(' ').chain(CHEAP));
    is_whole(&session, "key");
    is_whole(&session, "other");
    let list = session.ok(["token", "list", "disk.img", "--json"]);
    let slots = session.ok("key test disk.img --key-file key --json".split(' '));
    let slot = slots.split("\"keyslot\": ").nth(1).unwrap();
    let slot = slot.split(',').next().unwrap();
    let list: String = list.split_whitespace().collect();
    assert!(
        list.contains(&format!("\"keyslots\":[{slot}]")),
        "{slot}: {list}"
    );
}

#[test]
fn what_would_be_lost_is_refused_first() {
    let session = volume();
    let before = session.read("disk.img");
    let refused = |args: &str, code: i32, said: &str| {
        let args = format!("reencrypt {args}");
        session.run(args.split(' ').chain(CHEAP)).fails(code, said);
    };
    refused("disk.img --key-file key", 1, "--drop-other-keyslots");
    refused(
        "disk.img --key-file key --resume",
        1,
        "no reencryption is in progress",
    );
    refused(
        "disk.img --key-file key --sector-size 4096",
        1,
        "--force sector-size",
    );
    refused("disk.img --key-file key --key-size 320", 1, "--key-size");
    refused("disk.img --key-file plain", 2, "no keyslot opens");
    session.ok("create old.img --type luks1 --size 1M --key-file key"
        .split(' ')
        .chain(CHEAP));
    refused("old.img --key-file key", 4, "luksmith copy");
    assert!(session.read("disk.img") == before, "written");
}

#[test]
fn a_stopped_one_goes_on_with_the_same_parameters() {
    let session = volume();
    let begin = "reencrypt disk.img --key-file key --drop-other-keyslots --init-only --cipher \
                 aes-cbc-essiv:sha256";
    session.ok(begin.split(' ').chain(CHEAP));
    // As it is, it can be read, with a passphrase that opens both keys.
    is_whole(&session, "key");
    session
        .run("decrypt disk.img again --key-file other --force overwrite".split(' '))
        .fails(2, "new volume key");
    let other = "reencrypt disk.img --key-file key --cipher aes-xts-plain64";
    session
        .run(other.split(' '))
        .fails(1, "aes-cbc-essiv:sha256");
    let begun = session.read("disk.img");
    let progress = "the reencryption in progress has";
    for (differs, said) in [
        ("--key-size 128", format!("key-size: {progress} 256 bits")),
        ("--sector-size 4096", format!("sector-size: {progress} 512")),
        ("--hash sha512", format!("hash: {progress} sha256")),
        ("--pbkdf argon2id", format!("pbkdf: {progress} pbkdf2")),
        (
            "--resilience checksum",
            format!("resilience: {progress} journal"),
        ),
        (
            "--resilience-hash sha512",
            format!("resilience-hash: {progress} resilience journal"),
        ),
        (
            "--cipher aes-cbc-essiv:sha256 --hash sha512 --sector-size 4096",
            format!("sector-size: {progress} 512; hash: it has sha256"),
        ),
    ] {
        let differs = format!("reencrypt disk.img --key-file key {differs}");
        session.run(differs.split(' ')).fails(1, &said);
        let ran = session.run(differs.split(' '));
        ran.fails(1, "without the options that differ");
        assert!(session.read("disk.img") == begun, "{differs}: written");
    }
    session
        .run("reencrypt disk.img --key-file other".split(' '))
        .fails(2, "new volume key");
    session.ok("reencrypt disk.img --key-file key --resume".split(' '));
    is_whole(&session, "key");
    session
        .run("key test disk.img --key-file other".split(' '))
        .fails(2, "no keyslot");
    let info = session.ok(["info", "disk.img"]);
    assert!(info.contains("aes-cbc-essiv:sha256"), "{info}");
}

#[test]
fn parameters_that_cannot_be_used_change_nothing() {
    let session = volume();
    let before = session.read("disk.img");
    let refused = |args: &str, said: &str| {
        let args = format!("reencrypt disk.img --key-file key --drop-other-keyslots {args}");
        session.run(args.split(' ').chain(CHEAP)).fails(1, said);
        assert!(session.read("disk.img") == before, "{args}: written");
    };
    refused("--zone-size 0", "zone-size: at least 512 bytes");
    refused("--zone-size 511", "zone-size: at least 512 bytes");
    refused(
        "--zone-size 513 --sector-size 4096 --force sector-size",
        "zone-size: at least 4096 bytes",
    );
    refused("--resilience-hash sha512", "resilience-hash");
    refused("--resilience checksum --resilience-hash sha4", "sha4");

    let begin = "reencrypt disk.img --key-file key --drop-other-keyslots --init-only";
    session.ok(begin.split(' ').chain(CHEAP));
    let begun = session.read("disk.img");
    session
        .run("reencrypt disk.img --key-file key --zone-size 1".split(' '))
        .fails(1, "zone-size: at least 512 bytes");
    assert!(session.read("disk.img") == begun, "written");
    session.ok("reencrypt disk.img --key-file key".split(' '));
    is_whole(&session, "key");
}

#[test]
fn every_hash_makes_checksums() {
    let session = volume();
    for hash in [
        "sha512",
        "ripemd160",
        "whirlpool",
        "sm3",
        "sha3-256",
        "blake2b-512",
    ] {
        let reencrypt = format!(
            "reencrypt disk.img --key-file key --drop-other-keyslots --resilience checksum \
             --zone-size 1M --resilience-hash {hash}"
        );
        session.ok(reencrypt.split(' ').chain(CHEAP));
        is_whole(&session, "key");
    }
}

/// The old keyslots, the new ones and that of the reencryption have 32 numbers.
#[test]
fn fifteen_keyslots_can_have_successors() {
    let session = volume();
    let passphrases: Vec<_> = (2..16).map(|number| format!("key{number}")).collect();
    let mut keys = vec!["key".to_owned(), "other".to_owned()];
    for name in &passphrases {
        session.write(name, name.as_bytes());
        let add = format!("key add disk.img --key-file key --new-key-file {name}");
        session.ok(add.split(' ').chain(CHEAP));
        keys.push(name.clone());
    }
    let reencrypt = |keys: &[String]| {
        let keys = keys.iter().flat_map(|key| ["--key-file", key]);
        let args = ["reencrypt", "disk.img"].into_iter().chain(keys);
        session.run(args.chain(CHEAP))
    };
    assert_eq!(keys.len(), 16);
    let before = session.read("disk.img");
    let ran = reencrypt(&keys);
    ran.fails(4, "no free keyslot number");
    ran.fails(4, "--drop-other-keyslots");
    assert!(session.read("disk.img") == before, "written");
    let last = keys.pop().unwrap();
    let remove = format!("key remove disk.img --key-file {last}");
    session.ok(remove.split(' '));
    let ran = reencrypt(&keys);
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    is_whole(&session, "key14");
}

/// A killed program leaves a zone hot. `header repair` recovers it with a passphrase, and converts
/// nothing else.
#[test]
fn a_repair_recovers_the_zone_of_an_interrupted_one() {
    let session = volume();
    let slow = "reencrypt disk.img --key-file key --drop-other-keyslots --resilience checksum \
                --zone-size 64K --rate 1K";
    let mut child = session
        .command(slow.split(' ').chain(CHEAP))
        .spawn()
        .unwrap();
    let is_hot = || {
        let metadata = session.ok("info disk.img --dump-json-metadata --force-share".split(' '));
        metadata.contains("in-reencryption")
    };
    let end = Instant::now() + Duration::from_secs(120);
    while !is_hot() {
        assert!(Instant::now() < end && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = session.read("disk.img");
    let hinted = session.run(["header", "repair", "disk.img"]);
    assert_eq!(hinted.code(), 0, "{}", hinted.stderr());
    assert!(
        hinted.stderr().contains("luksmith reencrypt disk.img"),
        "{}",
        hinted.stderr()
    );
    session
        .run("header repair disk.img --key-file other".split(' '))
        .fails(2, "new volume key");
    assert!(session.read("disk.img") == before && is_hot());
    let repaired = session.ok("header repair disk.img --key-file key".split(' '));
    assert!(repaired.contains("the zone in which"), "{repaired}");
    assert!(!is_hot());
    let info = session.ok(["info", "disk.img"]);
    assert!(info.contains("64 KiB of 3 MiB converted"), "{info}");
    assert!(!info.contains("cannot be opened"), "{info}");
    is_whole(&session, "key");
    session.ok("reencrypt disk.img --key-file key".split(' '));
    is_whole(&session, "key");
}
