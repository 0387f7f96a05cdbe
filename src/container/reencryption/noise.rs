//! Noise over areas that are not in use any more: the encryption of zeroes with a random key, which
//! takes a fraction of the time that random bytes of the system take.

use std::ops::Range;

use luksmith_formats::CipherSpec;

use crate::backend::Backend;
use crate::container::CommitError;
use crate::container::reencryption::ReencryptionError;
use crate::crypt::{IvSector, SectorCrypt};
use crate::door;
use crate::secret::VolumeKey;
use crate::sectors::{Plain, Sectors};

/// The bytes that are written at once.
const PIECE: u64 = 256 << 10;
const SECTOR: u32 = 512;

/// Overwrites the areas, as far as the storage has them, and flushes.
pub(super) fn write(storage: &dyn Backend, areas: &[Range<u64>]) -> Result<(), ReencryptionError> {
    let key = VolumeKey::random(64)?;
    let crypt = SectorCrypt::new(CipherSpec::AES_XTS_PLAIN64, SECTOR, &key);
    let crypt = crypt.map_err(crate::container::KeyslotError::from)?;
    let geometry = storage.geometry();
    let block = u64::from(geometry.block_size.max(1));
    let write = |at: u64, length: u64| {
        let length = usize::try_from(length).unwrap_or(0);
        let whole = length.next_multiple_of(SECTOR as usize);
        let zeroes = Sectors::<Plain>::zeroed(whole);
        let noise = crypt.encrypt(IvSector(at / u64::from(SECTOR)), zeroes);
        match at.is_multiple_of(block) && (length as u64).is_multiple_of(block) && whole == length {
            true => storage.write_at(at, &noise),
            false => door::write(storage, at, &noise.as_slice()[..length]),
        }
    };
    for area in areas {
        let end = area.end.min(geometry.size);
        let mut at = area.start;
        while at < end {
            let length = (end - at).min(PIECE);
            write(at, length).map_err(CommitError::from)?;
            at += length;
        }
    }
    storage.flush().map_err(CommitError::from)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::memory::MemoryBackend;

    #[test]
    fn every_byte_of_the_areas_is_overwritten_and_no_other_one() {
        let storage = MemoryBackend::new(1 << 20);
        write(
            &storage,
            &[4096..400_000, 500_001..500_010, 1_000_000..2_000_000],
        )
        .unwrap();
        let bytes = door::read(&storage, 0, 1 << 20).unwrap();
        let zeroes = |range: Range<usize>| bytes[range].iter().all(|byte| *byte == 0);
        let none = |range: Range<usize>| {
            bytes[range]
                .chunks(32)
                .all(|part| part.iter().any(|b| *b != 0))
        };
        assert!(zeroes(0..4096) && none(4096..400_000) && zeroes(400_000..500_001));
        assert!(!zeroes(500_001..500_010) && zeroes(500_010..1_000_000));
        assert!(none(1_000_000..1 << 20));
    }
}
