//! How the export begins, as far as that is known: what comes over a new connection has to begin so too.
//!
//! A server that was started anew may hold another disk behind the same name, as large as the first. Its beginning tells it apart
//! before anything is sent there: a volume begins with its header, which no other has, and the data of a detached header with ciphertext.
//!
//! The beginning is read over the first connection, and followed from then on. A change of our own that is not flushed may have come
//! as far as the storage or not: each piece of a sector, which a storage writes whole or not at all, may hold what a flush
//! made sure of or what any change brought since. A flush leaves the last one alone.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use luksmith_formats::nbd::{Command, CommandFlags};

use super::connection::{Connection, Luggage};
use super::error::{NbdError, Problem};
use crate::sectors::{Cipher, Sectors};

/// As much is looked at, in bytes; more where the export has larger blocks.
const LEN: u64 = 4096;

/// What is written whole or not at all, in bytes.
const PIECE: usize = 512;

/// The most contents that a piece may have; with more it may have any.
const MOST_VERSIONS: usize = 1024;

/// How often a beginning is read that our own flushes change meanwhile.
const TRIES: u32 = 4;

pub(super) struct Witness {
    len: usize,
    hasher: RandomState,
    state: Mutex<State>,
}

struct State {
    pieces: Vec<Piece>,
    /// The changes that have begun, and those that have ended.
    begun: u64,
    ended: u64,
    /// How often a flush has made sure of something.
    settled: u64,
}

struct Piece {
    /// What it may hold, from what the last flush made sure of to what was sent last.
    versions: Vec<Version>,
    /// The bytes of the last version, where they are known.
    newest: Option<Box<[u8]>>,
    under_way: u32,
    /// A change has failed without an answer: the server may carry it out late.
    unsure: bool,
}

struct Version {
    /// None: any.
    content: Option<u64>,
    change: u64,
    /// As which change it was acknowledged.
    ended: Option<u64>,
}

impl Version {
    /// A content that lies there.
    const fn there(content: Option<u64>) -> Self {
        Self {
            content,
            change: 0,
            ended: Some(0),
        }
    }
}

/// What a change brings.
#[derive(Clone, Copy)]
pub(super) enum Content<'a> {
    Bytes(&'a [u8]),
    Zeroes,
    /// What the server likes.
    Any,
}

impl Content<'_> {
    /// Puts its bytes from `skip` on into `piece`.
    fn fill(self, piece: &mut [u8], skip: usize) -> Option<()> {
        match self {
            Self::Bytes(bytes) => piece.copy_from_slice(bytes.get(skip..)?.get(..piece.len())?),
            Self::Zeroes => piece.fill(0),
            Self::Any => return None,
        }
        Some(())
    }
}

/// The moment before a read, which sees all changes until then.
#[derive(Clone, Copy)]
pub(super) struct BeforeRead(Option<u64>);

/// The moment before a flush, which covers all changes until then.
#[derive(Clone, Copy)]
pub(super) struct BeforeFlush(u64);

impl Witness {
    /// Of an export of so many bytes.
    pub(super) fn new(size: u64, block_size: u32) -> Self {
        let block = u64::from(block_size.max(1));
        let len = LEN.max(block).min(size - size % block);
        let len = usize::try_from(len).unwrap_or(0);
        let piece = || Piece {
            versions: vec![Version::there(None)],
            newest: None,
            under_way: 0,
            unsure: false,
        };
        Self {
            len,
            hasher: RandomState::new(),
            state: Mutex::new(State {
                pieces: (0..len.div_ceil(PIECE)).map(|_| piece()).collect(),
                begun: 0,
                ended: 0,
                settled: 0,
            }),
        }
    }

    // Nothing panics while it is held.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of_piece(&self, index: usize) -> Range<usize> {
        index * PIECE..self.len.min((index + 1) * PIECE)
    }

    /// Makes a change of the range, which brings `content` there.
    pub(super) fn changing<T>(
        &self,
        range: &Range<u64>,
        content: Content<'_>,
        change: impl FnOnce() -> Result<T, Arc<NbdError>>,
    ) -> Result<T, Arc<NbdError>> {
        let bound = |at: u64| usize::try_from(at).map_or(self.len, |at| at.min(self.len));
        let range = bound(range.start)..bound(range.end);
        if range.is_empty() {
            return change();
        }
        let number = self.begin(&range, content);
        let outcome = change();
        let answered = match &outcome {
            Ok(_) => true,
            Err(error) => matches!(error.source, Problem::Answered { .. }),
        };
        self.end(&range, number, outcome.is_ok(), answered);
        outcome
    }

    fn begin(&self, range: &Range<usize>, content: Content<'_>) -> u64 {
        let mut state = self.state();
        state.begun += 1;
        let change = state.begun;
        for index in range.start / PIECE..range.end.div_ceil(PIECE) {
            let whole = self.of_piece(index);
            let Some(piece) = state.pieces.get_mut(index) else {
                continue;
            };
            let part = range.start.max(whole.start)..range.end.min(whole.end);
            let mut bytes = match &mut piece.newest {
                // Two at the same time have no order.
                _ if piece.unsure || piece.under_way > 0 => None,
                Some(bytes) => Some(std::mem::take(bytes)),
                None if part == whole => Some(vec![0; whole.len()].into()),
                None => None,
            };
            let filled = bytes.as_mut().and_then(|bytes| {
                let into = bytes.get_mut(part.start - whole.start..part.end - whole.start)?;
                content.fill(into, part.start - range.start)
            });
            piece.newest = filled.and(bytes);
            if piece.versions.len() >= MOST_VERSIONS {
                piece.versions = vec![Version::there(None)];
            }
            piece.versions.push(Version {
                content: piece
                    .newest
                    .as_ref()
                    .map(|bytes| self.hasher.hash_one(bytes)),
                change,
                ended: None,
            });
            piece.under_way += 1;
        }
        change
    }

    fn end(&self, range: &Range<usize>, change: u64, went_well: bool, answered: bool) {
        let mut state = self.state();
        state.ended += 1;
        let ended = state.ended;
        let pieces = range.start / PIECE..range.end.div_ceil(PIECE);
        for piece in state.pieces.get_mut(pieces).into_iter().flatten() {
            piece.under_way = piece.under_way.saturating_sub(1);
            piece.unsure |= !answered;
            if !went_well {
                let any = Version {
                    content: None,
                    change,
                    ended: None,
                };
                piece.versions = vec![Version::there(None), any];
                piece.newest = None;
            }
            let made = piece.versions.iter_mut().find(|one| one.change == change);
            if let Some(made) = made {
                made.ended = Some(ended);
            }
        }
    }

    pub(super) fn before_flush(&self) -> BeforeFlush {
        BeforeFlush(self.state().ended)
    }

    /// A flush went well.
    pub(super) fn flushed(&self, BeforeFlush(ended): BeforeFlush) {
        let mut state = self.state();
        let mut settled = false;
        for piece in &mut state.pieces {
            let covered = |version: &Version| version.ended.is_some_and(|at| at <= ended);
            let sure = piece.versions.iter().rposition(covered).unwrap_or(0);
            piece.versions.drain(..sure);
            settled |= sure > 0;
        }
        state.settled += u64::from(settled);
    }

    pub(super) fn before_read(&self) -> BeforeRead {
        let state = self.state();
        let quiet = state.pieces.iter().all(|piece| piece.under_way == 0);
        BeforeRead(quiet.then_some(state.begun))
    }

    /// A read of the beginning went well.
    pub(super) fn learn(&self, BeforeRead(begun): BeforeRead, bytes: &[u8]) {
        let mut state = self.state();
        if begun != Some(state.begun) {
            return;
        }
        for (index, piece) in state.pieces.iter_mut().enumerate() {
            let unknown = matches!(piece.versions.as_slice(), [one] if one.content.is_none());
            if let Some(bytes) = bytes.get(self.of_piece(index))
                && unknown
                && !piece.unsure
            {
                piece.versions = vec![Version::there(Some(self.hasher.hash_one(bytes)))];
                piece.newest = Some(bytes.into());
            }
        }
    }

    /// Whether an export that begins so may be the same.
    fn agrees(&self, bytes: &[u8]) -> bool {
        let state = self.state();
        state.pieces.iter().enumerate().all(|(index, piece)| {
            let content = bytes
                .get(self.of_piece(index))
                .map(|bytes| self.hasher.hash_one(bytes));
            let may_be = |one: &Version| one.content.is_none() || one.content == content;
            piece.versions.iter().any(may_be)
        })
    }

    /// Refuses another disk at the end of a new connection, before anything is sent to it. One that cannot be read now is not known
    /// to be another.
    ///
    /// # Errors
    /// [`Problem::OtherDisk`], and why the connection broke.
    pub(super) fn recognise(&self, connection: &Connection) -> Result<(), Problem> {
        for _ in 0..TRIES {
            let settled = self.state().settled;
            let before = self.before_read();
            let Some(bytes) = self.read(connection)? else {
                return Ok(());
            };
            if self.agrees(bytes.as_slice()) {
                self.learn(before, bytes.as_slice());
                return Ok(());
            }
            // What was read may have been changed and flushed before it was looked at, over another connection.
            if self.state().settled == settled {
                return Err(Problem::OtherDisk);
            }
        }
        Err(Problem::Closed)
    }

    fn read(&self, connection: &Connection) -> Result<Option<Sectors<Cipher>>, Problem> {
        if self.len == 0 {
            return Ok(None);
        }
        let (command, place) = (Command::Read, (0, self.len as u64));
        let luggage = Luggage {
            into: Some(Sectors::with_len(self.len)),
            record: None,
        };
        let sent = connection.send(command, CommandFlags::NONE, place, &[], luggage);
        let answer = connection.wait(&sent.map_err(|_| Problem::Closed)?);
        match answer.outcome {
            Ok(()) => Ok(answer.luggage.into),
            Err(error) => match &error.source {
                Problem::Answered { .. } => Ok(None),
                Problem::Silent(patience) => Err(Problem::Silent(*patience)),
                _ => Err(Problem::Closed),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn witness(minimum: u32) -> Witness {
        Witness::new(1 << 20, minimum)
    }

    fn write(witness: &Witness, offset: u64, bytes: &[u8]) {
        let range = offset..offset + bytes.len() as u64;
        let done = witness.changing(&range, Content::Bytes(bytes), || Ok(()));
        done.unwrap();
    }

    fn flush(witness: &Witness) {
        witness.flushed(witness.before_flush());
    }

    fn learn(witness: &Witness, bytes: &[u8]) {
        witness.learn(witness.before_read(), bytes);
    }

    fn problem(source: Problem) -> Arc<NbdError> {
        let server = "server".into();
        Arc::new(NbdError { server, source })
    }

    fn with(piece: usize, byte: u8) -> Vec<u8> {
        let mut bytes = vec![1; 4096];
        bytes[piece * PIECE..][..PIECE].fill(byte);
        bytes
    }

    #[test]
    fn what_was_read_is_held_against_what_comes() {
        let witness = witness(512);
        assert!(witness.agrees(&[2; 4096]));
        learn(&witness, &[1; 8192]);
        assert!(witness.agrees(&[1; 4096]));
        assert!(!witness.agrees(&[2; 4096]));
        // Elsewhere anything may be changed.
        write(&witness, 4096, &[2; 4096]);
        flush(&witness);
        assert!(witness.agrees(&[1; 4096]) && !witness.agrees(&[2; 4096]));
    }

    #[test]
    fn until_a_flush_a_piece_holds_the_old_or_the_new() {
        let witness = witness(512);
        learn(&witness, &[1; 4096]);
        write(&witness, 512, &[2; 1024]);
        let early = witness.before_flush();
        write(&witness, 512, &[3; 512]);
        for (piece, byte) in [(1, 1), (1, 2), (1, 3), (2, 2)] {
            assert!(witness.agrees(&with(piece, byte)), "{piece} {byte}");
        }
        for (piece, byte) in [(0, 2), (1, 4), (2, 3)] {
            assert!(!witness.agrees(&with(piece, byte)), "{piece} {byte}");
        }
        // Of the second change this flush says nothing.
        witness.flushed(early);
        let now = |byte| {
            let mut bytes = with(1, byte);
            bytes[1024..1536].fill(2);
            bytes
        };
        assert!(witness.agrees(&now(2)) && witness.agrees(&now(3)));
        assert!(!witness.agrees(&now(1)) && !witness.agrees(&with(1, 2)));
        flush(&witness);
        assert!(!witness.agrees(&now(2)) && witness.agrees(&now(3)));
    }

    #[test]
    fn what_is_written_is_known_without_reading() {
        let witness = witness(512);
        write(&witness, 0, &[1; 4096]);
        assert!(witness.agrees(&[9; 4096]), "it is not flushed");
        flush(&witness);
        assert!(!witness.agrees(&[9; 4096]));
        let zeroed = witness.changing(&(512..1024), Content::Zeroes, || Ok(()));
        zeroed.unwrap();
        flush(&witness);
        assert!(witness.agrees(&with(1, 0)) && !witness.agrees(&[1; 4096]));
    }

    #[test]
    fn a_part_of_a_piece_needs_the_rest() {
        let witness = witness(1);
        write(&witness, 0, &[2; 100]);
        flush(&witness);
        assert!(witness.agrees(&[9; 4096]));
        learn(&witness, &with(0, 2));
        write(&witness, 500, &[3; 20]);
        flush(&witness);
        let mut bytes = with(0, 2);
        bytes[500..520].fill(3);
        assert!(witness.agrees(&bytes) && !witness.agrees(&with(0, 2)));
    }

    #[test]
    fn a_read_beside_a_change_says_nothing() {
        let witness = witness(1);
        let early = witness.before_read();
        let changed = witness.changing(&(0..4096), Content::Any, || {
            learn(&witness, &[1; 4096]);
            Ok(())
        });
        changed.unwrap();
        flush(&witness);
        witness.learn(early, &[1; 4096]);
        assert!(witness.agrees(&[2; 4096]));
        learn(&witness, &[1; 4096]);
        assert!(!witness.agrees(&[2; 4096]));
    }

    #[test]
    fn changes_at_the_same_time_have_no_order() {
        let witness = witness(512);
        learn(&witness, &[1; 4096]);
        let outer = witness.changing(&(0..512), Content::Bytes(&[2; 512]), || {
            write(&witness, 0, &[3; 512]);
            Ok(())
        });
        outer.unwrap();
        flush(&witness);
        for byte in [2, 3] {
            assert!(witness.agrees(&with(0, byte)));
        }
        // Another piece keeps what it has.
        assert!(!witness.agrees(&with(1, 2)));
        write(&witness, 0, &[4; 512]);
        flush(&witness);
        assert!(!witness.agrees(&with(0, 3)));
    }

    #[test]
    fn after_a_change_that_was_not_answered_nothing_is_sure() {
        let witness = witness(1);
        learn(&witness, &[1; 4096]);
        let range = 0..512;
        let answered = Problem::Answered {
            error: luksmith_formats::nbd::ErrorNumber::Io,
            message: String::new(),
        };
        let content = Content::Bytes(&[2; 512]);
        let failed = witness.changing(&range, content, || Err::<(), _>(problem(answered)));
        failed.unwrap_err();
        assert!(witness.agrees(&with(0, 9)) && !witness.agrees(&[9; 4096]));
        write(&witness, 0, &[3; 512]);
        flush(&witness);
        assert!(!witness.agrees(&with(0, 9)), "known again");

        let failed = witness.changing(&range, content, || Err::<(), _>(problem(Problem::Closed)));
        failed.unwrap_err();
        write(&witness, 0, &[3; 512]);
        flush(&witness);
        learn(&witness, &with(0, 3));
        assert!(witness.agrees(&with(0, 9)), "it may come late");
    }

    #[test]
    fn memory_is_bounded() {
        let witness = witness(512);
        for n in 0..5000_u32 {
            write(&witness, 0, &[n.to_le_bytes()[0]; 512]);
        }
        assert!(witness.state().pieces[0].versions.len() <= MOST_VERSIONS + 1);
        flush(&witness);
        assert_eq!(witness.state().pieces[0].versions.len(), 1);
        assert!(!witness.agrees(&[0; 4096]));
    }
}
