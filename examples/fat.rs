//! Makes an encrypted volume in a file, puts a FAT file system on it, writes a file there and reads
//! it back: `cargo run --example fat -- /tmp/fat.luks`
//!
//! It does not need root. The file system is implemented by the `fatfs` crate, which works on
//! anything that reads, writes and seeks, such as the `Cursor` of a volume. The image is an
//! ordinary LUKS2 image: as root, `cryptsetup open` and `mount` show the same file.

#![allow(clippy::print_stdout)] // a program, not the library

use std::error::Error;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use luksmith::container::Which;
use luksmith::formats::Limits;
use luksmith::location::Location;
use luksmith::secret::{Passphrase, Purpose, SecretSource, Source};
use luksmith::task::new_volume::{Extent, NewVolume, Plan};
use luksmith::task::open::Image;
use luksmith::task::{Silent, Watch};
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
    let watch = Silent::default();
    let purpose = Purpose::new_secret("the new volume", watch.interrupt());
    let passphrase = "prompt".parse::<Source>()?.read(purpose)?;
    make(path.as_ref(), &passphrase)?;
    println!("{}", read_back(path.as_ref(), &passphrase)?);
    Ok(())
}

/// Makes a new volume with a file system and a file. Until the image is complete, it has another
/// name.
pub(crate) fn make(path: &Path, passphrase: &Passphrase) -> Result<(), Box<dyn Error>> {
    let mut new = NewVolume::default();
    // Two seconds, the default, is better for a real volume.
    new.cost.time = Duration::from_millis(200);
    let watch = Silent::default();
    let plan = Plan::look(new, &Location::Path(path.into()), Extent::Exactly(SIZE))?;
    if let Some(loss) = plan.losses().first() {
        return Err(loss.to_string().into());
    }
    let made = plan.make(passphrase, &watch)?;

    let volume = made.volume()?;
    fatfs::format_volume(Cursor::new(&volume), FormatVolumeOptions::new())?;
    let filesystem = FileSystem::new(Cursor::new(&volume), FsOptions::new())?;
    let mut file = filesystem.root_dir().create_file("hello.txt")?;
    file.write_all(b"hello from inside")?;
    drop(file);
    filesystem.unmount()?;
    made.keep()?;
    Ok(())
}

/// Opens the volume with the passphrase, and returns the text of the file.
pub(crate) fn read_back(path: &Path, passphrase: &Passphrase) -> Result<String, Box<dyn Error>> {
    let (image, watch) = (Image::new(Location::Path(path.into())), Silent::default());
    // FAT marks its first sector as in use, so the volume is opened for writing.
    let (container, data) = image.open_data_to_write(None, Limits::default(), &watch)?;
    let unlocked = container.unlock(passphrase, Which::Any, watch.interrupt())?;
    let volume = data.volume(&container, &unlocked)?;
    let filesystem = FileSystem::new(Cursor::new(&volume), FsOptions::new())?;
    let mut text = String::new();
    let mut file = filesystem.root_dir().open_file("hello.txt")?;
    file.read_to_string(&mut text)?;
    Ok(text)
}
