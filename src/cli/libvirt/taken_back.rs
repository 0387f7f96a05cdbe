//! What a command has made so far, and takes away again unless it comes to its end.

use std::path::PathBuf;

use luksmith::libvirt::{Secret, StorageVolume};

use crate::cli::output;

/// What goes when this is dropped, in the order of its fields.
#[derive(Default)]
pub(super) struct TakenBack {
    pub(super) secret: Option<Secret>,
    pub(super) volume: Option<StorageVolume>,
    pub(super) file: Option<PathBuf>,
}

impl TakenBack {
    /// All is well: it stays.
    pub(super) fn keep(&mut self) {
        (self.secret, self.volume, self.file) = (None, None, None);
    }
}

impl Drop for TakenBack {
    fn drop(&mut self) {
        let mut gone = Vec::new();
        let mut tell = |what: String, done: Result<(), String>| match done {
            Ok(()) => gone.push(what),
            Err(error) => output::warning(format_args!("{what} is left: {error}")),
        };
        if let Some(secret) = self.secret.take() {
            let uuid = secret.uuid().unwrap_or_default();
            let done = secret.undefine().map_err(|error| error.to_string());
            tell(format!("the secret {uuid}"), done);
        }
        if let Some(volume) = self.volume.take() {
            let name = volume.name().unwrap_or_default();
            let done = volume.delete().map_err(|error| error.to_string());
            tell(format!("the volume {name}"), done);
        }
        if let Some(file) = self.file.take() {
            let done = std::fs::remove_file(&file).map_err(|error| error.to_string());
            tell(file.display().to_string(), done);
        }
        if !gone.is_empty() {
            output::note(format_args!("taken away again: {}", gone.join(", ")));
        }
    }
}
