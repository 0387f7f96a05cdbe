//! Which volume.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use luksmith::location::Location;
use luksmith::task::open::{self, Image};
use luksmith::volume::Volume;

use super::{LocalFile, LocationParser, RemoteArgs};

/// What holds a volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImageFormat {
    /// The volume itself, header first
    #[default]
    Raw,
    /// An encrypted qcow2 image, with LUKS1 inside
    Qcow2,
}

impl From<ImageFormat> for open::ImageFormat {
    fn from(format: ImageFormat) -> Self {
        match format {
            ImageFormat::Raw => Self::Raw,
            ImageFormat::Qcow2 => Self::Qcow2,
        }
    }
}

/// The image and, if it lies apart, its header.
#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    /// The encrypted volume: a file, a block device, or an export (nbd://HOST[:PORT]/NAME, nbd+unix:///NAME?socket=PATH, and nbds for TLS)
    #[arg(value_name = "IMAGE", value_parser = LocationParser::Openable)]
    pub(crate) image: Location,

    /// The LUKS header lies in FILE (a detached header), IMAGE holds the data alone
    #[arg(long, value_name = "FILE", value_parser = LocationParser::Openable)]
    pub(crate) header: Option<Location>,

    /// What IMAGE is; nothing is guessed
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    pub(crate) format: ImageFormat,

    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

impl ImageArgs {
    pub(crate) fn get(&self) -> Image {
        let mut image = Image::new(self.image.clone());
        image.header.clone_from(&self.header);
        image.format = self.format.into();
        image.remote = self.remote.get();
        image
    }

    /// Where the header lies.
    pub(crate) fn header_location(&self) -> &Location {
        self.header.as_ref().unwrap_or(&self.image)
    }
}

/// Whether what an image has unencrypted is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
pub(crate) struct CompressedArgs {
    /// Read the compressed clusters of a qcow2 image, too: QEMU does not encrypt them, so that whoever has the storage can read them and
    /// put there what he likes
    #[arg(long, requires = "format")]
    pub(crate) compressed_plaintext: bool,
}

impl CompressedArgs {
    /// The volume, as it was asked for.
    pub(crate) fn apply(self, volume: Volume) -> Volume {
        match self.compressed_plaintext {
            true => volume.with_compressed_plaintext(),
            false => volume,
        }
    }
}

/// Where a change that overwrites in place keeps what it overwrites until it is done.
#[derive(Debug, Args)]
pub(crate) struct UndoArgs {
    /// Keep the undo record of a change that must overwrite in place in PATH [default: beside the file that holds the header;
    /// a block device and an export have no default]
    #[arg(long, value_name = "PATH", help_heading = None::<&str>, value_parser = LocalFile)]
    pub(crate) undo_file: Option<PathBuf>,
}

impl UndoArgs {
    pub(crate) fn path(&self) -> Option<&Path> {
        self.undo_file.as_deref()
    }
}
