//! The memory that tags take: docs/trust.md states its bounds. `./test long` fills the logs as they
//! are by default; otherwise they are a tenth of that.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Condvar, Mutex};

use luksmith::backend::{Backend, Geometry, IoError, Operation};
use luksmith::crypt::{IvSector, SectorCrypt};
use luksmith::secret::VolumeKey;
use luksmith::sectors::{Cipher, Sectors};
use luksmith::trust::tags::{Covered, StoreFile, StoreFiles, TagKey, Tagged, TagsOptions, make};
use support::allocation::peak_of;

use crate::tags_world::BLOCK;

/// The size of the volume in bytes.
const SIZE: u64 = 1 << 40;

/// The blocks that each log has by default.
const LOG: usize = 200_000;

/// What the logs may take by default, in bytes.
const LOGS: usize = 64 << 20;

/// What each page of tags may take: 4 KiB of them, and its place.
const PAGE: usize = 4096 + 128;

/// A storage that keeps nothing, whose flushes can be held up.
#[derive(Default)]
struct Slow {
    is_held: Mutex<bool>,
    released: Condvar,
}

impl Slow {
    fn hold(&self, is_held: bool) {
        *self.is_held.lock().unwrap() = is_held;
        self.released.notify_all();
    }
}

impl Backend for Slow {
    fn geometry(&self) -> Geometry {
        Geometry::new(SIZE)
    }

    fn read_at(&self, _: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        into.as_mut_slice().fill(0x33);
        Ok(())
    }

    fn write_at(&self, _: u64, _: &Sectors<Cipher>) -> Result<(), IoError> {
        Ok(())
    }

    fn flush(&self) -> Result<(), IoError> {
        let held = self.is_held.lock().unwrap();
        drop(self.released.wait_while(held, |held| *held).unwrap());
        Ok(())
    }

    fn discard(&self, _: Range<u64>) -> Result<(), IoError> {
        Ok(())
    }

    fn write_zeroes(&self, _: Range<u64>) -> Result<(), IoError> {
        Err(IoError::Unsupported(Operation::WriteZeroes))
    }

    fn resize(&self, _: u64) -> Result<(), IoError> {
        Err(IoError::Unsupported(Operation::Resize))
    }
}

/// A file whose power never fails.
struct Plain(File);

impl StoreFile for Plain {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < into.len() {
            match self.0.read_at(&mut into[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        into[done..].fill(0);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

struct Host {
    storage: Arc<Slow>,
    files: [File; 3],
    options: TagsOptions,
}

impl Host {
    fn new(log: usize) -> Self {
        let host = Self {
            storage: Arc::default(),
            files: [(); 3].map(|()| tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap()),
            options: TagsOptions::new()
                .log_blocks(log)
                .log_bytes(log as u64 * 60),
        };
        let (files, key) = (host.store(), key());
        let storage = &*host.storage;
        make(
            &files,
            &key,
            storage,
            0..SIZE,
            true,
            &host.options,
            &mut |_| Ok(()),
        )
        .unwrap();
        host
    }

    fn store(&self) -> StoreFiles {
        let [tags, first, second] = &self.files;
        let file = |file: &File| Box::new(Plain(file.try_clone().unwrap()));
        StoreFiles::new(file(tags), [file(first), file(second)])
    }

    fn open(&self) -> Tagged {
        let crypt = SectorCrypt::new("aes-xts-plain64".parse().unwrap(), 512, &volume_key());
        let covered = Covered::new(0, IvSector(0), crypt.unwrap());
        let (storage, options) = (self.storage.clone(), self.options.clone());
        Tagged::open(storage, covered, key(), self.store(), options).unwrap()
    }
}

/// The same content in a file of its own.
fn copy(file: &File) -> File {
    let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
    let mut content = vec![0; length];
    file.read_exact_at(&mut content, 0).unwrap();
    let copy = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    copy.write_all_at(&content, 0).unwrap();
    copy
}

fn volume_key() -> VolumeKey {
    VolumeKey::copy_from(&[0x42; 64]).unwrap()
}

fn key() -> TagKey {
    TagKey::new(&volume_key(), "00000000-0000-0000-0000-000000000001").unwrap()
}

#[test]
fn both_logs_and_the_cache_stay_within_their_bounds() {
    let log = if support::is_long() { LOG } else { LOG / 10 };
    let bound = LOGS / (LOG / log);
    let host = Host::new(log);
    let tagged = host.open();
    let mut content = Sectors::<Cipher>::with_len(BLOCK);
    // Each block once, in a random order. One log is full, and cannot retire; the other one is
    // nearly full.
    let blocks = (4 * log).next_power_of_two();
    let block = |number: usize| (number.wrapping_mul(0x9e37_79b1) % blocks * BLOCK) as u64;
    host.storage.hold(true);
    let ((), running) = peak_of(|| {
        for number in 0..2 * log - 100 {
            content.as_mut_slice()[..8].copy_from_slice(&number.to_le_bytes());
            tagged.write_at(block(number), &content).unwrap();
        }
    });
    assert!(running < bound, "{running} of {bound} bytes");
    assert!(
        running > bound / 8,
        "{running} of {bound} bytes: the logs were not full"
    );

    // The server is killed. The next one reads each block, to decide which content it has.
    let pages = blocks / 256 * PAGE;
    let other = Host {
        storage: Arc::default(),
        files: host.files.each_ref().map(copy),
        options: host.options.clone(),
    };
    host.storage.hold(false);
    drop(tagged);
    let (opened, opening) = peak_of(|| other.open());
    assert_eq!(opened.recovery().read, 2 * log as u64 - 100);
    assert!(
        opening < bound + pages,
        "{opening} of {bound} and {pages} bytes"
    );
}

#[test]
fn tags_that_were_read_are_kept_up_to_a_limit() {
    let host = Host::new(1000);
    let (tagged, empty) = peak_of(|| host.open());
    let mut content = Sectors::<Cipher>::with_len(BLOCK);
    // Each of these reads a page of tags; the cache has 8192 of them.
    let ((), grown) = peak_of(|| {
        for page in 0..2 * 8192 {
            tagged
                .read_at(page * 256 * BLOCK as u64 * 7 % SIZE, &mut content)
                .unwrap();
        }
    });
    let all = empty + grown;
    assert!(
        (32 << 20..33 << 20).contains(&all),
        "{empty} and {grown} bytes"
    );
}
