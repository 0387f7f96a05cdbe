//! Key stores, each behind a helper: an executable `key-NAME` that an administrator or a package
//! puts into a folder of helpers. `docs/key-helpers.md` has the contract.
//!
//! A helper is never looked for in `PATH`, and no header names one. It is opened once, checked with
//! its folders, and executed by its descriptor ([`run`](super::run)). It gets the verb as its
//! argument and a request as JSON on stdin, neither of which is secret. The secret passes on
//! descriptor 3, in both directions.

mod error;
mod places;
mod scheme;
#[cfg(test)]
mod tests;

use core::fmt;
use core::str::FromStr;
use std::ffi::OsString;
use std::time::Duration;

use luksmith_formats::json::json;

pub use error::KeyStoreError;
pub use places::HelperFolders;
pub use scheme::{HelperScheme, StoreSource};

use super::run::{Exchange, Input, Program, Ran, Third};
use super::{LockedBytes, MAX_KEY_FILE, ParseSourceError, Passphrase, VolumeName};
use crate::Interrupt;

/// The longest time that a helper may take.
const TIME: Duration = Duration::from_secs(30);

/// The version of the request.
const VERSION: u64 = 1;

/// The longest name of a helper, in bytes.
const LONGEST_NAME: usize = 64;

/// The longest reference, in bytes.
const LONGEST_REFERENCE: usize = 1024;

/// The longest revision, in bytes, with its newline.
const LONGEST_REVISION: usize = 256;

/// The exit codes of a helper, besides 0 (done). Any other code is a failure.
mod code {
    /// It does not accept the reference, or does not have the verb (`EX_USAGE`).
    pub(super) const NOT_ACCEPTED: i32 = 64;
    /// There is no value under the reference (`EX_NOINPUT`).
    pub(super) const NO_VALUE: i32 = 66;
    /// There is a value, or another revision of it (`EX_CANTCREAT`).
    pub(super) const CONFLICT: i32 = 73;
    /// The store cannot be reached (`EX_TEMPFAIL`).
    pub(super) const UNREACHABLE: i32 = 75;
    /// The store does not permit it (`EX_NOPERM`).
    pub(super) const DENIED: i32 = 77;
}

/// A secret in a key store, by the name of a helper and a reference that only the helper
/// understands. As text: `NAME[:REFERENCE]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreReference {
    name: String,
    reference: Option<String>,
}

impl StoreReference {
    /// The same with more at the end of its reference. `None` without a reference.
    pub(crate) fn with(&self, end: &str) -> Option<Self> {
        let reference = self.reference.as_ref()?;
        Some(Self {
            name: self.name.clone(),
            reference: Some(format!("{reference}{end}")),
        })
    }

    /// Whether there is a reference, and not only the name of a helper.
    #[must_use]
    pub fn has_reference(&self) -> bool {
        self.reference.is_some()
    }
}

impl FromStr for StoreReference {
    type Err = ParseSourceError;

    fn from_str(text: &str) -> Result<Self, ParseSourceError> {
        let wrong = |what: &str| Err(ParseSourceError::Scheme(what.to_owned()));
        let (name, reference) = match text.split_once(':') {
            Some((name, reference)) => (name, Some(reference)),
            None => (text, None),
        };
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(is_plain) {
            return wrong(
                "helper: takes the name of a helper, of lower-case letters, digits and '-', then \
                 ':' and a reference",
            );
        }
        if let Some(reference) = reference
            && (reference.is_empty()
                || reference.len() > LONGEST_REFERENCE
                || reference.chars().any(char::is_control))
        {
            return wrong(
                "the reference of a helper has 1 to 1024 bytes, and no control character",
            );
        }
        Ok(Self {
            name: name.to_owned(),
            reference: reference.map(str::to_owned),
        })
    }
}

impl fmt::Display for StoreReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "helper:{}", self.name)?;
        let mut reference = self.reference.iter();
        reference.try_for_each(|reference| write!(f, ":{reference}"))
    }
}

/// A value of a key store.
#[derive(Debug)]
#[non_exhaustive]
pub struct StoredValue {
    /// The secret.
    pub passphrase: Passphrase,
    /// What the store calls this version of it, if it has check-and-set.
    pub revision: Option<String>,
}

/// What a store has to hold when it takes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected<'a> {
    /// No value.
    Nothing,
    /// Any value, of this revision if the store has check-and-set.
    Value(Option<&'a str>),
}

/// A secret in a key store, and what is needed to reach it.
#[derive(Clone, Debug)]
pub struct KeyStore {
    reference: StoreReference,
    folders: HelperFolders,
    time: Duration,
}

impl KeyStore {
    /// The secret with this reference. The helper is looked for in these folders, each time it is
    /// needed.
    #[must_use]
    pub fn new(reference: StoreReference, folders: HelperFolders) -> Self {
        let time = TIME;
        Self {
            reference,
            folders,
            time,
        }
    }

    /// The helper may take this long, instead of 30 seconds.
    #[must_use]
    pub fn time(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// The reference.
    #[must_use]
    pub fn reference(&self) -> &StoreReference {
        &self.reference
    }

    /// Another reference in the same store.
    pub(crate) fn at(&self, reference: StoreReference) -> Self {
        Self {
            reference,
            ..self.clone()
        }
    }

    /// Reads the value. `volume` tells the helper what it opens, if that is known.
    ///
    /// # Errors
    /// [`KeyStoreError`]; [`KeyStoreError::NoValue`] if there is none.
    pub fn get(
        &self,
        volume: Option<VolumeName<'_>>,
        interrupt: &Interrupt,
    ) -> Result<StoredValue, KeyStoreError> {
        let third = Third::From(MAX_KEY_FILE);
        let ran = self.run("get", None, third, volume, interrupt)?;
        if ran.third.is_empty() {
            return Err(KeyStoreError::Nothing);
        }
        Ok(StoredValue {
            revision: revision(&ran.stdout)?,
            passphrase: Passphrase::from_locked(ran.third),
        })
    }

    /// Stores a value, and reads it back.
    ///
    /// # Errors
    /// [`KeyStoreError::Conflict`] if the store holds something else than what is expected,
    /// [`KeyStoreError::Altered`], [`KeyStoreError::NotReadBack`], and others when nothing was
    /// stored.
    pub fn store(
        &self,
        value: &Passphrase,
        expected: Expected<'_>,
        volume: Option<VolumeName<'_>>,
        interrupt: &Interrupt,
    ) -> Result<StoredValue, KeyStoreError> {
        let third = Third::To(value.as_bytes());
        self.run("store", Some(expected), third, volume, interrupt)?;
        match self.get(volume, interrupt) {
            Ok(read) if read.passphrase.ct_eq(value) => Ok(read),
            Ok(_) => Err(KeyStoreError::Altered),
            Err(error) => Err(KeyStoreError::NotReadBack(error.into())),
        }
    }

    /// Removes the value. Succeeds if there is none.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn erase(
        &self,
        volume: Option<VolumeName<'_>>,
        interrupt: &Interrupt,
    ) -> Result<(), KeyStoreError> {
        match self.run("erase", None, Third::Closed, volume, interrupt) {
            Ok(_) | Err(KeyStoreError::NoValue) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Asks the helper whether its store can be used with this reference: it is reached, and
    /// nothing is changed.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn check(
        &self,
        volume: Option<VolumeName<'_>>,
        interrupt: &Interrupt,
    ) -> Result<(), KeyStoreError> {
        self.run("check", None, Third::Closed, volume, interrupt)?;
        Ok(())
    }

    fn run(
        &self,
        verb: &'static str,
        expected: Option<Expected<'_>>,
        third: Third<'_>,
        volume: Option<VolumeName<'_>>,
        interrupt: &Interrupt,
    ) -> Result<Ran, KeyStoreError> {
        let (file, path) = self.folders.open(&self.reference.name)?;
        let request = json!({
            "version": VERSION,
            "verb": verb,
            "reference": self.reference.reference.as_deref(),
            "uuid": volume.map(|volume| volume.uuid),
            "label": volume.and_then(|volume| volume.label),
            "new": expected.map(|expected| expected == Expected::Nothing),
            "revision": match expected {
                Some(Expected::Value(revision)) => revision,
                _ => None,
            },
        });
        let program = Program {
            file: &file,
            path: &path,
            name: &format!("helper {}", self.reference.name),
            arguments: &[OsString::from(verb)],
            variables: &[],
            time: self.time,
        };
        let request = format!("{request}\n");
        let exchange = Exchange {
            stdin: Input::Text(request.as_bytes()),
            stdout: Some(LONGEST_REVISION),
            third,
        };
        let ran = program.run(exchange, interrupt)?;
        Err(match ran.code {
            0 => return Ok(ran),
            code::NOT_ACCEPTED => KeyStoreError::NotAccepted { verb },
            code::NO_VALUE => KeyStoreError::NoValue,
            code::CONFLICT => KeyStoreError::Conflict,
            code::UNREACHABLE => KeyStoreError::Unreachable,
            code::DENIED => KeyStoreError::Denied,
            code => KeyStoreError::Helper(super::HelperError::Failed(code)),
        })
    }
}

/// The revision that a helper printed: one line of printable ASCII, or nothing.
fn revision(printed: &LockedBytes) -> Result<Option<String>, KeyStoreError> {
    let line = printed.strip_suffix(b"\n").unwrap_or(printed);
    if line.is_empty() {
        return Ok(None);
    }
    if !line.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        return Err(KeyStoreError::NotRevision);
    }
    Ok(Some(String::from_utf8_lossy(line).into_owned()))
}
