//! A global allocator for programs that handle secrets: what is freed is overwritten first.
//!
//! Our own secrets never touch the heap. Code of others does copy them there (a strength estimate splits the
//! passphrase into strings, a buffer grows and leaves its old place behind), and this is what makes those copies go.
//! Blocks of every size are wiped: for a MiB it costs about as much as filling it once (35 µs), and what moves data
//! by the gigabyte keeps its buffers in a pool.

#![allow(unsafe_code)] // an allocator is unsafe by nature

use std::alloc::{GlobalAlloc, Layout, System};

/// The system's allocator, with every block overwritten when it is freed or moves.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: luksmith::secret::WipingAllocator = luksmith::secret::WipingAllocator;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct WipingAllocator;

// SAFETY: every call goes to `System` with the layout that it came with; the wiping is of memory that is still ours.
unsafe impl GlobalAlloc for WipingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block is allocated until the last call below, and its owner has let go of it.
        unsafe { block.write_bytes(0, layout.size()) };
        // Stores just before a free are dead to the optimiser, unless somebody may read them.
        core::hint::black_box(block);
        // SAFETY: `block` came from `System` with this layout.
        unsafe { System.dealloc(block, layout) }
    }

    /// Always moves: `System`'s own realloc would leave the old place as it was.
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller promises that `new_size` is not zero and does not overflow with this alignment.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: as in `alloc`.
        let moved = unsafe { self.alloc(new_layout) };
        if !moved.is_null() {
            let kept = layout.size().min(new_size);
            // SAFETY: both blocks are at least `kept` bytes long, and a new block overlaps no old one.
            unsafe { core::ptr::copy_nonoverlapping(block, moved, kept) };
            // SAFETY: the old block is ours to free.
            unsafe { self.dealloc(block, layout) };
        }
        moved
    }
}
