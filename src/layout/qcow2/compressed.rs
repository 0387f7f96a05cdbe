//! Inflates compressed clusters. QEMU does not encrypt them, so they are plaintext in the image.
//!
//! Reference: QEMU's `docs/interop/qcow2.txt`, "Compressed Clusters Descriptor". The data is raw
//! deflate or zstd. It starts at any byte. Its length is stated in sectors, so it may end earlier.
//! It has to inflate to exactly one cluster.

use std::sync::{Mutex, PoisonError};

use luksmith_formats::image::qcow2::ZSTD;

use super::map::Compressed;
use super::shape::{Shape, damaged, length};
use crate::backend::{Backend, IoError};
use crate::door;
use crate::inflate::{deflate, zstd};
use crate::sectors::{Plain, Sectors};

/// Inflates clusters. It keeps the last one, for callers that read it in parts.
pub(super) struct Inflated {
    cluster: usize,
    zstd: bool,
    last: Mutex<Option<(Compressed, Sectors<Plain>)>>,
}

impl Inflated {
    pub(super) fn new(shape: &Shape) -> Self {
        Self {
            cluster: length(shape.cluster),
            zstd: shape.header.compression == ZSTD,
            last: Mutex::default(),
        }
    }

    /// Fills `into` with the content of a cluster, from the byte `within` it on.
    pub(super) fn read(
        &self,
        storage: &dyn Backend,
        compressed: Compressed,
        within: usize,
        into: &mut [u8],
    ) -> Result<(), IoError> {
        let part = within..within + into.len();
        let last = || self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, whole)) = last().as_ref().filter(|(which, _)| *which == compressed) {
            into.copy_from_slice(&whole.as_slice()[part]);
            return Ok(());
        }
        let whole = self.inflate(storage, compressed)?;
        into.copy_from_slice(&whole.as_slice()[part]);
        *last() = Some((compressed, whole));
        Ok(())
    }

    fn inflate(
        &self,
        storage: &dyn Backend,
        compressed: Compressed,
    ) -> Result<Sectors<Plain>, IoError> {
        let Compressed { at, len } = compressed;
        let end = (at + len).min(storage.geometry().size);
        let data = door::read(storage, at, length(end.saturating_sub(at)))?;
        let mut whole = Sectors::<Plain>::with_len(self.cluster);
        let inflated = match self.zstd {
            true => zstd(&data, whole.as_mut_slice()),
            false => deflate(&data, whole.as_mut_slice()),
        };
        match inflated {
            Some(()) => Ok(whole),
            None => Err(damaged("a compressed cluster that is damaged", at)),
        }
    }
}
