//! `luksmith resize`: changes the size of a volume.

use luksmith::backend::IoError;
use luksmith::layout::Qcow2;
use luksmith::task::outcome::{Change, Changed};

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
    #[arg(long, value_name = "WHAT", value_parser = only(&[Force::Shrink]))]
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
        let old = data.volume_size(&container)?;
        let new = self.size.of(old)?;
        if data.has_fixed_size() && data.qcow2.is_none() && new != old {
            let message = format!(
                "a volume on {} reaches to its end: {old} bytes",
                self.image.image
            );
            let hint = match self.image.image.part() {
                Some(_) => "change the partition, with sfdisk or parted: the volume has its size",
                None => "--size is not needed: the volume has the size of its storage",
            };
            return Err(CommandError::parameters(message).hint(hint));
        }
        if new < old {
            let loss = format!(
                "the last {} of {} would be cut off; shrink the file system in it first",
                size::human(old - new),
                self.image.image
            );
            confirm(&self.force, Force::Shrink, &loss)?;
        }
        match &data.qcow2 {
            Some(image) => resize_image(image, new, old)?,
            None => container.resize(data.backend.as_ref(), new)?,
        }
        let change = Change::Resized {
            size: new,
            old_size: old,
        };
        session.done(&Changed::new(&self.image.image, change));
        Ok(())
    }
}

/// A hint for sizes that the tables of an image do not allow.
fn resize_image(image: &Qcow2, size: u64, old: u64) -> Result<(), CommandError> {
    image.resize(size).map_err(|error| match error {
        IoError::Unaligned { unit, .. } if size < old => CommandError::from(error).hint(format!(
            "use a size in whole clusters of {}: the rest of a cut cluster would come back when \
             the volume grows",
            size::human(unit.into())
        )),
        error => error.into(),
    })
}
