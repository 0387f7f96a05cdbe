//! Keeps the compiler from copying what lies in locked memory.

#![allow(unsafe_code)] // an address that the compiler loses sight of

/// The same, where the compiler cannot see that it is: so that it reads round keys from where they are, each time, and
/// keeps no copy on the stack.
#[inline(always)]
#[allow(clippy::pointers_in_nomem_asm_block)] // nothing is read there
pub(super) fn in_place<T>(value: &T) -> &T {
    let mut address: *const T = value;
    // SAFETY: it has no instructions.
    unsafe {
        std::arch::asm!("/* {} */", inout(reg) address, options(nomem, nostack, preserves_flags));
    }
    // SAFETY: it is the address of the reference that was given.
    unsafe { &*address }
}
