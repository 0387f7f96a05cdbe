//! The initramfs in which dm-crypt runs: busybox, cryptsetup with its libraries, kernel modules,
//! and the script `init.sh`.

use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

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
    "af_alg",
    "algif_skcipher",
    "algif_hash",
    "ecb",
    "cbc",
    "xts",
    "essiv",
    "aes_generic",
    "serpent_generic",
    "twofish_generic",
    "camellia_generic",
    "cast5_generic",
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
        "plain",
    ] {
        archive.folder(folder);
    }
    archive.file("bin/busybox", 0o755, &std::fs::read(busybox)?);
    archive.file("sbin/cryptsetup", 0o755, &std::fs::read(cryptsetup)?);
    for library in libraries(cryptsetup)? {
        archive.file_of_host(&library)?;
    }
    kernel.add_modules(MODULES, &mut archive)?;
    archive.file("init", 0o755, include_bytes!("init.sh"));
    Ok(archive.finish())
}

/// The libraries that `ldd` lists, and two that are loaded by name at run time: libgcc, which ends
/// argon2's threads, and OpenSSL's module of old hashes.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = peers::run(Command::new("ldd").arg(program));
    let mut found: Vec<PathBuf> = String::from_utf8_lossy(&listed)
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect();
    let folder = found
        .iter()
        .find(|file| is_libc(file))
        .and_then(|file| file.parent())
        .ok_or_else(|| Error::new(ErrorKind::NotFound, "ldd lists no C library"))?
        .to_path_buf();
    for loaded in ["libgcc_s.so.1", "ossl-modules/legacy.so"] {
        let under_usr = Path::new("/usr").join(folder.strip_prefix("/").unwrap_or(&folder));
        for file in [folder.join(loaded), under_usr.join(loaded)] {
            if file.exists() && !found.contains(&file) {
                found.push(file);
            }
        }
    }
    Ok(found)
}

fn is_libc(file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with("libc.so"))
}
