//! Bulk copies between plain data and a volume: one thread reads, one writes, a few buffers between them. The bytes are read
//! straight into the buffer in which they are encrypted or decrypted.

use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use luksmith::sectors::{Plain, Sectors};
use luksmith::volume::Volume;

use super::error::{CommandError, Kind};
use super::make::Made;
use super::plain::{PlainSink, PlainSource};
use super::progress::Progress;
use super::signals::Signals;

/// Bytes that are read, encrypted and written at once; a multiple of every sector size.
const CHUNK: usize = 1 << 20;
/// Chunks that wait between the two threads.
const WAITING: usize = 4;
/// How far a volume of unknown size grows at once, at least.
const GROWTH: u64 = 256 << 20;

/// What goes from the reader to the writer: where, and the bytes.
type Chunks = Result<(u64, Sectors<Plain>), CommandError>;

/// Encrypts all of `source` into the new volume and returns how many bytes that were, whole sectors.
pub(crate) fn encrypt(
    made: &Made,
    source: &mut PlainSource,
    pad: bool,
    grows: bool,
    progress: &Progress,
    signals: &Signals,
) -> Result<u64, CommandError> {
    let data = made.data.clone();
    let volume = made.container.volume(data, &made.unlocked)?;
    let sector = volume.sector_size() as usize;
    let written = between_threads(
        |chunks| read_plain(source, sector, pad, &chunks, signals),
        |chunks| {
            write_volume(
                &volume,
                grows,
                made.is_in_place(),
                chunks,
                progress,
                signals,
            )
        },
    )?;
    if grows {
        volume.resize(written)?;
    }
    if written == 0 {
        return Err(CommandError::new(
            Kind::Device,
            format!("{} is empty", source.name()),
        ));
    }
    if source.size().is_some_and(|size| size > written) {
        let message = format!("{} became shorter while it was read", source.name());
        return Err(CommandError::new(Kind::Device, message));
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
    let volume = made.container.volume(made.data.clone(), &made.unlocked)?;
    let mut offset = range.start;
    while offset < range.end {
        signals.check()?;
        let left = usize::try_from(range.end - offset).unwrap_or(CHUNK);
        let zeroes = Sectors::<Plain>::zeroed(left.min(CHUNK));
        let len = zeroes.len() as u64;
        volume.write_sectors(offset, zeroes)?;
        progress.advance(len);
        offset += len;
    }
    Ok(())
}

/// The reader's side of [`encrypt`].
fn read_plain(
    source: &mut PlainSource,
    sector: usize,
    pad: bool,
    chunks: &SyncSender<Chunks>,
    signals: &Signals,
) -> Result<(), CommandError> {
    let mut offset = 0_u64;
    loop {
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
                let _ = chunks.send(Ok((offset, last)));
            }
            return Ok(());
        }
        if chunks.send(Ok((offset, buffer))).is_err() {
            return Ok(());
        }
        offset += CHUNK as u64;
    }
}

/// The writer's side of [`encrypt`].
fn write_volume(
    volume: &Volume,
    grows: bool,
    made_in_place: bool,
    chunks: Receiver<Chunks>,
    progress: &Progress,
    signals: &Signals,
) -> Result<u64, CommandError> {
    let mut end = 0;
    for chunk in chunks {
        let (offset, sectors) = chunk?;
        signals.check()?;
        let len = sectors.len() as u64;
        end = offset + len;
        if end > volume.size() {
            if !grows {
                let message = format!(
                    "there is more to encrypt than the {} bytes of the volume",
                    volume.size()
                );
                let hint = (!made_in_place).then(|| "--size makes a larger volume".to_owned());
                return Err(CommandError::new(Kind::Device, message).hint_if(hint));
            }
            volume.resize(volume.size().saturating_mul(2).max(GROWTH))?;
        }
        volume.write_sectors(offset, sectors)?;
        progress.advance(len);
    }
    Ok(end)
}

/// Decrypts all of the volume into the sink.
pub(crate) fn decrypt(
    volume: &Volume,
    mut sink: PlainSink,
    progress: &Progress,
    signals: &Signals,
) -> Result<(), CommandError> {
    between_threads(
        |chunks| read_volume(volume, &chunks, signals),
        |chunks| {
            for chunk in chunks {
                let (offset, sectors) = chunk?;
                signals.check()?;
                sink.write(offset, sectors.as_slice())?;
                progress.advance(sectors.len() as u64);
            }
            Ok(())
        },
    )?;
    sink.finish()
}

/// The reader's side of [`decrypt`].
fn read_volume(
    volume: &Volume,
    chunks: &SyncSender<Chunks>,
    signals: &Signals,
) -> Result<(), CommandError> {
    let mut offset = 0;
    while offset < volume.size() {
        signals.check()?;
        let left = usize::try_from(volume.size() - offset).unwrap_or(CHUNK);
        let len = left.min(CHUNK);
        if chunks
            .send(Ok((offset, volume.read_sectors(offset, len)?)))
            .is_err()
        {
            return Ok(());
        }
        offset += len as u64;
    }
    Ok(())
}

/// Runs the reader in a thread of its own; an error of either side ends both.
fn between_threads<T>(
    read: impl FnOnce(SyncSender<Chunks>) -> Result<(), CommandError> + Send,
    write: impl FnOnce(Receiver<Chunks>) -> Result<T, CommandError>,
) -> Result<T, CommandError> {
    let (sender, receiver) = sync_channel(WAITING);
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new()
            .name("reader".to_owned())
            .spawn_scoped(scope, move || {
                let errors = sender.clone();
                if let Err(error) = read(sender) {
                    // A writer that is gone has its own error to tell.
                    let _ = errors.send(Err(error));
                }
            })
            .map_err(|error| {
                CommandError::new(Kind::Memory, error).about("cannot start a thread")
            })?;
        let written = write(receiver);
        // The reader ends by itself once the writer has let go of the channel.
        if reader.join().is_err() {
            return Err(CommandError::new(Kind::Device, "the reading thread failed"));
        }
        written
    })
}
