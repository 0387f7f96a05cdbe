//! Do luksmith, libvirt and QEMU work together? Each test has a libvirtd of its own.
//!
//! A missing peer is named and its test skipped, unless `CI=true`.
//!
//! - `daemon`: a libvirtd that does not touch the machine's libvirt.
//! - `watchdog`: ends one that hangs.
//! - `host`: luksmith, run on the host of that daemon. `program`: luksmith, run in a folder of the
//!   test.
//! - `core`: the types over libvirt's functions.
//! - `secrets`: `luksmith libvirt secret`, and libvirt's secrets as SOURCEs.
//! - `domains`: `libvirt provision`, `attach` and `detach`, and domains that start with their
//!   disks.
//! - `rotate`: `luksmith libvirt rotate`. `beside`: the same while a QEMU that cannot change
//!   keyslots has the volume open. `killed`: the same, killed at any point. `interrupted`: after
//!   that, other programs changed keyslots. `volumes`: which volumes it finds and refuses.
//! - `rekey`: `luksmith libvirt rekey`. `rekey_refused`: what it refuses, and what fails.
//!   `rekey_killed`: the same, killed while QEMU copies.
//! - `ceph`: volumes in Ceph.
//! - `another_host`: a libvirt whose paths are those of another host.
//! - `audit`: `luksmith audit --connect`.
//! - `docs`: the commands of `docs/libvirt.md` and `docs/leaked-key.md`. `schema`: the output of
//!   `libvirt xml`, validated by libvirt's own schemas.
//! - `examples`: the examples `provision` and `rotate`.
//! - `qcow2`: LUKS inside of qcow2 images, and detached headers.
//! - `qemu`: QEMU without libvirt.
//! - `json`: the JSON of the commands for libvirt.
//! - `remains`: what commands leave of passphrases, in memory and elsewhere.

#![allow(missing_docs)]

mod another_host;
mod audit;
mod beside;
mod ceph;
mod core;
mod daemon;
mod docs;
mod domains;
mod examples;
mod host;
mod interrupted;
mod json;
mod killed;
mod program;
mod qcow2;
mod qemu;
mod rekey;
mod rekey_killed;
mod rekey_refused;
mod remains;
mod rotate;
mod schema;
mod secrets;
mod vhost_user;
mod volumes;
mod watchdog;
