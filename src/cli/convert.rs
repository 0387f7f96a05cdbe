//! `luksmith convert`: converts the header between LUKS1 and LUKS2, in place.

use luksmith::container::{Header, HeaderError, Version};
use luksmith::task::outcome::{Change, Changed};

use super::Session;
use super::args::{ImageArgs, UndoArgs, VERSIONS, choice};
use super::error::CommandError;
use super::force::{Force, confirm, only};
use super::open::refuse_qcow2;

/// Convert the header between LUKS1 and LUKS2
///
/// The data and the passphrases do not change. A volume that becomes LUKS1 must have only pbkdf2
/// keyslots with the numbers 0 to 7, 512-byte sectors, and no tokens.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    /// The format to convert to
    #[arg(long, alias = "type", value_name = "TYPE", value_parser = choice(VERSIONS))]
    to: Version,

    /// Go on without asking: convert
    #[arg(long, value_name = "WHAT", value_parser = only(&[(Force::Convert, "change between LUKS1 and LUKS2")]))]
    force: Vec<Force>,

    #[command(flatten)]
    undo: UndoArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith convert disk.img --to luks2
  luksmith convert disk.img --to luks1 --force convert
  luksmith copy disk.img qemu.img --type luks1         what a conversion cannot do, in a new volume";

const COPY: &str =
    "`luksmith copy IMAGE NEW --type luks1` encrypts the data again, into a LUKS1 volume";

const COPY_TO_AES: &str = "`luksmith copy IMAGE NEW` encrypts the data with aes";

const UNLABEL: &str = "`luksmith config IMAGE --label '' --subsystem ''` removes the labels";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        refuse_qcow2(&self.image, "a conversion")?;
        let mut container = self.image.to_change(&self.undo, session)?;
        let (from, to) = (container.version(), self.to);
        let name = self.image.header_location();
        if from == to {
            return Err(CommandError::parameters(format!("{name} is already {to}")));
        }
        let loss = format!(
            "the {from} header of {name} would be rewritten as {to}; make a backup first (luksmith \
             header backup), and keep the volume closed meanwhile"
        );
        let labelled = matches!(container.header(), Header::Luks2(header)
            if !header.label.is_empty() || !header.subsystem.is_empty());
        let to_luks1 = to == Version::Luks1;
        let refused = |error: HeaderError| {
            let weak = matches!(error, HeaderError::Cipher(_));
            if matches!(error, HeaderError::Requirements(_)) {
                return CommandError::from(error).about(name);
            }
            CommandError::from(error)
                .about(name)
                .hint_if((weak && !to_luks1).then(|| COPY_TO_AES.to_owned()))
                .hint_if((to_luks1 && labelled).then(|| UNLABEL.to_owned()))
                .hint_if(to_luks1.then(|| COPY.to_owned()))
        };
        // The user is not asked about a conversion that is not possible.
        container.check_convert(to).map_err(refused)?;
        confirm(&self.force, Force::Convert, &loss)?;
        container.convert(to).map_err(refused)?;
        let change = Change::Converted {
            version: to,
            old_version: from,
        };
        session.done(&Changed::new(&self.image.image, change));
        Ok(())
    }
}
