//! Makes an encrypted volume in a file, puts a FAT file system on it, writes a file there and reads
//! it back.
//!
//! `cargo run --example fat -- /tmp/fat.luks`
//!
//! It does not need root. The file system is implemented by the `fatfs` crate, which works on
//! anything that reads, writes and seeks, such as the `Cursor` of a volume. The image is an
//! ordinary LUKS2 image: as root, `cryptsetup open` and `mount` show the same file.

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

/// Bytes of plaintext. The header needs another 16 MiB, most of it for keyslots.
const SIZE: u64 = 8 << 20;

/// Wipes freed memory, since other crates may leave copies of secrets on the heap.
#[cfg(not(test))]
#[global_allocator]
static ALLOCATOR: luksmith::secret::WipingAllocator = luksmith::secret::WipingAllocator;

fn main() -> Result<(), Box<dyn Error>> {
    // No core files and no debugger, before the first secret is read.
    luksmith::sys::harden()?;
    let path = std::env::args_os().nth(1).ok_or("usage: fat IMAGE")?;

    // A passphrase never comes from the command line, where every process can see it. Other sources
    // are "file:PATH", "fd:N" and "stdin".
    let source: Source = "prompt".parse()?;
    let interrupt = Interrupt::new();
    let passphrase = source.read(Purpose::new_secret("the new volume", &interrupt))?;

    make(Path::new(&path), &passphrase)?;
    println!("{}", read_back(Path::new(&path), &passphrase)?);
    Ok(())
}

/// Makes a new volume with a file system and a file.
pub(crate) fn make(path: &Path, passphrase: &Passphrase) -> Result<(), Box<dyn Error>> {
    // Another thread or a signal handler may set this. Work that takes long checks it.
    let interrupt = Interrupt::new();

    // The longer each guess takes, the harder a passphrase is to guess. This is a fifth of a
    // second. The default, which is better for a real volume, is two seconds.
    let target = Target::new(KdfKind::Argon2id, 64).time(Duration::from_millis(200));
    let cost = calibrate(&target, &interrupt)?;

    // A new file that only its owner can read, and that is locked while it is open.
    let create_new = OpenOptions::new().create_new(true);
    let storage = Arc::new(FileBackend::open(path, create_new)?);
    let mut options = CreateOptions::new(Version::Luks2, cost);
    options.blank = true; // a new file contains nothing that has to be overwritten
    storage.resize(options.layout()?.data_offset + SIZE)?;

    let (container, unlocked) = Container::create(
        storage.clone(),
        options,
        container::OpenOptions::new(Undo::beside(&storage)),
        passphrase,
        &interrupt,
    )?;

    // The header and the data may be on two storages. Here they are on the same one.
    let volume = container.volume(storage, &unlocked)?;
    fatfs::format_volume(Cursor::new(&volume), fatfs::FormatVolumeOptions::new())?;
    let filesystem = fatfs::FileSystem::new(Cursor::new(&volume), fatfs::FsOptions::new())?;
    let mut file = filesystem.root_dir().create_file("hello.txt")?;
    file.write_all(b"hello from inside")?;
    drop(file);
    filesystem.unmount()?;

    // Data survives a power failure only after a flush.
    volume.flush()?;
    Ok(())
}

/// Opens the volume with the passphrase, and returns the text of the file.
pub(crate) fn read_back(path: &Path, passphrase: &Passphrase) -> Result<String, Box<dyn Error>> {
    // FAT marks its first sector as in use, so the volume is opened for writing.
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
