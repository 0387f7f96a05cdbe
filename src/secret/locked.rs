//! Bytes in locked memory: never swapped out, never in a core file, overwritten when freed.
//!
//! RLIMIT_MEMLOCK may be as low as 64 KiB and is counted in pages. So secrets of up to a page
//! share the pages of one arena (64 cells for each page, with one bit each), and larger ones have
//! their own pages. If the memory cannot be locked, the call fails: nothing falls back to ordinary
//! memory.

#![allow(unsafe_code)] // a secret is a pointer into a page that it shares with others

use core::fmt;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::slice;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io;
use rustix::process::{Resource, getrlimit};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::sys::memory::{Mapping, wipe};

/// A fixed number of bytes in locked memory. It has no `Clone`, and its `Debug` shows only the
/// length.
pub struct LockedBytes {
    address: NonNull<u8>,
    len: usize,
    home: Home,
}

/// Where the bytes of one [`LockedBytes`] are.
enum Home {
    /// Nowhere: the length is 0.
    Empty,
    /// In cells of the arena.
    Arena,
    /// In pages of their own.
    Own { _mapping: Mapping },
}

// SAFETY: the bytes have one owner, and the arena in which they may be is behind a mutex.
unsafe impl Send for LockedBytes {}
// SAFETY: shared references only read, and writing needs `&mut`.
unsafe impl Sync for LockedBytes {}

impl LockedBytes {
    /// `len` zero bytes.
    ///
    /// # Errors
    /// [`LockError`] when the memory cannot be allocated or locked.
    pub fn new(len: usize) -> Result<Self, LockError> {
        if len == 0 {
            return Ok(Self {
                address: NonNull::dangling(),
                len,
                home: Home::Empty,
            });
        }
        if len <= rustix::param::page_size() {
            return Ok(Self {
                address: arena().take(len)?,
                len,
                home: Home::Arena,
            });
        }
        let mapping = locked_mapping(len)?;
        Ok(Self {
            address: mapping.address(),
            len,
            home: Home::Own { _mapping: mapping },
        })
    }

    /// `len` bytes that `fill` writes in place.
    ///
    /// # Errors
    /// [`LockError`] as for [`LockedBytes::new`].
    pub fn from_fill(len: usize, fill: impl FnOnce(&mut [u8])) -> Result<Self, LockError> {
        let mut bytes = Self::new(len)?;
        fill(&mut bytes);
        Ok(bytes)
    }

    /// A copy of `bytes`. The caller wipes the original.
    ///
    /// # Errors
    /// [`LockError`] as for [`LockedBytes::new`].
    pub fn copy_from(bytes: &[u8]) -> Result<Self, LockError> {
        Self::from_fill(bytes.len(), |copy| copy.copy_from_slice(bytes))
    }
}

impl Deref for LockedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `address` points to `len` initialised bytes that this value owns until drop (it
        // is dangling only for length 0).
        unsafe { slice::from_raw_parts(self.address.as_ptr(), self.len) }
    }
}

impl DerefMut for LockedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes this the only reference.
        unsafe { slice::from_raw_parts_mut(self.address.as_ptr(), self.len) }
    }
}

impl fmt::Debug for LockedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LockedBytes({} bytes)", self.len)
    }
}

impl Zeroize for LockedBytes {
    fn zeroize(&mut self) {
        wipe(self);
    }
}

impl ZeroizeOnDrop for LockedBytes {}

impl Drop for LockedBytes {
    fn drop(&mut self) {
        match self.home {
            Home::Empty => {}
            Home::Arena => {
                wipe(self);
                arena().give_back(self.address, self.len);
            }
            // The mapping wipes itself.
            Home::Own { .. } => {}
        }
    }
}

/// Why a secret could not be put into locked memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// The process may not lock that much more memory.
    #[error("{wanted} more bytes cannot be locked in memory: the limit is {}", shown(*limit))]
    Limit {
        /// The requested bytes, in whole pages, in addition to the memory that is already locked.
        wanted: usize,
        /// The soft RLIMIT_MEMLOCK in bytes. `None` is unlimited.
        limit: Option<u64>,
    },
    /// The kernel did not allocate the memory.
    #[error("{wanted} bytes of memory for a secret could not be allocated")]
    Memory {
        /// The requested bytes.
        wanted: usize,
        /// The kernel's error.
        source: std::io::Error,
    },
}

fn shown(limit: Option<u64>) -> String {
    limit.map_or_else(|| "not set".to_owned(), |bytes| format!("{bytes} bytes"))
}

fn locked_mapping(len: usize) -> Result<Mapping, LockError> {
    let refused = |wanted, errno: io::Errno| LockError::Memory {
        wanted,
        source: errno.into(),
    };
    let mut mapping = Mapping::new(len).map_err(|errno| refused(len, errno))?;
    let wanted = mapping.len();
    mapping.lock().map_err(|errno| match errno {
        io::Errno::NOMEM | io::Errno::PERM | io::Errno::AGAIN => LockError::Limit {
            wanted,
            limit: getrlimit(Resource::Memlock).current,
        },
        other => refused(wanted, other),
    })?;
    Ok(mapping)
}

/// The cells of a page. A `u64` has one bit for each.
const CELLS: usize = 64;

/// The pages that small secrets share. A page is unmapped when its last secret is dropped.
struct Arena {
    pages: Vec<Page>,
}

struct Page {
    mapping: Mapping,
    /// Bit n is set while cell n is in use.
    used: u64,
}

static ARENA: Mutex<Arena> = Mutex::new(Arena { pages: Vec::new() });

/// The arena. A poisoned mutex is ignored: no code in the arena panics while it is inconsistent.
fn arena() -> MutexGuard<'static, Arena> {
    ARENA.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Arena {
    /// `len` zero bytes, from 1 to the length of a page.
    fn take(&mut self, len: usize) -> Result<NonNull<u8>, LockError> {
        let run = cells_for(len);
        if let Some(address) = self.pages.iter_mut().find_map(|page| page.take(run)) {
            return Ok(address);
        }
        let mapping = locked_mapping(rustix::param::page_size())?;
        let address = mapping.address();
        self.pages.push(Page {
            mapping,
            used: mask(run, 0),
        });
        Ok(address)
    }

    fn give_back(&mut self, address: NonNull<u8>, len: usize) {
        let Some((index, first)) = self.pages.iter().enumerate().find_map(|(index, page)| {
            let start = page.mapping.address().addr().get();
            let offset = address.addr().get().checked_sub(start)?;
            (offset < page.mapping.len()).then(|| (index, offset / cell_size()))
        }) else {
            debug_assert!(false, "an address that is not in the arena");
            return;
        };
        let page = &mut self.pages[index];
        page.used &= !mask(cells_for(len), first);
        if page.used == 0 {
            self.pages.swap_remove(index);
        }
    }
}

impl Page {
    fn take(&mut self, run: usize) -> Option<NonNull<u8>> {
        let first = (0..=CELLS - run).find(|&first| self.used & mask(run, first) == 0)?;
        self.used |= mask(run, first);
        // SAFETY: `first` is a cell of this page, so the sum stays inside the mapping.
        Some(unsafe { self.mapping.address().add(first * cell_size()) })
    }
}

/// The bits of `run` (1 to 64) cells from cell `first` on.
fn mask(run: usize, first: usize) -> u64 {
    (u64::MAX >> (CELLS - run)) << first
}

fn cells_for(len: usize) -> usize {
    len.div_ceil(cell_size())
}

fn cell_size() -> usize {
    rustix::param::page_size() / CELLS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_zeroed_and_writable_at_every_size() {
        for len in [0, 1, 63, 64, 65, 512, 4095, 4096, 4097, 100_000] {
            let mut bytes = LockedBytes::new(len).unwrap();
            assert_eq!(bytes.len(), len);
            assert!(bytes.iter().all(|&b| b == 0));
            bytes.fill(0xff);
            assert!(bytes.iter().all(|&b| b == 0xff));
        }
    }

    #[test]
    fn neighbours_in_the_arena_do_not_overlap() {
        let mut held: Vec<LockedBytes> = Vec::new();
        for round in 0..400usize {
            let fill = u8::try_from(round % 251).unwrap();
            let len = 1 + (round * 37) % 700;
            held.push(LockedBytes::from_fill(len, |b| b.fill(fill)).unwrap());
            if round % 3 == 0 {
                held.swap_remove(round / 7 % held.len());
            }
            for bytes in &held {
                assert!(bytes.iter().all(|b| *b == bytes[0]));
            }
        }
    }

    #[test]
    fn a_cell_is_zeroed_when_it_is_used_again() {
        for _ in 0..50 {
            let mut bytes = LockedBytes::new(200).unwrap();
            assert!(bytes.iter().all(|&b| b == 0));
            bytes.fill(0x5a);
        }
    }

    #[test]
    fn masks_cover_their_cells() {
        assert_eq!(mask(1, 0), 1);
        assert_eq!(mask(64, 0), u64::MAX);
        assert_eq!(mask(2, 62), 0b11 << 62);
    }

    #[test]
    fn debug_shows_only_the_length() {
        let bytes = LockedBytes::copy_from(b"hunter2").unwrap();
        assert_eq!(format!("{bytes:?}"), "LockedBytes(7 bytes)");
    }

    #[test]
    fn more_than_the_limit_names_size_and_limit() {
        let Some(limit) = getrlimit(Resource::Memlock).current else {
            return; // unlimited here: there is no limit to exceed
        };
        let too_much = usize::try_from(limit).unwrap() + 1;
        match LockedBytes::new(too_much) {
            Err(LockError::Limit { wanted, limit: at }) => {
                assert!(wanted >= too_much);
                assert_eq!(at, Some(limit));
            }
            Ok(_) => assert!(
                rustix::process::getuid().is_root(),
                "the limit did not hold"
            ),
            Err(other) => panic!("{other}"),
        }
    }
}
