//! `luksmith unmount`: unmounts a volume that `luksmith mount` has mounted.

use std::path::PathBuf;

use luksmith::task::mount::unmount;

use super::Session;
use super::args::LocalFile;
use super::error::CommandError;

/// Unmount a volume that `luksmith mount` has mounted
///
/// Makes durable what programs have written, unmounts FILE, and returns when the program that had
/// mounted it has ended. It also unmounts a file whose program was killed, which fails with
/// "Transport endpoint is not connected".
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The file at which the volume is mounted
    #[arg(value_name = "FILE", value_parser = LocalFile)]
    file: PathBuf,

    /// Only take the name away if FILE is in use or does not answer; it is served until the
    /// programs that use it have closed it
    #[arg(short = 'z', long)]
    lazy: bool,
}

const EXAMPLES: &str = "\
Examples:
  luksmith unmount disk
  luksmith unmount --lazy disk";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let unmounted = session.signals.ending(|| unmount(&self.file, self.lazy))?;
        session.done(&unmounted?);
        Ok(())
    }
}
