//! `luksmith audit`: domains, pools, volumes, secrets and the host, by libvirt's "Secure Usage".
//!
//! The library has the rules (`audit`) and fetches what they judge (`task::audit`). `shown` prints
//! what was found.

mod documents;
mod shown;

use std::path::PathBuf;

use clap::ValueEnum;
use luksmith::audit::{self, Inventory, Policy, Report, Severity};
use luksmith::libvirt::{ConnectOptions, Connection};
use luksmith::task::audit::{add_host, add_images, add_objects, read_policy};
use luksmith::task::outcome;

use super::Session;
use super::error::{CommandError, Exit};
use super::size;

/// Check libvirt's domains, pools, secrets and host
///
/// The rules are those of libvirt's "Secure Usage". Prints what is wrong and where (a file and its
/// line, or an object of libvirt), why it matters, and how to correct it. docs/audit.md has every
/// rule. Nothing is changed, and the connection to libvirt is read-only. The images that the XML
/// names are opened on this host, only to read their headers. Files that images name are not
/// opened. Exit code 0: no finding of the severity of --fail-on or of a higher one. 11: there is
/// one. Any other: the audit failed. With --sarif: SARIF 2.1.0.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// XML of domains, disks, snapshots, pools, volumes and secrets, as printed by virsh dumpxml,
    /// snapshot-dumpxml, pool-dumpxml, …; - is stdin
    #[arg(value_name = "XML")]
    files: Vec<PathBuf>,

    /// Audit all domains, pools, volumes and secrets of a libvirt: qemu:///system,
    /// qemu+ssh://HOST/system, …
    #[arg(long, value_name = "URI")]
    connect: Option<String>,

    /// Audit this host: qemu.conf, the daemons' settings and sockets, polkit, LVM, and the use of
    /// guests' disks by the host
    #[arg(long)]
    host: bool,

    /// Read the host's files below DIR, the root of another system
    #[arg(long, value_name = "DIR", default_value = "/", requires = "host")]
    root: PathBuf,

    /// Do not open the images that the XML names
    #[arg(long)]
    no_images: bool,

    #[command(flatten)]
    policy: PolicyArgs,

    /// The lowest severity that makes the exit code 11
    #[arg(long, value_name = "SEVERITY", default_value = "warning")]
    fail_on: FailOn,

    /// Print SARIF 2.1.0, for code hosting and continuous integration
    #[arg(long, conflicts_with = "json")]
    sarif: bool,
}

/// The policy, and options that add to it.
#[derive(Debug, clap::Args)]
struct PolicyArgs {
    /// The policy, in TOML; docs/audit.md shows every member [default: a strict one]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,

    /// The largest disk that is allowed, in bytes or as 10G; overrides the policy
    #[arg(long, value_name = size::SIZE, value_parser = size::parse)]
    max_size: Option<u64>,

    /// Backing files may also be in DIR
    #[arg(long, value_name = "DIR")]
    trusted_path: Vec<String>,

    /// The guest encrypts this disk itself: DOMAIN:TARGET, * is any
    #[arg(long, value_name = "DISK")]
    guest_encrypted: Vec<String>,

    /// TLS or SSH to the storage is enough for this disk: DOMAIN:TARGET, * is any
    #[arg(long, value_name = "DISK")]
    transport_is_enough: Vec<String>,
}

/// The severity from which a finding makes the exit code 11.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum FailOn {
    /// Any finding
    Note,
    /// A warning or an error
    Warning,
    /// An error
    Error,
    /// The exit code is 0, whatever is found
    Never,
}

const EXAMPLES: &str = "\
Examples:
  luksmith audit vm1.xml
  virsh dumpxml --inactive vm1 | luksmith audit -
  luksmith audit --connect qemu:///system --host
  luksmith audit --host --fail-on error
  luksmith audit --connect qemu:///system --policy site.toml --sarif > audit.sarif";

impl PolicyArgs {
    fn read(self) -> Result<Policy, CommandError> {
        let mut policy = match &self.policy {
            Some(path) => read_policy(path)?,
            None => Policy::default(),
        };
        policy.max_size = self.max_size.unwrap_or(policy.max_size);
        policy.trusted_paths.extend(self.trusted_path);
        policy.guest_encrypted.extend(self.guest_encrypted);
        policy.transport_is_enough.extend(self.transport_is_enough);
        Ok(policy)
    }
}

impl FailOn {
    /// The number of findings that make the exit code 11.
    fn count(self, report: &Report) -> usize {
        let lowest = match self {
            Self::Note => Severity::Note,
            Self::Warning => Severity::Warning,
            Self::Error => Severity::Error,
            Self::Never => return 0,
        };
        report.from_severity(lowest)
    }
}

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        if self.files.is_empty() && self.connect.is_none() && !self.host {
            return Err(CommandError::parameters("there is nothing to audit")
                .hint("name files with XML, or use --connect URI, --host or both"));
        }
        let policy = self.policy.read()?;
        let mut inventory = Inventory::default();
        for path in &self.files {
            inventory.documents.push(documents::read(path)?);
        }
        let mut images_are_here = true;
        if let Some(uri) = &self.connect {
            let options = ConnectOptions::new().uri(uri.clone()).read_only(true);
            let connection = Connection::open(&options)?;
            add_objects(&connection, &mut inventory, session)?;
            images_are_here = connection.is_local()?;
        }
        if self.host {
            add_host(&self.root, &mut inventory)?;
        }
        if images_are_here && !self.no_images {
            add_images(&mut inventory, session)?;
        }
        let report = audit::audit(&inventory, &policy);
        let output = &session.output;
        if session.json {
            let accepted = self.fail_on.count(&report) == 0;
            output.json(&outcome::audited(&report, accepted).into());
        } else if self.sarif {
            output.json_of_others(&audit::sarif::log(&report));
        } else {
            shown::text(output, &report);
        }
        verdict(&report, self.fail_on)
    }
}

fn verdict(report: &Report, fail_on: FailOn) -> Result<(), CommandError> {
    match fail_on.count(report) {
        0 => Ok(()),
        count => {
            let noun = if count == 1 { "finding" } else { "findings" };
            let message = format!("{count} {noun} of a severity that --fail-on counts");
            Err(CommandError::new(Exit::Findings, message)
                .hint("docs/audit.md explains every rule; --policy FILE makes exceptions"))
        }
    }
}
