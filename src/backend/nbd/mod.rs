//! An export on an NBD server as storage: the client side of *The NBD protocol* (`proto.md` of the
//! NBD project). It implements the baseline for clients and more.
//!
//! Many threads can call at the same time, so many requests can be in flight. The server sees only
//! ciphertext, as every storage does. Only TLS authenticates the server.
//!
//! - **A broken connection is replaced** (`link.rs`), with pauses between the attempts and a limit.
//!   Requests without a reply are sent again. Changes that the server had acknowledged and not
//!   flushed are sent first (`journal.rs`). If that fails, the next flush fails, and every later
//!   one. If a server does not offer flush, an acknowledged change counts as stored.
//! - A client cannot prevent one fault. If the server keeps running after a connection broke, it
//!   may carry out a request of the old connection late, after requests of the new connection.
//! - **Nothing from the server is trusted**: its lengths, cookies and numbers of chunks are
//!   checked, and the wait for each whole reply is limited (`patience.rs`).
//! - This module must never send a request before the journal is replayed, nor let a flush succeed
//!   after a change was lost.

mod connection;
mod coverage;
mod dial;
mod error;
mod extents;
mod handshake;
mod identity;
mod journal;
mod link;
mod options;
mod patience;
mod plain;
mod receive;
mod request;
mod session;
mod state_log;
mod status;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use luksmith_formats::nbd::uri::Uri;
use luksmith_formats::nbd::{Command, CommandFlags, TransmissionFlags};

pub use error::{NbdError, Problem};
pub use options::ConnectOptions;
pub use plain::PlainExport;

use super::{Allocation, Backend, Extents, Geometry, IoError, Operation, check_extents};
use crate::Interrupt;
use crate::sectors::{Cipher, Sectors};
use connection::Resources;
use error::io_error;
use identity::Content;
use journal::{Change, Record, Room};
use link::{Link, copy_of};
use request::Piece;

/// The most bytes in flight for the pieces of one large request.
const MAX_IN_FLIGHT: u64 = 32 << 20;

/// The most bytes that one TRIM or WRITE_ZEROES covers. The lengths of requests have 32 bits, and
/// this is a multiple of every block size.
const LONGEST_RANGE: u64 = 1 << 30;

/// The bytes of zeroes in one write, for servers without WRITE_ZEROES.
const ZEROES: u64 = 1 << 20;

/// An export on an NBD server. It cannot be locked, so other clients may use it at the same time.
pub struct NbdBackend {
    link: Link,
    /// Whether the server has answered a question about extents with an error.
    refuses_extents: AtomicBool,
}

impl NbdBackend {
    /// Connects to the server and opens the export.
    ///
    /// # Errors
    /// [`NbdError`], whose source is the [`Problem`].
    pub fn connect(uri: &Uri, options: ConnectOptions) -> Result<Self, NbdError> {
        Self::connect_interruptible(uri, options, Interrupt::default())
    }

    /// As [`connect`](Self::connect). The interrupt ends the wait for a connection, also for a
    /// later one. A request in flight fails if the server does not answer it within two seconds
    /// then.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), and [`Problem::Interrupted`].
    pub fn connect_interruptible(
        uri: &Uri,
        options: ConnectOptions,
        interrupt: Interrupt,
    ) -> Result<Self, NbdError> {
        let link = Link::connect(uri.clone(), options, interrupt)?;
        Ok(Self {
            link,
            refuses_extents: AtomicBool::new(false),
        })
    }

    fn has(&self, flag: TransmissionFlags) -> bool {
        self.link.export.has(flag)
    }

    /// Divides the range into parts of at most `longest` bytes.
    fn cut(range: Range<u64>, longest: u64) -> impl Iterator<Item = Range<u64>> {
        let mut at = range.start;
        std::iter::from_fn(move || {
            let start = at;
            at = range.end.min(start.saturating_add(longest));
            (start < at).then_some(start..at)
        })
    }

    /// The resources of a change. Makes room for it in the journal first.
    fn resources_of_change(
        &self,
        offset: u64,
        cost: usize,
        change: impl FnOnce() -> Change,
    ) -> Result<Resources, Arc<NbdError>> {
        let journal = &self.link.journal;
        if !self.has(TransmissionFlags::SEND_FLUSH) {
            return Ok(Resources::default());
        }
        loop {
            match journal.room(cost) {
                Room::There => break,
                Room::NotNeeded => return Ok(Resources::default()),
                Room::Scarce => {
                    // If it fails, a later flush that has to succeed fails too and reports it.
                    let flushed = self.flush_link();
                    journal.flushed();
                    if let Err(error) = flushed {
                        tracing::debug!(%error, "an early flush failed");
                    }
                    break;
                }
                Room::None => {
                    let flushed = self.flush_link();
                    journal.flushed();
                    flushed?;
                }
            }
        }
        let change = change();
        let record = Some(Record { offset, change });
        Ok(Resources {
            record,
            ..Resources::default()
        })
    }

    /// Makes every acknowledged change durable, whichever connection it was sent over.
    fn flush_link(&self) -> Result<(), Arc<NbdError>> {
        let journal = &self.link.journal;
        let kept = || {
            if journal.is_lost() {
                Err(self.link.error(Problem::Lost))
            } else {
                Ok(())
            }
        };
        kept()?;
        let (mark, beginning) = (journal.mark(), self.link.identity.before_flush());
        let flushed = self.link.carry_out(Piece {
            command: Command::Flush,
            flags: CommandFlags::NONE,
            offset: 0,
            len: 0,
            payload: &[],
            resources: Resources::default(),
        });
        if let Err(error) = flushed {
            // After a failed flush the server may drop the changes. If there was no connection, the
            // journal stays as it is.
            if matches!(error.source, Problem::Answered { .. }) {
                journal.lose();
            }
            return Err(error);
        }
        // A flush over a new connection may succeed after a change was lost.
        kept()?;
        journal.cover(mark);
        self.link.identity.flushed(beginning);
        Ok(())
    }

    /// Sends requests without payload for a range.
    fn over_range(
        &self,
        operation: Operation,
        (command, flags): (Command, CommandFlags),
        range: Range<u64>,
    ) -> Result<(), IoError> {
        let mut at = range.start;
        let change = |part: Range<u64>| {
            at = part.start;
            let len = part.end - part.start;
            let resources = match command {
                Command::WriteZeroes => {
                    let change = || Change::Zeroes(len);
                    self.resources_of_change(part.start, Record::cost(0), change)
                }
                _ => Ok(Resources::default()),
            };
            let done = resources.and_then(|resources| {
                self.link.carry_out(Piece {
                    command,
                    flags,
                    offset: part.start,
                    len,
                    payload: &[],
                    resources,
                })
            });
            done.map(|_| ())
        };
        let content = match command {
            Command::WriteZeroes => Content::Zeroes,
            _ => Content::Any,
        };
        let mut parts = Self::cut(range.clone(), LONGEST_RANGE);
        let identity = &self.link.identity;
        identity
            .changing(&range, content, || parts.try_for_each(change))
            .map_err(|error| io_error(error, operation, at))
    }

    /// Flags for changes: FUA if the server offers it and does not offer flush.
    fn change_flags(&self) -> CommandFlags {
        let at_once =
            !self.has(TransmissionFlags::SEND_FLUSH) && self.has(TransmissionFlags::SEND_FUA);
        CommandFlags::NONE.with_if(CommandFlags::FUA, at_once)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Arc<NbdError>> {
        let flags = self.change_flags();
        let piece = |payload: &'_ [u8], offset| {
            let cost = Record::cost(payload.len());
            let change = || Change::Bytes(copy_of(payload, self.link.options.plain));
            self.resources_of_change(offset, cost, change)
        };
        let longest = u64::from(self.link.export.maximum);
        let all = offset..offset + bytes.len() as u64;
        let pieces = Self::cut(all.clone(), longest).map(|part| {
            let payload = &bytes[index(part.start - offset)..index(part.end - offset)];
            Ok(Piece {
                command: Command::Write,
                flags,
                offset: part.start,
                len: part.end - part.start,
                payload,
                resources: piece(payload, part.start)?,
            })
        });
        let identity = &self.link.identity;
        identity.changing(&all, Content::Bytes(bytes), || self.carry_out_all(pieces))
    }

    fn carry_out_all<'a>(
        &self,
        pieces: impl Iterator<Item = Result<Piece<'a>, Arc<NbdError>>>,
    ) -> Result<(), Arc<NbdError>> {
        self.link.carry_out_all(pieces, self.at_once(), |_| {})
    }

    /// How many pieces of one large request are in flight at once.
    fn at_once(&self) -> usize {
        index(MAX_IN_FLIGHT / u64::from(self.link.export.maximum)).clamp(1, 32)
    }

    fn read(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), Arc<NbdError>> {
        let longest = self.link.export.maximum;
        let read = |part: Range<u64>, buffer| Piece {
            command: Command::Read,
            flags: CommandFlags::NONE,
            offset: part.start,
            len: part.end - part.start,
            payload: &[],
            resources: Resources {
                into: Some(buffer),
                ..Resources::default()
            },
        };
        let all = offset..offset + into.len() as u64;
        if into.len() <= longest as usize {
            // The receiver fills the buffer of the caller directly.
            let buffer = std::mem::replace(into, Sectors::empty());
            let len = buffer.len();
            let filled = self.link.carry_out(read(all, buffer));
            // If the buffer was lost, the caller gets another one of the same length.
            let (buffer, outcome) = match filled {
                Ok(filled) => (filled.into, Ok(())),
                Err(error) => (None, Err(error)),
            };
            *into = buffer.unwrap_or_else(|| Sectors::with_len(len));
            return outcome;
        }
        let plain = into.is_unencrypted();
        let pieces = Self::cut(all, longest.into()).map(|part| {
            let len = index(part.end - part.start);
            let buffer = match plain {
                true => Sectors::unencrypted(len),
                false => Sectors::with_len(len),
            };
            Ok(read(part, buffer))
        });
        let mut rest = into.as_mut_slice();
        self.link.carry_out_all(pieces, self.at_once(), |piece| {
            let (now, later) = std::mem::take(&mut rest).split_at_mut(piece.len());
            now.copy_from_slice(piece.as_slice());
            rest = later;
        })
    }
}

/// Converts a length that is within a buffer in memory.
fn index(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

impl Backend for NbdBackend {
    fn geometry(&self) -> Geometry {
        Geometry {
            size: self.link.export.size,
            block_size: self.link.export.minimum,
            read_only: !self.link.options.write,
        }
    }

    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        let operation = Operation::Read;
        self.geometry()
            .check(operation, offset, into.len() as u64)?;
        if into.is_empty() {
            return Ok(());
        }
        let identity = &self.link.identity;
        let before = (offset == 0).then(|| identity.before_read());
        self.read(offset, into)
            .map_err(|error| io_error(error, operation, offset))?;
        if let Some(before) = before {
            identity.learn(before, into.as_slice());
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, from: &Sectors<Cipher>) -> Result<(), IoError> {
        let operation = Operation::Write;
        self.geometry()
            .check_change(operation, offset, from.len() as u64)?;
        self.write(offset, from.as_slice())
            .map_err(|error| io_error(error, operation, offset))
    }

    fn flush(&self) -> Result<(), IoError> {
        if !self.link.options.write {
            return Ok(());
        }
        if !self.has(TransmissionFlags::SEND_FLUSH) {
            let identity = &self.link.identity;
            identity.flushed(identity.before_flush());
            return Ok(());
        }
        self.flush_link()
            .map_err(|error| io_error(error, Operation::Flush, 0))
    }

    fn is_remote(&self) -> bool {
        true
    }

    /// With FUA each change is durable at once.
    fn can_flush(&self) -> bool {
        self.has(TransmissionFlags::SEND_FLUSH) || self.has(TransmissionFlags::SEND_FUA)
    }

    /// Sends TRIM if the server offers it. What a read returns afterwards depends on the server.
    fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        let operation = Operation::Discard;
        let len = range.end.saturating_sub(range.start);
        self.geometry().check_change(operation, range.start, len)?;
        if !self.has(TransmissionFlags::SEND_TRIM) {
            return Err(IoError::Unsupported(operation));
        }
        self.over_range(operation, (Command::Trim, self.change_flags()), range)
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<(), IoError> {
        let operation = Operation::WriteZeroes;
        let len = range.end.saturating_sub(range.start);
        self.geometry().check_change(operation, range.start, len)?;
        if self.has(TransmissionFlags::SEND_WRITE_ZEROES) {
            let flags = self.change_flags() | CommandFlags::NO_HOLE;
            match self.over_range(operation, (Command::WriteZeroes, flags), range.clone()) {
                Err(IoError::Unsupported(_)) => {}
                outcome => return outcome,
            }
        }
        let zeroes = Sectors::<Cipher>::zeroed(index(len.min(ZEROES)));
        for part in Self::cut(range, ZEROES) {
            let bytes = &zeroes.as_slice()[..index(part.end - part.start)];
            self.write(part.start, bytes)
                .map_err(|error| io_error(error, operation, part.start))?;
        }
        Ok(())
    }

    /// Sends CACHE if the server offers it.
    fn prefetch(&self, range: Range<u64>) -> Result<(), IoError> {
        let operation = Operation::Read;
        let len = range.end.saturating_sub(range.start);
        self.geometry().check(operation, range.start, len)?;
        if !self.has(TransmissionFlags::SEND_CACHE) {
            return Ok(());
        }
        // Some servers refuse a request that is longer than the longest read.
        let pieces = Self::cut(range.clone(), self.link.export.maximum.into()).map(|part| {
            Ok(Piece {
                command: Command::Cache,
                flags: CommandFlags::NONE,
                offset: part.start,
                len: part.end - part.start,
                payload: &[],
                resources: Resources::default(),
            })
        });
        self.carry_out_all(pieces)
            .map_err(|error| io_error(error, operation, range.start))
    }

    /// Asks the server, if that was [wanted](ConnectOptions::extents). A hole is at least 64 KiB
    /// long; shorter ones are reported as data.
    fn extents(&self, range: Range<u64>) -> Result<Extents, IoError> {
        check_extents(self.geometry(), &range)?;
        if range.is_empty() {
            return Ok(Extents::new());
        }
        let (offset, len) = (range.start, range.end - range.start);
        let all = vec![(len, Allocation::Data)];
        if self.link.export.allocation.is_none() || self.refuses_extents.load(Ordering::Relaxed) {
            return Ok(all);
        }
        match extents::ask(&self.link, range) {
            Ok(Some(extents)) => Ok(extents),
            Ok(None) => {
                // It refuses the other questions too.
                self.refuses_extents.store(true, Ordering::Relaxed);
                Ok(all)
            }
            Err(error) => Err(io_error(error, Operation::Extents, offset)),
        }
    }

    /// A client cannot change the size of an export.
    fn resize(&self, _size: u64) -> Result<(), IoError> {
        Err(IoError::Unsupported(Operation::Resize))
    }
}

impl Drop for NbdBackend {
    fn drop(&mut self) {
        self.link.disconnect();
    }
}

impl std::fmt::Debug for NbdBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NbdBackend")
            .field("uri", &self.link.uri)
            .field("export", &self.link.export)
            .finish_non_exhaustive()
    }
}
