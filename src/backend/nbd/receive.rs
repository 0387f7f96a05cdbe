//! The one thread of a connection that receives (`proto.md`, "Simple reply message", "Structured reply chunk message").
//!
//! It trusts no length: a payload is taken only as far as a request in flight asked for it, and goes straight into that request's
//! buffer. What does not fit ends the connection.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use luksmith_formats::nbd::{
    ChunkFlags, ChunkHeader, ChunkType, Command, ErrorChunk, ErrorNumber, OffsetHole, ReplyForm,
    ReplyHeader, SimpleReply, offset_of_data,
};

use super::connection::{Asked, Connection};
use super::error::Problem;
use super::handshake::{Export, Replies};
use super::journal::Journal;
use crate::channel::Channel;

/// What is received at once while headers are looked for: several small replies. What a large payload has in it is copied once more.
const BUFFER: usize = 16 << 10;

/// The longest error chunk: a number, a string, an offset, and then some.
const LONGEST_ERROR: u64 = 8192;

/// Takes over a channel after the handshake, and starts the thread that receives.
///
/// # Errors
/// Returns an error if the channel takes no timeout or the thread cannot be started.
pub(super) fn start(
    channel: Channel,
    export: Export,
    server: Arc<str>,
    journal: Arc<Journal>,
    patience: Duration,
) -> Result<Arc<Connection>, Problem> {
    channel
        .set_timeout(Some(patience))
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
    };
    let problem = loop {
        if let Err(problem) = receiver.reply() {
            break problem;
        }
    };
    connection.fail(problem);
    connection.answer_all();
}

struct Receiver<'a> {
    connection: &'a Connection,
    buffer: Box<[u8]>,
    /// What of it has come and was not looked at yet.
    filled: Range<usize>,
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
                "a reply of a form that was not agreed on",
            ));
        }
        self.fill(&mut rest[..form.header_len() - 4])?;
        let header =
            ReplyHeader::parse(&header[..form.header_len()]).map_err(Problem::Malformed)?;
        let asked = self.connection.take(header.cookie());
        let mut asked = asked.ok_or(Problem::Violation("a reply to no request"))?;
        let done = match header {
            ReplyHeader::Simple(reply) => self.simple(reply, &mut asked),
            ReplyHeader::Chunk(chunk) => {
                let extended = form == ReplyForm::Extended;
                if extended && chunk.offset != asked.request.offset {
                    Err(Problem::Violation("a reply with the offset of another"))
                } else {
                    self.chunk(chunk, &mut asked)
                }
            }
        };
        match done {
            Ok(None) => self.connection.give_back(asked),
            Ok(Some(outcome)) => self.connection.answer(asked, outcome),
            Err(problem) => {
                self.connection.give_back(asked);
                return Err(problem);
            }
        }
        Ok(())
    }

    /// The end of a request, with its outcome; an error where the connection cannot go on.
    fn simple(&mut self, reply: SimpleReply, asked: &mut Asked) -> Result<Ended, Problem> {
        let is_read = asked.request.command == Command::Read;
        if is_read && self.connection.export.replies != Replies::Simple {
            return Err(Problem::Violation("a read answered in one piece"));
        }
        if reply.error != ErrorNumber::None {
            return Ok(Some(Err(answered(reply.error, String::new()))));
        }
        if is_read && let Some(into) = &mut asked.luggage.into {
            self.fill(into.as_mut_slice())?;
        }
        Ok(Some(Ok(())))
    }

    /// `None`: there is more to come.
    fn chunk(&mut self, chunk: ChunkHeader, asked: &mut Asked) -> Result<Ended, Problem> {
        let done = chunk.flags.contains(ChunkFlags::DONE);
        match chunk.kind {
            ChunkType::None if chunk.len == 0 && done => {}
            ChunkType::None => return Err(Problem::Violation("an empty chunk that is none")),
            ChunkType::OffsetData => self.data(chunk, asked)?,
            ChunkType::OffsetHole => self.hole(chunk, asked)?,
            kind if kind.is_error() => {
                let problem = self.error(chunk)?;
                asked.error.get_or_insert(problem);
            }
            _ => {
                return Err(Problem::Violation(
                    "a chunk of a kind that was not asked for",
                ));
            }
        }
        if !done {
            return Ok(None);
        }
        if let Some(error) = asked.error.take() {
            return Ok(Some(Err(error)));
        }
        if let Some(into) = &asked.luggage.into
            && !asked.coverage.is_whole(into.len())
        {
            return Err(Problem::Violation("a read that is answered in part"));
        }
        Ok(Some(Ok(())))
    }

    fn data(&mut self, chunk: ChunkHeader, asked: &mut Asked) -> Result<(), Problem> {
        let Some(len) = chunk.len.checked_sub(8) else {
            return Err(Problem::Violation("data without an offset"));
        };
        let mut offset = [0; 8];
        // Only now, when there is such a request, is anything more taken.
        if asked.luggage.into.is_none() {
            return Err(NOT_A_READ);
        }
        self.fill(&mut offset)?;
        let place = place(asked, offset_of_data(&offset), len)?;
        self.fill(place)
    }

    fn hole(&mut self, chunk: ChunkHeader, asked: &mut Asked) -> Result<(), Problem> {
        let mut hole = [0; OffsetHole::LEN];
        if chunk.len != hole.len() as u64 {
            return Err(Problem::Violation("a hole of the wrong length"));
        }
        self.fill(&mut hole)?;
        let hole = OffsetHole::parse(&hole).map_err(Problem::Malformed)?;
        place(asked, hole.offset, hole.len.into())?.fill(0);
        Ok(())
    }

    fn error(&mut self, chunk: ChunkHeader) -> Result<Problem, Problem> {
        if chunk.len > LONGEST_ERROR {
            return Err(Problem::Violation("an error of immense length"));
        }
        let mut bytes = vec![0; usize::try_from(chunk.len).unwrap_or(0)];
        self.fill(&mut bytes)?;
        // Kinds of error to come begin as these do.
        let kind = match chunk.kind {
            ChunkType::ErrorOffset => ChunkType::ErrorOffset,
            _ => ChunkType::Error,
        };
        let error = ErrorChunk::parse(kind, &bytes).map_err(Problem::Malformed)?;
        Ok(answered(error.error, error.message))
    }

    /// Fills all of `into`, from what has come already and from the socket.
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
                    self.connection.hear();
                    return Ok(received);
                }
                // Who waits for an answer knows how long; without requests a server may be silent.
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(Problem::Closed);
                }
                Err(error) => return Err(Problem::Connection(error)),
            }
        }
    }
}

/// Whether a request has ended, and how.
type Ended = Option<Result<(), Problem>>;

const NOT_A_READ: Problem = Problem::Violation("data for a request that is no read");

/// Where the bytes of a range of the export belong, which is taken for them.
fn place(asked: &mut Asked, offset: u64, len: u64) -> Result<&mut [u8], Problem> {
    let into = asked.luggage.into.as_mut().ok_or(NOT_A_READ)?;
    let start = offset.checked_sub(asked.request.offset);
    let range = start.and_then(|start| {
        let start = usize::try_from(start).ok()?;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        (start < end && end <= into.len()).then_some(start..end)
    });
    let range = range.ok_or(Problem::Violation("data outside of what was asked for"))?;
    if !asked.coverage.add(range.clone()) {
        return Err(Problem::Violation("data that was there already"));
    }
    Ok(&mut into.as_mut_slice()[range])
}

fn answered(error: ErrorNumber, message: String) -> Problem {
    Problem::Answered { error, message }
}
