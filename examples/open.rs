//! Opens an existing volume for reading, and prints its size and its first bytes.
//!
//! `cargo run --example open -- IMAGE [SOURCE]`, where SOURCE says where the passphrase comes from:
//! `prompt` (the default), `file:PATH`, `fd:N`, `stdin`.

#![allow(clippy::print_stdout)] // a program, not the library

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use luksmith::Interrupt;
use luksmith::backend::file::{FileBackend, OpenOptions};
use luksmith::container::{self, Container, Undo, Which};
use luksmith::secret::{Purpose, SecretSource, Source};
use luksmith::volume::Volume;

/// How many bytes are printed.
const SHOWN: u64 = 64;

/// Wipes freed memory, since other crates may leave copies of secrets on the heap.
#[cfg(not(test))]
#[global_allocator]
static ALLOCATOR: luksmith::secret::WipingAllocator = luksmith::secret::WipingAllocator;

fn main() -> Result<(), Box<dyn Error>> {
    luksmith::sys::harden()?;
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: open IMAGE [SOURCE]")?;
    let source: Source = arguments.next().as_deref().unwrap_or("prompt").parse()?;

    let volume = open(Path::new(&path), &source)?;
    println!("{} bytes", volume.size());
    for line in first_bytes(&volume)?.chunks(16) {
        for byte in line {
            print!("{byte:02x} ");
        }
        println!();
    }
    Ok(())
}

/// Opens the volume in the image at `path`, for reading.
pub(crate) fn open(path: &Path, source: &Source) -> Result<Volume, Box<dyn Error>> {
    // By default a file is opened only for reading. Other readers may have it open at the same
    // time.
    let storage = Arc::new(FileBackend::open(path, OpenOptions::new())?);

    // The header is validated and still locked. `keyslots`, `uuid` and `health` can be used
    // already.
    let container = Container::open(
        storage.clone(),
        container::OpenOptions::new(Undo::beside(&storage)),
    )?;

    // The passphrase is read only now that there is a volume to open.
    let interrupt = Interrupt::new();
    let label = path.display().to_string();
    let passphrase = source.read(Purpose::unlock(&label, &interrupt))?;
    let unlocked = container.unlock(&passphrase, Which::Any, &interrupt)?;

    // The volume has its own key schedule. It needs neither the container nor the unlocked key.
    Ok(container.volume(storage, &unlocked)?)
}

/// The bytes at the start of the volume that are printed.
pub(crate) fn first_bytes(volume: &Volume) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut bytes = vec![0; usize::try_from(volume.size().min(SHOWN))?];
    volume.read_at(0, &mut bytes)?;
    Ok(bytes)
}
