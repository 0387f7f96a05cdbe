//! Serves an encrypted scratch disk in memory on a Unix socket. It shows how a program makes an
//! export of its own volume.
//!
//! `cargo run --example serve_socket -- /run/user/1000/scratch/disk.sock` prints the URI for
//! clients, such as `nbdinfo URI` or `qemu-img info URI`. The directory of the socket is created;
//! if it exists, it has to be closed to other users.

#![allow(clippy::print_stdout)] // a program, not the library

use std::error::Error;
use std::sync::Arc;

use luksmith::backend::memory::MemoryBackend;
use luksmith::crypt::{IvSector, SectorCrypt};
use luksmith::export::nbd::{Options, Server};
use luksmith::export::{Discard, Export};
use luksmith::formats::CipherSpec;
use luksmith::secret::VolumeKey;
use luksmith::task::Silent;
use luksmith::task::listen::{Listen, Place};
use luksmith::volume::Volume;

const SIZE: usize = 64 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    luksmith::sys::harden()?;
    let path = std::env::args_os()
        .nth(1)
        .ok_or("usage: serve_socket SOCKET")?;
    let watch = Silent::default();
    let options = Options::default();
    let sockets = Listen::new(Place::unix(path), &options)?.start(&watch)?;
    println!("{}", sockets.uri("scratch"));
    Ok(sockets.serve(&Server::new([scratch()?], options)?)?)
}

/// A disk with a random key, whose content is lost when the program ends. Any `Backend` could be
/// its storage.
pub(crate) fn scratch() -> Result<Export, Box<dyn Error>> {
    let cipher = CipherSpec::AES_XTS_PLAIN64;
    let key = VolumeKey::random(cipher.default_key_size())?;
    let crypt = SectorCrypt::new(cipher, 4096, &key)?;
    let storage = Arc::new(MemoryBackend::new(SIZE));
    let volume = Volume::new(storage, crypt, 0, SIZE as u64, IvSector(0), false)?;
    // A discarded sector does not read as zeroes: that is the storage's zeroes, decrypted.
    Ok(Export::new("scratch", Arc::new(volume))
        .with_description("a scratch disk in memory")
        .with_discard(Discard::Pass))
}
