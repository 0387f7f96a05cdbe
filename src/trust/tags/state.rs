//! What the store knows in memory: the tags that are in the logs and not in the pages yet, which
//! changes are in flight, and what of the log is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use luksmith_formats::trust::tags::log::{HEAD, Record};
use luksmith_formats::trust::tags::{LOST, Tag};

/// The most contents that a block may have after writes of it that failed.
const MOST_CONTENTS: usize = 16;

/// The most blocks that can have several contents. A log begins with all of them.
const MOST_DOUBTFUL: usize = 20_000;

/// The state of a store, which a lock protects.
#[derive(Default)]
pub(super) struct State {
    /// The sequence number of the next change.
    next: u64,
    /// The sequence numbers of the changes that the storage does not have yet.
    in_flight: BTreeSet<u64>,
    /// The last sequence number that a record says is durable on the storage.
    pub(super) marked: u64,

    /// The newest tags, by their blocks, of changes in the present log.
    active: BTreeMap<u64, Tag>,
    /// The same of the other log, until they are in the pages.
    pub(super) retiring: Option<Retiring>,
    /// The tags of blocks that can have one of several contents, since a write failed.
    doubts: BTreeMap<u64, Vec<Tag>>,

    /// Records that no log has yet.
    pub(super) payload: Vec<u8>,
    /// How many bytes of records there were so far.
    pub(super) appended: u64,
    /// How many of them the system has.
    pub(super) written: u64,
    /// How many of them are durable.
    pub(super) synced: u64,
    /// Whether a thread writes to the log.
    pub(super) is_busy: bool,

    /// Which log is the present one.
    pub(super) log: usize,
    /// Its generation.
    pub(super) generation: u64,
    /// Where its next frame begins.
    pub(super) at: u64,
    /// Whether the other log is empty and has its head.
    pub(super) has_spare: bool,

    /// Why nothing can be changed any more.
    pub(super) failed: Option<String>,
}

/// The changes of a log that is not appended to any more.
pub(super) struct Retiring {
    /// The newest tags.
    pub(super) tags: Arc<BTreeMap<u64, Tag>>,
    /// The last sequence number that the log can have.
    pub(super) last: u64,
}

/// A change that was begun.
#[derive(Clone, Copy)]
pub(super) struct Begun {
    pub(super) sequence: u64,
    /// How much of the log has to be durable before the storage is changed.
    pub(super) position: u64,
}

/// What is known of consecutive blocks.
pub(super) struct Found {
    /// What the logs say of some of them, by their place in the range.
    pub(super) newer: Vec<(usize, Tag)>,
    /// Whether one of them can have several contents.
    pub(super) is_doubtful: bool,
}

impl State {
    pub(super) fn new(log: usize, generation: u64) -> Self {
        Self {
            next: 1,
            log,
            generation,
            at: HEAD as u64,
            has_spare: true,
            ..Self::default()
        }
    }

    /// Whether the present log has enough for another one to begin.
    pub(super) fn is_full(&self, bytes: u64, blocks: usize) -> bool {
        self.at + self.payload.len() as u64 > bytes || self.active.len() > blocks
    }

    /// Every change up to this sequence number is on the storage.
    pub(super) fn completed(&self) -> u64 {
        match self.in_flight.first() {
            Some(first) => first - 1,
            None => self.next - 1,
        }
    }

    /// Begins to write content with these tags to consecutive blocks.
    pub(super) fn begin_write(&mut self, block: u64, tags: &[Tag]) -> Result<Begun, TooMany> {
        if self.doubts.len() > MOST_DOUBTFUL {
            return Err(TooMany);
        }
        for (at, tag) in (block..).zip(tags) {
            if let Some(contents) = self.doubts.get_mut(&at) {
                if !contents.contains(tag) && contents.len() >= MOST_CONTENTS {
                    return Err(TooMany);
                }
                add(contents, *tag);
            }
        }
        let sequence = self.sequence();
        self.in_flight.insert(sequence);
        let record = Record::Write {
            sequence,
            block,
            tags,
        };
        Ok(self.begun(sequence, &record))
    }

    /// Begins to make consecutive blocks read as zeroes.
    pub(super) fn begin_never(&mut self, block: u64, count: u32) -> Begun {
        let sequence = self.sequence();
        self.in_flight.insert(sequence);
        let record = Record::Never {
            sequence,
            block,
            count,
        };
        self.begun(sequence, &record)
    }

    /// A change was not made on the storage, whose blocks stay as they are.
    pub(super) fn abandon(&mut self, begun: Begun) {
        self.in_flight.remove(&begun.sequence);
    }

    /// The storage has a change.
    pub(super) fn end(&mut self, begun: Begun, block: u64, tags: &[Tag]) {
        let blocks = block..block + tags.len() as u64;
        let doubtful: Vec<u64> = self.doubts.range(blocks).map(|(at, _)| *at).collect();
        for at in doubtful {
            let index = usize::try_from(at - block).unwrap_or(usize::MAX);
            if let Some(tag) = tags.get(index) {
                self.doubts.remove(&at);
                // The log may say of the block what it could have, after the record of this write.
                let (sequence, tags) = (self.sequence(), &[*tag]);
                self.append(&Record::Write {
                    sequence,
                    block: at,
                    tags,
                });
                self.active.insert(at, *tag);
            }
        }
        let changed = (block..).zip(tags.iter().copied());
        match &mut self.retiring {
            // The record is in the log that retires, and no page was written since.
            Some(retiring) if begun.sequence <= retiring.last => {
                Arc::make_mut(&mut retiring.tags).extend(changed);
            }
            _ => self.active.extend(changed),
        }
        self.in_flight.remove(&begun.sequence);
    }

    /// The storage reported a failure of a write. Each block has its old content, which `old` has
    /// the tags of, or the new one.
    pub(super) fn fail(&mut self, begun: Begun, block: u64, old: &[Tag], new: &[Tag]) {
        for (at, (old, new)) in (block..).zip(old.iter().zip(new)) {
            let contents = self.doubts.entry(at).or_insert_with(|| vec![*old]);
            add(contents, *new);
            let tags = contents.clone();
            self.among(at, &tags);
        }
        self.in_flight.remove(&begun.sequence);
    }

    /// A block that can have several contents has this one durably, or none of them.
    pub(super) fn settle(&mut self, block: u64, tag: Option<Tag>) {
        self.doubts.remove(&block);
        let sequence = self.sequence();
        self.append(&Record::Settled {
            sequence,
            block,
            tag,
        });
        self.active.insert(block, tag.unwrap_or(LOST));
    }

    /// The tags of the contents that a block can have, if they are several.
    pub(super) fn contents(&self, block: u64) -> Option<&[Tag]> {
        self.doubts.get(&block).map(Vec::as_slice)
    }

    /// Appends a record that all changes up to this one are durable on the storage.
    pub(super) fn mark(&mut self, sequence: u64) {
        if sequence > self.marked {
            self.marked = sequence;
            self.append(&Record::Durable { sequence });
        }
    }

    /// Lets the present log retire, and begins the other one.
    pub(super) fn switch(&mut self) {
        let tags = Arc::new(std::mem::take(&mut self.active));
        let last = self.next - 1;
        self.retiring = Some(Retiring { tags, last });
        self.has_spare = false;
        self.log = 1 - self.log;
        self.generation += 1;
        self.at = HEAD as u64;
        // What is in doubt is nowhere else than in the log. The records before it may be of writes
        // to the same blocks, which come after these.
        let later = std::mem::take(&mut self.payload);
        let doubts = std::mem::take(&mut self.doubts);
        for (block, tags) in &doubts {
            self.among(*block, tags);
        }
        self.doubts = doubts;
        self.payload.extend(later);
    }

    /// What the logs say of consecutive blocks.
    pub(super) fn find(&self, blocks: &Range<u64>) -> Found {
        let mut newer = Vec::new();
        let retiring = self.retiring.iter().map(|retiring| &*retiring.tags);
        // The later ones replace the earlier ones.
        for tags in retiring.chain([&self.active]) {
            for (block, tag) in tags.range(blocks.clone()) {
                let index = usize::try_from(block - blocks.start).unwrap_or(usize::MAX);
                newer.push((index, *tag));
            }
        }
        Found {
            newer,
            is_doubtful: self.doubts.range(blocks.clone()).next().is_some(),
        }
    }

    /// Whether a change is in flight that the log that retires can have.
    pub(super) fn is_retiring_in_flight(&self) -> bool {
        match (&self.retiring, self.in_flight.first()) {
            (Some(retiring), Some(first)) => *first <= retiring.last,
            _ => false,
        }
    }

    /// Keeps tags in memory, over those in the pages.
    pub(super) fn keep(&mut self, tags: impl IntoIterator<Item = (u64, Tag)>) {
        self.active.extend(tags);
    }

    fn sequence(&mut self) -> u64 {
        let sequence = self.next;
        self.next += 1;
        sequence
    }

    fn among(&mut self, block: u64, tags: &[Tag]) {
        let sequence = self.sequence();
        self.append(&Record::Among {
            sequence,
            block,
            tags,
        });
    }

    fn begun(&mut self, sequence: u64, record: &Record<'_>) -> Begun {
        self.append(record);
        let position = self.appended;
        Begun { sequence, position }
    }

    fn append(&mut self, record: &Record<'_>) {
        let before = self.payload.len();
        record.encode(&mut self.payload);
        self.appended += (self.payload.len() - before) as u64;
    }
}

/// A block could have more contents than are kept.
pub(super) struct TooMany;

fn add(contents: &mut Vec<Tag>, tag: Tag) {
    if !contents.contains(&tag) {
        contents.push(tag);
    }
}
