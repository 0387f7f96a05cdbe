//! Does what libvirt keeps and starts go right? On a libvirtd of each test's own.
//!
//! What is missing is named and its test skipped, unless `CI=true`.
//!
//! - `daemon`: a libvirtd that leaves the machine alone.
//! - `domains`: `libvirt provision`, `attach` and `detach`, and domains that start. `docs`: the commands of `docs/libvirt.md`. `schema`: `libvirt xml` by libvirt's own schemas.
//! - `qemu`: QEMU without libvirt. `program`: luksmith in a folder of the test.
//! - `host`: luksmith, as it runs on that daemon's host.
//! - `audit`: `luksmith audit --connect`.
//! - `core`: the types over libvirt's functions. `secrets`: `luksmith libvirt secret`, and secrets as SOURCEs.
//!   `rotate`: `luksmith libvirt rotate`; `beside`: the same beside a QEMU that cannot change keyslots; `killed`: the same, killed anywhere.
//! - `remains`: what commands leave of passphrases, in memory and elsewhere.

#![allow(missing_docs)]

mod audit;
mod beside;
mod core;
mod daemon;
mod docs;
mod domains;
mod host;
mod killed;
mod program;
mod qemu;
mod remains;
mod rotate;
mod schema;
mod secrets;
