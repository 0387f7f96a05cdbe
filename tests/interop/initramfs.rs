//! What boots in virtual machines: busybox, the modules of an unpacked kernel package, and an init script; for `dmcrypt`
//! cryptsetup with its libraries, too; written as cpio archives (the "newc" form), of which the kernel
//! takes several one after the other.

use crate::peers;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Modules by name, each after those that it needs by name only (the crypto API looks templates up when
/// they are used). Needs by symbol are read from the modules. One that is built in is not among the files.
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
    "sha1_generic",
    "sha256_generic",
    "sha512_generic",
    "rmd160",
    "wp512",
];

/// A kernel package that `./test` unpacked.
pub(crate) struct Kernel {
    pub(crate) image: PathBuf,
    modules: Vec<PathBuf>,
}

impl Kernel {
    /// The one in `target/peers/kernel`; `None` when there is none.
    pub(crate) fn unpacked() -> Option<Self> {
        let root = peers::unpacked("kernel");
        let image = files(&root.join("boot"))
            .into_iter()
            .find(|file| name(file).starts_with("vmlinuz-"))?;
        let modules = [root.join("lib/modules"), root.join("usr/lib/modules")]
            .iter()
            .flat_map(|folder| files(folder))
            .collect();
        Some(Self { image, modules })
    }

    /// Puts these modules, and those that they need, into an archive, with the order in which they load.
    pub(crate) fn add_modules(&self, names: &[&str], archive: &mut Archive) -> Result<()> {
        let mut order: Vec<(String, Vec<u8>)> = Vec::new();
        for module in names {
            self.with_needs(module, &mut order)?;
        }
        archive.folder("modules");
        let mut list = String::new();
        for (module, bytes) in order {
            list.push_str(&format!("{module}\n"));
            archive.file(&format!("modules/{module}"), 0o644, &bytes);
        }
        archive.file("modules/order", 0o644, list.as_bytes());
        Ok(())
    }

    fn with_needs(&self, module: &str, order: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
        let module = module.replace('-', "_");
        if order.iter().any(|(loaded, _)| *loaded == module) {
            return Ok(());
        }
        let Some(file) = self.modules.iter().find(|file| {
            name(file)
                .split_once(".ko")
                .is_some_and(|(stem, _)| stem.replace('-', "_") == module)
        }) else {
            return Ok(()); // built into the kernel
        };
        let bytes = match file.extension().and_then(|kind| kind.to_str()) {
            Some("zst") => peers::run(Command::new("zstd").arg("-dcq").arg(file)),
            Some("xz") => peers::run(Command::new("xz").arg("-dc").arg(file)),
            _ => std::fs::read(file)?,
        };
        for need in needs(&bytes) {
            self.with_needs(&need, order)?;
        }
        order.push((module, bytes));
        Ok(())
    }
}

/// The names in a module's `depends=`.
fn needs(module: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let Some(at) = module.windows(FIELD.len()).position(|bytes| bytes == FIELD) else {
        return Vec::new();
    };
    let list = module[at + FIELD.len()..].split(|byte| *byte == 0).next();
    String::from_utf8_lossy(list.unwrap_or_default())
        .split(',')
        .filter(|need| !need.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The archive with the programs and the modules; what one boot does is another archive after it.
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
        archive.file_with_folders(&library)?;
    }
    kernel.add_modules(MODULES, &mut archive)?;
    archive.file("init", 0o755, include_bytes!("init.sh"));
    Ok(archive.finish())
}

/// What `ldd` lists, and beside the C library what is loaded by name at run time: libgcc for the end of
/// argon2's threads, OpenSSL's module of old hashes.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = peers::run(Command::new("ldd").arg(program));
    let mut found: Vec<PathBuf> = String::from_utf8_lossy(&listed)
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect();
    let folder = found
        .iter()
        .find(|file| name(file).starts_with("libc.so"))
        .and_then(|file| file.parent())
        .ok_or_else(|| Error::new(ErrorKind::NotFound, "ldd lists no C library"))?
        .to_path_buf();
    for late in ["libgcc_s.so.1", "ossl-modules/legacy.so"] {
        let under_usr = Path::new("/usr").join(folder.strip_prefix("/").unwrap_or(&folder));
        for file in [folder.join(late), under_usr.join(late)] {
            if file.exists() && !found.contains(&file) {
                found.push(file);
            }
        }
    }
    Ok(found)
}

/// A cpio archive in the "newc" form (Linux: driver-api/early-userspace/buffer-format).
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    folders: std::collections::BTreeSet<String>,
}

impl Archive {
    pub(crate) fn folder(&mut self, name: &str) {
        if self.folders.insert(name.to_owned()) {
            self.entry(name, 0o040_755, &[]);
        }
    }

    pub(crate) fn file(&mut self, name: &str, mode: u32, bytes: &[u8]) {
        self.entry(name, 0o100_000 | mode, bytes);
    }

    fn file_with_folders(&mut self, path: &Path) -> Result<()> {
        let name = path.to_string_lossy();
        let name = name.trim_start_matches('/');
        for (at, _) in name.match_indices('/') {
            self.folder(&name[..at]);
        }
        let mode = std::fs::metadata(path)?.permissions().mode() & 0o777;
        self.file(name, mode, &std::fs::read(path)?);
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, bytes: &[u8]) {
        self.entries += 1;
        let header = format!(
            "070701{:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}",
            self.entries,
            0,
            0,
            1,
            0,
            bytes.len(),
            0,
            0,
            0,
            0,
            name.len() + 1,
            0,
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

fn name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&path)),
            Ok(kind) if kind.is_file() => found.push(path),
            _ => {}
        }
    }
    found
}
