//! Do other NBD clients and servers work with luksmith, and are its users safe from hostile ones?
//!
//! The peers are other programs. If one is not installed, its tests are skipped and it is named,
//! unless `CI=true`.
//!
//! - `served`: starts the program as a server, in a new folder. `wire`: a client that sends single
//!   messages, as no other client does.
//! - `clients`: the tools of libnbd and QEMU, and fio, on served volumes.
//! - `commands`: every option and command of the protocol.
//! - `neighbours`: unaligned writes, also from several connections into one sector.
//! - `hostile`: clients that disconnect at any point, violate the protocol, flood the server or are
//!   slow.
//! - `failing`: storage that fails or is slow.
//! - `filesystem`: ext4 of the kernel, by nbdfuse and a loop device. `guest`: a machine that boots
//!   from a volume. `linux`: a machine that keeps its files there.
//! - `client`: volumes on other servers, some of which violate the protocol.
//! - `memory`: secrets in the memory of the program while it serves.
//! - `reencrypted`: a volume whose key changes meanwhile.
//! - `access`: which clients can connect. `passed`: sockets that systemd passes. `places`: many
//!   clients at once. `life`: starting, stopping, and being killed.

#![allow(missing_docs)]

mod access;
mod client;
mod clients;
mod commands;
mod failing;
mod filesystem;
mod guest;
mod hostile;
mod life;
mod linux;
mod memory;
mod neighbours;
mod passed;
mod places;
mod qcow2;
mod reencrypted;
mod served;
mod wire;
