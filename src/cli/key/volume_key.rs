//! `luksmith key volume-key`: exports the key that encrypts the data.

use std::io::IsTerminal;
use std::path::PathBuf;

use luksmith::container::Which;
use luksmith::task::outcome::{Change, Changed};

use crate::cli::Session;
use crate::cli::args::{ImageArgs, LocalFile, UnlockArgs};
use crate::cli::error::CommandError;
use crate::cli::force::{Force, confirm, only};
use crate::cli::open::{ReadArgs, unlock};
use crate::cli::passphrase::KeySource;
use crate::cli::streams::{check_secret, is_terminal, write_secret};

/// Write the volume key to a file
///
/// Anyone who has the key can read the data without a passphrase, even after all keyslots change.
/// The file is new, has mode 0600, and holds the raw bytes, as --volume-key-file reads them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    #[command(flatten)]
    read: ReadArgs,

    /// The file to create; - is stdout, unless it is a terminal
    #[arg(
        long,
        value_name = "FILE",
        alias = "volume-key-file",
        alias = "master-key-file", value_parser = LocalFile
    )]
    out: PathBuf,

    /// Use only keyslot N; an unbound keyslot gives its own key
    #[arg(short = 'S', long, alias = "key-slot", value_name = "N")]
    keyslot: Option<u32>,

    /// Go on without asking: volume-key
    #[arg(long, value_name = "WHAT", value_parser = only(&[(Force::VolumeKey, "write the volume key to a file")]))]
    force: Vec<Force>,

    #[command(flatten)]
    unlock: UnlockArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith key volume-key disk.img --out disk.volume-key
  luksmith key add disk.img --volume-key-file disk.volume-key";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        session.refuse_json_beside(&self.out)?;
        let shown = if self.out.as_os_str() == "-" {
            std::io::stdout().is_terminal()
        } else {
            is_terminal(&self.out, session)?
        };
        if shown {
            return Err(
                CommandError::parameters("the volume key is never shown on a terminal")
                    .hint("--out names a new file"),
            );
        }
        check_secret(&self.out)?;
        let label = self.image.image.to_string();
        let container = self.image.get().open_to_look(
            self.read.options(),
            self.unlock.limits.limits(),
            session,
        )?;
        let loss = format!(
            "{} would hold the volume key of {label}, which opens it without a passphrase",
            self.out.display()
        );
        confirm(&self.force, Force::VolumeKey, &loss)?;
        let source = KeySource::to_unlock(&self.unlock)?;
        let which = self.keyslot.map_or(Which::Any, Which::Slot);
        let unlocked = unlock(session, &container, &source, which, &label)?;
        let key = unlocked.key().as_bytes();
        write_secret(&self.out, key, session)?;
        let change = Change::VolumeKeyWritten {
            file: self.out.clone(),
            key_bits: key.len() * 8,
        };
        session.wrote(&self.out, &Changed::new(&self.image.image, change));
        Ok(())
    }
}
