//! The threads of a copy at a volume.

use std::sync::mpsc::{Receiver, SyncSender};

use super::fill::Fill;
use super::lanes::{CHUNK, Chunk};
use crate::backend::Allocation;
use crate::sectors::{Plain, Sectors};
use crate::task::plain::runs_of_data;
use crate::task::{Advice, Error, Kind, Watch};
use crate::volume::Volume;

/// The smallest step in which a volume of unknown size grows, in bytes.
const GROWTH: u64 = 256 << 20;

/// A thread at the volume that writes chunks. A volume that grows has only one such thread.
pub(super) fn write_volume(
    volume: &Volume,
    fill: Fill,
    chunks: Receiver<Chunk>,
    watch: &dyn Watch,
) -> Result<(), Error> {
    let hole = fill.hole.map(|hole| hole.min(CHUNK));
    for (offset, sectors) in chunks {
        watch.check()?;
        let len = sectors.len() as u64;
        let end = offset + len;
        if end > volume.size() {
            if !fill.grows {
                let message = format!(
                    "there is more to encrypt than the {} bytes of the volume",
                    volume.size()
                );
                let error = Error::new(Kind::Storage, message);
                return Err(error.advise_if(!fill.fixed, Advice::LargerVolume));
            }
            volume.resize(volume.size().saturating_mul(2).max(GROWTH))?;
        }
        if let Some(hole) = hole {
            for (at, run) in runs_of_data(sectors.as_slice(), hole) {
                volume.write_at(offset + at as u64, run)?;
            }
        } else if sectors.len() == CHUNK {
            volume.write_sectors(offset, sectors)?;
        } else {
            // The end may lie within a block of the storage.
            volume.write_at(offset, sectors.as_slice())?;
        }
        watch.advances(len);
    }
    Ok(())
}

/// A thread at the volume that reads chunks: those from `start` on, `step` bytes apart. With
/// `skip`, a chunk is empty where the volume has a hole. The last one is not empty if it is shorter
/// than the others.
pub(super) fn read_volume(
    volume: &Volume,
    start: u64,
    step: u64,
    skip: bool,
    to: &SyncSender<Chunk>,
    watch: &dyn Watch,
) -> Result<(), Error> {
    let mut offset = start;
    let mut hole = 0;
    while offset < volume.size() {
        watch.check()?;
        let left = usize::try_from(volume.size() - offset).unwrap_or(CHUNK);
        let end = volume.size().min(offset + CHUNK as u64);
        if skip && hole < end {
            hole = hole_end(volume, offset, end)?;
        }
        let sectors = if skip && hole >= end && left >= CHUNK {
            Sectors::<Plain>::with_len(0)
        } else if left >= CHUNK {
            volume.read_sectors(offset, CHUNK)?
        } else {
            let mut end = Sectors::<Plain>::with_len(left);
            volume.read_at(offset, end.as_mut_slice())?;
            end
        };
        if to.send((offset, sectors)).is_err() {
            break;
        }
        offset += step;
    }
    Ok(())
}

/// Where the hole ends that begins at `offset`, if it reaches `end`. Otherwise some place before.
fn hole_end(volume: &Volume, offset: u64, end: u64) -> Result<u64, Error> {
    let mut at = offset;
    while at < end {
        match volume.allocation(at..volume.size())? {
            (len, Allocation::Hole) if len > 0 => at += len,
            _ => break,
        }
    }
    Ok(at)
}
