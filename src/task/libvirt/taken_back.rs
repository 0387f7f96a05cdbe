//! The objects that a task has made so far. They are removed again unless the task succeeds.

use crate::libvirt::{Secret, StorageVolume};
use crate::task::{MadeFile, Note, Watch};

/// The objects that are removed when this is dropped, in the order of the fields.
pub(super) struct TakenBack<'a> {
    pub(super) secret: Option<Secret>,
    pub(super) volume: Option<StorageVolume>,
    pub(super) files: Vec<MadeFile>,
    watch: &'a dyn Watch,
}

impl<'a> TakenBack<'a> {
    /// No object yet. Removals are reported to `watch`.
    pub(super) fn new(watch: &'a dyn Watch) -> Self {
        Self {
            secret: None,
            volume: None,
            files: Vec::new(),
            watch,
        }
    }

    /// The task has succeeded, and everything stays.
    pub(super) fn keep(&mut self) {
        (self.secret, self.volume) = (None, None);
        self.files.clear();
    }
}

impl Drop for TakenBack<'_> {
    fn drop(&mut self) {
        let mut gone = Vec::new();
        let mut tell = |what: String, done: Result<(), String>| match done {
            Ok(()) => gone.push(what),
            Err(error) => self.watch.notes(Note::NotTakenBack {
                what: &what,
                error: &error,
            }),
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
        for file in self.files.drain(..) {
            let done = file.remove().map_err(|error| error.to_string());
            tell(file.path().display().to_string(), done);
        }
        if !gone.is_empty() {
            self.watch.notes(Note::TakenBack { what: &gone });
        }
    }
}
