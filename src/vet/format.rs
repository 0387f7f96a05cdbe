//! The properties of an image: its format, the features that it uses, and its encryption.

use serde::Deserialize;

/// The format that an image is declared to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// The bytes of a disk, without any structure of an image format.
    Raw,
    /// qcow2, version 2 or 3.
    Qcow2,
    /// QED.
    Qed,
    /// VMDK: a sparse or stream-optimised file, or only a descriptor.
    Vmdk,
    /// VHD, fixed or dynamic.
    Vhd,
    /// VHDX.
    Vhdx,
    /// VDI.
    Vdi,
    /// An ISO 9660 disc.
    Iso,
    /// A raw disk with a GPT.
    Gpt,
    /// A raw disk with an MBR and no GPT.
    Mbr,
    /// LUKS of either version.
    Luks,
    /// LUKS1.
    Luks1,
    /// LUKS2.
    Luks2,
    /// A UDF volume without ISO 9660.
    Udf,
}

impl Format {
    /// All formats. A new one is at the end, since saved inputs of the fuzz target count them.
    pub const ALL: [Self; 14] = [
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
        Self::Udf,
    ];

    /// Its name on the command line and in policies.
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
            Self::Udf => "udf",
        }
    }

    /// The format with this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The name of the signature that an image of this format must have. A raw image has none.
    pub(super) fn signature(self) -> Option<&'static str> {
        match self {
            Self::Raw => None,
            Self::Luks1 | Self::Luks2 => Some("luks"),
            other => Some(other.name()),
        }
    }
}

/// A feature that an image can use, and that a policy can allow or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Feature {
    /// Snapshots in the image.
    Snapshots,
    /// Bitmaps of changed blocks in the image.
    Bitmaps,
    /// Compressed clusters.
    Compression,
    /// L2 entries with subclusters.
    ExtendedL2,
    /// Refcounts that are written later than the data.
    LazyRefcounts,
    /// The image was not closed properly.
    Dirty,
    /// An MBR with further entries beside the one that protects the GPT.
    HybridMbr,
    /// Data in other files in the same folder.
    ExtentFiles,
    /// The size at creation differs from the current size.
    Resized,
}

impl Feature {
    /// All features.
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

    /// Its name in reports and policies.
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

    /// Whether the default policy allows it.
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
    /// The image does not encrypt it.
    #[default]
    None,
    /// LUKS1, also in qcow2.
    Luks1,
    /// LUKS2.
    Luks2,
    /// AES-CBC with predictable IVs, as in old qcow and qcow2 images.
    LegacyAes,
}

impl Encryption {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Luks1 => "luks1",
            Self::Luks2 => "luks2",
            Self::LegacyAes => "legacy-aes",
        }
    }
}
