//! Helpers that several of luksmith's test binaries share.
//!
//! - [`peers`]: finds and runs the programs that luksmith is compared with.
//! - [`certificates`]: TLS certificates made by gnutls.
//! - [`nbd_server`]: an NBD server that misbehaves as a test tells it to.
//! - [`partitions`]: writes tables of partitions into images.
//! - [`boot_sector`]: a guest of one sector that reads and writes its disk.
//! - [`initramfs`]: archives from which a Linux guest boots.
//! - [`json_schema`]: checks the JSON that luksmith prints against `docs/schema/`.
//! - [`qcow2`]: checks the refcounts of qcow2 images, and compresses clusters in them.
//! - [`secret_search`]: searches bytes for parts of secrets.
//! - [`acl`]: access control lists of files.
//! - [`allocation`], [`cpu_time`]: the memory and processor time that a piece of work takes.
//! - [`mod@bench`]: helpers that the bench programs share.
//! - [`fuzz_input`]: the input formats of fuzz targets that tests read or write too.

/// Whether this is a long run (`./test long`), in which a test tries every case of which it
/// otherwise tries a sample.
pub fn is_long() -> bool {
    std::env::var_os("LUKSMITH_TEST_LONG").is_some_and(|value| value == "true")
}

pub mod acl;
pub mod allocation;
pub mod bench;
pub mod boot_sector;
pub mod certificates;
pub mod cpu_time;
pub mod fuzz_input;
pub mod initramfs;
pub mod json_schema;
pub mod nbd_server;
pub mod partitions;
pub mod peers;
pub mod qcow2;
pub mod secret_search;
