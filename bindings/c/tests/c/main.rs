//! Does the library for C have the interface of its header, link only what Rust's standard library
//! does, and work in programs in C?

mod header;
mod programs;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use support::peers;

/// `bindings/c`.
pub(crate) fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where the library is installed, built as Cargo builds it without the rest of the workspace,
/// whose features it would have too.
pub(crate) fn installed() -> &'static Path {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c");
        peers::run(Command::new(here().join("install")).arg(&prefix).arg("dev"));
        prefix
    })
}

/// Compiles a program of one file, with the flags of `pkg-config`. Returns `None` after saying what
/// is missing.
pub(crate) fn compiled(source: &Path, to: &Path) -> Option<()> {
    let cc = peers::find("cc")?;
    let flags = flags(&["--cflags", "--libs"])?;
    let mut command = Command::new(cc);
    command
        .args([
            "-std=gnu99",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-g",
            "-pthread",
        ])
        .arg(source)
        .arg("-o")
        .arg(to)
        .args(flags)
        .arg(format!("-Wl,-rpath,{}/lib", installed().display()));
    peers::run(&mut command);
    Some(())
}

/// What `pkg-config` prints for the installed library.
pub(crate) fn flags(options: &[&str]) -> Option<Vec<String>> {
    let path = installed().join("lib/pkgconfig");
    let mut command = Command::new(peers::find("pkg-config")?);
    command
        .args(options)
        .arg("luksmith")
        .env("PKG_CONFIG_PATH", path);
    let printed = String::from_utf8(peers::run(&mut command)).expect("flags are text");
    Some(printed.split_whitespace().map(str::to_owned).collect())
}
