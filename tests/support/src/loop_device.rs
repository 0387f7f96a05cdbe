//! A loop device of a file.

use std::path::Path;
use std::process::Command;

use crate::peers;

/// A loop device, detached at the end.
#[derive(Debug)]
pub struct LoopDevice(String);

impl LoopDevice {
    /// Attaches a file with these options of `losetup`. `None` if no loop device can be had here,
    /// as in most containers.
    ///
    /// # Panics
    ///
    /// If `losetup` is missing and `CI=true`.
    pub fn attach(file: &Path, options: &[&str]) -> Option<Self> {
        let mut command = Command::new(peers::find("losetup")?);
        command.args(["--find", "--show"]).args(options);
        let attached = command.arg(file).output().ok()?;
        let name = String::from_utf8(attached.stdout).ok()?;
        let is_attached = attached.status.success();
        is_attached.then(|| Self(name.trim().to_owned()))
    }

    /// The path of the device.
    pub fn path(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        if let Some(losetup) = peers::find("losetup") {
            peers::output(Command::new(losetup).args(["--detach", &self.0]));
        }
    }
}
