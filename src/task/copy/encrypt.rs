//! Encrypts plain data into a volume.

use std::ops::Range;
use std::sync::mpsc::SyncSender;

use super::fill::Fill;
use super::lanes::{CHUNK, Chunk, beside_lanes, lanes};
use super::volume_end::write_volume;
use crate::sectors::{Plain, Sectors};
use crate::task::plain::PlainSource;
use crate::task::{Advice, Error, Kind, Watch, Work, Working};
use crate::volume::Volume;

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
            read_plain(source, sector, fill, &to, watch)
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

/// The plain end of [`encrypt`]: returns how many bytes there were, in whole sectors. Holes of the
/// source are not read. They are passed on as zeroes, unless the volume reads as zeroes already.
fn read_plain(
    source: &mut PlainSource,
    sector: usize,
    fill: Fill,
    to: &[SyncSender<Chunk>],
    watch: &dyn Watch,
) -> Result<u64, Error> {
    let mut offset = 0_u64;
    let mut zeroes_until = 0_u64;
    for lane in to.iter().cycle() {
        if offset >= zeroes_until {
            zeroes_until = offset + source.skip_hole(CHUNK as u64);
            if fill.hole.is_some() {
                watch.advances(zeroes_until - offset);
                offset = zeroes_until;
            }
        }
        if offset < zeroes_until {
            watch.check()?;
            if lane.send((offset, Sectors::zeroed(CHUNK))).is_err() {
                break;
            }
            offset += CHUNK as u64;
            continue;
        }
        let mut buffer = Sectors::<Plain>::with_len(CHUNK);
        let filled = source.fill(buffer.as_mut_slice(), watch)?;
        if filled < CHUNK {
            let whole = filled.next_multiple_of(sector);
            if whole != filled && !fill.pad {
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
