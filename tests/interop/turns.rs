//! In turns: one program changes keyslots or the header, and the other uses the result and changes
//! it again. The volume key and the payload stay the same.

use crate::cryptsetup::{Cryptsetup, QUICK_ARGON2ID, QUICK_PBKDF2};
use crate::ours;
use crate::payload::{assert_same, file, payload, sparse};
use crate::qemu::Qemu;
use luksmith::Interrupt;
use luksmith::container::{Container, CreateOptions, RestoreOptions, Version, Which};
use luksmith_formats::luks2::Priority;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::peers;

const MIB: u64 = 1 << 20;
const SMALL_LUKS2: &[&str] = &[
    "--type=luks2",
    "--luks2-metadata-size=16k",
    "--luks2-keyslots-size=3m",
    "--offset=8192",
    "--sector-size=512",
];
const LUKS1: &[&str] = &["--type=luks1", "--cipher=aes-xts-plain64", "--key-size=512"];

/// A passphrase with its file.
struct Key {
    bytes: Vec<u8>,
    file: PathBuf,
}

struct Turns {
    cryptsetup: Cryptsetup,
    folder: tempfile::TempDir,
    image: PathBuf,
    payload: Vec<u8>,
}

impl Turns {
    /// A volume that cryptsetup made and we have written. The key `one` opens it in keyslot 0.
    fn theirs(options: &[&[&str]]) -> Option<(Self, Key)> {
        let cryptsetup = Cryptsetup::find()?;
        let folder = tempfile::tempdir().unwrap();
        let image = sparse(folder.path(), "image", 5 * MIB);
        let turns = Self {
            cryptsetup,
            folder,
            image,
            payload: Vec::new(),
        };
        let one = turns.key("one");
        turns.cryptsetup.format(&turns.image, &one.file, options);
        let volume = ours::volume(&turns.image, None, &one.bytes);
        let payload = payload(11, usize::try_from(volume.size()).unwrap());
        ours::write_all(&volume, &payload);
        Some((Self { payload, ..turns }, one))
    }

    fn key(&self, name: &str) -> Key {
        let bytes = format!("\0{name}\n").into_bytes();
        Key {
            file: file(self.folder.path(), name, &bytes),
            bytes,
        }
    }

    /// Checks that both programs say that the key opens this keyslot, or none.
    fn both_find(&self, key: &Key, slot: Option<u32>) {
        assert_eq!(
            ours::slot_of(&self.image, &key.bytes),
            slot,
            "ours: {:?}",
            key.file
        );
        let theirs = self.cryptsetup.slot_of(&self.image, &key.file, &[]);
        assert_eq!(theirs, slot, "theirs: {:?}", key.file);
    }

    fn run(&self, verb: &str, args: &[&str]) {
        self.cryptsetup
            .run(verb, &[&[self.image.to_str().unwrap()], args].concat());
    }

    fn payload_is_whole(&self, key: &Key) {
        let volume = ours::volume(&self.image, None, &key.bytes);
        assert_same(&self.payload, &ours::read_all(&volume), "the payload");
        drop(volume);
        let container = ours::open(&self.image);
        let unlocked = ours::unlock(&container, &key.bytes);
        drop(container);
        let theirs = self.cryptsetup.volume_key(&self.image, &key.file);
        assert!(unlocked.key().as_bytes() == theirs, "the volume key");
    }
}

#[test]
fn keyslots_in_turns() {
    for (options, last) in [
        ([LUKS1, QUICK_PBKDF2], 7),
        ([SMALL_LUKS2, QUICK_ARGON2ID], 31),
    ] {
        let Some((turns, one)) = Turns::theirs(&options) else {
            return;
        };
        let image = &turns.image;
        let [two, three, four, five] = ["two", "three", "four", "five"].map(|name| turns.key(name));
        // We add a key by theirs, they add one by ours, and so on.
        assert_eq!(
            ours::add_keyslot(image, &one.bytes, &two.bytes, Some(last)),
            last
        );
        turns.both_find(&two, Some(last));
        let at = ["--key-slot=4"];
        turns
            .cryptsetup
            .add_key(image, &two.file, &three.file, &[&at, QUICK_PBKDF2]);
        turns.both_find(&three, Some(4));
        // Both may move a LUKS1 keyslot when they change it.
        let slot = ours::change_keyslot(image, &three.bytes, &four.bytes, None);
        turns.both_find(&four, Some(slot));
        turns.both_find(&three, None);
        turns
            .cryptsetup
            .change_key(image, &four.file, &five.file, &[QUICK_PBKDF2]);
        turns.both_find(&four, None);
        let slot = ours::slot_of(image, &five.bytes).expect("their change opens");
        turns.both_find(&five, Some(slot));
        // Removed.
        ours::open(image).remove_keyslot(slot, false).unwrap();
        turns.both_find(&five, None);
        turns.cryptsetup.remove_key(image, &one.file);
        turns.both_find(&one, None);
        turns.both_find(&two, Some(last));
        turns.payload_is_whole(&two);
        // All keyslots are gone.
        ours::open(image).erase().unwrap();
        turns.both_find(&two, None);
        assert_eq!(ours::open(image).keyslots().len(), 0);
    }
}

/// Every keyslot number, made in turns by each program, opens in both.
#[test]
fn every_keyslot_in_turns() {
    let mut large = SMALL_LUKS2.to_vec();
    large[2] = "--luks2-keyslots-size=8m";
    large[3] = "--offset=18432";
    for (options, count, size) in [
        ([LUKS1, QUICK_PBKDF2], 8, 3),
        ([&large, QUICK_PBKDF2], 32, 10),
    ] {
        let Some(cryptsetup) = Cryptsetup::find() else {
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        let image = sparse(folder.path(), "image", size * MIB);
        let keys: Vec<_> = (0..count)
            .map(|slot| format!("key of {slot}"))
            .map(|text| (file(folder.path(), &text, text.as_bytes()), text))
            .collect();
        cryptsetup.format(&image, &keys[0].0, &options);
        for (slot, (path, text)) in (0..).zip(&keys).skip(1) {
            if slot % 2 == 0 {
                let at = format!("--key-slot={slot}");
                cryptsetup.add_key(&image, &keys[0].0, path, &[&[&at], QUICK_PBKDF2]);
            } else {
                ours::add_keyslot(&image, keys[0].1.as_bytes(), text.as_bytes(), Some(slot));
            }
        }
        for (slot, (path, text)) in (0..).zip(&keys) {
            let passphrase = ours::passphrase(text.as_bytes());
            ours::open(&image)
                .unlock(&passphrase, Which::Slot(slot), &Interrupt::default())
                .unwrap();
            let at = format!("--key-slot={slot}");
            assert_eq!(cryptsetup.slot_of(&image, path, &[&[&at]]), Some(slot));
        }
    }
}

#[test]
fn priorities_and_labels_in_turns() {
    let Some((turns, one)) = Turns::theirs(&[SMALL_LUKS2, QUICK_PBKDF2]) else {
        return;
    };
    let two = turns.key("two");
    ours::add_keyslot(&turns.image, &one.bytes, &two.bytes, Some(1));
    let priority =
        |slot: &str| turns.cryptsetup.json(&turns.image)["keyslots"][slot]["priority"].as_u64();
    ours::open(&turns.image)
        .set_priority(0, Priority::Ignore)
        .unwrap();
    assert_eq!(priority("0"), Some(0));
    turns.both_find(&one, None);
    turns.run("config", &["--key-slot=1", "--priority=prefer"]);
    let listed = |slot: usize| ours::open(&turns.image).keyslots()[slot].priority;
    assert_eq!(listed(1), Priority::Prefer);
    ours::open(&turns.image)
        .set_priority(1, Priority::Normal)
        .unwrap();
    turns.run("config", &["--key-slot=0", "--priority=normal"]);
    assert_eq!([listed(0), listed(1)], [Priority::Normal; 2]);
    turns.both_find(&one, Some(0));

    turns.run("config", &["--label=theirs", "--subsystem=sub"]);
    let change = luksmith::container::Configure::new().label("ours".to_owned());
    ours::open(&turns.image).configure(&change).unwrap();
    let dump = turns.cryptsetup.dump(&turns.image);
    assert!(dump.contains("Label:         \tours\n"), "{dump}");
    assert!(dump.contains("Subsystem:     \tsub\n"), "{dump}");
    turns.payload_is_whole(&one);
}

/// There and back, by each of the two in both directions.
#[test]
fn conversion_in_turns() {
    let Some((turns, one)) = Turns::theirs(&[LUKS1, QUICK_PBKDF2]) else {
        return;
    };
    let (two, three) = (turns.key("two"), turns.key("three"));
    ours::open(&turns.image).convert(Version::Luks2).unwrap();
    turns.both_find(&one, Some(0));
    turns.payload_is_whole(&one);
    turns.cryptsetup.add_key(
        &turns.image,
        &one.file,
        &two.file,
        &[&["--key-slot=3"], QUICK_PBKDF2],
    );
    turns.run("convert", &["--type=luks1"]);
    turns.both_find(&two, Some(3));
    turns.payload_is_whole(&two);
    ours::add_keyslot(&turns.image, &one.bytes, &three.bytes, Some(7));
    turns.run("convert", &["--type=luks2"]);
    turns.both_find(&three, Some(7));
    turns.payload_is_whole(&three);
    ours::open(&turns.image).convert(Version::Luks1).unwrap();
    for (key, slot) in [(&one, 0), (&two, 3), (&three, 7)] {
        turns.both_find(key, Some(slot));
    }
    turns.payload_is_whole(&one);
}

/// Each program restores a backup that the other made.
#[test]
fn backups_in_turns() {
    for options in [[LUKS1, QUICK_PBKDF2], [SMALL_LUKS2, QUICK_PBKDF2]] {
        let Some((turns, one)) = Turns::theirs(&options) else {
            return;
        };
        let two = turns.key("two");
        let theirs = turns.folder.path().join("their-backup");
        let backup_file = format!("--header-backup-file={}", theirs.display());
        turns.run("luksHeaderBackup", &[&backup_file]);
        let ours = ours::open(&turns.image).backup().unwrap();
        assert_same(&std::fs::read(&theirs).unwrap(), &ours, "the two backups");

        ours::change_keyslot(&turns.image, &one.bytes, &two.bytes, None);
        turns.both_find(&one, None);
        let backup = std::fs::read(&theirs).unwrap();
        let options = ours::options(&turns.image);
        Container::restore(
            ours::storage(&turns.image),
            &backup,
            RestoreOptions::new(),
            options,
        )
        .unwrap();
        turns.both_find(&one, Some(0));
        turns.both_find(&two, None);
        turns.payload_is_whole(&one);

        turns
            .cryptsetup
            .change_key(&turns.image, &one.file, &two.file, &[QUICK_PBKDF2]);
        turns.both_find(&one, None);
        let our_file = file(turns.folder.path(), "our-backup", &ours);
        turns.run(
            "luksHeaderRestore",
            &[&format!("--header-backup-file={}", our_file.display())],
        );
        turns.both_find(&one, Some(0));
        turns.both_find(&two, None);
        turns.payload_is_whole(&one);
    }
}

/// `qemu-img amend` changes keyslots that we made, and we change those that it made.
#[test]
fn qemu_amends_in_turns() {
    let Some(qemu) = Qemu::find() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let [one, two, three] =
        ["one", "two", "three"].map(|name| file(folder.path(), name, name.as_bytes()));
    let image = sparse(folder.path(), "image", 3 * MIB);
    let (_, unlocked) = ours::create(
        &image,
        b"one",
        CreateOptions::new(Version::Luks1, ours::QUICK),
    );
    let plain = payload(5, 1 << 20);
    ours::write_all(&ours::volume(&image, None, b"one"), &plain);

    amend(
        &image,
        &one,
        &two,
        "state=active,new-secret=new,keyslot=5,iter-time=10",
    );
    assert_eq!(ours::slot_of(&image, b"two"), Some(5));
    assert_eq!(ours::add_keyslot(&image, b"two", b"three", Some(2)), 2);
    assert_same(
        &plain,
        &qemu.convert_out(&image, &three),
        "opened by our keyslot",
    );
    amend(&image, &three, &one, "state=inactive,old-secret=new");
    assert_eq!(ours::slot_of(&image, b"one"), None);
    let slot = ours::change_keyslot(&image, b"two", b"one", None);
    assert_eq!(ours::slot_of(&image, b"one"), Some(slot));
    assert_same(
        &plain,
        &qemu.convert_out(&image, &one),
        "opened by our changed keyslot",
    );
    ours::open(&image).remove_keyslot(2, false).unwrap();
    amend(
        &image,
        &one,
        &three,
        "state=active,new-secret=new,iter-time=10",
    );
    let container = ours::open(&image);
    assert!(
        ours::unlock(&container, b"three")
            .key()
            .ct_eq(unlocked.key())
    );
    container
        .unlock(&ours::passphrase(b"two"), Which::Any, &Interrupt::default())
        .unwrap_err();
}

/// `new` is the secret that the options name.
fn amend(image: &Path, key: &Path, new: &Path, options: &str) {
    let secret = |id: &str, path: &Path| format!("secret,id={id},file={}", path.display());
    let mut command = Command::new(peers::find("qemu-img").expect("it was found before"));
    command.args([
        "amend",
        "--object",
        &secret("key", key),
        "--object",
        &secret("new", new),
    ]);
    command.args(["-o", options, "--image-opts"]);
    let file = image.display();
    command.arg(format!(
        "driver=luks,key-secret=key,file.driver=file,file.filename={file}"
    ));
    // On a busy machine its calibration fails at times, as when it makes images.
    for _ in 0..20 {
        let output = peers::output(&mut command);
        let error = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            return;
        }
        assert!(
            error.contains("accurate CPU usage"),
            "{command:?} failed: {error}"
        );
    }
    panic!("{command:?} never got an accurate CPU usage");
}
