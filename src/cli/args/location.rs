//! Locations of volumes among the arguments.

use std::ffi::OsStr;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use luksmith::location::{Location, LocationError};
use luksmith_formats::nbd::uri::UriError;

/// The forms of IMAGE where it need not be opened, for `--help`.
pub(crate) const FORMS: &str = "nbd://HOST[:PORT]/NAME, nbd+unix:///NAME?socket=PATH, nbds://…, \
                                volume:POOL/NAME, rbd://POOL/IMAGE[@SNAPSHOT], \
                                iscsi://HOST[:PORT]/TARGET/LUN, http://HOST[:PORT]/PATH[?QUERY] or https://…";

/// A location, with `value_parser = LocationParser`. The errors of clap's own parsers repeat the
/// text, which may hold a password.
#[derive(Clone)]
pub(crate) enum LocationParser {
    /// A path or an NBD URI.
    Openable,
    /// Any location, including those that only an emulator opens.
    Any,
}

impl TypedValueParser for LocationParser {
    type Value = Location;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Location, clap::Error> {
        let (parsed, name) = match self {
            Self::Openable => (
                Location::parse_openable(value),
                argument.map_or_else(|| "IMAGE".to_owned(), ToString::to_string),
            ),
            Self::Any => (Location::parse(value), "IMAGE".to_owned()),
        };
        parsed.map_err(|error| {
            let tip = match (self, &error) {
                (_, LocationError::Uri(UriError::Vsock(_))) => {
                    "  tip: reach the server over nbd+unix:// or nbds://\n\n"
                }
                (_, LocationError::Uri(UriError::Psk)) => {
                    "  tip: use certificates: nbds://HOST/NAME?tls-certificates=DIR\n\n"
                }
                (Self::Any, _) | (_, LocationError::Uri(UriError::Scheme(_))) => {
                    "  tip: a file of that name is ./NAME\n\n"
                }
                _ => "",
            };
            let message = format!("{name}: {error}\n\n{tip}");
            clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_repeated() {
        let command = clap::Command::new("x");
        let text = OsStr::new("nbd://u:hunter2@host/");
        for parser in [LocationParser::Openable, LocationParser::Any] {
            let error = parser.parse_ref(&command, None, text).unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains("password") && !text.contains("hunter2"),
                "{text}"
            );
        }
    }
}
