//! `luksmith qemu amend`: changes the passphrases of a volume that a running QEMU has open,
//! through its monitor.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use luksmith::qemu::{self, Gone, Keyslots, MasterKey, NewKeyslot, Qmp, Wrapped};
use luksmith::secret::Passphrase;
use luksmith::task::emulator::check_passphrase;
use luksmith_formats::json::json;

use super::master;
use crate::cli::Session;
use crate::cli::args::{KeyArgs, NewKeyArgs};
use crate::cli::error::{CommandError, Kind};
use crate::cli::force::{Force, confirm, only};
use crate::cli::output;
use crate::cli::passphrase::KeySource;

/// Add, remove and change the passphrases of a volume while QEMU has it open
///
/// QEMU writes the keyslots itself (x-blockdev-amend, QEMU 5.1 and later), and the guest goes on
/// running. QMP is the Unix socket of a monitor to which no other client is connected, such as
/// `-qmp unix:/run/vm1.qmp,server=on,wait=off`. With --json: {"node", "added": keyslot or null,
/// "removed": [keyslots], "keyslots": [those in use]}.
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
/// QEMU opens the volume again for this, with the passphrase with which it was started. If that was
/// changed since, --key gives the present one.
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

    /// Go on without asking: last-keyslot, although nothing opens the volume after QEMU ends;
    /// unproven, without a passphrase that remains
    #[arg(long, value_name = "WHAT", value_parser = only(&[Force::LastKeyslot, Force::Unproven]))]
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

    /// Print JSON
    #[arg(long)]
    json: bool,
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
        let named = self.key.key.is_some() || self.key.key_file.is_some();
        let existing = if named {
            Some(KeySource::of(&self.key)?)
        } else {
            None
        };
        let source = KeySource::of_new(&self.new_key, existing.as_ref())?;
        let mut running = self.monitor.connect(session)?;
        let existing = match &existing {
            Some(source) => Some(source.existing(session, &running.node)?),
            None => None,
        };
        let new = self.new_key.passphrase(session, &source, &running.node)?;
        running.with_key(|running| {
            let existing = existing.as_ref().map(|old| running.wrap(old)).transpose()?;
            let new = running.wrap(&new)?;
            running
                .set(&new, existing.as_ref(), self.cost.iter_time)
                .map_err(|error| match named {
                    true => error,
                    false => error.hint(
                        "--key SOURCE gives a passphrase that opens it now, if that with which QEMU was started was removed",
                    ),
                })
        })?;
        running.report(session, self.monitor.json)
    }
}

impl Remove {
    fn run(self, session: &Session) -> Result<(), CommandError> {
        let source = KeySource::of(&self.key)?;
        let mut running = self.monitor.connect(session)?;
        let before = running.before.active.clone();
        let node = running.node.clone();
        if let Some(slot) = self.keyslot
            && !before.contains(&slot)
        {
            let message = format!("keyslot {slot} is not in use");
            let used = format!("in use: {}", list(&before));
            return Err(CommandError::parameters(message).hint(used));
        }
        let last = before.len() == 1;
        if last {
            let loss = format!(
                "it is the last keyslot of {node}: nothing opens the volume after QEMU has ended"
            );
            confirm(&self.force, Force::LastKeyslot, &loss)?;
        } else if let Some(slot) = self.keyslot {
            let loss = format!(
                "no passphrase was given that shows that another keyslot than {slot} can be opened"
            );
            confirm(&self.force, Force::Unproven, &loss)?;
        }
        let old = match self.keyslot {
            Some(_) => None,
            None => Some(source.existing(session, &node)?),
        };
        running.with_key(|running| {
            let wrapped = old.as_ref().map(|old| running.wrap(old)).transpose()?;
            let gone = match (self.keyslot, &wrapped) {
                (Some(slot), _) => Gone::Keyslot(slot),
                (None, Some(wrapped)) => Gone::OpenedBy(wrapped),
                // One of the two is given.
                (None, None) => return Ok(()),
            };
            running.unset(gone, last)
        })?;
        running.report(session, self.monitor.json)
    }
}

impl Change {
    fn run(self, session: &Session) -> Result<(), CommandError> {
        let old_source = KeySource::of(&self.key)?;
        let source = KeySource::of_new(&self.new_key, Some(&old_source))?;
        let mut running = self.monitor.connect(session)?;
        let old = old_source.existing(session, &running.node)?;
        let new = self.new_key.passphrase(session, &source, &running.node)?;
        if old.ct_eq(&new) {
            return Err(CommandError::parameters(
                "the new passphrase is the same as the old one, and would be removed with it",
            ));
        }
        running.with_key(|running| {
            let (old, new) = (running.wrap(&old)?, running.wrap(&new)?);
            running.set(&new, Some(&old), self.cost.iter_time)?;
            running.unset(Gone::OpenedBy(&old), false).map_err(|error| {
                // The old passphrase is wrong, or the only one left: the new keyslot is removed
                // again.
                match running.back() {
                    Ok(()) => error.hint("nothing was changed"),
                    Err(left) => error.hint(format!("the new passphrase stays: {}", left.line())),
                }
            })
        })?;
        running.report(session, self.monitor.json)
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

/// A running QEMU that has the volume open.
struct Running<'a> {
    session: &'a Session,
    qmp: Qmp,
    node: String,
    before: Keyslots,
    master: Option<(String, MasterKey)>,
    given: bool,
}

impl Monitor {
    fn connect<'a>(&self, session: &'a Session) -> Result<Running<'a>, CommandError> {
        let mut qmp = Qmp::connect(&self.socket, Duration::from_secs(self.timeout))?;
        tracing::info!(version = qmp.version(), "connected to QEMU");
        qemu::check_amend(&mut qmp)?;
        let node = match &self.node {
            Some(node) => node.clone(),
            None => only_node(qemu::luks_nodes(&mut qmp)?)?,
        };
        let before = qemu::keyslots(&mut qmp, &node)?;
        let master = match (&self.master_key, &self.master_key_id) {
            (Some(path), Some(id)) => Some((id.clone(), master::known(session, path)?)),
            _ => None,
        };
        Ok(Running {
            session,
            qmp,
            node,
            before,
            master,
            given: false,
        })
    }
}

fn only_node(nodes: Vec<String>) -> Result<String, CommandError> {
    match nodes.as_slice() {
        [node] => Ok(node.clone()),
        [] => Err(
            CommandError::new(Kind::Parameters, "this QEMU itself has no LUKS volume open").hint(
                "`luksmith key` changes a volume that luksmith serves, while it is not served",
            ),
        ),
        several => Err(CommandError::parameters("QEMU has several volumes open")
            .hint(format!("--node names one: {}", several.join(", ")))),
    }
}

impl Running<'_> {
    /// Does work that needs a master key in QEMU.
    fn with_key(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        if self.master.is_none() {
            let key = MasterKey::random()?;
            let id = master::give(self.session, &mut self.qmp, &key)?;
            self.master = Some((id, key));
            self.given = true;
        }
        let done = work(self);
        if let (true, Some((id, _))) = (self.given, &self.master)
            && let Err(error) = master::take(&mut self.qmp, id)
        {
            output::warning(format_args!(
                "the secret {id} stays in QEMU: {}",
                error.line()
            ));
        }
        done
    }

    fn key_id(&self) -> String {
        self.master
            .as_ref()
            .map_or_else(String::new, |(id, _)| id.clone())
    }

    fn wrap(&self, secret: &Passphrase) -> Result<Wrapped, CommandError> {
        match &self.master {
            Some((_, key)) => Ok(key.wrap(secret)?),
            None => Err(CommandError::new(Kind::Storage, "QEMU has no master key")),
        }
    }

    fn set(
        &mut self,
        new: &Wrapped,
        existing: Option<&Wrapped>,
        iter_time: Option<u32>,
    ) -> Result<(), CommandError> {
        let keyslot = NewKeyslot::new(new).existing(existing).iter_time(iter_time);
        let id = self.key_id();
        Ok(qemu::set(&mut self.qmp, &self.node, &id, keyslot)?)
    }

    fn unset(&mut self, gone: Gone<'_>, force: bool) -> Result<(), CommandError> {
        let id = self.key_id();
        Ok(qemu::unset(&mut self.qmp, &self.node, &id, gone, force)?)
    }

    /// Removes the keyslots that this command has added.
    fn back(&mut self) -> Result<(), CommandError> {
        let now = qemu::keyslots(&mut self.qmp, &self.node)?;
        for slot in now.active {
            if !self.before.active.contains(&slot) {
                self.unset(Gone::Keyslot(slot), false)?;
            }
        }
        Ok(())
    }

    fn report(&mut self, session: &Session, json: bool) -> Result<(), CommandError> {
        let now = qemu::keyslots(&mut self.qmp, &self.node)?;
        let differ = |all: &[u32], without: &[u32]| -> Vec<u32> {
            let mut all = all.to_vec();
            all.retain(|slot| !without.contains(slot));
            all
        };
        let added = differ(&now.active, &self.before.active);
        let removed = differ(&self.before.active, &now.active);
        if json {
            session.output.json(&json!({
                "node": self.node,
                "added": added.first(),
                "removed": removed,
                "keyslots": now.active,
            }));
            return Ok(());
        }
        for (slots, done) in [(&added, "added"), (&removed, "removed")] {
            for slot in slots {
                session.output.line(format_args!("keyslot {slot} {done}"));
            }
        }
        session.output.line(format_args!(
            "{}: keyslots in use: {} of {}",
            self.node,
            list(&now.active),
            now.total
        ));
        Ok(())
    }
}

fn list(slots: &[u32]) -> String {
    let slots: Vec<String> = slots.iter().map(u32::to_string).collect();
    slots.join(", ")
}
