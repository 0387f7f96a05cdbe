//! The channels between the threads of a copy.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::sectors::{Plain, Sectors};
use crate::task::{Error, Kind};

/// Bytes that are read, encrypted and written at once; a multiple of every sector size.
pub(super) const CHUNK: usize = 1 << 20;
/// Chunks that wait between the plain end and the threads at the volume, over all threads; at least
/// one for each.
const WAITING: usize = 4;

/// An offset in the volume, in bytes, and the plaintext there.
pub(super) type Chunk = (u64, Sectors<Plain>);

/// The ends of the channels between the plain end and each thread at the volume.
pub(super) fn lanes(depth: usize) -> (Vec<SyncSender<Chunk>>, Vec<Receiver<Chunk>>) {
    (0..depth)
        .map(|_| sync_channel((WAITING / depth).max(1)))
        .unzip()
}

/// Runs a thread for the end of each lane, and meanwhile `plain`, which owns the other ends. An
/// error of either stops both: the one that finds its channel closed stops without an error.
pub(super) fn beside_lanes<End: Send, T>(
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
