//! `luksmith libvirt rotate`: replaces passphrases, in the volumes and in the secrets that open
//! them.

use luksmith::secret::SecretSource;
use luksmith::task::libvirt::rotate::{RotateOptions, Rotation, Selection};
use luksmith::task::outcome;
use luksmith_formats::json::json;

use super::change::{ChangeArgs, Failures, report};
use crate::cli::Session;
use crate::cli::args::TrustArgs;
use crate::cli::error::CommandError;
use crate::cli::passphrase::KeySource;

/// Replace the passphrases of volumes, and the values of the secrets that open them
///
/// For each secret: add a keyslot for the new passphrase to every volume that the secret opens, and
/// open it; keep the old passphrase in a second secret; set the new value and read it back; remove
/// the old keyslots, last. At every point the secret opens its volumes. To complete an interrupted
/// rotation, run the command again: a journal in --state-dir records the steps that were done. The
/// journal contains nothing secret. A keyslot that another program has changed meanwhile stays.
///
/// --key or --key-file is tried where the value of a secret does not open its volumes, or cannot be
/// read. A secret is not rotated if another secret for the same volume has the same value, or if
/// its passphrase opens an encrypted image of a pool that has no secret, such as a clone: those
/// would open nothing afterwards. Nor is one whose volume is a backing layer of a running domain,
/// or LUKS in a qcow2 image that a domain has open.
///
/// If a running domain has a volume open, its QEMU changes the keyslots. If that QEMU would abort
/// (8.2 to 10.0.6, 10.1.0 to 10.1.2), luksmith changes them in the open file or device. In both
/// cases libvirt marks the domain as tainted (custom-monitor). A volume that another program has
/// open, such as luksmith serve, is busy.
///
/// With --check, exit code 11 if there are findings.
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

    /// All volumes that this libvirt knows
    #[arg(long, group = "which", conflicts_with_all = ["targets", "pool"])]
    all: bool,

    /// Change nothing; report secrets without a value, volumes without a secret, secrets that do
    /// not open their volume, secrets that open several, volumes that several secrets open with the
    /// same passphrase, and rotations that were interrupted
    #[arg(long)]
    check: bool,

    /// The source of the new passphrase of a single secret, as for --key [default: 256 random bits
    /// in base64]
    #[arg(long, value_name = "SOURCE", conflicts_with = "check")]
    new_key: Option<String>,

    /// Accept a new passphrase that is easy to guess
    #[arg(long, requires = "new_key")]
    force_weak: bool,

    #[command(flatten)]
    change: ChangeArgs,

    #[command(flatten)]
    trust: TrustArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith libvirt rotate vm1                               all encrypted disks of a domain
  luksmith libvirt rotate /pool/vm1.img --key-file old.key  a private secret, whose value libvirt does not return
  luksmith libvirt rotate --pool default                    all volumes of a pool; a failure does not stop the others
  luksmith libvirt rotate --all --check --json              changes nothing: for a scheduled job";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let key = KeySource::if_given(&self.change.key)?;
        let new_key = self.new_key.as_deref();
        let new_key = new_key.map(|text| KeySource::named("--new-key", text));
        let new_key = new_key.transpose()?;
        let new_key = new_key.map(|source| source.allow_weak(self.force_weak));

        let connection = self.change.connect.open()?;
        let mut options = RotateOptions::new(self.change.state.journals()?);
        options.key = key.as_ref().map(|source| source as &dyn SecretSource);
        options.new_key = new_key.as_ref().map(|source| source as &dyn SecretSource);
        options.cost = self.change.pbkdf.get();
        options.limits = self.change.limits.limits();
        options.remote = self.change.remote.get();
        options.trust = self.trust.dir();
        let mut selection = Selection::default();
        selection.all = self.all;
        selection.targets.clone_from(&self.targets);
        selection.pools.clone_from(&self.pool);
        let rotation = Rotation::select(&connection, &selection, options)?;
        if self.check {
            return self.check(session, &rotation);
        }

        let total = rotation.secrets().len();
        let (mut rotated, mut failed) = (Vec::new(), Failures::of(total));
        for (secret, result) in rotation.run(session)? {
            match result {
                Ok(volumes) => {
                    for volume in volumes {
                        if !session.json {
                            session.aside(|| session.output.now(&volume))?;
                        }
                        rotated.push((secret, volume));
                    }
                }
                Err(error) => failed.add(session, secret, error.into(), |line| {
                    format!("secret {secret}: {line}")
                }),
            }
        }
        if session.json {
            let failures = failed.json(|secret| json!({ "secret": secret.to_string() }));
            let report = outcome::rotated(&rotated, failures);
            session.output.json(&report);
        }
        failed.end(
            "secrets were not rotated",
            "run it again when the cause is fixed; the secrets that were rotated are rotated again",
        )
    }

    fn check(&self, session: &Session, rotation: &Rotation<'_>) -> Result<(), CommandError> {
        let findings = rotation.check(session)?;
        let checked = rotation.volumes().len();
        report(
            session,
            &findings,
            &outcome::checked(checked, &findings),
            |finding| format!("{}: {}", finding.fault, finding.message),
            &format!("volumes checked: {checked}; nothing is wrong"),
        )
    }
}
