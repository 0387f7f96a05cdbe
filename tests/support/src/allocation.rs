//! A global allocator that counts the bytes that each thread holds, and the most that it has held.
//!
//! A test binary that calls [`peak_of`] makes it its allocator:
//!
//! ```ignore
//! #[global_allocator]
//! static ALLOCATOR: support::allocation::Counting = support::allocation::Counting;
//! ```

// `GlobalAlloc` is an unsafe trait. This implementation counts, and calls the system's allocator.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, with a count of bytes for each thread.
#[derive(Debug)]
pub struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// Runs `work`; returns its result and the most bytes by which this thread's memory grew meanwhile.
///
/// The result is 0 in a binary whose global allocator is not [`Counting`].
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = work();
    (result, PEAK.get().saturating_sub(before))
}

fn grown(bytes: usize) {
    let held = HELD.get().saturating_add(bytes);
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

fn shrunk(bytes: usize) {
    HELD.set(HELD.get().saturating_sub(bytes));
}

// SAFETY: every call is passed to the system's allocator unchanged. `realloc` is the trait's own,
// which calls the other two.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is the same for the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        shrunk(layout.size());
        // SAFETY: the pointer came from `System.alloc` with this layout, as the caller promises of
        // ours.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[cfg(test)]
mod tests {
    #[global_allocator]
    static ALLOCATOR: super::Counting = super::Counting;

    #[test]
    fn the_peak_is_seen() {
        let (_, peak) = super::peak_of(|| vec![1_u8; 3 << 20].len());
        assert!((3 << 20..4 << 20).contains(&peak), "{peak}");
    }
}
