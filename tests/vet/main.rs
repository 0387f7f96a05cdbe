//! Does each bad image get its finding, and each good one none, in bounded time and memory?
//!
//! A good image is made here from nothing, one thing about it is changed, and a table says which check must find it.
//! Beside the bad ones stand their good neighbours. `qemu` does the same with images that qemu-img made, and compares what
//! it says of all of them with what we say.

mod bounds;
mod ciphertext;
mod command;
mod differ;
mod disks;
mod docs;
mod iso;
mod judge;
mod luks;
mod policy;
mod qcow2;
mod qcow2_refcounts;
mod qcow2_tables;
mod qed;
mod qemu;
mod untrusted;
mod vdi;
mod vhd;
mod vhdx;
mod vmdk;

#[global_allocator]
static ALLOCATOR: support::allocation::Counting = support::allocation::Counting;
