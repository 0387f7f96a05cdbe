//! Volumes on NBD servers.
//!
//! - `servers`: starts nbdkit, qemu-nbd and qemu-storage-daemon. A `FakeServer` does what none of
//!   them does.
//! - `agree`: whole payloads through every kind of server. `refuse`: exports that cannot be opened.
//!   `errors`: servers that fail.
//! - `ahead`: prefetching.
//! - `drips`: servers that send a byte now and then, and that the interrupt ends each wait.
//! - `extents`: holes (`base:allocation`).
//! - `lies`: servers that violate the protocol. `broken`: connections that break, and servers that
//!   are killed with writes in their cache. `other`: another disk under the same name.
//! - `commands`: the program on exports, compared with cryptsetup. `tests/crash/remote.rs` has a
//!   server that is killed during a change of a header.
//! - `ciphertext`: searches the bytes that are sent to a server and stored there for secrets.
//!   `proxy` records them.
//! - `plain`: plain data on exports, and copies of volumes between exports.
//! - `tls`: certificates. `wrapped`: a served volume on an export.

mod agree;
mod ahead;
mod broken;
mod ciphertext;
mod commands;
mod drips;
mod errors;
mod extents;
mod lies;
mod other;
mod plain;
mod proxy;
mod refuse;
mod servers;
mod tls;
mod wrapped;

use luksmith::backend::nbd::{ConnectOptions, NbdBackend};
use luksmith::backend::{Backend, IoError};
use luksmith::sectors::{Cipher, Sectors};
use luksmith_formats::nbd::uri::Uri;
use std::time::Duration;

/// Options for writing, with a timeout for tests.
fn options() -> ConnectOptions {
    ConnectOptions::new()
        .write(true)
        .timeout(Duration::from_secs(10))
}

/// Options with a short timeout, for servers that do not come back.
fn impatient() -> ConnectOptions {
    options().timeout(Duration::from_millis(300))
}

fn connect(uri: &Uri, options: ConnectOptions) -> NbdBackend {
    NbdBackend::connect(uri, options).unwrap()
}

fn sectors(bytes: &[u8]) -> Sectors<Cipher> {
    let mut sectors = Sectors::<Cipher>::with_len(bytes.len());
    sectors.as_mut_slice().copy_from_slice(bytes);
    sectors
}

fn read(storage: &dyn Backend, offset: u64, len: usize) -> Result<Vec<u8>, IoError> {
    let mut sectors = Sectors::<Cipher>::with_len(len);
    let outcome = storage.read_at(offset, &mut sectors);
    assert_eq!(sectors.len(), len, "the buffer comes back in any case");
    outcome.map(|()| sectors.as_slice().to_vec())
}

/// Bytes that depend on their offset and on `seed`.
fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// An error with its sources, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        line = format!("{line}: {error}");
        source = error.source();
    }
    line
}
