//! Serves one request from the export. The reply goes into [`Replies`].

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use luksmith_formats::nbd::{
    BlockStatus, ChunkType, Command, CommandFlags, ErrorNumber, Extent, ExtentFlags, Request,
};

use super::error::Refusal;
use super::replies::{Form, Replies};
use super::stopping::Stopping;
use crate::backend::{IoError, Operation};
use crate::channel::Channel;
use crate::export::{Bytes, Discard, Export};
use crate::sectors::{Plain, Sectors};
use crate::volume::Allocation;

/// The most bytes that a client can write or read with one request, as nbdkit has it: twice of what
/// the protocol lets a client use that did not ask for the limit.
pub(super) const MAX_PAYLOAD: u32 = 64 << 20;

/// The pieces in which a long request is done, in bytes. They stay in the second-level cache.
const PIECE: u64 = 256 << 10;

/// A read of at most this many bytes can be in memory as a whole without a share of the budget.
pub(super) const WHOLE: usize = 1 << 20;

/// Zeroes are written, and ranges discarded or prefetched, in steps of this many bytes. Between two
/// steps the server can stop.
const STEP: u64 = 8 << 20;

/// The most bytes that are prefetched for one request. The page cache would drop the first of many
/// more before the client reads them.
const MAX_PREFETCHED: u64 = 256 << 20;

/// The time after which a search for extents ends: the client gets those that were found. The map
/// of an image can be long, or on slow storage.
const LONGEST_SEARCH: Duration = Duration::from_secs(1);

/// The most extents in one reply.
const MAX_EXTENTS: usize = 1024;

/// The result of a handshake: the export, and what client and server have agreed on.
pub(super) struct Session {
    pub(super) channel: Channel,
    pub(super) export: Arc<Export>,
    pub(super) form: Form,
    /// The number of the metadata context `base:allocation`, if the client has chosen it.
    pub(super) allocation: Option<u32>,
    pub(super) stopping: Arc<Stopping>,
}

impl Session {
    /// Checks a request before anything is done for it.
    pub(super) fn check(&self, request: &Request) -> Result<(), Refusal> {
        let structured = self.form >= Form::Structured;
        let known = match request.command {
            Command::Read => CommandFlags::FUA.with_if(CommandFlags::DF, structured),
            Command::Write => {
                CommandFlags::FUA.with_if(CommandFlags::PAYLOAD_LEN, self.form == Form::Extended)
            }
            Command::WriteZeroes => {
                CommandFlags::FUA | CommandFlags::NO_HOLE | CommandFlags::FAST_ZERO
            }
            Command::BlockStatus => CommandFlags::FUA | CommandFlags::REQ_ONE,
            _ => CommandFlags::FUA,
        };
        if !request.flags.without(known).is_empty() {
            return Err(Refusal::invalid("unknown flags"));
        }
        let operation = match request.command {
            Command::Flush => return Ok(()),
            Command::Read if request.len > MAX_PAYLOAD.into() => {
                let message = format!("more than {MAX_PAYLOAD} bytes at once");
                return Err(Refusal::new(ErrorNumber::Overflow, message));
            }
            Command::Write if request.len > MAX_PAYLOAD.into() => {
                let message = format!("more than {MAX_PAYLOAD} bytes at once");
                return Err(Refusal::invalid(message));
            }
            Command::Trim if self.export.discard_policy() == Discard::Deny => {
                return Err(Refusal::invalid("discards are denied"));
            }
            Command::BlockStatus if self.allocation.is_none() => {
                return Err(Refusal::invalid("no metadata context was chosen"));
            }
            Command::BlockStatus if request.len == 0 => {
                return Err(Refusal::invalid("the range is empty"));
            }
            Command::Write => Operation::Write,
            Command::WriteZeroes => Operation::WriteZeroes,
            Command::Trim => Operation::Discard,
            _ => Operation::Read,
        };
        Ok(self.export.check(operation, request.offset, request.len)?)
    }

    /// Serves a READ that was checked. `whole` allows all its bytes to be in memory at once. `full`
    /// is called when the replies are full, to send them.
    ///
    /// # Errors
    /// Those of `full`, and an error after which the connection has to end: the storage failed
    /// after a part of a simple reply was sent.
    pub(super) fn read(
        &self,
        request: &Request,
        whole: bool,
        out: &mut Replies,
        full: &mut dyn FnMut(&mut Replies) -> io::Result<()>,
    ) -> io::Result<()> {
        let form = self.form;
        let one_piece = form == Form::Simple || request.flags.contains(CommandFlags::DF);
        let len = usize::try_from(request.len).unwrap_or(usize::MAX);
        if len == 0 {
            out.done(form, request);
        } else if !one_piece {
            let end = request.offset + request.len;
            for (at, len) in pieces(request) {
                match self.read_piece(at, len) {
                    Ok(body) => {
                        out.data(form, request, at + len as u64 == end, at, len);
                        out.body(body);
                    }
                    Err(refusal) => {
                        out.refuse(form, request, &refusal);
                        return Ok(());
                    }
                }
                if out.is_full() {
                    full(out)?;
                }
            }
        } else if whole {
            let read: Result<Vec<Bytes>, Refusal> = pieces(request)
                .map(|(at, len)| self.read_piece(at, len))
                .collect();
            match read {
                Ok(bodies) => {
                    out.data(form, request, true, request.offset, len);
                    bodies.into_iter().for_each(|body| out.body(body));
                }
                Err(refusal) => out.refuse(form, request, &refusal),
            }
        } else if form == Form::Simple {
            out.data(form, request, true, request.offset, len);
            for (at, len) in pieces(request) {
                let body = self.read_piece(at, len);
                // The header has announced data, so an error can only be told by closing the
                // connection.
                out.body(body.map_err(|refusal| io::Error::other(refusal.message))?);
                full(out)?;
            }
        } else {
            let message = "too long for one chunk at the moment";
            out.refuse(form, request, &Refusal::new(ErrorNumber::Overflow, message));
        }
        Ok(())
    }

    fn read_piece(&self, at: u64, len: usize) -> Result<Bytes, Refusal> {
        self.stopping.refuse_unanswerable()?;
        Ok(self.export.read(at, len)?)
    }

    /// Writes a part of the payload of a WRITE.
    pub(super) fn write_piece(&self, at: u64, bytes: Sectors<Plain>) -> Result<(), Refusal> {
        self.stopping.refuse_unanswerable()?;
        Ok(self.export.write(at, bytes)?)
    }

    /// Replies to a WRITE with the outcome of writing its payload.
    pub(super) fn written(
        &self,
        request: &Request,
        written: Result<(), Refusal>,
        out: &mut Replies,
    ) {
        let outcome = written.and_then(|()| Ok(self.if_fua(request)?));
        self.answer(request, outcome, out);
    }

    /// Serves a WRITE that was checked, with its payload.
    pub(super) fn write(
        &self,
        request: &Request,
        payload: Vec<(u64, Sectors<Plain>)>,
        out: &mut Replies,
    ) {
        let mut payload = payload.into_iter();
        let written = payload.try_for_each(|(at, bytes)| self.write_piece(at, bytes));
        self.written(request, written, out);
    }

    /// Serves any request without payload that was checked, except READ.
    pub(super) fn other(&self, request: &Request, out: &mut Replies) {
        // The offset and length of a FLUSH have no meaning and were not checked.
        let range = request.offset..request.offset.saturating_add(request.len);
        let done = match request.command {
            Command::Flush => self.export.flush().map_err(Refusal::from),
            Command::Cache => {
                let end = range.end.min(range.start.saturating_add(MAX_PREFETCHED));
                self.stepwise(range.start..end, |range| self.export.prefetch(range))
            }
            Command::Trim => self
                .stepwise(range, |range| self.export.discard(range))
                .and_then(|()| Ok(self.if_fua(request)?)),
            Command::WriteZeroes if request.flags.contains(CommandFlags::FAST_ZERO) => {
                let message = "zeroes are encrypted, which is no faster than writing them";
                Err(Refusal::new(ErrorNumber::NotSupported, message))
            }
            Command::WriteZeroes => self
                .stepwise(range, |range| self.export.write_zeroes(range))
                .and_then(|()| Ok(self.if_fua(request)?)),
            Command::BlockStatus => return self.block_status(request, out),
            _ => Err(Refusal::invalid("unknown command")),
        };
        self.answer(request, done, out);
    }

    /// A hole of the storage counts as data, because it does not decrypt to zeroes. A hole of a
    /// qcow2 image reads as zeroes.
    fn block_status(&self, request: &Request, out: &mut Replies) {
        let extents = match self.extents(request) {
            Ok(extents) => extents,
            Err(error) => return out.refuse(self.form, request, &error.into()),
        };
        let status = BlockStatus {
            context: self.allocation.unwrap_or_default(),
            extents,
        };
        let (form, last) = (self.form, true);
        if form == Form::Extended {
            let kind = ChunkType::BlockStatusExtended;
            out.chunk(form, request, kind, last, &status.to_extended());
        } else {
            let kind = ChunkType::BlockStatus;
            out.chunk(form, request, kind, last, &status.to_bytes());
        }
    }

    fn extents(&self, request: &Request) -> Result<Vec<Extent>, IoError> {
        let start = Instant::now();
        let one = request.flags.contains(CommandFlags::REQ_ONE);
        let most = if one { 1 } else { MAX_EXTENTS };
        find_extents(
            request.offset..request.offset + request.len,
            most,
            |range| self.export.allocation(range),
            || self.stopping.is_asked() || start.elapsed() > LONGEST_SEARCH,
        )
    }

    fn stepwise(
        &self,
        mut range: Range<u64>,
        step: impl Fn(Range<u64>) -> Result<(), IoError>,
    ) -> Result<(), Refusal> {
        while !range.is_empty() {
            self.stopping.refuse_long()?;
            let end = range.end.min(range.start - range.start % STEP + STEP);
            step(range.start..end)?;
            range.start = end;
        }
        Ok(())
    }

    fn if_fua(&self, request: &Request) -> Result<(), IoError> {
        if request.flags.contains(CommandFlags::FUA) {
            self.export.flush()
        } else {
            Ok(())
        }
    }

    fn answer(&self, request: &Request, outcome: Result<(), Refusal>, out: &mut Replies) {
        match outcome {
            Ok(()) => out.done(self.form, request),
            Err(refusal) => out.refuse(self.form, request, &refusal),
        }
    }
}

/// The extents from the start of the range on, at most `most`. They may end before the range does:
/// the search ends when `ends` says so. There is at least one, as the protocol requires.
fn find_extents(
    range: Range<u64>,
    most: usize,
    allocation: impl Fn(Range<u64>) -> Result<(u64, Allocation), IoError>,
    ends: impl Fn() -> bool,
) -> Result<Vec<Extent>, IoError> {
    let mut at = range.start;
    let mut extents: Vec<Extent> = Vec::new();
    while at < range.end {
        let (len, allocation) = allocation(at..range.end)?;
        let flags = match allocation {
            Allocation::Data => ExtentFlags::NONE,
            Allocation::Hole => ExtentFlags::HOLE | ExtentFlags::ZERO,
        };
        let full = extents.len() == most;
        match extents.last_mut() {
            Some(last) if last.flags == flags => last.len += len,
            _ if full => break,
            _ => extents.push(Extent { len, flags }),
        }
        at += len;
        if ends() {
            break;
        }
    }
    Ok(extents)
}

/// The pieces in which a long request is done. Each except the first starts at a multiple of
/// [`PIECE`].
pub(super) fn pieces(request: &Request) -> impl Iterator<Item = (u64, usize)> + use<> {
    let end = request.offset + request.len;
    let mut at = request.offset;
    std::iter::from_fn(move || {
        let until = end.min(at - at % PIECE + PIECE);
        let piece = (at, usize::try_from(until - at).ok()?);
        at = until;
        (piece.1 > 0).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// The map of an image that has data and holes in turns of one cluster, without end.
    #[test]
    fn a_search_for_extents_ends_when_it_takes_too_long() {
        const CLUSTER: u64 = 1 << 16;
        let looked = Cell::new(0);
        let find = |most, steps| {
            looked.set(0);
            let allocation = |range: Range<u64>| {
                looked.set(looked.get() + 1);
                let hole = (range.start / CLUSTER).is_multiple_of(2);
                let kind = if hole {
                    Allocation::Hole
                } else {
                    Allocation::Data
                };
                Ok((CLUSTER, kind))
            };
            let ends = || looked.get() >= steps;
            find_extents(0..u64::MAX, most, allocation, ends).unwrap()
        };
        assert_eq!((find(MAX_EXTENTS, 5).len(), looked.get()), (5, 5));
        // One is found even if there is no time.
        assert_eq!((find(MAX_EXTENTS, 0).len(), looked.get()), (1, 1));
        assert_eq!(find(1, usize::MAX).len(), 1);
        assert_eq!(find(MAX_EXTENTS, usize::MAX).len(), MAX_EXTENTS);
        // Extents of one kind are merged, and count as one: only the time ends the search.
        let same = |_| Ok((CLUSTER, Allocation::Data));
        let steps = Cell::new(0);
        let ends = || steps.replace(steps.get() + 1) == 9;
        let found = find_extents(0..u64::MAX, MAX_EXTENTS, same, ends).unwrap();
        assert_eq!((found.len(), found[0].len), (1, 10 * CLUSTER));
    }

    #[test]
    fn pieces_cover_a_request_once_and_in_order() {
        for (offset, len) in [
            (0, 0),
            (0, 1),
            (PIECE - 1, 2),
            (100, 3 * PIECE),
            (PIECE, PIECE),
        ] {
            let request = Request {
                flags: CommandFlags::NONE,
                command: Command::Read,
                cookie: 0,
                offset,
                len,
            };
            let mut at = offset;
            for (piece, len) in pieces(&request) {
                assert_eq!(piece, at);
                at += len as u64;
                assert!(at == offset + request.len || at.is_multiple_of(PIECE));
            }
            assert_eq!(at, offset + len);
        }
    }
}
