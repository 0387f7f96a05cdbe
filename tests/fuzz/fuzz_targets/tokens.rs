//! What strangers give to the parsers of tokens: tokens of a header, what Tang servers advertise,
//! and recovery keys. A token opens nothing, since no server is permitted. The memory is bounded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use luksmith::tokens::clevis::Advertisement;
use luksmith::tokens::tpm2::Tpm2Token;
use luksmith_formats::json::Value;
use support::allocation::{self, Counting};
use support::fuzz_input::tokens::{Parsers, judge};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MOST_MEMORY: usize = 16 << 20;

struct All;

impl Parsers for All {
    fn tpm2(token: &Value) -> Result<Value, String> {
        let read = Tpm2Token::read(token);
        read.map(|token| token.to_json()).map_err(|error| error.to_string())
    }

    fn advertisement(jws: &Value) -> Result<usize, String> {
        let read = Advertisement::of_jws("http://tang.example", jws);
        read.map(|found| found.thumbprints().count()).map_err(|error| error.to_string())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let (_, peak) = allocation::peak_of(|| judge::<All>(bytes));
    assert!(peak < MOST_MEMORY, "{peak} bytes");
});
