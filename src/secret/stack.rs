//! Overwrites what calls that have returned left on the stack and in vector registers.

#![allow(unsafe_code)] // the bytes below the caller's frame have no owner in safe Rust, nor have registers

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
    #[cfg(target_arch = "x86_64")]
    scrub_registers();
    let mut below = MaybeUninit::<[u8; LEN]>::uninit();
    // SAFETY: the pointer is to `LEN` bytes of this frame; any bytes are valid for `MaybeUninit`.
    unsafe { below.as_mut_ptr().write_bytes(0, 1) };
    // The optimiser has to assume that the zeros are read here.
    core::hint::black_box(below.as_mut_ptr());
}

/// Zeroes the vector registers. Round keys stay in them until another use, and the dynamic linker, when it first binds
/// a function, saves them all to the stack.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn scrub_registers() {
    if !is_x86_feature_detected!("avx") {
        // SAFETY: every x86-64 CPU has SSE; what a call may change is all that is changed.
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
    // SAFETY: AVX was detected; what a call may change is all that is changed.
    unsafe {
        std::arch::asm!(
            "vzeroall",
            clobber_abi("sysv64"),
            options(nomem, nostack, preserves_flags),
        );
    }
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: AVX-512 was detected; what a call may change is all that is changed.
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
