//! The transmission phase of one connection: requests in, answers out (section "Transmission").
//!
//! Requests are served here, one after the other, while the storage answers from memory; answers are gathered until
//! nothing more can be read without waiting. A long request with another one behind it goes to the connection's second
//! thread. Where the storage waits, requests go to the pool.

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use luksmith_formats::FormatError;
use luksmith_formats::nbd::{Command, CommandFlags, Request};

use super::execute::{Serving, WHOLE, pieces};
use super::flight::{Flight, Place};
use super::input::Input;
use super::replies::{Form, Replies};
use super::second::Second;
use super::{MAX_PAYLOAD, Shared};
use crate::export::budget::Held;
use crate::sectors::{Plain, Sectors};

/// Zeroes of more than this are a matter for the pool, in bytes: others would wait too long behind them.
const LONG: u64 = 4 << 20;

/// What is worth waking the second thread for and no burden to hold in memory whole, in bytes.
const FOR_THE_SECOND: RangeInclusive<u64> = 128 << 10..=4 << 20;

/// A write of so many bytes takes so much longer than waking the second thread that it always goes there. A shorter one has
/// to have another request behind it.
const LONG_WRITE: u64 = 512 << 10;

/// Serves until the client leaves, all its requests are answered, and none is under way.
pub(super) fn serve(serving: Arc<Serving>, server: &Arc<Shared>) -> io::Result<()> {
    let mut transmission = Transmission {
        serving,
        server,
        input: Input::new(&server.watch),
        replies: Replies::default(),
        second: None,
        flight: None,
    };
    let outcome = transmission.run();
    let outcome = outcome.and(transmission.send());
    if let Some(second) = transmission.second {
        second.finish();
    }
    if let Some(flight) = transmission.flight {
        flight.finish();
    }
    outcome
}

struct Transmission<'a> {
    serving: Arc<Serving>,
    server: &'a Arc<Shared>,
    input: Input<'a>,
    replies: Replies,
    second: Option<Second>,
    flight: Option<Flight>,
}

impl Transmission<'_> {
    fn run(&mut self) -> io::Result<()> {
        while let Some(request) = self.next()? {
            match request.command {
                Command::Disconnect => break,
                Command::Write => self.write(&request)?,
                _ => self.without_payload(&request)?,
            }
        }
        Ok(())
    }

    fn next(&mut self) -> io::Result<Option<Request>> {
        let nonsense = |error: FormatError| io::Error::new(io::ErrorKind::InvalidData, error);
        if self.serving.form == Form::Extended {
            let header = self.header()?;
            header
                .map(|header| Request::parse_extended(&header).map_err(nonsense))
                .transpose()
        } else {
            let header = self.header()?;
            header
                .map(|header| Request::parse_compact(&header).map_err(nonsense))
                .transpose()
        }
    }

    fn header<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        if self.input.ready() < N || self.replies.is_full() {
            self.send()?;
        }
        self.input.header(&self.serving.channel)
    }

    fn send(&mut self) -> io::Result<()> {
        self.replies.send(&self.serving.channel)
    }

    fn write(&mut self, request: &Request) -> io::Result<()> {
        self.refuse_payload_over_limit(request)?;
        if let Err(refusal) = self.serving.check(request) {
            self.skip(request.len)?;
            self.replies.refuse(self.serving.form, request, &refusal);
            return Ok(());
        }
        let fua_waits =
            request.flags.contains(CommandFlags::FUA) && self.serving.export.flush_waits();
        if let Some(place) = self.place_if(fua_waits, request, request.len)? {
            let payload = self.receive_all(request)?;
            let request = *request;
            place.run(move |serving, out| serving.write(&request, payload, out));
            return Ok(());
        }
        if let Some(held) = self.held_for_the_second(request) {
            // All of it, without a pause in which the client would go to sleep over a full socket.
            let payload = self.receive_all(request)?;
            let is_followed =
                request.len >= LONG_WRITE || self.input.has_more(&self.serving.channel)?;
            if !(is_followed && self.second()?.is_free()) {
                self.serving.write(request, payload, &mut self.replies);
                return Ok(());
            }
            let request = *request;
            self.second()?.run(move |serving, out| {
                serving.write(&request, payload, out);
                drop(held);
                Ok(())
            });
            return Ok(());
        }
        let mut written = Ok(());
        for (at, len) in pieces(request) {
            let bytes = self.receive(len)?;
            written = written.and_then(|()| self.serving.export.write(at, bytes));
        }
        self.serving.written(request, written, &mut self.replies);
        Ok(())
    }

    fn without_payload(&mut self, request: &Request) -> io::Result<()> {
        if request.flags.contains(CommandFlags::PAYLOAD_LEN) && self.serving.form == Form::Extended
        {
            // It is refused below; what follows it is to be passed over first.
            self.refuse_payload_over_limit(request)?;
            self.skip(request.len)?;
        }
        if let Err(refusal) = self.serving.check(request) {
            self.replies.refuse(self.serving.form, request, &refusal);
            return Ok(());
        }
        if request.command == Command::Read {
            return self.read(request);
        }
        let (flush_waits, fua) = (
            self.serving.export.flush_waits(),
            request.flags.contains(CommandFlags::FUA),
        );
        let long = match request.command {
            Command::Flush => flush_waits,
            Command::Trim | Command::WriteZeroes => request.len > LONG || (fua && flush_waits),
            _ => false,
        };
        if let Some(place) = self.place_if(long, request, 0)? {
            let request = *request;
            place.run(move |serving, out| serving.other(&request, out));
        } else {
            self.serving.other(request, &mut self.replies);
        }
        Ok(())
    }

    fn read(&mut self, request: &Request) -> io::Result<()> {
        if let Some(place) = self.place_if(false, request, request.len)? {
            let request = *request;
            place.run(move |serving, out| {
                // Nothing is sent in between, which is all that can fail.
                let _ = serving.read(&request, true, out, &mut |_| Ok(()));
            });
            return Ok(());
        }
        if let Some(held) = self.held_for_the_second(request)
            && self.input.has_more(&self.serving.channel)?
            && self.second()?.is_free()
        {
            let request = *request;
            self.second()?.run(move |serving, out| {
                let mut full = |replies: &mut Replies| replies.send(&serving.channel);
                serving.read(&request, true, out, &mut full)?;
                // The bytes are in memory until they are sent.
                out.send(&serving.channel)?;
                drop(held);
                Ok(())
            });
            return Ok(());
        }
        let bytes = usize::try_from(request.len).unwrap_or(usize::MAX);
        // The bytes are in memory until they are sent.
        let held = (bytes > WHOLE)
            .then(|| self.server.budget.hold(bytes))
            .flatten();
        let whole = bytes <= WHOLE || held.is_some();
        if !whole && self.serving.form == Form::Simple {
            // It goes out in several pieces, and no other answer may come between them.
            self.wait_for_the_others();
        }
        let serving = self.serving.clone();
        let mut full = |replies: &mut Replies| replies.send(&serving.channel);
        serving.read(request, whole, &mut self.replies, &mut full)?;
        if held.is_some() {
            self.send()?;
        }
        Ok(())
    }

    /// What a request takes in memory, if it is one for the second thread.
    fn held_for_the_second(&self, request: &Request) -> Option<Held> {
        let bytes = usize::try_from(request.len).ok()?;
        (FOR_THE_SECOND.contains(&request.len))
            .then(|| self.server.budget.hold(bytes))
            .flatten()
    }

    fn second(&mut self) -> io::Result<&Second> {
        match &mut self.second {
            Some(second) => Ok(second),
            none => Ok(none.insert(Second::new(&self.serving)?)),
        }
    }

    /// Until nobody else has an answer to send.
    fn wait_for_the_others(&self) {
        if let Some(second) = &self.second {
            second.wait();
        }
        if let Some(flight) = &self.flight {
            flight.wait();
        }
    }

    /// A place in the pool where the storage waits or `long` says so.
    fn place_if(&mut self, long: bool, request: &Request, bytes: u64) -> io::Result<Option<Place>> {
        let data = !matches!(request.command, Command::Flush);
        if !(long || data && self.serving.export.waits()) {
            return Ok(None);
        }
        if self.flight.is_none() {
            self.flight = Some(Flight::new(&self.serving, self.server)?);
        }
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        Ok(self.flight.as_ref().and_then(|flight| flight.place(bytes)))
    }

    fn receive_all(&mut self, request: &Request) -> io::Result<Vec<(u64, Sectors<Plain>)>> {
        pieces(request)
            .map(|(at, len)| Ok((at, self.receive(len)?)))
            .collect()
    }

    fn receive(&mut self, len: usize) -> io::Result<Sectors<Plain>> {
        if self.input.ready() < len {
            self.send()?;
        }
        let mut bytes = Sectors::<Plain>::with_len(len);
        self.input
            .payload(&self.serving.channel, bytes.as_mut_slice())?;
        Ok(bytes)
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        if (self.input.ready() as u64) < bytes {
            self.send()?;
        }
        self.input.skip(&self.serving.channel, bytes)
    }

    /// A payload longer than any that was agreed on is not even passed over.
    fn refuse_payload_over_limit(&self, request: &Request) -> io::Result<()> {
        if request.len <= u64::from(MAX_PAYLOAD) {
            return Ok(());
        }
        let message = format!("a payload of {} bytes", request.len);
        Err(io::Error::new(io::ErrorKind::InvalidData, message))
    }
}
