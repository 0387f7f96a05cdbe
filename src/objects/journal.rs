//! A local file that has what was written and is not in the store yet, so that a flush need not
//! wait for the store.
//!
//! Every change is appended under the lock under which it gets its place in the log, with the
//! number of the segment that will have it. A flush makes the file durable. When the store has
//! everything, the file begins anew. After a crash, the next writer applies what the log does not
//! have, and makes the store have it before it forgets the file.

use std::io::{self, BufReader, Seek as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use luksmith_formats::objects::journal::{self, Begin, Entry, HEAD, SYNCED_FRAME, head};
use luksmith_formats::objects::segment;

use super::error::JournalError;
use super::local::Local;

/// The size of the file above which it begins anew when the store has everything, unless it may
/// not become so large.
const LITTLE: u64 = 4 << 20;

/// The least size that limits a journal. One that has just begun anew is smaller.
const LEAST: u64 = 4096;

/// How many bytes behind the entries are read at a time.
const PIECE: usize = 1 << 20;

/// The open journal of a writer.
pub(super) struct Journal {
    file: Local,
    /// The size of the file above which writers wait until the store has everything.
    full: u64,
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Default)]
struct State {
    length: u64,
    synced: u64,
    /// What the last entry says that was durable before it.
    marked: u64,
    is_syncing: bool,
    /// A call of the system failed, so that it is not known what is durable. The kernel reports
    /// that once only, and a later call would succeed.
    has_failed: bool,
    /// How often the file began anew.
    round: u64,
}

/// What a journal has after a crash.
#[derive(Default)]
pub(super) struct Kept {
    /// The claims of its writers, the oldest first.
    pub(super) begins: Vec<Begin>,
    /// The last segment of the epoch of the first claim that the store has, if it is known.
    pub(super) end: Option<u64>,
    /// Where the entries end, if more of them were durable once.
    pub(super) damaged: Option<u64>,
}

impl Kept {
    /// Whether the writer of this claim has written it.
    pub(super) fn has(&self, claim: Begin) -> bool {
        self.begins.contains(&claim)
    }
}

impl Journal {
    /// Opens a file that is new, empty, or a journal, and reads it.
    pub(super) fn open(path: &Path, full: u64) -> Result<(Self, Kept), JournalError> {
        let name = || path.display().to_string();
        let failed = |source| JournalError::File {
            path: name(),
            source,
        };
        let file = Local::open(path).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        if file.is_in_memory().map_err(failed)? {
            let path = name();
            tracing::warn!(
                path,
                "the journal is in a file system in memory: if this host fails, what only the \
                 journal has is lost"
            );
        }
        let mut kept = Kept::default();
        let journal = Self {
            file,
            full: full.max(LEAST),
            state: Mutex::default(),
            done: Condvar::new(),
        };
        let length = journal.entries(|entry| {
            match entry {
                Entry::Begin(begin) => kept.begins.push(begin),
                Entry::End { sequence } if kept.begins.len() > 1 => kept.end = Some(sequence),
                _ => {}
            }
            Ok::<_, io::Error>(())
        });
        let length = length.map_err(failed)?;
        if kept.begins.is_empty() && about.len() > 0 {
            return Err(JournalError::Other { path: name() });
        }
        let durable = journal.durable(length).map_err(failed)?;
        kept.damaged = (durable > length).then_some(length);
        let mut state = journal.lock();
        (state.length, state.synced, state.marked) = (length, length, length);
        drop(state);
        Ok((journal, kept))
    }

    /// How much of the file was durable, as far as frames say so that are behind the entries. Of
    /// what was not, the system may have written any part.
    fn durable(&self, mut at: u64) -> io::Result<u64> {
        let mut piece = vec![0; PIECE];
        let mut durable = 0;
        loop {
            let length = read_most(&self.file, &mut piece, at)?;
            let found = journal::synced(piece.get(..length).unwrap_or_default());
            durable = durable.max(found.unwrap_or(0));
            if length < PIECE {
                return Ok(durable);
            }
            // A frame may be in two pieces.
            at += (PIECE - SYNCED_FRAME) as u64;
        }
    }

    /// Reads all entries. Returns where they end: what follows was torn, or is damaged. A file
    /// whose first frame is no claim has none.
    pub(super) fn entries<E: From<io::Error>>(
        &self,
        mut take: impl FnMut(Entry<'_>) -> Result<(), E>,
    ) -> Result<u64, E> {
        let mut file = &*self.file;
        file.rewind()?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let (mut at, mut payload) = (0, Vec::new());
        loop {
            let mut begin = [0; HEAD];
            if !fill(&mut reader, &mut begin)? {
                return Ok(at);
            }
            let Some((length, sum)) = head(begin) else {
                return Ok(at);
            };
            payload.resize(length, 0);
            if !fill(&mut reader, &mut payload)? || segment::sum(&payload) != sum {
                return Ok(at);
            }
            let Some(entry) = Entry::decode(&payload) else {
                return Ok(at);
            };
            if at == 0 && !matches!(entry, Entry::Begin(_)) {
                return Ok(0);
            }
            take(entry)?;
            at += (HEAD + length) as u64;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends an entry, which a later [`sync`](Self::sync) makes durable.
    pub(super) fn append(&self, entry: &Entry<'_>) -> io::Result<()> {
        let mut frame = entry.encode();
        let mut state = self.lock();
        state.check()?;
        if state.synced > state.marked {
            let length = state.synced;
            let mut both = Entry::Synced { length }.encode();
            both.append(&mut frame);
            (frame, state.marked) = (both, length);
        }
        let written = self.file.write_all_at(&frame, state.length);
        state.note(written)?;
        state.length += frame.len() as u64;
        Ok(())
    }

    /// Removes what follows the entries: nothing may be taken for a part of what is appended.
    pub(super) fn cut(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.check()?;
        let length = state.length;
        state.note(self.file.set_len(length))
    }

    /// The length of all entries in bytes.
    pub(super) fn length(&self) -> u64 {
        self.lock().length
    }

    /// Makes everything durable that was appended before. Calls that come together share the work.
    pub(super) fn sync(&self) -> io::Result<()> {
        let mut state = self.lock();
        let (wanted, round) = (state.length, state.round);
        state.check()?;
        while state.round == round && state.synced < wanted {
            if state.is_syncing {
                state = self
                    .done
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                state.check()?;
                continue;
            }
            state.is_syncing = true;
            let length = state.length;
            drop(state);
            let synced = self.file.sync_data().and_then(|()| self.file.is_named());
            state = self.lock();
            state.is_syncing = false;
            let synced = state.note(synced);
            self.done.notify_all();
            synced?;
            if state.round == round {
                state.synced = state.synced.max(length);
            }
        }
        Ok(())
    }

    /// Begins anew, with this claim only. The store has everything.
    pub(super) fn restart(&self, begin: Begin) -> io::Result<()> {
        let frame = Entry::Begin(begin).encode();
        let mut state = self.lock();
        state.check()?;
        // One sector of a disk: it is written completely or not at all. If the power fails before
        // the cut, old entries follow. A replay skips them: they are of another epoch, or of a
        // segment that the store has.
        let written = (self.file.write_all_at(&frame, 0))
            .and_then(|()| self.file.set_len(frame.len() as u64))
            .and_then(|()| self.file.sync_data());
        if let Err(error) = state.note(written) {
            self.done.notify_all();
            return Err(error);
        }
        state.length = frame.len() as u64;
        (state.synced, state.marked) = (state.length, state.length);
        state.round += 1;
        self.done.notify_all();
        Ok(())
    }

    /// Removes all entries, for a volume that is gone.
    pub(super) fn clear(&self) -> io::Result<()> {
        self.file.set_len(0)
    }

    /// Whether writers have to wait.
    pub(super) fn is_full(&self) -> bool {
        self.lock().length > self.full
    }

    /// Whether it is worth it to begin anew.
    pub(super) fn is_long(&self) -> bool {
        self.lock().length > LITTLE.min(self.full)
    }
}

impl State {
    /// Fails if a call failed before.
    fn check(&self) -> io::Result<()> {
        match self.has_failed {
            true => Err(io::Error::other("it could not be written before")),
            false => Ok(()),
        }
    }

    /// Remembers a failure, for all later calls.
    fn note(&mut self, called: io::Result<()>) -> io::Result<()> {
        self.has_failed |= called.is_err();
        called
    }
}

/// Reads until the buffer is full, or the file ends. Returns how much was read.
fn read_most(file: &std::fs::File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], at + done as u64) {
            Ok(0) => break,
            Ok(length) => done += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Fills a buffer. `false` if there are not enough bytes.
fn fill(reader: &mut impl io::Read, buffer: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
