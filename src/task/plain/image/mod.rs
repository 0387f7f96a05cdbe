//! The disk in an unencrypted disk image, as plain data that is only read.
//!
//! The caller states the format. The image is inspected with the default policy first, through the
//! same descriptor, and no reference to another file is followed.

mod blocks;
mod tables;

use std::fmt;

use super::access::PlainAccess;
use crate::backend::IoError;
use crate::backend::file::OpenOptions;
use crate::layout::qcow2::PlainQcow2;
use crate::location::Location;
use crate::task::storage::Storage;
use crate::task::{Advice, Error, Kind, Watch};
use crate::vet::{Format, Policy, Severity, Verdict};

/// A format of disk images that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DiskFormat {
    /// qcow2, version 2 or 3, also with compressed clusters.
    Qcow2,
    /// QED.
    Qed,
    /// VMDK in one sparse file, also with compressed grains.
    Vmdk,
    /// VHD, fixed or dynamic.
    Vhd,
    /// VHDX.
    Vhdx,
    /// VDI, dynamic or static.
    Vdi,
}

impl DiskFormat {
    /// The format, if it is that of a disk image that can be read.
    #[must_use]
    pub fn of(format: Format) -> Option<Self> {
        Some(match format {
            Format::Qcow2 => Self::Qcow2,
            Format::Qed => Self::Qed,
            Format::Vmdk => Self::Vmdk,
            Format::Vhd => Self::Vhd,
            Format::Vhdx => Self::Vhdx,
            Format::Vdi => Self::Vdi,
            _ => return None,
        })
    }

    /// The format that is declared to an inspection.
    #[must_use]
    pub fn declared(self) -> Format {
        match self {
            Self::Qcow2 => Format::Qcow2,
            Self::Qed => Format::Qed,
            Self::Vmdk => Format::Vmdk,
            Self::Vhd => Format::Vhd,
            Self::Vhdx => Format::Vhdx,
            Self::Vdi => Format::Vdi,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.declared().name()
    }
}

impl fmt::Display for DiskFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An opened disk image.
pub struct DiskImage {
    reader: Reader,
}

enum Reader {
    Qcow2(PlainQcow2),
    Blocks(blocks::Blocks),
}

impl DiskImage {
    /// Opens an image at a location.
    ///
    /// # Errors
    /// As [`DiskImage::open`]; a URI over which plaintext would cross the network without TLS,
    /// unless `access` allows that.
    pub fn open_at(
        location: &Location,
        format: DiskFormat,
        access: PlainAccess,
        watch: &dyn Watch,
    ) -> Result<Self, Error> {
        if let Location::Nbd(uri) = location {
            access.check(uri)?;
        }
        let file = OpenOptions::new();
        let storage = Storage::open(location, access.remote, file, watch.interrupt())?;
        Self::open(&storage, format, location)
    }

    /// Inspects an image, and opens the disk in it. `location` is for messages.
    ///
    /// # Errors
    /// [`Kind::Damaged`] for an image that the inspection rejects, [`Kind::Unsupported`] for one
    /// that its default policy does not allow, or that is not read; what the storage reports.
    pub fn open(storage: &Storage, format: DiskFormat, location: &Location) -> Result<Self, Error> {
        inspect(storage, format, location)?;
        let open = match format {
            DiskFormat::Qcow2 => {
                let image = PlainQcow2::open(storage.backend.clone());
                let image = image.map_err(|error| Error::from(error).about(location))?;
                return Ok(Self {
                    reader: Reader::Qcow2(image),
                });
            }
            DiskFormat::Qed => blocks::qed,
            DiskFormat::Vmdk => blocks::vmdk,
            DiskFormat::Vhd => blocks::vhd,
            DiskFormat::Vhdx => blocks::vhdx,
            DiskFormat::Vdi => blocks::vdi,
        };
        let blocks = open(tables::Tables::new(storage.backend.clone()));
        let blocks = blocks.map_err(|error| Error::from(error).about(location))?;
        Ok(Self {
            reader: Reader::Blocks(blocks),
        })
    }

    /// The size of the disk in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.reader {
            Reader::Qcow2(image) => image.size(),
            Reader::Blocks(blocks) => blocks.size(),
        }
    }

    /// Fills `into` with the bytes of the disk from `offset` on. The caller keeps to its size.
    pub(super) fn read_at(&mut self, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        match &mut self.reader {
            Reader::Qcow2(image) => image.read_at(offset, into),
            Reader::Blocks(blocks) => blocks.read_at(offset, into),
        }
    }
}

/// Refuses an image that the inspection does not accept.
fn inspect(storage: &Storage, format: DiskFormat, location: &Location) -> Result<(), Error> {
    let report = crate::vet::inspect(&*storage.backend, format.declared(), &Policy::default());
    let report = report.map_err(|error| Error::from(error).about(location))?;
    let (kind, severity) = match report.verdict() {
        Verdict::Accept => return Ok(()),
        Verdict::Reject => (Kind::Damaged, Severity::Reject),
        Verdict::Policy => (Kind::Unsupported, Severity::Policy),
    };
    let mut findings = report.findings.iter();
    let message = match findings.find(|finding| finding.check.severity == severity) {
        Some(finding) => format!(
            "{location} is not accepted as {format}: {} ({})",
            finding.check.meaning, finding.check.id
        ),
        None => format!("{location} is not accepted as {format}"),
    };
    Err(Error::new(kind, message).advise(Advice::Inspect(format.name())))
}
