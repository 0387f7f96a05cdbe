//! `luksmith dm-table`: dm-crypt reads through the device that it makes, and cryptsetup knows and
//! closes that device.

use std::path::Path;
use std::process::{Command, Output};

use luksmith::container::{CreateOptions, Version};
use luksmith_formats::CipherSpec;
use luksmith_formats::json::Value;
use support::peers;

use crate::both_ways::begin_ivs_at;
use crate::dmcrypt::{DmCrypt, Job, Outcome};
use crate::ours;
use crate::payload::{payload, sparse};

const KEY: &[u8] = b"correct horse battery staple";
const OFFSET: u64 = 4 << 20;

fn options(version: Version, cipher: &str, bits: usize, sector_size: u32) -> CreateOptions {
    let mut options = CreateOptions::new(version, ours::QUICK);
    options.cipher = CipherSpec::parse(cipher).unwrap();
    options.key_size = bits / 8;
    options.sector_size = sector_size;
    options.data_offset = Some(OFFSET);
    options.blank = true;
    options
}

#[test]
fn dm_crypt_reads_through_the_device() {
    let Some(machine) = DmCrypt::find() else {
        return;
    };
    if peers::find("dmsetup").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let rows = [
        (Version::Luks1, "aes-xts-plain64", 512, 512, 0),
        (Version::Luks1, "aes-cbc-essiv:sha256", 256, 512, 0),
        (Version::Luks2, "aes-xts-plain64", 512, 4096, 0),
        (Version::Luks2, "serpent-xts-plain64", 256, 512, 0),
        // The IVs do not begin at zero.
        (
            Version::Luks2,
            "aes-xts-plain64",
            256,
            1024,
            (1 << 32) - 128,
        ),
    ];
    let mut jobs = Vec::new();
    let mut expected = Vec::new();
    for (seed, (version, cipher, bits, sector_size, first_iv)) in (2000..).zip(rows) {
        let plain = payload(seed, 128 << 10);
        let image = sparse(
            folder.path(),
            &seed.to_string(),
            OFFSET + plain.len() as u64,
        );
        let options = options(version, cipher, bits, sector_size);
        drop(ours::create(&image, KEY, options));
        if first_iv != 0 {
            begin_ivs_at(&image, first_iv);
        }
        ours::write_all(&ours::volume(&image, None, KEY), &plain);
        jobs.push(Job::map(&image, KEY));
        expected.push(Outcome::of(&plain));
    }
    // The header is in another file.
    let plain = payload(3000, 128 << 10);
    let (header, data) = ("header", "data");
    let header = sparse(folder.path(), header, 16 << 20);
    let data = sparse(folder.path(), data, plain.len() as u64);
    let mut detached = options(Version::Luks2, "aes-xts-plain64", 512, 4096);
    (detached.detached, detached.data_offset) = (true, None);
    drop(ours::create(&header, KEY, detached));
    ours::write_all(&ours::volume(&data, Some(&header), KEY), &plain);
    jobs.push(Job::map(&data, KEY).with_header(&header));
    expected.push(Outcome::of(&plain));

    assert_eq!(machine.run(&jobs).unwrap(), expected);

    // A wrong passphrase makes no device.
    let refused = machine.run(&[Job::map(&data, b"wrong").with_header(&header)]);
    let refused = refused.unwrap();
    assert!(
        matches!(&refused[..], [Outcome::Refused(why)] if why.contains("passphrase")),
        "{refused:?}"
    );
}

fn dm_table(folder: &Path, words: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_luksmith"));
    command.current_dir(folder).arg("dm-table");
    command.args(words.split(' ')).output().unwrap()
}

/// The table of a loop device, without a passphrase, and the storage that has none.
#[test]
#[allow(clippy::print_stderr)] // says why it did nothing
fn the_table_names_a_key_and_holds_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let image = sparse(folder.path(), "image", OFFSET + (1 << 20));
    let made = options(Version::Luks2, "aes-xts-plain64", 512, 4096);
    drop(ours::create(&image, KEY, made));

    let refused = dm_table(folder.path(), "image");
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(4), "{told}");
    assert!(told.contains("dm-crypt needs a block device"), "{told}");
    assert!(told.contains("losetup --find --show"), "{told}");
    let refused = dm_table(folder.path(), "image --create a/b");
    assert_eq!(refused.status.code(), Some(1));

    let strange = sparse(folder.path(), "strange", 16 << 20);
    let mut made = options(Version::Luks2, "aes-xts-plain64", 512, 4096);
    (made.detached, made.data_offset) = (true, None);
    drop(ours::create(&strange, KEY, made));
    ours::edit_luks2(&strange, |header| header.uuid = "x 0 8:0 0 1 y".to_owned());

    let attach = Command::new("losetup")
        .args(["--find", "--show"])
        .arg(&image)
        .output();
    let Some(attach) = attach.ok().filter(|attach| attach.status.success()) else {
        eprintln!("skipped: no loop device can be attached");
        return;
    };
    let device = String::from_utf8(attach.stdout).unwrap().trim().to_owned();
    let table = dm_table(folder.path(), &device);
    let as_json = dm_table(folder.path(), &format!("{device} --discard --json"));
    // A UUID of a stranger's header could add words to the table.
    let told = dm_table(folder.path(), &format!("{device} --header strange"));
    // Another program writes to the volume.
    let held = ours::storage(Path::new(&device));
    let busy = dm_table(folder.path(), &format!("{device} --create v"));
    drop(held);
    let _ = Command::new("losetup").args(["--detach", &device]).status();
    assert_eq!(busy.status.code(), Some(5), "{busy:?}");
    let (printed, told) = (
        told.stdout,
        String::from_utf8_lossy(&told.stderr).into_owned(),
    );
    assert!(told.contains("UUID is not of the usual form"), "{told}");
    assert!(printed.is_empty());

    let number = std::fs::metadata(&device).map(|found| {
        let number = std::os::unix::fs::MetadataExt::rdev(&found);
        format!(
            "{}:{}",
            rustix::fs::major(number),
            rustix::fs::minor(number)
        )
    });
    let container = ours::open(&image);
    let expected = format!(
        "0 2048 crypt aes-xts-plain64 :64:logon:cryptsetup:{}-d0 0 {} 8192 1 sector_size:4096\n",
        container.uuid(),
        number.unwrap()
    );
    assert_eq!(String::from_utf8_lossy(&table.stdout), expected);
    let document: Value = String::from_utf8_lossy(&as_json.stdout).parse().unwrap();
    let schemas = support::json_schema::Schemas::read();
    assert_eq!(schemas.complaints(&document), [""; 0]);
    let table = document["table"].as_str().unwrap();
    assert!(
        table.ends_with(" 2 allow_discards sector_size:4096"),
        "{table}"
    );
}
