//! The helpers of key stores that luksmith brings. `docs/key-helpers.md` has the contract of a
//! helper.
//!
//! - `directory`: each secret is a file in a directory. `encrypted`: each is a credential that
//!   systemd-creds encrypts. `files` has what both share.
//! - `vault`: the KV store, version 2, of a Vault server.
//!
//! The program runs as one of them if the last part of its own name is `key-NAME`: a package puts
//! links to it into `/usr/libexec/luksmith`. A separate process for each call is what a helper of
//! another origin has too, so there is one door for all.
//!
//! A helper reads its settings from `key-NAME.conf` in the folder in which it was found, or else in
//! `/etc/luksmith` (`settings`). It takes nothing from the environment.

mod directory;
mod encrypted;
mod failure;
mod files;
mod request;
mod settings;
mod store;
#[cfg(feature = "nbd")]
mod vault;

use std::ffi::{OsStr, OsString};
use std::path::Path;

pub use failure::Failure;
use request::{Request, Verb};
use settings::Settings;
use store::Store;

/// The name of the helper that a program with this name is: `NAME` of `key-NAME`.
#[must_use]
pub fn name_of(program: &OsStr) -> Option<&str> {
    Path::new(program)
        .file_name()?
        .to_str()?
        .strip_prefix("key-")
}

/// Runs as the helper `name`. `arguments` are those of the process, the first one being its own
/// path. Returns the revision, to be printed.
///
/// # Errors
/// A [`Failure`] with the exit code.
pub fn run(
    name: &str,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Option<String>, Failure> {
    let mut arguments = arguments.into_iter();
    let program = arguments.next().unwrap_or_default();
    let verb = Verb::of(arguments.next().as_deref(), arguments.next().as_deref())?;
    let settings = || Settings::read(Path::new(&program), name);
    let store: Box<dyn Store> = match name {
        "directory" => Box::new(directory::Directory::new(settings()?)?),
        "systemd-creds" => Box::new(encrypted::Encrypted::new(settings()?)?),
        #[cfg(feature = "nbd")]
        "vault" => Box::new(vault::Vault::new(settings()?)?),
        _ => {
            let message = format!("this program brings no helper {name}");
            return Err(Failure::not_accepted(message));
        }
    };
    let Request {
        reference,
        new,
        revision,
    } = Request::read()?;
    match verb {
        Verb::Get => {
            let value = store.get(&reference)?;
            request::give(&value.secret)?;
            Ok(Some(value.revision))
        }
        Verb::Store => {
            let secret = request::take()?;
            store.store(&reference, &secret, new, revision.as_deref())?;
            Ok(None)
        }
        Verb::Erase => store.erase(&reference).map(|()| None),
        Verb::Check => store.check(&reference).map(|()| None),
    }
}
