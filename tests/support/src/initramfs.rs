//! Archives from which a Linux guest boots: programs, an init script, and modules of the kernel
//! package that `./test` unpacks.
//!
//! They are cpio archives in the "newc" form. The kernel takes several, one after the other.

use crate::peers;
use std::collections::BTreeSet;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The kernel package that `./test` unpacks.
#[derive(Debug)]
pub struct Kernel {
    /// The file that boots.
    pub image: PathBuf,
    modules: Vec<PathBuf>,
}

impl Kernel {
    /// The package in `target/peers/kernel`; `None` if there is none.
    pub fn unpacked() -> Option<Self> {
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

    /// Adds these modules and those that they need to `archive`, in the folder `modules`. The file
    /// `modules/order` lists them in the order in which they must be loaded.
    ///
    /// A module that is built into the kernel is left out.
    ///
    /// # Errors
    ///
    /// If a module cannot be read.
    ///
    /// # Panics
    ///
    /// If a module is compressed and the program that decompresses it fails.
    pub fn add_modules(&self, names: &[&str], archive: &mut Archive) -> Result<()> {
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
        let found = self.modules.iter().find(|file| {
            name(file)
                .split_once(".ko")
                .is_some_and(|(stem, _)| stem.replace('-', "_") == module)
        });
        let Some(file) = found else {
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

/// What comes before each script of [`Archive::init`].
const BOOT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module"; done </modules/order
for i in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/vda ] && break; sleep 1; done
"#;

/// A cpio archive in the "newc" form (Linux: driver-api/early-userspace/buffer-format).
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    folders: BTreeSet<String>,
    of_host: BTreeSet<String>,
}

impl Archive {
    /// Adds a folder, if it is not there yet.
    pub fn folder(&mut self, name: &str) {
        if self.folders.insert(name.to_owned()) {
            self.entry(name, 0o040_755, &[]);
        }
    }

    /// Adds a file whose folder is there.
    pub fn file(&mut self, name: &str, mode: u32, bytes: &[u8]) {
        self.entry(name, 0o100_000 | mode, bytes);
    }

    /// Adds the program that a guest runs first: busybox with its commands, the file systems of the
    /// kernel, the modules of [`Kernel::add_modules`], the disk `/dev/vda`, and then this script.
    pub fn init(&mut self, script: &str) {
        let init = format!("{BOOT}{script}");
        self.file("init", 0o755, init.as_bytes());
    }

    /// Adds a symbolic link. If it leads to a folder, later files may have names behind it.
    pub fn link(&mut self, name: &str, target: &str) {
        self.folders.insert(name.to_owned());
        self.entry(name, 0o120_777, target.as_bytes());
    }

    /// Adds a file of the host under the same path, with its folders, if it is not there yet.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn file_of_host(&mut self, path: &Path) -> Result<()> {
        let name = path.to_string_lossy();
        let name = name.trim_start_matches('/');
        if !self.of_host.insert(name.to_owned()) {
            return Ok(());
        }
        self.folders_of(name);
        let mode = std::fs::metadata(path)?.permissions().mode() & 0o777;
        self.file(name, mode, &std::fs::read(path)?);
        Ok(())
    }

    /// Adds all folders in which `name` is.
    pub fn folders_of(&mut self, name: &str) {
        for (at, _) in name.match_indices('/') {
            self.folder(&name[..at]);
        }
    }

    /// Adds a program of the host under another name, with the libraries that it needs.
    ///
    /// # Errors
    ///
    /// If a file cannot be read.
    ///
    /// # Panics
    ///
    /// If `ldd` fails.
    pub fn program(&mut self, name: &str, program: &Path) -> Result<()> {
        self.folders_of(name);
        self.file(name, 0o755, &std::fs::read(program)?);
        for library in libraries(program)? {
            self.file_of_host(&library)?;
        }
        Ok(())
    }

    /// The archive's bytes.
    pub fn finish(mut self) -> Vec<u8> {
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

/// The libraries that `ldd` lists, and two that are loaded by name at run time: libgcc, which ends
/// argon2's threads, and OpenSSL's module of old hashes.
///
/// # Errors
///
/// If `ldd` lists no C library.
///
/// # Panics
///
/// If `ldd` fails.
pub fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
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
    name(file).starts_with("libc.so")
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
