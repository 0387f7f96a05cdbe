//! Bulk copies between plain data and a volume.
//!
//! One thread reads or writes the plain data (the plain end). One or more threads read or write the
//! volume. A few buffers are between them. Bytes are read into the buffer in which they are
//! encrypted or decrypted. If each call to the storage waits for a server, several chunks are in
//! flight, one for each thread at the volume. These threads get the chunks in turn, so that the
//! plain end handles them in order.

use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::plain::{PlainSink, PlainSource, runs_of_data};
use super::{Advice, Error, Kind, Watch, Work, Working};
use crate::sectors::{Plain, Sectors};
use crate::volume::Volume;

/// Bytes that are read, encrypted and written at once; a multiple of every sector size.
const CHUNK: usize = 1 << 20;
/// Chunks that wait between the plain end and the threads at the volume, over all threads; at least
/// one for each.
const WAITING: usize = 4;
/// The smallest step in which a volume of unknown size grows, in bytes.
const GROWTH: u64 = 256 << 20;

/// How [`encrypt`] fills a volume.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Fill {
    /// Chunks in flight at the storage at once, at least 1.
    pub depth: usize,
    /// Fill the last sector with zeroes if the source ends within it.
    pub pad: bool,
    /// Grow the volume while the source is read, and truncate it at the end.
    pub grows: bool,
    /// Do not write runs of zeroes of this many bytes: the volume is new, and unwritten parts read
    /// as zeroes.
    pub hole: Option<usize>,
    /// Fill the volume with zeroes from the end of the source to this byte.
    pub size: Option<u64>,
    /// The volume is as large as its storage; a larger one cannot be made there.
    pub fixed: bool,
}

impl Fill {
    /// Writes every byte of the source, with `depth` chunks in flight at once.
    #[must_use]
    pub fn new(depth: usize) -> Self {
        Self {
            depth: depth.max(1),
            pad: false,
            grows: false,
            hole: None,
            size: None,
            fixed: false,
        }
    }
}

/// An offset in the volume, in bytes, and the plaintext there.
type Chunk = (u64, Sectors<Plain>);

/// Encrypts all of `source` into a new volume, and returns where the data ends, in bytes of the
/// volume: whole sectors, and [`Fill::size`] where that is set.
///
/// # Errors
/// An empty source, one that ends within a sector (without [`Fill::pad`]), one that is larger than
/// the volume; an interrupt; what the source and the storage report.
pub fn encrypt(
    volume: &Volume,
    fill: Fill,
    source: &mut PlainSource,
    watch: &dyn Watch,
) -> Result<u64, Error> {
    let working = Working::begin(watch, Work::Encrypt, fill.size.or(source.size()));
    let written = copy_in(volume, fill, source, watch)?;
    let end = match fill.size {
        // What is not written reads as zeroes.
        Some(size) if fill.hole.is_some() => size,
        Some(size) => {
            zeroes(volume, fill, written..size, watch)?;
            size
        }
        None => written,
    };
    working.finish();
    Ok(end)
}

fn copy_in(
    volume: &Volume,
    fill: Fill,
    source: &mut PlainSource,
    watch: &dyn Watch,
) -> Result<u64, Error> {
    let sector = volume.sector_size() as usize;
    let (to, from) = lanes(fill.depth);
    let written = beside_lanes(
        from,
        |chunks| write_volume(volume, fill, chunks, watch),
        || {
            let to = to;
            read_plain(source, sector, fill.pad, &to, watch)
        },
    )?;
    if fill.grows {
        volume.resize(written)?;
    }
    let name = source.name().display();
    if written == 0 {
        let message = format!("{name} is empty");
        return Err(Error::new(Kind::Storage, message));
    }
    if source.size().is_some_and(|size| size > written) {
        let message = format!("{name} became shorter while it was read");
        return Err(Error::new(Kind::Storage, message));
    }
    Ok(written)
}

/// Encrypts zeroes into a part of the volume: sectors that were never written do not decrypt to
/// zeroes.
fn zeroes(volume: &Volume, fill: Fill, range: Range<u64>, watch: &dyn Watch) -> Result<(), Error> {
    let (to, from) = lanes(fill.depth);
    let fill = Fill {
        grows: false,
        ..fill
    };
    beside_lanes(
        from,
        |chunks| write_volume(volume, fill, chunks, watch),
        move || {
            let mut offset = range.start;
            for lane in to.iter().cycle() {
                let left = usize::try_from(range.end.saturating_sub(offset)).unwrap_or(CHUNK);
                let zeroes = Sectors::<Plain>::zeroed(left.min(CHUNK));
                let len = zeroes.len() as u64;
                if len == 0 || lane.send((offset, zeroes)).is_err() {
                    break;
                }
                offset += len;
            }
            Ok(())
        },
    )
}

/// The plain end of [`encrypt`]: returns how many bytes there were, in whole sectors.
fn read_plain(
    source: &mut PlainSource,
    sector: usize,
    pad: bool,
    to: &[SyncSender<Chunk>],
    watch: &dyn Watch,
) -> Result<u64, Error> {
    let mut offset = 0_u64;
    for lane in to.iter().cycle() {
        let mut buffer = Sectors::<Plain>::with_len(CHUNK);
        let filled = source.fill(buffer.as_mut_slice(), watch)?;
        if filled < CHUNK {
            let whole = filled.next_multiple_of(sector);
            if whole != filled && !pad {
                let message = format!(
                    "{} ends after {} bytes, within a {sector}-byte sector",
                    source.name().display(),
                    offset + filled as u64
                );
                return Err(Error::parameters(message).advise(Advice::Pad));
            }
            if whole > 0 {
                let mut last = Sectors::<Plain>::zeroed(whole);
                last.as_mut_slice()[..filled].copy_from_slice(&buffer.as_slice()[..filled]);
                // A thread that ended early reports its own error.
                let _ = lane.send((offset, last));
            }
            return Ok(offset + whole as u64);
        }
        if lane.send((offset, buffer)).is_err() {
            break;
        }
        offset += CHUNK as u64;
    }
    Ok(offset)
}

/// A thread at the volume that writes chunks. A volume that grows has only one such thread.
fn write_volume(
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

/// Decrypts all of the volume into the sink, with `depth` reads in flight at once.
///
/// # Errors
/// An interrupt, and what the storage and the sink report.
pub fn decrypt(
    volume: &Volume,
    depth: usize,
    mut sink: PlainSink,
    watch: &dyn Watch,
) -> Result<(), Error> {
    let working = Working::begin(watch, Work::Decrypt, Some(volume.size()));
    let depth = depth.max(1);
    let (to, from) = lanes(depth);
    let step = (depth * CHUNK) as u64;
    let starts = (0_u64..).step_by(CHUNK).zip(to).collect();
    beside_lanes(
        starts,
        |(start, to)| read_volume(volume, start, step, &to, watch),
        || {
            let from = from;
            for lane in from.iter().cycle() {
                // The volume ended here, or the thread failed and reports why.
                let Ok((offset, sectors)) = lane.recv() else {
                    break;
                };
                watch.check()?;
                sink.write(offset, sectors.as_slice())?;
                watch.advances(sectors.len() as u64);
            }
            Ok(())
        },
    )?;
    sink.finish()?;
    working.finish();
    Ok(())
}

/// A thread at the volume that reads chunks: those from `start` on, `step` bytes apart.
fn read_volume(
    volume: &Volume,
    start: u64,
    step: u64,
    to: &SyncSender<Chunk>,
    watch: &dyn Watch,
) -> Result<(), Error> {
    let mut offset = start;
    while offset < volume.size() {
        watch.check()?;
        let left = usize::try_from(volume.size() - offset).unwrap_or(CHUNK);
        let sectors = if left >= CHUNK {
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

/// The ends of the channels between the plain end and each thread at the volume.
fn lanes(depth: usize) -> (Vec<SyncSender<Chunk>>, Vec<Receiver<Chunk>>) {
    (0..depth)
        .map(|_| sync_channel((WAITING / depth).max(1)))
        .unzip()
}

/// Runs a thread for the end of each lane, and meanwhile `plain`, which owns the other ends. An
/// error of either stops both: the one that finds its channel closed stops without an error.
fn beside_lanes<End: Send, T>(
    ends: Vec<End>,
    lane: impl Fn(End) -> Result<(), Error> + Sync,
    plain: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    let lane = &lane;
    std::thread::scope(move |scope| {
        let mut threads = Vec::with_capacity(ends.len());
        for end in ends {
            let thread = std::thread::Builder::new()
                .name("storage".to_owned())
                .spawn_scoped(scope, move || lane(end))
                .map_err(Error::thread)?;
            threads.push(thread);
        }
        let mut outcome = plain();
        for thread in threads {
            let ended = thread.join().unwrap_or_else(|_| {
                let message = "a thread at the storage failed";
                Err(Error::new(Kind::Storage, message))
            });
            outcome = outcome.and_then(|done| ended.map(|()| done));
        }
        outcome
    })
}
