//! `luksmith libvirt rekey`: gives disks of domains new volumes with new volume keys.

use std::num::NonZeroUsize;

use luksmith::secret::SecretSource;
use luksmith::task::libvirt::rekey::{Rekey, RekeyOptions};
use luksmith::task::outcome;
use luksmith_formats::json::json;

use super::change::{ChangeArgs, Failures, report};
use crate::cli::Session;
use crate::cli::error::CommandError;
use crate::cli::force::{Force, confirm, only};
use crate::cli::passphrase::KeySource;
use crate::cli::size;

/// Give the disks of domains new volume keys, also while the domains run
///
/// For each disk that QEMU decrypts: make a new volume and a new secret; let QEMU copy the disk
/// while the guest reads and writes, and go on with the new volume; make the definition of the
/// domain name the new volume; open it with the value of the new secret; erase the header of the
/// old volume, and remove its secret if nothing else uses it. If the domain is shut off, luksmith
/// copies the disk. The file of the old volume stays, and cannot be decrypted any more.
///
/// The new volume is made in the pool of the old one, or in the folder of a file that is in no
/// pool. If a copy fails or is interrupted, the new volume and its secret are removed again, and
/// the domain goes on with the old volume. To complete a run that was killed, run the command
/// again: a journal in --state-dir records the steps that were done. It contains nothing secret.
///
/// Refused are domains with snapshots, checkpoints or saved memory, disks with a backing layer, and
/// volumes that another disk uses. A LUKS2 volume that `luksmith serve` decrypts gets a new key by
/// `luksmith reencrypt`.
///
/// With --check, exit code 11 if there are findings.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Domains, by name or UUID
    #[arg(value_name = "DOMAIN", required_unless_present = "all")]
    domains: Vec<String>,

    /// Only these disks of a domain, such as vda [default: all that QEMU decrypts]
    #[arg(long, value_name = "TARGET", conflicts_with = "all")]
    disk: Vec<String>,

    /// All domains that this libvirt knows
    #[arg(long, conflicts_with = "domains")]
    all: bool,

    /// Change nothing; report disks that would be refused, and runs that were interrupted
    #[arg(long)]
    check: bool,

    /// Keep the old volume and its secret as they are
    #[arg(long)]
    keep_old: bool,

    /// Make the new volumes in this pool, which has to be started
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,

    /// How many disks are copied at the same time
    #[arg(long, value_name = "N", default_value = "1")]
    max_parallel: NonZeroUsize,

    /// QEMU copies at most SIZE bytes in a second for each disk [default: 0, which is no limit]
    #[arg(long, value_name = size::SIZE, value_parser = size::parse)]
    rate: Option<u64>,

    /// Go on without asking: erase
    #[arg(long, value_name = "WHAT", value_parser = only(&[(Force::Erase, "destroy all keyslots of the old volumes")]))]
    force: Vec<Force>,

    #[command(flatten)]
    change: ChangeArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith libvirt rekey vm1                                      all disks of a domain that QEMU decrypts
  luksmith libvirt rekey vm1 --disk vdb --rate 50M                one disk, slowly
  luksmith libvirt rekey vm1 vm2 vm3 --max-parallel 2 --force erase
  luksmith libvirt rekey vm1 --pool fast --keep-old               into another pool; the old volume stays usable
  luksmith libvirt rekey --all --check                            what would be refused, and why?";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let key = KeySource::if_given(&self.change.key)?;
        let connection = self.change.connect.open()?;
        let mut options = RekeyOptions::new(self.change.state.journals()?);
        options.pool.clone_from(&self.pool);
        options.key = key.as_ref().map(|source| source as &dyn SecretSource);
        options.keep_old = self.keep_old;
        options.at_once = self.max_parallel;
        options.rate = self.rate.filter(|rate| *rate > 0);
        options.cost = self.change.pbkdf.get();
        options.limits = self.change.limits.limits();
        options.remote = self.change.remote.get();
        let rekey = Rekey::select(&connection, &self.domains, &self.disk, options)?;
        if self.check {
            return check(session, &rekey);
        }
        let total = rekey.units().len();
        if !self.keep_old && total > 0 {
            confirm(&self.force, Force::Erase, &loss(&rekey))?;
        }

        let (mut rekeyed, mut failed) = (Vec::new(), Failures::of(total));
        let mut shown = Ok(());
        rekey.run(session, |unit, result| match result {
            Ok(disk) => {
                if !session.json && shown.is_ok() {
                    shown = session.aside(|| session.output.now(&disk));
                }
                rekeyed.push(disk);
            }
            Err(error) => failed.add(session, unit.clone(), error.into(), |line| line),
        })?;
        shown?;
        if session.json {
            let failures = failed.json(|unit| {
                json!({
                    "domain": unit.domain_name,
                    "target": unit.target,
                })
            });
            let report = outcome::rekeyed(&rekeyed, failures);
            session.output.json(&report);
        }
        failed.end(
            "disks have no new volume",
            "run it again for these when the cause is fixed; the others would get another new volume",
        )
    }
}

/// What would be lost.
fn loss(rekey: &Rekey<'_>) -> String {
    let disks: Vec<_> = rekey.units().iter().map(ToString::to_string).collect();
    format!(
        "the old volumes of {} would be erased when the new ones are in use: only a header backup \
         would open them",
        disks.join(", ")
    )
}

fn check(session: &Session, rekey: &Rekey<'_>) -> Result<(), CommandError> {
    let obstacles = rekey.check(session)?;
    let checked = rekey.units().len();
    report(
        session,
        &obstacles,
        &outcome::checked_to_rekey(checked, &obstacles),
        |obstacle| format!("{}: {obstacle}", obstacle.name()),
        &format!("disks checked: {checked}; nothing is in the way"),
    )
}
