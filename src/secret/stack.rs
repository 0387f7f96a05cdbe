//! Overwrites what returned calls have left on the stack and in vector registers.

#![allow(unsafe_code)] // safe Rust reaches neither the bytes below the caller's frame nor registers

use core::mem::MaybeUninit;

/// More than any hash, key schedule or block function in use needs.
const DEPTH: usize = 64 * 1024;

/// More than a keyed cipher needs for sectors, and small enough to be zeroed for each request.
const DEPTH_OF_SECTORS: usize = 16 * 1024;

/// More than the kernels of AES-XTS for special instructions need for sectors.
const DEPTH_OF_KERNELS: usize = 4 * 1024;

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

/// As [`scrub_stack_of_sectors`], for the kernels of AES-XTS for special instructions. They are so
/// fast that zeroing 16 KiB takes a twentieth of their time for 64 KiB.
#[inline(never)]
pub(crate) fn scrub_stack_of_kernels() {
    scrub::<DEPTH_OF_KERNELS>();
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const PAINTED: usize = 32 * 1024;
    /// Less than is painted, since the two frames may have different sizes.
    const EXAMINED: usize = PAINTED - 2048;
    const PAINT: u8 = 0xa5;
    const BLOCK: usize = 16;

    /// How many bytes of the stack below this frame `work` changes, at most [`EXAMINED`], give or
    /// take the size of a small frame.
    #[inline(never)]
    pub(crate) fn depth_of(work: impl FnOnce()) -> usize {
        paint();
        work();
        painted()
    }

    pub(crate) const LIMIT: usize = DEPTH_OF_KERNELS;

    /// What the stack below this frame holds after `work`. It was painted before.
    #[cfg(feature = "tang")]
    #[inline(never)]
    pub(crate) fn after(work: impl FnOnce()) -> Vec<u8> {
        paint();
        work();
        copied()
    }

    #[cfg(feature = "tang")]
    #[inline(never)]
    fn copied() -> Vec<u8> {
        let below = MaybeUninit::<[u8; EXAMINED]>::uninit();
        let start: *const u8 = core::hint::black_box(below.as_ptr()).cast();
        let byte = |n: usize| {
            let byte = start.wrapping_add(n);
            // SAFETY: as in `painted`.
            unsafe { byte.read_volatile() }
        };
        (0..EXAMINED).map(byte).collect()
    }

    #[inline(never)]
    fn paint() {
        let mut below = MaybeUninit::<[u8; PAINTED]>::uninit();
        // SAFETY: the pointer is to `PAINTED` bytes of this frame, and any bytes are valid for
        // `MaybeUninit`.
        unsafe { below.as_mut_ptr().write_bytes(PAINT, 1) };
        core::hint::black_box(below.as_mut_ptr());
    }

    #[inline(never)]
    fn painted() -> usize {
        let below = MaybeUninit::<[u8; EXAMINED]>::uninit();
        let start: *const u8 = core::hint::black_box(below.as_ptr()).cast();
        // The stack grows downwards, so the lowest block that was changed is the deepest one. Large
        // frames are probed: 8 bytes of each page are written, which change no whole block.
        let is_changed = |block: usize| {
            (block * BLOCK..(block + 1) * BLOCK).all(|n| {
                let byte = start.wrapping_add(n);
                // SAFETY: it is a byte of this frame. The optimiser does not know where it comes
                // from, so it is read as it is.
                unsafe { byte.read_volatile() != PAINT }
            })
        };
        let untouched = (0..EXAMINED / BLOCK).take_while(|&block| !is_changed(block));
        EXAMINED - untouched.count() * BLOCK
    }

    #[test]
    fn the_depth_of_calls_is_measured() {
        #[inline(never)]
        fn deep<const LEN: usize>() {
            let mut bytes = [core::hint::black_box(1_u8); LEN];
            core::hint::black_box(&mut bytes);
        }
        let depth = depth_of(deep::<8192>);
        assert!((8192..12288).contains(&depth), "{depth}");
        assert!(depth_of(|| ()) < 1024);
    }
}
