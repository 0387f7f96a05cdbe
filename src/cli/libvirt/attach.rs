//! `luksmith libvirt attach` and `detach`: add a disk to a domain and remove it, in the running
//! domain and in its definition.

use std::time::Duration;

use luksmith::location::Location;
use luksmith::task::libvirt::attach::Disks;
use luksmith::task::libvirt::disk;
use luksmith::task::outcome::DiskChange;

use super::connect::ConnectArgs;
use super::disk::{DiskArgs, OpenArgs, hints};
use crate::cli::Session;
use crate::cli::args::{FORMS, LocationParser, RemoteArgs};
use crate::cli::error::CommandError;
use crate::cli::output;

/// Attach a volume to a domain as a disk
///
/// A running domain gets the disk at once, and the definition of a domain gets it for its next
/// start, unless --live or --config limits it to one of them. The secret that opens the volume has
/// to exist and have a value.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AttachArgs {
    /// The domain, by its name or UUID
    #[arg(value_name = "DOMAIN")]
    domain: String,

    #[arg(value_name = "IMAGE", value_parser = LocationParser::Any, help = format!("The encrypted volume: a file, a block device, or {FORMS}"))]
    image: Location,

    #[command(flatten)]
    when: When,

    #[command(flatten)]
    connect: ConnectArgs,

    #[command(flatten)]
    open: OpenArgs,

    #[command(flatten)]
    disk: DiskArgs,

    #[command(flatten)]
    remote: RemoteArgs,
}

/// Detach a disk from a domain
///
/// The volume and its secret are kept. A running guest has to release the disk.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DetachArgs {
    /// The domain, by its name or UUID
    #[arg(value_name = "DOMAIN")]
    domain: String,

    /// The disk, by its target, such as vdb, or the path of its file or device
    #[arg(value_name = "DISK")]
    disk: String,

    #[command(flatten)]
    when: When,

    /// How long the guest may take to release the disk, in seconds
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 20,
        value_parser = clap::value_parser!(u64).range(1..=3600)
    )]
    timeout: u64,

    #[command(flatten)]
    connect: ConnectArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith libvirt attach vm1 /vm/data.img
  luksmith libvirt attach vm1 /vm/data.qcow2 --format qcow2
  luksmith libvirt attach vm1 volume:default/data.luks --secret usage=volume:/vm/data.luks --target vdc
  luksmith libvirt attach vm1 luks2.img --vhost-user /run/luksmith/vm1.vhost
  luksmith libvirt detach vm1 vdb
  luksmith libvirt detach vm1 /vm/data.img --config";

/// Whether the running domain or its definition changes.
#[derive(Debug, clap::Args)]
struct When {
    /// Change only the running domain
    #[arg(long, conflicts_with = "config")]
    live: bool,

    /// Change only the definition, with which the domain starts the next time
    #[arg(long)]
    config: bool,
}

impl AttachArgs {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let connection = self.connect.open()?;
        let domain = connection.domain(&self.domain)?;
        let disks = Disks::of(&domain, self.when.live, self.when.config)?;
        let target = match self.disk.target() {
            Some(target) => target.to_owned(),
            None => disks.free_target()?,
        };
        let mut options = self.open.options(&self.disk, &self.remote);
        disk::complete(&connection, &self.image, &mut options)?;
        let described = disk::describe(&self.image, &target, &options)?;
        let label = self.image.to_string();
        disks.check(&connection, &described.disk, &label)?;
        for hint in hints(&described.needs) {
            output::hint(&hint);
        }
        let xml = disks.attach(&described.disk, &label)?;
        let mut change = DiskChange::new(domain.name()?, target, disks.affect());
        change.attached = Some((label, xml));
        session.done(&change);
        Ok(())
    }
}

impl DetachArgs {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let connection = self.connect.open()?;
        let domain = connection.domain(&self.domain)?;
        let disks = Disks::of(&domain, self.when.live, self.when.config)?;
        let timeout = Duration::from_secs(self.timeout);
        let gone = disks.detach(&connection, &self.disk, timeout, session)?;
        session.done(&DiskChange::new(domain.name()?, gone.target, gone.affect));
        Ok(())
    }
}
