//! `reencrypt`: what it refuses before anything is changed, and that tokens and passphrases stay.

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
    session
        .run("decrypt disk.img again --key-file key".split(' '))
        .fails(4, "reencrypt");
    let other = "reencrypt disk.img --key-file key --cipher aes-xts-plain64";
    session
        .run(other.split(' '))
        .fails(1, "aes-cbc-essiv:sha256");
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
