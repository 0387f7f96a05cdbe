//! Inner loops of key derivations on special instructions of x86-64 CPUs.
//!
//! The faster a derivation is here, the more work fits in the time that the owner waits, and the
//! stronger the keyslot is. On CPUs without these instructions the crates `hmac` and `argon2` do
//! the work. Tests compare the results with those of the crates `pbkdf2` and `argon2`.

#![allow(unsafe_code)] // loads, stores, rounds, and calls of functions for a detected CPU

pub(super) mod by_words;
pub(super) mod compress;
pub(super) mod ends;
pub(super) mod fill;
pub(super) mod sha256;
pub(super) mod sha256_lanes;
pub(super) mod sha512;
