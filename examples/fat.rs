//! Makes an encrypted volume in a file, puts a FAT filesystem on it, writes a file there and reads it back.
//!
//! `cargo run --example fat -- /tmp/fat.luks`
//!
//! Nothing of it needs root: the filesystem is the `fatfs` crate, which works on anything that reads, writes and
//! seeks, and a volume's `Cursor` does. The image is an ordinary LUKS2 one: with root, `cryptsetup open` and `mount`
//! show the same file.

#![allow(clippy::print_stdout)] // a program, not the library

use std::error::Error;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use luksmith::Interrupt;
use luksmith::backend::Backend;
use luksmith::backend::file::{FileBackend, OpenOptions};
use luksmith::container::{self, Container, CreateOptions, Undo, Version, Which};
use luksmith::kdf::calibrate::{KdfKind, Target, calibrate};
use luksmith::secret::{Passphrase, Purpose, SecretSource, Source};
use luksmith::volume::Cursor;

/// Bytes of plaintext. The header comes on top: 16 MiB, most of it room for keyslots.
const SIZE: u64 = 8 << 20;

/// Code of others leaves copies of secrets on the heap; this allocator wipes what is freed.
#[cfg(not(test))]
#[global_allocator]
static ALLOCATOR: luksmith::secret::WipingAllocator = luksmith::secret::WipingAllocator;

fn main() -> Result<(), Box<dyn Error>> {
    // No core files, no debugger: before the first secret comes in.
    luksmith::sys::harden()?;
    let path = std::env::args_os().nth(1).ok_or("usage: fat IMAGE")?;

    // A passphrase never comes from the command line, where every process can see it. Other sources are
    // "file:PATH", "fd:N" and "stdin".
    let source: Source = "prompt".parse()?;
    let interrupt = Interrupt::new();
    let passphrase = source.read(Purpose::new_secret("the new volume", &interrupt))?;

    make(Path::new(&path), &passphrase)?;
    println!("{}", read_back(Path::new(&path), &passphrase)?);
    Ok(())
}

/// A new volume with a filesystem and a file.
pub(crate) fn make(path: &Path, passphrase: &Passphrase) -> Result<(), Box<dyn Error>> {
    // Somebody may set this from another thread or a signal handler; what takes long looks at it.
    let interrupt = Interrupt::new();

    // How hard a passphrase is to guess depends on how long each guess takes. A fifth of a second here; the
    // default, and the better choice for a real volume, is two seconds.
    let target = Target::new(KdfKind::Argon2id, 64).time(Duration::from_millis(200));
    let cost = calibrate(&target, &interrupt)?;

    // A new file, for its owner alone, locked against others as long as we have it.
    let create_new = OpenOptions::new().create_new(true);
    let storage = Arc::new(FileBackend::open(path, create_new)?);
    let mut options = CreateOptions::new(Version::Luks2, cost);
    options.blank = true; // a new file holds nothing that would have to be overwritten
    storage.resize(options.layout()?.data_offset + SIZE)?;

    let (container, unlocked) = Container::create(
        storage.clone(),
        options,
        container::OpenOptions::new(Undo::beside(&storage)),
        passphrase,
        &interrupt,
    )?;

    // Header and data may lie on two storages; here they are one.
    let volume = container.volume(storage, &unlocked)?;
    fatfs::format_volume(Cursor::new(&volume), fatfs::FormatVolumeOptions::new())?;
    let filesystem = fatfs::FileSystem::new(Cursor::new(&volume), fatfs::FsOptions::new())?;
    let mut file = filesystem.root_dir().create_file("hello.txt")?;
    file.write_all(b"hello from inside")?;
    drop(file);
    filesystem.unmount()?;

    // Only after a flush is what was written safe from a power cut.
    volume.flush()?;
    Ok(())
}

/// The file's text, by way of the passphrase.
pub(crate) fn read_back(path: &Path, passphrase: &Passphrase) -> Result<String, Box<dyn Error>> {
    // FAT notes in its first sector that it is in use, so it is opened for writing.
    let for_writing = OpenOptions::new().write(true);
    let storage = Arc::new(FileBackend::open(path, for_writing)?);
    let container = Container::open(
        storage.clone(),
        container::OpenOptions::new(Undo::beside(&storage)),
    )?;
    let unlocked = container.unlock(passphrase, Which::Any, &Interrupt::new())?;
    let volume = container.volume(storage, &unlocked)?;

    let filesystem = fatfs::FileSystem::new(Cursor::new(&volume), fatfs::FsOptions::new())?;
    let mut text = String::new();
    let mut file = filesystem.root_dir().open_file("hello.txt")?;
    file.read_to_string(&mut text)?;
    Ok(text)
}
