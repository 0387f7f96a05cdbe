//! Do random operations match a model in memory?
//!
//! The operations are reads, writes, zeroes, discards, flushes and resizes with any alignment, for
//! every cipher and sector size. The storage is memory, a file, storage that only accepts whole
//! blocks of 4096 bytes, an export whose server dies all the time, or a qcow2 image. Further tests
//! use several threads.
//!
//! The model is a vector of bytes. A discarded sector reads as the decryption of zeroes, which
//! files and memory return. So do the new sectors of a volume that grows.

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

/// The storage of the volume.
#[derive(Clone, Copy, Debug)]
enum Storage {
    Memory,
    Blocks,
    File,
    Export,
}

impl Storage {
    const ALL: [Self; 4] = [Self::Memory, Self::Blocks, Self::File, Self::Export];

    /// A storage of this number of zero bytes.
    fn make(self, size: usize) -> Arc<dyn Backend> {
        match self {
            Self::Memory => Arc::new(MemoryBackend::new(size)),
            Self::Blocks => Arc::new(MemoryBackend::new(size).with_block_size(4096)),
            Self::Export => Arc::new(export::Export::new(size)),
            Self::File => {
                let directory = tempfile::tempdir().unwrap();
                let options = OpenOptions::new().create_new(true);
                // The file remains usable without its name.
                let file = FileBackend::open(directory.path().join("image"), options).unwrap();
                file.resize(size as u64).unwrap();
                Arc::new(file)
            }
        }
    }
}

/// The offset of the data in the storage.
const DATA_OFFSET: u64 = 8192;

/// An IV near the end of its width, so that it wraps in every volume.
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

/// The plaintext of whole sectors at `offset` if their storage is zero.
fn zeroes_decrypted(crypt: &SectorCrypt, offset: u64, len: usize) -> Vec<u8> {
    let sectors = Sectors::<Cipher>::zeroed(len);
    crypt
        .decrypt(FIRST_IV.after_bytes(offset), sectors)
        .as_slice()
        .to_vec()
}
