//! `luksmith copy`: copies a volume into a new volume.

use std::time::Instant;

use clap::builder::TypedValueParser as _;
use luksmith::container::Which;
use luksmith::location::Location;
use luksmith::task::copy;
use luksmith::task::open::{Image, ImageFormat};
use luksmith::task::outcome::{Copied, Created};
use luksmith::trust::TrustDir;

use super::Session;
use super::args::{
    CompressedArgs, IMAGE_FORMATS, KeyArgs, LocalFile, LocationParser, NewKeyArgs, NewVolumeArgs,
    TokenArgs, TrustArgs, choice,
};
use super::error::{CommandError, Kind};
use super::force::{Force, only};
use super::make;
use super::notes::note_slow;
use super::open::unlock_and_keep;
use super::passphrase::KeySource;

/// Copy a volume into a new one of another version or cipher
///
/// SOURCE is only read. The plaintext is only in memory. The new volume has another volume key, and
/// one keyslot. A new file gets its name when it is complete on the disk.
#[derive(Debug, clap::Args)]
#[command(
    after_help = EXAMPLES,
    mut_arg("trust", |arg| arg.help(make::TRUST)),
    mut_arg("new_key", |arg| arg.help(
        "The source of the passphrase of IMAGE, as for --key; prompt asks for it [default: the \
         passphrase of SOURCE]",
    ))
)]
pub(crate) struct Args {
    /// The volume to copy: a file, a block device, an NBD export, or an image in Ceph
    #[arg(value_name = "SOURCE", value_parser = LocationParser::Openable)]
    source: Location,

    /// The file to create, a block device, an NBD export (nbd://HOST[:PORT]/NAME,
    /// nbd+unix:///NAME?socket=PATH, and nbds for TLS), an image in Ceph (rbd://POOL/IMAGE), or a
    /// volume in an object store (s3://BUCKET/PREFIX)
    ///
    /// After what exists, ,partition=N is a partition of it, and ,offset=SIZE[,size=SIZE] a range.
    #[arg(value_name = "IMAGE", value_parser = LocationParser::Openable)]
    image: Location,

    /// The format of SOURCE; it is never guessed
    #[arg(long, value_name = "FORMAT", default_value = "raw", value_parser = choice(IMAGE_FORMATS))]
    source_format: ImageFormat,

    /// The LUKS header of SOURCE is in FILE (a detached header)
    #[arg(long, value_name = "FILE", value_parser = LocationParser::Openable)]
    source_header: Option<Location>,

    #[command(flatten)]
    compressed: CompressedArgs,

    /// Leave holes in a qcow2 image where the plaintext is zeroes; the storage shows where they are
    #[arg(long)]
    sparse: bool,

    /// Go on without asking: overwrite, unfenced
    #[arg(long, value_name = "WHAT", value_parser = only(&[
        (Force::Overwrite, "replace the file of the new volume, or overwrite the device"),
        (Force::Unfenced, "make it in an object store that overwrites: for one writer at a time"),
    ]))]
    force: Vec<Force>,

    #[command(flatten)]
    key: KeyArgs,

    #[command(flatten)]
    token: TokenArgs,

    /// Compare the header of SOURCE with its pin in DIR
    #[arg(
        long,
        value_name = "DIR",
        value_hint = clap::ValueHint::DirPath,
        help_heading = None::<&str>,
        value_parser = LocalFile.map(|path| TrustDir::at(&path))
    )]
    source_trust: Option<TrustDir>,

    #[command(flatten)]
    trust: TrustArgs,

    #[command(flatten)]
    new_key: NewKeyArgs,

    #[command(flatten)]
    new: NewVolumeArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith copy disk.img qemu.img --type luks1              for QEMU's own LUKS driver
  luksmith copy old.img new.img --cipher aes-xts-plain64 --new-key prompt
  luksmith copy disk.img disk.qcow2 --format qcow2 --sparse
  luksmith copy vm.qcow2 disk.img --source-format qcow2
  luksmith copy disk.img 'nbds://storage.example/vm1' --key-file disk.key";

const OPTIONS: &str = "here --source-header and --source-format describe SOURCE";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        make::check_sparse(self.sparse, &self.new)?;
        let old = KeySource::by_tokens(&self.key, &self.token)?;
        if self.token.is_given() && !self.new_key.is_given() {
            let message = "the new volume has no token that finds its passphrase";
            return Err(CommandError::parameters(message)
                .hint("--new-key SOURCE gives it a passphrase of its own"));
        }
        let mut source = Image::new(self.source.clone());
        source.header.clone_from(&self.source_header);
        source.format = self.source_format;
        source.remote = self.new.remote.get();
        source.trust = self.source_trust;
        let limits = self.new.limits.limits();
        let file = copy::open_beside(&self.source, &self.image, Default::default());
        let opened = source.open_data_to_read(file, limits, session);
        let (container, data) = opened.map_err(|error| {
            let damaged = error.kind() == Kind::Damaged;
            CommandError::from(error).hint_if(damaged.then(|| OPTIONS.to_owned()))
        })?;
        source.refuse_header_as_data(&container, &data)?;
        let size = data.volume_size(&container)?;
        let plan = make::plan(
            session,
            &self.new,
            (&self.trust, &self.image),
            &self.force,
            |new| copy::plan_transfer(&source, &container, size, new, &self.image),
        )?;

        let label = self.source.to_string();
        let opened = unlock_and_keep(session, &container, &old, Which::Any, &label)?;
        let (unlocked, mut passphrase) = (opened.unlocked, opened.passphrase);
        if self.new_key.is_given() {
            let new = KeySource::of_new(&self.new_key, Some(&old))?;
            passphrase = new.fresh(session, &self.image.to_string(), self.new_key.force_weak)?;
        }
        let from = data.volume(&container, &unlocked);
        let from = self
            .compressed
            .apply(from.map_err(|error| error.about(&label))?);
        if let Ok(segment) = container.data_segment() {
            note_slow(segment.cipher);
        }
        let made = plan.make(&passphrase, session)?;
        let began = Instant::now();
        let mut fill = made.fill();
        fill.hole = made.hole().filter(|_| self.sparse);
        copy::transfer(&from, data.depth(), &made.volume()?, fill, session)
            .map_err(|error| make::partly(error, fill, &self.image))?;
        make::note_rest(&made, size, &self.image, &self.source)?;
        let mut created = Created::of(&made, &self.image)?;
        let pin = make::pin(&self.new, &self.trust, &made, &self.image)?;
        made.keep()?;
        make::write_pin(pin)?;
        created.copied = Some(Copied::since(began, size));
        make::done(session, &created);
        Ok(())
    }
}
