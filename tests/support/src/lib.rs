//! Helpers that several of luksmith's test binaries share.
//!
//! - [`peers`]: finds and runs the programs that luksmith is compared with.
//! - [`program`]: runs luksmith as a user would, and a server of it.
//! - [`certificates`]: TLS certificates made by gnutls.
//! - [`ceph`]: a Ceph cluster of one node; [`rgw`]: its S3 service. [`moto`]: another S3 service.
//!   [`s3_double`]: one in memory that fails as a test tells it to.
//! - [`nbd_server`]: an NBD server that misbehaves as a test tells it to.
//! - [`partitions`]: writes tables of partitions into images.
//! - [`boot_sector`]: a guest of one sector that reads and writes its disk.
//! - [`initramfs`]: archives from which a Linux guest boots.
//! - [`json_schema`]: checks the JSON that luksmith prints against `docs/schema/`.
//! - [`qcow2`]: checks the refcounts of qcow2 images, and compresses clusters in them.
//! - [`secret_search`]: searches bytes for parts of secrets.
//! - [`recorder`]: a proxy that records every byte.
//! - [`segments`]: memory in pieces, as a guest's requests have it.
//! - [`tagged`]: volumes with authenticated encryption that cryptsetup made.
//! - [`swtpm`]: a TPM 2.0 in a process, and its other clients.
//! - [`acl`]: access control lists of files. [`loop_device`]: a block device of a file.
//! - [`allocation`], [`cpu_time`]: the memory and processor time that a piece of work takes.
//! - [`mod@bench`]: helpers that the bench programs share.
//! - [`vhost_guest`]: a guest without a machine, for servers of vhost-user.
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
pub mod ceph;
pub mod certificates;
pub mod cpu_time;
pub mod fuzz_input;
pub mod initramfs;
pub mod json_schema;
pub mod loop_device;
pub mod moto;
pub mod nbd_server;
pub mod partitions;
pub mod peers;
pub mod program;
pub mod qcow2;
pub mod recorder;
pub mod rgw;
pub mod s3_double;
pub mod secret_search;
pub mod segments;
pub mod swtpm;
pub mod tagged;
pub mod vhost_guest;
