//! Where a volume lies: a path, or the NBD URI of an export.
//!
//! What begins with `scheme://` is a URI; a file of such a name is `./scheme://…`.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use luksmith_formats::nbd::uri::{self, Uri, UriError};

/// A file, a block device, or an export on an NBD server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    /// A file or a block device.
    Path(PathBuf),
    /// An export on an NBD server.
    Export(Box<Uri>),
}

impl Location {
    /// For an argument: `value_parser = Location::parser()`.
    pub(crate) fn parser() -> Parser {
        Parser
    }

    /// Reads what stands for IMAGE.
    pub(crate) fn parse(text: &OsStr) -> Result<Self, UriError> {
        if uri::scheme(text.as_bytes()).is_none() {
            return Ok(Self::Path(text.into()));
        }
        let text = text.to_str().ok_or(UriError::Encoding("the uri"))?;
        Uri::parse(text).map(|uri| Self::Export(Box::new(uri)))
    }

    /// The path, if it is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => Some(path),
            Self::Export(_) => None,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Export(uri) => uri.fmt(f),
        }
    }
}

/// Clap's own way would repeat the text, which may hold a password.
#[derive(Clone)]
pub(crate) struct Parser;

impl TypedValueParser for Parser {
    type Value = Location;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Location, clap::Error> {
        Location::parse(value).map_err(|error| {
            let name = argument.map_or_else(|| "IMAGE".to_owned(), ToString::to_string);
            let tip = match error {
                UriError::Scheme(_) => "  tip: a file of that name is ./NAME\n\n",
                _ => "",
            };
            clap::Error::raw(
                ErrorKind::ValueValidation,
                format!("{name}: {error}\n\n{tip}"),
            )
            .with_cmd(command)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_an_export_and_all_else_a_path() {
        for path in ["disk.img", "./nbd://host/x", "/dev/sdb1", "a:b", "-"] {
            let location = Location::parse(OsStr::new(path)).unwrap();
            assert_eq!(location, Location::Path(path.into()));
            assert_eq!(location.to_string(), path);
        }
        let location = Location::parse(OsStr::new("nbd://host/x")).unwrap();
        assert!(location.path().is_none());
        assert_eq!(location.to_string(), "nbd://host/x");
        assert_eq!(
            Location::parse(OsStr::new("http://host/x")),
            Err(UriError::Scheme("http".into()))
        );
    }

    #[test]
    fn a_password_is_not_repeated() {
        let command = clap::Command::new("x");
        let error = Parser.parse_ref(&command, None, OsStr::new("nbd://u:hunter2@host/"));
        let text = error.unwrap_err().to_string();
        assert!(
            text.contains("password") && !text.contains("hunter2"),
            "{text}"
        );
    }
}
