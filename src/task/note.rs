//! Facts that a task tells its caller.

use std::fmt;
use std::io;
use std::path::Path;

use luksmith_formats::cipher::{CipherSpec, Weakness};

use super::error::{Error, chain};
use super::size;
use crate::container::Health;
use crate::kdf::calibrate::Cost;
use crate::location::Location;

/// A fact that the user should know. Its `Display` is a sentence that names no option. The command
/// line has texts of its own for some notes.
#[derive(Debug)]
#[non_exhaustive]
pub enum Note<'a> {
    /// A copy of a LUKS2 header is damaged or old.
    Health {
        /// Where the header is stored.
        location: &'a Location,
        /// How its copies were found.
        health: &'a Health,
    },
    /// A copy of a header that was read only for its areas is damaged.
    DamagedCopy {
        /// Where the header is stored.
        location: &'a Location,
    },
    /// A header declares a part of the data to be plaintext.
    PlainData {
        /// Where the data is stored.
        location: &'a Location,
        /// Where the part begins, in bytes.
        offset: u64,
        /// How many bytes it has.
        bytes: u64,
    },
    /// An image has compressed clusters, which are not encrypted.
    Compressed {
        /// Where the image is stored.
        location: &'a Location,
        /// How many bytes the clusters have.
        bytes: u64,
    },
    /// A keyslot is in use, but its area is zero.
    EmptyKeyslot {
        /// Where the volume is stored.
        location: &'a Location,
        /// The number of the keyslot.
        keyslot: u32,
    },
    /// The storage of a header or of data that is to be changed cannot be flushed.
    NoFlush {
        /// Where it is.
        location: &'a Location,
    },
    /// A new raw volume has the name of a qcow2 image.
    RawNamed {
        /// Where it is.
        location: &'a Location,
    },
    /// A volume in Ceph is not one that librbd opens.
    NotLibrbd {
        /// Where it is.
        location: &'a Location,
        /// The stripe period of the image, in bytes.
        period: u64,
    },
    /// The image of a header is a clone: the volumes of both have the same volume key.
    Clone {
        /// Where the header is stored.
        location: &'a Location,
        /// The parent's snapshot.
        parent: &'a str,
    },
    /// The file of a header that may be changed has several names (hard links). The undo record of
    /// an interrupted change is beside the name with which the file was opened for that change.
    Names {
        /// Where the header is stored.
        location: &'a Location,
        /// How many names the file has.
        names: u64,
    },
    /// A LUKS2 header has mandatory requirements: its data cannot be opened here.
    Requirements {
        /// Where the header is stored.
        location: &'a Location,
        /// The requirements, by name.
        requirements: &'a [String],
    },
    /// Volumes with this cipher are only read.
    OnlyRead {
        /// Where the header is stored.
        location: &'a Location,
        /// The cipher.
        cipher: CipherSpec,
        /// Why.
        weakness: Weakness,
    },
    /// The storage ends in the middle of a sector, which is no part of the volume.
    LeftOut {
        /// Where the data is stored.
        location: &'a Location,
        /// How many bytes are left out.
        bytes: u64,
        /// The size of a sector, in bytes.
        sector_size: u32,
    },
    /// The storage ends where the data begins.
    NoData {
        /// Where the data is stored.
        location: &'a Location,
        /// The offset of the data, in bytes.
        offset: u64,
    },
    /// Other programs kept the machine busy while the cost of a new keyslot was measured.
    MeasuredBusy {
        /// The cost.
        cost: Cost,
        /// The part of the time for which the measurement had its processors, from 0 to 1.
        share: f64,
    },
    /// A file that was not finished was removed.
    Removed {
        /// The name that the file would have got.
        name: &'a Path,
    },
    /// A file that was not finished could not be removed.
    Left {
        /// The file.
        path: &'a Path,
        /// Why it could not be removed.
        error: io::Error,
    },
    /// Every user can write to the directory of a socket.
    WritableByAll {
        /// The directory.
        directory: &'a Path,
    },
    /// An object of libvirt is left out of an audit.
    NotAudited {
        /// The object, such as `a secret`.
        what: &'a str,
        /// Why it cannot be read.
        error: &'a (dyn std::error::Error + 'static),
    },
    /// The XML of a domain or a volume of libvirt could not be read, and it is skipped.
    Unread {
        /// The domain or the volume.
        what: &'a str,
        /// Why it could not be read.
        error: &'a dyn std::error::Error,
    },
    /// A volume is skipped, because no secret opens it.
    NoSecret {
        /// The volume.
        volume: &'a str,
    },
    /// A keyslot that an interrupted rotation would remove stays, because nothing proves that it is
    /// still the same.
    KeyslotStays {
        /// The volume.
        volume: &'a str,
        /// The number of the keyslot.
        keyslot: u32,
    },
    /// An encrypted image without a secret could not be tried with a passphrase.
    NotTried {
        /// The image.
        volume: &'a str,
        /// Why it could not be tried.
        error: &'a Error,
    },
    /// The secret of a volume that was erased stays.
    SecretStays {
        /// The secret.
        secret: &'a uuid::Uuid,
        /// Why it was not removed.
        why: &'a str,
    },
    /// The pool does not report that a new volume is encrypted.
    PoolNotEncrypted,
    /// A secret has its old value again, which an interrupted rotation had kept.
    KeptPassphraseRestored,
    /// A rotation that was interrupted is completed.
    RotationGoesOn,
    /// The temporary master key could not be removed from a running QEMU.
    KeyStays {
        /// The id of the key in QEMU.
        id: &'a str,
        /// Why it could not be removed.
        error: &'a (dyn std::error::Error + 'static),
    },
    /// What a failed task had made is removed again.
    TakenBack {
        /// What was removed.
        what: &'a [String],
    },
    /// What a failed task had made could not be removed.
    NotTakenBack {
        /// What is left.
        what: &'a str,
        /// Why it could not be removed.
        error: &'a str,
    },
}

impl Note<'_> {
    /// Whether it is a warning: something may be wrong, or is left to be done.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        match self {
            Self::Removed { .. }
            | Self::RawNamed { .. }
            | Self::NotLibrbd { .. }
            | Self::Clone { .. }
            | Self::SecretStays { .. }
            | Self::PoolNotEncrypted
            | Self::KeptPassphraseRestored
            | Self::RotationGoesOn
            | Self::TakenBack { .. } => false,
            Self::Health { .. }
            | Self::DamagedCopy { .. }
            | Self::PlainData { .. }
            | Self::Compressed { .. }
            | Self::EmptyKeyslot { .. }
            | Self::NoFlush { .. }
            | Self::Names { .. }
            | Self::Requirements { .. }
            | Self::OnlyRead { .. }
            | Self::LeftOut { .. }
            | Self::NoData { .. }
            | Self::MeasuredBusy { .. }
            | Self::Left { .. }
            | Self::WritableByAll { .. }
            | Self::NotAudited { .. }
            | Self::Unread { .. }
            | Self::NoSecret { .. }
            | Self::KeyslotStays { .. }
            | Self::NotTried { .. }
            | Self::KeyStays { .. }
            | Self::NotTakenBack { .. } => true,
        }
    }
}

impl fmt::Display for Note<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Health { location, health } => write!(f, "{location}: {health}"),
            Self::NoFlush { location } => write!(
                f,
                "the server of {location} does not offer to flush: if it fails, changes may be lost \
                 that it had acknowledged, and a change of the header may be left half done"
            ),
            Self::RawNamed { location } => write!(
                f,
                "{location} is a raw volume, in spite of its name: the format is never guessed"
            ),
            Self::NotLibrbd { location, period } => write!(
                f,
                "{location}: librbd, and so an encryption of engine librbd, opens only \
                 aes-xts-plain64, with the header inside and the data at a multiple of {}",
                size::human(*period)
            ),
            Self::Clone { location, parent } => write!(
                f,
                "{location} is a clone of {parent}: a passphrase of either opens the data of both, \
                 since they have the same volume key"
            ),
            Self::Names { location, names } => write!(
                f,
                "{location} has {names} names (hard links): the undo record of an interrupted \
                 change may be beside another one of them"
            ),
            Self::Requirements {
                location,
                requirements,
            } => {
                let names = requirements.join(", ");
                let why = match requirements.iter().any(|name| name.contains("reencrypt")) {
                    true => "a reencryption is not finished, and can be taken up again",
                    false => "the data cannot be opened here",
                };
                write!(f, "{location}: the header requires {names}: {why}")
            }
            Self::OnlyRead {
                location,
                cipher,
                weakness,
            } => write!(
                f,
                "{location}: the cipher {cipher} is weak ({weakness}), so the volume is only read"
            ),
            Self::LeftOut {
                location,
                bytes,
                sector_size,
            } => write!(
                f,
                "{location}: the last {bytes} bytes are not a whole sector of {sector_size} bytes, and \
                 are left out of the volume"
            ),
            Self::NoData { location, offset } => write!(
                f,
                "{location} holds no data: it ends at byte {offset}, where the data begins"
            ),
            Self::MeasuredBusy { cost, share } => write!(
                f,
                "the machine was too busy to measure the cost of the keyslot well (other programs had \
                 {:.0} % of the processors): {cost} may be less than it can do",
                100.0 - share * 100.0
            ),
            Self::Removed { name } => write!(f, "the unfinished {} is removed", name.display()),
            Self::Left { path, error } => {
                write!(
                    f,
                    "the unfinished {} could not be removed: {error}",
                    path.display()
                )
            }
            Self::WritableByAll { directory } => write!(
                f,
                "every user can write to {}: another user could create a socket of this name \
                 first, and get what clients send",
                directory.display()
            ),
            Self::NotAudited { what, error } => write!(f, "cannot audit {what}: {}", chain(*error)),
            Self::DamagedCopy { location } => {
                write!(f, "{location}: one copy of the header is damaged")
            }
            Self::PlainData {
                location,
                offset,
                bytes,
            } => write!(
                f,
                "{location}: the header declares {} from byte {offset} on to be plaintext",
                size::human(*bytes)
            ),
            Self::Compressed { location, bytes } => write!(
                f,
                "{location}: {} of compressed clusters are not encrypted",
                size::human(*bytes)
            ),
            Self::EmptyKeyslot { location, keyslot } => write!(
                f,
                "{location}: keyslot {keyslot} is in use, but its area is empty"
            ),
            Self::Unread { what, error } => write!(f, "{what} is skipped: {error}"),
            Self::NoSecret { volume } => {
                write!(f, "{volume} is skipped: there is no secret that opens it")
            }
            Self::KeyslotStays { volume, keyslot } => write!(
                f,
                "keyslot {keyslot} of {volume} stays: it may have another passphrase than when the \
                 rotation was interrupted"
            ),
            Self::NotTried { volume, error } => write!(
                f,
                "cannot test whether the old passphrase opens {volume}, which has no secret: {}",
                error.line()
            ),
            Self::SecretStays { secret, why } => write!(f, "the secret {secret} stays: {why}"),
            Self::PoolNotEncrypted => f.write_str(
                "the pool does not say that the volume is encrypted, as pools of some types never \
                 do",
            ),
            Self::KeptPassphraseRestored => f.write_str(
                "the secret has its old passphrase again, which an interrupted rotation had kept",
            ),
            Self::RotationGoesOn => f.write_str(
                "the key store keeps the passphrases of a rotation that was interrupted: it is completed",
            ),
            Self::KeyStays { id, error } => {
                write!(
                    f,
                    "the secret {id} could not be removed from QEMU: {}",
                    chain(*error)
                )
            }
            Self::TakenBack { what } => write!(f, "removed again: {}", what.join(", ")),
            Self::NotTakenBack { what, error } => write!(f, "{what} could not be removed: {error}"),
        }
    }
}
