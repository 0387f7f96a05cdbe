//! Copies the plaintext of one volume into another one.

use super::fill::Fill;
use super::lanes::{CHUNK, beside_lanes, lanes};
use super::volume_end::{read_volume, write_volume};
use crate::task::{Error, Watch, Work, Working};
use crate::volume::Volume;

/// Decrypts all of `from`, with `depth` reads in flight at once, and encrypts it into the start of
/// the new volume `to`. The plaintext is only in memory.
///
/// # Errors
/// A volume that is smaller than `from`, an interrupt, and what both storages report.
pub fn transfer(
    from: &Volume,
    depth: usize,
    to: &Volume,
    fill: Fill,
    watch: &dyn Watch,
) -> Result<(), Error> {
    let working = Working::begin(watch, Work::Copy, Some(from.size()));
    let depth = depth.max(1);
    let (filled, writers) = lanes(fill.depth);
    let (read, passed_on) = lanes(depth);
    let step = (depth * CHUNK) as u64;
    let starts = (0_u64..).step_by(CHUNK).zip(read).collect();
    let skip = fill.hole.is_some();
    beside_lanes(
        writers,
        |chunks| write_volume(to, fill, chunks, watch),
        || {
            let filled = filled;
            beside_lanes(
                starts,
                |(start, read)| read_volume(from, start, step, skip, &read, watch),
                || {
                    let (passed_on, filled) = (passed_on, filled);
                    for (lane, to) in passed_on.iter().cycle().zip(filled.iter().cycle()) {
                        // The volume ended here, or a thread failed and reports why.
                        let Ok(chunk) = lane.recv() else { break };
                        if chunk.1.is_empty() {
                            // A hole, which is already in the new volume.
                            watch.advances(CHUNK as u64);
                            continue;
                        }
                        if to.send(chunk).is_err() {
                            break;
                        }
                    }
                    Ok(())
                },
            )
        },
    )?;
    working.finish();
    Ok(())
}
