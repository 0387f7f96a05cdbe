//! What the logs say after the store was closed or its host has failed.
//!
//! A block that is in a log has one of several contents: the newest one that was durable on the
//! storage when the last record said so, or the one in the pages if no such record is of this
//! block; or any content that was written since.

use std::collections::BTreeMap;

use luksmith_formats::trust::tags::head::Head;
use luksmith_formats::trust::tags::log::{
    self, FRAME, HEAD, Record, generation, is_whole, payload_length,
};
use luksmith_formats::trust::tags::{LOST, NEVER, Tag};

use super::error::TagsError;
use super::file::{Named, StoreFiles};

/// How much of a log is read at a time, at least.
const PIECE: usize = 256 << 10;

/// Up to how many contents of a block each is kept once.
const FEW: usize = 16;

/// What was found out about the blocks that were written, and not known to be durable, when the
/// store was last used.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Recovery {
    /// How many of them were read.
    pub read: u64,
    /// How many of them have none of the contents that were written. They are errors until they are
    /// written again.
    pub lost: u64,
    /// The offsets of the first of these on the storage.
    pub lost_at: Vec<u64>,
}

/// What blocks of the logs have.
pub(super) struct Recovered {
    /// The blocks with one content.
    pub(super) certain: BTreeMap<u64, Tag>,
    /// The blocks with one of several contents, the oldest first. `None` is the one in the pages.
    /// If they are many, one can be there several times.
    pub(super) several: BTreeMap<u64, Vec<Option<Tag>>>,
    /// The generation of the newest log.
    pub(super) generation: u64,
}

/// Reads the logs.
pub(super) fn recover(files: &StoreFiles, head: &Head) -> Result<Recovered, TagsError> {
    let mut logs = Vec::new();
    let mut newest = head.settled;
    for number in [0, 1] {
        let mut begin = [0; HEAD];
        files.log(number).read_at(0, &mut begin)?;
        if let Some(generation) = generation(&begin) {
            newest = newest.max(generation);
            if generation > head.settled {
                logs.push((generation, number));
            }
        }
    }
    logs.sort_unstable();
    let mut durable = 0;
    for (generation, number) in &logs {
        each(files.log(*number), *generation, |record| {
            if let Record::Durable { sequence } = record {
                durable = durable.max(sequence);
            }
        })?;
    }
    let mut recovered = Recovered {
        certain: BTreeMap::new(),
        several: BTreeMap::new(),
        generation: newest,
    };
    for (generation, number) in &logs {
        each(files.log(*number), *generation, |record| {
            recovered.take(record, durable);
        })?;
    }
    Ok(recovered)
}

impl Recovered {
    fn take(&mut self, record: Record<'_>, durable: u64) {
        match record {
            Record::Write {
                sequence,
                block,
                tags,
            } => {
                for (block, tag) in (block..).zip(tags) {
                    self.change(block, *tag, sequence <= durable);
                }
            }
            Record::Never {
                sequence,
                block,
                count,
            } => {
                for block in block..block + u64::from(count) {
                    self.change(block, NEVER, sequence <= durable);
                }
            }
            Record::Among {
                sequence,
                block,
                tags,
            } if sequence <= durable => {
                self.certain.remove(&block);
                let tags = tags.iter().copied().map(Some).collect();
                self.several.insert(block, tags);
            }
            Record::Among { block, tags, .. } => {
                for tag in tags {
                    self.change(block, *tag, false);
                }
            }
            Record::Settled { block, tag, .. } => self.is(block, tag.unwrap_or(LOST)),
            _ => {}
        }
    }

    fn change(&mut self, block: u64, tag: Tag, is_durable: bool) {
        if is_durable {
            return self.is(block, tag);
        }
        let before = self.certain.remove(&block);
        let contents = self.several.entry(block).or_insert_with(|| {
            // Most blocks have no third one, and there can be many blocks.
            let mut contents = Vec::with_capacity(2);
            contents.push(before);
            contents
        });
        // A block that was written over and over has as many contents as the logs have records: to
        // look for each new one among all of them would take very long.
        if contents.len() <= FEW {
            contents.retain(|content| *content != Some(tag));
        }
        contents.push(Some(tag));
    }

    fn is(&mut self, block: u64, tag: Tag) {
        self.several.remove(&block);
        self.certain.insert(block, tag);
    }
}

/// Calls `take` with each record of a log.
fn each(
    file: Named<'_>,
    generation: u64,
    mut take: impl FnMut(Record<'_>),
) -> Result<(), TagsError> {
    let mut window = Window {
        file,
        start: 0,
        bytes: Vec::new(),
    };
    let mut at = HEAD as u64;
    loop {
        let Some(begin) = window.get(at, FRAME)?.first_chunk::<FRAME>().copied() else {
            return Ok(());
        };
        let Some(length) = payload_length(begin) else {
            return Ok(());
        };
        let payload = window.get(at + FRAME as u64, length)?;
        if !is_whole(begin, generation, at, payload) {
            return Ok(());
        }
        let mut rest = payload;
        while !rest.is_empty() {
            let Some((record, after)) = log::Record::decode(rest) else {
                return Ok(());
            };
            take(record);
            rest = after;
        }
        at += (FRAME + length) as u64;
    }
}

/// A part of a log in memory.
struct Window<'a> {
    file: Named<'a>,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    fn get(&mut self, at: u64, length: usize) -> Result<&[u8], TagsError> {
        let within = |start: u64, bytes: &[u8]| {
            let from = usize::try_from(at.checked_sub(start)?).ok()?;
            let to = from.checked_add(length)?;
            (to <= bytes.len()).then_some(from..to)
        };
        if within(self.start, &self.bytes).is_none() {
            self.start = at;
            self.bytes.resize(length.max(PIECE), 0);
            self.file.read_at(at, &mut self.bytes)?;
        }
        let range = within(self.start, &self.bytes).unwrap_or_default();
        Ok(self.bytes.get(range).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(sequence: u64, block: u64, tag: u8) -> (u64, u64, [Tag; 1]) {
        (sequence, block, [[tag; 16]])
    }

    fn after(records: &[(u64, u64, [Tag; 1])], durable: u64) -> Recovered {
        let mut recovered = Recovered {
            certain: BTreeMap::new(),
            several: BTreeMap::new(),
            generation: 1,
        };
        for (sequence, block, tags) in records {
            let record = Record::Write {
                sequence: *sequence,
                block: *block,
                tags,
            };
            recovered.take(record, durable);
        }
        recovered
    }

    #[test]
    fn a_block_has_what_was_durable_or_what_was_written_since() {
        let records = [
            write(1, 7, 1),
            write(2, 7, 2),
            write(3, 7, 3),
            write(4, 8, 4),
        ];
        let several = |durable| after(&records, durable).several;
        let (one, two, three) = (Some([1; 16]), Some([2; 16]), Some([3; 16]));
        assert_eq!(several(0)[&7], [None, one, two, three]);
        assert_eq!(several(1)[&7], [one, two, three]);
        assert_eq!(several(2)[&7], [two, three]);
        assert_eq!(several(2)[&8], [None, Some([4; 16])]);
        let all = after(&records, 4);
        assert!(all.several.is_empty());
        assert_eq!(all.certain, BTreeMap::from([(7, [3; 16]), (8, [4; 16])]));
    }

    #[test]
    fn a_block_can_have_been_written_very_often() {
        const OFTEN: u64 = 150_000;
        let records: Vec<_> = (1..=OFTEN)
            .map(|sequence| {
                let mut tag = [0; 16];
                tag[..8].copy_from_slice(&sequence.to_be_bytes());
                (sequence, 7, [tag])
            })
            .collect();
        let contents = &after(&records, 2).several[&7];
        assert_eq!(contents.len() as u64, OFTEN - 1);
    }

    #[test]
    fn what_is_settled_counts_whatever_was_said_before() {
        let mut recovered = after(&[write(1, 7, 1), write(2, 7, 2)], 0);
        let settled = |tag| Record::Settled {
            sequence: 3,
            block: 7,
            tag,
        };
        recovered.take(settled(Some([1; 16])), 0);
        assert!(recovered.several.is_empty());
        assert_eq!(recovered.certain[&7], [1; 16]);
        recovered.take(settled(None), 0);
        assert_eq!(recovered.certain[&7], LOST);
    }

    #[test]
    fn a_write_that_failed_leaves_what_was_there_possible() {
        let tags = [[2; 16], [3; 16]];
        let among = Record::Among {
            sequence: 3,
            block: 7,
            tags: &tags,
        };
        let (one, two, three) = (Some([1; 16]), Some([2; 16]), Some([3; 16]));
        let several = |durable| {
            let mut recovered = after(&[write(1, 7, 1), write(2, 7, 2)], durable);
            recovered.take(among, durable);
            recovered.several.remove(&7)
        };
        assert_eq!(several(0), Some(vec![None, one, two, three]));
        assert_eq!(several(2), Some(vec![two, three]));
        assert_eq!(several(3), Some(vec![two, three]));
    }
}
