//! `luksmith header repair`: repairs a header after an interruption, a damaged sector, or another
//! program that overwrote its start.

use std::io::{self, IsTerminal as _};

use luksmith::container::{Container, Doubt, OpenOptions, Unproven};
use luksmith::task::outcome::{Change, Changed};
use luksmith::task::reencrypt::encrypt;
use luksmith::task::reencrypt::{Options, Plan};
use luksmith_formats::limits::Limits;

use crate::cli::Session;
use crate::cli::args::{Choice, ImageArgs, KeysArgs, UndoArgs, choice};
use crate::cli::error::{CommandError, Kind};
use crate::cli::force::{Force, confirm_all, only};
use crate::cli::open::passphrases;
use crate::cli::output;

/// Repair the header: end an interrupted change, rewrite what is damaged or overwritten
///
/// A change is rolled back only if no other program has changed the header since. If one has, the
/// present header stays, and keyslots that are in it as before the change get their key material
/// back; where nothing proves which key material is right, --undo chooses. A LUKS2 header is
/// repaired from its good copy, which a checksum proves. The magic that wipefs and pvcreate
/// overwrite is put back. An encryption in place whose header is not complete is reversed. In
/// LUKS1, damaged entries of keyslots that are not in use are restored too, and a keyslot with an
/// unknown state, a salt and iterations becomes active. The command asks before a repair that
/// nothing proves, and before it overwrites other data. With a passphrase, the zone in which a
/// reencryption was interrupted is recovered. If too little is left, only a header backup helps.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    /// What to do with an undo record if another program has changed the header since, or if the
    /// record is damaged or belongs to another volume
    #[arg(long = "undo", value_name = "WHAT", value_parser = choice(RECORDS))]
    unproven: Option<Unproven>,

    /// Go on without asking about WHAT
    #[arg(long, value_name = "WHAT", value_parser = only(&[
        (Force::Unproven, "make a repair that no checksum proves"),
        (Force::Overwrite, "overwrite other data in the place of the header"),
        (Force::UnverifiedBlocks, "recover a zone whose blocks are neither old nor converted"),
    ]))]
    force: Vec<Force>,

    #[command(flatten)]
    keys: KeysArgs,

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
  luksmith header repair disk.img --key-file key    also recovers an interrupted reencryption
  luksmith header repair /dev/sdb1 --undo-file sdb1.undo
  luksmith header repair disk.img --undo discard    keep what another program changed since";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let opened = self.image.get().header_storage_to_write(session)?;
        let undo = opened.undo(self.undo.path());
        let unproven = self.unproven.unwrap_or(Unproven::Refuse);
        let moved = encrypt::settle(&opened, &undo, unproven)?;
        if let Some(moved) = moved {
            let repaired = vec![moved.to_string()];
            let change = Change::HeaderRepaired { repaired };
            session.done(&Changed::new(&self.image.image, change));
            return Ok(());
        }
        let options = OpenOptions::new(undo).trust(self.image.get().trust());
        let storage = opened.header();
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
        let mut repaired = repaired.map(ToString::to_string).collect::<Vec<_>>();
        let pending = Container::open(storage, options).is_ok_and(|found| is_reencrypted(&found));
        // Its lock ends here.
        drop(opened);
        if pending {
            repaired.extend(self.recover(session)?);
        }
        let change = Change::HeaderRepaired { repaired };
        session.done(&Changed::new(&self.image.image, change));
        Ok(())
    }

    /// Recovers the zone in which a reencryption was interrupted, if there is a passphrase.
    fn recover(&self, session: &Session) -> Result<Option<String>, CommandError> {
        let name = self.image.image.to_string();
        let mut options = Options::default();
        options.only_resume = true;
        options.unverified_blocks = self.force.contains(&Force::UnverifiedBlocks);
        let (image, undo) = (self.image.get(), self.undo.path());
        let plan = Plan::look(&image, undo, options, Limits::default(), session)?;
        if !plan.is_interrupted() || !(self.keys.is_given() || io::stdin().is_terminal()) {
            let recovers = if plan.is_interrupted() {
                "recovers its zone and "
            } else {
                ""
            };
            output::hint(&format!(
                "a reencryption is in progress: `luksmith reencrypt {name}` {recovers}goes on"
            ));
            return Ok(None);
        }
        let passphrases = passphrases(session, plan.container(), &self.keys, &name)?;
        let done = plan.recover(&passphrases, session);
        let done = done.map_err(|error| CommandError::from(error).about(&name))?;
        if done.finished {
            return Ok(Some("the reencryption, which is finished".to_owned()));
        }
        output::hint(&format!(
            "`luksmith reencrypt {name}` goes on with the reencryption"
        ));
        Ok(Some(
            "the zone in which the reencryption was interrupted".to_owned(),
        ))
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
