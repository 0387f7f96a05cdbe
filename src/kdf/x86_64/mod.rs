//! The inner loops of key derivations on the instructions that x86-64 CPUs have for them. What a keyslot costs an attacker is
//! what its owner waits for, so whatever is left on the table here is theirs. The crates are the fallback and the oracle.

#![allow(unsafe_code)] // memory into registers and back, and the step into functions for a CPU that was detected

pub(super) mod compress;
pub(super) mod ends;
pub(super) mod fill;
pub(super) mod sha256;
