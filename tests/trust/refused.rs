//! What other programs and a storage can do to a header.

use std::time::{Duration, Instant};

use luksmith_formats::luks2::{self, Kdf, Keyslot, Position};
use luksmith_formats::{Limits, luks1};
use support::{peers, program};

use crate::site::{CHEAP, NOT_TRUSTED, Site};

/// Checks that the volume is refused with these words, and accepted after `trust accept`.
#[track_caller]
fn refused_until_accepted(site: &Site, words: &[&str]) {
    let said = site.fails(NOT_TRUSTED, "key test disk.img --trust pins --key-file key");
    for words in words {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(
        said.contains("`luksmith trust accept IMAGE --trust DIR`"),
        "{said}"
    );
    let accepted = site.ok("trust accept disk.img --trust pins --key-file key");
    for words in words {
        assert!(accepted.contains(words), "{words}: {accepted}");
    }
    site.ok("key test disk.img --trust pins --key-file key");
}

#[test]
fn changes_of_cryptsetup_are_told_in_words() {
    let Some(cryptsetup) = peers::find("cryptsetup") else {
        return;
    };
    let site = Site::pinned("luks2");
    let run = |words: &str| program::succeeds(&mut site.of(&cryptsetup, words));
    run("-q luksAddKey --key-file key --pbkdf pbkdf2 --pbkdf-force-iterations 1000 disk.img other");
    refused_until_accepted(
        &site,
        &["another program changed it", "keyslot 1 was added"],
    );
    run(
        "-q luksChangeKey --key-file other --pbkdf pbkdf2 --pbkdf-force-iterations 1000 disk.img key",
    );
    refused_until_accepted(&site, &["another program changed it", "keyslot"]);
    site.write("token", br#"{"type": "example", "keyslots": ["0"]}"#);
    run("token import --json-file token disk.img");
    refused_until_accepted(&site, &["token 0 (example) was added"]);
    run("config --label name disk.img");
    refused_until_accepted(&site, &["the label was changed"]);
    run("config --priority prefer --key-slot 0 disk.img");
    refused_until_accepted(&site, &["keyslot 0 was changed"]);
    // Without a change there is nothing to accept, and no passphrase is needed.
    let said = site.ok("trust accept disk.img --trust pins");
    assert!(said.contains("nothing to accept"), "{said}");
}

#[test]
fn changes_of_qemu_are_told_in_words() {
    let (Some(_), Some(qemu)) = (peers::find("cryptsetup"), peers::find("qemu-img")) else {
        return;
    };
    let site = Site::pinned("luks1");
    let amend = "amend --object secret,id=s,file=key --object secret,id=n,file=other --image-opts \
                 driver=luks,key-secret=s,file.filename=disk.img -o state=active,new-secret=n,iter-time=10";
    let mut amend = site.of(
        &qemu,
        &amend.split_whitespace().collect::<Vec<_>>().join(" "),
    );
    peers::run(&mut amend);
    refused_until_accepted(&site, &["keyslot 1 was added"]);
    site.ok("key test disk.img --trust pins --key-file other");
}

#[test]
fn a_rolled_back_header_is_named() {
    let site = Site::pinned("luks2");
    site.copy("disk.img", "old.img");
    site.ok(&format!(
        "key add disk.img --trust pins --key-file key --new-key-file other {CHEAP}"
    ));
    site.ok("key test disk.img --trust pins --key-file other");
    site.copy("old.img", "disk.img");
    let said = site.fails(NOT_TRUSTED, "key test disk.img --trust pins --key-file key");
    assert!(
        said.contains("it was rolled back: its sequence number is"),
        "{said}"
    );
    assert!(said.contains("keyslot 1 was removed"), "{said}");
    let said = site.fails(NOT_TRUSTED, "info disk.img --trust pins --json");
    let event: luksmith_formats::json::Value = said.trim().parse().unwrap();
    assert_eq!(event["kind"].as_str(), Some("not-trusted"));
    assert_eq!(event["exit_code"].as_u64(), Some(7));
}

/// An old header opens with its passphrases, and has the pinned volume key.
#[test]
fn a_rolled_back_header_is_only_accepted_if_it_is_forced() {
    let site = Site::pinned("luks2");
    site.ok(&format!(
        "key add disk.img --trust pins --key-file key --new-key-file other {CHEAP}"
    ));
    site.copy("disk.img", "old.img");
    site.ok("key remove disk.img --trust pins --key-file other");
    let pin = format!("pins/{}/pin", site.uuid("disk.img"));
    let pinned = site.read(&pin);
    site.copy("old.img", "disk.img");
    let accept = "trust accept disk.img --trust pins --key-file";
    for key in ["key", "other"] {
        let said = site.fails(NOT_TRUSTED, &format!("{accept} {key}"));
        assert!(
            said.contains("it was rolled back: its sequence number"),
            "{said}"
        );
        assert!(said.contains("keyslot 1 was added"), "{said}");
        assert!(
            said.contains("passphrases that were removed since"),
            "{said}"
        );
        assert!(said.contains("hint: --force rollback goes on"), "{said}");
    }
    let said = site.fails(NOT_TRUSTED, &format!("{accept} key --json"));
    let event = said.lines().last().unwrap();
    let event: luksmith_formats::json::Value = event.parse().unwrap();
    assert_eq!(event["kind"].as_str(), Some("not-trusted"));
    // A passphrase has to open it all the same.
    site.write("wrong", b"wrong");
    site.fails(2, &format!("{accept} wrong --force rollback"));
    assert!(site.read(&pin) == pinned);
    site.fails(
        NOT_TRUSTED,
        "key test disk.img --trust pins --key-file other",
    );
    site.ok(&format!("{accept} other --force rollback"));
    site.ok("key test disk.img --trust pins --key-file other");
    assert!(site.read(&pin) != pinned);
    // A later header needs no force.
    site.ok("config disk.img --label later");
    site.ok(&format!("{accept} key"));
}

/// LUKS1 has no sequence number: an old header is one in which keyslots are others.
#[test]
fn an_old_header_of_luks1_is_refused() {
    let site = Site::pinned("luks1");
    site.copy("disk.img", "old.img");
    site.ok(&format!(
        "key change disk.img --trust pins --key-file key --new-key-file other {CHEAP}"
    ));
    site.copy("old.img", "disk.img");
    let said = site.fails(NOT_TRUSTED, "key test disk.img --trust pins --key-file key");
    assert!(said.contains("keyslot 0 was"), "{said}");
}

#[test]
fn swapped_headers_are_noticed() {
    let site = Site::pinned("luks2");
    site.create("b.img", "luks2");
    site.ok("trust init b.img --trust pins --key-file key");
    let (a, b) = (site.uuid("disk.img"), site.uuid("b.img"));
    site.copy("disk.img", "a.img");
    // The storage hands out the header of B for A.
    site.copy("b.img", "disk.img");
    let both = format!("is pinned as volume {a}, and its header is that of volume {b}");
    let test = "key test disk.img --trust pins --key-file key";
    let accept = "trust accept disk.img --trust pins --key-file key";
    for command in [test, accept] {
        let said = site.fails(NOT_TRUSTED, command);
        assert!(said.contains(&both), "{command}: {said}");
    }
    // A volume that is not known, at the place of a pinned one.
    site.ok(&format!(
        "create disk.img --size 1M --key-file key --force overwrite {CHEAP}"
    ));
    let other = format!("is pinned as volume {a}, and its header is that of volume");
    let init = "trust init disk.img --trust pins --key-file key";
    for command in [test, accept, init] {
        let said = site.fails(NOT_TRUSTED, command);
        assert!(said.contains(&other), "{command}: {said}");
    }
    // A pinned volume at another place is refused until that place is accepted.
    let said = site.fails(NOT_TRUSTED, "key test a.img --trust pins --key-file key");
    assert!(said.contains("disk.img, and its header is at"), "{said}");
    let said = site.ok("trust accept a.img --trust pins --key-file key");
    assert!(said.contains("it was at"), "{said}");
    site.ok("key test a.img --trust pins --key-file key");
    // Now the old place is free for another volume.
    site.ok(init);
    site.ok(test);
}

/// The UUID is only a name: a volume with the same one and another key is not accepted.
#[test]
fn another_volume_with_the_same_uuid_is_not_accepted() {
    let site = Site::pinned("luks2");
    let uuid = site.uuid("disk.img");
    site.ok(&format!(
        "create disk.img --size 1M --key-file key --uuid {uuid} --force overwrite {CHEAP}"
    ));
    let said = site.fails(NOT_TRUSTED, "key test disk.img --trust pins --key-file key");
    assert!(said.contains("digest 0 was changed"), "{said}");
    let said = site.fails(
        NOT_TRUSTED,
        "trust accept disk.img --trust pins --key-file key",
    );
    assert!(
        said.contains("the volume key is not the one that is pinned"),
        "{said}"
    );
}

#[test]
fn what_is_not_pinned_is_not_known() {
    let site = Site::pinned("luks2");
    site.create("b.img", "luks2");
    for command in ["key test", "trust accept", "trust verify"] {
        let said = site.fails(
            NOT_TRUSTED,
            &format!("{command} b.img --trust pins --key-file key"),
        );
        assert!(said.contains("is not known in pins"), "{said}");
        assert!(
            said.contains("`luksmith trust init IMAGE --trust DIR`"),
            "{said}"
        );
    }
    let said = site.fails(5, "trust init disk.img --trust pins --key-file key");
    assert!(said.contains("is pinned already"), "{said}");
}

/// Puts a header in place of both copies that the storage could have made up.
fn forge(disk: &mut [u8], change: impl FnOnce(&mut luks2::Header)) {
    let parsed = luks2::Header::parse(disk, Position::Primary, &Limits::default());
    let mut header = parsed.unwrap();
    change(&mut header);
    for (position, at) in [(Position::Primary, 0), (Position::Secondary, 16384)] {
        let bytes = header.to_bytes(position, &[7; 64]).unwrap();
        disk[at..at + bytes.len()].copy_from_slice(&bytes);
    }
}

/// A header can state any text as its UUID.
#[test]
fn a_uuid_that_is_none_is_noticed() {
    let site = Site::pinned("luks2");
    let mut disk = site.read("disk.img");
    for uuid in ["", "../other", "no uuid"] {
        forge(&mut disk, |header| header.uuid = uuid.to_owned());
        site.write("disk.img", &disk);
        let test = "key test disk.img --trust pins --key-file key";
        let said = site.fails(NOT_TRUSTED, test);
        assert!(said.contains("disk.img is pinned as volume"), "{said}");
    }
}

/// No key derivation runs for a header that is not the pinned one.
#[test]
fn an_absurd_header_costs_nothing() {
    let quickly = |site: &Site, words: &str| {
        let began = Instant::now();
        let said = site.fails(NOT_TRUSTED, "key test disk.img --trust pins --key-file key");
        // The derivation would take minutes.
        assert!(began.elapsed() < Duration::from_secs(10));
        assert!(said.contains(words), "{said}");
    };
    let site = Site::pinned("luks2");
    let mut disk = site.read("disk.img");
    forge(&mut disk, |header| {
        let Keyslot::Luks2(mut keyslot) = header.metadata.keyslots()[&0].clone() else {
            panic!("another keyslot");
        };
        if let Kdf::Pbkdf2 { iterations, .. } = &mut keyslot.kdf {
            *iterations = Limits::default().pbkdf2_iterations;
        }
        header
            .metadata
            .set_keyslot(0, &Keyslot::Luks2(keyslot))
            .unwrap();
    });
    site.write("disk.img", &disk);
    quickly(&site, "it has the pinned sequence number");

    let site = Site::pinned("luks1");
    let mut disk = site.read("disk.img");
    let mut header = luks1::Header::parse(&disk, &Limits::default()).unwrap();
    header.keyslots[0].iterations = Limits::default().pbkdf2_iterations;
    disk[..592].copy_from_slice(&header.to_bytes());
    site.write("disk.img", &disk);
    quickly(&site, "keyslot 0 was changed");
    (header.cipher_name, header.cipher_mode) = ("cipher_null".into(), "ecb".into());
    disk[..592].copy_from_slice(&header.to_bytes());
    site.write("disk.img", &disk);
    quickly(&site, "segment 0 was changed");
}
