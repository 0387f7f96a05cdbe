//! Do NBD's clients and servers agree with us, and does nobody come to harm?
//!
//! The peers are real programs; one that is not there is named and its test skipped, unless `CI=true`.
//!
//! - `served`: the program as a server, in a folder of its own; `wire`: a client of single messages, for what no real client does.
//! - `clients`: libnbd's tools, QEMU's and fio on served volumes.
//! - `commands`: every option and command, by the protocol's own words.
//! - `neighbours`: unaligned writes, also from several connections into one sector.
//! - `hostile`: clients that leave, lie, flood and dawdle.
//! - `failing`: storage that fails or waits.
//! - `filesystem`: ext4 of the kernel by nbdfuse and a loop device. `guest`: a machine that boots from a volume.
//!   `linux`: one that keeps its files there.
//! - `client`: volumes on servers, real ones and ones that lie.
//! - `memory`: what the program holds of secrets while it serves.
//! - `access`: who may connect. `life`: starting, stopping, and being killed.

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
mod qcow2;
mod served;
mod wire;
