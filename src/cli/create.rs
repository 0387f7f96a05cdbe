//! `luksmith create`: makes a new, empty volume.

use luksmith::location::Location;
use luksmith::task::new_volume::{Extent, Plan};
use luksmith::task::outcome::Created;

use super::Session;
use super::args::{FreshKeyArgs, LocationParser, NewVolumeArgs, TrustArgs};
use super::error::CommandError;
use super::force::{Force, only};
use super::make;
use super::passphrase::KeySource;
use super::size;

/// Create a new volume in a file, on a device or on a server
///
/// A file, or an image in Ceph, is created sparse, with the size of the header plus --size.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, mut_arg("trust", |arg| arg.help(make::TRUST)))]
pub(crate) struct Args {
    /// The file to create, a block device, an NBD export (nbd://HOST[:PORT]/NAME,
    /// nbd+unix:///NAME?socket=PATH, and nbds for TLS), an image in Ceph (rbd://POOL/IMAGE), or a
    /// volume in an object store (s3://BUCKET/PREFIX)
    ///
    /// After what exists, ,partition=N is a partition of it, and ,offset=SIZE[,size=SIZE] a range.
    #[arg(value_name = "IMAGE", value_parser = LocationParser::Openable)]
    image: Location,

    /// The size that the guest sees; the file has this size plus that of the header. 10G is 10 GiB
    /// [a device, an export or an existing image in Ceph is used as a whole]
    #[arg(long, value_name = size::SIZE, value_parser = size::parse)]
    size: Option<u64>,

    /// Go on without asking: overwrite, unfenced
    #[arg(long, value_name = "WHAT", value_parser = only(&[
        (Force::Overwrite, "replace the file IMAGE, or overwrite the device"),
        (Force::Unfenced, "make it in an object store that overwrites: for one writer at a time"),
    ]))]
    force: Vec<Force>,

    #[command(flatten)]
    key: FreshKeyArgs,

    #[command(flatten)]
    trust: TrustArgs,

    #[command(flatten)]
    new: NewVolumeArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith create disk.img --size 10G                          asks for a passphrase
  luksmith create disk.img --size 10G --key-file disk.key      a key file, all of its bytes
  luksmith create disk.img --size 10G --type luks1             for QEMU's own LUKS driver
  luksmith create data.img --size 10G --header data.header     a detached header
  luksmith create disk.qcow2 --format qcow2 --size 10G         an encrypted qcow2 image, which QEMU opens too
  luksmith create /dev/sdb1                                    all of a device
  luksmith create vm.img,partition=2                           all of a partition in an image
  luksmith create 'nbds://storage.example/vm1'                 all of an export
  luksmith create rbd://pool/vm1 --size 10G                    a new image in Ceph
  luksmith create s3://bucket/vm1 --size 10G                   new, in an object store";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let extent = self.size.map_or(Extent::AllThereIs, Extent::Exactly);
        let plan = make::plan(
            session,
            &self.new,
            (&self.trust, &self.image),
            &self.force,
            |new| Plan::look(new, &self.image, extent),
        )?;
        let source = KeySource::of(&self.key.source)?;
        let passphrase = source.fresh(session, &self.image.to_string(), self.key.force_weak)?;
        let made = plan.make(&passphrase, session)?;
        let created = Created::of(&made, &self.image)?;
        let pin = make::pin(&self.new, &self.trust, &made, &self.image)?;
        made.keep()?;
        make::write_pin(pin)?;
        make::done(session, &created);
        Ok(())
    }
}
