//! Overwrites what returned calls have left on the stack and in vector registers.

#![allow(unsafe_code)] // safe Rust reaches neither the bytes below the caller's frame nor registers

use core::mem::MaybeUninit;

/// More than any hash, key schedule or block function in use needs.
const DEPTH: usize = 64 * 1024;

/// More than a keyed cipher needs for sectors, and small enough to be zeroed for each request.
const DEPTH_OF_SECTORS: usize = 16 * 1024;

/// Zeroes the 64 KiB of stack below the caller's frame.
///
/// Hashes and key schedules work on copies of the key in their own stack frames, which are not
/// wiped when they return. A function that makes such calls calls this after they have returned.
#[inline(never)]
pub fn scrub_stack() {
    scrub::<DEPTH>();
}

/// Zeroes the 16 KiB of stack below the caller's frame, which encrypting or decrypting sectors has
/// used. Code with wide vectors holds several copies of each round key and spills them to the
/// stack, and the first round keys are the key itself.
#[inline(never)]
pub(crate) fn scrub_stack_of_sectors() {
    scrub::<DEPTH_OF_SECTORS>();
}

#[inline(always)]
fn scrub<const LEN: usize>() {
    #[cfg(target_arch = "x86_64")]
    scrub_registers();
    let mut below = MaybeUninit::<[u8; LEN]>::uninit();
    // SAFETY: the pointer is to `LEN` bytes of this frame, and any bytes are valid for
    // `MaybeUninit`.
    unsafe { below.as_mut_ptr().write_bytes(0, 1) };
    // The optimiser has to assume that the zeroes are read here.
    core::hint::black_box(below.as_mut_ptr());
}

/// Zeroes the vector registers. Round keys stay in them until they are overwritten, and the dynamic
/// linker saves all of them to the stack when it first binds a function.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn scrub_registers() {
    if !is_x86_feature_detected!("avx") {
        // SAFETY: every x86-64 CPU has SSE. Only registers that a call may change are changed.
        unsafe {
            std::arch::asm!(
                ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
                "xorps xmm\\n, xmm\\n",
                ".endr",
                clobber_abi("sysv64"),
                options(nomem, nostack, preserves_flags),
            );
        }
        return;
    }
    // SAFETY: AVX was detected. Only registers that a call may change are changed.
    unsafe {
        std::arch::asm!(
            "vzeroall",
            clobber_abi("sysv64"),
            options(nomem, nostack, preserves_flags),
        );
    }
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: AVX-512 was detected. Only registers that a call may change are changed.
        unsafe {
            std::arch::asm!(
                ".irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31",
                "vpxord zmm\\n, zmm\\n, zmm\\n",
                ".endr",
                clobber_abi("sysv64"),
                options(nomem, nostack, preserves_flags),
            );
        }
    }
}
