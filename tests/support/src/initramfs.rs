//! Archives from which a Linux guest boots: programs, an init script, and modules of the kernel
//! package that `./test` unpacks.
//!
//! They are cpio archives in the "newc" form. The kernel takes several, one after the other.

use crate::peers;
use std::io::Result;
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

/// A cpio archive in the "newc" form (Linux: driver-api/early-userspace/buffer-format).
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    folders: std::collections::BTreeSet<String>,
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

    /// Adds a file of the host under the same path, with its folders.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn file_of_host(&mut self, path: &Path) -> Result<()> {
        let name = path.to_string_lossy();
        let name = name.trim_start_matches('/');
        for (at, _) in name.match_indices('/') {
            self.folder(&name[..at]);
        }
        let mode = std::fs::metadata(path)?.permissions().mode() & 0o777;
        self.file(name, mode, &std::fs::read(path)?);
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
