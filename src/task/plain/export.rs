//! An export with plain data that is read from its start to its end.

use std::collections::VecDeque;

use luksmith_formats::nbd::uri::Uri;

use super::access::PlainAccess;
use crate::backend::nbd::PlainExport;
use crate::backend::{Allocation, IoError};
use crate::task::{Error, Watch};

/// An export, and how much of it was read. Its holes are not read where the server knows them.
pub(super) struct ExportReader {
    export: PlainExport,
    at: u64,
    /// The extents that follow.
    known: VecDeque<(u64, Allocation)>,
}

impl ExportReader {
    /// Connects to the server.
    pub(super) fn connect(
        uri: &Uri,
        access: PlainAccess,
        watch: &dyn Watch,
    ) -> Result<Self, Error> {
        access.check(uri)?;
        let options = access.remote.extents(true).connect(false);
        Ok(Self {
            export: PlainExport::connect(uri, options, watch.interrupt())?,
            at: 0,
            known: VecDeque::new(),
        })
    }

    pub(super) fn export(&self) -> &PlainExport {
        &self.export
    }

    /// Reads on. Returns how many bytes there were, none at the end.
    pub(super) fn read(&mut self, into: &mut [u8]) -> Result<usize, IoError> {
        let size = self.export.size();
        if self.at >= size || into.is_empty() {
            return Ok(0);
        }
        if self.known.is_empty() {
            self.known = self.export.extents(self.at..size)?.into();
        }
        let (left, allocation) = match self.known.front_mut() {
            Some(extent) => extent,
            None => &mut (size - self.at, Allocation::Data),
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
