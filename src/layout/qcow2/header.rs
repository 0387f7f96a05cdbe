//! The LUKS header of an image, for work that needs no data of the disk.
//!
//! Such work is possible on every encrypted image: on an overlay, whose backing file may be missing
//! or need another key, on an image with a data file, and on one with damaged tables. Only the
//! image's own header and the LUKS header are read and written.

use std::fmt;
use std::sync::Arc;

use luksmith_formats::image::qcow2::{BITMAPS, DATA_FILE_RAW};

use super::shape::{AUTOCLEAR, ImageError, Others, Shape};
use super::used::UsedClustersWalk;
use crate::backend::Backend;
use crate::backend::memory::MemoryBackend;
use crate::backend::section::Section;
use crate::door;

/// The autoclear features whose promises hold after a change of the LUKS header.
const UNTOUCHED: u64 = BITMAPS | DATA_FILE_RAW;

/// The most bytes of a cluster, the first of which holds all that [`header_place`] needs.
pub const LARGEST_CLUSTER: u64 = 2 << 20;

/// Where an image has its LUKS header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeaderPlace {
    /// The offset in the image, in bytes.
    pub offset: u64,
    /// The length in bytes.
    pub len: u64,
    /// Whether the image names a backing file or a data file.
    pub several_files: bool,
}

/// The place of the LUKS header in an image, for a caller that cannot open all of its storage.
/// `begin` has the first [`LARGEST_CLUSTER`] bytes of the image, or all of a shorter one.
///
/// # Errors
/// [`ImageError`] if the image's own header is malformed, or it is not encrypted.
pub fn header_place(begin: Vec<u8>) -> Result<HeaderPlace, ImageError> {
    let (shape, others) = Shape::read_begin(&MemoryBackend::from_bytes(begin))?;
    let (offset, len) = shape.crypto;
    Ok(HeaderPlace {
        offset,
        len,
        several_files: others.backing_file.or(others.data_file).is_some(),
    })
}

/// The LUKS header of an encrypted image, and what the image's own header says.
///
/// No file that the image names is ever opened.
#[derive(Clone)]
pub struct Qcow2Header {
    storage: Arc<dyn Backend>,
    shape: Shape,
    others: Others,
}

impl Qcow2Header {
    /// Opens the LUKS header of an image. It can be written if the storage can.
    ///
    /// # Errors
    /// [`ImageError`] if the image's own header is malformed, or it is not encrypted; an image that
    /// is marked as damaged, if it could be written; what the storage reports.
    pub fn open(storage: Arc<dyn Backend>) -> Result<Self, ImageError> {
        let (shape, others) = Shape::read_for_header(&*storage)?;
        let kept = shape.header.autoclear & UNTOUCHED;
        if !storage.geometry().read_only
            && shape.header.version >= 3
            && shape.header.autoclear != kept
        {
            // A change clears the features that are not known.
            door::write(&*storage, AUTOCLEAR, &kept.to_be_bytes())?;
            storage.flush()?;
        }
        Ok(Self {
            storage,
            shape,
            others,
        })
    }

    /// The header of an image that holds all of its data.
    pub(super) fn of(storage: Arc<dyn Backend>, shape: Shape) -> Self {
        Self {
            storage,
            shape,
            others: Others::default(),
        }
    }

    /// The storage of the LUKS header. Its size is fixed, and stated in the image.
    pub fn storage(&self) -> Arc<dyn Backend> {
        let (start, len) = self.shape.crypto;
        Arc::new(Section::within(
            self.storage.clone(),
            start..start.saturating_add(len),
        ))
    }

    /// Where the LUKS header is in the image: its offset and length, in bytes.
    pub fn place(&self) -> (u64, u64) {
        self.shape.crypto
    }

    /// Begins to look for the clusters that hold data of the disk and of its snapshots.
    ///
    /// # Errors
    /// [`ImageError::DataFile`], malformed tables, and what the storage reports.
    pub fn used_clusters(&self) -> Result<UsedClustersWalk, ImageError> {
        UsedClustersWalk::begin(self.storage.clone(), self.shape.clone())
    }

    /// The size of the disk in bytes, when the image was opened.
    pub fn size(&self) -> u64 {
        // QEMU ignores bytes after the last whole sector too.
        self.shape.header.size / 512 * 512
    }

    /// The size of a cluster in bytes.
    pub fn cluster_size(&self) -> u64 {
        self.shape.cluster
    }

    /// The version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.shape.header.version
    }

    /// The bits of a refcount: 1 to 64.
    pub fn refcount_bits(&self) -> u32 {
        1 << self.shape.header.refcount_order
    }

    /// The number of internal snapshots.
    pub fn snapshots(&self) -> u32 {
        self.shape.header.snapshots
    }

    /// The name of the backing file of an overlay, as the image has it. The file is not opened.
    pub fn backing_file(&self) -> Option<&str> {
        self.others.backing_file.as_deref()
    }

    /// The name of the file that holds the data, as the image has it. The file is not opened.
    pub fn data_file(&self) -> Option<&str> {
        self.others.data_file.as_deref()
    }
}

impl fmt::Debug for Qcow2Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Qcow2Header")
            .field("size", &self.size())
            .field("cluster_size", &self.cluster_size())
            .field("backing_file", &self.backing_file())
            .finish_non_exhaustive()
    }
}
