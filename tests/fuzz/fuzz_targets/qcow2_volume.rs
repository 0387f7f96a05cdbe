//! A qcow2 image with changes anywhere, opened and written to: it never panics, and its memory is
//! bounded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use support::allocation::{self, Counting};
use support::fuzz_input::qcow2::follow;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MOST_MEMORY: usize = 64 << 20;

fuzz_target!(|bytes: &[u8]| {
    let (_, peak) = allocation::peak_of(|| follow(bytes));
    assert!(peak < MOST_MEMORY, "{peak} bytes");
});
