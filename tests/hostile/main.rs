//! Does each hostile header get its verdict, quickly and in bounded memory?
//!
//! A test makes a good header in memory with luksmith's own types, changes one thing, and corrects
//! the checksum. A table says what the result must be: the kind of the error, the field that it
//! names, and a word of its cause. Similar good headers, which must be accepted, are beside the
//! hostile ones.
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
mod integrity;
mod limits;
mod luks1;
mod luks2;
mod luks2_json;
mod luks2_tables;
mod other_keys;
mod partitions;
mod properties;
mod qcow2;
mod records;
mod unlocking;
mod verdict;

#[global_allocator]
static ALLOCATOR: support::allocation::Counting = support::allocation::Counting;
