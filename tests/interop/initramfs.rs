//! The initramfs in which dm-crypt runs: busybox, cryptsetup with its libraries, kernel modules,
//! and the script `init.sh`.

use std::io::{Error, Result};
use std::path::Path;

use support::initramfs::{Archive, Kernel};
use support::peers;

/// The modules to load. Those that a module needs by symbol are found from the module itself; those
/// that it looks up by name when it runs, as the crypto API does, must stand before it here.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_scsi",
    "sd_mod",
    "dm-mod",
    "dm-crypt",
    "dm-integrity",
    "af_alg",
    "algif_skcipher",
    "algif_hash",
    "algif_aead",
    "ecb",
    "cbc",
    "xts",
    "essiv",
    "ctr",
    "ghash-generic",
    "gcm",
    "authenc",
    "seqiv",
    "aegis128",
    "poly1305_generic",
    "chacha20poly1305",
    "aes_generic",
    "serpent_generic",
    "twofish_generic",
    "camellia_generic",
    "cast5_generic",
    "adiantum",
    "nhpoly1305",
    "chacha_generic",
    "sha1_generic",
    "sha256_generic",
    "sha512_generic",
    "sha3_generic",
    "rmd160",
    "wp512",
];

/// The archive with the programs and the modules. A second archive has the jobs of one boot.
pub(crate) fn base(kernel: &Kernel, busybox: &Path, cryptsetup: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in [
        "bin",
        "sbin",
        "dev",
        "proc",
        "sys",
        "run",
        "run/cryptsetup",
        "tmp",
        "keys",
        "make",
        "open",
        "plain",
    ] {
        archive.folder(folder);
    }
    archive.file("bin/busybox", 0o755, &std::fs::read(busybox)?);
    archive.program("sbin/cryptsetup", cryptsetup)?;
    kernel.add_modules(MODULES, &mut archive)?;
    archive.file("init", 0o755, include_bytes!("init.sh"));
    Ok(archive.finish())
}

/// Adds the program that is tested, and dmsetup, to an archive.
pub(crate) fn add_luksmith(archive: &mut Archive) -> Result<()> {
    let dmsetup = peers::find("dmsetup").ok_or_else(|| Error::other("dmsetup is not installed"))?;
    archive.program("bin/luksmith", Path::new(env!("CARGO_BIN_EXE_luksmith")))?;
    archive.program("sbin/dmsetup", &dmsetup)
}
