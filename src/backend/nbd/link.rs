//! The link to the server, which reconnects when a connection breaks.
//!
//! The first thread that finds the connection broken reconnects, with growing pauses between the
//! attempts, until the timeout. Other threads wait for it. Over a new connection the changes of the
//! journal are sent before any other request. After one timeout, each later request tries only
//! once.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use luksmith_formats::nbd::uri::Uri;
use luksmith_formats::nbd::{Command, CommandFlags, TransmissionFlags};

use super::connection::{Connection, Pending, Resources};
use super::error::{NbdError, Problem};
use super::handshake::{self, Export};
use super::identity::Identity;
use super::journal::{Change, Journal, Record};
use super::options::ConnectOptions;
use super::patience::{Deadline, Patience};
use super::receive;
use super::session::Session;
use super::state_log::StateLog;
use crate::Interrupt;
use crate::sectors::{Cipher, Sectors};

/// The first pause between two attempts to connect, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(2)];

/// How many changes of the journal are sent again at the same time.
const REPLAYED_AT_ONCE: usize = 16;

pub(super) struct Link {
    pub(super) uri: Uri,
    pub(super) options: ConnectOptions,
    pub(super) patience: Patience,
    /// The properties of the export when it was opened. They have to stay the same.
    pub(super) export: Export,
    pub(super) journal: Arc<Journal>,
    /// Recognises the export by its first bytes.
    pub(super) identity: Arc<Identity>,
    server: Arc<str>,
    state_log: StateLog,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    session: Option<Arc<Session>>,
    connecting: bool,
    /// Why the last reconnect failed.
    unreachable: Option<Arc<NbdError>>,
    /// How many reconnects have failed.
    failures: u64,
}

impl Link {
    /// Opens the first connection. There is only one attempt.
    pub(super) fn connect(
        uri: Uri,
        options: ConnectOptions,
        interrupt: Interrupt,
    ) -> Result<Self, NbdError> {
        let server: Arc<str> = uri.to_string().into();
        let of_server = |source| NbdError {
            server: server.clone(),
            source,
        };
        let patience = Patience {
            timeout: options.timeout,
            interrupt,
        };
        let (channel, export) =
            handshake::connect(&uri, options.extents, options.timeout, &patience)
                .map_err(of_server)?;
        if options.write && export.has(TransmissionFlags::READ_ONLY) {
            return Err(of_server(Problem::ReadOnly));
        }
        let journal = Arc::new(Journal::new(options.unflushed));
        let first = receive::start(
            channel,
            export,
            server.clone(),
            journal.clone(),
            patience.clone(),
        )
        .map_err(of_server)?;
        let identity = Identity::new(export.size, export.minimum);
        if let Err(problem) = identity.recognise(&first) {
            first.close();
            return Err(of_server(problem));
        }
        let session = Session::new(first, options.connections);
        Ok(Self {
            uri,
            export,
            journal,
            identity: Arc::new(identity),
            state: Mutex::new(State {
                session: Some(Arc::new(session)),
                ..State::default()
            }),
            options,
            patience,
            server,
            state_log: StateLog::default(),
            changed: Condvar::new(),
        })
    }

    pub(super) fn error(&self, source: Problem) -> Arc<NbdError> {
        let server = self.server.clone();
        Arc::new(NbdError { server, source })
    }

    /// The open connections. Reconnects if one is broken.
    pub(super) fn session(&self) -> Result<Arc<Session>, Arc<NbdError>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = state.failures;
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
            match &state.unreachable {
                Some(reason) if state.failures != failures => return Err(reason.clone()),
                _ => {}
            }
        }
        state.connecting = true;
        let broken = state.session.take();
        let was_unreachable = state.unreachable.is_some();
        drop(state);

        if let Some(broken) = broken {
            broken.close();
        }
        let outcome = self.reconnect(was_unreachable);

        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.connecting = false;
        match &outcome {
            Ok(session) => {
                state.session = Some(session.clone());
                state.unreachable = None;
            }
            Err(reason) => {
                state.unreachable = Some(reason.clone());
                state.failures += 1;
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
            if once || !problem.is_transient() || Instant::now() + pause > until {
                self.state_log.failed(&self.server, &problem);
                return Err(self.error(problem));
            }
            let timeout = self.options.timeout;
            self.state_log.waiting(&self.server, &problem, timeout);
            let paused = self.patience.pause(pause);
            paused.map_err(|problem| self.error(problem))?;
            pause = (pause * 2).min(longest);
        }
    }

    fn attempt(&self) -> Result<Session, Problem> {
        let patience = self.patience.clone();
        let was = self.export;
        let extents = was.allocation.is_some();
        let (channel, export) =
            handshake::connect(&self.uri, extents, self.options.timeout, &patience)?;
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
        let first = receive::start(channel, export, server, journal, patience)?;
        if let Err(problem) = self
            .identity
            .recognise(&first)
            .and_then(|()| self.replay(&first))
        {
            first.close();
            return Err(problem);
        }
        self.state_log.connected(&self.server);
        Ok(Session::new(first, self.options.connections))
    }

    /// Sends the changes of the journal again and flushes them, so that there are fewer to send if
    /// the server crashes again. If the server refuses one, it is lost, and every later flush
    /// fails.
    fn replay(&self, connection: &Connection) -> Result<(), Problem> {
        let mark = self.journal.mark();
        let patience = self.patience.clone();
        let replayed = self.journal.replay(|records| {
            let bytes = records.iter().map(|(_, record)| record.payload()).sum();
            let deadline = patience.deadline(patience.time_for(bytes));
            let mut in_flight: VecDeque<(Pending, &Record)> = VecDeque::new();
            for (_, record) in records {
                // A server may carry out requests in any order that are in flight at the same time.
                while in_flight.len() == REPLAYED_AT_ONCE
                    || in_flight.iter().any(|(_, before)| before.overlaps(record))
                {
                    let Some((pending, _)) = in_flight.pop_front() else {
                        break;
                    };
                    wait_for(connection, pending, &deadline)?;
                }
                let pending = send_again(connection, record).ok_or(Problem::Closed)?;
                in_flight.push_back((pending, record));
            }
            for (pending, _) in in_flight {
                wait_for(connection, pending, &deadline)?;
            }
            if records.is_empty() {
                return Ok(());
            }
            let (command, flags) = (Command::Flush, CommandFlags::NONE);
            let flush = connection.send(command, flags, (0, 0), &[], Resources::default());
            wait_for(connection, flush.map_err(|_| Problem::Closed)?, &deadline)
        });
        match replayed {
            Ok(()) => {
                self.journal.cover(mark);
                Ok(())
            }
            Err(Problem::Lost) => {
                tracing::error!(server = %self.server, "the server refuses a change that it had acknowledged before");
                self.journal.lose();
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Disconnects from the server.
    pub(super) fn disconnect(&self) {
        let session = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.session.take()
        };
        if let Some(session) = session {
            session.disconnect();
            session.close();
        }
    }
}

fn send_again(connection: &Connection, record: &Record) -> Option<Pending> {
    let place = (record.offset, record.len());
    let send = |command, flags, payload: &[u8]| {
        let sent = connection.send(command, flags, place, payload, Resources::default());
        sent.ok()
    };
    match &record.change {
        Change::Bytes(bytes) => send(Command::Write, CommandFlags::NONE, bytes.as_slice()),
        Change::Zeroes(_) => send(Command::WriteZeroes, CommandFlags::NO_HOLE, &[]),
    }
}

/// The deadline is for all requests together, each of which has a limit of its own.
fn wait_for(connection: &Connection, pending: Pending, deadline: &Deadline) -> Result<(), Problem> {
    let completion = connection.wait(pending);
    completion.outcome.map_err(|error| match &error.source {
        Problem::Answered { .. } => Problem::Lost,
        problem => problem.of_lost_request(),
    })?;
    deadline.check()
}

/// A copy of bytes that are about to be written. A copy of plain data is wiped when it is freed.
pub(super) fn copy_of(bytes: &[u8], plain: bool) -> Sectors<Cipher> {
    let mut copy = match plain {
        true => Sectors::<Cipher>::unencrypted(bytes.len()),
        false => Sectors::<Cipher>::with_len(bytes.len()),
    };
    copy.as_mut_slice().copy_from_slice(bytes);
    copy
}
