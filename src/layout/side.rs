//! One encryption of the bytes of a volume: where they are, and how they are encrypted.

use std::sync::Arc;

use crate::backend::{Backend, IoError};
use crate::crypt::{IvSector, SectorCrypt};
use crate::door;
use crate::sectors::{Plain, Sectors};

/// Consecutive sectors of one cipher. Offsets count from the start of the data.
#[derive(Debug)]
pub(crate) struct Side {
    /// The cipher.
    pub(crate) crypt: SectorCrypt,
    /// The offset of the first sector on its storage.
    pub(crate) start: u64,
    /// The IV of the first sector.
    pub(crate) first_iv: IvSector,
}

impl Side {
    /// The offset on the storage.
    pub(crate) fn place(&self, at: u64) -> u64 {
        self.start + at
    }

    /// The IV of the sector at an offset.
    pub(crate) fn iv(&self, at: u64) -> IvSector {
        self.first_iv.after_bytes(at)
    }
}

/// The data of a volume before a reencryption. Offsets count from its start.
#[derive(Clone, Debug)]
pub(crate) enum OldSide {
    /// It is encrypted.
    Encrypted(Arc<Side>),
    /// It is plaintext, which is encrypted in place. It is only read.
    Plain {
        /// The offset of the data on its storage.
        start: u64,
    },
}

impl OldSide {
    /// The offset on the storage.
    pub(crate) fn place(&self, at: u64) -> u64 {
        match self {
            Self::Encrypted(side) => side.place(at),
            Self::Plain { start } => start + at,
        }
    }

    /// The size of a sector, in bytes. Plaintext has the smallest one.
    pub(crate) fn sector_size(&self) -> u32 {
        match self {
            Self::Encrypted(side) => side.crypt.sector_size(),
            Self::Plain { .. } => 512,
        }
    }

    /// Whether the volume may only be read, by its cipher.
    pub(crate) fn is_only_read(&self) -> bool {
        match self {
            Self::Encrypted(side) => side.crypt.is_only_read(),
            Self::Plain { .. } => false,
        }
    }
}

/// Consecutive bytes on the storage that are not encrypted in place yet.
pub(crate) struct PlainRun<'a> {
    /// The storage.
    pub(crate) storage: &'a dyn Backend,
    /// Their offset on it.
    pub(crate) at: u64,
}

impl PlainRun<'_> {
    /// The first `length` bytes.
    pub(crate) fn read(&self, length: usize) -> Result<Sectors<Plain>, IoError> {
        door::read_unencrypted(self.storage, self.at, length)
    }
}

/// Consecutive sectors on the storage, with one cipher.
#[derive(Clone, Copy)]
pub(crate) struct CipherRun<'a> {
    /// The storage.
    pub(crate) storage: &'a dyn Backend,
    /// Their offset on it.
    pub(crate) at: u64,
    /// The IV of the first one.
    pub(crate) iv: IvSector,
    /// Their cipher.
    pub(crate) crypt: &'a SectorCrypt,
}

impl<'a> CipherRun<'a> {
    /// The sectors of a side from an offset on.
    pub(crate) fn of(storage: &'a dyn Backend, side: &'a Side, offset: u64) -> Self {
        Self {
            storage,
            at: side.place(offset),
            iv: side.iv(offset),
            crypt: &side.crypt,
        }
    }
}
