//! What an image is: its format, the features that it uses, and how its data is encrypted.

use serde::Deserialize;

/// What an image is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// The bytes of a disk as they are.
    Raw,
    /// qcow2, version 2 or 3.
    Qcow2,
    /// QED.
    Qed,
    /// VMDK: a sparse or stream-optimised file, or a descriptor alone.
    Vmdk,
    /// VHD, fixed or dynamic.
    Vhd,
    /// VHDX.
    Vhdx,
    /// VDI.
    Vdi,
    /// An ISO 9660 disc.
    Iso,
    /// The bytes of a disk with a GPT.
    Gpt,
    /// The bytes of a disk with an MBR and no GPT.
    Mbr,
    /// LUKS of either version.
    Luks,
    /// LUKS1.
    Luks1,
    /// LUKS2.
    Luks2,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Raw,
        Self::Qcow2,
        Self::Qed,
        Self::Vmdk,
        Self::Vhd,
        Self::Vhdx,
        Self::Vdi,
        Self::Iso,
        Self::Gpt,
        Self::Mbr,
        Self::Luks,
        Self::Luks1,
        Self::Luks2,
    ];

    /// Its name, as the command line and policies spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Qed => "qed",
            Self::Vmdk => "vmdk",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
            Self::Vdi => "vdi",
            Self::Iso => "iso",
            Self::Gpt => "gpt",
            Self::Mbr => "mbr",
            Self::Luks => "luks",
            Self::Luks1 => "luks1",
            Self::Luks2 => "luks2",
        }
    }

    /// The format by its name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The signature that such an image must have; a raw image has none.
    pub(super) fn signature(self) -> Option<&'static str> {
        match self {
            Self::Raw => None,
            Self::Luks1 | Self::Luks2 => Some("luks"),
            other => Some(other.name()),
        }
    }
}

/// Something that an image can make use of, and that a policy can allow or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Feature {
    /// Snapshots inside of the image.
    Snapshots,
    /// Bitmaps of changed blocks inside of the image.
    Bitmaps,
    /// Compressed clusters.
    Compression,
    /// L2 entries with subclusters.
    ExtendedL2,
    /// Refcounts that are written late.
    LazyRefcounts,
    /// It was not closed properly.
    Dirty,
    /// An MBR with partitions of its own beside the one that protects the GPT.
    HybridMbr,
    /// Its data is in other files beside it.
    ExtentFiles,
    /// It was made with another size than it has.
    Resized,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Snapshots,
        Self::Bitmaps,
        Self::Compression,
        Self::ExtendedL2,
        Self::LazyRefcounts,
        Self::Dirty,
        Self::HybridMbr,
        Self::ExtentFiles,
        Self::Resized,
    ];

    /// Its name, as reports and policies spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Snapshots => "snapshots",
            Self::Bitmaps => "bitmaps",
            Self::Compression => "compression",
            Self::ExtendedL2 => "extended-l2",
            Self::LazyRefcounts => "lazy-refcounts",
            Self::Dirty => "dirty",
            Self::HybridMbr => "hybrid-mbr",
            Self::ExtentFiles => "extent-files",
            Self::Resized => "resized",
        }
    }

    /// Whether the default allows it.
    pub(super) fn is_common(self) -> bool {
        !matches!(
            self,
            Self::Dirty | Self::HybridMbr | Self::ExtentFiles | Self::Resized
        )
    }
}

/// How the guest's data is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Encryption {
    /// Not by the image.
    #[default]
    None,
    /// LUKS1, or LUKS1 inside of qcow2.
    Luks1,
    /// LUKS2.
    Luks2,
    /// The broken AES-CBC of old qcow and qcow2.
    LegacyAes,
}

impl Encryption {
    /// Its name, as reports spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Luks1 => "luks1",
            Self::Luks2 => "luks2",
            Self::LegacyAes => "legacy-aes",
        }
    }
}
