//! Why a secret is not rotated.

use uuid::Uuid;

use crate::task::{Error, Kind};

/// Why a secret is not rotated, besides the errors of libvirt, of QEMU and of the container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RotateError {
    /// A domain, an image or a pool has no encrypted volume.
    #[error("{0} has no encrypted volume that libvirt knows")]
    NoVolume(String),
    /// None of the selected volumes has a secret.
    #[error("there is nothing to rotate")]
    Nothing,
    /// One new passphrase is given for several secrets.
    #[error("one new passphrase was given, and several secrets would have it")]
    OneForSeveral,
    /// Another process rotates the secret.
    #[error("another luksmith rotates this secret")]
    Locked,
    /// The journal of an interrupted rotation lists other volumes than the secret has now.
    #[error("an interrupted rotation of this secret was of other volumes: {0}")]
    OtherVolumes(String),
    /// Other secrets are for the volume too, and have the same value.
    #[error(
        "other secrets open {place} with the same passphrase, and would not open it after this \
         rotation: {secrets}"
    )]
    SharesPassphrase {
        /// The other secrets.
        secrets: String,
        /// The volume.
        place: String,
    },
    /// Another secret is for the volume too, and is private.
    #[error("the secret {secret} is private, and may open {place} with the same passphrase")]
    MaySharePassphrase {
        /// The other secret.
        secret: Uuid,
        /// The volume.
        place: String,
    },
    /// The passphrase opens images for which there is no secret, such as copies of the volume.
    #[error("the passphrase also opens {0}, for which there is no secret")]
    OpensStranger(String),
    /// Another rotation of the secret was interrupted, and its journal is elsewhere.
    #[error("the secret {0} keeps a passphrase of another rotation, whose journal is not here")]
    OtherJournal(Uuid),
    /// The value of the secret opens no keyslot of this volume.
    #[error("the secret does not open {0}")]
    DoesNotOpen(String),
    /// The new passphrase is the present one.
    #[error("the new passphrase is the one that the secret has")]
    SamePassphrase,
    /// The new passphrase is not text.
    #[error(
        "QEMU cannot open a volume with the new passphrase: it is not text (UTF-8 without NUL)"
    )]
    NotText,
    /// A keyslot that was made for the new passphrase does not open.
    #[error("keyslot {slot} of {place} does not open with the new passphrase")]
    NotProven {
        /// The number of the keyslot.
        slot: u32,
        /// The volume.
        place: String,
    },
    /// All keyslots of the volume are in use.
    #[error("no keyslot is free for the new passphrase")]
    NoKeyslot,
    /// The header is not where luksmith could change it.
    #[error("{0}")]
    Beyond(&'static str),
    /// A running domain has the volume open in a way that luksmith does not change.
    #[error("a domain runs: {0}")]
    Held(&'static str),
    /// The volume is on storage that this library does not open.
    #[error("{0} cannot be opened here")]
    Elsewhere(String),
    /// More than one running domain has the volume open.
    #[error("several running domains have {0} open")]
    SeveralDomains(String),
    /// A running domain has the volume open, and its QEMU reports no LUKS node on it.
    #[error("a domain has {0} open, and its QEMU shows no LUKS node for it")]
    NoNode(String),
    /// QEMU opened a header with another UUID.
    #[error("{0} has another LUKS header than the domain's QEMU opened")]
    OtherHeader(String),
    /// The header has changed since QEMU read it.
    #[error(
        "the keyslots of {0} were changed since the domain's QEMU read them, and it would write the \
         old ones back"
    )]
    Outdated(String),
    /// The volume, which has to be changed while QEMU has it open, is not on this host.
    #[error("is not a file or device of this host")]
    NotHere,
}

impl From<RotateError> for Error {
    fn from(error: RotateError) -> Self {
        let kind = match &error {
            RotateError::OneForSeveral | RotateError::SamePassphrase | RotateError::NotText => {
                Kind::Parameters
            }
            RotateError::DoesNotOpen(_) => Kind::WrongPassphrase,
            RotateError::Locked
            | RotateError::Held(_)
            | RotateError::SeveralDomains(_)
            | RotateError::NoNode(_)
            | RotateError::Outdated(_)
            | RotateError::NotHere => Kind::Busy,
            RotateError::NoKeyslot
            | RotateError::SharesPassphrase { .. }
            | RotateError::MaySharePassphrase { .. }
            | RotateError::OpensStranger(_)
            | RotateError::OtherJournal(_) => Kind::Exists,
            RotateError::Beyond(_) | RotateError::Elsewhere(_) => Kind::Unsupported,
            RotateError::NoVolume(_)
            | RotateError::Nothing
            | RotateError::OtherVolumes(_)
            | RotateError::NotProven { .. }
            | RotateError::OtherHeader(_) => Kind::Storage,
        };
        Self::new(kind, error)
    }
}
