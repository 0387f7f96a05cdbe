//! The transmission phase of one connection (section "Transmission").
//!
//! While the storage answers from memory, this thread serves the requests one after the other. It
//! gathers the replies until there is no request left that it could take without waiting. The first
//! reply after the thread has slept is sent at once: the client sleeps too if all its requests are
//! here, and wakes up while the others are served. A long
//! request that is followed by another one goes to the second thread of the connection. While the
//! storage makes its callers wait, requests go to the pool.

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use luksmith_formats::FormatError;
use luksmith_formats::nbd::{Command, CommandFlags, Request};

use super::execute::{Session, WHOLE, pieces};
use super::in_flight::{InFlight, Slot};
use super::input::Input;
use super::replies::{Form, Replies};
use super::second_thread::SecondThread;
use super::shared::Shared;
use crate::export::budget::Held;
use crate::sectors::{Plain, Sectors};

/// Zeroing, discarding and prefetching more bytes than this goes to the pool, since other requests
/// of the connection would wait too long for it.
const LONG: u64 = 4 << 20;

/// The lengths of requests, in bytes, that can go to the second thread: long enough to be worth
/// waking it, and short enough to be held in memory as a whole.
const FOR_SECOND_THREAD: RangeInclusive<u64> = 128 << 10..=4 << 20;

/// A write of this many bytes takes so much longer than waking the second thread that it always
/// goes there. A shorter one goes there only if another request follows it.
const LONG_WRITE: u64 = 512 << 10;

/// The longest payload of a refused request that is skipped, so that the client gets its reply, in
/// bytes. A client that announces more has lost its place in the stream, or wants to keep a thread
/// busy.
const LONGEST_SKIPPED: u64 = 256 << 20;

/// Serves the requests of a client until it leaves. Returns once all its requests have their
/// replies.
pub(super) fn serve(session: Arc<Session>, server: &Arc<Shared>) -> io::Result<()> {
    let mut transmission = Transmission {
        session,
        server,
        input: Input::new(&server.busy_pollers),
        replies: Replies::default(),
        second_thread: None,
        in_flight: None,
    };
    let outcome = transmission.run();
    let outcome = outcome.and(transmission.send());
    if let Some(thread) = transmission.second_thread {
        thread.finish();
    }
    if let Some(in_flight) = transmission.in_flight {
        in_flight.finish();
    }
    outcome
}

struct Transmission<'a> {
    session: Arc<Session>,
    server: &'a Arc<Shared>,
    input: Input<'a>,
    replies: Replies,
    second_thread: Option<SecondThread>,
    in_flight: Option<InFlight>,
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
        let invalid = |error: FormatError| io::Error::new(io::ErrorKind::InvalidData, error);
        if self.session.form == Form::Extended {
            let header = self.header()?;
            header
                .map(|header| Request::parse_extended(&header).map_err(invalid))
                .transpose()
        } else {
            let header = self.header()?;
            header
                .map(|header| Request::parse_compact(&header).map_err(invalid))
                .transpose()
        }
    }

    fn header<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        if self.input.ready() < N
            || self.replies.is_full()
            || (!self.replies.is_empty() && self.input.has_slept())
        {
            self.send()?;
        }
        self.input.header(&self.session.channel)
    }

    fn send(&mut self) -> io::Result<()> {
        self.replies.send(&self.session.channel)
    }

    fn write(&mut self, request: &Request) -> io::Result<()> {
        Self::refuse_endless_payload(request)?;
        if let Err(refusal) = self.session.check(request) {
            self.skip(request.len)?;
            self.replies.refuse(self.session.form, request, &refusal);
            return Ok(());
        }
        let fua_waits =
            request.flags.contains(CommandFlags::FUA) && self.session.export.flush_waits();
        if let Some(slot) = self.slot_if(fua_waits, request, request.len)? {
            let payload = self.receive_all(request)?;
            let request = *request;
            slot.submit(move |session, out| session.write(&request, payload, out));
            return Ok(());
        }
        if let Some(held) = self.hold_for_second_thread(request) {
            // The whole payload is received at once: in a pause the socket would be full and the
            // client would go to sleep.
            let payload = self.receive_all(request)?;
            let is_followed =
                request.len >= LONG_WRITE || self.input.has_more(&self.session.channel)?;
            if !(is_followed && self.second_thread()?.is_free()) {
                self.session.write(request, payload, &mut self.replies);
                return Ok(());
            }
            let request = *request;
            self.second_thread()?.submit(move |session, out| {
                session.write(&request, payload, out);
                drop(held);
                Ok(())
            });
            return Ok(());
        }
        let mut written = Ok(());
        for (at, len) in pieces(request) {
            let bytes = self.receive(len)?;
            written = written.and_then(|()| self.session.write_piece(at, bytes));
        }
        self.session.written(request, written, &mut self.replies);
        Ok(())
    }

    fn without_payload(&mut self, request: &Request) -> io::Result<()> {
        if request.flags.contains(CommandFlags::PAYLOAD_LEN) && self.session.form == Form::Extended
        {
            // It is refused below. Its payload has to be skipped first.
            Self::refuse_endless_payload(request)?;
            self.skip(request.len)?;
        }
        if let Err(refusal) = self.session.check(request) {
            self.replies.refuse(self.session.form, request, &refusal);
            return Ok(());
        }
        if request.command == Command::Read {
            return self.read(request);
        }
        let (flush_waits, fua) = (
            self.session.export.flush_waits(),
            request.flags.contains(CommandFlags::FUA),
        );
        let long = match request.command {
            Command::Flush => flush_waits,
            Command::Trim | Command::WriteZeroes => request.len > LONG || (fua && flush_waits),
            Command::Cache => request.len > LONG,
            _ => false,
        };
        if let Some(slot) = self.slot_if(long, request, 0)? {
            let request = *request;
            slot.submit(move |session, out| session.other(&request, out));
        } else {
            self.session.other(request, &mut self.replies);
        }
        Ok(())
    }

    fn read(&mut self, request: &Request) -> io::Result<()> {
        if let Some(slot) = self.slot_if(false, request, request.len)? {
            let request = *request;
            slot.submit(move |session, out| {
                // It can fail only where it sends, and it does not send here.
                let _ = session.read(&request, true, out, &mut |_| Ok(()));
            });
            return Ok(());
        }
        if let Some(held) = self.hold_for_second_thread(request)
            && self.input.has_more(&self.session.channel)?
            && self.second_thread()?.is_free()
        {
            let request = *request;
            self.second_thread()?.submit(move |session, out| {
                let mut full = |replies: &mut Replies| replies.send(&session.channel);
                session.read(&request, true, out, &mut full)?;
                // The bytes stay in memory until they are sent.
                out.send(&session.channel)?;
                drop(held);
                Ok(())
            });
            return Ok(());
        }
        let bytes = usize::try_from(request.len).unwrap_or(usize::MAX);
        // The bytes stay in memory until they are sent.
        let held = (bytes > WHOLE)
            .then(|| self.server.budget.hold(bytes))
            .flatten();
        let whole = bytes <= WHOLE || held.is_some();
        if !whole && self.session.form == Form::Simple {
            // The reply is sent in several pieces, and no other reply must come between them.
            self.wait_for_other_replies();
        }
        let session = self.session.clone();
        let mut full = |replies: &mut Replies| replies.send(&session.channel);
        session.read(request, whole, &mut self.replies, &mut full)?;
        if held.is_some() {
            self.send()?;
        }
        Ok(())
    }

    /// Takes the bytes of a request from the budget, if the request can go to the second thread.
    fn hold_for_second_thread(&self, request: &Request) -> Option<Held> {
        let bytes = usize::try_from(request.len).ok()?;
        (FOR_SECOND_THREAD.contains(&request.len))
            .then(|| self.server.budget.hold(bytes))
            .flatten()
    }

    fn second_thread(&mut self) -> io::Result<&SecondThread> {
        match &mut self.second_thread {
            Some(thread) => Ok(thread),
            none => Ok(none.insert(SecondThread::new(&self.session)?)),
        }
    }

    /// Waits until no other thread has a reply to send on this connection.
    fn wait_for_other_replies(&self) {
        if let Some(thread) = &self.second_thread {
            thread.wait();
        }
        if let Some(in_flight) = &self.in_flight {
            in_flight.wait();
        }
    }

    /// A slot for the request in the pool, if the storage makes its callers wait or `long` is set,
    /// and the limits admit it.
    fn slot_if(&mut self, long: bool, request: &Request, bytes: u64) -> io::Result<Option<Slot>> {
        let data = !matches!(request.command, Command::Flush);
        if !(long || data && self.session.export.waits()) {
            return Ok(None);
        }
        if self.in_flight.is_none() {
            self.in_flight = Some(InFlight::new(&self.session, self.server)?);
        }
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        Ok(self
            .in_flight
            .as_ref()
            .and_then(|in_flight| in_flight.admit(bytes)))
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
            .payload(&self.session.channel, bytes.as_mut_slice())?;
        Ok(bytes)
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        if (self.input.ready() as u64) < bytes {
            self.send()?;
        }
        self.input.skip(&self.session.channel, bytes)
    }

    /// Fails, which closes the connection, if the payload is so long that it is not even skipped.
    fn refuse_endless_payload(request: &Request) -> io::Result<()> {
        if request.len <= LONGEST_SKIPPED {
            return Ok(());
        }
        let message = format!("a payload of {} bytes", request.len);
        Err(io::Error::new(io::ErrorKind::InvalidData, message))
    }
}
