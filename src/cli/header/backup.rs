//! `luksmith header backup`: copies the header with its keyslots.

use std::path::PathBuf;

use luksmith::task::outcome::{Change, Changed};

use crate::cli::Session;
use crate::cli::args::{ImageArgs, LocalFile};
use crate::cli::error::CommandError;
use crate::cli::open::ReadArgs;
use crate::cli::streams::write_secret;

/// Write the header and its keyslots to a new file
///
/// The file has the format of cryptsetup. Passphrases that are changed or removed later still open
/// the volume with it: protect it like a key. The file is new and has mode 0600.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    /// The file to create; - is stdout
    #[arg(value_name = "FILE", value_parser = LocalFile)]
    file: PathBuf,

    #[command(flatten)]
    read: ReadArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith header backup disk.img disk.header";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let container = self.image.get().open_to_read(
            self.read.options().header(true),
            luksmith_formats::limits::Limits::default(),
            session,
        )?;
        let backup = container.backup()?;
        write_secret(&self.file, &backup, session)?;
        let change = Change::HeaderBackedUp {
            file: self.file.clone(),
            uuid: container.uuid().to_owned(),
            version: container.version(),
            bytes: backup.len() as u64,
        };
        session.wrote(&self.file, &Changed::new(&self.image.image, change));
        Ok(())
    }
}
