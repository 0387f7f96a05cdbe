//! Makes the tags of a volume, and opens them.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use luksmith_formats::trust::tags::head::Head;
use luksmith_formats::trust::tags::{BLOCK, LOST, NEVER, Tag, place};

use super::alarm::Alarm;
use super::blocks::{Blocks, Covered};
use super::error::TagsError;
use super::file::{Access, StoreFiles};
use super::key::TagKey;
use super::options::TagsOptions;
use super::pages::{Pages, read_head, write_head};
use super::recover::{Recovered, Recovery, recover};
use super::store::Store;
use super::tagged::Tagged;
use crate::backend::{Backend, IoError};
use crate::sectors::{Cipher, Sectors};
use crate::trust::Entry;

/// How much is read at a time when tags are made.
const PIECE: u64 = 1 << 20;

/// How many threads read blocks that can have several contents.
const READERS: usize = 8;

/// How many offsets of lost blocks are kept.
const SHOWN: usize = 100;

/// Makes the tags of a volume whose data is this part of a storage. Every block gets the tag of its
/// present content, or with `fresh` that of a block which was never written: all blocks read as
/// zeroes then. `progress` is called with the number of bytes that were done, and can end the work.
///
/// # Errors
/// [`TagsError::Exists`], and what the storage and the files report.
pub fn make(
    files: &StoreFiles,
    key: &TagKey,
    storage: &dyn Backend,
    data: Range<u64>,
    fresh: bool,
    options: &TagsOptions,
    progress: &mut dyn FnMut(u64) -> Result<(), IoError>,
) -> Result<(), TagsError> {
    check_unit(storage)?;
    match read_head(files.tags()) {
        Err(TagsError::Missing) => {}
        Ok(_) => return Err(TagsError::Exists),
        Err(error) => return Err(error),
    }
    let size = data.end.saturating_sub(data.start);
    let mut at = 0;
    while at < size && !fresh {
        let until = (at + PIECE).min(size);
        let length = usize::try_from(until - at).unwrap_or(usize::MAX);
        let mut content = Sectors::<Cipher>::with_len(length);
        storage.read_at(data.start + at, &mut content)?;
        let tags = key.tags(at / BLOCK, content.as_slice());
        (files.tags()).write_at(place(at / BLOCK), tags.as_flattened())?;
        at = until;
        progress(at)?;
    }
    // The logs get their space now: a disk makes what overwrites it durable in one step.
    let zeroes = vec![0; 64 << 10];
    for number in [0, 1] {
        for piece in 0..options.log_bytes.div_ceil(zeroes.len() as u64) {
            files
                .log(number)
                .write_at(piece * zeroes.len() as u64, &zeroes)?;
        }
        files.log(number).sync()?;
    }
    files.tags().sync()?;
    write_head(files.tags(), &Head::new(key.check(), size))
}

/// Whether a volume of which something is kept has tags.
///
/// # Errors
/// [`TagsError::File`].
pub fn has_tags(entry: &Entry) -> Result<bool, TagsError> {
    match StoreFiles::open(entry, Access::Read) {
        Ok(None) => Ok(false),
        Ok(Some(files)) => match read_head(files.tags()) {
            Err(TagsError::Missing) => Ok(false),
            _ => Ok(true),
        },
        Err(TagsError::Busy) => Ok(true),
        Err(error) => Err(error),
    }
}

fn check_unit(storage: &dyn Backend) -> Result<(), TagsError> {
    match storage.geometry().block_size {
        unit if u64::from(unit) > BLOCK => Err(TagsError::Unit(unit)),
        _ => Ok(()),
    }
}

impl Tagged {
    /// Opens a storage with its tags. Blocks that were written, and not known to be durable, when
    /// the store was last used, are read, and it is decided which of their contents counts.
    ///
    /// # Errors
    /// [`TagsError`].
    pub fn open(
        storage: Arc<dyn Backend>,
        covered: Covered,
        key: TagKey,
        files: StoreFiles,
        mut options: TagsOptions,
    ) -> Result<Self, TagsError> {
        check_unit(&*storage)?;
        options.read_only |= storage.geometry().read_only;
        let mut head = read_head(files.tags())?;
        if head.check != key.check() {
            return Err(TagsError::OtherKey);
        }
        let found = storage.geometry().size.saturating_sub(covered.offset);
        if found < head.size {
            let known = head.size;
            return Err(TagsError::Truncated { known, found });
        }
        let recovered = recover(&files, &head)?;
        let generation = recovered.generation;
        let alarm = Alarm::new(options.on_tamper.clone());
        let (read_only, background) = (options.read_only, options.background);

        // A store that only answers what is in the pages, for the blocks that are in no log.
        let store = Store::new(files, Pages::new(), head.size, generation + 1, options);
        let blocks = Blocks {
            storage,
            covered,
            key,
            store: Arc::new(store),
            alarm,
        };
        if !read_only {
            // What is read below is durable then.
            blocks.storage.flush()?;
        }
        let (mut certain, recovery) = blocks.decide(recovered)?;
        let store = &blocks.store;
        let behind = blocks.count();
        (certain.iter_mut().filter(|(block, _)| *block >= behind))
            .for_each(|(_, tag)| *tag = NEVER);
        match read_only {
            true => store.keep(certain),
            false => {
                head.settled = generation;
                store.restart(&certain.into_iter().collect(), &head)?;
            }
        }
        if recovery.lost > 0 {
            tracing::error!(
                target: "luksmith::state",
                "{} blocks of the volume have none of the contents that were written last, the first \
                 of them at byte {} of the storage: they are errors until they are written again",
                recovery.lost,
                recovery.lost_at.first().copied().unwrap_or(0),
            );
        }
        Ok(Self::new(blocks, recovery, background))
    }
}

impl Blocks {
    /// Decides which content the blocks of the logs have, and returns their tags.
    fn decide(&self, recovered: Recovered) -> Result<(Vec<(u64, Tag)>, Recovery), TagsError> {
        let mut decided: Vec<_> = recovered.certain.into_iter().collect();
        let mut several = Vec::with_capacity(recovered.several.len());
        for (block, contents) in recovered.several {
            if block >= self.count() {
                decided.push((block, NEVER));
                continue;
            }
            let mut tags = Vec::with_capacity(contents.len());
            for content in contents {
                tags.push(match content {
                    Some(tag) => tag,
                    None => first(&self.store.tags(block..block + 1)?.tags),
                });
            }
            several.push((block, tags));
        }
        let found = self.read_several(&several)?;
        let mut recovery = Recovery {
            read: several.len() as u64,
            ..Recovery::default()
        };
        for ((block, _), tag) in several.iter().zip(found) {
            if tag.is_none() {
                recovery.lost += 1;
                if recovery.lost_at.len() < SHOWN {
                    recovery.lost_at.push(self.place(*block));
                }
            }
            decided.push((*block, tag.unwrap_or(LOST)));
        }
        Ok((decided, recovery))
    }

    /// Which of its tags each block has, with several threads.
    fn read_several(&self, several: &[(u64, Vec<Tag>)]) -> Result<Vec<Option<Tag>>, TagsError> {
        let next = AtomicUsize::new(0);
        let found = Mutex::new(vec![None; several.len()]);
        let work = || -> Result<(), IoError> {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some((block, tags)) = several.get(index) else {
                    return Ok(());
                };
                let tag = self.one_of(*block, tags)?;
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(place) = found.get_mut(index) {
                    *place = tag;
                }
            }
        };
        let readers = READERS.min(several.len() / 16 + 1);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (1..readers).map(|_| scope.spawn(work)).collect();
            let own = work();
            let others = threads.into_iter().map(|thread| match thread.join() {
                Ok(read) => read,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            others.fold(own, Result::and)
        })?;
        Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

fn first(tags: &[Tag]) -> Tag {
    tags.first().copied().unwrap_or(NEVER)
}
