//! `key-directory`: each secret is a file in a directory, which only its owner can read.
//!
//! The setting `directory` names the directory, by default `/etc/luksmith/keys`.

use std::path::PathBuf;

use super::failure::Failure;
use super::files::Files;
use super::settings::Settings;
use super::store::{Store, Value};
use crate::secret::LockedBytes;

pub(super) struct Directory {
    path: PathBuf,
}

impl Directory {
    pub(super) fn new(mut settings: Settings) -> Result<Self, Failure> {
        let path = settings.path("directory", "/etc/luksmith/keys")?;
        settings.finish()?;
        Ok(Self { path })
    }
}

impl Store for Directory {
    fn get(&self, reference: &str) -> Result<Value, Failure> {
        let name = Files::name(reference)?;
        let (secret, revision) = Files::open(&self.path)?.read(name)?;
        Ok(Value { secret, revision })
    }

    fn store(
        &self,
        reference: &str,
        secret: &LockedBytes,
        new: bool,
        revision: Option<&str>,
    ) -> Result<(), Failure> {
        let name = Files::name(reference)?;
        Files::open(&self.path)?.replace(name, secret, new, revision)
    }

    fn erase(&self, reference: &str) -> Result<(), Failure> {
        let name = Files::name(reference)?;
        Files::open(&self.path)?.remove(name)
    }

    fn check(&self, reference: &str) -> Result<(), Failure> {
        Files::name(reference)?;
        Files::open(&self.path)?.check()
    }
}
