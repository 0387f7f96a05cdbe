//! The side of the contract that a helper has: the verb, the request, and descriptor 3.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Write as _};

use luksmith_formats::json::Value;

use super::failure::Failure;
use crate::Interrupt;
use crate::secret::{LockedBytes, Purpose, SecretSource, Source};

/// The version of the request that this understands.
const VERSION: u64 = 1;

/// The longest request, in bytes.
const LONGEST: u64 = 64 << 10;

/// What a helper is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Store,
    Erase,
    Check,
}

impl Verb {
    pub(super) fn of(word: Option<&OsStr>, more: Option<&OsStr>) -> Result<Self, Failure> {
        match word.and_then(OsStr::to_str).filter(|_| more.is_none()) {
            Some("get") => Ok(Self::Get),
            Some("store") => Ok(Self::Store),
            Some("erase") => Ok(Self::Erase),
            Some("check") => Ok(Self::Check),
            _ => Err(Failure::not_accepted(
                "luksmith runs this program, with get, store, erase or check, and with a request on \
                 stdin",
            )),
        }
    }
}

/// The members of the request that the helpers use.
pub(super) struct Request {
    pub(super) reference: String,
    pub(super) new: bool,
    pub(super) revision: Option<String>,
}

impl Request {
    /// Reads the request from stdin.
    pub(super) fn read() -> Result<Self, Failure> {
        let mut text = String::new();
        let stdin = std::io::stdin();
        let read = stdin.lock().take(LONGEST).read_to_string(&mut text);
        read.map_err(|error| Failure::io("the request", &error))?;
        Self::of(&text)
    }

    fn of(text: &str) -> Result<Self, Failure> {
        let request: Value = text
            .trim()
            .parse()
            .map_err(|error| Failure::not_accepted(format!("the request is not JSON: {error}")))?;
        if request["version"].as_u64() != Some(VERSION) {
            return Err(Failure::not_accepted("the request has another version"));
        }
        let Some(reference) = request["reference"].as_str() else {
            return Err(Failure::not_accepted("this helper takes a reference"));
        };
        Ok(Self {
            reference: reference.to_owned(),
            new: request["new"].as_bool() == Some(true),
            revision: request["revision"].as_str().map(str::to_owned),
        })
    }
}

/// Writes the secret to descriptor 3.
pub(super) fn give(secret: &[u8]) -> Result<(), Failure> {
    let third = File::options().write(true).open("/proc/self/fd/3");
    third
        .and_then(|mut third| third.write_all(secret))
        .map_err(|error| Failure::io("descriptor 3", &error))
}

/// Reads a secret from descriptor 3.
pub(super) fn take() -> Result<LockedBytes, Failure> {
    let interrupt = Interrupt::new();
    let read = Source::Fd(3).read(Purpose::new_secret("the key store", &interrupt));
    let read = read.map_err(Failure::other)?;
    LockedBytes::copy_from(read.as_bytes()).map_err(Failure::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_verbs_have_a_form() {
        let text = r#"{"version":1,"reference":"a","new":true,"revision":"7"}"#;
        let request = Request::of(text).unwrap();
        assert_eq!((request.reference.as_str(), request.new), ("a", true));
        assert_eq!(request.revision.as_deref(), Some("7"));
        for text in [
            "",
            "{}",
            r#"{"version":2,"reference":"a"}"#,
            r#"{"version":1}"#,
        ] {
            assert_eq!(Request::of(text).err().unwrap().code(), 64, "{text}");
        }
        let verb = |word: &str, more| Verb::of(Some(OsStr::new(word)), more);
        assert_eq!(verb("get", None).unwrap(), Verb::Get);
        assert!(verb("list", None).is_err() && verb("get", Some(OsStr::new("x"))).is_err());
    }
}
