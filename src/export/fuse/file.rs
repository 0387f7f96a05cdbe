//! The file, and carrying out what the kernel asks for.

use std::ops::Range;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::io::Errno;

use super::device::Reply;
use super::wire::{self, Attributes, MOST, Request};
use crate::backend::IoError;
use crate::export::Export;
use crate::sectors::{Plain, Sectors};
use crate::volume::Allocation;

/// The file system counts in blocks of this many bytes.
const BLOCK: u32 = 4096;

/// The file as which an export is mounted.
pub(super) struct File {
    export: Arc<Export>,
    direct: bool,
    attributes: Attributes,
}

/// A request that is to be carried out.
pub(super) struct Work {
    pub(super) request: Request,
    /// The data of a write.
    pub(super) bytes: Sectors<Plain>,
    pub(super) reply: Reply,
}

impl File {
    pub(super) fn new(export: Arc<Export>, direct: bool) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            attributes: Attributes {
                size: export.size(),
                block_size: export.unit().max(BLOCK),
                permissions: if export.is_read_only() { 0o400 } else { 0o600 },
                user: rustix::process::geteuid().as_raw(),
                group: rustix::process::getegid().as_raw(),
                changed: now.map_or(0, |now| now.as_secs()),
            },
            export,
            direct,
        }
    }

    pub(super) fn export(&self) -> &Export {
        &self.export
    }

    /// Whether a request will probably wait for the storage, or takes long.
    pub(super) fn waits(&self, request: Request) -> bool {
        match request {
            Request::Read { .. } | Request::Write { .. } => self.export.waits(),
            Request::Flush => self.export.flush_waits(),
            Request::Punch { len, .. } | Request::Zero { len, .. } => len > MOST as u64,
            _ => false,
        }
    }

    /// Carries out a request, and replies.
    pub(super) fn carry_out(&self, work: Work) {
        let Work {
            request,
            bytes,
            reply,
        } = work;
        let done = match request {
            Request::Attributes => Ok(self.attributes.message()),
            Request::Change { owner, size } => self.change(owner, size),
            Request::Open => Ok(wire::opened(self.direct)),
            Request::Read { offset, len } => return self.read(offset, len, reply),
            Request::Write { offset, .. } => self.write(offset, bytes),
            Request::Flush => self.export.flush().map(nothing).map_err(errno),
            Request::Statistics => Ok(wire::statistics(self.export.size(), BLOCK)),
            Request::Punch { offset, len } => self.zero(offset, len, Export::punch),
            Request::Zero { offset, len } => self.zero(offset, len, Export::write_zeroes),
            Request::OtherAllocation => Err(Errno::OPNOTSUPP),
            Request::Seek { offset, hole } => self.seek(offset, hole),
            Request::Nothing => Ok(Vec::new()),
            Request::Forget => return reply.omit(),
            // The kernel then does without it, and does not ask again.
            Request::Unknown => Err(Errno::NOSYS),
        };
        match done {
            Ok(message) => reply.send(&message),
            Err(error) => reply.fail(error),
        }
    }

    /// The size, the owner and the mode are fixed. A change of times is permitted, and forgotten.
    fn change(&self, owner: bool, size: Option<u64>) -> Result<Vec<u8>, Errno> {
        match owner || size.is_some_and(|size| size != self.export.size()) {
            true => Err(Errno::PERM),
            false => Ok(self.attributes.message()),
        }
    }

    fn read(&self, offset: u64, len: u32, reply: Reply) {
        let left = self.export.size().saturating_sub(offset);
        let len = usize::try_from(left.min(len.into())).unwrap_or(usize::MAX);
        match self.export.read(offset, len) {
            Ok(bytes) => reply.send(bytes.as_slice()),
            Err(error) => reply.fail(errno(error)),
        }
    }

    /// Writes what is inside of the file, as to a disk.
    fn write(&self, offset: u64, bytes: Sectors<Plain>) -> Result<Vec<u8>, Errno> {
        let left = self.export.size().saturating_sub(offset);
        let len = usize::try_from(left).map_or(bytes.len(), |left| bytes.len().min(left));
        if len == 0 && !bytes.is_empty() {
            return Err(Errno::NOSPC);
        }
        let inside = match len < bytes.len() {
            true => {
                let mut inside = Sectors::<Plain>::with_len(len);
                inside
                    .as_mut_slice()
                    .copy_from_slice(&bytes.as_slice()[..len]);
                inside
            }
            false => bytes,
        };
        self.export.write(offset, inside).map_err(errno)?;
        Ok(wire::written(u32::try_from(len).unwrap_or(u32::MAX)).to_vec())
    }

    /// Makes what is inside of the file read as zeroes.
    fn zero(
        &self,
        offset: u64,
        len: u64,
        zero: impl Fn(&Export, Range<u64>) -> Result<(), IoError>,
    ) -> Result<Vec<u8>, Errno> {
        let size = self.export.size();
        if offset >= size {
            return Err(Errno::NOSPC);
        }
        let end = offset.saturating_add(len).min(size);
        zero(&self.export, offset..end).map(nothing).map_err(errno)
    }

    /// The next data or the next hole from `offset` on. The end of the file is a hole.
    fn seek(&self, offset: u64, hole: bool) -> Result<Vec<u8>, Errno> {
        let (mut at, size) = (offset, self.export.size());
        while at < size {
            let (len, allocation) = self.export.allocation(at..size).map_err(errno)?;
            if (allocation != Allocation::Data) == hole {
                return Ok(at.to_ne_bytes().to_vec());
            }
            at = at.saturating_add(len.max(1));
        }
        match hole && offset < size {
            true => Ok(size.to_ne_bytes().to_vec()),
            false => Err(Errno::NXIO),
        }
    }
}

fn nothing((): ()) -> Vec<u8> {
    Vec::new()
}

/// The error of the system that a program gets.
fn errno(error: IoError) -> Errno {
    match error {
        IoError::ReadOnly(_) => Errno::ROFS,
        IoError::Unsupported(_) => Errno::OPNOTSUPP,
        IoError::NoSpace { .. } => Errno::NOSPC,
        IoError::TooLarge { .. } => Errno::FBIG,
        IoError::OutOfRange { .. } => Errno::INVAL,
        _ => Errno::IO,
    }
}
