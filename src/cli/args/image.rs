//! The image that a command works on.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use luksmith::location::Location;
use luksmith::task::open::{self, Image};
use luksmith::task::plain::DiskFormat;
use luksmith::volume::Volume;

use super::{LocalFile, LocationParser, RemoteArgs};

/// The format in which a file, a device or an export holds a volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImageFormat {
    /// The LUKS header, then the data
    #[default]
    Raw,
    /// An encrypted qcow2 image, with LUKS1 inside
    Qcow2,
}

/// The format of plain data that is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SourceFormat {
    /// The bytes as they are
    Raw,
    /// The disk in a qcow2 image that is not encrypted
    Qcow2,
    /// The disk in a QED image
    Qed,
    /// The disk in a VMDK image that is one sparse file
    Vmdk,
    /// The disk in a VHD image, fixed or dynamic
    Vhd,
    /// The disk in a VHDX image
    Vhdx,
    /// The disk in a VDI image
    Vdi,
}

impl SourceFormat {
    /// The format, if it is that of a disk image.
    pub(crate) fn of_disk(self) -> Option<DiskFormat> {
        match self {
            Self::Raw => None,
            Self::Qcow2 => Some(DiskFormat::Qcow2),
            Self::Qed => Some(DiskFormat::Qed),
            Self::Vmdk => Some(DiskFormat::Vmdk),
            Self::Vhd => Some(DiskFormat::Vhd),
            Self::Vhdx => Some(DiskFormat::Vhdx),
            Self::Vdi => Some(DiskFormat::Vdi),
        }
    }
}

impl From<ImageFormat> for open::ImageFormat {
    fn from(format: ImageFormat) -> Self {
        match format {
            ImageFormat::Raw => Self::Raw,
            ImageFormat::Qcow2 => Self::Qcow2,
        }
    }
}

/// The image and its header, if that is detached.
#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    /// The encrypted volume: a file, a block device, or an NBD export (nbd://HOST[:PORT]/NAME,
    /// nbd+unix:///NAME?socket=PATH, and nbds for TLS)
    #[arg(value_name = "IMAGE", value_parser = LocationParser::Openable)]
    pub(crate) image: Location,

    /// The LUKS header is in FILE (a detached header); IMAGE holds only the data
    #[arg(long, value_name = "FILE", value_parser = LocationParser::Openable)]
    pub(crate) header: Option<Location>,

    /// The format of IMAGE; it is never guessed
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
