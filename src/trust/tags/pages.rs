//! The tags in their file, with a cache of a bounded size.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use luksmith_formats::trust::tags::head::{self, Head};
use luksmith_formats::trust::tags::{NEVER, TAG, Tag, place};

use super::error::TagsError;
use super::file::{Named, StoreFiles};

/// The tags of a page, which is read and kept as a whole.
const PAGE: usize = 256;

/// The most pages that are kept: 32 MiB of tags, those of 8 GiB of ciphertext.
const SLOTS: usize = 8192;

/// What a cache keeps: at each place one of the pages whose number has this remainder.
pub(super) struct Pages {
    slots: Box<[Mutex<Option<Kept>>]>,
}

struct Kept {
    number: u64,
    tags: Box<[Tag; PAGE]>,
}

/// The head of the file.
pub(super) fn read_head(file: Named<'_>) -> Result<Head, TagsError> {
    let mut bytes = [0; head::LENGTH];
    file.read_at(0, &mut bytes)?;
    match bytes.iter().all(|byte| *byte == 0) {
        true => Err(TagsError::Missing),
        false => Ok(Head::decode(&bytes)?),
    }
}

/// Writes the head of the file, and makes it durable.
pub(super) fn write_head(file: Named<'_>, head: &Head) -> Result<(), TagsError> {
    file.write_at(0, &head.encode())?;
    file.sync()
}

impl Pages {
    pub(super) fn new() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Mutex::new(None)).collect(),
        }
    }

    /// The tags of consecutive blocks.
    pub(super) fn read(
        &self,
        files: &StoreFiles,
        first: u64,
        mut into: &mut [Tag],
    ) -> Result<(), TagsError> {
        let mut at = first;
        while !into.is_empty() {
            let (number, from) = split(at);
            let count = into.len().min(PAGE - from);
            let (now, later) = into.split_at_mut(count);
            let mut slot = self.slot(number);
            let tags = loaded(&mut slot, files, number)?;
            now.copy_from_slice(&tags[from..from + count]);
            drop(slot);
            (into, at) = (later, at + count as u64);
        }
        Ok(())
    }

    /// Writes the tags of blocks. The caller makes them durable.
    pub(super) fn write(
        &self,
        files: &StoreFiles,
        changes: &BTreeMap<u64, Tag>,
    ) -> Result<(), TagsError> {
        let mut changes = changes.iter().peekable();
        while let Some((first, _)) = changes.peek() {
            let number = split(**first).0;
            let mut slot = self.slot(number);
            let tags = loaded(&mut slot, files, number)?;
            let (mut from, mut to) = (PAGE, 0);
            while let Some((block, tag)) = changes.next_if(|(block, _)| split(**block).0 == number)
            {
                let index = split(*block).1;
                tags[index] = *tag;
                (from, to) = (from.min(index), to.max(index + 1));
            }
            let written = tags[from..to].as_flattened();
            let at = place(number * PAGE as u64 + from as u64);
            if let Err(error) = files.tags().write_at(at, written) {
                *slot = None;
                return Err(error);
            }
        }
        Ok(())
    }

    // A panic leaves a page as it is in the file, or none.
    fn slot(&self, number: u64) -> MutexGuard<'_, Option<Kept>> {
        let index = usize::try_from(number % SLOTS as u64).unwrap_or(0);
        self.slots[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of the page of a block, and its place in the page.
fn split(block: u64) -> (u64, usize) {
    let page = PAGE as u64;
    (block / page, usize::try_from(block % page).unwrap_or(0))
}

/// The page with this number, in its slot.
fn loaded<'a>(
    slot: &'a mut Option<Kept>,
    files: &StoreFiles,
    number: u64,
) -> Result<&'a mut [Tag; PAGE], TagsError> {
    if slot.as_ref().is_none_or(|kept| kept.number != number) {
        let mut tags = match slot.take() {
            Some(kept) => kept.tags,
            None => Box::new([NEVER; PAGE]),
        };
        let at = place(number * PAGE as u64);
        debug_assert_eq!(tags.len() * TAG, 4096);
        files.tags().read_at(at, tags.as_flattened_mut())?;
        *slot = Some(Kept { number, tags });
    }
    let kept = slot.as_mut().map(|kept| &mut *kept.tags);
    kept.ok_or_else(|| TagsError::Failed("a page is missing".into()))
}
