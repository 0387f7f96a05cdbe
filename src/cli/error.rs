//! A failed command: what kind of failure, the message, and the hints that belong to it.

use std::error::Error;
use std::io::Write as _;

use super::output;

/// What kind of failure it was, which is the exit code. The first five are cryptsetup's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 1: the arguments are wrong, contradict each other or the image, or a question was answered with no
    Parameters,
    /// 2: no permission, or no keyslot opens with this passphrase
    Permission,
    /// 3: out of memory, or more memory, time or threads asked for than the limits allow
    Memory,
    /// 4: the device, the storage or the header is wrong
    Device,
    /// 5: it is busy, or exists
    Busy,
    /// 1: an inspected image is not what it is said to be, or what should be ciphertext is not
    Rejected,
    /// 6: an inspected image may be good, but the policy does not want it; or an audit has findings that --fail-on counts
    AgainstPolicy,
    /// 130: interrupted
    Interrupted,
    /// 141: whoever read the output went away; nothing is printed
    ReaderGone,
}

impl Kind {
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Parameters | Self::Rejected => 1,
            Self::Permission => 2,
            Self::Memory => 3,
            Self::Device => 4,
            Self::Busy => 5,
            Self::AgainstPolicy => 6,
            Self::Interrupted => 130,
            Self::ReaderGone => 141,
        }
    }
}

/// Why a command failed, and what helps.
#[derive(Debug)]
pub(crate) struct CommandError {
    kind: Kind,
    error: Box<dyn Error + Send + Sync>,
    hints: Vec<String>,
}

impl CommandError {
    pub(crate) fn new(kind: Kind, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            kind,
            error: error.into(),
            hints: Vec::new(),
        }
    }

    pub(crate) fn parameters(message: impl Into<String>) -> Self {
        Self::new(Kind::Parameters, message.into())
    }

    /// The same failure with one more line of advice.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    #[must_use]
    pub(crate) fn hint_if(self, hint: Option<String>) -> Self {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    /// The same failure, told of something: `{what}: {message}`.
    #[must_use]
    pub(crate) fn about(mut self, what: impl std::fmt::Display) -> Self {
        self.error = Box::new(About {
            what: what.to_string(),
            source: self.error,
        });
        self
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn exit_code(&self) -> u8 {
        self.kind.exit_code()
    }

    /// The message with its sources, in one line.
    pub(crate) fn line(&self) -> String {
        chain(self.error.as_ref())
    }

    pub(crate) fn report(&self) {
        if self.kind == Kind::ReaderGone {
            return;
        }
        output::error(&self.line());
        for hint in &self.hints {
            output::hint(hint);
        }
    }
}

/// Says what an error is about, without repeating it.
#[derive(Debug)]
struct About {
    what: String,
    source: Box<dyn Error + Send + Sync>,
}

impl std::fmt::Display for About {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for About {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.source.as_ref())
    }
}

/// An error with its sources, joined by `: `; one line, whatever the messages hold.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        line.push_str(": ");
        line.push_str(&error.to_string());
        source = error.source();
    }
    output::printable(&line)
}

/// Prints what clap has to say (help and version on stdout, complaints on stderr) and returns the exit code.
pub(crate) fn report_usage(error: &clap::Error) -> u8 {
    let text = error.render();
    if error.use_stderr() {
        let (message, hints) = usage_lines(&text.to_string());
        output::error(&message);
        for hint in &hints {
            output::hint(hint);
        }
        Kind::Parameters.exit_code()
    } else {
        let _ = std::io::stdout().write_all(text.to_string().as_bytes());
        0
    }
}

/// What clap says in paragraphs, in our form: the first one is the message, tips and the usage are hints.
fn usage_lines(text: &str) -> (String, Vec<String>) {
    let mut paragraphs = text.split("\n\n").map(|paragraph| {
        let lines = paragraph.lines().map(str::trim).collect::<Vec<_>>();
        lines.join(" ")
    });
    let first = paragraphs.next().unwrap_or_default();
    let message = first.strip_prefix("error: ").unwrap_or(&first).to_owned();
    let hints = paragraphs
        .map(|paragraph| paragraph.trim().to_owned())
        .filter_map(|paragraph| match paragraph.split_once(": ") {
            Some(("tip", tip)) => Some(tip.to_owned()),
            Some(("Usage", usage)) => Some(format!("usage: {usage}")),
            _ if paragraph.starts_with("For more information") => {
                Some("--help explains every option".to_owned())
            }
            _ => None,
        })
        .collect();
    (message, hints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_the_whole_chain() {
        let error = CommandError::new(Kind::Device, std::io::Error::other("no such thing"))
            .about("cannot open a.img");
        assert_eq!(error.line(), "cannot open a.img: no such thing");
    }

    #[test]
    fn a_usage_error_is_a_line_and_its_hints() {
        let text = "error: unexpected argument '-5' found\n\n  tip: to pass '-5' as a value, use '-- -5'\n\nUsage: luksmith create \
                    <IMAGE>\n\nFor more information, try '--help'.\n";
        let (message, hints) = usage_lines(text);
        assert_eq!(message, "unexpected argument '-5' found");
        assert_eq!(
            hints,
            [
                "to pass '-5' as a value, use '-- -5'",
                "usage: luksmith create <IMAGE>",
                "--help explains every option"
            ]
        );
    }

    #[test]
    fn names_from_outside_cannot_write_to_the_terminal() {
        let error = CommandError::parameters("no file \u{1b}[2Jx\ny");
        assert_eq!(error.line(), "no file \\u{1b}[2Jx\\ny");
    }
}
