//! Results on stdout, everything else on stderr.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;

use serde_json::Value;

use super::error::{CommandError, Kind};

/// stdout, buffered; a reader that goes away ends the command quietly.
pub(crate) struct Output {
    buffer: Mutex<Vec<u8>>,
}

impl Output {
    pub(crate) fn new() -> Self {
        Self {
            buffer: Mutex::new(Vec::new()),
        }
    }

    /// One line of result.
    pub(crate) fn line(&self, line: impl Display) {
        self.bytes(format!("{line}\n").as_bytes());
    }

    /// One line of result, at once: for work that takes long.
    pub(crate) fn now(&self, line: impl Display) -> Result<(), CommandError> {
        self.line(line);
        self.finish()
    }

    /// The result as one JSON document.
    pub(crate) fn json(&self, value: &Value) {
        self.line(format_args!("{value:#}"));
    }

    pub(crate) fn bytes(&self, bytes: &[u8]) {
        self.buffer
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .extend_from_slice(bytes);
    }

    /// Writes what was collected.
    pub(crate) fn finish(&self) -> Result<(), CommandError> {
        let mut buffer = self
            .buffer
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let bytes = std::mem::take(&mut *buffer);
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(&bytes)
            .and_then(|()| stdout.flush())
            .map_err(stdout_failed)
    }
}

/// Why stdout could not be written.
pub(crate) fn stdout_failed(error: io::Error) -> CommandError {
    let kind = if error.kind() == io::ErrorKind::BrokenPipe {
        Kind::ReaderGone
    } else {
        Kind::Device
    };
    CommandError::new(kind, error).about("cannot write to stdout")
}

/// Something that the user should know, without being asked.
pub(crate) fn note(message: impl Display) {
    stderr_line("note", &message.to_string());
}

pub(crate) fn warning(message: impl Display) {
    stderr_line("warning", &message.to_string());
}

pub(crate) fn error(message: &str) {
    stderr_line("error", message);
}

pub(crate) fn hint(message: &str) {
    stderr_line("hint", message);
}

/// Text on stderr as it is (questions, JSON lines of progress).
pub(crate) fn raw(text: &str) {
    let mut stderr = io::stderr().lock();
    // There is nowhere left to say that stderr is gone.
    let _ = stderr
        .write_all(text.as_bytes())
        .and_then(|()| stderr.flush());
}

fn stderr_line(word: &str, message: &str) {
    let word = if io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        let colour = match word {
            "error" => "1;31",
            "warning" => "1;33",
            _ => "1;36",
        };
        format!("\u{1b}[{colour}m{word}\u{1b}[0m")
    } else {
        word.to_owned()
    };
    raw(&format!("luksmith: {word}: {}\n", printable(message)));
}

/// Text that may come from an image, a file name or the arguments, safe to show: control characters are escaped, and who a URI says that
/// one is, which may hold a password, is left out.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in without_users(text).chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// `scheme://…@host/` in place of `scheme://user:password@host/`.
fn without_users(text: &str) -> String {
    let mut parts = text.split("://");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for rest in parts {
        shown.push_str("://");
        let end = rest
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '\'' | '"'))
            .unwrap_or(rest.len());
        match rest.split_at(end).0.rfind('@') {
            Some(at) => {
                shown.push('…');
                shown.push_str(rest.split_at(at).1);
            }
            None => shown.push_str(rest),
        }
    }
    shown
}

/// No core dumps and no ptrace by others; a system that cannot is no reason to stop.
pub(crate) fn harden() {
    if let Err(error) = luksmith::sys::harden() {
        warning(format_args!("core dumps stay possible: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_a_uri_says_that_one_is_is_not_shown() {
        for (text, shown) in [
            ("nbd://u:hunter2@host:1/x", "nbd://…@host:1/x"),
            (
                "invalid 'a=nbds://u:p@ss@h/,key' there",
                "invalid 'a=nbds://…@h/,key' there",
            ),
            (
                "nbd://host/vm@snapshot nbd+unix:///a?socket=/x@y",
                "nbd://host/vm@snapshot nbd+unix:///a?socket=/x@y",
            ),
            ("a@b and c://d", "a@b and c://d"),
            ("nbd://a:b@c/ nbd://d:e@f/", "nbd://…@c/ nbd://…@f/"),
        ] {
            assert_eq!(printable(text), shown);
        }
    }
}
