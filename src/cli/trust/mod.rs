//! `luksmith trust`: what this host keeps, so that changes in a storage are noticed.

mod accept;
mod init;
mod status;
mod verify;
mod volume;

use clap::Subcommand;

use super::Session;
use super::error::CommandError;

/// Notice a header that was changed, swapped or rolled back
///
/// A pin keeps, on this host, what the header of a volume says.
/// --trust DIR of every command that opens a volume compares its header with the pin in DIR, before
/// a passphrase is asked for, and keeps the pin up to date.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Command {
    Init(init::Args),
    Accept(accept::Args),
    Status(status::Args),
    Verify(verify::Args),
}

const EXAMPLES: &str = "\
Examples:
  luksmith trust init disk.img --trust pins      pin its header as it is now
  luksmith serve disk.img --trust pins --socket vm/disk.sock   refused if it has changed
  luksmith trust accept disk.img --trust pins    after a change by cryptsetup
  luksmith trust status pins                     all volumes that are pinned there";

impl Command {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        match self {
            Self::Init(args) => args.run(session),
            Self::Accept(args) => args.run(session),
            Self::Status(args) => args.run(session),
            Self::Verify(args) => args.run(session),
        }
    }
}
