//! Does each evil header get its verdict, fast and in bounded memory?
//!
//! A good header is made in memory by our own types, one thing about it is changed, its checksum is made right
//! again where the change lies behind it, and a table says what must come of it: the kind of the refusal, the
//! field that it names, and a word of its cause. Beside the evil ones stand good neighbours, which must pass.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod changes;
mod contents;
mod copies;
mod image;
mod images;
mod limits;
mod luks1;
mod luks2;
mod luks2_json;
mod luks2_tables;
mod other_keys;
mod properties;
mod qcow2;
mod unlocking;
mod verdict;

#[global_allocator]
static ALLOCATOR: support::allocation::Counting = support::allocation::Counting;
