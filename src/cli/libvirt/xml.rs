//! `luksmith libvirt xml`: prints the XML of secrets, volumes and disks.

use clap::Subcommand;
use luksmith::libvirt::xml::{SecretRef, Usage};
use luksmith::location::Location;
use luksmith::task::libvirt::{definition, disk};
use luksmith::task::open::{Image, ImageFormat};
use luksmith_formats::json::json;
use uuid::Uuid;

use super::disk::{DiskArgs, OpenArgs, hints};
use crate::cli::Session;
use crate::cli::args::{FORMS, IMAGE_FORMATS, LocationParser, RemoteArgs, choice};
use crate::cli::error::CommandError;
use crate::cli::output;

/// Print the XML with which libvirt defines a secret, a volume or a disk
///
/// This needs no libvirt. The output is for `virsh secret-define`, `virsh vol-create`, `virsh
/// attach-device` and similar commands.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Command {
    Secret(SecretArgs),
    Volume(VolumeArgs),
    Disk(Box<DiskXmlArgs>),
}

const EXAMPLES: &str = "\
Examples:
  luksmith libvirt xml secret /vm/disk.img > secret.xml
  luksmith libvirt xml disk /vm/disk.img --target vdb --cache none
  luksmith libvirt xml disk /vm/disk.qcow2 --format qcow2
  luksmith libvirt xml disk 'nbd://storage/vm1' --secret 55f4c1ec-1111-4222-8333-123456789abc
  luksmith libvirt xml disk rbd://pool/image --monitor mon1 --type luks2 --secret 55f4c1ec-1111-4222-8333-123456789abc
  luksmith libvirt xml disk luks2.img --served /run/luksmith/vm1.sock
  luksmith libvirt xml disk luks2.img --vhost-user /run/luksmith/vm1.vhost";

/// A secret for the passphrase of a volume
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SecretArgs {
    /// The volume, which need not exist: a file or a block device, or another location with --usage
    #[arg(value_name = "IMAGE", value_parser = LocationParser::Any)]
    image: Location,

    /// The usage of the secret [default: volume: and the path of IMAGE, by which a pool finds the
    /// secret]
    #[arg(long, value_name = "TYPE:ID")]
    usage: Option<Usage>,

    /// The UUID of the secret [default: libvirt generates one]
    #[arg(long, value_name = "UUID")]
    uuid: Option<Uuid>,

    /// A description for people
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,

    /// libvirt keeps the secret only in the memory of its daemon
    #[arg(long)]
    ephemeral: bool,

    /// libvirt does not return the value to any client
    #[arg(long)]
    private: bool,
}

/// A volume of a pool, with the size of IMAGE
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VolumeArgs {
    /// The encrypted volume: a file, a block device, or an export
    #[arg(value_name = "IMAGE", value_parser = LocationParser::Openable)]
    image: Location,

    /// The name of the volume in the pool [default: that of the file]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// The secret that opens the volume: a UUID, or usage=volume:PATH [default: usage=volume: and
    /// the path of IMAGE]
    #[arg(long, value_name = "SECRET")]
    secret: Option<SecretRef>,

    /// The format of IMAGE; it is never guessed
    #[arg(long, value_name = "FORMAT", default_value = "raw", value_parser = choice(IMAGE_FORMATS))]
    format: ImageFormat,

    #[command(flatten)]
    remote: RemoteArgs,
}

/// A disk of a domain
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DiskXmlArgs {
    #[arg(value_name = "IMAGE", value_parser = LocationParser::Any, help = format!("The encrypted volume: a file, a block device, or {FORMS}"))]
    image: Location,

    #[command(flatten)]
    open: OpenArgs,

    #[command(flatten)]
    disk: DiskArgs,

    #[command(flatten)]
    remote: RemoteArgs,
}

impl Command {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        match self {
            Self::Secret(args) => args.run(session),
            Self::Volume(args) => args.run(session),
            Self::Disk(args) => args.run(session),
        }
    }
}

/// Prints the XML, and on stderr what else has to be done.
fn print(session: &Session, xml: &str, hints: &[String]) {
    if session.json {
        session.output.json(&json!({"xml": xml, "hints": hints}));
        return;
    }
    session.output.lines(xml);
    for hint in hints {
        output::hint(hint);
    }
}

impl SecretArgs {
    fn run(self, session: &Session) -> Result<(), CommandError> {
        let secret = definition::secret(&self.image, self.usage, self.uuid)?
            .description(self.description)
            .ephemeral(self.ephemeral)
            .private(self.private);
        print(session, &secret.to_xml()?, &[]);
        Ok(())
    }
}

impl VolumeArgs {
    fn run(self, session: &Session) -> Result<(), CommandError> {
        let mut image = Image::new(self.image);
        image.format = self.format;
        image.remote = self.remote.get();
        let interrupt = session.signals.interrupt();
        let volume = definition::volume(&image, self.name, self.secret, interrupt)?;
        print(session, &volume.to_xml()?, &[]);
        Ok(())
    }
}

impl DiskXmlArgs {
    fn run(self, session: &Session) -> Result<(), CommandError> {
        let target = self.disk.target().unwrap_or("vda");
        let options = self.open.options(&self.disk, &self.remote);
        let described = disk::describe(&self.image, target, &options)?;
        let xml = described.disk.to_xml()?;
        print(session, &xml, &hints(&described.needs));
        Ok(())
    }
}
