//! Keeps the compiler from copying keys out of locked memory.

#![allow(unsafe_code)] // hides the origin of a pointer from the compiler

/// Returns `value`, but hides from the compiler that it is the same reference.
///
/// The compiler then reads the round keys from their own memory each time, and keeps no copies of
/// them on the stack.
#[inline(always)]
#[allow(clippy::pointers_in_nomem_asm_block)] // the block does not read through the pointer
pub(super) fn in_place<T>(value: &T) -> &T {
    let mut address: *const T = value;
    // SAFETY: the block contains no instructions.
    unsafe {
        std::arch::asm!("/* {} */", inout(reg) address, options(nomem, nostack, preserves_flags));
    }
    // SAFETY: the address is that of the reference `value`.
    unsafe { &*address }
}
