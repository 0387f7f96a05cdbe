//! Overwrites what calls that have returned left on the stack.

#![allow(unsafe_code)] // the bytes below the caller's frame have no owner in safe Rust

use core::mem::MaybeUninit;

/// More than any hash, key schedule or block function that we call uses.
const DEPTH: usize = 64 * 1024;

/// More than a keyed cipher uses for sectors, and few enough to be zeroed at each request.
const DEPTH_OF_SECTORS: usize = 16 * 1024;

/// Zeroes the 64 KiB of stack below the caller's frame.
///
/// Hashes and key schedules work on copies of the key in their own frames, and returning wipes nothing. Call this
/// after such calls have returned, from the function that made them.
#[inline(never)]
pub fn scrub_stack() {
    scrub::<DEPTH>();
}

/// Zeroes the 16 KiB of stack below the caller's frame: what encrypting or decrypting sectors leaves there. Wide
/// instructions want each round key several times over and spill them, and the first ones are the key itself.
#[inline(never)]
pub(crate) fn scrub_stack_of_sectors() {
    scrub::<DEPTH_OF_SECTORS>();
}

#[inline(always)]
fn scrub<const LEN: usize>() {
    let mut below = MaybeUninit::<[u8; LEN]>::uninit();
    // SAFETY: the pointer is to `LEN` bytes of this frame; any bytes are valid for `MaybeUninit`.
    unsafe { below.as_mut_ptr().write_bytes(0, 1) };
    // The optimiser has to assume that the zeros are read here.
    core::hint::black_box(below.as_mut_ptr());
}
