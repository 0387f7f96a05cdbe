//! A failed command: the exit code, the message, and the hints.

use std::error::Error as StdError;
use std::io;
use std::path::Path;

use luksmith::task;
pub(crate) use luksmith::task::Kind;

use super::{advice, verdicts};

/// How a failed command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The work failed.
    Failed(Kind),
    /// An inspected image is not what it claims to be.
    Rejected,
    /// An inspected image may be good, but the policy does not allow it.
    AgainstPolicy,
    /// An audit, a search for plaintext or a check of secrets found something.
    Findings,
    /// The reader of the output exited; nothing is printed.
    ReaderGone,
    /// The command of `serve --run` failed with this code, and has said why.
    OfCommand(u8),
}

impl Exit {
    /// The exit code. The first five are cryptsetup's.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Failed(kind) => match kind {
                Kind::Parameters => 1,
                Kind::Permission | Kind::WrongPassphrase => 2,
                Kind::Memory | Kind::OverLimit => 3,
                Kind::Busy | Kind::Exists => 5,
                Kind::NotTrusted => 7,
                Kind::Interrupted => 130,
                // The storage, the image or the header is wrong.
                _ => 4,
            },
            Self::AgainstPolicy => 6,
            Self::Rejected => 10,
            Self::Findings => 11,
            Self::ReaderGone => 141,
            Self::OfCommand(code) => code,
        }
    }

    /// The member `kind` of the error in JSON.
    fn name(self) -> &'static str {
        match self {
            Self::Failed(kind) => kind.name(),
            Self::Rejected => "rejected",
            Self::AgainstPolicy => "policy",
            Self::Findings => "findings",
            Self::ReaderGone => "reader-gone",
            Self::OfCommand(_) => "command",
        }
    }
}

impl From<Kind> for Exit {
    fn from(kind: Kind) -> Self {
        Self::Failed(kind)
    }
}

/// Why a command failed, and hints.
#[derive(Debug)]
pub(crate) struct CommandError {
    exit: Exit,
    error: task::Error,
    hints: Vec<String>,
}

impl CommandError {
    pub(crate) fn new(
        exit: impl Into<Exit>,
        error: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        let exit = exit.into();
        let kind = match exit {
            Exit::Failed(kind) => kind,
            _ => Kind::Storage,
        };
        Self {
            exit,
            error: task::Error::new(kind, error),
            hints: Vec::new(),
        }
    }

    pub(crate) fn parameters(message: impl Into<String>) -> Self {
        Self::new(Kind::Parameters, message.into())
    }

    /// The same failure with one more hint.
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

    /// The same failure, with its subject before the message: `{what}: {message}`.
    #[must_use]
    pub(crate) fn about(mut self, what: impl std::fmt::Display) -> Self {
        self.error = self.error.about(what);
        self
    }

    /// The same failure without hints that begin with an option which this command does not have.
    /// The library advises without knowing the command.
    #[must_use]
    pub(crate) fn of_command(mut self, command: &clap::Command) -> Self {
        self.hints.retain(|hint| {
            let option = hint.strip_prefix("--").and_then(|rest| {
                rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
                    .next()
            });
            let mut options = command.get_arguments().filter_map(clap::Arg::get_long);
            option.is_none_or(|option| options.any(|other| other == option))
        });
        self
    }

    pub(crate) fn kind(&self) -> Kind {
        self.error.kind()
    }

    pub(crate) fn exit_code(&self) -> u8 {
        self.exit.code()
    }

    /// The member `kind` of the error in JSON.
    pub(crate) fn name(&self) -> &'static str {
        self.exit.name()
    }

    pub(crate) fn hints(&self) -> &[String] {
        &self.hints
    }

    /// Whether nothing is printed: the reader of the output exited, or a command has said it.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self.exit, Exit::ReaderGone | Exit::OfCommand(_))
    }

    /// The message with its sources, in one line.
    pub(crate) fn line(&self) -> String {
        self.error.line()
    }
}

/// A failure of the library, with the hints that belong to it.
impl<E> From<E> for CommandError
where
    task::Error: From<E>,
{
    fn from(error: E) -> Self {
        let error = task::Error::from(error);
        let advice = error.advice().iter().map(advice::advice);
        let hints = verdicts::hint(error.cause())
            .into_iter()
            .chain(advice)
            .collect();
        Self {
            exit: error.kind().into(),
            error,
            hints,
        }
    }
}

/// A failed system call on a path: `cannot {verb} {path}`.
pub(crate) fn failed(verb: &str, path: &Path, error: io::Error) -> CommandError {
    task::Error::io(verb, path, error).into()
}

/// A failed write to stdout.
pub(crate) fn stdout_failed(error: io::Error) -> CommandError {
    let exit = if error.kind() == io::ErrorKind::BrokenPipe {
        Exit::ReaderGone
    } else {
        Kind::of_io(&error).into()
    };
    CommandError::new(exit, error).about("cannot write to stdout")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_names_only_options_of_the_command() {
        let error = CommandError::parameters("no")
            .hint("--force-share reads it anyway")
            .hint("--label, then")
            .hint("`luksmith info` shows it");
        let label = clap::Arg::new("label").long("label");
        let error = error.of_command(&clap::Command::new("create").arg(label));
        assert_eq!(error.hints(), ["--label, then", "`luksmith info` shows it"]);
    }

    #[test]
    fn a_failure_of_a_task_keeps_its_kind_and_gets_the_hints_of_its_cause() {
        let error = task::Error::from(luksmith::secret::SecretError::StdinTaken).about("--key");
        let error = CommandError::from(error);
        assert_eq!((error.kind(), error.exit_code()), (Kind::Parameters, 1));
        assert!(
            error
                .line()
                .starts_with("--key: standard input carries the data")
        );
        assert_eq!(error.hints.len(), 1);
    }
}
