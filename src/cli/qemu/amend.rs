//! `luksmith qemu amend`: changes the passphrases of a volume that a running QEMU has open,
//! through its monitor.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use luksmith::secret::Passphrase;
use luksmith::task::amend::{Master, Removal, Running};
use luksmith::task::emulator::check_passphrase;
use luksmith::task::outcome::AmendedKeyslots;

use super::master;
use crate::cli::Session;
use crate::cli::args::{KeyArgs, NewKeyArgs};
use crate::cli::error::CommandError;
use crate::cli::force::{Force, confirm, only};
use crate::cli::passphrase::KeySource;

/// Add, remove and change the passphrases of a volume while QEMU has it open
///
/// QEMU writes the keyslots itself (x-blockdev-amend, QEMU 5.1 and later) while the guest runs. QMP
/// is the Unix socket of a monitor to which no other client is connected, such as that of
/// `-qmp unix:/run/vm1.qmp,server=on,wait=off`.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Command {
    Add(Add),
    Remove(Remove),
    Change(Change),
}

const EXAMPLES: &str = "\
Examples:
  luksmith qemu amend add /run/vm1.qmp --new-key-file new.key
  luksmith qemu amend change /run/vm1.qmp --key-file old.key --new-key-file new.key
  luksmith qemu amend remove /run/vm1.qmp --key-file old.key";

/// Put another passphrase into a free keyslot
///
/// For this, QEMU opens a keyslot again, with the passphrase with which it was started. If that
/// passphrase was changed since, --key gives the present one.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Add {
    #[command(flatten)]
    monitor: Monitor,

    #[command(flatten)]
    cost: Cost,

    #[command(flatten)]
    key: KeyArgs,

    #[command(flatten)]
    new_key: NewKeyArgs,
}

/// Remove the keyslots of a passphrase, or a keyslot by its number
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Remove {
    #[command(flatten)]
    monitor: Monitor,

    /// Remove keyslot N, without its passphrase
    #[arg(short = 'S', long, alias = "key-slot", value_name = "N")]
    keyslot: Option<u32>,

    /// Go on without asking about WHAT
    #[arg(long, value_name = "WHAT", value_parser = only(&[
        (Force::LastKeyslot, "remove the last keyslot: nothing opens the volume after QEMU ends"),
        (Force::Unproven, "remove a keyslot without a passphrase that opens another one"),
    ]))]
    force: Vec<Force>,

    #[command(flatten)]
    key: KeyArgs,
}

/// Add a new passphrase, then remove the keyslots of the old one
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Change {
    #[command(flatten)]
    monitor: Monitor,

    #[command(flatten)]
    cost: Cost,

    #[command(flatten)]
    key: KeyArgs,

    #[command(flatten)]
    new_key: NewKeyArgs,
}

/// The cost of a new keyslot.
#[derive(Debug, clap::Args)]
struct Cost {
    /// How long opening the new keyslot takes on QEMU's host [default: QEMU's own, 2000]
    #[arg(short, long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..))]
    iter_time: Option<u32>,
}

/// The monitor, and the volume in its QEMU.
#[derive(Debug, clap::Args)]
struct Monitor {
    /// The Unix socket of QEMU's monitor
    #[arg(value_name = "QMP")]
    socket: PathBuf,

    /// The block node of the volume [default: the only LUKS node]
    #[arg(long, value_name = "NODE")]
    node: Option<String>,

    /// Encrypt passphrases with the master key in FILE, with which QEMU was started [default: a
    /// temporary key]
    #[arg(long, value_name = "FILE", requires = "master_key_id")]
    master_key: Option<PathBuf>,

    /// The id that the master key has in QEMU
    #[arg(long, value_name = "ID", requires = "master_key")]
    master_key_id: Option<String>,

    /// The longest time that QEMU may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

impl Command {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        match self {
            Self::Add(args) => args.run(session),
            Self::Remove(args) => args.run(session),
            Self::Change(args) => args.run(session),
        }
    }
}

impl Add {
    fn run(self, session: &Session) -> Result<(), CommandError> {
        let existing = KeySource::if_given(&self.key)?;
        let named = existing.is_some();
        let source = KeySource::of_new(&self.new_key, existing.as_ref())?;
        let mut running = self.monitor.connect(session)?;
        let existing = match &existing {
            Some(source) => Some(source.existing(session, running.node())?),
            None => None,
        };
        let new = self.new_key.passphrase(session, &source, running.node())?;
        let added = running.add(&new, existing.as_ref(), self.cost.iter_time);
        added.map_err(|error| {
            let present = "--key SOURCE gives a passphrase that opens it now, if that with which \
                           QEMU was started was removed";
            CommandError::from(error).hint_if((!named).then(|| present.to_owned()))
        })?;
        report(session, &mut running)
    }
}

impl Remove {
    fn run(self, session: &Session) -> Result<(), CommandError> {
        let source = KeySource::of(&self.key)?;
        let mut running = self.monitor.connect(session)?;
        let before = running.before().active.clone();
        if let Some(slot) = self.keyslot
            && !before.contains(&slot)
        {
            let message = format!("keyslot {slot} is not in use");
            let used = format!("in use: {}", list(&before));
            return Err(CommandError::parameters(message).hint(used));
        }
        let last = before.len() == 1;
        if last {
            let node = running.node();
            let loss = format!(
                "it is the last keyslot of {node}: nothing opens the volume after QEMU has ended"
            );
            confirm(&self.force, Force::LastKeyslot, &loss)?;
        } else if let Some(slot) = self.keyslot {
            let loss = format!(
                "no passphrase was given to prove that a keyslot other than {slot} can be opened"
            );
            confirm(&self.force, Force::Unproven, &loss)?;
        }
        match self.keyslot {
            Some(slot) => running.remove(Removal::Keyslot(slot), last)?,
            None => {
                let old = source.existing(session, running.node())?;
                running.remove(Removal::OpenedBy(&old), last)?;
            }
        }
        report(session, &mut running)
    }
}

impl Change {
    fn run(self, session: &Session) -> Result<(), CommandError> {
        let old_source = KeySource::of(&self.key)?;
        let source = KeySource::of_new(&self.new_key, Some(&old_source))?;
        let mut running = self.monitor.connect(session)?;
        let old = old_source.existing(session, running.node())?;
        let new = self.new_key.passphrase(session, &source, running.node())?;
        running.change(&old, &new, self.cost.iter_time)?;
        report(session, &mut running)
    }
}

impl NewKeyArgs {
    /// The new passphrase, if QEMU can take it.
    fn passphrase(
        &self,
        session: &Session,
        source: &KeySource,
        label: &str,
    ) -> Result<Passphrase, CommandError> {
        let new = source.fresh(session, label, self.force_weak)?;
        check_passphrase(&new)?;
        Ok(new)
    }
}

impl Monitor {
    fn connect<'a>(&self, session: &'a Session) -> Result<Running<'a>, CommandError> {
        let master = match (&self.master_key, &self.master_key_id) {
            (Some(path), Some(id)) => Master::Known {
                id: id.clone(),
                key: master::known(session, path)?,
            },
            _ => Master::Temporary {
                folder: std::env::var_os("XDG_RUNTIME_DIR")
                    .map_or_else(std::env::temp_dir, PathBuf::from),
            },
        };
        let (node, timeout) = (self.node.as_deref(), Duration::from_secs(self.timeout));
        let running = Running::connect(&self.socket, timeout, node, master, session)?;
        Ok(running)
    }
}

/// Prints what changed.
fn report(session: &Session, running: &mut Running<'_>) -> Result<(), CommandError> {
    let now = running.now()?;
    let before = &running.before().active;
    let amended = AmendedKeyslots::new(running.node(), before, &now.active, now.total);
    session.done(&amended);
    Ok(())
}

fn list(slots: &[u32]) -> String {
    let slots: Vec<String> = slots.iter().map(u32::to_string).collect();
    slots.join(", ")
}
