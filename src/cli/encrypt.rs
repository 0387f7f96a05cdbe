//! `luksmith encrypt`: encrypts plain data into a new volume.

use std::path::Path;
use std::time::Instant;

use luksmith::location::Location;
use luksmith::task::copy;
use luksmith::task::new_volume::Extent;
use luksmith::task::outcome::{Copied, Created};
use luksmith::task::plain::{DiskFormat, DiskImage, PlainSource};
use luksmith::vet::Format;

use super::Session;
use super::args::{Choice, FreshKeyArgs, LocationParser, NewVolumeArgs, TrustArgs, choice};
use super::error::{CommandError, Kind};
use super::force::{Force, access, only};
use super::make;
use super::passphrase::KeySource;
use super::size;
use super::streams;

/// Encrypt a plain image into a new volume
///
/// SOURCE is only read, and no file that it names is opened. All of it is encrypted, including
/// holes and zeroes, so that the storage does not show which sectors are in use.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, mut_arg("trust", |arg| arg.help(make::TRUST)))]
pub(crate) struct Args {
    /// The plain data: a file, a block device, an NBD export, or - for stdin. A file that begins as
    /// a disk image does is refused unless --source-format is given
    #[arg(value_name = "SOURCE", value_parser = LocationParser::Openable)]
    source: Location,

    /// The format of SOURCE: its bytes as they are, or the disk in a disk image, which is inspected
    /// first [default: raw, without the signature of a disk image]
    #[arg(long, value_name = "FORMAT", value_parser = choice(SOURCE_FORMATS))]
    source_format: Option<Format>,

    /// The file to create, a block device, an NBD export (nbd://HOST[:PORT]/NAME,
    /// nbd+unix:///NAME?socket=PATH, and nbds for TLS), an image in Ceph (rbd://POOL/IMAGE), or a
    /// volume in an object store (s3://BUCKET/PREFIX)
    ///
    /// After what exists, ,partition=N is a partition of it, and ,offset=SIZE[,size=SIZE] a range.
    #[arg(value_name = "IMAGE", value_parser = LocationParser::Openable)]
    image: Location,

    /// The size that the guest sees, at least that of SOURCE; the rest is filled with zeroes
    /// [default: the size of SOURCE; a device or an export is used as a whole, and the rest reads
    /// as random bytes]
    #[arg(long, value_name = size::SIZE, value_parser = size::parse)]
    size: Option<u64>,

    /// Fill the last sector with zeroes if SOURCE ends within it
    #[arg(long)]
    pad: bool,

    /// Leave holes in a qcow2 image where SOURCE is zeroes; the storage shows where they are
    #[arg(long)]
    sparse: bool,

    /// Go on without asking: overwrite, unfenced, plaintext-over-network
    #[arg(long, value_name = "WHAT", value_parser = only(&[
        (Force::Overwrite, "replace the file IMAGE, or overwrite the device"),
        (Force::Unfenced, "make it in an object store that overwrites: for one writer at a time"),
        (Force::PlaintextOverNetwork, "read the plaintext from a server on a network without TLS"),
    ]))]
    force: Vec<Force>,

    #[command(flatten)]
    key: FreshKeyArgs,

    #[command(flatten)]
    trust: TrustArgs,

    #[command(flatten)]
    new: NewVolumeArgs,
}

/// The formats of plain data.
const SOURCE_FORMATS: &[Choice<Format>] = &[
    ("raw", "The bytes as they are", Format::Raw),
    (
        "qcow2",
        "The disk in a qcow2 image that is not encrypted",
        Format::Qcow2,
    ),
    ("qed", "The disk in a QED image", Format::Qed),
    (
        "vmdk",
        "The disk in a VMDK image that is one sparse file",
        Format::Vmdk,
    ),
    (
        "vhd",
        "The disk in a VHD image, fixed or dynamic",
        Format::Vhd,
    ),
    ("vhdx", "The disk in a VHDX image", Format::Vhdx),
    ("vdi", "The disk in a VDI image", Format::Vdi),
];

const EXAMPLES: &str = "\
Examples:
  luksmith encrypt plain.img disk.img
  luksmith encrypt plain.img disk.img --key-file disk.key --type luks1
  luksmith encrypt plain.img disk.qcow2 --format qcow2 --sparse
  luksmith encrypt vm.qcow2 disk.img --source-format qcow2
  luksmith encrypt 'nbd+unix:///?socket=vm.sock' disk.img
  qemu-img convert -O raw vm.qcow2 /dev/stdout | luksmith encrypt - disk.img --key-file disk.key";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        let from_stdin = self.source.path() == Some(Path::new("-"));
        let mut source = self.open(session)?;
        let extent = self.extent(source.size())?;
        make::check_sparse(self.sparse, &self.new)?;
        let plan = make::plan(
            session,
            &self.new,
            (&self.trust, &self.image),
            &self.force,
            |new| copy::plan_encrypt(&source, new, &self.image, extent),
        )?;
        let mut key = KeySource::of(&self.key.source)?;
        if from_stdin {
            key = key.beside_data_on_stdin()?;
        }
        let passphrase = key.fresh(session, &self.image.to_string(), self.key.force_weak)?;
        let made = plan.make(&passphrase, session)?;

        let began = Instant::now();
        let mut fill = made.fill();
        fill.pad = self.pad;
        fill.hole = made.hole().filter(|_| self.sparse);
        fill.size = self.size;
        let end = copy::encrypt(&made.volume()?, fill, &mut source, session)
            .map_err(|error| make::partly(error, fill, &self.image))?;
        make::note_rest(&made, end, &self.image, source.name().display())?;
        let mut created = Created::of(&made, &self.image)?;
        let pin = make::pin(&self.new, &self.trust, &made, &self.image)?;
        made.keep()?;
        make::write_pin(pin)?;
        created.copied = Some(Copied::since(began, end));
        make::done(session, &created);
        Ok(())
    }

    /// Opens SOURCE in its format.
    fn open(&self, session: &Session) -> Result<PlainSource, CommandError> {
        let access = access(&self.new.remote, &self.force);
        if let Some(format) = self.source_format.and_then(DiskFormat::of) {
            if self.source.path() == Some(Path::new("-")) {
                return Err(CommandError::parameters(format!(
                    "a disk image ({format}) cannot be read from stdin"
                ))
                .hint("name a file"));
            }
            let image = DiskImage::open_at(&self.source, format, access, session)?;
            return Ok(PlainSource::image(image, &self.source.to_string()));
        }
        let mut source = match &self.source {
            Location::Path(path) if path == Path::new("-") => streams::stdin()?,
            source => PlainSource::at(source, access, &self.image, session)?,
        };
        if self.source_format.is_none() {
            source.refuse_images(session)?;
        }
        Ok(source)
    }

    fn extent(&self, source: Option<u64>) -> Result<Extent, CommandError> {
        match (self.size, source) {
            (Some(size), Some(source)) if size < source => {
                let message = format!(
                    "--size: {size} bytes are fewer than the {source} bytes of {}",
                    self.source
                );
                Err(CommandError::new(Kind::Parameters, message))
            }
            (Some(size), _) => Ok(Extent::Exactly(size)),
            (None, Some(0)) => Err(CommandError::parameters(format!(
                "{} is empty",
                self.source
            ))),
            (None, Some(source)) if source.is_multiple_of(512) => Ok(Extent::AtLeast(source)),
            (None, Some(source)) if self.pad => source
                .checked_next_multiple_of(512)
                .map(Extent::AtLeast)
                .ok_or_else(|| CommandError::parameters("the source is too large")),
            (None, Some(source)) => {
                let message = format!(
                    "{} has {source} bytes, not a whole number of sectors",
                    self.source
                );
                Err(CommandError::new(Kind::Parameters, message)
                    .hint("--pad fills the last sector with zeroes"))
            }
            (None, None) => Ok(Extent::Growing),
        }
    }
}
