//! The folder of the pins.

use clap::Args;
use clap::builder::TypedValueParser as _;
use luksmith::trust::TrustDir;

use super::LocalFile;
use crate::cli::error::CommandError;

/// Where the pin of a volume is.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TrustArgs {
    /// Compare the header with its pin in DIR before a passphrase is asked for, and keep the pin up
    /// to date; `luksmith trust init` makes it
    #[arg(
        long,
        value_name = "DIR",
        value_hint = clap::ValueHint::DirPath,
        help_heading = None::<&str>,
        value_parser = LocalFile.map(|path| TrustDir::at(&path))
    )]
    trust: Option<TrustDir>,
}

impl TrustArgs {
    pub(crate) fn dir(&self) -> Option<TrustDir> {
        self.trust.clone()
    }

    /// The folder, for a command that needs it.
    pub(crate) fn needed(&self) -> Result<TrustDir, CommandError> {
        let missing = || CommandError::parameters("--trust DIR is missing");
        self.dir().ok_or_else(missing)
    }
}
