//! The way to the server, made anew when it breaks.
//!
//! Who finds it broken makes it again, with pauses that grow, until the patience is over; the others wait for that. Over a new
//! connection the changes of the journal go first, before anybody else's request. After the patience was over once, each later
//! request tries once and fails at once.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use luksmith_formats::nbd::uri::Uri;
use luksmith_formats::nbd::{Command, CommandFlags, TransmissionFlags};

use super::connection::{Connection, Luggage, Ticket};
use super::error::{NbdError, Problem};
use super::handshake::{self, Export};
use super::journal::{Change, Journal, Record};
use super::news::News;
use super::options::ConnectOptions;
use super::receive;
use super::session::Session;
use super::witness::Witness;
use crate::sectors::{Cipher, Sectors};

/// The first pause between two attempts to connect, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(2)];

/// How many changes are sent again at the same time.
const REPLAYED_AT_ONCE: usize = 16;

pub(super) struct Link {
    pub(super) uri: Uri,
    pub(super) options: ConnectOptions,
    /// What the export was at first; it has to stay so.
    pub(super) export: Export,
    pub(super) journal: Arc<Journal>,
    /// How it begins.
    pub(super) witness: Arc<Witness>,
    server: Arc<str>,
    news: News,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    session: Option<Arc<Session>>,
    connecting: bool,
    /// Why the last series of attempts was given up.
    gone: Option<Arc<NbdError>>,
    /// How many were.
    given_up: u64,
}

impl Link {
    /// The first connection, for which nobody waits longer than for one attempt.
    pub(super) fn connect(uri: Uri, options: ConnectOptions) -> Result<Self, NbdError> {
        let server: Arc<str> = uri.to_string().into();
        let of_server = |source| NbdError {
            server: server.clone(),
            source,
        };
        let (channel, export) = handshake::connect(&uri, options.timeout).map_err(of_server)?;
        if options.write && export.has(TransmissionFlags::READ_ONLY) {
            return Err(of_server(Problem::ReadOnly));
        }
        let journal = Arc::new(Journal::new(options.unflushed));
        let patience = options.timeout;
        let first = receive::start(channel, export, server.clone(), journal.clone(), patience)
            .map_err(of_server)?;
        let witness = Witness::new(export.size, export.minimum);
        if let Err(problem) = witness.recognise(&first) {
            first.close();
            return Err(of_server(problem));
        }
        let session = Session::new(first, options.connections);
        Ok(Self {
            uri,
            export,
            journal,
            witness: Arc::new(witness),
            state: Mutex::new(State {
                session: Some(Arc::new(session)),
                ..State::default()
            }),
            options,
            server,
            news: News::default(),
            changed: Condvar::new(),
        })
    }

    pub(super) fn error(&self, source: Problem) -> Arc<NbdError> {
        let server = self.server.clone();
        Arc::new(NbdError { server, source })
    }

    /// The connections as they are, or new ones.
    pub(super) fn session(&self) -> Result<Arc<Session>, Arc<NbdError>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let given_up = state.given_up;
        loop {
            match &state.session {
                Some(session) if !session.is_broken() => return Ok(session.clone()),
                _ => {}
            }
            if !state.connecting {
                break;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            match &state.gone {
                Some(reason) if state.given_up != given_up => return Err(reason.clone()),
                _ => {}
            }
        }
        state.connecting = true;
        let broken = state.session.take();
        let was_gone = state.gone.is_some();
        drop(state);

        if let Some(broken) = broken {
            broken.close();
        }
        let outcome = self.reconnect(was_gone);

        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.connecting = false;
        match &outcome {
            Ok(session) => {
                state.session = Some(session.clone());
                state.gone = None;
            }
            Err(reason) => {
                state.gone = Some(reason.clone());
                state.given_up += 1;
            }
        }
        self.changed.notify_all();
        outcome
    }

    fn reconnect(&self, once: bool) -> Result<Arc<Session>, Arc<NbdError>> {
        let until = Instant::now() + self.options.timeout;
        let [mut pause, longest] = PAUSES;
        loop {
            let problem = match self.attempt() {
                Ok(session) => return Ok(Arc::new(session)),
                Err(problem) => problem,
            };
            tracing::debug!(server = %self.server, %problem, "no connection");
            if once || !problem.passes() || Instant::now() + pause > until {
                self.news.given_up(&self.server, &problem);
                return Err(self.error(problem));
            }
            let patience = self.options.timeout;
            self.news.waiting(&self.server, &problem, patience);
            std::thread::sleep(pause);
            pause = (pause * 2).min(longest);
        }
    }

    fn attempt(&self) -> Result<Session, Problem> {
        let (channel, export) = handshake::connect(&self.uri, self.options.timeout)?;
        let was = self.export;
        if export.size < was.size {
            let (was, is) = (was.size, export.size);
            return Err(Problem::Shrunk { was, is });
        }
        if export.minimum > was.minimum || export.maximum < was.maximum {
            return Err(Problem::OtherBlocks);
        }
        if self.options.write && export.has(TransmissionFlags::READ_ONLY) {
            return Err(Problem::ReadOnly);
        }
        let (server, journal) = (self.server.clone(), self.journal.clone());
        let first = receive::start(channel, export, server, journal, self.options.timeout)?;
        if let Err(problem) = self
            .witness
            .recognise(&first)
            .and_then(|()| self.replay(&first))
        {
            first.close();
            return Err(problem);
        }
        self.news.well(&self.server);
        Ok(Session::new(first, self.options.connections))
    }

    /// Sends the changes of the journal again, and flushes them: under a server that falls over again and again, there is less to send
    /// each time. What it refuses is lost, and with it every later flush.
    fn replay(&self, connection: &Connection) -> Result<(), Problem> {
        let mark = self.journal.mark();
        let replayed = self.journal.replay(|records| {
            let mut flying: VecDeque<(Ticket, &Record)> = VecDeque::new();
            for (_, record) in records {
                // A server may carry out in any order what it has at the same time.
                while flying.len() == REPLAYED_AT_ONCE
                    || flying.iter().any(|(_, before)| before.overlaps(record))
                {
                    let Some((ticket, _)) = flying.pop_front() else {
                        break;
                    };
                    made_again(connection, &ticket)?;
                }
                let ticket = send_again(connection, record).ok_or(Problem::Closed)?;
                flying.push_back((ticket, record));
            }
            for (ticket, _) in flying {
                made_again(connection, &ticket)?;
            }
            if records.is_empty() {
                return Ok(());
            }
            let (command, flags) = (Command::Flush, CommandFlags::NONE);
            let flush = connection.send(command, flags, (0, 0), &[], Luggage::default());
            made_again(connection, &flush.map_err(|_| Problem::Closed)?)
        });
        match replayed {
            Ok(()) => {
                self.journal.cover(mark);
                Ok(())
            }
            Err(Problem::Lost) => {
                tracing::error!(server = %self.server, "refuses what it had acknowledged before");
                self.journal.lose();
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Leaves the server.
    pub(super) fn leave(&self) {
        let session = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.session.take()
        };
        if let Some(session) = session {
            session.say_goodbye();
            session.close();
        }
    }
}

fn send_again(connection: &Connection, record: &Record) -> Option<Ticket> {
    let place = (record.offset, record.len());
    let send = |command, flags, payload: &[u8]| {
        let sent = connection.send(command, flags, place, payload, Luggage::default());
        sent.ok()
    };
    match &record.change {
        Change::Bytes(bytes) => send(Command::Write, CommandFlags::NONE, bytes.as_slice()),
        Change::Zeroes(_) => send(Command::WriteZeroes, CommandFlags::NO_HOLE, &[]),
    }
}

fn made_again(connection: &Connection, ticket: &Ticket) -> Result<(), Problem> {
    let answer = connection.wait(ticket);
    answer.outcome.map_err(|error| match &error.source {
        Problem::Answered { .. } => Problem::Lost,
        Problem::Silent(patience) => Problem::Silent(*patience),
        _ => Problem::Closed,
    })
}

/// A copy of what is about to be written.
pub(super) fn copy_of(bytes: &[u8]) -> Sectors<Cipher> {
    let mut copy = Sectors::<Cipher>::with_len(bytes.len());
    copy.as_mut_slice().copy_from_slice(bytes);
    copy
}
