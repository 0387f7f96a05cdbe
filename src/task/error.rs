//! A failed task: the kind of failure, and what may help.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;

use super::{Advice, printable};
use crate::sys::folder::ForeignLink;

/// The kind of a failure. A program maps its exit codes, exceptions or errno from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The options contradict each other or the image.
    Parameters,
    /// The operating system, libvirt or the storage refuses access.
    Permission,
    /// No keyslot opens with the passphrase or key, or a new passphrase is empty, too weak, or not
    /// the same when it is typed again.
    WrongPassphrase,
    /// Memory or locked memory is short, or a thread cannot be started.
    Memory,
    /// A header asks for more memory, time or threads than the limits allow.
    OverLimit,
    /// The storage failed, is missing, or is the wrong kind of thing.
    Storage,
    /// The storage or the quota is full.
    NoSpace,
    /// A header or image is malformed, cut off, or not in the format that was stated.
    Damaged,
    /// The request is valid, but this build or program cannot do it.
    Unsupported,
    /// Another program has it open, or changed it meanwhile.
    Busy,
    /// Something exists already.
    Exists,
    /// A volume is not as it is pinned, or there is no pin of it; or data does not match its tag.
    NotTrusted,
    /// The [`Interrupt`](crate::Interrupt) was set.
    Interrupted,
}

impl Kind {
    const ALL: [Self; 13] = [
        Self::Parameters,
        Self::Permission,
        Self::WrongPassphrase,
        Self::Memory,
        Self::OverLimit,
        Self::Storage,
        Self::NoSpace,
        Self::Damaged,
        Self::Unsupported,
        Self::Busy,
        Self::Exists,
        Self::NotTrusted,
        Self::Interrupted,
    ];

    /// The kind with this [`name`](Self::name).
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The name by which programs tell kinds apart: the member `kind` of an error in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Parameters => "parameters",
            Self::Permission => "permission",
            Self::WrongPassphrase => "wrong-passphrase",
            Self::Memory => "memory",
            Self::OverLimit => "over-limit",
            Self::Storage => "storage",
            Self::NoSpace => "no-space",
            Self::Damaged => "damaged",
            Self::Unsupported => "unsupported",
            Self::Busy => "busy",
            Self::Exists => "exists",
            Self::NotTrusted => "not-trusted",
            Self::Interrupted => "interrupted",
        }
    }

    /// Whether the storage, or what it holds, is at fault.
    #[must_use]
    pub fn is_of_storage(self) -> bool {
        matches!(
            self,
            Self::Storage | Self::NoSpace | Self::Damaged | Self::Unsupported
        )
    }

    /// The kind of a failed system call.
    #[must_use]
    pub fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::Permission,
            io::ErrorKind::AlreadyExists => Self::Exists,
            io::ErrorKind::ResourceBusy | io::ErrorKind::AddrInUse => Self::Busy,
            io::ErrorKind::OutOfMemory => Self::Memory,
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::NoSpace,
            _ => Self::Storage,
        }
    }
}

/// Why a task failed: the [`Kind`], the subject (such as a file), the error with its sources, and
/// what may help.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    about: Option<String>,
    cause: Box<dyn StdError + Send + Sync>,
    advice: Vec<Advice>,
}

impl Error {
    /// A failure of this kind, caused by `cause`: an error, or a message in lower case without a
    /// full stop.
    pub fn new(kind: Kind, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            kind,
            about: None,
            cause: cause.into(),
            advice: Vec::new(),
        }
    }

    /// Options that contradict each other or the image.
    pub fn parameters(message: impl Into<String>) -> Self {
        Self::new(Kind::Parameters, message.into())
    }

    /// A failed system call on a path: `cannot {verb} {path}`.
    #[must_use]
    pub fn io(verb: &str, path: &Path, error: io::Error) -> Self {
        let what = format_args!("cannot {verb} {}", path.display());
        let foreign = error
            .get_ref()
            .is_some_and(|error| error.is::<ForeignLink>());
        Self::new(Kind::of_io(&error), error)
            .about(what)
            .advise_if(foreign, Advice::ForeignLink)
    }

    /// A thread that could not be started.
    #[must_use]
    pub fn thread(error: io::Error) -> Self {
        Self::new(Kind::Memory, error).about("cannot start a thread")
    }

    /// The work was interrupted, and left nothing half done.
    #[must_use]
    pub fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "interrupted")
    }

    /// The same failure, with its subject before the message: `{what}: {message}`.
    #[must_use]
    pub fn about(mut self, what: impl fmt::Display) -> Self {
        self.about = Some(match self.about {
            Some(about) => format!("{what}: {about}"),
            None => what.to_string(),
        });
        self
    }

    /// The same failure with one more piece of advice.
    #[must_use]
    pub fn advise(mut self, advice: Advice) -> Self {
        self.advice.push(advice);
        self
    }

    /// The same failure, with this advice if it applies.
    #[must_use]
    pub fn advise_if(self, applies: bool, advice: Advice) -> Self {
        if applies { self.advise(advice) } else { self }
    }

    /// The kind of the failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What may help, the most useful first.
    #[must_use]
    pub fn advice(&self) -> &[Advice] {
        &self.advice
    }

    /// What may help, in one line for a person, if anything may.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hints: Vec<_> = self.advice.iter().map(ToString::to_string).collect();
        (!hints.is_empty()).then(|| hints.join("; "))
    }

    /// The error itself, without its subject. A caller can downcast it.
    #[must_use]
    pub fn cause(&self) -> &(dyn StdError + 'static) {
        self.cause.as_ref()
    }

    /// The message with its sources in one line, safe to show on a terminal.
    #[must_use]
    pub fn line(&self) -> String {
        chain(self)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.about {
            Some(about) => f.write_str(about),
            None => self.cause.fmt(f),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self.about {
            Some(_) => Some(self.cause.as_ref()),
            None => self.cause.source(),
        }
    }
}

/// An error and its sources, joined by `: ` to one line that is safe to show on a terminal.
#[must_use]
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        line.push_str(": ");
        line.push_str(&error.to_string());
        source = error.source();
    }
    printable(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_the_whole_chain() {
        let error = Error::new(Kind::Storage, io::Error::other("no such thing"));
        assert_eq!(error.line(), "no such thing");
        let error = error.about("cannot open a.img").about("disk 1");
        assert_eq!(error.line(), "disk 1: cannot open a.img: no such thing");
    }

    #[test]
    fn names_from_outside_cannot_write_to_the_terminal() {
        let error = Error::parameters("no file \u{1b}[2Jx\ny");
        assert_eq!(error.line(), "no file \\u{1b}[2Jx\\ny");
    }

    #[test]
    fn a_system_call_tells_its_kind_and_path() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = Error::io("write", Path::new("a.img"), full);
        assert_eq!(error.kind(), Kind::NoSpace);
        assert!(error.line().starts_with("cannot write a.img: "));
        assert!(error.cause().downcast_ref::<io::Error>().is_some());
    }
}
