//! Why a disk gets no new volume.

use uuid::Uuid;

use super::journal::Journal;
use crate::task::{Error, Kind};

/// Why a disk gets no new volume, besides the errors of libvirt and of the volumes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RekeyError {
    /// A domain has no disk that QEMU decrypts.
    #[error("{0} has no disk that QEMU decrypts")]
    NoDisk(String),
    /// QEMU does not decrypt this disk.
    #[error("QEMU does not decrypt {0}")]
    NotEncrypted(String),
    /// Another process gives the disk a new volume.
    #[error("another luksmith gives this disk a new volume")]
    Locked,
    /// The domain refers to its disks as they are now, in a way that a copy does not change.
    #[error("the domain has {0}, which need its present volumes")]
    Bound(&'static str),
    /// The memory of the domain was saved, with its present disks.
    #[error("the domain was saved, and will go on with its present volumes")]
    Saved,
    /// The domain will not exist any more when it is shut off.
    #[error("the domain is transient: whatever defines it names the present volume")]
    Transient,
    /// A migration, a backup or a job of the disk is under way.
    #[error("the domain is busy with another job")]
    Job,
    /// Several domains may write to the disk.
    #[error("the disk is shareable")]
    Shareable,
    /// The image has other layers.
    #[error("the image has a backing layer")]
    Backing,
    /// It is not a LUKS1 volume that QEMU decrypts.
    #[error("{0}")]
    Beyond(&'static str),
    /// Another disk is the same volume.
    #[error("{place} is also {other}")]
    AlsoUsed {
        /// The volume.
        place: String,
        /// The other disk.
        other: String,
    },
    /// The XML of a domain cannot be read, which may name the volume.
    #[error("the domain {0} cannot be read, and may have the volume as a disk")]
    Unread(String),
    /// There is no pool, and no folder, in which the new volume can be made.
    #[error("{0} is in no pool that is started")]
    NoPool(String),
    /// The guest sees another size than the header and the storage say.
    #[error("the guest sees {seen} bytes, and {place} has {size}")]
    OtherSize {
        /// The volume.
        place: String,
        /// Its size.
        size: u64,
        /// The size that the guest sees.
        seen: u64,
    },
    /// A rotation of the passphrase is not finished.
    #[error("a rotation of secret {0} is not finished")]
    Rotation(Uuid),
    /// Where the new volume is to be made, something else exists already.
    #[error("{0} exists already")]
    Exists(String),
    /// The domain was shut off while QEMU copied its disk.
    #[error("the domain was shut off while its disk was copied")]
    ShutOff,
    /// QEMU or libvirt ended the copy before it was complete.
    #[error("the copy ended before it was complete")]
    CopyEnded,
    /// The domain has another volume for the disk now than any of the two.
    #[error("the disk is neither its old volume nor its new one, {0}")]
    Exchanged(String),
    /// The new volume cannot be removed, because it is a disk.
    #[error("the new volume {place} stays: it is {other}")]
    NewUsed {
        /// The new volume.
        place: String,
        /// The disk.
        other: String,
    },
    /// The new volume is not as it was made.
    #[error("the new volume {0} is not the one that was made")]
    NotProven(String),
    /// The secret of the new volume is private, and no program has opened the volume with it.
    #[error(
        "nothing has shown that the private secret {secret} opens {place}: the old volume is not \
         erased"
    )]
    NotShown {
        /// The new volume.
        place: String,
        /// Its secret.
        secret: Uuid,
    },
    /// Where the old volume was, there is another one.
    #[error("{0} holds another volume than before: it is not erased")]
    OtherVolume(String),
}

impl RekeyError {
    /// The disk is another volume than the two of the journal.
    pub(super) fn exchanged(journal: &Journal) -> Error {
        Self::Exchanged(journal.new.at.to_string()).into()
    }
}

impl From<RekeyError> for Error {
    fn from(error: RekeyError) -> Self {
        let kind = match &error {
            RekeyError::NoDisk(_) | RekeyError::NotEncrypted(_) | RekeyError::NoPool(_) => {
                Kind::Parameters
            }
            RekeyError::Locked
            | RekeyError::Saved
            | RekeyError::Job
            | RekeyError::Bound(_)
            | RekeyError::AlsoUsed { .. }
            | RekeyError::Unread(_)
            | RekeyError::NotShown { .. }
            | RekeyError::Rotation(_)
            | RekeyError::NewUsed { .. } => Kind::Busy,
            RekeyError::Transient
            | RekeyError::Shareable
            | RekeyError::Backing
            | RekeyError::Beyond(_) => Kind::Unsupported,
            RekeyError::Exists(_) => Kind::Exists,
            RekeyError::OtherSize { .. }
            | RekeyError::ShutOff
            | RekeyError::CopyEnded
            | RekeyError::Exchanged(_)
            | RekeyError::NotProven(_)
            | RekeyError::OtherVolume(_) => Kind::Storage,
        };
        Self::new(kind, error)
    }
}
