//! Do NBD's clients and servers agree with us, and does nobody come to harm?
//!
//! The peers are real programs; one that is not there is named and its test skipped, unless `CI=true`.
//!
//! - `client`: volumes on servers, real ones and ones that lie.

#![allow(missing_docs)]

mod client;
#[path = "../interop/peers.rs"]
#[allow(dead_code, reason = "tests/interop needs more of it")]
mod peers;
