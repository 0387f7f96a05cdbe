//! `luksmith decrypt`: writes the plaintext of a volume.

use std::path::{Path, PathBuf};
use std::time::Instant;

use luksmith::container::Which;
use luksmith::location::Location;
use luksmith::task::copy::{self, PlainTarget};
use luksmith::task::outcome::{Change, Changed, Copied};
use luksmith::task::storage::Storage;

use super::Session;
use super::args::{CompressedArgs, ImageArgs, LocalFile, LocationParser, UnlockArgs};
use super::error::CommandError;
use super::force::{Force, access, confirm, only};
use super::notes::note_slow;
use super::open::{ReadArgs, unlock};
use super::passphrase::{KeySource, volume_key_file};
use super::streams;

/// Write the plaintext of a volume to a file, device or export
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

    /// The file to create, a block device, an NBD export on a Unix socket or with TLS, or - for
    /// stdout
    #[arg(value_name = "DESTINATION", value_parser = LocationParser::Openable)]
    destination: Location,

    /// Leave holes in the file where the plaintext is zeroes
    #[arg(long)]
    sparse: bool,

    /// Use only keyslot N
    #[arg(short = 'S', long, alias = "key-slot", value_name = "N")]
    keyslot: Option<u32>,

    /// Unlock with the volume key in FILE instead of a passphrase
    #[arg(long, alias = "master-key-file", value_name = "FILE", conflicts_with_all = ["key", "key_file", "token", "token_type", "keyslot"], value_parser = LocalFile)]
    volume_key_file: Option<PathBuf>,

    /// Go on without asking: overwrite, plaintext-over-network
    #[arg(long, value_name = "WHAT", value_parser = only(&[
        (Force::Overwrite, "replace the file DESTINATION, or overwrite the device or the export"),
        (Force::PlaintextOverNetwork, "send the plaintext to a server on a network without TLS"),
    ]))]
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
  luksmith decrypt disk.img 'nbd+unix:///?socket=plain.sock'
  luksmith decrypt disk.qcow2 plain.img --format qcow2 --sparse";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let file = match self.destination.path() {
            Some(path) => path.to_owned(),
            None => self.destination.to_string().into(),
        };
        session.refuse_json_beside(&file)?;
        let options = self.read.options();
        let (container, data) = self.image.get().open_data_to_read(
            copy::open_beside(&self.image.image, &self.destination, options),
            self.unlock.limits.limits(),
            session,
        )?;
        self.image.get().refuse_header_as_data(&container, &data)?;
        let size = self.image.get().data_size(&container, &data);
        let destination = self.look(session, &data, size)?;
        let label = self.image.image.to_string();
        let unlocked = match &self.volume_key_file {
            Some(path) => container
                .unlock_with_key(volume_key_file(session, path)?, session.signals.interrupt())?,
            None => {
                let which = self.keyslot.map_or(Which::Any, Which::Slot);
                unlock(
                    session,
                    &container,
                    &KeySource::to_unlock(&self.unlock)?,
                    which,
                    &label,
                )?
            }
        };
        let depth = data.depth();
        let volume = data.volume(&container, &unlocked);
        let volume = volume.map_err(|error| error.about(&self.image.image))?;
        let volume = self.compressed.apply(volume);
        if let Ok(segment) = container.data_segment() {
            note_slow(segment.cipher);
        }
        let size = volume.size();
        let began = Instant::now();
        match destination {
            None => {
                let stdout = streams::stdout()?;
                let copied = || copy::decrypt(&volume, depth, stdout, session);
                session
                    .signals
                    .ending(copied)?
                    .map_err(streams::stdout_failed)?;
            }
            Some(target) => {
                let half = format!("{} is only partly written", self.destination);
                let half = target.is_in_place().then_some(half);
                target
                    .fill(&volume, depth, session)
                    .map_err(|error| CommandError::from(error).hint_if(half))?;
            }
        }
        let change = Change::Decrypted {
            file: file.clone(),
            copied: Copied::since(began, size),
        };
        session.wrote(&file, &Changed::new(&self.image.image, change));
        Ok(())
    }

    /// Looks at DESTINATION, before a passphrase is asked for, and asks if something would be lost.
    /// What will be written has `size` bytes, if that is known. `None` is stdout.
    fn look(
        &self,
        session: &Session,
        data: &Storage,
        size: Option<u64>,
    ) -> Result<Option<PlainTarget>, CommandError> {
        if self.destination.path() == Some(Path::new("-")) {
            streams::refuse_terminal()?;
            return Ok(None);
        }
        let access = access(&self.image.remote, &self.force);
        let image = self.image.get();
        let (to, form) = (&self.destination, (size, self.sparse));
        let target = PlainTarget::look(to, access, (&image, data), form, session)?;
        if let Some(loss) = target.loss() {
            confirm(&self.force, Force::Overwrite, &loss)?;
        }
        Ok(Some(target))
    }
}
