//! `luksmith resize`: more or less room for the guest.

use luksmith::backend::Backend as _;
use serde_json::json;

use super::Session;
use super::args::{ImageArgs, UndoArgs};
use super::error::CommandError;
use super::force::{Force, confirm, only};
use super::open::{open_data_to_write, refuse_header_as_data};
use super::size;

/// Resize the volume
///
/// Needs no passphrase. With --json: {"size", "old_size"}
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    /// The new size as the guest sees it; 10G is 10 GiB
    #[arg(long, value_name = size::SIZE, value_parser = size::parse)]
    size: u64,

    /// Go on without asking: shrink
    #[arg(long, value_name = "WHAT", value_parser = only(&[Force::Shrink]))]
    force: Vec<Force>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    undo: UndoArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith resize disk.img --size 20G
  luksmith resize disk.img --size 5G --force shrink";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let (mut container, data) = open_data_to_write(
            &self.image,
            &self.undo,
            luksmith_formats::limits::Limits::default(),
        )?;
        refuse_header_as_data(&container, &self.image, data.backend.as_ref())?;
        let old = container.data_size(data.backend.geometry().size)?;
        if data.has_fixed_size() && self.size != old {
            let message = format!(
                "a volume on {} reaches to its end: {old} bytes",
                self.image.image
            );
            return Err(CommandError::parameters(message)
                .hint("no --size is needed here: the volume grows and shrinks with its storage"));
        }
        if self.size < old {
            let loss = format!(
                "the last {} of {} would be cut off; shrink what is in it first",
                size::human(old - self.size),
                self.image.image
            );
            confirm(&self.force, Force::Shrink, &loss)?;
        }
        container.resize(data.backend.as_ref(), self.size)?;
        if self.json {
            session
                .output
                .json(&json!({ "size": self.size, "old_size": old }));
        } else {
            session.output.line(format_args!(
                "{} has {} for the guest now",
                self.image.image,
                size::both(self.size)
            ));
        }
        Ok(())
    }
}
