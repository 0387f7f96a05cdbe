//! Reads and writes whole units of a volume in an image, whose tables say where its clusters are.
//!
//! A cluster gets another place only while the whole cluster is locked exclusively. So a request
//! that has locked a part of a cluster can rely on its place. A write to clusters that cannot be
//! overwritten in place therefore locks whole clusters. A new cluster is written completely, with
//! encrypted zeroes where it has no other data, before a table refers to it.

use std::ops::Range;

use super::ranges::RangeGuard;
use super::{Volume, align, load_run, store_run};
use crate::backend::IoError;
use crate::crypt::{IvSector, SectorCrypt};
use crate::layout::Qcow2;
use crate::layout::qcow2::{Run, Stored};
use crate::layout::side::CipherRun;
use crate::sectors::{Plain, Sectors};

impl Volume {
    /// Returns `lock`, which is on the units of a write, if all of them can be overwritten in
    /// place. Otherwise releases it, and takes one on whole clusters.
    pub(super) fn lock_clusters<'a>(
        &'a self,
        image: &Qcow2,
        lock: RangeGuard<'a>,
        offset: u64,
        len: u64,
    ) -> Result<RangeGuard<'a>, IoError> {
        let end = offset.saturating_add(len);
        if end > self.size() || image.is_in_place(offset..end)? {
            return Ok(lock);
        }
        drop(lock);
        let clusters = align::around(offset..end, image.cluster_size());
        Ok(self.busy.exclude(clusters))
    }

    /// The numbers of the clusters that are completely inside of a range. The last cluster of the
    /// disk may be shorter.
    pub(super) fn clusters_inside(&self, image: &Qcow2, range: &Range<u64>) -> Range<u64> {
        let cluster = image.cluster_size();
        let end = if range.end == self.size() {
            range.end.div_ceil(cluster)
        } else {
            range.end / cluster
        };
        let start = range.start.div_ceil(cluster);
        start..end.max(start)
    }

    pub(super) fn load_mapped(
        &self,
        image: &Qcow2,
        crypt: &SectorCrypt,
        offset: u64,
        len: usize,
    ) -> Result<Sectors<Plain>, IoError> {
        let end = offset + len as u64;
        let first = image.run(offset..end)?;
        if first.len == len as u64 {
            return self.load_cluster_run(image, crypt, first);
        }
        let mut whole = Sectors::<Plain>::with_len(len);
        self.load_mapped_into(image, crypt, offset, whole.as_mut_slice())?;
        Ok(whole)
    }

    fn load_mapped_into(
        &self,
        image: &Qcow2,
        crypt: &SectorCrypt,
        offset: u64,
        into: &mut [u8],
    ) -> Result<(), IoError> {
        let end = offset + into.len() as u64;
        let (mut at, mut rest) = (offset, into);
        while at < end {
            let run = image.run(at..end)?;
            let (now, later) = rest.split_at_mut(length(run.len));
            match run.stored {
                Stored::Nowhere => now.fill(0),
                _ => now.copy_from_slice(self.load_cluster_run(image, crypt, run)?.as_slice()),
            }
            (rest, at) = (later, at + run.len);
        }
        Ok(())
    }

    pub(super) fn load_cluster_run(
        &self,
        image: &Qcow2,
        crypt: &SectorCrypt,
        run: Run,
    ) -> Result<Sectors<Plain>, IoError> {
        let len = length(run.len);
        match run.stored {
            Stored::Nowhere => Ok(Sectors::zeroed(len)),
            Stored::Here(at) | Stored::Kept(at) => load_run(place(image, crypt, at), len),
            Stored::Compressed(compressed, _) if !self.takes_plaintext => {
                Err(IoError::Plaintext { at: compressed.at })
            }
            Stored::Compressed(compressed, within) => {
                let mut plain = Sectors::<Plain>::with_len(len);
                image.inflate(compressed, within, plain.as_mut_slice())?;
                Ok(plain)
            }
        }
    }

    pub(super) fn store_mapped(
        &self,
        image: &Qcow2,
        crypt: &SectorCrypt,
        offset: u64,
        sectors: Sectors<Plain>,
    ) -> Result<(), IoError> {
        let end = offset + sectors.len() as u64;
        let run = image.run(offset..end)?;
        if let (Stored::Here(at), true) = (run.stored, run.len == end - offset) {
            return store_run(place(image, crypt, at), sectors);
        }
        let (mut at, mut run, mut rest) = (offset, run, sectors.as_slice());
        loop {
            let (now, later) = rest.split_at(length(run.len));
            match run.stored {
                Stored::Here(at) => {
                    let mut part = Sectors::<Plain>::with_len(now.len());
                    part.as_mut_slice().copy_from_slice(now);
                    store_run(place(image, crypt, at), part)?;
                }
                Stored::Nowhere | Stored::Kept(_) | Stored::Compressed(..) => {
                    self.store_new(image, crypt, at, now)?;
                }
            }
            (rest, at) = (later, at + run.len);
            if at >= end {
                return Ok(());
            }
            run = image.run(at..end)?;
        }
    }

    /// Writes `bytes` to new clusters, together with the other data of the old clusters.
    fn store_new(
        &self,
        image: &Qcow2,
        crypt: &SectorCrypt,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), IoError> {
        let cluster = image.cluster_size();
        let end = offset + bytes.len() as u64;
        let (mut first, last) = (offset / cluster, end.div_ceil(cluster));
        while first < last {
            let new = image.reserve(last - first)?;
            let count = new.end - new.start;
            let guest = first * cluster..(first + count) * cluster;
            let outcome = self
                .fill(image, crypt, &guest, offset, bytes)
                .and_then(|whole| {
                    let at = new.start * cluster;
                    store_run(place(image, crypt, at), whole)
                })
                .and_then(|()| image.link(first, new.clone()));
            if outcome.is_err() {
                image.give_back(new);
                return outcome;
            }
            first += count;
        }
        Ok(())
    }

    /// The content of whole clusters of the guest, after writing `bytes` at `offset`.
    fn fill(
        &self,
        image: &Qcow2,
        crypt: &SectorCrypt,
        guest: &Range<u64>,
        offset: u64,
        bytes: &[u8],
    ) -> Result<Sectors<Plain>, IoError> {
        let end = offset + bytes.len() as u64;
        let mut whole = Sectors::<Plain>::with_len(length(guest.end - guest.start));
        let content = whole.as_mut_slice();
        let (from, to) = (guest.start.max(offset), guest.end.min(end));
        let inner = length(from - guest.start)..length(to - guest.start);
        content[inner.clone()].copy_from_slice(&bytes[length(from - offset)..length(to - offset)]);
        for (start, part) in [
            (guest.start, 0..inner.start),
            (to, inner.end..content.len()),
        ] {
            if !part.is_empty() {
                self.load_mapped_into(image, crypt, start, &mut content[part])?;
            }
        }
        Ok(whole)
    }

    /// Makes a range read as zeroes. The caller has locked it for writing.
    pub(super) fn zero_mapped(&self, image: &Qcow2, range: Range<u64>) -> Result<(), IoError> {
        let mut at = range.start;
        while at < range.end {
            let run = image.run(at..range.end)?;
            if run.stored != Stored::Nowhere {
                self.write_bytes(at, align::Source::Zeroes(run.len))?;
            }
            at += run.len;
        }
        Ok(())
    }
}

/// The sectors at this offset of the image. The IV of a sector is its offset.
pub(super) fn place<'a>(image: &'a Qcow2, crypt: &'a SectorCrypt, at: u64) -> CipherRun<'a> {
    CipherRun {
        storage: &**image.storage(),
        at,
        iv: IvSector(at / 512),
        crypt,
    }
}

pub(super) fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
