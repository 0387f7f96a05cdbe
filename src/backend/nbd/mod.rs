//! An export on an NBD server as storage (*The NBD protocol*, `proto.md` of the NBD project; the baseline for clients and more).
//!
//! Calls come from many threads, and so many requests are in flight. The server sees ciphertext alone, as every storage does; that it
//! is the right one only TLS shows.
//!
//! - **A broken connection is made anew**, with pauses and a limit (`link.rs`); requests that were not answered are sent again.
//!   Changes that were acknowledged and not flushed go first (`journal.rs`); where they cannot, the next flush fails, and every
//!   later one. A server without flush is taken at its word: what it has acknowledged is stored.
//! - What no client can help: a server that lives on after the connection broke may carry out late what it had received over it, after
//!   what was sent over the new one.
//! - **Nothing that a server says is trusted**: not its lengths, not its cookies, not that it answers at all.
//! - What it must never do: send a request before the journal is replayed, or let a flush succeed after something was lost.

mod connection;
mod coverage;
mod dial;
mod error;
mod handshake;
mod journal;
mod link;
mod news;
mod options;
mod receive;
mod request;
mod session;
mod witness;

use std::ops::Range;
use std::sync::Arc;

use luksmith_formats::nbd::uri::Uri;
use luksmith_formats::nbd::{Command, CommandFlags, TransmissionFlags};

pub use error::{NbdError, Problem};
pub use options::ConnectOptions;

use super::{Backend, Geometry, IoError, Operation};
use crate::sectors::{Cipher, Sectors};
use connection::Luggage;
use error::io_error;
use journal::{Change, Record, Room};
use link::{Link, copy_of};
use request::Piece;
use witness::Content;

/// The most bytes that the pieces of one large request have in flight.
const AT_ONCE: u64 = 32 << 20;

/// The most that one TRIM or WRITE_ZEROES covers: the lengths of requests have 32 bits, and this is a multiple of every block size.
const LONGEST_RANGE: u64 = 1 << 30;

/// Zeroes at a time, for servers that have no request for them.
const ZEROES: u64 = 1 << 20;

/// An export on an NBD server. It has no lock: who else uses it, nobody can tell.
pub struct NbdBackend {
    link: Link,
}

impl NbdBackend {
    /// Connects.
    ///
    /// # Errors
    /// [`NbdError`] has each reason.
    pub fn connect(uri: &Uri, options: ConnectOptions) -> Result<Self, NbdError> {
        let link = Link::connect(uri.clone(), options)?;
        Ok(Self { link })
    }

    fn has(&self, flag: TransmissionFlags) -> bool {
        self.link.export.has(flag)
    }

    /// Requests of at most `longest` bytes over the whole range.
    fn cut(range: Range<u64>, longest: u64) -> impl Iterator<Item = Range<u64>> {
        let mut at = range.start;
        std::iter::from_fn(move || {
            let start = at;
            at = range.end.min(start.saturating_add(longest));
            (start < at).then_some(start..at)
        })
    }

    /// The luggage of a change, for which there has to be room in the journal.
    fn luggage_of_change(
        &self,
        offset: u64,
        cost: usize,
        change: impl FnOnce() -> Change,
    ) -> Result<Luggage, Arc<NbdError>> {
        let journal = &self.link.journal;
        if !self.has(TransmissionFlags::SEND_FLUSH) {
            return Ok(Luggage::default());
        }
        loop {
            match journal.room(cost) {
                Room::There => break,
                Room::NotNeeded => return Ok(Luggage::default()),
                Room::Scarce => {
                    // Where it fails, the one that has to succeed will say so.
                    let flushed = self.flush_link();
                    journal.flushed();
                    if let Err(error) = flushed {
                        tracing::debug!(%error, "no flush ahead of time");
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
        Ok(Luggage { into: None, record })
    }

    /// Every change that the server has acknowledged is durable afterwards, on whatever connection it went.
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
        let (mark, beginning) = (journal.mark(), self.link.witness.before_flush());
        let flushed = self.link.carry_out(Piece {
            command: Command::Flush,
            flags: CommandFlags::NONE,
            offset: 0,
            len: 0,
            payload: &[],
            luggage: Luggage::default(),
        });
        if let Err(error) = flushed {
            // A server forgets what it could not store. A connection that cannot be made leaves the journal as it is.
            if matches!(error.source, Problem::Answered { .. }) {
                journal.lose();
            }
            return Err(error);
        }
        // Over a new connection it may have gone well after something was lost.
        kept()?;
        journal.cover(mark);
        self.link.witness.flushed(beginning);
        Ok(())
    }

    /// Asks for ranges without a payload.
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
            let luggage = match command {
                Command::WriteZeroes => {
                    let change = || Change::Zeroes(len);
                    self.luggage_of_change(part.start, Record::cost(0), change)
                }
                _ => Ok(Luggage::default()),
            };
            let done = luggage.and_then(|luggage| {
                self.link.carry_out(Piece {
                    command,
                    flags,
                    offset: part.start,
                    len,
                    payload: &[],
                    luggage,
                })
            });
            done.map(|_| ())
        };
        let content = match command {
            Command::WriteZeroes => Content::Zeroes,
            _ => Content::Any,
        };
        let mut parts = Self::cut(range.clone(), LONGEST_RANGE);
        let witness = &self.link.witness;
        witness
            .changing(&range, content, || parts.try_for_each(change))
            .map_err(|error| io_error(error, operation, at))
    }

    /// Changes are durable at once where the server knows no other way of making them so.
    fn change_flags(&self) -> CommandFlags {
        let at_once =
            !self.has(TransmissionFlags::SEND_FLUSH) && self.has(TransmissionFlags::SEND_FUA);
        CommandFlags::NONE.with_if(CommandFlags::FUA, at_once)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Arc<NbdError>> {
        let flags = self.change_flags();
        let piece = |payload: &'_ [u8], offset| {
            let cost = Record::cost(payload.len());
            let change = || Change::Bytes(copy_of(payload));
            self.luggage_of_change(offset, cost, change)
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
                luggage: piece(payload, part.start)?,
            })
        });
        let witness = &self.link.witness;
        witness.changing(&all, Content::Bytes(bytes), || self.carry_out_all(pieces))
    }

    fn carry_out_all<'a>(
        &self,
        pieces: impl Iterator<Item = Result<Piece<'a>, Arc<NbdError>>>,
    ) -> Result<(), Arc<NbdError>> {
        self.link.carry_out_all(pieces, self.at_once(), |_| {})
    }

    /// How many pieces of one request are in flight.
    fn at_once(&self) -> usize {
        index(AT_ONCE / u64::from(self.link.export.maximum)).clamp(1, 32)
    }

    fn read(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), Arc<NbdError>> {
        let longest = self.link.export.maximum;
        let read = |part: Range<u64>, buffer| Piece {
            command: Command::Read,
            flags: CommandFlags::NONE,
            offset: part.start,
            len: part.end - part.start,
            payload: &[],
            luggage: Luggage {
                into: Some(buffer),
                record: None,
            },
        };
        let all = offset..offset + into.len() as u64;
        if into.len() <= longest as usize {
            // The receiver fills the caller's own buffer.
            let buffer = std::mem::replace(into, Sectors::empty());
            let len = buffer.len();
            let filled = self.link.carry_out(read(all, buffer));
            // A buffer of the same length also where the one that went is lost.
            let (buffer, outcome) = match filled {
                Ok(filled) => (filled, Ok(())),
                Err(error) => (None, Err(error)),
            };
            *into = buffer.unwrap_or_else(|| Sectors::with_len(len));
            return outcome;
        }
        let pieces = Self::cut(all, longest.into()).map(|part| {
            let buffer = Sectors::with_len(index(part.end - part.start));
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

/// A length within a buffer that is in memory.
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
        let witness = &self.link.witness;
        let before = (offset == 0).then(|| witness.before_read());
        self.read(offset, into)
            .map_err(|error| io_error(error, operation, offset))?;
        if let Some(before) = before {
            witness.learn(before, into.as_slice());
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
            let witness = &self.link.witness;
            witness.flushed(witness.before_flush());
            return Ok(());
        }
        self.flush_link()
            .map_err(|error| io_error(error, Operation::Flush, 0))
    }

    /// TRIM where the server has it. What a read returns afterwards is the server's matter.
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

    /// CACHE where the server has it.
    fn prefetch(&self, range: Range<u64>) -> Result<(), IoError> {
        let operation = Operation::Read;
        let len = range.end.saturating_sub(range.start);
        self.geometry().check(operation, range.start, len)?;
        if !self.has(TransmissionFlags::SEND_CACHE) {
            return Ok(());
        }
        // A request that is longer than the longest read is an error to some servers.
        let pieces = Self::cut(range.clone(), self.link.export.maximum.into()).map(|part| {
            Ok(Piece {
                command: Command::Cache,
                flags: CommandFlags::NONE,
                offset: part.start,
                len: part.end - part.start,
                payload: &[],
                luggage: Luggage::default(),
            })
        });
        self.carry_out_all(pieces)
            .map_err(|error| io_error(error, operation, range.start))
    }

    /// An export has the size that its server gives it.
    fn resize(&self, _size: u64) -> Result<(), IoError> {
        Err(IoError::Unsupported(Operation::Resize))
    }
}

impl Drop for NbdBackend {
    fn drop(&mut self) {
        self.link.leave();
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
