//! Random operations by one thread.

use std::io::{Read, Seek, SeekFrom, Write};

use luksmith::backend::IoError;
use luksmith::crypt::SectorCrypt;
use luksmith::volume::{Cursor, Volume, Windows};
use luksmith_formats::CipherSpec;
use proptest::prelude::*;
use support::segments::Segments;

use crate::{Storage, crypt, volume, zeroes_decrypted};

const SIZE: usize = 24 * 4096;

#[derive(Clone, Debug)]
enum Operation {
    Read {
        offset: u64,
        len: usize,
    },
    Write {
        offset: u64,
        len: usize,
        seed: u8,
    },
    /// Reads to the memory of a guest in pieces of these lengths.
    ReadInto {
        offset: u64,
        len: usize,
        pieces: Vec<usize>,
    },
    /// Writes what is in such memory.
    WriteFrom {
        offset: u64,
        len: usize,
        seed: u8,
        pieces: Vec<usize>,
    },
    Zero {
        offset: u64,
        len: u64,
    },
    Discard {
        offset: u64,
        len: u64,
    },
    Stream {
        offset: u64,
        len: usize,
        seed: u8,
    },
    Resize {
        sectors: u64,
    },
    Flush,
}

/// Offsets and lengths of every alignment, with more at the boundaries of sectors, and some past
/// the end.
fn range() -> impl Strategy<Value = (u64, usize)> {
    let offset = prop_oneof![
        0..SIZE as u64 + 600,
        (0..SIZE as u64 / 512, -1i64..=1)
            .prop_map(|(sector, by)| (sector * 512).saturating_add_signed(by)),
    ];
    let len = prop_oneof![
        0..20usize,
        500..530usize,
        0..20_000usize,
        (0..12usize).prop_map(|n| n * 512)
    ];
    (offset, len)
}

fn pieces() -> impl Strategy<Value = Vec<usize>> {
    let piece = prop_oneof![Just(512usize), Just(4096), 0..30usize, 0..6000usize];
    prop::collection::vec(piece, 1..4)
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => range().prop_map(|(offset, len)| Operation::Read { offset, len }),
        6 => (range(), any::<u8>()).prop_map(|((offset, len), seed)| Operation::Write { offset, len, seed }),
        4 => (range(), pieces()).prop_map(|((offset, len), pieces)| Operation::ReadInto { offset, len, pieces }),
        6 => (range(), any::<u8>(), pieces()).prop_map(|((offset, len), seed, pieces)| {
            Operation::WriteFrom { offset, len, seed, pieces }
        }),
        1 => range().prop_map(|(offset, len)| Operation::Zero { offset, len: len as u64 }),
        1 => range().prop_map(|(offset, len)| Operation::Discard { offset, len: len as u64 }),
        1 => (range(), any::<u8>()).prop_map(|((offset, len), seed)| Operation::Stream { offset, len, seed }),
        1 => (0..32u64).prop_map(|sectors| Operation::Resize { sectors }),
        1 => Just(Operation::Flush),
    ]
}

fn spec() -> impl Strategy<Value = CipherSpec> {
    let writable = CipherSpec::all().filter(|spec| spec.check_writable().is_ok());
    prop::sample::select(writable.collect::<Vec<_>>())
}

struct Model {
    bytes: Vec<u8>,
    crypt: SectorCrypt,
    unit: u64,
    storage: Storage,
}

impl Model {
    fn fits(&self, offset: u64, len: u64) -> bool {
        offset + len <= self.bytes.len() as u64
    }

    fn at(&mut self, offset: u64, len: u64) -> &mut [u8] {
        let offset = usize::try_from(offset).unwrap();
        &mut self.bytes[offset..offset + usize::try_from(len).unwrap()]
    }

    fn forget(&mut self, start: u64, end: u64) {
        if start < end {
            let zeroes =
                zeroes_decrypted(&self.crypt, start, usize::try_from(end - start).unwrap());
            self.at(start, end - start).copy_from_slice(&zeroes);
        }
    }

    fn apply(&mut self, volume: &Volume, operation: &Operation) {
        match *operation {
            Operation::Read { offset, len } => {
                let mut read = vec![0; len];
                let result = volume.read_at(offset, &mut read);
                if agree(result, self.fits(offset, len as u64)) {
                    assert!(read == self.at(offset, len as u64));
                }
            }
            Operation::Write { offset, len, seed } => {
                let bytes = pattern(len, seed);
                let result = volume.write_at(offset, &bytes);
                if agree(result, self.fits(offset, len as u64)) {
                    self.at(offset, len as u64).copy_from_slice(&bytes);
                }
            }
            Operation::ReadInto {
                offset,
                len,
                ref pieces,
            } => {
                let mut memory = Segments::new(len, pieces, 0);
                let result = volume.read_into(offset, Windows::new(&memory.windows()));
                if agree(result, self.fits(offset, len as u64)) {
                    assert!(memory.content() == self.at(offset, len as u64));
                }
            }
            Operation::WriteFrom {
                offset,
                len,
                seed,
                ref pieces,
            } => {
                let bytes = pattern(len, seed);
                let mut memory = Segments::of(&bytes, pieces);
                let result = volume.write_from(offset, Windows::new(&memory.windows()));
                assert!(memory.content() == bytes);
                if agree(result, self.fits(offset, len as u64)) {
                    self.at(offset, len as u64).copy_from_slice(&bytes);
                }
            }
            Operation::Zero { offset, len } => {
                let result = volume.write_zeroes(offset..offset + len);
                if agree(result, self.fits(offset, len)) {
                    self.at(offset, len).fill(0);
                }
            }
            Operation::Discard { offset, len } => {
                let result = volume.discard(offset..offset + len);
                if agree(result, self.fits(offset, len)) {
                    let end = offset + len;
                    self.forget(offset.next_multiple_of(self.unit), end - end % self.unit);
                }
            }
            Operation::Stream { offset, len, seed } => {
                self.stream(volume, offset, &pattern(len, seed))
            }
            // The size of an export is fixed.
            Operation::Resize { .. } if matches!(self.storage, Storage::Export) => {}
            Operation::Resize { sectors } => {
                let size = sectors * 4096
                    + if matches!(self.storage, Storage::Blocks) {
                        0
                    } else {
                        4096 - self.unit
                    };
                let old = self.bytes.len() as u64;
                volume.resize(size).unwrap();
                self.bytes.resize(usize::try_from(size).unwrap(), 0);
                self.forget(old, size);
            }
            Operation::Flush => volume.flush().unwrap(),
        }
    }

    /// Reads or writes as much as fits, through `std::io`.
    fn stream(&mut self, volume: &Volume, offset: u64, bytes: &[u8]) {
        let left = (self.bytes.len() as u64).saturating_sub(offset);
        let bytes = &bytes[..bytes.len().min(usize::try_from(left).unwrap())];
        let mut cursor = Cursor::new(volume);
        cursor.seek(SeekFrom::Start(offset)).unwrap();
        cursor.write_all(bytes).unwrap();
        assert_eq!(cursor.position(), offset + bytes.len() as u64);
        cursor
            .seek_relative(-i64::try_from(bytes.len()).unwrap())
            .unwrap();
        let mut rest = Vec::new();
        cursor.read_to_end(&mut rest).unwrap();
        if !bytes.is_empty() {
            self.at(offset, bytes.len() as u64).copy_from_slice(bytes);
        }
        assert!(rest == self.at(offset.min(self.bytes.len() as u64), left));
    }
}

/// Whether the operation succeeded. It has to succeed if and only if the range fits.
fn agree(result: Result<(), IoError>, fits: bool) -> bool {
    match result {
        Ok(()) => assert!(fits, "done, out of range"),
        Err(IoError::OutOfRange { .. }) => assert!(!fits, "refused, in range"),
        Err(error) => panic!("{error}"),
    }
    fits
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|n| n.wrapping_mul(0x9d).to_le_bytes()[0] ^ seed)
        .collect()
}

fn matches(storage: Storage, spec: CipherSpec, sector_size: u32, operations: &[Operation]) {
    let volume = volume(storage, spec, sector_size, SIZE);
    let crypt = crypt(spec, sector_size);
    let unit = if matches!(storage, Storage::Blocks) {
        4096
    } else {
        u64::from(sector_size)
    };
    let bytes = zeroes_decrypted(&crypt, 0, SIZE);
    let mut model = Model {
        bytes,
        crypt,
        unit,
        storage,
    };
    for operation in operations {
        model.apply(&volume, operation);
    }
    let mut all = vec![0; model.bytes.len()];
    volume.read_at(0, &mut all).unwrap();
    assert!(all == model.bytes);
    assert_eq!(volume.size(), model.bytes.len() as u64);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_cipher_over_any_storage(
        spec in spec(),
        storage in prop::sample::select(&Storage::ALL[..]),
        sector_size in prop::sample::select(vec![512, 1024, 2048, 4096]),
        operations in prop::collection::vec(operation(), 1..12),
    ) {
        matches(storage, spec, sector_size, &operations);
    }

    #[test]
    fn the_usual_cipher_for_longer(
        storage in prop::sample::select(&Storage::ALL[..]),
        sector_size in prop::sample::select(vec![512, 4096]),
        operations in prop::collection::vec(operation(), 1..120),
    ) {
        matches(storage, CipherSpec::AES_XTS_PLAIN64, sector_size, &operations);
    }
}

#[test]
fn requests_larger_than_a_piece() {
    for storage in Storage::ALL {
        let size = 3 << 20;
        let volume = volume(storage, CipherSpec::AES_XTS_PLAIN64, 512, size);
        let bytes = pattern(size - 1000, 0x31);
        volume.write_at(777, &bytes).unwrap();
        let mut read = vec![0; bytes.len()];
        volume.read_at(777, &mut read).unwrap();
        assert!(read == bytes);
        let sectors = volume.read_sectors(4096, 1 << 20).unwrap();
        assert!(sectors.as_slice() == &bytes[4096 - 777..][..1 << 20]);
        volume.write_sectors(0, sectors).unwrap();
        volume.read_at(0, &mut read[..1000]).unwrap();
        assert!(read[..1000] == bytes[4096 - 777..][..1000]);
        assert!(matches!(
            volume.read_sectors(100, 512),
            Err(IoError::Unaligned { .. })
        ));
    }
}
