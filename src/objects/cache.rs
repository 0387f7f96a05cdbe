//! A file that keeps what was read from the store, so that it is not read again.
//!
//! An object never changes, and no later object gets its name. So what was read once stays right as
//! long as the volume has that segment. The file has ciphertext only, in slots of one piece each.
//! Which piece a slot has is known in memory: another opening begins anew.

use std::collections::HashMap;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use luksmith_formats::objects::segment::{self, Sum};
use luksmith_formats::objects::{Position, name};

use super::client::Client;
use super::error::{CacheError, ObjectsError};
use super::local::Local;

/// The size of a piece of an object in bytes. Pieces begin at multiples of it.
const PIECE: u64 = 64 << 10;
const PIECE_LEN: usize = 64 << 10;

/// How the file begins.
const MAGIC: &[u8; 16] = b"luksmith-cache-1";

/// Where the first slot is.
const START: u64 = 4096;

/// A piece of a segment, by its number in the object.
type Piece = (Position, u64);

/// A cache of pieces of objects.
pub(super) struct Cache {
    file: Local,
    slots: usize,
    index: Mutex<Index>,
}

#[derive(Default)]
struct Index {
    places: HashMap<Piece, usize>,
    kept: Vec<Slot>,
    /// Where the search for a slot goes on.
    hand: usize,
}

/// What a slot has.
struct Slot {
    piece: Piece,
    /// How many bytes of it.
    length: usize,
    /// Their checksum: the file may be changed, or its disk may fail.
    sum: Sum,
    /// Whether it was used since the last search for a slot.
    used: bool,
}

impl Cache {
    /// Makes a cache of at most this many bytes in a file, which is new, empty, or was a cache.
    pub(super) fn open(path: &Path, size: u64) -> Result<Self, CacheError> {
        let name = || path.display().to_string();
        let failed = |source| CacheError::File {
            path: name(),
            source,
        };
        let file = Local::open(path).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        let mut begin = [0; MAGIC.len()];
        let was_cache = file.read_exact_at(&mut begin, 0).is_ok() && begin == *MAGIC;
        if about.len() > 0 && !was_cache {
            return Err(CacheError::Other { path: name() });
        }
        file.set_len(0)
            .and_then(|()| file.write_all_at(MAGIC, 0))
            .map_err(failed)?;
        let slots = usize::try_from(size.saturating_sub(START) / PIECE).unwrap_or(usize::MAX);
        Ok(Self {
            file,
            slots: slots.max(1),
            index: Mutex::default(),
        })
    }

    /// Reads a range of a segment: what is not kept from the store, in whole pieces. `None` if the
    /// object is not there.
    pub(super) fn read(
        &self,
        client: &Client,
        segment: Position,
        range: Range<u64>,
    ) -> Result<Option<Vec<u8>>, ObjectsError> {
        let pieces = range.start / PIECE..range.end.div_ceil(PIECE);
        let begin = pieces.start * PIECE;
        let mut found = Vec::new();
        let mut piece = pieces.start;
        while piece < pieces.end {
            if piece > pieces.start && found.len() as u64 != (piece - pieces.start) * PIECE {
                let name = name::segment(segment);
                return Err(ObjectsError::damaged(&name, "ends too early"));
            }
            if let Some(bytes) = self.get(segment, piece) {
                found.extend_from_slice(&bytes);
                piece += 1;
                continue;
            }
            let missing = (piece..pieces.end)
                .take_while(|one| !self.has(segment, *one))
                .count();
            let end = piece + missing.max(1) as u64;
            let name = name::segment(segment);
            let Some(bytes) = client.read(&name, piece * PIECE..end * PIECE)? else {
                return Ok(None);
            };
            for (number, part) in (piece..end).zip(bytes.chunks(PIECE_LEN)) {
                self.put(segment, number, part);
            }
            found.extend_from_slice(&bytes);
            piece = end;
        }
        let clip = |at: u64| {
            usize::try_from(at - begin)
                .unwrap_or(usize::MAX)
                .min(found.len())
        };
        Ok(Some(found[clip(range.start)..clip(range.end)].to_vec()))
    }

    fn has(&self, segment: Position, piece: u64) -> bool {
        self.lock().places.contains_key(&(segment, piece))
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of a piece, if it is there.
    fn get(&self, segment: Position, piece: u64) -> Option<Vec<u8>> {
        let mut index = self.lock();
        let slot = *index.places.get(&(segment, piece))?;
        let kept = index.kept.get_mut(slot)?;
        kept.used = true;
        let mut bytes = vec![0; kept.length];
        // Under the lock: another piece may get the slot after it.
        self.file.read_exact_at(&mut bytes, offset(slot)).ok()?;
        if segment::sum(&bytes) != kept.sum {
            index.places.remove(&(segment, piece));
            return None;
        }
        Some(bytes)
    }

    /// Keeps the bytes of a piece, in place of one that was not used for some time.
    fn put(&self, segment: Position, piece: u64, bytes: &[u8]) {
        let key = (segment, piece);
        let mut index = self.lock();
        if bytes.len() as u64 > PIECE || index.places.contains_key(&key) {
            return;
        }
        let slot = index.free(self.slots);
        if self.file.write_all_at(bytes, offset(slot)).is_err() {
            // The disk is full, say. The slot has nothing.
            return;
        }
        let entry = Slot {
            piece: key,
            length: bytes.len(),
            sum: segment::sum(bytes),
            used: false,
        };
        match index.kept.get_mut(slot) {
            Some(kept) => *kept = entry,
            None => index.kept.push(entry),
        }
        index.places.insert(key, slot);
    }
}

impl Index {
    /// A slot for another piece: a new one, or the next that was not used since the last search.
    fn free(&mut self, slots: usize) -> usize {
        if self.kept.len() < slots {
            return self.kept.len();
        }
        loop {
            let slot = self.hand;
            self.hand = (self.hand + 1) % self.kept.len();
            let Some(kept) = self.kept.get_mut(slot) else {
                return 0;
            };
            if !std::mem::take(&mut kept.used) {
                if self.places.get(&kept.piece) == Some(&slot) {
                    self.places.remove(&kept.piece);
                }
                return slot;
            }
        }
    }
}

fn offset(slot: usize) -> u64 {
    START + slot as u64 * PIECE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_back_and_the_file_stays_small() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        let cache = Cache::open(&path, START + 4 * PIECE).unwrap();
        let at = |sequence| Position { epoch: 1, sequence };
        for number in 0..4 {
            cache.put(at(number), 7, &[u8::try_from(number).unwrap(); 100]);
        }
        assert_eq!(cache.get(at(0), 7), Some(vec![0; 100]));
        assert_eq!(cache.get(at(0), 8), None);
        // The first one was used, so the second one goes.
        cache.put(at(9), 0, &[9; 65536]);
        assert!(cache.get(at(1), 7).is_none() && cache.get(at(0), 7).is_some());
        assert_eq!(cache.get(at(9), 0), Some(vec![9; 65536]));
        assert!(path.metadata().unwrap().len() <= START + 4 * PIECE);
        // What was changed in the file is not returned.
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_len(START).unwrap();
        file.set_len(START + 4 * PIECE).unwrap();
        assert_eq!(cache.get(at(9), 0), None);
        cache.put(at(9), 0, &[9; 65536]);
        assert_eq!(cache.get(at(9), 0), Some(vec![9; 65536]));
        // Another process does not use it meanwhile, and begins anew later.
        assert!(matches!(
            Cache::open(&path, 1),
            Err(CacheError::File { .. })
        ));
        drop(cache);
        assert!(Cache::open(&path, 1).unwrap().get(at(9), 0).is_none());
        std::fs::write(&path, "a file of a user").unwrap();
        assert!(matches!(
            Cache::open(&path, 1),
            Err(CacheError::Other { .. })
        ));
        assert_eq!(std::fs::read(&path).unwrap(), b"a file of a user");
    }
}
