//! The image that a command works on.

use std::path::{Path, PathBuf};

use clap::Args;
use luksmith::location::Location;
use luksmith::task::open::{Image, ImageFormat};
use luksmith::volume::Volume;

use super::{Choice, LocalFile, LocationParser, RemoteArgs, TrustArgs, choice};

/// The formats in which a file, a device or an export holds a volume.
pub(crate) const IMAGE_FORMATS: &[Choice<ImageFormat>] = &[
    ("raw", "The LUKS header, then the data", ImageFormat::Raw),
    (
        "qcow2",
        "An encrypted qcow2 image, with LUKS1 inside",
        ImageFormat::Qcow2,
    ),
];

/// The image and its header, if that is detached.
#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    /// The encrypted volume: a file, a block device, an NBD export (nbd://HOST[:PORT]/NAME,
    /// nbd+unix:///NAME?socket=PATH, and nbds for TLS), an image in Ceph (rbd://POOL/IMAGE), a
    /// volume in an object store (s3://BUCKET/PREFIX), or, to read only, a file on a web server
    /// (https://HOST/PATH)
    ///
    /// After any of these, ,partition=N is a partition of it, and ,offset=SIZE[,size=SIZE] a range.
    #[arg(value_name = "IMAGE", value_parser = LocationParser::Openable)]
    pub(crate) image: Location,

    /// The LUKS header is in FILE (a detached header); IMAGE holds only the data
    #[arg(long, value_name = "FILE", value_parser = LocationParser::Openable)]
    pub(crate) header: Option<Location>,

    /// The format of IMAGE; it is never guessed
    #[arg(long, value_name = "FORMAT", default_value = "raw", value_parser = choice(IMAGE_FORMATS))]
    pub(crate) format: ImageFormat,

    #[command(flatten)]
    pub(crate) trust: TrustArgs,

    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

impl ImageArgs {
    pub(crate) fn get(&self) -> Image {
        let mut image = Image::new(self.image.clone());
        image.header.clone_from(&self.header);
        image.format = self.format;
        image.remote = self.remote.get();
        image.trust = self.trust.dir();
        image
    }

    /// Where the header is stored.
    pub(crate) fn header_location(&self) -> &Location {
        self.header.as_ref().unwrap_or(&self.image)
    }
}

/// Whether unencrypted parts of an image are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
pub(crate) struct CompressedArgs {
    /// Also read the compressed clusters of a qcow2 image. QEMU does not encrypt them: anyone with
    /// access to the storage can read and change them
    #[arg(long)]
    pub(crate) compressed_plaintext: bool,
}

impl CompressedArgs {
    /// The volume, with the option applied.
    pub(crate) fn apply(self, volume: Volume) -> Volume {
        match self.compressed_plaintext {
            true => volume.with_compressed_plaintext(),
            false => volume,
        }
    }
}

/// Where the undo record of a change in place is stored.
#[derive(Debug, Args)]
pub(crate) struct UndoArgs {
    /// Store the undo record in PATH if the change overwrites data in place [default: beside the
    /// file that holds the header; none for a block device or an export]
    #[arg(long, value_name = "PATH", help_heading = None::<&str>, value_parser = LocalFile)]
    pub(crate) undo_file: Option<PathBuf>,
}

impl UndoArgs {
    pub(crate) fn path(&self) -> Option<&Path> {
        self.undo_file.as_deref()
    }
}
