//! The kernels for x86-64, one file for each width of the AES instructions.
//!
//! The files have the same sections in the same order: read one, and compare it with the next.

#![allow(unsafe_code)] // loads, stores, and calls of functions for a detected CPU
#![allow(clippy::needless_range_loop)] // one index for several arrays
#![allow(clippy::unnecessary_min_or_max)] // it is for some repetitions of a body

/// Repeats the body for each number, which is a constant in it. The compiler does not unroll a loop
/// over the rounds, and keeps its registers in memory.
macro_rules! unrolled {
    ($n:ident in $($value:literal)* $body:block) => {
        $({
            #[allow(non_upper_case_globals)]
            const $n: usize = $value;
            $body
        })*
    };
}

pub(super) mod aesni;
pub(super) mod limit;
mod schedule;
pub(super) mod vaes256;
pub(super) mod vaes512;

/// Whether Intel made this CPU. Intel's and AMD's CPUs differ in which instructions are cheap.
fn maker_is_intel() -> bool {
    static INTEL: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *INTEL.get_or_init(|| {
        #[allow(unused_unsafe)] // a safe function in newer compilers
        // SAFETY: every x86-64 CPU has the instruction and its leaf 0.
        let name = unsafe { std::arch::x86_64::__cpuid(0) };
        [name.ebx, name.edx, name.ecx]
            .map(u32::to_le_bytes)
            .as_flattened()
            == b"GenuineIntel"
    })
}
