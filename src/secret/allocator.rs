//! A global allocator for programs that handle secrets: it overwrites memory before it is freed.
//!
//! This crate never puts its own secrets on the heap. Dependencies may copy them there: a strength
//! estimate splits the passphrase into strings, and a buffer that grows leaves its old block
//! behind. The allocator wipes those copies. It wipes blocks of every size. A MiB costs about as
//! much as filling it once (35 µs), and code that moves gigabytes keeps its buffers in a pool.

#![allow(unsafe_code)] // an allocator is unsafe by nature

use std::alloc::{GlobalAlloc, Layout, System};

/// The system's allocator, which overwrites every block when it is freed or moved.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: luksmith::secret::WipingAllocator = luksmith::secret::WipingAllocator;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct WipingAllocator;

// SAFETY: every call is passed to `System` with the same layout. Only blocks that are still
// allocated are wiped.
unsafe impl GlobalAlloc for WipingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller upholds the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block is allocated until the last call below, and its owner uses it no
        // longer.
        unsafe { block.write_bytes(0, layout.size()) };
        // Without this the optimiser may remove stores that precede a free.
        core::hint::black_box(block);
        // SAFETY: `block` came from `System` with this layout.
        unsafe { System.dealloc(block, layout) }
    }

    /// Always moves: `System`'s own realloc would not wipe the old block.
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller promises that `new_size` is not zero and does not overflow with this
        // alignment.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: as in `alloc`.
        let moved = unsafe { self.alloc(new_layout) };
        if !moved.is_null() {
            let kept = layout.size().min(new_size);
            // SAFETY: both blocks are at least `kept` bytes long, and a new block overlaps no old
            // one.
            unsafe { core::ptr::copy_nonoverlapping(block, moved, kept) };
            // SAFETY: the caller of `realloc` passed the ownership of the old block.
            unsafe { self.dealloc(block, layout) };
        }
        moved
    }
}
