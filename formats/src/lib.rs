#![no_std]
//! The byte layouts of LUKS1 and LUKS2 headers, strictly validated, without I/O and without secrets.
extern crate alloc;
