//! `luksmith libvirt rotate`: new passphrases for old ones, in the volumes and in the secrets that open them.

mod check;
mod inventory;
mod journal;
mod live;
mod steps;
mod volume;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use luksmith::libvirt::{Connection, LibvirtError};
use luksmith::task::{Work, Working, printable};
use serde_json::{Value, json};
use uuid::Uuid;

use self::inventory::Inventory;
use self::steps::{Rotated, Rotation};
use self::volume::{Volume, VolumeArgs};
use crate::cli::Session;
use crate::cli::args::KeyArgs;
use crate::cli::error::{CommandError, Kind};
use crate::cli::libvirt::connect::ConnectArgs;
use crate::cli::output;
use crate::cli::passphrase::KeySource;
use crate::cli::signals::interrupted;

/// Put new passphrases in place of old ones, in volumes and in the secrets that open them
///
/// For each secret: a keyslot for the new passphrase in every volume that it opens, proven; the old one kept in a second secret; the new
/// one set and read back; the old keyslots removed, last. At every point the secret opens its volumes. What was interrupted comes to its
/// end by running it again: a journal in --state-dir, without anything secret, tells how far it was.
///
/// A volume that a running domain has open is changed by its QEMU; or, where that would abort over it (8.2 to 10.0.6, 10.1.0 to 10.1.2), in its
/// file or device beside QEMU. libvirt marks the domain as tainted (custom-monitor) by either. One that another program has open, such as
/// luksmith serve, is busy.
///
/// With --json: {"rotated": [{"secret", "volume", "keyslot", "removed": [N]}], "failed": [{"secret", "error"}]}; with --check:
/// {"checked": N, "findings": [{"finding", "secret", "volume", "message"}]}, and exit code 1 where there are findings.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[group(id = "which", required = true, multiple = true)]
pub(crate) struct Args {
    /// Domains, by name or UUID (all their encrypted disks), and images, by path
    #[arg(value_name = "DOMAIN-OR-IMAGE", group = "which")]
    targets: Vec<String>,

    /// All encrypted volumes of a pool
    #[arg(long, value_name = "POOL", group = "which")]
    pool: Vec<String>,

    /// Everything that this libvirt knows
    #[arg(long, group = "which", conflicts_with_all = ["targets", "pool"])]
    all: bool,

    /// Change nothing; report secrets without a value, volumes without a secret, secrets that do not open their volume, secrets that
    /// open several, and rotations that did not come to their end
    #[arg(long)]
    check: bool,

    /// Where the new passphrase of a single secret comes from, written as for --key [default: 256 random bits in base64]
    #[arg(long, value_name = "SOURCE", conflicts_with = "check")]
    new_key: Option<String>,

    /// Where journals are [default: XDG_STATE_HOME/luksmith; else /var/lib/luksmith for root, ~/.local/state/luksmith for others]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    connect: ConnectArgs,

    #[command(flatten)]
    key: KeyArgs,

    #[command(flatten)]
    volumes: VolumeArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith libvirt rotate vm1                               all encrypted disks of a domain, running or not
  luksmith libvirt rotate /pool/vm1.img --key-file old.key  --key is for a private secret, which libvirt does not give
  luksmith libvirt rotate --pool default                    all volumes of a pool; a failure does not stop the others
  luksmith libvirt rotate --all --check --json              for a schedule: changes nothing";

/// A secret that could not be rotated.
struct Failure {
    secret: Uuid,
    error: CommandError,
}

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let connection = self.connect.open()?;
        let inventory = Inventory::of(&connection)?;
        let chosen = self.chosen(&connection, &inventory)?;
        let directory = journal::directory(self.state_dir.as_deref())?;
        if self.check {
            return check::run(
                session,
                &connection,
                &inventory,
                &chosen,
                &directory,
                &self.volumes,
                self.json,
            );
        }
        for (what, error) in &inventory.unread {
            output::warning(format_args!("{what} is passed over: {error}"));
        }
        let secrets: BTreeSet<Uuid> = chosen
            .iter()
            .flat_map(|place| &inventory.volumes[place].secrets)
            .copied()
            .collect();
        for place in chosen
            .iter()
            .filter(|place| inventory.volumes[*place].secrets.is_empty())
        {
            output::warning(format_args!(
                "{place} is passed over: there is no secret that opens it"
            ));
        }
        if secrets.is_empty() {
            return Err(
                CommandError::new(Kind::Storage, "there is nothing to rotate")
                    .hint("--check says which volumes have no secret"),
            );
        }
        let new_key = self
            .new_key
            .as_deref()
            .map(|text| KeySource::named("--new-key", text))
            .transpose()?;
        if new_key.is_some() && secrets.len() > 1 {
            return Err(CommandError::parameters(
                "--new-key gives one passphrase, and several secrets would have it",
            )
            .hint("without it each gets a random one of its own"));
        }
        let given = self.key.key.is_some() || self.key.key_file.is_some();
        let key = given.then(|| KeySource::of(&self.key)).transpose()?;

        let (mut rotated, mut failed) = (Vec::new(), Vec::new());
        let rotating = Working::begin(session, Work::Rotate, Some(secrets.len() as u64));
        for secret in &secrets {
            let done = session
                .signals
                .check()
                .map_err(|_| interrupted())
                .and_then(|()| {
                    self.rotate(
                        session,
                        &connection,
                        &inventory,
                        &directory,
                        *secret,
                        key.as_ref(),
                        new_key.as_ref(),
                    )
                });
            match done {
                Ok(volumes) => {
                    for volume in volumes {
                        self.tell(session, &volume)?;
                        rotated.push((*secret, volume));
                    }
                }
                Err(error) => {
                    if !self.json && secrets.len() > 1 {
                        session
                            .aside(|| output::error(&format!("secret {secret}: {}", error.line())));
                    }
                    failed.push(Failure {
                        secret: *secret,
                        error,
                    });
                }
            }
            rotating.advance(1);
        }
        rotating.finish();
        if self.json {
            session.output.json(&report(&rotated, &failed));
        }
        let total = secrets.len();
        let count = failed.len();
        match failed.into_iter().next() {
            None => Ok(()),
            Some(first) if total == 1 => Err(first.error),
            Some(first) => {
                let message = format!("{count} of {total} secrets were not rotated");
                Err(CommandError::new(first.error.kind(), message).hint("run it again when what stopped them is mended; those that were are rotated anew"))
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "all of them are of one command")]
    fn rotate(
        &self,
        session: &Session,
        connection: &Connection,
        inventory: &Inventory,
        directory: &Path,
        uuid: Uuid,
        key: Option<&KeySource>,
        new_key: Option<&KeySource>,
    ) -> Result<Vec<Rotated>, CommandError> {
        let place = journal::Place::take(directory, &uuid)?;
        let volumes = inventory.opened_by(&uuid).into_iter();
        let volumes =
            volumes.map(|(place, known)| Volume::new(connection, place, known, &self.volumes));
        let rotation = Rotation {
            session,
            connection,
            secret: connection.secret(&uuid)?,
            uuid,
            volumes: volumes.collect::<Result<_, _>>()?,
            place,
            key,
            new_key,
        };
        rotation.run()
    }

    fn tell(&self, session: &Session, volume: &Rotated) -> Result<(), CommandError> {
        if self.json {
            return Ok(());
        }
        let old = volume
            .old
            .iter()
            .map(u32::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        let line = format!(
            "{}: keyslot {} has the new passphrase; removed: {old}",
            printable(&volume.place),
            volume.new
        );
        session.aside(|| session.output.now(line))
    }

    /// The places that are meant.
    fn chosen(
        &self,
        connection: &Connection,
        inventory: &Inventory,
    ) -> Result<BTreeSet<String>, CommandError> {
        let mut chosen = BTreeSet::new();
        let mut add = |what: &str, found: Vec<&String>| {
            if found.is_empty() {
                return Err(CommandError::new(
                    Kind::Storage,
                    format!("{what} has no encrypted volume that libvirt knows"),
                )
                .hint("`luksmith libvirt rotate --all --check` shows what it knows"));
            }
            chosen.extend(found.into_iter().cloned());
            Ok(())
        };
        let volumes = || inventory.volumes.iter();
        if self.all {
            return Ok(inventory.volumes.keys().cloned().collect());
        }
        for pool in &self.pool {
            connection
                .pool(pool)
                .and_then(|pool| pool.name())
                .map_err(|error| CommandError::from(error).about(pool))?;
            add(
                pool,
                volumes()
                    .filter(|(_, volume)| volume.pool.as_ref() == Some(pool))
                    .map(|(place, _)| place)
                    .collect(),
            )?;
        }
        for target in &self.targets {
            let named = match connection.domain(target) {
                Ok(domain) => Some(domain.name()?),
                Err(LibvirtError::NoDomain(_)) => None,
                Err(error) => return Err(error.into()),
            };
            let found = match named {
                Some(name) => volumes()
                    .filter(|(_, volume)| volume.domains.contains(&name))
                    .map(|(place, _)| place)
                    .collect(),
                None => {
                    let path = std::fs::canonicalize(target).ok();
                    let path = path.as_ref().and_then(|path| path.to_str());
                    volumes()
                        .map(|(place, _)| place)
                        .filter(|place| *place == target || Some(place.as_str()) == path)
                        .collect()
                }
            };
            add(target, found)?;
        }
        Ok(chosen)
    }
}

fn report(rotated: &[(Uuid, Rotated)], failed: &[Failure]) -> Value {
    let rotated = rotated.iter().map(|(secret, volume)| {
        json!({"secret": secret.to_string(), "volume": volume.place, "keyslot": volume.new, "removed": volume.old})
    });
    let failed = failed.iter().map(
        |failure| json!({"secret": failure.secret.to_string(), "error": failure.error.line()}),
    );
    json!({"rotated": rotated.collect::<Vec<_>>(), "failed": failed.collect::<Vec<_>>()})
}
