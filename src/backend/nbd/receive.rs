//! The thread of a connection that receives the replies (`proto.md`, "Simple reply message" and
//! "Structured reply chunk message").
//!
//! It trusts no length. It receives only data that a request in flight has asked for, directly into
//! the buffer of that request. Any other data ends the connection.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use luksmith_formats::nbd::{
    ChunkFlags, ChunkHeader, ChunkType, Command, ErrorChunk, ErrorNumber, OffsetHole, ReplyForm,
    ReplyHeader, SimpleReply, offset_of_data,
};

use super::connection::{Connection, InFlight};
use super::error::Problem;
use super::handshake::{Export, Replies};
use super::journal::Journal;
use super::patience::Patience;
use super::status;
use crate::channel::Channel;

/// The size of the buffer for headers, in bytes, which holds several small replies. The beginning
/// of a large payload may be in it too, and is then copied once more.
const BUFFER: usize = 16 << 10;

/// The longest error chunk, in bytes: a number, a string, an offset, and some more.
const MAX_ERROR_LEN: u64 = 8192;

/// The most chunks of a reply, besides one for each sector of a read.
const MAX_CHUNKS: u64 = 1024;

/// The smallest sector of a disk, in bytes. No server sends smaller chunks one after the other.
const SECTOR: u64 = 512;

/// Makes a connection of a channel after the handshake, and starts the thread that receives.
///
/// # Errors
/// If the timeout of the channel cannot be set, or the thread cannot be started.
pub(super) fn start(
    channel: Channel,
    export: Export,
    server: Arc<str>,
    journal: Arc<Journal>,
    patience: Patience,
) -> Result<Arc<Connection>, Problem> {
    channel
        .set_timeout(Some(patience.timeout))
        .map_err(Problem::Connection)?;
    let connection = Arc::new(Connection::new(channel, export, server, journal, patience));
    let receiver = std::thread::Builder::new()
        .name("nbd receiver".to_owned())
        .spawn({
            let connection = connection.clone();
            move || receive(&connection)
        })
        .map_err(Problem::Thread)?;
    connection.set_receiver(receiver);
    Ok(connection)
}

/// Receives until the connection is broken.
fn receive(connection: &Connection) {
    let mut receiver = Receiver {
        connection,
        buffer: vec![0; BUFFER].into_boxed_slice(),
        filled: 0..0,
        is_data: false,
    };
    let problem = loop {
        if let Err(problem) = receiver.reply() {
            break problem;
        }
    };
    connection.fail(problem);
    connection.fail_all();
}

struct Receiver<'a> {
    connection: &'a Connection,
    buffer: Box<[u8]>,
    /// The received bytes of the buffer that were not taken yet.
    filled: Range<usize>,
    /// Whether the bytes that are received now are data that a request has asked for.
    is_data: bool,
}

impl Receiver<'_> {
    fn reply(&mut self) -> Result<(), Problem> {
        let mut header = [0; ChunkHeader::EXTENDED_LEN];
        let (magic, rest) = header.split_at_mut(4);
        self.fill(magic)?;
        let form = ReplyForm::of_magic([magic[0], magic[1], magic[2], magic[3]])
            .map_err(Problem::Malformed)?;
        let expected = match self.connection.export.replies {
            Replies::Simple => form == ReplyForm::Simple,
            Replies::Structured => form != ReplyForm::Extended,
            Replies::Extended => form == ReplyForm::Extended,
        };
        if !expected {
            return Err(Problem::Violation(
                "a reply has a form that was not negotiated",
            ));
        }
        self.fill(&mut rest[..form.header_len() - 4])?;
        let header =
            ReplyHeader::parse(&header[..form.header_len()]).map_err(Problem::Malformed)?;
        let request = self.connection.take(header.cookie());
        let mut request = request.ok_or(Problem::Violation("a reply belongs to no request"))?;
        let done = match header {
            ReplyHeader::Simple(reply) => self.simple(reply, &mut request),
            ReplyHeader::Chunk(chunk) => {
                let extended = form == ReplyForm::Extended;
                if extended && chunk.offset != request.request.offset {
                    Err(Problem::Violation(
                        "a reply has the offset of another request",
                    ))
                } else {
                    self.chunk(chunk, &mut request)
                }
            }
        };
        match done {
            Ok(None) => self.connection.give_back(request),
            Ok(Some(outcome)) => self.connection.complete(request, outcome),
            Err(problem) => {
                self.connection.give_back(request);
                return Err(problem);
            }
        }
        Ok(())
    }

    /// Receives the rest of a simple reply. Fails if the connection has to end.
    fn simple(&mut self, reply: SimpleReply, request: &mut InFlight) -> Result<Ended, Problem> {
        let is_read = request.request.command == Command::Read;
        if is_read && self.connection.export.replies != Replies::Simple {
            return Err(Problem::Violation("a read has a simple reply"));
        }
        if reply.error != ErrorNumber::None {
            return Ok(Some(Err(answered(reply.error, String::new()))));
        }
        if request.resources.extents.is_some() {
            return Err(Problem::Violation("a block status has a simple reply"));
        }
        if is_read && let Some(into) = &mut request.resources.into {
            self.fill_data(into.as_mut_slice())?;
        }
        Ok(Some(Ok(())))
    }

    /// `None`: there is more to come.
    fn chunk(&mut self, chunk: ChunkHeader, request: &mut InFlight) -> Result<Ended, Problem> {
        let done = chunk.flags.contains(ChunkFlags::DONE);
        request.chunks += 1;
        let sectors =
            (request.resources.into.as_ref()).map_or(0, |into| into.len() as u64 / SECTOR);
        if request.chunks > MAX_CHUNKS + sectors {
            return Err(Problem::Violation("a reply has too many chunks"));
        }
        match chunk.kind {
            ChunkType::None if chunk.len == 0 && done => {}
            ChunkType::None => {
                return Err(Problem::Violation(
                    "an empty chunk is not empty, or not the last one",
                ));
            }
            ChunkType::OffsetData => self.data(chunk, request)?,
            ChunkType::OffsetHole => self.hole(chunk, request)?,
            ChunkType::BlockStatus | ChunkType::BlockStatusExtended
                if request.resources.extents.is_some() =>
            {
                self.status(chunk, request)?;
            }
            kind if kind.is_error() => {
                let problem = self.error(chunk)?;
                request.error.get_or_insert(problem);
            }
            _ => {
                return Err(Problem::Violation("a chunk has an unexpected type"));
            }
        }
        if !done {
            return Ok(None);
        }
        if let Some(error) = request.error.take() {
            return Ok(Some(Err(error)));
        }
        if let Some(into) = &request.resources.into
            && !request.coverage.is_whole(into.len())
        {
            return Err(Problem::Violation("a reply to a read is incomplete"));
        }
        if (request.resources.extents.as_ref()).is_some_and(Vec::is_empty) {
            return Err(Problem::Violation(
                "a reply to a block status is incomplete",
            ));
        }
        Ok(Some(Ok(())))
    }

    fn data(&mut self, chunk: ChunkHeader, request: &mut InFlight) -> Result<(), Problem> {
        let Some(len) = chunk.len.checked_sub(8) else {
            return Err(Problem::Violation("data has no offset"));
        };
        let mut offset = [0; 8];
        // More bytes are received only if the request is a read.
        if request.resources.into.is_none() {
            return Err(NOT_A_READ);
        }
        self.fill(&mut offset)?;
        let place = place(request, offset_of_data(&offset), len)?;
        self.fill_data(place)
    }

    fn hole(&mut self, chunk: ChunkHeader, request: &mut InFlight) -> Result<(), Problem> {
        let mut hole = [0; OffsetHole::LEN];
        if chunk.len != hole.len() as u64 {
            return Err(Problem::Violation("a hole has the wrong length"));
        }
        self.fill(&mut hole)?;
        let hole = OffsetHole::parse(&hole).map_err(Problem::Malformed)?;
        place(request, hole.offset, hole.len.into())?.fill(0);
        Ok(())
    }

    fn status(&mut self, chunk: ChunkHeader, request: &mut InFlight) -> Result<(), Problem> {
        let export = &self.connection.export;
        let extended = chunk.kind == ChunkType::BlockStatusExtended;
        if extended != (export.replies == Replies::Extended) {
            return Err(Problem::Violation("a chunk has an unexpected type"));
        }
        if chunk.len > status::LONGEST {
            return Err(Problem::Violation("a block status is too long"));
        }
        let mut bytes = vec![0; usize::try_from(chunk.len).unwrap_or(0)];
        self.fill_data(&mut bytes)?;
        let asked = request.request;
        let range = asked.offset..asked.offset + asked.len;
        let told = status::parse(&bytes, extended, export, range)?;
        match &mut request.resources.extents {
            Some(extents) if extents.is_empty() => *extents = told,
            _ => return Err(Problem::Violation("a block status was sent twice")),
        }
        Ok(())
    }

    fn error(&mut self, chunk: ChunkHeader) -> Result<Problem, Problem> {
        if chunk.len > MAX_ERROR_LEN {
            return Err(Problem::Violation("an error is too long"));
        }
        let mut bytes = vec![0; usize::try_from(chunk.len).unwrap_or(0)];
        self.fill(&mut bytes)?;
        // Error types of later versions begin in the same way.
        let kind = match chunk.kind {
            ChunkType::ErrorOffset => ChunkType::ErrorOffset,
            _ => ChunkType::Error,
        };
        let error = ErrorChunk::parse(kind, &bytes).map_err(Problem::Malformed)?;
        Ok(answered(error.error, error.message))
    }

    /// As [`fill`](Self::fill), for data that a request has asked for.
    fn fill_data(&mut self, into: &mut [u8]) -> Result<(), Problem> {
        self.is_data = true;
        let filled = self.fill(into);
        self.is_data = false;
        filled
    }

    /// Fills all of `into`, from the buffer and then from the socket.
    fn fill(&mut self, mut into: &mut [u8]) -> Result<(), Problem> {
        loop {
            let there = &self.buffer[self.filled.clone()];
            let now = there.len().min(into.len());
            let (first, rest) = into.split_at_mut(now);
            first.copy_from_slice(&there[..now]);
            self.filled.start += now;
            into = rest;
            if into.is_empty() {
                return Ok(());
            }
            if into.len() >= self.buffer.len() {
                let received = self.receive(into)?;
                into = into.split_at_mut(received).1;
            } else {
                let mut buffer = std::mem::take(&mut self.buffer);
                let received = self.receive(&mut buffer);
                self.buffer = buffer;
                self.filled = 0..received?;
            }
        }
    }

    fn receive(&self, into: &mut [u8]) -> Result<usize, Problem> {
        loop {
            match self.connection.channel.recv(into) {
                Ok(0) => return Err(Problem::Closed),
                Ok(received) => {
                    self.connection.note_received();
                    if self.is_data {
                        self.connection.note_data(received);
                    }
                    return Ok(received);
                }
                // The threads that wait for replies watch the time. Without requests in flight, a
                // server is allowed to be silent.
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(Problem::Closed);
                }
                Err(error) => return Err(Problem::Connection(error)),
            }
        }
    }
}

/// The outcome of a request, if it has ended.
type Ended = Option<Result<(), Problem>>;

const NOT_A_READ: Problem = Problem::Violation("data belongs to a request that is not a read");

/// The part of the buffer for a range of the export. Records that the range is received.
fn place(request: &mut InFlight, offset: u64, len: u64) -> Result<&mut [u8], Problem> {
    let into = request.resources.into.as_mut().ok_or(NOT_A_READ)?;
    let start = offset.checked_sub(request.request.offset);
    let range = start.and_then(|start| {
        let start = usize::try_from(start).ok()?;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        (start < end && end <= into.len()).then_some(start..end)
    });
    let range = range.ok_or(Problem::Violation("data is outside of the requested range"))?;
    if !request.coverage.add(range.clone()) {
        return Err(Problem::Violation("data was sent twice"));
    }
    Ok(&mut into.as_mut_slice()[range])
}

fn answered(error: ErrorNumber, message: String) -> Problem {
    Problem::Answered { error, message }
}
