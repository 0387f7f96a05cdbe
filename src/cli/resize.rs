//! `luksmith resize`: changes the size of a volume.

use luksmith::task::outcome::{Change, Changed};
use luksmith::task::resize::Resize;

use super::Session;
use super::args::{ImageArgs, UndoArgs};
use super::error::CommandError;
use super::force::{Force, confirm, only};
use super::size::{self, NewSize};

/// Resize the volume
///
/// Needs no passphrase.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    /// The new size as the guest sees it, or +SIZE to add to it; 10G is 10 GiB
    #[arg(long, value_name = size::SIZE, value_parser = NewSize::parse, allow_hyphen_values = true)]
    size: NewSize,

    /// Go on without asking: shrink
    #[arg(long, value_name = "WHAT", value_parser = only(&[(Force::Shrink, "cut off the end of the volume, with the data in it")]))]
    force: Vec<Force>,

    #[command(flatten)]
    undo: UndoArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith resize disk.img --size 20G
  luksmith resize disk.img --size +10G                         10 GiB more
  luksmith resize disk.img --size 5G --force shrink
  luksmith resize disk.qcow2 --format qcow2 --size 20G";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let (mut container, data) = self.image.get().open_data_to_write(
            self.undo.path(),
            luksmith_formats::limits::Limits::default(),
            session,
        )?;
        self.image.get().refuse_header_as_data(&container, &data)?;
        let about = |error: CommandError| error.about(&self.image.image);
        let old = data.volume_size(&container);
        let old = old.map_err(CommandError::from).map_err(about)?;
        let new = self.size.of(old)?;
        let resize = Resize::look(&self.image.get(), &container, &data, new)?;
        if let Some(loss) = resize.loss() {
            confirm(&self.force, Force::Shrink, &loss)?;
        }
        resize.execute(&mut container, &data, None)?;
        let change = Change::Resized {
            size: new,
            old_size: old,
        };
        session.done(&Changed::new(&self.image.image, change));
        Ok(())
    }
}
