//! Gives the disks of a domain, or an image, new passphrases. The domain may be running.
//!
//! `cargo run --example rotate -- URI JOURNALS TARGET`, such as
//! `rotate qemu:///system /var/lib/luksmith vm1`. An interrupted rotation is completed by the next run
//! with the same JOURNALS.

#![allow(clippy::print_stdout, clippy::print_stderr)] // a program, not the library

use std::error::Error;
use std::path::Path;

use luksmith::libvirt::{ConnectOptions, Connection};
use luksmith::task;
use luksmith::task::Silent;
use luksmith::task::libvirt::rotate::{RotateOptions, Rotated, Rotation, Selection};

/// Wipes freed memory, since other crates may leave copies of secrets on the heap.
#[cfg(not(test))]
#[global_allocator]
static ALLOCATOR: luksmith::secret::WipingAllocator = luksmith::secret::WipingAllocator;

fn main() -> Result<(), Box<dyn Error>> {
    luksmith::sys::harden()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [uri, journals, target] = &arguments[..] else {
        return Err("usage: rotate URI JOURNALS TARGET".into());
    };
    let options = ConnectOptions::new().uri(uri.clone());
    let connection = Connection::open(&options)?;
    for volume in rotate(&connection, Path::new(journals), target)? {
        let (slot, removed) = (volume.keyslot, &volume.removed);
        println!(
            "{}: keyslot {slot} is new, removed: {removed:?}",
            volume.volume
        );
    }
    Ok(())
}

/// Rotates every secret of the target. The first failure ends it.
pub(crate) fn rotate(
    connection: &Connection,
    journals: &Path,
    target: &str,
) -> Result<Vec<Rotated>, task::Error> {
    let selection = Selection::one(target);
    let rotation = Rotation::select(connection, &selection, RotateOptions::new(journals))?;
    let watch = Silent::default();
    let mut rotated = Vec::new();
    for (_secret, volumes) in rotation.run(&watch)? {
        rotated.extend(volumes?);
    }
    Ok(rotated)
}
