//! Which volume.

use std::path::{Path, PathBuf};

use clap::Args;

/// The image and, if it lies apart, its header.
#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    /// The encrypted volume: a file or a block device
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,

    /// The LUKS header lies in FILE (a detached header), IMAGE holds the data alone
    #[arg(long, value_name = "FILE")]
    pub(crate) header: Option<PathBuf>,
}

impl ImageArgs {
    /// Where the header lies.
    pub(crate) fn header_path(&self) -> &Path {
        self.header.as_deref().unwrap_or(&self.image)
    }
}

/// Where a change that overwrites in place keeps what it overwrites until it is done.
#[derive(Debug, Args)]
pub(crate) struct UndoArgs {
    /// Keep the undo record of a change that must overwrite in place in PATH [default: beside the file that holds the header;
    /// a block device has no default]
    #[arg(long, value_name = "PATH", help_heading = None::<&str>)]
    pub(crate) undo_file: Option<PathBuf>,
}
