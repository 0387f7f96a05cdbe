//! The head of the file of tags.

use alloc::vec::Vec;

use super::sum;
use crate::codec::{Reader, Writer};
use crate::error::FormatError;

const MAGIC: &[u8; 16] = b"luksmith-tags-1\n";

/// The bytes of the head, which a disk writes completely or not at all.
pub const LENGTH: usize = 512;

/// What is known of all tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Head {
    /// A value that only the volume key gives.
    pub check: [u8; 16],
    /// The bytes of the ciphertext that have tags.
    pub size: u64,
    /// The logs of this generation and of earlier ones are in the tags.
    pub settled: u64,
}

impl Head {
    /// The head of new tags.
    #[must_use]
    pub fn new(check: [u8; 16], size: u64) -> Self {
        Self {
            check,
            size,
            settled: 0,
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.bytes(MAGIC).bytes(&self.check);
        let mut bytes = writer.u64(self.size).u64(self.settled).finish();
        let sum = sum(&[&bytes]);
        bytes.extend_from_slice(&sum);
        bytes.resize(LENGTH, 0);
        bytes
    }

    /// Reads the first bytes of a file.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes, 0);
        if reader.array("magic")? != *MAGIC {
            return Err(FormatError::malformed("magic", 0, "is not that of tags"));
        }
        let head = Self {
            check: reader.array("check")?,
            size: reader.u64("size")?,
            settled: reader.u64("settled")?,
        };
        let (end, there) = (reader.offset(), reader.array("sum")?);
        let covered = usize::try_from(end).ok().and_then(|end| bytes.get(..end));
        match covered.map(|covered| sum(&[covered])) {
            Some(right) if right == there => Ok(head),
            _ => Err(FormatError::malformed("sum", end, "is wrong")),
        }
    }
}
