//! luksmith for programs in C: `libluksmith.so.0` and `libluksmith.a`.
//!
//! `include/luksmith.h` has the declarations and what they mean; the tests compare it with the
//! functions here. Each module has the functions of one section of the header.
//!
//! - A handle is a `Box` whose pointer C holds. A parameter `Option<&T>` is a pointer that may be
//!   `NULL`.
//! - No panic leaves a function: `error::run` catches it, and returns `error::INTERNAL`. A function
//!   that returns no kind uses `error::caught`.
//! - There is no global allocator, and nothing changes the process but `luksmith_harden`.

#![allow(unsafe_code)] // names of functions without mangling, and pointers from C
#![allow(unreachable_pub)] // the functions are for C, whatever their module

mod error;
mod inspect;
mod io;
mod key;
mod keyslots;
mod options;
mod process;
mod server;
mod text;
mod volume;
