//! `luksmith decrypt`: writes the plaintext of a volume.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use luksmith::container::Which;
use luksmith::task::copy;
use luksmith::task::destination::{Destination, Needed, Present};
use luksmith::task::new_file::NewFile;
use luksmith::task::outcome::{Change, Changed, Copied};
use luksmith::task::plain::{PlainSink, check_device};
use luksmith::task::storage::Storage;

use super::Session;
use super::args::{CompressedArgs, ImageArgs, LocalFile, UnlockArgs};
use super::error::CommandError;
use super::force::{Force, confirm, only};
use super::notes::note_slow;
use super::open::{ReadArgs, unlock};
use super::passphrase::{KeySource, volume_key_file};
use super::streams;

/// Write the plaintext of a volume to a new file, a block device or stdout
///
/// Only the owner of the new file can read it. The file gets its name when it is complete on the
/// disk.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    #[command(flatten)]
    compressed: CompressedArgs,

    /// The file to create, a block device, or - for stdout
    #[arg(value_name = "DESTINATION", value_parser = LocalFile)]
    destination: PathBuf,

    /// Leave holes in the file where the plaintext is zeroes
    #[arg(long)]
    sparse: bool,

    /// Use only keyslot N
    #[arg(short = 'S', long, alias = "key-slot", value_name = "N")]
    keyslot: Option<u32>,

    /// Unlock with the volume key in FILE instead of a passphrase
    #[arg(long, alias = "master-key-file", value_name = "FILE", conflicts_with_all = ["key", "key_file", "keyslot"], value_parser = LocalFile)]
    volume_key_file: Option<PathBuf>,

    /// Go on without asking: overwrite
    #[arg(long, value_name = "WHAT", value_parser = only(&[Force::Overwrite]))]
    force: Vec<Force>,

    #[command(flatten)]
    read: ReadArgs,

    #[command(flatten)]
    unlock: UnlockArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith decrypt disk.img plain.img
  luksmith decrypt disk.img plain.img --sparse --key-file disk.key
  luksmith decrypt disk.img - | sha256sum
  luksmith decrypt disk.qcow2 plain.img --format qcow2 --sparse";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        session.refuse_json_beside(&self.destination)?;
        let (container, data) = self.image.get().open_data_to_read(
            self.read.options(),
            self.unlock.limits.limits(),
            session,
        )?;
        self.image.get().refuse_header_as_data(&container, &data)?;
        let destination = self.look(self.image.get().data_size(&container, &data))?;
        let label = self.image.image.to_string();
        let unlocked = match &self.volume_key_file {
            Some(path) => container
                .unlock_with_key(volume_key_file(session, path)?, session.signals.interrupt())?,
            None => {
                let which = self.keyslot.map_or(Which::Any, Which::Slot);
                unlock(
                    session,
                    &container,
                    &KeySource::of(&self.unlock.key)?,
                    which,
                    &label,
                )?
            }
        };
        let depth = data.depth();
        let volume = self.compressed.apply(data.volume(&container, &unlocked)?);
        if let Ok(segment) = container.data_segment() {
            note_slow(segment.cipher);
        }
        let size = volume.size();
        let began = Instant::now();
        match destination {
            To::Stdout => {
                let stdout = streams::stdout()?;
                let copied = || copy::decrypt(&volume, depth, stdout, session);
                session
                    .signals
                    .ending(copied)?
                    .map_err(streams::stdout_failed)?;
            }
            To::Device { device, _claimed } => {
                let sink = PlainSink::device(device, &self.destination, size)?;
                copy::decrypt(&volume, depth, sink, session).map_err(|error| {
                    let half = format!("{} is only partly written", self.destination.display());
                    CommandError::from(error).hint(half)
                })?;
            }
            To::File { destination, .. } => {
                let file = NewFile::at(destination, session)?;
                let sink = PlainSink::file(file.file()?, &self.destination, size, self.sparse)?;
                copy::decrypt(&volume, depth, sink, session)?;
                file.keep()?;
            }
        }
        let change = Change::Decrypted {
            file: self.destination.clone(),
            copied: Copied::since(began, size),
        };
        session.wrote(&self.destination, &Changed::new(&self.image.image, change));
        Ok(())
    }

    /// Looks at the destination, before a passphrase is asked for: what will be written there has
    /// `size` bytes, if that is known.
    fn look(&self, size: Option<u64>) -> Result<To, CommandError> {
        let size = size.unwrap_or_default();
        let path = &self.destination;
        if path == Path::new("-") {
            streams::refuse_terminal()?;
            return Ok(To::Stdout);
        }
        let loss = format!("{} exists and would be overwritten", path.display());
        let destination = Destination::look(path)?;
        copy::refuse_same(&self.image.get(), &destination)?;
        if destination.present() != Present::BlockDevice {
            let needed = if self.sparse { 1 } else { size };
            destination.check_room(Needed::Plaintext(needed))?;
        }
        match destination.present() {
            Present::Nothing => Ok(To::File {
                destination,
                _replaced: None,
            }),
            Present::File { .. } => {
                let replaced = Storage::open_found(&destination)?;
                confirm(&self.force, Force::Overwrite, &loss)?;
                Ok(To::File {
                    destination,
                    _replaced: Some(replaced),
                })
            }
            Present::BlockDevice => {
                let claimed = destination.claim()?;
                let mut device = destination.open()?;
                check_device(&mut device, path, size)?;
                confirm(&self.force, Force::Overwrite, &loss)?;
                Ok(To::Device {
                    device,
                    _claimed: claimed,
                })
            }
        }
    }
}

enum To {
    Stdout,
    File {
        destination: Destination,
        /// The old file, which is locked until the new one replaces it.
        _replaced: Option<Storage>,
    },
    Device {
        device: File,
        /// Open exclusively, so that the device cannot be mounted meanwhile.
        _claimed: File,
    },
}
