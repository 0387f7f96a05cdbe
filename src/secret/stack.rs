//! Overwrites what calls that have returned left on the stack.

#![allow(unsafe_code)] // the bytes below the caller's frame have no owner in safe Rust

use core::mem::MaybeUninit;

/// More than any hash, key schedule or block function that we call uses.
const DEPTH: usize = 64 * 1024;

/// Zeroes the 64 KiB of stack below the caller's frame.
///
/// Hashes and key schedules work on copies of the key in their own frames, and returning wipes nothing. Call this
/// after such calls have returned, from the function that made them.
#[inline(never)]
pub fn scrub_stack() {
    let mut below = MaybeUninit::<[u8; DEPTH]>::uninit();
    // SAFETY: the pointer is to `DEPTH` bytes of this frame; any bytes are valid for `MaybeUninit`.
    unsafe { below.as_mut_ptr().write_bytes(0, 1) };
    // The optimiser has to assume that the zeros are read here.
    core::hint::black_box(below.as_mut_ptr());
}
