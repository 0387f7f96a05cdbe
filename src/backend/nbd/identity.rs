//! Recognises an export by its first 4 KiB, and refuses another disk after a reconnect.
//!
//! A restarted server may offer another disk of the same size under the same name. The first bytes
//! tell them apart before anything is sent: a volume begins with its own header, and the data of a
//! detached header begins with ciphertext.
//!
//! The first bytes are read over the first connection, and changes to them are tracked from then
//! on. A change that is not flushed may or may not have reached the storage. So each 512-byte
//! piece, which a storage writes as a whole or not at all, may contain what the last flush made
//! durable or what any later change wrote. A flush leaves only the last of these.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use luksmith_formats::nbd::{Command, CommandFlags};

use super::connection::{Connection, Resources};
use super::error::{NbdError, Problem};
use crate::sectors::{Cipher, Sectors};

/// How many bytes are compared. With larger blocks of the export it is one block.
const LEN: u64 = 4096;

/// The unit that is written as a whole or not at all, in bytes.
const PIECE: usize = 512;

/// The most possible contents of a piece that are tracked. With more, any content is possible.
const MAX_VERSIONS: usize = 1024;

/// How often the first bytes are read again if flushes of this client change them meanwhile.
const MAX_TRIES: u32 = 4;

/// The possible contents of the first bytes of an export.
pub(super) struct Identity {
    len: usize,
    hasher: RandomState,
    state: Mutex<State>,
}

struct State {
    pieces: Vec<Piece>,
    /// How many changes have begun.
    begun: u64,
    /// How many changes have ended.
    ended: u64,
    /// How many flushes have made a change durable.
    settled: u64,
}

struct Piece {
    /// The possible contents, from the durable one to that of the last change.
    versions: Vec<Version>,
    /// The bytes of the last version, where they are known.
    newest: Option<Box<[u8]>>,
    /// How many changes of it are in flight.
    in_flight: u32,
    /// A change has failed without a reply. The server may still carry it out.
    unsure: bool,
}

struct Version {
    /// The hash; `None` for any content.
    content: Option<u64>,
    change: u64,
    /// The value of [`State::ended`] when it was acknowledged.
    ended: Option<u64>,
}

impl Version {
    /// Content that is on the storage.
    const fn stored(content: Option<u64>) -> Self {
        Self {
            content,
            change: 0,
            ended: Some(0),
        }
    }
}

/// The bytes that a change writes.
#[derive(Clone, Copy)]
pub(super) enum Content<'a> {
    Bytes(&'a [u8]),
    Zeroes,
    /// Any bytes: the server decides.
    Any,
}

impl Content<'_> {
    /// Copies its bytes from `skip` on into `piece`.
    fn fill(self, piece: &mut [u8], skip: usize) -> Option<()> {
        match self {
            Self::Bytes(bytes) => piece.copy_from_slice(bytes.get(skip..)?.get(..piece.len())?),
            Self::Zeroes => piece.fill(0),
            Self::Any => return None,
        }
        Some(())
    }
}

/// A point in time before a read. The read sees all changes that ended before.
#[derive(Clone, Copy)]
pub(super) struct BeforeRead(Option<u64>);

/// A point in time before a flush. The flush covers all changes that ended before.
#[derive(Clone, Copy)]
pub(super) struct BeforeFlush(u64);

impl Identity {
    /// The identity of an export of this size, with unknown content.
    pub(super) fn new(size: u64, block_size: u32) -> Self {
        let block = u64::from(block_size.max(1));
        let len = LEN.max(block).min(size - size % block);
        let len = usize::try_from(len).unwrap_or(0);
        let piece = || Piece {
            versions: vec![Version::stored(None)],
            newest: None,
            in_flight: 0,
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

    // No code panics while it holds the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of a piece.
    fn of_piece(&self, index: usize) -> Range<usize> {
        index * PIECE..self.len.min((index + 1) * PIECE)
    }

    /// Runs `change`, which writes `content` to the range, and tracks what that does to the first
    /// bytes.
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
        let replied = match &outcome {
            Ok(_) => true,
            Err(error) => matches!(error.source, Problem::Answered { .. }),
        };
        self.end(&range, number, outcome.is_ok(), replied);
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
                // Two changes in flight at the same time have no order.
                _ if piece.unsure || piece.in_flight > 0 => None,
                Some(bytes) => Some(std::mem::take(bytes)),
                None if part == whole => Some(vec![0; whole.len()].into()),
                None => None,
            };
            let filled = bytes.as_mut().and_then(|bytes| {
                let into = bytes.get_mut(part.start - whole.start..part.end - whole.start)?;
                content.fill(into, part.start - range.start)
            });
            piece.newest = filled.and(bytes);
            if piece.versions.len() >= MAX_VERSIONS {
                piece.versions = vec![Version::stored(None)];
            }
            piece.versions.push(Version {
                content: piece
                    .newest
                    .as_ref()
                    .map(|bytes| self.hasher.hash_one(bytes)),
                change,
                ended: None,
            });
            piece.in_flight += 1;
        }
        change
    }

    fn end(&self, range: &Range<usize>, change: u64, succeeded: bool, replied: bool) {
        let mut state = self.state();
        state.ended += 1;
        let ended = state.ended;
        let pieces = range.start / PIECE..range.end.div_ceil(PIECE);
        for piece in state.pieces.get_mut(pieces).into_iter().flatten() {
            piece.in_flight = piece.in_flight.saturating_sub(1);
            piece.unsure |= !replied;
            if !succeeded {
                let any = Version {
                    content: None,
                    change,
                    ended: None,
                };
                piece.versions = vec![Version::stored(None), any];
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

    /// A flush succeeded that began at this point in time.
    pub(super) fn flushed(&self, BeforeFlush(ended): BeforeFlush) {
        let mut state = self.state();
        let mut settled = false;
        for piece in &mut state.pieces {
            let covered = |version: &Version| version.ended.is_some_and(|at| at <= ended);
            let durable = piece.versions.iter().rposition(covered).unwrap_or(0);
            piece.versions.drain(..durable);
            settled |= durable > 0;
        }
        state.settled += u64::from(settled);
    }

    pub(super) fn before_read(&self) -> BeforeRead {
        let state = self.state();
        let quiet = state.pieces.iter().all(|piece| piece.in_flight == 0);
        BeforeRead(quiet.then_some(state.begun))
    }

    /// A read of the first bytes succeeded that began at this point in time.
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
                piece.versions = vec![Version::stored(Some(self.hasher.hash_one(bytes)))];
                piece.newest = Some(bytes.into());
            }
        }
    }

    /// Whether an export with these first bytes may be the same one.
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

    /// Reads the first bytes over a new connection and refuses another disk. If the server replies
    /// with an error, the export is not refused.
    ///
    /// # Errors
    /// [`Problem::OtherDisk`], and problems of the connection.
    pub(super) fn recognise(&self, connection: &Connection) -> Result<(), Problem> {
        for _ in 0..MAX_TRIES {
            let settled = self.state().settled;
            let before = self.before_read();
            let Some(bytes) = self.read(connection)? else {
                return Ok(());
            };
            if self.agrees(bytes.as_slice()) {
                self.learn(before, bytes.as_slice());
                return Ok(());
            }
            // Over another connection the bytes may have been changed and flushed since the read.
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
        let resources = Resources {
            into: Some(Sectors::with_len(self.len)),
            ..Resources::default()
        };
        let sent = connection.send(command, CommandFlags::NONE, place, &[], resources);
        let completion = connection.wait(sent.map_err(|_| Problem::Closed)?);
        match completion.outcome {
            Ok(()) => Ok(completion.resources.into),
            Err(error) => match &error.source {
                Problem::Answered { .. } => Ok(None),
                problem => Err(problem.of_lost_request()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(minimum: u32) -> Identity {
        Identity::new(1 << 20, minimum)
    }

    fn write(identity: &Identity, offset: u64, bytes: &[u8]) {
        let range = offset..offset + bytes.len() as u64;
        let done = identity.changing(&range, Content::Bytes(bytes), || Ok(()));
        done.unwrap();
    }

    fn flush(identity: &Identity) {
        identity.flushed(identity.before_flush());
    }

    fn learn(identity: &Identity, bytes: &[u8]) {
        identity.learn(identity.before_read(), bytes);
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
    fn first_bytes_that_were_read_have_to_stay() {
        let identity = identity(512);
        assert!(identity.agrees(&[2; 4096]));
        learn(&identity, &[1; 8192]);
        assert!(identity.agrees(&[1; 4096]));
        assert!(!identity.agrees(&[2; 4096]));
        // Changes elsewhere do not count.
        write(&identity, 4096, &[2; 4096]);
        flush(&identity);
        assert!(identity.agrees(&[1; 4096]) && !identity.agrees(&[2; 4096]));
    }

    #[test]
    fn until_a_flush_a_piece_has_the_old_or_the_new_content() {
        let identity = identity(512);
        learn(&identity, &[1; 4096]);
        write(&identity, 512, &[2; 1024]);
        let early = identity.before_flush();
        write(&identity, 512, &[3; 512]);
        for (piece, byte) in [(1, 1), (1, 2), (1, 3), (2, 2)] {
            assert!(identity.agrees(&with(piece, byte)), "{piece} {byte}");
        }
        for (piece, byte) in [(0, 2), (1, 4), (2, 3)] {
            assert!(!identity.agrees(&with(piece, byte)), "{piece} {byte}");
        }
        // This flush does not cover the second change.
        identity.flushed(early);
        let now = |byte| {
            let mut bytes = with(1, byte);
            bytes[1024..1536].fill(2);
            bytes
        };
        assert!(identity.agrees(&now(2)) && identity.agrees(&now(3)));
        assert!(!identity.agrees(&now(1)) && !identity.agrees(&with(1, 2)));
        flush(&identity);
        assert!(!identity.agrees(&now(2)) && identity.agrees(&now(3)));
    }

    #[test]
    fn written_bytes_are_known_without_reading_them() {
        let identity = identity(512);
        write(&identity, 0, &[1; 4096]);
        assert!(identity.agrees(&[9; 4096]), "it is not flushed");
        flush(&identity);
        assert!(!identity.agrees(&[9; 4096]));
        let zeroed = identity.changing(&(512..1024), Content::Zeroes, || Ok(()));
        zeroed.unwrap();
        flush(&identity);
        assert!(identity.agrees(&with(1, 0)) && !identity.agrees(&[1; 4096]));
    }

    #[test]
    fn the_content_of_a_piece_is_known_only_as_a_whole() {
        let identity = identity(1);
        write(&identity, 0, &[2; 100]);
        flush(&identity);
        assert!(identity.agrees(&[9; 4096]));
        learn(&identity, &with(0, 2));
        write(&identity, 500, &[3; 20]);
        flush(&identity);
        let mut bytes = with(0, 2);
        bytes[500..520].fill(3);
        assert!(identity.agrees(&bytes) && !identity.agrees(&with(0, 2)));
    }

    #[test]
    fn a_read_during_a_change_teaches_nothing() {
        let identity = identity(1);
        let early = identity.before_read();
        let changed = identity.changing(&(0..4096), Content::Any, || {
            learn(&identity, &[1; 4096]);
            Ok(())
        });
        changed.unwrap();
        flush(&identity);
        identity.learn(early, &[1; 4096]);
        assert!(identity.agrees(&[2; 4096]));
        learn(&identity, &[1; 4096]);
        assert!(!identity.agrees(&[2; 4096]));
    }

    #[test]
    fn changes_at_the_same_time_have_no_order() {
        let identity = identity(512);
        learn(&identity, &[1; 4096]);
        let outer = identity.changing(&(0..512), Content::Bytes(&[2; 512]), || {
            write(&identity, 0, &[3; 512]);
            Ok(())
        });
        outer.unwrap();
        flush(&identity);
        for byte in [2, 3] {
            assert!(identity.agrees(&with(0, byte)));
        }
        // Other pieces are not affected.
        assert!(!identity.agrees(&with(1, 2)));
        write(&identity, 0, &[4; 512]);
        flush(&identity);
        assert!(!identity.agrees(&with(0, 3)));
    }

    #[test]
    fn after_a_change_without_a_reply_any_content_is_possible() {
        let identity = identity(1);
        learn(&identity, &[1; 4096]);
        let range = 0..512;
        let answered = Problem::Answered {
            error: luksmith_formats::nbd::ErrorNumber::Io,
            message: String::new(),
        };
        let content = Content::Bytes(&[2; 512]);
        let failed = identity.changing(&range, content, || Err::<(), _>(problem(answered)));
        failed.unwrap_err();
        assert!(identity.agrees(&with(0, 9)) && !identity.agrees(&[9; 4096]));
        write(&identity, 0, &[3; 512]);
        flush(&identity);
        assert!(!identity.agrees(&with(0, 9)), "known again");

        let failed = identity.changing(&range, content, || Err::<(), _>(problem(Problem::Closed)));
        failed.unwrap_err();
        write(&identity, 0, &[3; 512]);
        flush(&identity);
        learn(&identity, &with(0, 3));
        assert!(
            identity.agrees(&with(0, 9)),
            "the server may carry it out late"
        );
    }

    #[test]
    fn memory_is_bounded() {
        let identity = identity(512);
        for n in 0..5000_u32 {
            write(&identity, 0, &[n.to_le_bytes()[0]; 512]);
        }
        assert!(identity.state().pieces[0].versions.len() <= MAX_VERSIONS + 1);
        flush(&identity);
        assert_eq!(identity.state().pieces[0].versions.len(), 1);
        assert!(!identity.agrees(&[0; 4096]));
    }
}
