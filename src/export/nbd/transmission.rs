//! The transmission phase of one connection: requests in, answers out (section "Transmission").
//!
//! Requests are served here, one after the other, while the storage answers from memory; answers are gathered until
//! nothing more can be read without waiting. Where the storage waits, requests go to the pool.

use std::io;
use std::sync::Arc;

use luksmith_formats::FormatError;
use luksmith_formats::nbd::{Command, CommandFlags, Request};

use super::execute::{Serving, WHOLE, pieces};
use super::flight::{Flight, Place};
use super::input::Input;
use super::replies::{Form, Replies};
use super::{MAX_PAYLOAD, Shared};
use crate::sectors::{Plain, Sectors};

/// Zeroes of more than this are a matter for the pool, in bytes: others would wait too long behind them.
const LONG: u64 = 4 << 20;

/// Serves until the client leaves, all its requests are answered, and none is under way.
pub(super) fn serve(serving: Arc<Serving>, server: &Arc<Shared>) -> io::Result<()> {
    let mut transmission = Transmission {
        serving,
        server,
        input: Input::new(),
        replies: Replies::default(),
        flight: None,
    };
    let outcome = transmission.run();
    let outcome = outcome.and(transmission.send());
    if let Some(flight) = transmission.flight {
        flight.finish();
    }
    outcome
}

struct Transmission<'a> {
    serving: Arc<Serving>,
    server: &'a Arc<Shared>,
    input: Input,
    replies: Replies,
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
            request.flags.contains(CommandFlags::FUA) && self.serving.export.flush_pace.waits();
        if let Some(place) = self.place_if(fua_waits, request, request.len)? {
            let mut payload = Vec::new();
            for (at, len) in pieces(request) {
                payload.push((at, self.receive(len)?));
            }
            let request = *request;
            place.run(move |serving, out| serving.write(&request, payload, out));
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
            self.serving.export.flush_pace.waits(),
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
        let serving = self.serving.clone();
        let bytes = usize::try_from(request.len).unwrap_or(usize::MAX);
        let budget = &self.server.budget;
        let taken = bytes > WHOLE && budget.try_take(bytes);
        let mut full = |replies: &mut Replies| replies.send(&serving.channel);
        let whole = bytes <= WHOLE || taken;
        let mut outcome = serving.read(request, whole, &mut self.replies, &mut full);
        if taken {
            // The bytes are in memory until they are sent.
            outcome = outcome.and_then(|()| self.replies.send(&serving.channel));
            budget.give_back(bytes);
        }
        outcome
    }

    /// A place in the pool where the storage waits or `long` says so.
    fn place_if(&mut self, long: bool, request: &Request, bytes: u64) -> io::Result<Option<Place>> {
        let data = !matches!(request.command, Command::Flush);
        if !(long || data && self.serving.export.pace.waits()) {
            return Ok(None);
        }
        if self.flight.is_none() {
            self.flight = Some(Flight::new(&self.serving, self.server)?);
        }
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        Ok(self.flight.as_ref().and_then(|flight| flight.place(bytes)))
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
