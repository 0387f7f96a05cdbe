//! The area of a reencryption: what recovers the zone that the header declares hot.
//!
//! From the start of the area on it is what cryptsetup expects: the checksums of the old ciphertext
//! of each block, or the old ciphertext itself, which is never plaintext. Checksums leave room at
//! the end, where the last 512 bytes are a trailer of luksmith, which cryptsetup ignores:
//!
//! ```text
//! magic of 16 bytes │ start of the zone │ its length │ salt of 32 bytes │ SHA-256 │ zeroes
//! ```
//!
//! After a checksum zone no header is written that declares it cold. So the checksums of the next
//! zone are written while the header still declares this one hot. By then its data is durable. The
//! trailer says for which zone the checksums are. Its salt is that of the verification digest,
//! which each reencryption has anew. If it names this zone, but its hash does not match, the write
//! of the next checksums was cut.

use luksmith_formats::Hash;
use luksmith_formats::luks2::Reencryption;
use sha2::{Digest as _, Sha256};

use super::error::ReencryptError;
use super::side::OldBytes;
use super::zone::Zone;
use crate::backend::{Backend, IoError};
use crate::container::Container;
use crate::door;
use crate::kdf::HashFunction;

/// The length of the trailer: what every disk writes atomically.
pub(super) const TRAILER: usize = 512;
const MAGIC: &[u8; 16] = b"luksmith zone 1\n";

/// What of a zone is kept in the area.
#[derive(Clone, Copy)]
pub(super) enum CopyOf {
    /// The checksum of each block.
    Checksums {
        hash: HashFunction,
        block: usize,
    },
    Journal,
}

impl CopyOf {
    pub(super) fn checksums(hash: Hash, block: u32) -> Result<Self, ReencryptError> {
        let hash = HashFunction::of(hash).map_err(ReencryptError::Hash)?;
        let block = block as usize;
        Ok(Self::Checksums { hash, block })
    }

    /// The checksums of a zone, or nothing for a journal.
    pub(super) fn of(self, zone: &Zone) -> Vec<u8> {
        let mut sums = Vec::new();
        if let Self::Checksums { hash, block } = self {
            for piece in zone.pieces() {
                hash.append_each(piece.as_slice(), block, &mut sums);
            }
        }
        sums
    }

    /// Writes what recovers the zone, without a flush. `sums` are its checksums.
    pub(super) fn write(
        self,
        container: &Container,
        found: &Reencryption,
        zone: &Zone,
        sums: &[u8],
    ) -> Result<(), ReencryptError> {
        let area = &found.state.area;
        let storage = &**container.header_storage();
        match self {
            Self::Journal => {
                let journal = Journal::of(container, found, zone.start, zone.length)?;
                let mut at = zone.start;
                for piece in zone.pieces() {
                    journal.write(at, piece)?;
                    at += piece.len() as u64;
                }
                Ok(())
            }
            Self::Checksums { .. } => {
                let room = area.end - area.start;
                if (sums.len() + TRAILER) as u64 > room {
                    return Err(ReencryptError::Resilience);
                }
                let trailer = Trailer {
                    start: zone.start,
                    length: zone.length,
                    sum: Sha256::digest(sums).into(),
                    salt: salt(found),
                };
                door::write(storage, area.start, sums)?;
                door::write(storage, area.end - TRAILER as u64, &trailer.to_bytes())?;
                Ok(())
            }
        }
    }
}

/// The place of a copy of a zone.
pub(super) struct Journal<'a> {
    storage: &'a dyn Backend,
    /// The offset of the copy on it.
    at: u64,
    /// The offset of the zone in the data.
    start: u64,
}

impl<'a> Journal<'a> {
    pub(super) fn of(
        container: &'a Container,
        found: &Reencryption,
        start: u64,
        length: u64,
    ) -> Result<Self, ReencryptError> {
        let area = &found.state.area;
        if length > area.end - area.start {
            return Err(ReencryptError::Resilience);
        }
        Ok(Self {
            storage: &**container.header_storage(),
            at: area.start,
            start,
        })
    }

    /// Writes the old ciphertext of a piece of the zone, without a flush.
    ///
    /// # Errors
    /// Returns [`ReencryptError::JournalOfPlaintext`] for plaintext, and an error of the storage.
    pub(super) fn write(&self, at: u64, piece: &OldBytes) -> Result<(), ReencryptError> {
        let OldBytes::Encrypted(piece) = piece else {
            return Err(ReencryptError::JournalOfPlaintext);
        };
        let place = self.at + (at - self.start);
        let block = self.storage.geometry().block_size.max(1) as usize;
        match piece.len().is_multiple_of(block) {
            true => self.storage.write_at(place, piece)?,
            false => door::write(self.storage, place, piece.as_slice())?,
        }
        Ok(())
    }
}

/// Which zone the checksums in the area are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trailer {
    pub(super) start: u64,
    pub(super) length: u64,
    pub(super) sum: [u8; 32],
    salt: [u8; 32],
}

impl Trailer {
    fn to_bytes(self) -> [u8; TRAILER] {
        let mut bytes = [0; TRAILER];
        bytes[..16].copy_from_slice(MAGIC);
        bytes[16..24].copy_from_slice(&self.start.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.length.to_be_bytes());
        bytes[32..64].copy_from_slice(&self.salt);
        bytes[64..96].copy_from_slice(&self.sum);
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (start, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (salt, rest) = rest.split_first_chunk()?;
        let (sum, rest) = rest.split_first_chunk()?;
        let whole = rest.len() == TRAILER - 96 && rest.iter().all(|byte| *byte == 0);
        whole.then_some(Self {
            start: u64::from_be_bytes(*start),
            length: u64::from_be_bytes(*length),
            sum: *sum,
            salt: *salt,
        })
    }

    /// The trailer of this reencryption in the area, if there is one after `used` bytes.
    pub(super) fn read(
        container: &Container,
        found: &Reencryption,
        used: u64,
    ) -> Result<Option<Self>, IoError> {
        let area = &found.state.area;
        let room = area.end - area.start;
        if used + TRAILER as u64 > room {
            return Ok(None);
        }
        let storage = &**container.header_storage();
        let bytes = door::read(storage, area.end - TRAILER as u64, TRAILER)?;
        Ok(Self::parse(&bytes).filter(|trailer| trailer.salt == salt(found)))
    }
}

fn salt(found: &Reencryption) -> [u8; 32] {
    found.salt.first_chunk().copied().unwrap_or([0; 32])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailer_is_read_as_it_was_written() {
        let trailer = Trailer {
            start: 7 << 40,
            length: 4096,
            sum: [9; 32],
            salt: [8; 32],
        };
        let mut bytes = trailer.to_bytes();
        assert_eq!(Trailer::parse(&bytes), Some(trailer));
        assert_eq!(Trailer::parse(&bytes[..511]), None);
        bytes[511] = 1;
        assert_eq!(Trailer::parse(&bytes), None);
        assert_eq!(Trailer::parse(&[0; TRAILER]), None);
    }
}
