//! The one table of the [`Kind`] of each error of the library. Advice is not in it.

mod from;
#[cfg(feature = "fuse")]
mod fuse;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "libvirt")]
mod libvirt;
#[cfg(feature = "nbd")]
mod nbd;
#[cfg(feature = "s3")]
mod objects;
#[cfg(feature = "rbd")]
mod rbd;
mod reencrypt;
mod secret;
mod tags;
mod tokens;
#[cfg(feature = "tpm2")]
mod tpm2;
#[cfg(feature = "vet")]
mod vet;
#[cfg(feature = "vhost-user")]
mod vhost_user;

use std::io;

use luksmith_formats::FormatError;
use luksmith_formats::error::Kind as FormatKind;

use super::Kind;
use super::dm_crypt::DmCryptError;
use crate::backend::IoError;
use crate::backend::file::FileError;
use crate::backend::lock::LockError;
#[cfg(feature = "nbd")]
use crate::backend::nbd::NbdError;
use crate::backend::section::SectionError;
use crate::container::{
    CommitError, CreateError, HeaderError, KeyslotError, OpenError, UndoError, UnlockError,
    VolumeError,
};
use crate::crypt::CryptError;
use crate::kdf::KdfError;
use crate::layout::{ImageError, IntegrityError};
use crate::location::LocationError;
use crate::partition::PartitionError;
use crate::trust::TrustError;
use from::kinds;
use secret::secret;

kinds! {
    FormatError => format,
    KdfError => kdf,
    IoError => io,
    FileError => file,
    LockError => lock,
    OpenError => open,
    UnlockError => unlock,
    VolumeError => volume,
    CreateError => create,
    KeyslotError => keyslot,
    HeaderError => header,
    CommitError => commit,
    ImageError => image,
    LocationError => location,
    PartitionError => partition,
    SectionError => section,
    DmCryptError => dm_crypt,
    TrustError => trust,
}

fn location(error: &LocationError) -> Kind {
    match error {
        LocationError::MissingFeature(_) => Kind::Unsupported,
        _ => Kind::Parameters,
    }
}

fn partition(error: &PartitionError) -> Kind {
    match error {
        PartitionError::NoSuch { .. } | PartitionError::Extended(_) => Kind::Parameters,
        PartitionError::Io(error) => io(error),
        _ => Kind::Damaged,
    }
}

fn dm_crypt(error: &DmCryptError) -> Kind {
    match error {
        DmCryptError::NoBlockDevice | DmCryptError::Unaligned | DmCryptError::NoKeySize => {
            Kind::Unsupported
        }
        DmCryptError::Name(_) => Kind::Parameters,
        DmCryptError::Uuid => Kind::Damaged,
        DmCryptError::Keyring(error) | DmCryptError::NoDmsetup(error) => Kind::of_io(error),
        DmCryptError::Dmsetup(_) => Kind::Storage,
    }
}

fn section(_: &SectionError) -> Kind {
    Kind::Parameters
}

fn format(error: &FormatError) -> Kind {
    match error.kind {
        FormatKind::Malformed => Kind::Damaged,
        FormatKind::OverLimit => Kind::OverLimit,
        _ => Kind::Unsupported,
    }
}

fn kdf(error: &KdfError) -> Kind {
    match error {
        KdfError::OverLimit(error) => format(error),
        KdfError::Interrupted => Kind::Interrupted,
        KdfError::MissingFeature(_) => Kind::Unsupported,
        KdfError::Parameters { .. } => Kind::Parameters,
        KdfError::Material { .. } => Kind::Damaged,
        KdfError::Random(error) => secret(error),
        KdfError::Memory { .. } | KdfError::Lock(_) | KdfError::Thread(_) => Kind::Memory,
    }
}

fn crypt(error: &CryptError) -> Kind {
    match error {
        CryptError::Lock(_) => Kind::Memory,
        _ => Kind::Unsupported,
    }
}

fn io(error: &IoError) -> Kind {
    match error {
        IoError::ReadOnly(_) => Kind::Permission,
        IoError::NoSpace { .. } | IoError::TooLarge { .. } => Kind::NoSpace,
        IoError::Plaintext { .. } | IoError::Unsupported(_) | IoError::MissingFeature(_) => {
            Kind::Unsupported
        }
        IoError::Image { .. } => Kind::Damaged,
        IoError::Altered { .. } | IoError::TagMismatch { .. } => Kind::NotTrusted,
        IoError::LockLost(_) => Kind::Busy,
        #[cfg(feature = "nbd")]
        IoError::Failed { source, .. } if NbdError::is_interrupt(source) => Kind::Interrupted,
        IoError::Failed { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            Kind::Permission
        }
        IoError::Failed { .. }
        | IoError::OutOfRange { .. }
        | IoError::Unaligned { .. }
        | IoError::SourceLost { .. } => Kind::Storage,
    }
}

fn file(error: &FileError) -> Kind {
    match error {
        FileError::PermissionDenied(_) | FileError::ForeignLink { .. } => Kind::Permission,
        FileError::Exists(_) => Kind::Exists,
        FileError::Busy { .. } => Kind::Busy,
        FileError::UnlockedWrite(_) => Kind::Parameters,
        FileError::NoDirect(_) => Kind::Unsupported,
        _ => Kind::Storage,
    }
}

fn lock(error: &LockError) -> Kind {
    match error {
        LockError::Busy(_) => Kind::Busy,
        _ => Kind::Storage,
    }
}

fn open(error: &OpenError) -> Kind {
    match error {
        OpenError::Header(error) => format(error),
        OpenError::NoUndo { .. } => Kind::Parameters,
        OpenError::Io(error) => io(error),
        OpenError::Undo(_) => Kind::Storage,
        OpenError::Trust(error) => trust(error),
        OpenError::NotUnderstood(_) | OpenError::CloneInCeph => Kind::Unsupported,
        OpenError::NotLuks
        | OpenError::Remains(_)
        | OpenError::BothCopies { .. }
        | OpenError::TooSmall { .. }
        | OpenError::Interrupted { .. } => Kind::Damaged,
    }
}

fn unlock(error: &UnlockError) -> Kind {
    match error {
        UnlockError::WrongPassphrase | UnlockError::NoKeyslots | UnlockError::OnlyIgnored => {
            Kind::WrongPassphrase
        }
        UnlockError::NoSuchKeyslot(_) => Kind::Parameters,
        UnlockError::Kdf { source, .. } => kdf(source),
        UnlockError::Memory(_) => Kind::Memory,
        UnlockError::Crypt(error) => crypt(error),
        UnlockError::Io(error) => io(error),
        UnlockError::Unsupported { .. } => Kind::Unsupported,
        UnlockError::Trust(error) => trust(error),
    }
}

fn volume(error: &VolumeError) -> Kind {
    match error {
        VolumeError::WrongKey => Kind::WrongPassphrase,
        VolumeError::Detached => Kind::Parameters,
        VolumeError::Unsupported(_) => Kind::Unsupported,
        VolumeError::TooSmall { .. } => Kind::Damaged,
        VolumeError::Kdf(error) => kdf(error),
        VolumeError::Crypt(error) => crypt(error),
        VolumeError::Io(error) => io(error),
        VolumeError::Integrity(error) => integrity(error),
        VolumeError::Trust(error) => trust(error),
    }
}

fn integrity(error: &IntegrityError) -> Kind {
    match error {
        IntegrityError::Superblock(error) => format(error),
        IntegrityError::Mismatch { .. } => Kind::Damaged,
        IntegrityError::Journal { .. } => Kind::Unsupported,
        IntegrityError::Io(error) => io(error),
    }
}

fn create(error: &CreateError) -> Kind {
    match error {
        CreateError::Option { .. } | CreateError::Cipher(_) | CreateError::Header(_) => {
            Kind::Parameters
        }
        CreateError::TooSmall { .. } => Kind::Storage,
        CreateError::Keyslot(error) => keyslot(error),
        CreateError::Secret(error) => secret(error),
        CreateError::Commit(error) => commit(error),
    }
}

fn keyslot(error: &KeyslotError) -> Kind {
    match error {
        KeyslotError::AllInUse(_) | KeyslotError::InUse(_) => Kind::Exists,
        KeyslotError::Replaced(_) => Kind::Busy,
        KeyslotError::NoRoom { .. } => Kind::NoSpace,
        KeyslotError::WrongKey => Kind::WrongPassphrase,
        KeyslotError::OutOfRange { .. }
        | KeyslotError::Cost(_)
        | KeyslotError::NotInUse(_)
        | KeyslotError::Last(_)
        | KeyslotError::Unsupported(_) => Kind::Parameters,
        KeyslotError::Requirements(_) | KeyslotError::Header(_) => Kind::Unsupported,
        KeyslotError::Kdf(error) => kdf(error),
        KeyslotError::Secret(error) => secret(error),
        KeyslotError::Memory(_) => Kind::Memory,
        KeyslotError::Crypt(error) => crypt(error),
        KeyslotError::Commit(error) => commit(error),
    }
}

fn header(error: &HeaderError) -> Kind {
    match error {
        HeaderError::OtherUuid { .. }
        | HeaderError::OtherKey
        | HeaderError::SectorSize(_)
        | HeaderError::InTheWay { .. }
        | HeaderError::Behind { .. }
        | HeaderError::Unsupported(_)
        | HeaderError::Header(_)
        | HeaderError::NoSuchToken(_) => Kind::Parameters,
        HeaderError::TokenExists(_) | HeaderError::TokensFull => Kind::Exists,
        HeaderError::Backup(_) | HeaderError::Mismatch(_) => Kind::Damaged,
        HeaderError::Requirements(_) | HeaderError::NotUnderstood(_) | HeaderError::Cipher(_) => {
            Kind::Unsupported
        }
        HeaderError::Secret(error) => secret(error),
        HeaderError::Open(error) => open(error),
        HeaderError::Io(error) => io(error),
        HeaderError::Commit(error) => commit(error),
    }
}

fn commit(error: &CommitError) -> Kind {
    match error {
        CommitError::Changed | CommitError::InUse => Kind::Busy,
        CommitError::NeedsUndo => Kind::Parameters,
        CommitError::Secret(error) => secret(error),
        CommitError::Io(error)
        | CommitError::NoRoom(error)
        | CommitError::RolledBack(error)
        | CommitError::Undo(UndoError::Storage(error)) => io(error),
        CommitError::Undo(error) => undo(error),
        CommitError::Header(_) | CommitError::Sequence => Kind::Unsupported,
        CommitError::Foreign(_) | CommitError::NotKept { .. } => Kind::Storage,
        CommitError::Trust(error) => trust(error),
    }
}

fn undo(error: &UndoError) -> Kind {
    match error {
        UndoError::NoRecord { .. } | UndoError::Room { .. } => Kind::Parameters,
        UndoError::Damaged { .. }
        | UndoError::OtherImage { .. }
        | UndoError::Outside { .. }
        | UndoError::Changed { .. }
        | UndoError::NoHashes { .. }
        | UndoError::NoHeader { .. } => Kind::Damaged,
        UndoError::Storage(error) => io(error),
        UndoError::Read(_) | UndoError::Store(_) => Kind::Storage,
    }
}

fn image(error: &ImageError) -> Kind {
    match error {
        ImageError::Size(_) => Kind::Parameters,
        ImageError::Header(error) if error.kind == FormatKind::Malformed => Kind::Damaged,
        ImageError::NotQcow2 | ImageError::NeedsRepair(_) => Kind::Damaged,
        ImageError::BackingFile
        | ImageError::DataFile
        | ImageError::NotEncrypted
        | ImageError::Encrypted
        | ImageError::Bitmaps
        | ImageError::Header(_) => Kind::Unsupported,
        ImageError::Io(error) => io(error),
    }
}

fn trust(error: &TrustError) -> Kind {
    match error {
        TrustError::NotKnown { .. }
        | TrustError::OtherVolume { .. }
        | TrustError::Elsewhere { .. }
        | TrustError::Changed(_)
        | TrustError::OtherKey => Kind::NotTrusted,
        TrustError::NotKept(_) | TrustError::Uuid => Kind::Parameters,
        TrustError::Pinned { .. } => Kind::Exists,
        TrustError::Busy { .. } => Kind::Busy,
        TrustError::Damaged { .. } => Kind::Damaged,
        TrustError::Dir { source, .. } => Kind::of_io(source),
        TrustError::Io(error) => io(error),
        TrustError::Memory(_) => Kind::Memory,
    }
}
