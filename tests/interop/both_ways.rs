//! The matrix in both directions: cryptsetup makes a volume, dm-crypt writes it, and we read it; we
//! make a volume and write it, and dm-crypt reads it. Whole payloads are compared.

use crate::cryptsetup::Cryptsetup;
use crate::dmcrypt::{DmCrypt, Job, Outcome};
use crate::matrix::{Row, only_read, rows};
use crate::ours;
use crate::payload::{assert_same, file, payload, sparse};
use luksmith::backend::IoError;
use luksmith::container::{CreateOptions, Version};
use luksmith_formats::CipherSpec;
use luksmith_formats::luks2::Segment;
use std::path::{Path, PathBuf};

/// Any bytes: not text, with a NUL and a newline.
const KEY: &[u8] = b"\xff\0correct horse\nbattery staple\n";

/// The files of a row.
struct Files {
    row: Row,
    image: PathBuf,
    header: Option<PathBuf>,
    payload: Vec<u8>,
}

impl Files {
    fn new(folder: &Path, name: &str, seed: u64, row: Row) -> Self {
        Self {
            image: sparse(folder, name, row.image_size()),
            header: row
                .header_size()
                .map(|size| sparse(folder, &format!("{name}.header"), size)),
            payload: payload(seed, row.payload_len()),
            row,
        }
    }

    fn header(&self) -> &Path {
        self.header.as_deref().unwrap_or(&self.image)
    }

    fn with_header(&self, job: Job) -> Job {
        match &self.header {
            Some(header) => job.with_header(header),
            None => job,
        }
    }

    fn volume(&self) -> luksmith::volume::Volume {
        ours::volume(&self.image, self.header.as_deref(), KEY)
    }
}

#[test]
fn dm_crypt_and_we_read_what_the_other_wrote() {
    let (Some(cryptsetup), Some(machine)) = (Cryptsetup::find(), DmCrypt::find()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let key = file(folder.path(), "key", KEY);
    let mut jobs = Vec::new();
    let mut theirs = Vec::new();
    let mut ours = Vec::new();
    for (seed, row) in (0..).step_by(2).zip(rows()) {
        let made = Files::new(folder.path(), &format!("theirs-{seed}"), seed, row.clone());
        let plain = file(folder.path(), &format!("plain-{seed}"), &made.payload);
        let job = Job::write(&made.image, KEY, &plain).made_with(&row.their_options());
        jobs.push(made.with_header(job));
        theirs.push(made);

        let made = Files::new(folder.path(), &format!("ours-{seed}"), seed + 1, row);
        ours::create(made.header(), KEY, made.row.our_options());
        ours::write_all(&made.volume(), &made.payload);
        host_agrees(&cryptsetup, &made, &key);
        jobs.push(made.with_header(Job::read(&made.image, KEY)));
        ours.push(made);
    }
    let outcomes = machine.run(&jobs).unwrap();
    for (pair, (theirs, ours)) in outcomes.chunks(2).zip(theirs.iter().zip(&ours)) {
        assert_eq!(
            pair[0],
            Outcome::of(&theirs.payload),
            "theirs: {:?}",
            theirs.row
        );
        assert_eq!(pair[1], Outcome::of(&ours.payload), "ours: {:?}", ours.row);
        we_agree(theirs);
    }
}

/// cryptsetup makes and dm-crypt writes volumes with ciphers that we only read. We change their
/// passphrases, and cryptsetup and dm-crypt still read them.
#[test]
fn we_read_what_we_do_not_write() {
    const NEW: &[u8] = b"another passphrase of the volume";
    let Some(machine) = DmCrypt::find() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut made = Vec::new();
    let mut jobs = Vec::new();
    for (seed, row) in (500..).zip(only_read()) {
        let files = Files::new(folder.path(), &format!("weak-{seed}"), seed, row);
        let plain = file(folder.path(), &format!("plain-{seed}"), &files.payload);
        let job = Job::write(&files.image, KEY, &plain);
        jobs.push(job.made_with(&files.row.their_options()));
        made.push(files);
    }
    let expected: Vec<_> = made
        .iter()
        .map(|files| Outcome::of(&files.payload))
        .collect();
    assert_eq!(machine.run(&jobs).unwrap(), expected);
    let mut jobs = Vec::new();
    for files in &made {
        we_agree(files);
        let volume = files.volume();
        assert!(volume.is_read_only(), "{:?}", files.row);
        let refused = volume.write_at(0, &[1; 512]).unwrap_err();
        assert!(matches!(refused, IoError::ReadOnly(_)), "{refused}");
        drop(volume);
        ours::change_keyslot(&files.image, KEY, NEW, None);
        assert_eq!(ours::slot_of(&files.image, KEY), None);
        jobs.push(Job::read(&files.image, NEW));
    }
    assert_eq!(machine.run(&jobs).unwrap(), expected);
}

/// cryptsetup accepts, without a kernel, a header that we made. Its own code for keyslots has only
/// AES, and no AES-192 in XTS.
fn host_agrees(cryptsetup: &Cryptsetup, made: &Files, key: &Path) {
    let row = &made.row;
    let dump = cryptsetup.dump(made.header());
    let offset = match row.version {
        Version::Luks1 => format!("Payload offset:\t{}\n", row.data_offset() / 512),
        Version::Luks2 => format!("\toffset: {} [bytes]\n", row.data_offset()),
    };
    assert!(dump.contains(&offset), "{offset:?} in {dump}");
    let aes_192_xts = row.cipher.contains("-xts-") && row.key_bits == 384;
    if row.cipher.starts_with("aes-") && !aes_192_xts {
        let slot = cryptsetup.slot_of(made.header(), key, &[]);
        assert_eq!(slot, Some(row.slot), "{row:?}");
    }
}

/// We read the whole payload of a volume that cryptsetup and dm-crypt made as the row says.
fn we_agree(made: &Files) {
    let row = &made.row;
    let container = ours::open(made.header());
    assert_eq!(container.version(), row.version, "{row:?}");
    let keyslot = &container.keyslots()[0];
    assert_eq!(keyslot.slot, row.slot, "{row:?}");
    assert_eq!(keyslot.key_size * 8, row.key_bits, "{row:?}");
    let sealing = keyslot.sealing.as_ref().unwrap();
    assert_eq!(sealing.af_hash, row.hash, "{row:?}");
    let segment = container.data_segment().unwrap();
    assert_eq!(segment.cipher.to_string(), row.cipher);
    assert_eq!(segment.offset, row.data_offset(), "{row:?}");
    assert_eq!(segment.sector_size, row.sector_size, "{row:?}");
    drop(container);
    assert_eq!(ours::slot_of(made.header(), KEY), Some(row.slot), "{row:?}");
    assert_eq!(ours::slot_of(made.header(), b"another passphrase"), None);
    let volume = made.volume();
    assert_same(&made.payload, &ours::read_all(&volume), &format!("{row:?}"));
}

/// Sector numbers beyond 32 bits, which no small image has: the segment's IVs begin just before
/// them. The IV "plain" wraps around there, the others do not. Large sectors count in units of 512
/// bytes too.
///
/// dm-crypt gets the first IV as an option, since cryptsetup 2.6.1 reads it only from volumes that
/// are being reencrypted.
#[test]
fn dm_crypt_agrees_on_ivs_beyond_32_bits() {
    const OFFSET: u64 = 1 << 20;
    const FIRST_IV: u64 = (1 << 32) - 128;
    let Some(machine) = DmCrypt::find() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let ciphers = [
        ("aes-xts-plain", 64),
        ("aes-xts-plain64", 64),
        ("aes-xts-plain64be", 64),
        ("aes-cbc-plain", 32),
        ("aes-cbc-plain64be", 32),
        ("aes-cbc-essiv:sha256", 32),
    ];
    let mut jobs = Vec::new();
    let mut expected = Vec::new();
    for (seed, (cipher, key_size)) in (1000..).zip(ciphers) {
        for sector_size in [512, 4096] {
            let plain = payload(seed, 128 << 10);
            let name = format!("{cipher}-{sector_size}");
            let image = sparse(folder.path(), &name, OFFSET + plain.len() as u64);
            let mut options = CreateOptions::new(Version::Luks2, ours::QUICK);
            options.cipher = CipherSpec::parse(cipher).unwrap();
            options.key_size = key_size;
            options.sector_size = sector_size;
            options.data_offset = Some(OFFSET);
            options.blank = true;
            let (_, unlocked) = ours::create(&image, KEY, options);
            begin_ivs_at(&image, FIRST_IV);
            ours::write_all(&ours::volume(&image, None, KEY), &plain);
            let options = [
                format!("--cipher={cipher} --key-size={}", key_size * 8),
                format!("--sector-size={sector_size}"),
                format!("--offset={} --skip={FIRST_IV}", OFFSET / 512),
            ];
            jobs.push(Job::read(&image, unlocked.key().as_bytes()).plain(&options));
            expected.push((name, Outcome::of(&plain)));
        }
    }
    let outcomes = machine.run(&jobs).unwrap();
    let names = expected.iter().map(|(name, _)| name.clone());
    assert_eq!(names.zip(outcomes).collect::<Vec<_>>(), expected);
}

pub(crate) fn begin_ivs_at(image: &Path, iv: u64) {
    ours::edit_luks2(image, |header| {
        let Segment::Crypt(segment) = &header.metadata.segments()[&0] else {
            panic!("a new volume has one crypt segment");
        };
        let mut segment = segment.clone();
        segment.iv_tweak = iv;
        header
            .metadata
            .set_segment(0, &Segment::Crypt(segment))
            .unwrap();
    });
}
