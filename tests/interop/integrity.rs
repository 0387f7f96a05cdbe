//! Authenticated encryption: volumes that cryptsetup makes and that dm-crypt and dm-integrity fill
//! are read bit for bit, and one that was not closed only after the kernel has closed it.

use std::path::Path;

use luksmith::backend::IoError;
use luksmith::container::{Container, VolumeError};
use luksmith::layout::IntegrityError;
use luksmith::volume::Volume;
use luksmith_formats::dm_integrity::{SUPERBLOCK, Superblock};

use crate::dmcrypt::{DmCrypt, Job, Outcome};
use crate::ours;
use crate::payload::{payload, sha256, sparse};

const KEY: &[u8] = b"correct horse battery staple";
/// Where the data begins.
const OFFSET: u64 = 1 << 20;
const WRITTEN: usize = 256 << 10;

fn options(cipher: &str, key_bits: usize, integrity: &str, sector_size: usize) -> Vec<String> {
    let text = format!(
        "--cipher {cipher} --key-size {key_bits} --integrity {integrity} --sector-size {sector_size} \
         --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --offset 2048 \
         --luks2-metadata-size 16k --luks2-keyslots-size 512k"
    );
    text.split(' ').map(str::to_owned).collect()
}

fn open(image: &Path) -> Result<Volume, VolumeError> {
    let storage = ours::storage(image);
    let container = Container::open(storage.clone(), ours::options(image)).unwrap();
    let unlocked = ours::unlock(&container, KEY);
    container.volume(storage, &unlocked)
}

#[test]
fn volumes_of_dm_integrity_are_read_bit_for_bit() {
    let Some(machine) = DmCrypt::find() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let written = payload(4000, WRITTEN);
    let source = folder.path().join("payload");
    std::fs::write(&source, &written).unwrap();
    let mut rows = Vec::new();
    for (cipher, key_bits, integrity) in [
        ("aes-xts-plain64", 512, "hmac-sha256"),
        ("aes-xts-random", 512, "hmac-sha256"),
        ("aes-gcm-random", 256, "aead"),
        ("chacha20-random", 256, "poly1305"),
        ("aegis128-random", 128, "aead"),
    ] {
        for sector_size in [512, 4096] {
            rows.push((cipher, key_bits, integrity, sector_size));
        }
    }
    let mut images = Vec::new();
    let mut jobs = Vec::new();
    for (number, (cipher, key_bits, integrity, sector_size)) in rows.iter().enumerate() {
        let image = sparse(folder.path(), &number.to_string(), OFFSET + (4 << 20));
        let options = options(cipher, *key_bits, integrity, *sector_size);
        jobs.push(Job::write(&image, KEY, &source).made_with(&options));
        images.push(image);
    }
    // The same once more, and the machine goes off before it is closed.
    let open_image = sparse(folder.path(), "open", OFFSET + (4 << 20));
    let last = options("aes-gcm-random", 256, "aead", 4096);
    let job = Job::write(&open_image, KEY, &source).made_with(&last);
    jobs.push(job.left_open());
    let outcomes = machine.run(&jobs).unwrap();

    for ((image, row), outcome) in images.iter().zip(&rows).zip(&outcomes) {
        let volume = open(image).unwrap();
        let content = ours::read_all(&volume);
        let found = Outcome::Opened {
            size: volume.size(),
            sha256: sha256(&content),
        };
        assert_eq!(&found, outcome, "{row:?}");
        assert!(content.starts_with(&written), "{row:?}");
        assert_eq!(u64::from(volume.sector_size()), row.3 as u64);
        drop(volume);
        one_changed_bit(image, &content, row.3 as u64);
    }

    let error = open(&open_image).unwrap_err();
    assert!(
        matches!(
            error,
            VolumeError::Integrity(IntegrityError::Journal { .. })
        ),
        "{error:?}"
    );
    // dm-integrity writes the journal to its places when it is opened.
    let outcome = machine.run(&[Job::write(&open_image, KEY, &source)]);
    let content = ours::read_all(&open(&open_image).unwrap());
    assert_eq!(outcome.unwrap(), [Outcome::of(&content)]);
    assert!(content.starts_with(&written));
}

/// A bit of one sector changes: this sector is an error, and the others are as they were.
fn one_changed_bit(image: &Path, content: &[u8], sector_size: u64) {
    let mut bytes = std::fs::read(image).unwrap();
    let start = usize::try_from(OFFSET).unwrap();
    let superblock = Superblock::parse(&bytes[start..][..SUPERBLOCK], OFFSET).unwrap();
    let places = superblock.places(OFFSET, bytes.len() as u64).unwrap();
    let count = content.len() as u64 / sector_size;
    let victim = count / 2;
    let run = places.run(victim * sector_size..(victim + 1) * sector_size);
    let at = usize::try_from(run.unwrap().data).unwrap();
    bytes[at] ^= 0x40;
    std::fs::write(image, &bytes).unwrap();
    let volume = open(image).unwrap();
    for number in 0..count {
        let range = number * sector_size..(number + 1) * sector_size;
        let mut sector = vec![0; usize::try_from(sector_size).unwrap()];
        let outcome = volume.read_at(range.start, &mut sector);
        match outcome {
            Err(IoError::TagMismatch { offset, .. }) => {
                assert_eq!((number, offset), (victim, range.start));
            }
            outcome => {
                outcome.unwrap();
                let index = |at| usize::try_from(at).unwrap();
                assert!(
                    number != victim && sector == content[index(range.start)..index(range.end)]
                );
            }
        }
    }
}
