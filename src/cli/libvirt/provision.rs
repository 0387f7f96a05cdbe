//! `luksmith libvirt provision`: makes a volume, the secret that opens it, and the XML of its disk.

use std::path::PathBuf;

use luksmith::container::Version;
use luksmith::location::Location;
use luksmith::secret::SecretSource;
use luksmith::task::libvirt::disk::Served;
use luksmith::task::libvirt::provision::{Place, Provision, ProvisionOptions, Provisioned};
use luksmith::task::outcome;
use luksmith_formats::json::json;

use super::connect::ConnectArgs;
use super::disk::{DiskArgs, hints};
use crate::cli::Session;
use crate::cli::args::{FreshKeyArgs, LocationParser, NewVolumeArgs};
use crate::cli::error::CommandError;
use crate::cli::force::{Force, confirm, only};
use crate::cli::make;
use crate::cli::notes::note_slow;
use crate::cli::output;
use crate::cli::passphrase::KeySource;
use crate::cli::size;

/// Make a volume, the secret that opens it, and the XML of its disk
///
/// The passphrase has 256 random bits and is only in libvirt's secret, unless --key or --key-file
/// names another source. With --pool and --name, libvirt makes the volume in a pool, which may be
/// on another host. With IMAGE, luksmith makes it in a file, on a device or on an export. At the
/// end, luksmith opens the volume with the value of the secret. If a step fails, or SIGINT arrives,
/// everything that was made is removed again.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The file to make, a block device, or an export (nbd://…), for a volume that is in no pool
    #[arg(value_name = "IMAGE", value_parser = LocationParser::Openable, required_unless_present = "pool")]
    image: Option<Location>,

    /// The pool in which the volume is made; it has to be started
    #[arg(long, value_name = "POOL", conflicts_with = "image", requires_all = ["name", "size"])]
    pool: Option<String>,

    /// The name of the volume in the pool
    #[arg(long, value_name = "NAME", requires = "pool")]
    name: Option<String>,

    /// The size that the guest sees; the volume has this size plus that of the header. 10G is 10
    /// GiB [a device or an export is used as a whole]
    #[arg(long, value_name = size::SIZE, value_parser = size::parse)]
    size: Option<u64>,

    /// libvirt does not return the value of the secret to any client, including luksmith
    #[arg(long)]
    private: bool,

    /// Go on without asking: overwrite
    #[arg(long, value_name = "WHAT", value_parser = only(&[(Force::Overwrite, "overwrite an existing volume")]))]
    force: Vec<Force>,

    /// The URI of the libvirt, which may be remote: qemu:///system, qemu:///session,
    /// qemu+ssh://HOST/system [default: LIBVIRT_DEFAULT_URI, or what libvirt finds]
    // Not ConnectArgs, which has the short name -c: here that is the cipher.
    #[arg(long, value_name = "URI")]
    connect: Option<String>,

    #[command(flatten)]
    disk: DiskArgs,

    /// `luksmith serve` decrypts the volume and serves it on this socket: the volume is LUKS2, and
    /// the XML of the disk has no encryption
    #[arg(
        long,
        value_name = "SOCKET",
        group = "serves",
        conflicts_with = "pool",
        help_heading = "Encryption"
    )]
    served: Option<PathBuf>,

    /// As --served, as a disk of vhost-user: faster, and the domain has to share its memory
    #[arg(
        long,
        value_name = "SOCKET",
        group = "serves",
        conflicts_with = "pool",
        help_heading = "Encryption"
    )]
    vhost_user: Option<PathBuf>,

    /// The user that libvirt runs emulators as [default: libvirt-qemu or qemu, whichever exists]
    #[arg(
        long,
        value_name = "USER",
        requires = "serves",
        help_heading = "Encryption"
    )]
    emulator_user: Option<String>,

    #[command(flatten)]
    key: FreshKeyArgs,

    #[command(flatten)]
    new: NewVolumeArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith libvirt provision --pool default --name vm1.luks --size 20G
  luksmith libvirt provision --pool default --name vm1.luks --size 20G --connect qemu+ssh://host/system
  luksmith libvirt provision /vm/data.img --size 10G --target vdb > disk.xml && virsh attach-device vm1 disk.xml --config
  luksmith libvirt provision --pool default --name vm1.qcow2 --size 20G --format qcow2
  luksmith libvirt provision 'nbd://storage/vm1'
  luksmith libvirt provision /vm/two.img --size 10G --served /run/luksmith/two.sock";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let key = KeySource::if_given(&self.key.source)?;
        let key = key.map(|source| source.allow_weak(self.key.force_weak));
        let mut options = ProvisionOptions::default();
        options.volume = make::new_volume(session, &self.new)?;
        options.key = key.as_ref().map(|source| source as &dyn SecretSource);
        options.private = self.private;
        if let Some(target) = self.disk.target() {
            target.clone_into(&mut options.target);
        }
        options.disk = self.disk.options();
        let by_memory = self.vhost_user.as_ref().map(Served::by_vhost_user);
        options.disk.served = self.served.as_ref().map(Served::new).or(by_memory);
        if let Some(served) = &mut options.disk.served {
            served.emulator_user.clone_from(&self.emulator_user);
        }
        let cipher = options.volume.cipher;
        let place = match (&self.pool, &self.name, self.size, &self.image) {
            (Some(pool), Some(name), Some(size), _) => Place::Pool {
                pool: pool.clone(),
                name: name.clone(),
                size,
            },
            (_, _, size, Some(location)) => Place::At {
                location: location.clone(),
                size,
            },
            _ => return Err(CommandError::parameters("neither IMAGE nor --pool")),
        };
        let connect = self.connect.clone();
        let connection = ConnectArgs { connect }.open()?;
        let provision = Provision::look(&connection, place, options)?;
        for loss in provision.losses() {
            confirm(&self.force, Force::Overwrite, &loss.to_string())?;
        }
        note_slow(cipher);
        let made = provision.make(session)?;
        self.print(session, &made)
    }

    fn print(&self, session: &Session, made: &Provisioned) -> Result<(), CommandError> {
        let xml = made.disk.to_xml()?;
        let hints = hints(&made.needs);
        if made.version == Version::Luks1 {
            output::note(
                "the volume is LUKS1: QEMU opens no other by itself; LUKS2 is for --served SOCKET",
            );
        }
        for hint in &hints {
            output::hint(hint);
        }
        if session.json {
            session.output.json(&json!({
                "image": made.location.to_string(),
                "secret": made.secret.to_string(),
                "path": made.path,
                "pool": self.pool,
                "name": self.name,
                "type": outcome::type_name(made.version),
                "uuid": made.uuid,
                "size": made.size,
                "xml": xml,
                "hints": hints,
            }));
        } else {
            let (location, size) = (&made.location, size::both(made.size));
            output::note(format_args!(
                "made {location} of {size}, which secret {} opens",
                made.secret
            ));
            session.output.lines(xml);
        }
        Ok(())
    }
}
