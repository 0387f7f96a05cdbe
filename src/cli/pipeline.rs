//! Bulk copies between plain data and a volume: one thread at the plain end, one or more at the volume, a few buffers between them.
//! The bytes are read straight into the buffer in which they are encrypted or decrypted.
//!
//! Where the storage keeps one waiting, as many chunks are under way as there are threads at the volume. Chunk after chunk goes round
//! them, so that the plain end gives and takes them in order.

use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use luksmith::sectors::{Plain, Sectors};
use luksmith::volume::Volume;

use super::error::{CommandError, Kind};
use super::make::Made;
use super::plain::{PlainSink, PlainSource, runs_of_data};
use super::progress::Progress;
use super::signals::Signals;

/// Bytes that are read, encrypted and written at once; a multiple of every sector size.
const CHUNK: usize = 1 << 20;
/// Chunks that wait between the plain end and the threads at the volume, together; at least one for each.
const WAITING: usize = 4;
/// How far a volume of unknown size grows at once, at least.
const GROWTH: u64 = 256 << 20;

/// How [`encrypt`] does it.
#[derive(Clone, Copy)]
pub(crate) struct Manner {
    /// Fill the last sector with zeroes.
    pub(crate) pad: bool,
    /// The volume grows as there is more.
    pub(crate) grows: bool,
    /// Leave out clusters of zeroes.
    pub(crate) sparse: bool,
}

/// What goes to and fro: where, and the bytes.
type Chunk = (u64, Sectors<Plain>);

/// Encrypts all of `source` into the new volume and returns how many bytes that were, whole sectors.
pub(crate) fn encrypt(
    made: &Made,
    source: &mut PlainSource,
    manner: Manner,
    progress: &Progress,
    signals: &Signals,
) -> Result<u64, CommandError> {
    let Manner { pad, grows, sparse } = manner;
    let hole = made.data.qcow2.as_ref().filter(|_| sparse);
    let hole = hole.map(|image| {
        usize::try_from(image.cluster_size())
            .unwrap_or(CHUNK)
            .min(CHUNK)
    });
    let volume = made.volume()?;
    let sector = volume.sector_size() as usize;
    let (to, from) = lanes(made.data.depth());
    let written = beside_lanes(
        from,
        |chunks| {
            write_volume(
                &volume,
                grows,
                made.is_in_place(),
                hole,
                chunks,
                progress,
                signals,
            )
        },
        || {
            let to = to;
            read_plain(source, sector, pad, &to, signals)
        },
    )?;
    if grows {
        volume.resize(written)?;
    }
    if written == 0 {
        return Err(CommandError::new(
            Kind::Storage,
            format!("{} is empty", source.name()),
        ));
    }
    if source.size().is_some_and(|size| size > written) {
        let message = format!("{} became shorter while it was read", source.name());
        return Err(CommandError::new(Kind::Storage, message));
    }
    Ok(written)
}

/// Encrypts zeroes into a part of the new volume, for they do not show by themselves.
pub(crate) fn zeroes(
    made: &Made,
    range: Range<u64>,
    progress: &Progress,
    signals: &Signals,
) -> Result<(), CommandError> {
    let volume = made.volume()?;
    let (to, from) = lanes(made.data.depth());
    beside_lanes(
        from,
        |chunks| write_volume(&volume, false, true, None, chunks, progress, signals),
        move || {
            let mut offset = range.start;
            for lane in to.iter().cycle() {
                let left = usize::try_from(range.end - offset).unwrap_or(CHUNK);
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

/// The plain end of [`encrypt`]: how many bytes there were.
fn read_plain(
    source: &mut PlainSource,
    sector: usize,
    pad: bool,
    to: &[SyncSender<Chunk>],
    signals: &Signals,
) -> Result<u64, CommandError> {
    let mut offset = 0_u64;
    for lane in to.iter().cycle() {
        let mut buffer = Sectors::<Plain>::with_len(CHUNK);
        let filled = source.fill(buffer.as_mut_slice(), signals)?;
        if filled < CHUNK {
            let whole = filled.next_multiple_of(sector);
            if whole != filled && !pad {
                let message = format!(
                    "{} ends after {} bytes, within a {sector}-byte sector",
                    source.name(),
                    offset + filled as u64
                );
                return Err(CommandError::new(Kind::Parameters, message)
                    .hint("--pad fills the last sector with zeroes"));
            }
            if whole > 0 {
                let mut last = Sectors::<Plain>::zeroed(whole);
                last.as_mut_slice()[..filled].copy_from_slice(&buffer.as_slice()[..filled]);
                // A writer that is gone has its own error to tell.
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

/// A thread at the volume that is filled. One that grows has one such thread. Where so many zeroes come in a row, a new volume that
/// can have holes keeps them.
fn write_volume(
    volume: &Volume,
    grows: bool,
    made_in_place: bool,
    hole: Option<usize>,
    chunks: Receiver<Chunk>,
    progress: &Progress,
    signals: &Signals,
) -> Result<(), CommandError> {
    for (offset, sectors) in chunks {
        signals.check()?;
        let len = sectors.len() as u64;
        let end = offset + len;
        if end > volume.size() {
            if !grows {
                let message = format!(
                    "there is more to encrypt than the {} bytes of the volume",
                    volume.size()
                );
                let hint = (!made_in_place).then(|| "--size makes a larger volume".to_owned());
                return Err(CommandError::new(Kind::Storage, message).hint_if(hint));
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
        progress.advance(len);
    }
    Ok(())
}

/// Decrypts all of the volume into the sink, with `depth` reads under way.
pub(crate) fn decrypt(
    volume: &Volume,
    depth: usize,
    mut sink: PlainSink,
    progress: &Progress,
    signals: &Signals,
) -> Result<(), CommandError> {
    let (to, from) = lanes(depth);
    let step = (depth * CHUNK) as u64;
    let starts = (0_u64..).step_by(CHUNK).zip(to).collect();
    beside_lanes(
        starts,
        |(start, to)| read_volume(volume, start, step, &to, signals),
        || {
            let from = from;
            for lane in from.iter().cycle() {
                // At the end of the volume, or with an error to tell.
                let Ok((offset, sectors)) = lane.recv() else {
                    break;
                };
                signals.check()?;
                sink.write(offset, sectors.as_slice())?;
                progress.advance(sectors.len() as u64);
            }
            Ok(())
        },
    )?;
    sink.finish()
}

/// A thread at the volume that is emptied: the chunks from `start` on, `step` apart.
fn read_volume(
    volume: &Volume,
    start: u64,
    step: u64,
    to: &SyncSender<Chunk>,
    signals: &Signals,
) -> Result<(), CommandError> {
    let mut offset = start;
    while offset < volume.size() {
        signals.check()?;
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

/// The two ends of the lanes between the plain end and the threads at the volume.
fn lanes(depth: usize) -> (Vec<SyncSender<Chunk>>, Vec<Receiver<Chunk>>) {
    (0..depth)
        .map(|_| sync_channel((WAITING / depth).max(1)))
        .unzip()
}

/// Runs a thread for the end of each lane, and `plain`, which owns the other ends, meanwhile. An error of either ends both: who
/// finds the other end gone stops without one of its own.
fn beside_lanes<End: Send, T>(
    ends: Vec<End>,
    lane: impl Fn(End) -> Result<(), CommandError> + Sync,
    plain: impl FnOnce() -> Result<T, CommandError>,
) -> Result<T, CommandError> {
    let lane = &lane;
    std::thread::scope(move |scope| {
        let mut threads = Vec::with_capacity(ends.len());
        for end in ends {
            let thread = std::thread::Builder::new()
                .name("storage".to_owned())
                .spawn_scoped(scope, move || lane(end))
                .map_err(|error| {
                    CommandError::new(Kind::Memory, error).about("cannot start a thread")
                })?;
            threads.push(thread);
        }
        let mut outcome = plain();
        for thread in threads {
            let ended = thread.join().unwrap_or_else(|_| {
                Err(CommandError::new(
                    Kind::Storage,
                    "a thread at the storage failed",
                ))
            });
            outcome = outcome.and_then(|done| ended.map(|()| done));
        }
        outcome
    })
}
