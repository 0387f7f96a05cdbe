//! Does each bad image have its finding, and each good one none, in bounded time and memory?
//!
//! The tests generate a good image, change one field of it, and have a table of the checks that
//! must find the change. The tables also have similar changes after which the image is still good.
//! `qemu` inspects images of qemu-img, and compares the results of `qemu-img info` with ours.
//! `mutants` does so for random changes.

mod bounds;
mod ciphertext;
mod command;
mod differ;
mod disks;
mod docs;
mod iso;
mod judge;
mod luks;
mod mutants;
mod policy;
mod qcow2;
mod qcow2_refcounts;
mod qcow2_tables;
mod qed;
mod qemu;
mod udf;
mod untrusted;
mod vdi;
mod vhd;
mod vhdx;
mod vmdk;

#[global_allocator]
static ALLOCATOR: support::allocation::Counting = support::allocation::Counting;
