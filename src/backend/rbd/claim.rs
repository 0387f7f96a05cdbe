//! The exclusive lock of an image, which only writers need.
//!
//! Without a claim, librbd hands the lock from one writer to another within milliseconds, each time
//! that one of them writes. With it, librbd refuses the lock to others. A client that has the image
//! open for writing and waits for its turn, such as QEMU, would then get errors, so the claim is
//! only made where no other client has registered itself.

use super::error::Problem;
use super::image::Image;

/// Takes the exclusive lock of an image that no other client has open for writing.
pub(super) fn claim(image: &Image) -> Result<(), Problem> {
    if !image.has_exclusive_lock()? {
        return Err(Problem::NoLock);
    }
    refuse_others(image)?;
    if let Err(answer) = image.acquire() {
        return Err(match answer {
            EROFS | EBUSY | EAGAIN => Problem::Busy(image.owners()),
            answer => Problem::failed("rbd_lock_acquire", answer),
        });
    }
    // A client that came in between has seen no claim, and may wait for its turn.
    refuse_others(image)
}

fn refuse_others(image: &Image) -> Result<(), Problem> {
    let this = image.pool.cluster.client();
    let others = image.watchers()?.into_iter();
    let mut others: Vec<String> = others
        .filter(|watcher| watcher.client != this)
        .map(|watcher| watcher.address)
        .collect();
    others.dedup();
    match others.is_empty() {
        true => Ok(()),
        false => Err(Problem::Busy(others)),
    }
}

const EROFS: i32 = -libc::EROFS;
const EBUSY: i32 = -libc::EBUSY;
const EAGAIN: i32 = -libc::EAGAIN;
