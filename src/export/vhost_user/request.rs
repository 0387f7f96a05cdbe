//! One request of a guest: a chain of descriptors, what it asks for, and doing it (section 5.2.6 of
//! the VIRTIO specification).
//!
//! The readable bytes of a chain begin with the header, and the last writable byte is the status,
//! however the descriptors divide them.

use std::ops::Range;

use virtio_queue::DescriptorChain;

use super::device::{Device, MAX_RANGE_SECTORS, MAX_RANGES, SECTOR};
use super::memory::{Map, Memory, NotThere, Segment, total};
use crate::backend::{IoError, Operation};
use crate::export::Export;
use crate::volume::Windows;

const HEADER: usize = 16;
/// A range of a request to discard or zero: the first sector, the number of sectors, and flags.
const RANGE: usize = 16;

/// The length of the name that a device has, in bytes.
const NAME: usize = 20;

/// A chain of descriptors whose form is right.
#[derive(Debug)]
pub(super) struct Chain {
    /// What the guest wrote for the device.
    readable: Vec<Segment>,
    /// Where the device writes.
    writable: Vec<Segment>,
}

/// What is wrong with a chain, or with its ring. The guest cannot be told, since there may be no
/// place for a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("a chain of descriptors has no end, or refers to what is not there")]
    Endless,
    #[error("a chain has a readable descriptor after a writable one")]
    Order,
    #[error("a request has no header")]
    NoHeader,
    #[error("a request has no place for its status")]
    NoStatus,
    #[error("the index of a ring is not possible")]
    Index,
    #[error("the client has taken memory of the guest away")]
    Lost,
    #[error("the event that announces requests does not work")]
    Kick,
}

/// How a request ended, as the guest sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok = 0,
    Failed = 1,
    Unsupported = 2,
}

impl From<NotThere> for Status {
    fn from(_: NotThere) -> Self {
        Self::Failed
    }
}

impl From<IoError> for Status {
    fn from(error: IoError) -> Self {
        match error {
            IoError::Unsupported(_) => Self::Unsupported,
            _ => Self::Failed,
        }
    }
}

impl Chain {
    /// Follows the descriptors. The iterator ends early where they are not valid, which the last
    /// one that it gave shows.
    pub(super) fn collect(mut descriptors: DescriptorChain<&Map>) -> Result<Self, Broken> {
        let mut chain = Self {
            readable: Vec::new(),
            writable: Vec::new(),
        };
        let mut more = true;
        for descriptor in descriptors.by_ref() {
            let segment = Segment {
                address: descriptor.addr().0,
                len: descriptor.len(),
            };
            if descriptor.is_write_only() {
                chain.writable.push(segment);
            } else if chain.writable.is_empty() {
                chain.readable.push(segment);
            } else {
                return Err(Broken::Order);
            }
            more = descriptor.has_next();
        }
        match more {
            true => Err(Broken::Endless),
            false => Ok(chain),
        }
    }

    /// The number of bytes in all of its descriptors.
    pub(super) fn len(&self) -> u64 {
        total(&self.readable) + total(&self.writable)
    }

    /// What the chain asks for.
    pub(super) fn parse(&self, memory: &Memory) -> Result<Request, Broken> {
        if total(&self.writable) == 0 {
            return Err(Broken::NoStatus);
        }
        let mut header = [0; HEADER];
        let read = memory.copy_out(&self.readable, 0, &mut header);
        read.map_err(|NotThere| Broken::NoHeader)?;
        let [a, b, c, d, _, _, _, _, sector @ ..] = header;
        Ok(Request {
            kind: Kind::of(u32::from_le_bytes([a, b, c, d])),
            sector: u64::from_le_bytes(sector),
        })
    }

    /// Does what `request` asks for, and writes the status. Returns the number of bytes that the
    /// guest gets.
    pub(super) fn execute(
        &self,
        request: Request,
        device: &Device,
        memory: &Memory,
        writethrough: bool,
    ) -> Result<u32, Broken> {
        let outcome = match request.kind {
            Kind::Read => self.read(request.sector, &device.export, memory),
            Kind::Write => self.write(request.sector, &device.export, memory),
            Kind::Flush => device.export.flush().map_err(Status::from),
            Kind::Name => self.name(&device.export, memory),
            Kind::Discard => self.ranges(memory, 0, |range| device.export.discard(range)),
            // A guest may allow that the range is freed. It never is.
            Kind::WriteZeroes => self.ranges(memory, 1, |range| device.export.write_zeroes(range)),
            Kind::Unknown => Err(Status::Unsupported),
        };
        let outcome = match (outcome, request.kind.changes() && writethrough) {
            (Ok(()), true) => device.export.flush().map_err(Status::from),
            (outcome, _) => outcome,
        };
        let (status, len) = match outcome {
            Ok(()) => (Status::Ok, total(&self.writable)),
            Err(status) => (status, 1),
        };
        let last = total(&self.writable).saturating_sub(1);
        let told = memory.copy_in(&self.writable, last, &[status as u8]);
        told.map_err(|NotThere| Broken::NoStatus)?;
        Ok(u32::try_from(len).unwrap_or(u32::MAX))
    }

    fn read(&self, sector: u64, export: &Export, memory: &Memory) -> Result<(), Status> {
        let len = total(&self.writable).saturating_sub(1);
        let (offset, len) = checked(export, Operation::Read, sector, len)?;
        let windows = memory.windows(&self.writable, 0, len)?;
        Ok(export.read_into(offset, Windows::new(&windows))?)
    }

    fn write(&self, sector: u64, export: &Export, memory: &Memory) -> Result<(), Status> {
        let len = total(&self.readable).saturating_sub(HEADER as u64);
        let (offset, len) = checked(export, Operation::Write, sector, len)?;
        let windows = memory.windows(&self.readable, HEADER as u64, len)?;
        Ok(export.write_from(offset, Windows::new(&windows))?)
    }

    /// Tells the name of the export, which a guest shows as the serial number of the disk.
    fn name(&self, export: &Export, memory: &Memory) -> Result<(), Status> {
        let name = match export.name() {
            "" => "luksmith",
            name => name,
        };
        let mut bytes = [0; NAME];
        for (into, byte) in bytes.iter_mut().zip(name.bytes()) {
            *into = byte;
        }
        let room = total(&self.writable).saturating_sub(1);
        if room < NAME as u64 {
            return Err(Status::Failed);
        }
        Ok(memory.copy_in(&self.writable, 0, &bytes)?)
    }

    /// Calls `change` for each range of the request. `allowed` has the flags that a range can have.
    fn ranges(
        &self,
        memory: &Memory,
        allowed: u32,
        change: impl Fn(Range<u64>) -> Result<(), IoError>,
    ) -> Result<(), Status> {
        let len = total(&self.readable).saturating_sub(HEADER as u64);
        let range_len = RANGE as u64;
        let count = len / range_len;
        if !len.is_multiple_of(range_len) || count == 0 || count > u64::from(MAX_RANGES) {
            return Err(Status::Failed);
        }
        for number in 0..count {
            let mut range = [0; RANGE];
            let at = HEADER as u64 + number * range_len;
            memory.copy_out(&self.readable, at, &mut range)?;
            let [a, b, c, d, e, f, g, h, i, j, k, l, flags @ ..] = range;
            let first = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
            let sectors = u32::from_le_bytes([i, j, k, l]);
            if u32::from_le_bytes(flags) & !allowed != 0 {
                return Err(Status::Unsupported);
            }
            let start = first.checked_mul(SECTOR);
            let end = start.and_then(|start| start.checked_add(u64::from(sectors) * SECTOR));
            match (start, end) {
                (Some(start), Some(end)) if sectors <= MAX_RANGE_SECTORS => change(start..end)?,
                _ => return Err(Status::Failed),
            }
        }
        Ok(())
    }
}

/// What a chain asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    kind: Kind,
    sector: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Flush,
    Name,
    Discard,
    WriteZeroes,
    Unknown,
}

impl Request {
    /// Whether it should not keep the others of its ring waiting, since the storage of this export
    /// makes its callers wait.
    pub(super) fn waits(&self, export: &Export) -> bool {
        match self.kind {
            Kind::Flush => export.flush_waits(),
            Kind::Name | Kind::Unknown => false,
            Kind::Read | Kind::Write | Kind::Discard | Kind::WriteZeroes => export.waits(),
        }
    }
}

impl Kind {
    fn of(number: u32) -> Self {
        match number {
            0 => Self::Read,
            1 => Self::Write,
            4 => Self::Flush,
            8 => Self::Name,
            11 => Self::Discard,
            13 => Self::WriteZeroes,
            _ => Self::Unknown,
        }
    }

    fn changes(self) -> bool {
        matches!(self, Self::Write | Self::Discard | Self::WriteZeroes)
    }
}

/// The offset and the length of a request for `len` bytes from a sector on, which is possible.
fn checked(
    export: &Export,
    operation: Operation,
    sector: u64,
    len: u64,
) -> Result<(u64, usize), Status> {
    let offset = sector.checked_mul(SECTOR).ok_or(Status::Failed)?;
    if !len.is_multiple_of(SECTOR) {
        return Err(Status::Failed);
    }
    export.check(operation, offset, len)?;
    let len = usize::try_from(len).map_err(|_| Status::Failed)?;
    Ok((offset, len))
}
