//! `luksmith trust init`: pins a volume.

use luksmith::task::outcome::{Done, Trusted};
use luksmith::task::trust::Volume;
use luksmith::task::trust::tagging::Tagging;
use luksmith::trust::TrustDir;

use super::volume::VolumeArgs;
use crate::cli::Session;
use crate::cli::args::{Choice, choice};
use crate::cli::error::CommandError;
use crate::cli::force::{Force, confirm, only};

/// Pin the header of a volume as it is now
///
/// DIR is made with mode 0700 if it does not exist. The pin keeps hashes of the header and of its
/// key material, a fingerprint of the volume key, and the place of the volume as it is named here;
/// nothing in it is secret. The header has to be genuine now.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, mut_arg("trust", |arg| arg.required(true)))]
pub(crate) struct Args {
    #[command(flatten)]
    volume: VolumeArgs,

    /// Keep a tag of each 4 KiB of the data too, so that changed or old data are errors. They are
    /// those of what is there now, and a volume that is pinned already gets them too
    #[arg(long, value_name = "WHAT", help_heading = None::<&str>, num_args = 0..=1, require_equals = true, default_missing_value = "present", value_parser = choice(TAGS))]
    tags: Option<Content>,

    /// Go on without asking: fresh
    #[arg(long, value_name = "WHAT", help_heading = None::<&str>, value_parser = only(&[(Force::Fresh, "give up the data that is there, with --tags=fresh")]))]
    force: Vec<Force>,
}

/// Which content has tags at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Present,
    Fresh,
}

const TAGS: &[Choice<Content>] = &[
    (
        "present",
        "The data is read, and trusted as it is now",
        Content::Present,
    ),
    (
        "fresh",
        "The volume is new: all of it reads as zeroes",
        Content::Fresh,
    ),
];

const EXAMPLES: &str = "\
Examples:
  luksmith trust init disk.img --trust pins
  luksmith trust init disk.img --trust pins --tags
  luksmith trust init new.img --trust pins --tags=fresh
  luksmith trust init s3://bucket/vm1 --trust /var/lib/luksmith/trust --key-file vm1.key";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let args = &self.volume;
        let dir = TrustDir::make(args.image.trust.needed()?.path())?;
        let image = args.image.get().without_trust();
        let container = args.open(&image, session)?;
        let volume = Volume::new(&image, &dir, &container);
        let limits = args.unlock.limits.limits();
        let tagging = match self.tags {
            None => None,
            Some(_) => Some(Tagging::prepare(&image, &container, &dir, limits, session)?),
        };
        let is_fresh = self.tags == Some(Content::Fresh);
        if let (Some(tagging), true) = (&tagging, is_fresh)
            && let Some(at) = tagging.first_data(session)?
        {
            let loss = format!(
                "{}: there is data at byte {at}, which would read as zeroes",
                image.location
            );
            confirm(&self.force, Force::Fresh, &loss)?;
        }
        let pinned = match &tagging {
            None => None,
            Some(_) => volume.pinned()?,
        };
        // The volume key is compared with the pin too.
        let container = match &pinned {
            Some(_) => args.open(&args.image.get(), session)?,
            None => {
                volume.check_init()?;
                container
            }
        };
        let unlocked = args.unlock(&image, &container, session)?;
        let pin = match pinned {
            Some(pin) => pin,
            None => volume.init(&container, &unlocked)?,
        };
        let tags = tagging.map(|tagging| tagging.make(&dir, &unlocked, is_fresh, session));
        let done = Trusted::new(&image.location, Done::Pinned, pin, Vec::new());
        session.done(&done.tags(tags.transpose()?));
        Ok(())
    }
}
