//! Replies that wait to be sent. Many are sent with one system call, and their data from the buffer
//! in which it was decrypted.

use std::io::{self, IoSlice};

use luksmith_formats::nbd::{
    ChunkFlags, ChunkHeader, ChunkType, ErrorChunk, ErrorNumber, Request, SimpleReply,
    offset_to_bytes,
};

use super::error::Refusal;
use crate::channel::Channel;
use crate::export::Bytes;

/// Replies are sent once this many bytes have been gathered.
const FULL_BYTES: usize = 256 << 10;
/// Replies are sent once this many have been gathered.
const FULL_REPLIES: usize = 64;

/// The form of replies that client and server have agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Form {
    #[default]
    Simple,
    Structured,
    Extended,
}

/// Replies, in the order in which they will be sent.
#[derive(Default)]
pub(super) struct Replies {
    /// The headers, and the payloads that are no data, one after the other.
    heads: Vec<u8>,
    /// Data, each with the end of those `heads` that precede it.
    bodies: Vec<(usize, Bytes)>,
    replies: usize,
    bytes: usize,
}

impl Replies {
    pub(super) fn is_empty(&self) -> bool {
        self.heads.is_empty() && self.bodies.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= FULL_BYTES || self.replies >= FULL_REPLIES
    }

    /// Sends all of them, with no other reply in between.
    pub(super) fn send(&mut self, channel: &Channel) -> io::Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let mut parts = Vec::with_capacity(2 * self.bodies.len() + 1);
        let mut sent = 0;
        for (end, body) in &self.bodies {
            if *end > sent {
                parts.push(IoSlice::new(&self.heads[sent..*end]));
            }
            parts.push(IoSlice::new(body.as_slice()));
            sent = *end;
        }
        if self.heads.len() > sent {
            parts.push(IoSlice::new(&self.heads[sent..]));
        }
        let outcome = channel.send(&mut parts);
        drop(parts);
        self.heads.clear();
        self.bodies.clear();
        (self.replies, self.bytes) = (0, 0);
        outcome
    }

    /// Moves all of `others` behind these.
    pub(super) fn append(&mut self, others: &mut Self) {
        let shift = self.heads.len();
        self.heads.append(&mut others.heads);
        let shifted = others
            .bodies
            .drain(..)
            .map(|(end, body)| (end + shift, body));
        self.bodies.extend(shifted);
        self.replies += std::mem::take(&mut others.replies);
        self.bytes += std::mem::take(&mut others.bytes);
    }

    /// Adds the reply to a request that succeeded and has no data, or none left.
    pub(super) fn done(&mut self, form: Form, request: &Request) {
        if form == Form::Extended {
            self.chunk(form, request, ChunkType::None, true, &[]);
        } else {
            self.simple(request, ErrorNumber::None);
        }
    }

    /// Adds the reply to a request that failed.
    pub(super) fn refuse(&mut self, form: Form, request: &Request, refusal: &Refusal) {
        if form == Form::Simple {
            return self.simple(request, refusal.error);
        }
        let error = ErrorChunk {
            error: refusal.error,
            message: refusal.message.clone(),
            offset: None,
        };
        self.chunk(form, request, error.kind(), true, &error.to_bytes());
    }

    /// Adds a chunk of a structured reply that is not data.
    pub(super) fn chunk(
        &mut self,
        form: Form,
        request: &Request,
        kind: ChunkType,
        last: bool,
        payload: &[u8],
    ) {
        self.chunk_header(form, request, kind, last, payload.len());
        self.heads.extend_from_slice(payload);
        self.count(payload.len());
    }

    /// Begins a simple reply with data, or a data chunk of a structured one: `len` bytes from
    /// `offset` on, which calls of [`body`](Self::body) add.
    pub(super) fn data(
        &mut self,
        form: Form,
        request: &Request,
        last: bool,
        offset: u64,
        len: usize,
    ) {
        if form == Form::Simple {
            return self.simple(request, ErrorNumber::None);
        }
        let prefix = offset_to_bytes(offset);
        let kind = ChunkType::OffsetData;
        self.chunk_header(form, request, kind, last, prefix.len() + len);
        self.heads.extend_from_slice(&prefix);
        self.count(prefix.len());
    }

    /// Adds the next bytes of a reply that [`data`](Self::data) has begun.
    pub(super) fn body(&mut self, body: Bytes) {
        self.bytes += body.as_slice().len();
        self.bodies.push((self.heads.len(), body));
    }

    fn simple(&mut self, request: &Request, error: ErrorNumber) {
        let cookie = request.cookie;
        let reply = SimpleReply { error, cookie }.to_bytes();
        self.heads.extend_from_slice(&reply);
        self.count(reply.len());
    }

    fn chunk_header(
        &mut self,
        form: Form,
        request: &Request,
        kind: ChunkType,
        last: bool,
        len: usize,
    ) {
        let header = ChunkHeader {
            flags: ChunkFlags::NONE.with_if(ChunkFlags::DONE, last),
            kind,
            cookie: request.cookie,
            offset: request.offset,
            len: len as u64,
        };
        if form == Form::Extended {
            self.heads.extend_from_slice(&header.to_extended());
        } else {
            self.heads.extend_from_slice(&header.to_structured());
        }
    }

    fn count(&mut self, bytes: usize) {
        self.replies += 1;
        self.bytes += bytes;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use luksmith_formats::nbd::{Command, CommandFlags};

    use super::*;
    use crate::sectors::{Plain, Sectors};

    #[test]
    fn data_can_be_sent_in_parts_without_further_headers() {
        let (here, mut there) = UnixStream::pair().unwrap();
        let channel = Channel::plain(here.into());
        let request = Request {
            flags: CommandFlags::NONE,
            command: Command::Read,
            cookie: 7,
            offset: 0,
            len: 1024,
        };
        let mut out = Replies::default();
        out.data(Form::Simple, &request, true, 0, 1024);
        for _ in 0..2 {
            out.body(Sectors::<Plain>::zeroed(512).into());
            out.send(&channel).unwrap();
            assert!(out.is_empty());
        }
        drop(channel);
        let mut received = Vec::new();
        there.read_to_end(&mut received).unwrap();
        assert_eq!(received.len(), SimpleReply::LEN + 1024);
    }
}
