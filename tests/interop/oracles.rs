//! The peers compared with each other. All comparisons with a peer depend on these.

use crate::cryptsetup::{Cryptsetup, QUICK_ARGON2I, QUICK_ARGON2ID, QUICK_PBKDF2};
use crate::dmcrypt::{DmCrypt, Job, Outcome};
use crate::payload::{assert_same, file, payload, sparse};
use crate::qemu::Qemu;

const KEY: &[u8] = b"correct horse battery staple";
const MIB: u64 = 1 << 20;

/// cryptsetup makes volumes, dm-crypt writes them in one boot and reads them in the next. A wrong
/// key, and another payload than the written one, are told from the right ones.
#[test]
fn dm_crypt_writes_and_reads_what_cryptsetup_makes() {
    let (Some(cryptsetup), Some(machine)) = (Cryptsetup::find(), DmCrypt::find()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let key = file(folder.path(), "key", KEY);

    let luks2 = sparse(folder.path(), "luks2", 20 * MIB);
    let sectors: &[&str] = &["--type", "luks2", "--sector-size", "4096"];
    cryptsetup.format(&luks2, &key, &[sectors, QUICK_ARGON2ID]);
    let luks1 = sparse(folder.path(), "luks1", 3 * MIB);
    let essiv: &[&str] = &[
        "--type",
        "luks1",
        "--cipher",
        "aes-cbc-essiv:sha256",
        "--key-size",
        "256",
    ];
    cryptsetup.format(&luks1, &key, &[essiv, QUICK_PBKDF2]);
    let detached = sparse(folder.path(), "detached", MIB);
    let header = sparse(folder.path(), "header", 16 * MIB);
    let at = [
        "--type",
        "luks2",
        "--header",
        header.to_str().unwrap(),
        "--cipher",
        "aes-xts-plain",
    ];
    cryptsetup.format(&detached, &key, &[&at, QUICK_ARGON2I]);

    let plain2 = payload(2, 4 * 1024 * 1024);
    let plain1 = payload(1, 1024 * 1024);
    let plain0 = payload(0, 1024 * 1024);
    let input2 = file(folder.path(), "plain2", &plain2);
    let input1 = file(folder.path(), "plain1", &plain1);
    let input0 = file(folder.path(), "plain0", &plain0);
    let wrote = machine.run(&[
        Job::write(&luks2, KEY, &input2),
        Job::write(&luks1, KEY, &input1),
        Job::write(&detached, KEY, &input0).with_header(&header),
    ]);
    let expected = [
        Outcome::of(&plain2),
        Outcome::of(&plain1),
        Outcome::of(&plain0),
    ];
    assert_eq!(wrote.unwrap(), expected);

    let before = std::fs::read(&luks2).unwrap();
    let read = machine.run(&[
        Job::read(&luks2, KEY),
        Job::read(&luks1, KEY),
        Job::read(&detached, KEY).with_header(&header),
        Job::read(&luks2, b"another passphrase"),
    ]);
    let read = read.unwrap();
    assert_eq!(read[..3], expected);
    assert!(
        matches!(&read[3], Outcome::Refused(said) if said.contains("No key available")),
        "{read:?}"
    );
    assert_ne!(read[0], Outcome::of(&payload(3, plain2.len())));
    assert_same(
        &before,
        &std::fs::read(&luks2).unwrap(),
        "an image that was only read",
    );
    let data = &before[16 * 1024 * 1024..];
    assert!(
        data.chunks(16)
            .zip(plain2.chunks(16))
            .all(|(cipher, plain)| cipher != plain)
    );
}

/// dm-crypt reads what `qemu-io` and `qemu-img` wrote into LUKS1 images, and `qemu-img` reads what
/// dm-crypt wrote.
#[test]
fn dm_crypt_and_qemu_agree_on_luks1() {
    let (Some(qemu), Some(machine)) = (Qemu::find(), DmCrypt::find()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let key = file(folder.path(), "key", KEY);
    let ciphers: [(&str, &[&str]); 4] = [
        (
            "aes-xts",
            &["cipher-alg=aes-256", "cipher-mode=xts", "ivgen-alg=plain64"],
        ),
        (
            "serpent-xts",
            &[
                "cipher-alg=serpent-256",
                "cipher-mode=xts",
                "ivgen-alg=plain64",
            ],
        ),
        (
            "twofish-xts",
            &[
                "cipher-alg=twofish-256",
                "cipher-mode=xts",
                "ivgen-alg=plain64",
            ],
        ),
        (
            "aes-cbc",
            &[
                "cipher-alg=aes-128",
                "cipher-mode=cbc",
                "ivgen-alg=essiv",
                "ivgen-hash-alg=sha256",
            ],
        ),
    ];
    let mut reads = Vec::new();
    let mut writes = Vec::new();
    let mut expected = Vec::new();
    for (seed, (name, options)) in ciphers.iter().enumerate() {
        let mut plain = payload(seed as u64, 1024 * 1024);
        let raw = file(folder.path(), &format!("{name}.raw"), &plain);
        let ours = folder.path().join(format!("{name}.qemu"));
        qemu.create(&ours, &key, MIB, options);
        qemu.convert_in(&raw, &ours, &key);
        qemu.io(&ours, &key, &["write -P 0x5a 1536 4096"]);
        plain[1536..1536 + 4096].fill(0x5a);
        assert_same(&plain, &qemu.convert_out(&ours, &key), name);
        reads.push(Job::read(&ours, KEY));
        expected.push(Outcome::of(&plain));

        let theirs = folder.path().join(format!("{name}.kernel"));
        qemu.create(&theirs, &key, MIB, options);
        writes.push((theirs, raw, name));
    }
    let jobs = writes
        .iter()
        .map(|(image, raw, _)| Job::write(image, KEY, raw));
    reads.extend(jobs);
    let outcomes = machine.run(&reads).unwrap();
    assert_eq!(outcomes[..ciphers.len()], expected);
    for (image, raw, name) in &writes {
        assert_same(
            &std::fs::read(raw).unwrap(),
            &qemu.convert_out(image, &key),
            name,
        );
    }
}

/// The commands of cryptsetup that the matrix uses do what their names say.
#[test]
fn cryptsetup_keeps_keyslots_on_plain_files() {
    let Some(cryptsetup) = Cryptsetup::find() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let one = file(folder.path(), "one", KEY);
    let two = file(folder.path(), "two", b"\0second\n");
    let three = file(folder.path(), "three", b"third");
    let image = sparse(folder.path(), "image", 20 * MIB);
    cryptsetup.format(&image, &one, &[&["--type", "luks2"], QUICK_PBKDF2]);
    cryptsetup.add_key(&image, &one, &two, &[&["--key-slot", "31"], QUICK_PBKDF2]);
    assert_eq!(cryptsetup.slot_of(&image, &one, &[]), Some(0));
    assert_eq!(cryptsetup.slot_of(&image, &two, &[]), Some(31));
    assert_eq!(cryptsetup.slot_of(&image, &three, &[]), None);
    let volume_key = cryptsetup.volume_key(&image, &one);
    assert_eq!(volume_key.len(), 64);
    assert_eq!(volume_key, cryptsetup.volume_key(&image, &two));

    cryptsetup.change_key(&image, &two, &three, &[&["--key-slot", "31"], QUICK_PBKDF2]);
    assert_eq!(cryptsetup.slot_of(&image, &two, &[]), None);
    assert_eq!(cryptsetup.slot_of(&image, &three, &[]), Some(31));
    cryptsetup.remove_key(&image, &one);
    assert_eq!(cryptsetup.slot_of(&image, &one, &[]), None);
    assert!(cryptsetup.dump(&image).contains("31: luks2"));
    assert!(
        cryptsetup.json(&image)["keyslots"]["31"]
            .as_object()
            .is_some()
    );

    let path = image.to_str().unwrap();
    let backup = folder.path().join("backup");
    cryptsetup.run(
        "luksHeaderBackup",
        &[path, "--header-backup-file", backup.to_str().unwrap()],
    );
    assert_eq!(std::fs::metadata(&backup).unwrap().len(), 16 * MIB);
    let refused = cryptsetup.output("luksDump", &[one.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
}
