//! The exclusive lock of an image, which only writers need.
//!
//! Without a claim, librbd hands the lock from one writer to another within milliseconds, each time
//! that one of them writes. With it, librbd refuses the lock to others. A client that has the image
//! open for writing and waits for its turn, such as QEMU, would then get errors, so the claim is
//! only made where no other client has registered itself.
//!
//! Beside a QEMU there is no claim: the automatic lock comes with a write, and QEMU gets it back
//! with its own next write. Clients that come at the same time register themselves before they look
//! at the others, so that no two of them find only the QEMU.

use std::collections::BTreeMap;

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

/// Lets this client write beside one other. If there is none, takes the exclusive lock.
pub(super) fn share(image: &Image) -> Result<(), Problem> {
    if !image.has_exclusive_lock()? {
        return Err(Problem::NoLock);
    }
    match others(image)?.len() {
        0 => claim(image),
        1 => Ok(()),
        _ => refuse_others(image),
    }
}

fn refuse_others(image: &Image) -> Result<(), Problem> {
    let others = others(image)?;
    match others.is_empty() {
        true => Ok(()),
        false => Err(Problem::Busy(others.into_values().collect())),
    }
}

/// The other clients that may write, with their addresses.
fn others(image: &Image) -> Result<BTreeMap<u64, String>, Problem> {
    let this = image.pool.cluster.client();
    let watchers = image.watchers()?.into_iter();
    let others = watchers.filter(|watcher| watcher.client != this);
    Ok(others
        .map(|watcher| (watcher.client, watcher.address))
        .collect())
}

const EROFS: i32 = -libc::EROFS;
const EBUSY: i32 = -libc::EBUSY;
const EAGAIN: i32 = -libc::EAGAIN;
