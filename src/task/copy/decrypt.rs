//! Decrypts a volume to a plain sink.

use super::lanes::{CHUNK, beside_lanes, lanes};
use super::volume_end::read_volume;
use crate::task::plain::PlainSink;
use crate::task::{Error, Watch, Work, Working};
use crate::volume::Volume;

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
    let skip = sink.is_sparse();
    let starts = (0_u64..).step_by(CHUNK).zip(to).collect();
    beside_lanes(
        starts,
        |(start, to)| read_volume(volume, start, step, skip, &to, watch),
        || {
            let from = from;
            for lane in from.iter().cycle() {
                // The volume ended here, or the thread failed and reports why.
                let Ok((offset, sectors)) = lane.recv() else {
                    break;
                };
                watch.check()?;
                sink.write(offset, sectors.as_slice())?;
                // An empty chunk is a hole of this length.
                watch.advances((volume.size() - offset).min(CHUNK as u64));
            }
            Ok(())
        },
    )?;
    working.finish();
    let flushing = Working::begin(watch, Work::Flush, None);
    sink.finish()?;
    flushing.finish();
    Ok(())
}
