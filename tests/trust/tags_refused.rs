//! What would not keep tags up is refused, with what to do instead, and changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::site::{CHEAP, Site};

/// Every file below a folder, with its content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => {
                found.insert(path.clone(), fs::read(path).unwrap());
            }
        }
    }
    found
}

/// Fails unless a command is refused with these words, and changes nothing.
#[track_caller]
fn refused(site: &Site, code: i32, command: &str, words: &[&str]) {
    let before = files(&site.path(""));
    let said = site.fails(code, command);
    for words in words {
        assert!(said.contains(words), "{command}: {words}: {said}");
    }
    let after = files(&site.path(""));
    assert!(before.keys().eq(after.keys()), "{command}");
    for (path, content) in before {
        assert!(content == after[&path], "{command}: {}", path.display());
    }
}

fn tagged(kind: &str) -> Site {
    let site = Site::new();
    site.create("disk.img", kind);
    site.ok("trust init disk.img --trust pins --tags --key-file key");
    let mut folder = fs::DirBuilder::new();
    folder.mode(0o700).create(site.path("s")).unwrap();
    site.write("mounted", b"");
    site
}

/// The hint that goes with each of them.
const ANEW: &str = "remove tags, tags.0 and tags.1 from the folder of its UUID in DIR, and run \
                    `luksmith trust init IMAGE --trust DIR --tags` after it";

#[test]
fn what_would_not_keep_the_tags_up_is_refused() {
    let site = tagged("luks2");
    for (code, command, words) in [
        (
            5,
            "trust init disk.img --tags",
            &[
                "has tags already",
                "hint: remove tags, tags.0 and tags.1 from the folder of its UUID in DIR to make",
            ][..],
        ),
        (
            4,
            "reencrypt disk.img",
            &[
                "a reencryption is not possible for a volume with tags",
                ANEW,
            ],
        ),
        (
            4,
            "reencrypt disk.img --init-only --cipher aes-cbc-essiv:sha256",
            &[
                "a reencryption is not possible for a volume with tags",
                ANEW,
            ],
        ),
        (
            4,
            "serve disk.img --socket s/nbd.sock --control s/control",
            &[
                "the control of a reencryption is not possible for a volume with tags",
                "hint: leave --control out",
                ANEW,
            ],
        ),
        (
            4,
            "mount disk.img mounted --control s/control",
            &[
                "the control of a reencryption is not possible for a volume with tags",
                "hint: leave --control out",
            ],
        ),
        (
            4,
            "dm-table disk.img --create luksmith-test-tags",
            &[
                "a device of the kernel is not possible for a volume with tags",
                "hint: `luksmith serve` decrypts it",
                ANEW,
            ],
        ),
        (
            4,
            "dm-table disk.img --load-key",
            &["a device of the kernel is not possible for a volume with tags"],
        ),
    ] {
        let command = format!("{command} --trust pins --key-file key");
        refused(&site, code, &command, words);
    }
    // These need no passphrase.
    for (command, words) in [
        (
            "resize disk.img --size 2M",
            &["another size is not possible for a volume with tags", ANEW][..],
        ),
        (
            "resize disk.img --size 512K --force shrink",
            &["another size is not possible for a volume with tags"],
        ),
        (
            "dm-table disk.img",
            &["a device of the kernel is not possible for a volume with tags"],
        ),
    ] {
        refused(&site, 4, &format!("{command} --trust pins"), words);
    }
    // The keyslots can change, and so can the version.
    site.ok(&format!(
        "key add disk.img --trust pins --key-file key --new-key-file other {CHEAP}"
    ));
    site.ok("trust verify disk.img --trust pins --key-file other");
    site.ok("convert disk.img --to luks1 --force convert --trust pins");
    let said = site.ok("trust verify disk.img --trust pins --key-file other");
    assert!(said.contains("of data are as they were written"), "{said}");
}

/// QEMU decrypts LUKS1 itself, and knows no tags.
#[test]
fn qemu_does_not_open_a_volume_with_tags() {
    let site = tagged("luks1");
    refused(
        &site,
        4,
        "qemu args disk.img --trust pins --key-file key",
        &[
            "decryption by QEMU is not possible for a volume with tags",
            "`luksmith qemu args IMAGE --served PATH`",
            ANEW,
        ],
    );
    site.ok("qemu args disk.img --key-file key");
}

#[test]
fn a_volume_that_can_have_no_tags_gets_none() {
    let site = Site::new();
    site.ok(&format!(
        "create vm.qcow2 --format qcow2 --size 1M --key-file key {CHEAP}"
    ));
    site.create("disk.img", "luks2");
    site.ok(&format!(
        "reencrypt disk.img --key-file key --init-only {CHEAP}"
    ));
    site.ok("trust init disk.img --trust pins --key-file key");
    for tags in ["--tags", "--tags=fresh"] {
        refused(
            &site,
            4,
            &format!("trust init vm.qcow2 --format qcow2 --trust pins {tags} --key-file key"),
            &[
                "vm.qcow2: the clusters of a qcow2 image have no tags",
                "hint: `luksmith copy IMAGE NEW --source-format qcow2 --trust DIR`",
            ],
        );
        refused(
            &site,
            4,
            &format!("trust init disk.img --trust pins {tags} --key-file key"),
            &[
                "disk.img: a reencryption of the volume is in progress",
                "hint: `luksmith reencrypt IMAGE` finishes it first",
            ],
        );
    }
    // What the hints say.
    site.ok(&format!(
        "copy vm.qcow2 raw.img --source-format qcow2 --trust pins --key-file key {CHEAP}"
    ));
    site.ok(&format!(
        "reencrypt disk.img --trust pins --key-file key {CHEAP}"
    ));
    for name in ["raw.img", "disk.img"] {
        site.ok(&format!(
            "trust init {name} --trust pins --tags --key-file key"
        ));
        site.ok(&format!("trust verify {name} --trust pins --key-file key"));
    }
}
