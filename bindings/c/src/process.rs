//! What concerns the library and the whole process.

use std::ffi::{c_char, c_int};

use crate::error::{ErrorOut, run};

#[unsafe(no_mangle)]
pub extern "C" fn luksmith_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

#[unsafe(no_mangle)]
pub extern "C" fn luksmith_harden(error: ErrorOut<'_>) -> c_int {
    run(error, luksmith::task::open_volume::harden)
}
