//! Inputs of the fuzz target `qcow2_volume`: changes of a good image, then operations on it.
//!
//! An input is the number of changes (2 bytes, little endian), the changes (4 bytes each: position
//! and value), and operations of 6 bytes each.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use luksmith::backend::memory::MemoryBackend;
use luksmith::backend::{Backend, Geometry, IoError, Operation};
use luksmith::container::{Container, OpenOptions, Undo};
use luksmith::crypt::SectorCrypt;
use luksmith::layout::{NewImage, Qcow2};
use luksmith::secret::VolumeKey;
use luksmith::sectors::{Cipher, Sectors};
use luksmith::volume::Volume;
use luksmith_formats::CipherSpec;

use crate::qcow2::compress;

const SIZE: u64 = 256 << 10;
const LARGEST: u64 = 2 << 20;

/// Memory that cannot grow beyond [`LARGEST`].
struct Bounded(MemoryBackend);

impl Backend for Bounded {
    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }
    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        self.0.read_at(offset, into)
    }
    fn write_at(&self, offset: u64, from: &Sectors<Cipher>) -> Result<(), IoError> {
        self.0.write_at(offset, from)
    }
    fn flush(&self) -> Result<(), IoError> {
        self.0.flush()
    }
    fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        self.0.discard(range)
    }
    fn write_zeroes(&self, range: Range<u64>) -> Result<(), IoError> {
        self.0.write_zeroes(range)
    }
    fn resize(&self, size: u64) -> Result<(), IoError> {
        if size > LARGEST {
            let operation = Operation::Resize;
            return Err(IoError::NoSpace {
                operation,
                offset: size,
            });
        }
        self.0.resize(size)
    }
}

fn crypt() -> SectorCrypt {
    let key = VolumeKey::copy_from(&[9; 32]).unwrap();
    SectorCrypt::new(CipherSpec::AES_XTS_PLAIN64, 512, &key).unwrap()
}

/// An image with data in some clusters, some of it compressed.
fn good() -> &'static [u8] {
    static GOOD: OnceLock<Vec<u8>> = OnceLock::new();
    GOOD.get_or_init(|| {
        let storage = Arc::new(MemoryBackend::new(0));
        let image = NewImage::new(SIZE, 4096).cluster_size(512);
        let image = Arc::new(Qcow2::create(storage.clone(), &image).unwrap());
        let volume = Volume::in_qcow2(image, crypt(), false).unwrap();
        for offset in [0, 5000, 40_000, 200_000] {
            volume.write_at(offset, &[7; 3000]).unwrap();
        }
        drop(volume);
        let mut image = storage.to_bytes();
        compress(&mut image, 10, &[8; 5 * 512]);
        compress(&mut image, 391, &[9; 5 * 512]);
        image
    })
}

/// Opens the image that `bytes` describe and carries out the operations. Returns whether it opened.
///
/// # Panics
///
/// Only for a bug of the library: no image may make it panic.
pub fn follow(bytes: &[u8]) -> bool {
    let mut image = good().to_vec();
    let Some((count, rest)) = bytes.split_first_chunk::<2>() else {
        return false;
    };
    let count = usize::from(u16::from_le_bytes(*count)) * 4;
    let (changes, operations) = rest.split_at(count.min(rest.len()));
    for change in changes.as_chunks::<4>().0 {
        let [low, middle, high, value] = *change;
        let position = u32::from_le_bytes([low, middle, high, 0]);
        let length = image.len();
        image[position as usize % length] = value;
    }
    let storage = Arc::new(Bounded(MemoryBackend::from_bytes(image)));
    let Ok(image) = Qcow2::open(storage) else {
        return false;
    };
    let _ = Container::open(image.header_storage(), OpenOptions::new(Undo::NotLookedFor));
    let volume = Volume::in_qcow2(Arc::new(image), crypt(), false).unwrap();
    let volume = volume.with_compressed_plaintext();
    for operation in operations.as_chunks::<6>().0 {
        let [what, low, middle, high, len_low, len_high] = *operation;
        let offset = u64::from(u32::from_le_bytes([low, middle, high, 0]));
        let len = u16::from_le_bytes([len_low, len_high]);
        let range = offset..offset + u64::from(len);
        let mut buffer = vec![what; len.into()];
        // An operation may fail. It must return.
        let _ = match what % 7 {
            0 | 1 => volume.write_at(offset, &buffer),
            2 => volume.read_at(offset, &mut buffer),
            3 => volume.discard(range),
            4 => volume.write_zeroes(range),
            5 => volume.resize(u64::from(len) * 512),
            _ => volume.flush(),
        };
        let _ = volume.allocation(0..volume.size());
    }
    true
}
