//! `luksmith header restore`: restores a header backup.

use std::io::Read;
use std::path::PathBuf;

use luksmith::container::{Container, HeaderError, OpenOptions, RestoreOptions};
use luksmith::task::open::ImageFormat;
use luksmith::task::outcome::{Change, Changed};

use crate::cli::Session;
use crate::cli::args::{ImageArgs, LocalFile, UndoArgs};
use crate::cli::error::{CommandError, Kind, failed};
use crate::cli::force::{Force, confirm_all, only};
use crate::cli::{output, size};

/// More than the largest header with the largest keyslots area, in bytes. A longer file is not a
/// backup.
const LARGEST_BACKUP: u64 = 256 << 20;

/// Restore the header from a backup
///
/// This replaces the present keyslots with those of the backup: the passphrases from the time of
/// the backup open the volume again.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    /// The backup
    #[arg(value_name = "FILE", value_parser = LocalFile)]
    file: PathBuf,

    /// Go on without asking about WHAT
    #[arg(long, value_name = "WHAT", value_parser = only(&[
        (Force::Restore, "replace the keyslots with those of the backup"),
        (Force::OtherUuid, "restore the header of another volume, or over an unreadable header"),
        (Force::OtherKey, "restore a header from before a reencryption, which does not open the data"),
    ]))]
    force: Vec<Force>,

    #[command(flatten)]
    undo: UndoArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith header restore disk.img disk.header
  luksmith header restore disk.img disk.header --force restore";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let mut backup = Vec::new();
        let read = session.signals.ending(|| {
            std::fs::File::open(&self.file)
                .and_then(|file| file.take(LARGEST_BACKUP + 1).read_to_end(&mut backup))
        });
        read?.map_err(|error| failed("read", &self.file, error))?;
        if backup.len() as u64 > LARGEST_BACKUP {
            return Err(CommandError::new(
                Kind::Storage,
                format!("{} is too long for a header backup", self.file.display()),
            ));
        }
        let of_luks1 = backup.get(6..8) == Some(&[0, 1]);
        if self.image.format == ImageFormat::Qcow2 && !of_luks1 {
            let message = format!("{} is not a backup of a LUKS1 header", self.file.display());
            return Err(
                CommandError::new(Kind::Storage, message).hint("a qcow2 image holds only LUKS1")
            );
        }
        let storage = self.image.get().header_storage_to_write(session)?;
        let options = OpenOptions::new(storage.undo(self.undo.path()));
        let options = options.trust(self.image.get().trust());
        let storage = storage.header();
        let name = self.image.header_location();
        let mut losses = vec![(
            Force::Restore,
            format!(
                "the header and all keyslots of {name} would be replaced by those of {}",
                self.file.display()
            ),
        )];
        // Checked before the user is asked, so that one question is about all that would be lost.
        let mut allow = RestoreOptions::new();
        match Container::check_restore(&*storage, &backup, allow, &options) {
            Err(HeaderError::OtherUuid {
                backup: theirs,
                volume,
            }) => {
                let loss = match volume {
                    Some(volume) => format!(
                        "the backup is of volume {theirs}, {name} is volume {volume}: its data \
                         cannot be read with another volume's keys"
                    ),
                    None => format!(
                        "{name} has no readable header to compare with: its first {} would be \
                         replaced by the header of volume {theirs}",
                        size::human(backup.len() as u64)
                    ),
                };
                losses.push((Force::OtherUuid, loss));
                allow.other_uuid = true;
            }
            Err(HeaderError::OtherKey) => {
                let loss = format!(
                    "the backup has another volume key or cipher than {name} now, which was \
                     reencrypted since: none of its data could be read"
                );
                losses.push((Force::OtherKey, loss));
                allow.other_key = true;
            }
            checked => checked.map_err(|error| CommandError::from(error).about(name))?,
        }
        confirm_all(&self.force, &losses)?;
        let (restored, kept) = Container::restore(storage, &backup, allow, options)?;
        if let Some(kept) = &kept {
            output::warning(format!(
                "the data of {name} has another key: only the header before, which is kept as \
                 {kept}, opens it"
            ));
        }
        let slots = restored.keyslots();
        let change = Change::HeaderRestored {
            file: self.file,
            uuid: restored.uuid().to_owned(),
            version: restored.version(),
            kept,
            remaining: slots.iter().filter(|there| there.bound).count(),
        };
        session.done(&Changed::new(&self.image.image, change));
        Ok(())
    }
}
