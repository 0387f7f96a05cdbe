//! The kernels for x86-64, a file for each width of the AES instructions. The files have the same sections in the
//! same order: read one, and compare it with the next.

#![allow(unsafe_code)] // memory into registers and back, and the step into functions for a CPU that was detected
#![allow(clippy::needless_range_loop)] // a register by its number, in several arrays

/// The body once for each number. The compiler would leave a loop over the rounds rolled, and its registers in memory.
macro_rules! unrolled {
    ($n:ident in $($value:literal)* $body:block) => {
        $({
            let $n: usize = $value;
            $body
        })*
    };
}

pub(super) mod aesni;
pub(super) mod limit;
mod schedule;
pub(super) mod vaes256;
pub(super) mod vaes512;

/// Whether Intel made this CPU: where its makers' CPUs do not agree on what is cheap.
fn maker_is_intel() -> bool {
    static INTEL: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *INTEL.get_or_init(|| {
        #[allow(unused_unsafe)] // newer compilers know it to be safe
        // SAFETY: every x86-64 CPU has the instruction, and leaf 0.
        let name = unsafe { std::arch::x86_64::__cpuid(0) };
        [name.ebx, name.edx, name.ecx]
            .map(u32::to_le_bytes)
            .as_flattened()
            == b"GenuineIntel"
    })
}
