//! The two sides of a reencryption: the data before it, and the encryption after it.

use std::sync::Arc;

use luksmith_formats::luks2::{CryptSegment, Previous};

use super::error::ReencryptError;
use crate::container::ReencryptionKeys;
use crate::crypt::{CryptError, IvSector, SectorCrypt};
use crate::layout::side::{OldSide, Side};
use crate::secret::VolumeKey;
use crate::sectors::{Cipher, Plain, Sectors};

/// The encryption of a segment.
pub(super) fn side_of(segment: &CryptSegment, key: &VolumeKey) -> Result<Side, CryptError> {
    Ok(Side {
        crypt: SectorCrypt::new(segment.encryption, segment.sector_size, key)?,
        start: segment.offset,
        first_iv: IvSector(segment.iv_tweak),
    })
}

/// The data before the reencryption, unless its key could not be opened.
pub(super) fn old_side_of(
    previous: &Previous,
    keys: &ReencryptionKeys,
) -> Result<Option<OldSide>, CryptError> {
    match previous {
        Previous::Crypt { segment, .. } => {
            let side = keys.previous().map(|key| side_of(segment, key));
            Ok(side.transpose()?.map(Arc::new).map(OldSide::Encrypted))
        }
        Previous::Plain(segment) => {
            let start = segment.offset;
            Ok(Some(OldSide::Plain { start }))
        }
    }
}

/// Bytes that are not converted. Plaintext has the type of plaintext, so that it cannot be written
/// to a storage.
pub(super) enum OldBytes {
    Encrypted(Sectors<Cipher>),
    Plain(Sectors<Plain>),
}

impl OldBytes {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Encrypted(sectors) => sectors.as_slice(),
            Self::Plain(sectors) => sectors.as_slice(),
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        match self {
            Self::Encrypted(sectors) => sectors.as_mut_slice(),
            Self::Plain(sectors) => sectors.as_mut_slice(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Arbitrary bytes of the same side, which the caller overwrites completely.
    pub(super) fn with_len(&self, len: usize) -> Self {
        match self {
            Self::Encrypted(_) => Self::Encrypted(Sectors::with_len(len)),
            Self::Plain(_) => Self::Plain(Sectors::with_len(len)),
        }
    }
}

/// Old bytes as they are after the reencryption.
///
/// # Errors
/// Returns [`ReencryptError::NotPending`] if the bytes are encrypted, but the old side is not.
pub(super) fn convert(
    from: &OldSide,
    to: &Side,
    at: u64,
    bytes: OldBytes,
) -> Result<Sectors<Cipher>, ReencryptError> {
    let plain = match (bytes, from) {
        (OldBytes::Plain(plain), _) => plain,
        (OldBytes::Encrypted(sectors), OldSide::Encrypted(from)) => {
            from.crypt.decrypt(from.iv(at), sectors)
        }
        (OldBytes::Encrypted(_), OldSide::Plain { .. }) => return Err(ReencryptError::NotPending),
    };
    Ok(to.crypt.encrypt(to.iv(at), plain))
}

/// The old bytes of what is converted.
pub(super) fn convert_back(
    from: &Side,
    to: &OldSide,
    at: u64,
    sectors: Sectors<Cipher>,
) -> OldBytes {
    let plain = from.crypt.decrypt(from.iv(at), sectors);
    match to {
        OldSide::Encrypted(to) => OldBytes::Encrypted(to.crypt.encrypt(to.iv(at), plain)),
        OldSide::Plain { .. } => OldBytes::Plain(plain),
    }
}
