//! `luksmith objects`: the upkeep of volumes in object stores.

use std::path::PathBuf;

use clap::Subcommand;
use luksmith::location::Location;
use luksmith::task::Kind;
use luksmith::task::objects::{Place, SnapshotChange};
use luksmith::task::outcome::{self, Kept, Upkeep};
use luksmith::task::reencrypt::follow;

use super::Session;
use super::args::{LocalFile, LocationParser, RemoteArgs};
use super::error::CommandError;
use super::force::{Force, confirm, only};
use super::table;

/// Look after a volume in an object store
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Command {
    Status(Status),
    Gc(Gc),
    Verify(Verify),
    #[command(subcommand)]
    Snapshot(Snapshot),
    TakeOver(TakeOver),
}

const EXAMPLES: &str = "\
Examples:
  luksmith objects status s3://bucket/vm1                      its size, what is stored, who has it open
  luksmith objects gc s3://bucket/vm1                          delete what is not needed any more
  luksmith objects verify s3://bucket/vm1                      read everything, and compare all checksums
  luksmith objects snapshot create s3://bucket/vm1 monday
  luksmith objects take-over s3://bucket/vm1                   after a writer was killed";

/// Show what a volume consists of, and who has it open
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  luksmith objects status s3://bucket/vm1 --json | jq .stored")]
pub(crate) struct Status {
    #[command(flatten)]
    volume: Volume,
}

/// Collect the garbage of a volume
///
/// `serve` and other writers collect it too, while they work. This also deletes objects that a
/// killed writer has left.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  luksmith objects gc s3://bucket/vm1")]
pub(crate) struct Gc {
    #[command(flatten)]
    volume: Volume,
}

/// Read every object of a volume and of its snapshots, and compare all checksums
///
/// The checksums find damage. They do not find the changes of an attacker who can write to the
/// bucket.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  luksmith objects verify s3://bucket/vm1")]
pub(crate) struct Verify {
    #[command(flatten)]
    volume: Volume,
}

/// Make, list and delete snapshots of a volume, and go back to one
#[derive(Debug, Subcommand)]
#[command(after_help = SNAPSHOTS)]
pub(crate) enum Snapshot {
    Create(Create),
    List(List),
    Delete(Delete),
    Rollback(Rollback),
}

const SNAPSHOTS: &str = "\
Examples:
  luksmith objects snapshot create s3://bucket/vm1 monday
  luksmith objects snapshot create s3://bucket/vm1 monday --served vm/control.sock
  luksmith objects snapshot list s3://bucket/vm1
  luksmith decrypt s3://bucket/vm1@monday copy.img             a snapshot is opened for reading
  luksmith objects snapshot rollback s3://bucket/vm1 monday
  luksmith objects snapshot delete s3://bucket/vm1 monday";

const SERVED: &str = "a server with --control PATH does it while clients use the volume: \
                      --served PATH; stop any other writer, and if it was killed: `luksmith objects \
                      take-over VOLUME`";

/// Make a snapshot of a volume as it is
#[derive(Debug, clap::Args)]
#[command(after_help = SNAPSHOTS)]
pub(crate) struct Create {
    #[command(flatten)]
    volume: Volume,

    /// The name of the snapshot: at most 64 letters, digits, '.', '_' and '-'
    name: String,

    /// Have the server make it whose --control socket is PATH, while clients use the volume
    #[arg(long, value_name = "PATH", value_parser = LocalFile)]
    served: Option<PathBuf>,
}

/// List the snapshots of a volume
#[derive(Debug, clap::Args)]
#[command(after_help = SNAPSHOTS)]
pub(crate) struct List {
    #[command(flatten)]
    volume: Volume,
}

/// Delete a snapshot
#[derive(Debug, clap::Args)]
#[command(after_help = SNAPSHOTS)]
pub(crate) struct Delete {
    #[command(flatten)]
    volume: Volume,

    /// The name of the snapshot
    name: String,

    /// Have the server delete it whose --control socket is PATH, while clients use the volume
    #[arg(long, value_name = "PATH", value_parser = LocalFile)]
    served: Option<PathBuf>,

    /// Go on without asking: erase
    #[arg(long, value_name = "WHAT", value_parser = only(&[(Force::Erase, "delete the snapshot")]))]
    force: Vec<Force>,
}

/// Give a volume the contents and the size of a snapshot
#[derive(Debug, clap::Args)]
#[command(after_help = SNAPSHOTS)]
pub(crate) struct Rollback {
    #[command(flatten)]
    volume: Volume,

    /// The name of the snapshot
    name: String,

    /// Go on without asking: overwrite
    #[arg(long, value_name = "WHAT", value_parser = only(&[(Force::Overwrite, "lose what the volume holds now")]))]
    force: Vec<Force>,
}

/// End the work of a writer that did not close the volume
///
/// A writer that was killed leaves the volume open, and others are refused. If it still runs, all
/// that it does from now on fails, and what it has not flushed is lost.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  luksmith objects take-over s3://bucket/vm1 --force in-use\n  luksmith objects take-over 's3://bucket/vm1?journal=/var/lib/vm1.journal' --force in-use"
)]
pub(crate) struct TakeOver {
    #[command(flatten)]
    volume: Volume,

    /// Go on without asking: in-use, journal-lost
    #[arg(long, value_name = "WHAT", value_parser = only(&[
        (Force::InUse, "end a writer that may still run"),
        (Force::JournalLost, "go on without the journal of that writer: what only that has is lost"),
    ]))]
    force: Vec<Force>,
}

#[derive(Debug, clap::Args)]
struct Volume {
    /// The volume (s3://BUCKET/PREFIX[?PARAMETER=VALUE], docs/storage.md has the parameters)
    #[arg(value_name = "VOLUME", value_parser = LocationParser::Openable)]
    location: Location,

    #[command(flatten)]
    remote: RemoteArgs,
}

impl Volume {
    fn place(&self) -> Place<'_> {
        Place::new(&self.location, self.remote.get())
    }

    fn done(&self, work: Upkeep, session: &Session) -> Result<(), CommandError> {
        session.done(&Kept::new(&self.location, work));
        Ok(())
    }
}

impl Command {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        match self {
            Self::Status(Status { volume }) => {
                let state = volume.place().state()?;
                match session.json {
                    true => {
                        let members = outcome::objects_state(&volume.location, &state);
                        session.output.json(&members.into());
                    }
                    false => {
                        let mut rows = table::table();
                        for (name, value) in outcome::objects_rows(&state) {
                            rows.add_row([name, &value]);
                        }
                        session.output.lines(table::trimmed(&rows));
                    }
                }
                Ok(())
            }
            Self::Gc(Gc { volume }) => {
                let collected = volume.place().collect()?;
                volume.done(Upkeep::Collected(collected), session)
            }
            Self::Verify(Verify { volume }) => {
                let checked = volume.place().verify()?;
                volume.done(Upkeep::Checked(checked), session)
            }
            Self::Snapshot(command) => command.run(session),
            Self::TakeOver(TakeOver { volume, force }) => {
                let state = volume.place().state()?;
                if let Some(found) = &state.writer {
                    let mut loss = format!(
                        "if the writer of {} on host '{}' still runs, it loses what it has not \
                         flushed",
                        volume.location, found.host
                    );
                    if state.status.journal {
                        loss += ", and what it flushes into its journal until its next upload";
                    }
                    confirm(&force, Force::InUse, &loss)?;
                    let journal_lost = force.contains(&Force::JournalLost);
                    volume.place().take_over(found, journal_lost)?;
                }
                volume.done(Upkeep::TakenOver(state.writer), session)
            }
        }
    }
}

impl Snapshot {
    fn run(self, session: &Session) -> Result<(), CommandError> {
        let (volume, name, change, served) = match self {
            Self::List(List { volume }) => {
                let state = volume.place().state()?;
                match session.json {
                    true => {
                        let members = outcome::objects_snapshots(&volume.location, &state.status);
                        session.output.json(&members.into());
                    }
                    false => {
                        for snapshot in &state.status.snapshots {
                            session.output.line(outcome::snapshot_line(snapshot));
                        }
                    }
                }
                return Ok(());
            }
            Self::Create(Create {
                volume,
                name,
                served,
            }) => (volume, name, SnapshotChange::Make, served),
            Self::Delete(Delete {
                volume,
                name,
                served,
                force,
            }) => {
                let loss = format!(
                    "the snapshot {name} of {} would be deleted",
                    volume.location
                );
                confirm(&force, Force::Erase, &loss)?;
                (volume, name, SnapshotChange::Delete, served)
            }
            Self::Rollback(Rollback {
                volume,
                name,
                force,
            }) => {
                let loss = format!(
                    "what {} holds now would be lost, unless another snapshot has it",
                    volume.location
                );
                confirm(&force, Force::Overwrite, &loss)?;
                (volume, name, SnapshotChange::RollBack, None)
            }
        };
        match served {
            Some(path) => {
                let what = match change {
                    SnapshotChange::Delete => follow::Snapshot::Delete,
                    _ => follow::Snapshot::Make,
                };
                follow::snapshot(&path, &volume.location, what, &name, session)?;
            }
            None => {
                let changed = volume.place().change_snapshot(change, &name);
                changed.map_err(|error| {
                    let busy = error.kind() == Kind::Busy && change != SnapshotChange::RollBack;
                    CommandError::from(error).hint_if(busy.then(|| SERVED.to_owned()))
                })?;
            }
        }
        volume.done(Upkeep::Snapshot(change, name), session)
    }
}
