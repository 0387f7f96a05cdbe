//! A volume whose flushes are done in a journal: what is appended to it and when it begins anew;
//! whether it is that of the last writer, and how the store gets what only the journal has.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

use luksmith_formats::objects::BLOCK;
use luksmith_formats::objects::claim::Claim;
use luksmith_formats::objects::journal::{Begin, Entry};
use luksmith_formats::objects::volume::{FlushMode, LARGEST, Volume};

use super::ObjectsError;
use super::buffer::BLOCK_LEN;
use super::error::JournalError;
use super::journal::{Journal, Kept};
use super::log::Log;
use super::options::ObjectsOptions;
use super::state::State;

/// A journal that was opened, before the volume is.
pub(super) struct Journaled {
    journal: Journal,
    kept: Kept,
    path: String,
    /// It has changes that the store may not have.
    is_needed: bool,
    /// It is not that of the last writer, and is given up.
    is_lost: bool,
}

impl Journaled {
    /// Opens the journal of a volume that has one.
    pub(super) fn open(
        volume: &Volume,
        options: &ObjectsOptions,
    ) -> Result<Option<Self>, ObjectsError> {
        let wanted = volume.flush_mode == FlushMode::Journal;
        let path = match (&options.journal, wanted) {
            (Some(path), true) => path,
            (None, false) => return Ok(None),
            _ => return Err(ObjectsError::JournalMode { wanted }),
        };
        let (journal, kept) = Journal::open(path, options.journal_size)?;
        let path = path.display().to_string();
        if kept.begins.iter().any(|begin| begin.uuid != volume.uuid) {
            return Err(JournalError::OfAnother { path }.into());
        }
        Ok(Some(Self {
            journal,
            kept,
            path,
            is_needed: false,
            is_lost: false,
        }))
    }

    /// Refuses a journal that is not that of the writer of this claim, which has not closed the
    /// volume, and one that is damaged. If it may be lost, what is there before the damage is used.
    pub(super) fn check(&mut self, claim: &Claim, may_be_lost: bool) -> Result<(), ObjectsError> {
        let begin = Begin::new(claim.uuid, claim.epoch, claim.nonce);
        self.is_needed = self.kept.has(begin);
        self.is_lost = !self.is_needed;
        // The claim of the writer may follow the damage.
        if let Some(at) = self.kept.damaged.filter(|_| !may_be_lost) {
            let path = self.path.clone();
            return Err(JournalError::Damaged { path, at }.into());
        }
        match self.is_needed || may_be_lost {
            true => Ok(()),
            false => Err(ObjectsError::JournalLost {
                host: claim.host.clone(),
            }),
        }
    }

    /// Keeps this claim, before it is made: it may be made although the answer is lost.
    pub(super) fn begin(&self, begin: Begin) -> Result<(), ObjectsError> {
        let kept = match self.is_lost {
            true => self.journal.restart(begin),
            false => (self.journal.cut())
                .and_then(|()| self.journal.append(&Entry::Begin(begin)))
                .and_then(|()| self.journal.sync()),
        };
        kept.map_err(ObjectsError::of_journal)
    }

    /// The journal, and what is to be replayed of it, after the claim was made.
    pub(super) fn into_parts(self, begin: Begin) -> Result<(Journal, Option<Kept>), ObjectsError> {
        match self.is_needed {
            true => Ok((self.journal, Some(self.kept))),
            false => {
                let restarted = self.journal.restart(begin);
                restarted.map_err(ObjectsError::of_journal)?;
                Ok((self.journal, None))
            }
        }
    }
}

impl Log {
    /// Appends a change to the journal. A change that is not there makes every later call fail.
    pub(super) fn note(&self, state: &mut State, entry: &Entry<'_>) -> Result<(), ObjectsError> {
        let Some(journal) = self.journal.as_ref().filter(|_| !state.is_replaying) else {
            return Ok(());
        };
        if state.open_since.is_none() {
            state.open_since = Some(Instant::now());
        }
        journal.append(entry).map_err(|error| {
            let error = ObjectsError::of_journal(error);
            self.fail_with(state, &error);
            error
        })
    }

    /// Makes all that was written before durable.
    pub(super) fn flush(&self) -> Result<(), ObjectsError> {
        let Some(journal) = &self.journal else {
            return self.flush_to_store();
        };
        self.lock().check()?;
        journal.sync().map_err(|error| {
            let error = ObjectsError::of_journal(error);
            self.fail(&error);
            error
        })
    }

    /// While the journal is full: waits until the store has everything, and the journal begins
    /// anew.
    pub(super) fn relieve_journal(&self) -> Result<(), ObjectsError> {
        let Some(journal) = &self.journal else {
            return Ok(());
        };
        let mut state = self.lock();
        // What is replayed is in the journal already.
        while !state.is_replaying && journal.is_full() {
            state.check()?;
            self.shorten_journal(&mut state);
            if !journal.is_full() {
                break;
            }
            state.wanted = true;
            self.work.notify_one();
            state = self.wait(&self.done, state);
        }
        state.check()
    }

    /// Begins the journal anew, if it is worth it and the store has everything.
    pub(super) fn shorten_journal(&self, state: &mut State) {
        // What is still to be replayed is only there.
        let has_all =
            !state.is_replaying && state.open.is_empty() && state.uploaded_to == state.next - 1;
        let Some(journal) = self.journal.as_ref().filter(|it| has_all && it.is_long()) else {
            return;
        };
        let begin = Begin::new(self.volume.uuid, self.epoch, self.nonce);
        if let Err(error) = journal.restart(begin) {
            self.fail_with(state, &ObjectsError::of_journal(error));
        }
    }

    /// Gives the store what only the journal has. If that fails, the volume is not closed in order,
    /// so that the next writer does it again. `ends` has the last segments that the store has.
    pub(super) fn replay_journal(
        &self,
        kept: &Kept,
        ends: &BTreeMap<u32, u64>,
    ) -> Result<(), ObjectsError> {
        let replayed = self.try_replay(kept, ends);
        if let Err(error) = &replayed {
            self.fail(error);
        }
        replayed
    }

    fn try_replay(&self, kept: &Kept, ends: &BTreeMap<u32, u64>) -> Result<(), ObjectsError> {
        let (Some(journal), Some(first)) = (&self.journal, kept.begins.first()) else {
            return Ok(());
        };
        let end = kept.end.or_else(|| ends.get(&first.epoch).copied());
        let begin = Begin::new(self.volume.uuid, self.epoch, self.nonce);
        let Some(end) = end else {
            return match self.options.journal_lost {
                true => journal.restart(begin).map_err(ObjectsError::of_journal),
                false => Err(ObjectsError::damaged("journal", "is of an earlier epoch")),
            };
        };
        // Before the store has the first of it: what it has then is no part of the old epoch.
        journal
            .append(&Entry::End { sequence: end })
            .and_then(|()| journal.sync())
            .map_err(ObjectsError::of_journal)?;
        self.lock().is_replaying = true;
        let read = journal.entries(|entry| {
            let (Entry::Data { position, .. }
            | Entry::Hole { position, .. }
            | Entry::Resize { position, .. }) = entry
            else {
                return Ok(());
            };
            if position.epoch != first.epoch || position.sequence <= end {
                return Ok(());
            }
            match entry {
                Entry::Data { block, bytes, .. } if bytes.len() % BLOCK_LEN == 0 => {
                    blocks(block, (bytes.len() / BLOCK_LEN) as u64)?;
                    self.write(block, bytes)
                }
                Entry::Hole { block, count, .. } => self.clear(blocks(block, count)?),
                Entry::Resize { size, .. } if size <= LARGEST => self.resize(size),
                _ => Err(ObjectsError::damaged(
                    "journal",
                    "has an entry that none can be",
                )),
            }
        })?;
        if read != journal.length() {
            return Err(ObjectsError::damaged(
                "journal",
                "has changed while it was read",
            ));
        }
        self.flush_to_store()?;
        let mut state = self.lock();
        state.is_replaying = false;
        journal.restart(begin).map_err(ObjectsError::of_journal)
    }
}

/// A range of blocks, all of which a volume can have.
fn blocks(first: u64, count: u64) -> Result<Range<u64>, ObjectsError> {
    let end = first
        .checked_add(count)
        .filter(|end| *end <= LARGEST / BLOCK);
    let end = end.ok_or_else(|| ObjectsError::damaged("journal", "has blocks behind every volume"));
    Ok(first..end?)
}
