//! A LUKS header on its storage: opening, unlocking, and all changes of keyslots and metadata.
//!
//! A [`Container`] is an opened header that is still locked. The header is read and validated once,
//! and that copy is used from then on. Every change is computed from that copy as a [`WritePlan`].
//! The commit is optimistic: it fails if the header on the storage has changed since it was read.
//! This module never touches the data of a volume; [`Container::volume`] makes the
//! [`Volume`](crate::volume::Volume) that does.

mod authenticated;
mod backup;
mod convert;
mod create;
mod digest;
mod error;
mod foreign;
mod gap;
mod keyslot_info;
mod keyslots;
mod mark;
mod material;
mod mend;
mod open;
mod overlay;
mod pinned;
mod plan;
mod reencryption;
mod remains;
mod rewrite;
mod settings;
mod tagged;
mod undo;
mod undo_file;
mod unlock;

use std::fmt;
use std::sync::Arc;

use luksmith_formats::{FormatError, Limits, luks1, luks2};

pub use luksmith_formats::Version;

pub use backup::{Repaired, RestoreOptions};
pub use create::{CreateOptions, Layout};
pub use error::{
    CommitError, CreateError, HeaderError, KeyslotError, OpenError, UndoError, UnlockError,
    VolumeError,
};
pub(crate) use foreign::signature as other_data;
pub use keyslot_info::{KeyslotInfo, Sealing};
pub use keyslots::NewKeyslot;
pub use mark::KeyslotMark;
pub use mend::{Doubt, Mend};
pub use plan::{Step, WritePlan};
pub(crate) use reencryption::FollowingKey;
pub use reencryption::{
    BeginEncryption, BeginReencryption, MatchedKeyslots, PreparedReencryption, ReencryptionError,
    ReencryptionKeys,
};
pub use remains::Remains;
pub use settings::Configure;
pub use undo::{Kept, Settled, Undo, UndoStore, Unproven};
pub(crate) use undo::{ROOM_MAGIC, discard as discard_undo};
pub use undo_file::UndoFile;
pub use unlock::{Unlocked, Which};

use crate::backend::Backend;
use crate::secret::VolumeName;
use crate::trust::{Checked, Trust};

/// A validated header of either version.
#[derive(Clone, Debug)]
pub enum Header {
    /// A LUKS1 header.
    Luks1(luks1::Header),
    /// The newer valid copy of a LUKS2 header.
    Luks2(luks2::Header),
}

/// The state of the two copies of a LUKS2 header. LUKS1 has one copy, which is [`Health::Good`] or
/// does not open.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Health {
    /// All copies are valid and agree.
    Good,
    /// The primary copy is not valid. The secondary one is used.
    PrimaryDamaged(FormatError),
    /// The secondary copy is not valid. The primary one is used.
    SecondaryDamaged(FormatError),
    /// Both copies are valid and the primary is older, since a write was interrupted. The secondary
    /// one is used.
    PrimaryStale,
    /// Both copies are valid and the secondary is older, since a write was interrupted. The primary
    /// one is used.
    SecondaryStale,
    /// Both copies are valid and have the same sequence number, but not the same content. The
    /// primary one is used.
    CopiesDiffer,
}

impl Health {
    /// A short name, such as `primary damaged`, for programs that read it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::PrimaryDamaged(_) => "primary damaged",
            Self::SecondaryDamaged(_) => "secondary damaged",
            Self::PrimaryStale => "primary stale",
            Self::SecondaryStale => "secondary stale",
            Self::CopiesDiffer => "copies differ",
        }
    }

    /// What is wrong with the copy that is not used, if one is damaged.
    #[must_use]
    pub fn damage(&self) -> Option<&FormatError> {
        match self {
            Self::PrimaryDamaged(error) | Self::SecondaryDamaged(error) => Some(error),
            Self::Good | Self::PrimaryStale | Self::SecondaryStale | Self::CopiesDiffer => None,
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good => f.write_str("good"),
            Self::PrimaryDamaged(error) => {
                write!(
                    f,
                    "the primary copy is damaged ({error}); the secondary one is used"
                )
            }
            Self::SecondaryDamaged(error) => {
                write!(
                    f,
                    "the secondary copy is damaged ({error}); the primary one is used"
                )
            }
            Self::PrimaryStale => f.write_str(
                "the primary copy is older: a change was interrupted; the secondary one is used",
            ),
            Self::SecondaryStale => f.write_str(
                "the secondary copy is older: a change was interrupted; the primary one is used",
            ),
            Self::CopiesDiffer => {
                f.write_str("the copies differ, and neither is older; the primary one is used")
            }
        }
    }
}

/// How a container is opened or created. There is no default, since the caller has to say where an
/// undo record may be. Without [`trust`](Self::trust) the header is compared with no pin.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    limits: Limits,
    undo: Undo,
    trust: Trust,
    beside: bool,
}

impl OpenOptions {
    /// Options with the default [`Limits`], for a volume that no other program has open.
    #[must_use]
    pub fn new(undo: Undo) -> Self {
        Self {
            limits: Limits::default(),
            undo,
            trust: Trust::NotLookedFor,
            beside: false,
        }
    }

    /// Sets the limits on what the header may ask for.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets whether the header is compared with a pin when it is opened, before any key derivation
    /// runs. The pin then changes with the header. A container that is created has no pin.
    #[must_use]
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// Sets whether another program has the volume open on the same storage, and may read the
    /// header at any moment. A change that reaches the data, or that needs an undo record, is then
    /// refused with [`CommitError::InUse`].
    #[must_use]
    pub fn beside(mut self, beside: bool) -> Self {
        self.beside = beside;
        self
    }
}

/// The SHA-256 of the bytes of the header on the storage.
type Fingerprint = [u8; 32];

/// An opened, locked LUKS header.
pub struct Container {
    storage: Arc<dyn Backend>,
    options: OpenOptions,
    header: Header,
    health: Health,
    /// The fingerprint of the header bytes that were read or written last. A change is made only if
    /// the storage still has these.
    fingerprint: Fingerprint,
    /// The pin, if there is one.
    pin: Option<Checked>,
}

impl fmt::Debug for Container {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Container")
            .field("header", &self.header)
            .field("health", &self.health)
            .finish()
    }
}

impl Container {
    /// The validated header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The version of the format.
    #[must_use]
    pub fn version(&self) -> Version {
        match &self.header {
            Header::Luks1(_) => Version::Luks1,
            Header::Luks2(_) => Version::Luks2,
        }
    }

    /// The state of the copies of the header.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// The volume's UUID, as it is written in the header.
    #[must_use]
    pub fn uuid(&self) -> &str {
        match &self.header {
            Header::Luks1(header) => &header.uuid,
            Header::Luks2(header) => &header.uuid,
        }
    }

    /// The UUID and the label, for a source of its passphrases.
    #[must_use]
    pub fn volume_name(&self) -> VolumeName<'_> {
        let label = match &self.header {
            Header::Luks1(_) => "",
            Header::Luks2(header) => &header.label,
        };
        VolumeName::new(self.uuid(), label)
    }

    /// What of the header is not supported or not understood: it is kept, but the volume or a
    /// keyslot cannot be opened. Empty for a header that can be used as a whole.
    #[must_use]
    pub fn not_supported(&self) -> Vec<FormatError> {
        match &self.header {
            Header::Luks1(header) => header.check_usable().err().into_iter().collect(),
            Header::Luks2(header) => header.metadata.not_understood().cloned().collect(),
        }
    }

    /// The mandatory requirements of a LUKS2 header, by name.
    #[must_use]
    pub fn requirements(&self) -> Vec<String> {
        match &self.header {
            Header::Luks1(_) => Vec::new(),
            Header::Luks2(header) => header.metadata.config().requirements.clone(),
        }
    }
}
