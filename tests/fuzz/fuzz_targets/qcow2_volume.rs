//! A qcow2 image with changes anywhere, opened and written to: no panic, and no memory over the bound.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../hostile/allocation.rs"]
mod allocation;
#[path = "../../crash/compress.rs"]
mod compress;
#[path = "../../hostile/qcow2_steps.rs"]
mod qcow2_steps;

const MOST_MEMORY: usize = 64 << 20;

fuzz_target!(|bytes: &[u8]| {
    let (_, peak) = allocation::peak_of(|| qcow2_steps::follow(bytes));
    assert!(peak < MOST_MEMORY, "{peak} bytes");
});
