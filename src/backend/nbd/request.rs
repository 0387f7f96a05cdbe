//! Sends requests and waits for their replies. If a connection breaks, a request is sent again over
//! a new one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use luksmith_formats::nbd::{Command, CommandFlags, ErrorNumber};

use super::connection::{Connection, Pending, Resources};
use super::error::{NbdError, Problem};
use super::link::Link;
use super::patience::Patience;
use crate::sectors::{Cipher, Sectors};

/// The first pause after a connection broke for the second time, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];

/// A request that is no larger than the export allows.
pub(super) struct Piece<'a> {
    pub(super) command: Command,
    pub(super) flags: CommandFlags,
    pub(super) offset: u64,
    pub(super) len: u64,
    /// The payload of a write.
    pub(super) payload: &'a [u8],
    pub(super) resources: Resources,
}

/// A piece in flight.
struct Submission<'a> {
    piece: Piece<'a>,
    connection: Arc<Connection>,
    pending: Pending,
    breaks: Breaks,
}

/// The connections that broke while a request was in flight. A server may crash each time because
/// of this request, or for another reason. So it is sent again for a time, and not a number of
/// times.
#[derive(Default)]
struct Breaks {
    count: u32,
    first: Option<Instant>,
}

impl Breaks {
    /// One more connection broke. Waits before the next one is used, except the first time.
    fn another(&mut self, patience: &Patience) -> Result<(), Problem> {
        self.count += 1;
        let Some(first) = self.first else {
            self.first = Some(Instant::now());
            return Ok(());
        };
        if first.elapsed() >= patience.timeout {
            return Err(Problem::TooOften(self.count));
        }
        let [shortest, longest] = PAUSES;
        let doubled = 1_u32 << (self.count - 2).min(10);
        patience.pause((shortest * doubled).min(longest))
    }
}

impl Link {
    /// Carries out one piece. Returns what it has filled.
    pub(super) fn carry_out(&self, piece: Piece<'_>) -> Result<Resources, Arc<NbdError>> {
        let submission = self.submit(piece, Breaks::default())?;
        self.complete(submission)
    }

    /// Carries out several pieces, `at_once` of them at the same time, and passes the buffers of
    /// reads to `take` in order. After an error no further piece is sent.
    pub(super) fn carry_out_all<'a>(
        &self,
        pieces: impl Iterator<Item = Result<Piece<'a>, Arc<NbdError>>>,
        at_once: usize,
        mut take: impl FnMut(Sectors<Cipher>),
    ) -> Result<(), Arc<NbdError>> {
        let mut in_flight = VecDeque::with_capacity(at_once);
        let mut outcome = Ok(());
        let mut complete =
            |submission, outcome: &mut Result<(), Arc<NbdError>>| match self.complete(submission) {
                Ok(filled) => filled.into.into_iter().for_each(&mut take),
                Err(error) => *outcome = std::mem::replace(outcome, Ok(())).and(Err(error)),
            };
        for piece in pieces {
            if in_flight.len() == at_once
                && let Some(submission) = in_flight.pop_front()
            {
                complete(submission, &mut outcome);
            }
            if outcome.is_err() {
                break;
            }
            match piece.and_then(|piece| self.submit(piece, Breaks::default())) {
                Ok(submission) => in_flight.push_back(submission),
                Err(error) => outcome = Err(error),
            }
        }
        for submission in in_flight {
            complete(submission, &mut outcome);
        }
        outcome
    }

    fn submit<'a>(
        &self,
        mut piece: Piece<'a>,
        mut breaks: Breaks,
    ) -> Result<Submission<'a>, Arc<NbdError>> {
        loop {
            let session = match self.session() {
                Ok(session) => session,
                Err(error) => return Err(self.give_up(piece, error)),
            };
            let connection = session.pick(&self.uri, &self.identity).clone();
            let place = (piece.offset, piece.len);
            let resources = std::mem::take(&mut piece.resources);
            match connection.send(piece.command, piece.flags, place, piece.payload, resources) {
                Ok(pending) => {
                    return Ok(Submission {
                        piece,
                        connection,
                        pending,
                        breaks,
                    });
                }
                Err(resources) => piece.resources = resources,
            }
            if let Err(problem) = breaks.another(&self.patience) {
                return Err(self.give_up(piece, self.error(problem)));
            }
        }
    }

    fn complete(&self, mut submission: Submission<'_>) -> Result<Resources, Arc<NbdError>> {
        loop {
            let completion = submission.connection.wait(submission.pending);
            let (mut piece, mut breaks) = (submission.piece, submission.breaks);
            piece.resources = completion.resources;
            let error = match completion.outcome {
                Ok(()) => return Ok(piece.resources),
                Err(error) => error,
            };
            if is_shutdown(&error.source) {
                // The client has to disconnect from a server that shuts down ("Error values").
                submission.connection.fail(Problem::Closed);
            } else if !error.source.is_of_the_connection() {
                return Err(self.give_up(piece, error));
            }
            if let Err(problem) = breaks.another(&self.patience) {
                return Err(self.give_up(piece, self.error(problem)));
            }
            if let Some(extents) = &mut piece.resources.extents {
                extents.clear();
            }
            submission = self.submit(piece, breaks)?;
        }
    }

    /// Releases the resources of a piece that has failed.
    fn give_up(&self, piece: Piece<'_>, error: Arc<NbdError>) -> Arc<NbdError> {
        if let Some(record) = &piece.resources.record {
            self.journal.release(record);
        }
        error
    }
}

fn is_shutdown(problem: &Problem) -> bool {
    matches!(
        problem,
        Problem::Answered {
            error: ErrorNumber::Shutdown,
            ..
        }
    )
}
