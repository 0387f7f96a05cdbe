//! Paths of local files among the arguments.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use luksmith_formats::nbd::uri;

/// A local file, with `value_parser = LocalFile`. A text that looks like a URI is refused, and is
/// not repeated in the message, since it may hold a password.
#[derive(Clone)]
pub(crate) struct LocalFile;

impl TypedValueParser for LocalFile {
    type Value = PathBuf;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<PathBuf, clap::Error> {
        let name = argument.map_or_else(|| "FILE".to_owned(), ToString::to_string);
        if value.is_empty() {
            let message = format!("{name}: the path is empty\n\n");
            return Err(clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command));
        }
        if uri::scheme(value.as_bytes()).is_none() {
            return Ok(value.into());
        }
        let message = format!(
            "{name}: a local file is required, not a URI\n\n  tip: a file of that name is ./NAME; \
             only a volume and its detached header can be on a server\n\n"
        );
        Err(clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_no_file_and_is_not_repeated() {
        let command = clap::Command::new("x");
        let parse = |text| LocalFile.parse_ref(&command, None, OsStr::new(text));
        for path in ["plain.img", "-", "./nbd://host/x", "a:b", "/dev/fd/3"] {
            assert_eq!(parse(path).unwrap(), PathBuf::from(path));
        }
        let text = parse("").unwrap_err().to_string();
        assert!(text.contains("FILE: the path is empty"), "{text}");
        let text = parse("nbd://u:hunter2@host/").unwrap_err().to_string();
        assert!(
            text.contains("not a URI") && !text.contains("hunter2"),
            "{text}"
        );
    }
}
