//! Copies of a disk while its domain runs: the block jobs of libvirt.

use super::domain::Domain;
use super::error::LibvirtError;

/// How a disk is copied to an image that exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockCopy {
    /// A write of the guest ends only after it is in both images, so that the copy catches up with
    /// any guest. Since libvirt 8.0.
    pub synchronous_writes: bool,
    /// The most bytes per second that the job copies. By default there is no limit.
    pub bandwidth: Option<u64>,
}

/// `VIR_DOMAIN_BLOCK_COPY_REUSE_EXT`.
const REUSE: u32 = 2;
/// `VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB`, without which a disk of a persistent domain is refused.
const TRANSIENT_JOB: u32 = 4;
/// `VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES`.
const SYNCHRONOUS_WRITES: u32 = 8;
/// `VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT`.
const PIVOT: u32 = 2;

impl BlockCopy {
    /// Without a limit, and without synchronous writes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// Ends a write of the guest only after it is in both images.
        synchronous_writes: bool,

        /// The most bytes per second that the job copies.
        bandwidth: Option<u64>,
    }
}

/// How far the job of a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockJob {
    /// Whether it copies the disk. Other jobs merge layers.
    pub is_copy: bool,
    /// The bytes that are done.
    pub done: u64,
    /// The bytes that were found to be done in all. This grows while the guest writes.
    pub end: u64,
}

impl Domain {
    /// Begins to copy a disk, named by its target (`vda`), to the image that this XML of a disk
    /// names. From the end of the copy on, each write goes to both, until [`Domain::pivot`] or
    /// [`Domain::abort_block_job`].
    ///
    /// # Errors
    /// [`LibvirtError::State`] when the domain does not run, …
    pub fn block_copy(
        &self,
        disk: &str,
        destination: &str,
        options: BlockCopy,
    ) -> Result<(), LibvirtError> {
        let synchronous = match options.synchronous_writes {
            true => SYNCHRONOUS_WRITES,
            false => 0,
        };
        let flags = REUSE | TRANSIENT_JOB | synchronous;
        let bandwidth = options.bandwidth;
        let copy = self.0.functions.block_copy;
        copy.call(&self.0, disk, destination, bandwidth, flags)
    }

    /// The job of a disk, if it has one.
    ///
    /// # Errors
    /// [`LibvirtError::State`] when the domain does not run, …
    pub fn block_job(&self, disk: &str) -> Result<Option<BlockJob>, LibvirtError> {
        let found = self.0.functions.block_job.call(&self.0, disk)?;
        Ok(found.map(|job| BlockJob {
            is_copy: job.kind == 2, // VIR_DOMAIN_BLOCK_JOB_TYPE_COPY
            done: job.done,
            end: job.end,
        }))
    }

    /// Ends the copy of a disk, which is complete: the domain uses the new image from now on, also
    /// when it starts the next time.
    ///
    /// # Errors
    /// [`LibvirtError::Failed`] while the copy is not complete, …
    pub fn pivot(&self, disk: &str) -> Result<(), LibvirtError> {
        let abort = self.0.functions.abort_block_job;
        abort.call(&self.0, disk, PIVOT)
    }

    /// Ends the job of a disk. The domain goes on with the image that it has.
    ///
    /// # Errors
    /// [`LibvirtError::Invalid`] if the disk has no job, …
    pub fn abort_block_job(&self, disk: &str) -> Result<(), LibvirtError> {
        let abort = self.0.functions.abort_block_job;
        abort.call(&self.0, disk, 0)
    }
}
