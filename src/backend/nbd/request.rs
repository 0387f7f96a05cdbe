//! A request from its sending to its answer, over as many connections as it takes.

use std::collections::VecDeque;
use std::sync::Arc;

use luksmith_formats::nbd::{Command, CommandFlags, ErrorNumber};

use super::connection::{Connection, Luggage, Ticket};
use super::error::{NbdError, Problem};
use super::link::Link;
use crate::sectors::{Cipher, Sectors};

/// How often a request is sent; one under which the server falls over each time has an end.
const TRIES: u32 = 5;

/// What is asked of the export, no larger than it takes.
pub(super) struct Piece<'a> {
    pub(super) command: Command,
    pub(super) flags: CommandFlags,
    pub(super) offset: u64,
    pub(super) len: u64,
    /// What a write carries.
    pub(super) payload: &'a [u8],
    pub(super) luggage: Luggage,
}

/// A piece that is under way.
struct Flight<'a> {
    piece: Piece<'a>,
    connection: Arc<Connection>,
    ticket: Ticket,
    tries: u32,
}

impl Link {
    /// Carries one piece out, and gives back the buffer of a read.
    pub(super) fn carry_out(
        &self,
        piece: Piece<'_>,
    ) -> Result<Option<Sectors<Cipher>>, Arc<NbdError>> {
        let flight = self.take_off(piece, 0)?;
        self.land(flight)
    }

    /// Carries pieces out, several at the same time, and hands the buffers of reads on, in order. After an error no further piece
    /// is begun.
    pub(super) fn carry_out_all<'a>(
        &self,
        pieces: impl Iterator<Item = Result<Piece<'a>, Arc<NbdError>>>,
        at_once: usize,
        mut take: impl FnMut(Sectors<Cipher>),
    ) -> Result<(), Arc<NbdError>> {
        let mut flying = VecDeque::with_capacity(at_once);
        let mut outcome = Ok(());
        let mut land = |flight, outcome: &mut Result<(), Arc<NbdError>>| match self.land(flight) {
            Ok(Some(buffer)) => take(buffer),
            Ok(None) => {}
            Err(error) => *outcome = std::mem::replace(outcome, Ok(())).and(Err(error)),
        };
        for piece in pieces {
            if flying.len() == at_once
                && let Some(flight) = flying.pop_front()
            {
                land(flight, &mut outcome);
            }
            if outcome.is_err() {
                break;
            }
            match piece.and_then(|piece| self.take_off(piece, 0)) {
                Ok(flight) => flying.push_back(flight),
                Err(error) => outcome = Err(error),
            }
        }
        for flight in flying {
            land(flight, &mut outcome);
        }
        outcome
    }

    fn take_off<'a>(
        &self,
        mut piece: Piece<'a>,
        mut tries: u32,
    ) -> Result<Flight<'a>, Arc<NbdError>> {
        while tries < TRIES {
            tries += 1;
            let session = match self.session() {
                Ok(session) => session,
                Err(error) => return Err(self.give_up(piece, error)),
            };
            let connection = session.pick(&self.uri, &self.witness).clone();
            let place = (piece.offset, piece.len);
            let luggage = std::mem::take(&mut piece.luggage);
            match connection.send(piece.command, piece.flags, place, piece.payload, luggage) {
                Ok(ticket) => {
                    return Ok(Flight {
                        piece,
                        connection,
                        ticket,
                        tries,
                    });
                }
                Err(luggage) => piece.luggage = luggage,
            }
        }
        let error = self.error(Problem::TooOften(TRIES));
        Err(self.give_up(piece, error))
    }

    fn land(&self, mut flight: Flight<'_>) -> Result<Option<Sectors<Cipher>>, Arc<NbdError>> {
        loop {
            let answer = flight.connection.wait(&flight.ticket);
            let mut piece = flight.piece;
            piece.luggage = answer.luggage;
            let error = match answer.outcome {
                Ok(()) => return Ok(piece.luggage.into),
                Err(error) => error,
            };
            if is_shutdown(&error.source) {
                // The client has to leave such a server ("Error values").
                flight.connection.fail(Problem::Closed);
            } else if !error.source.is_of_the_connection() {
                return Err(self.give_up(piece, error));
            }
            flight = self.take_off(piece, flight.tries)?;
        }
    }

    fn give_up(&self, piece: Piece<'_>, error: Arc<NbdError>) -> Arc<NbdError> {
        if let Some(record) = &piece.luggage.record {
            self.journal.give_up(record);
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
