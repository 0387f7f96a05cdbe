//! `luksmith header repair`: repairs a header after an interruption, a damaged sector, or another
//! program that overwrote its start.

use luksmith::container::{Container, Doubt, OpenOptions, Unproven};
use luksmith::task::outcome::{Change, Changed};

use crate::cli::Session;
use crate::cli::args::{Choice, ImageArgs, UndoArgs, choice};
use crate::cli::error::{CommandError, Kind};
use crate::cli::force::{Force, confirm_all, only};
use crate::cli::output;

/// Repair the header: end an interrupted change, rewrite what is damaged or overwritten
///
/// A change is rolled back only if no other program has changed the header since. If one has, the
/// present header stays, and keyslots that are in it as before the change get their key material
/// back; where nothing proves which key material is right, --undo chooses. A LUKS2 header is
/// repaired from its good copy, which a checksum proves. The magic that wipefs and pvcreate
/// overwrite is put back. In LUKS1, damaged entries of keyslots that are not in use are restored
/// too, and a keyslot with an unknown state, a salt and iterations becomes active. The command asks
/// before a repair that nothing proves, and before it overwrites other data. If too little is left,
/// only a header backup helps.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    /// What to do with an undo record if another program has changed the header since, or if the
    /// record is damaged or belongs to another volume
    #[arg(long = "undo", value_name = "WHAT", value_parser = choice(RECORDS))]
    unproven: Option<Unproven>,

    /// Go on without asking: unproven, if no checksum proves the result; overwrite, if there is
    /// other data in the place of the header
    #[arg(long, value_name = "WHAT", value_parser = only(&[Force::Unproven, Force::Overwrite]))]
    force: Vec<Force>,

    #[command(flatten)]
    undo: UndoArgs,
}

/// What to do with an undo record that cannot be trusted.
const RECORDS: &[Choice<Unproven>] = &[
    (
        "discard",
        "keep the present header, and remove the record: keyslots whose key material the \
         interrupted change has overwritten then open with neither passphrase; a copy of the \
         record is kept beside it",
        Unproven::Discard,
    ),
    (
        "apply",
        "restore the header from before the interrupted change; passphrases that were added since \
         are lost, and those that were removed open again; a copy of the present header is kept \
         beside the record",
        Unproven::Apply,
    ),
];

const EXAMPLES: &str = "\
Examples:
  luksmith header repair disk.img
  luksmith header repair disk.img --force unproven
  luksmith header repair /dev/sdb1 --undo-file sdb1.undo
  luksmith header repair disk.img --undo discard    keep what another program changed since";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let storage = self.image.get().header_storage_to_write(session)?;
        let options = OpenOptions::new(storage.undo(self.undo.path()));
        let storage = storage.header();
        let unproven = self.unproven.unwrap_or(Unproven::Refuse);
        let settled = Container::settle(&*storage, &options, unproven)?;
        if let (None, Some(record)) = (&settled, self.undo.path()) {
            let message = format!("{} does not exist", record.display());
            return Err(CommandError::new(Kind::Storage, message)
                .hint("leave --undo-file out if no change with it was interrupted"));
        }
        let agree = |doubts: &[Doubt]| self.agree(doubts);
        let others = Container::repair_if(&storage, &options, agree)
            .map_err(|error: CommandError| error.about(self.image.header_location()))?;
        let repaired = settled.iter().chain(&others);
        let repaired = repaired.map(ToString::to_string).collect::<Vec<_>>();
        if Container::open(storage, options).is_ok_and(|found| is_reencrypted(&found)) {
            let image = &self.image.image;
            output::hint(&format!(
                "a reencryption is in progress: `luksmith reencrypt {image}` recovers its zone and goes on"
            ));
        }
        let change = Change::HeaderRepaired { repaired };
        session.done(&Changed::new(&self.image.image, change));
        Ok(())
    }

    fn agree(&self, doubts: &[Doubt]) -> Result<(), CommandError> {
        let losses = doubts.iter().map(|doubt| match doubt {
            Doubt::Overwrites(_) => (Force::Overwrite, doubt.to_string()),
            _ => (Force::Unproven, doubt.to_string()),
        });
        confirm_all(&self.force, &losses.collect::<Vec<_>>())
    }
}

fn is_reencrypted(container: &Container) -> bool {
    matches!(container.reencryption(), Ok(Some(_)))
}
