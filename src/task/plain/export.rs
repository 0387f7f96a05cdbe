//! An export with plain data that is read from its start to its end.

use std::collections::VecDeque;
use std::ops::Range;

use luksmith_formats::nbd::uri::Uri;

use super::access::PlainAccess;
use crate::backend::nbd::PlainExport;
use crate::backend::{Allocation, IoError};
use crate::location::Location;
use crate::task::{Error, Watch, part};

/// An export, or a part of it, and how much of it was read. Its holes are not read where the server
/// knows them.
pub(super) struct ExportReader {
    export: PlainExport,
    range: Range<u64>,
    /// What is read next, in bytes of the export.
    at: u64,
    /// The extents that follow.
    known: VecDeque<(u64, Allocation)>,
}

impl ExportReader {
    /// Connects to the server. `location` names a part of the export, or all of it.
    pub(super) fn connect(
        uri: &Uri,
        location: &Location,
        access: PlainAccess,
        watch: &dyn Watch,
    ) -> Result<Self, Error> {
        access.check(uri)?;
        let options = access.remote.extents(true).connect(false);
        let export = PlainExport::connect(uri, options, watch.interrupt())?;
        let range = match location.part() {
            Some(part) => {
                let read = |at, into: &mut [u8]| export.read_at(at, into);
                part::of_export(part, export.size(), read, location)?.1
            }
            None => 0..export.size(),
        };
        Ok(Self {
            export,
            at: range.start,
            range,
            known: VecDeque::new(),
        })
    }

    /// Its size in bytes.
    pub(super) fn size(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Fills a buffer from an offset on, and does not count that as read.
    pub(super) fn look(&self, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        self.export.read_at(self.range.start + offset, into)
    }

    /// Reads on. Returns how many bytes there were, none at the end.
    pub(super) fn read(&mut self, into: &mut [u8]) -> Result<usize, IoError> {
        let end = self.range.end;
        if self.at >= end || into.is_empty() {
            return Ok(0);
        }
        if self.known.is_empty() {
            self.known = self.export.extents(self.at..end)?.into();
        }
        let (left, allocation) = match self.known.front_mut() {
            Some(extent) => extent,
            None => &mut (end - self.at, Allocation::Data),
        };
        let len = usize::try_from(*left).unwrap_or(usize::MAX).min(into.len());
        let into = &mut into[..len];
        match allocation {
            Allocation::Hole => into.fill(0),
            Allocation::Data => self.export.read_at(self.at, into)?,
        }
        self.at += len as u64;
        *left -= len as u64;
        if *left == 0 {
            self.known.pop_front();
        }
        Ok(len)
    }
}
