//! Do random operations match a memory model? Reads, writes, zeroes, discards, flushes and resizes at any byte
//! alignment, for every cipher and sector size, over memory and over files, also over storage that takes whole
//! blocks of 4096 bytes alone, over an export whose server dies all the time, and in qcow2 images; then several threads.
//!
//! The model is a vector of bytes. A discarded sector reads as what the cipher makes of zeroes, which is what
//! files and memory return; sectors that a growing volume brings in are the same.

#![allow(missing_docs)]

mod export;
mod operations;
mod qcow2;
mod threads;

use std::sync::Arc;

use luksmith::backend::Backend;
use luksmith::backend::file::{FileBackend, OpenOptions};
use luksmith::backend::memory::MemoryBackend;
use luksmith::crypt::{IvSector, SectorCrypt};
use luksmith::secret::VolumeKey;
use luksmith::sectors::{Cipher, Sectors};
use luksmith::volume::Volume;
use luksmith_formats::CipherSpec;

/// What stores the volume.
#[derive(Clone, Copy, Debug)]
enum Storage {
    Memory,
    Blocks,
    File,
    Export,
}

impl Storage {
    const ALL: [Self; 4] = [Self::Memory, Self::Blocks, Self::File, Self::Export];

    /// Storage of so many zero bytes.
    fn make(self, size: usize) -> Arc<dyn Backend> {
        match self {
            Self::Memory => Arc::new(MemoryBackend::new(size)),
            Self::Blocks => Arc::new(MemoryBackend::new(size).with_block_size(4096)),
            Self::Export => Arc::new(export::Export::new(size)),
            Self::File => {
                let directory = tempfile::tempdir().unwrap();
                let options = OpenOptions::new().create_new(true);
                // The file lives on without its name.
                let file = FileBackend::open(directory.path().join("image"), options).unwrap();
                file.resize(size as u64).unwrap();
                Arc::new(file)
            }
        }
    }
}

/// Where the data begins in storage.
const DATA_OFFSET: u64 = 8192;

/// An IV near the end of its width: every volume wraps.
const FIRST_IV: IvSector = IvSector(u64::MAX - 20);

fn crypt(spec: CipherSpec, sector_size: u32) -> SectorCrypt {
    let key: Vec<u8> = (0..64u8).map(|n| n.wrapping_mul(29) ^ 3).collect();
    let key = VolumeKey::copy_from(&key[..spec.default_key_size()]).unwrap();
    SectorCrypt::new(spec, sector_size, &key).unwrap()
}

fn volume(storage: Storage, spec: CipherSpec, sector_size: u32, size: usize) -> Volume {
    let backend = storage.make(usize::try_from(DATA_OFFSET).unwrap() + size.next_multiple_of(4096));
    Volume::new(
        backend,
        crypt(spec, sector_size),
        DATA_OFFSET,
        size as u64,
        FIRST_IV,
        false,
    )
    .unwrap()
}

/// What whole sectors at `offset` read as when their storage is zero.
fn zeroes_decrypted(crypt: &SectorCrypt, offset: u64, len: usize) -> Vec<u8> {
    let sectors = Sectors::<Cipher>::zeroed(len);
    crypt
        .decrypt(FIRST_IV.after_bytes(offset), sectors)
        .as_slice()
        .to_vec()
}
