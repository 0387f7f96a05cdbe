//! The receiving side of a connection. It reads ahead, so that many small requests cost one system
//! call.

use std::io;

use luksmith_formats::nbd::Request;

use crate::channel::Channel;
use crate::export::busy_poll::{BusyPoll, BusyPollers};
use crate::sectors::{Plain, Sectors};

/// How far to read ahead, in bytes.
pub(super) const AHEAD: usize = 64 << 10;

/// Received bytes that have not been taken yet. They are plaintext of a guest, so they are in a
/// buffer that is wiped.
pub(super) struct Input<'a> {
    buffer: Sectors<Plain>,
    start: usize,
    end: usize,
    /// Whether the last payload was long, and so received directly into its own buffer. If so, the
    /// next header is received without the bytes that follow it, to avoid a copy of those.
    large: bool,
    poll: BusyPoll<'a>,
}

impl<'a> Input<'a> {
    pub(super) fn new(pollers: &'a BusyPollers) -> Self {
        Self {
            buffer: Sectors::with_len(AHEAD),
            start: 0,
            end: 0,
            large: false,
            poll: BusyPoll::new(pollers),
        }
    }

    /// As [`BusyPoll::has_slept`].
    pub(super) fn has_slept(&mut self) -> bool {
        self.poll.has_slept()
    }

    /// How many bytes can be taken without receiving more.
    pub(super) fn ready(&self) -> usize {
        self.end - self.start
    }

    /// Takes the next `N` bytes; `None` at the end of the stream.
    pub(super) fn header<const N: usize>(
        &mut self,
        channel: &Channel,
    ) -> io::Result<Option<[u8; N]>> {
        while self.ready() < N {
            if self.start > 0 {
                let rest = self.start..self.end;
                self.buffer.as_mut_slice().copy_within(rest, 0);
                (self.start, self.end) = (0, self.ready());
            }
            let until = if self.large { N } else { AHEAD };
            let room = &mut self.buffer.as_mut_slice()[self.end..until];
            match receive(&mut self.poll, channel, room)? {
                0 if self.ready() == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                received => self.end += received,
            }
        }
        self.large = false;
        let mut header = [0; N];
        header.copy_from_slice(&self.buffer.as_slice()[self.start..self.start + N]);
        self.start += N;
        Ok(Some(header))
    }

    /// Whether a part of the next request has arrived. Does not wait.
    pub(super) fn has_more(&mut self, channel: &Channel) -> io::Result<bool> {
        if self.ready() == 0 {
            let until = if self.large {
                Request::COMPACT_LEN
            } else {
                AHEAD
            };
            let received = channel.recv_now(&mut self.buffer.as_mut_slice()[..until])?;
            // At the end of the stream, the next call of `header` receives the end again.
            (self.start, self.end) = (0, received.unwrap_or(0));
        }
        Ok(self.ready() > 0)
    }

    /// Takes the next bytes, as many as `into` holds.
    pub(super) fn payload(&mut self, channel: &Channel, into: &mut [u8]) -> io::Result<()> {
        let (here, mut there) = into.split_at_mut(self.ready().min(into.len()));
        here.copy_from_slice(&self.buffer.as_slice()[self.start..self.start + here.len()]);
        self.start += here.len();
        self.large = there.len() >= AHEAD;
        while !there.is_empty() {
            match receive(&mut self.poll, channel, there)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                received => there = &mut there[received..],
            }
        }
        Ok(())
    }

    /// Skips the next bytes.
    pub(super) fn skip(&mut self, channel: &Channel, mut bytes: u64) -> io::Result<()> {
        let here = bytes.min(self.ready() as u64);
        self.start += usize::try_from(here).unwrap_or(usize::MAX);
        bytes -= here;
        while bytes > 0 {
            (self.start, self.end) = (0, 0);
            let most = usize::try_from(bytes).map_or(AHEAD, |bytes| bytes.min(AHEAD));
            match channel.recv(&mut self.buffer.as_mut_slice()[..most])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                received => bytes -= received as u64,
            }
        }
        Ok(())
    }
}

/// As [`Channel::recv`], and polls while the client keeps sending without delay.
fn receive(poll: &mut BusyPoll<'_>, channel: &Channel, mut into: &mut [u8]) -> io::Result<usize> {
    if channel.is_tls() {
        return channel.recv(into);
    }
    let now = |into: &mut &mut [u8]| channel.recv_now(into).transpose();
    poll.wait(&mut into, now, |into| channel.recv(into))
}
