//! Why a secret was not read, and why text does not name a source.

use std::path::PathBuf;

use super::helper_error::HelperError;
use super::locked::LockError;

/// Why a secret was not read or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// No locked memory could be allocated.
    #[error("the secret cannot be held safely")]
    Lock(#[from] LockError),
    /// The operating system's random number generator failed.
    #[error("no random bytes from the operating system")]
    Random(#[source] std::io::Error),
    /// The text does not name a source.
    #[error(transparent)]
    Parse(#[from] ParseSourceError),
    /// A secret that is being set is empty.
    #[error("the new secret is empty")]
    Empty,
    /// The source is empty.
    #[error("{from} holds no secret: nothing to read")]
    Nothing {
        /// The source, as its own text.
        from: String,
    },
    /// The source holds more bytes than a secret may have.
    #[error("the secret from {from} is longer than {limit} bytes")]
    TooLong {
        /// The source, as its own text.
        from: String,
        /// The longest secret of this source, in bytes.
        limit: usize,
    },
    /// A file ends before the requested bytes.
    #[error("{path} ends before byte {wanted}")]
    Short {
        /// The file.
        path: PathBuf,
        /// The end of the requested range, in bytes.
        wanted: u64,
    },
    /// The two answers to the question for a new passphrase differ.
    #[error("the two passphrases are not the same")]
    Mismatch,
    /// The process has no terminal to ask on.
    #[error("no terminal to ask on")]
    NoTerminal(#[source] std::io::Error),
    /// Standard input carries data, and cannot carry a secret too.
    #[error("standard input carries the data and cannot carry the secret too")]
    StdinTaken,
    /// `credential:` is used outside a service to which systemd passed credentials.
    #[error("no credentials directory: $CREDENTIALS_DIRECTORY is not set")]
    NoCredentials,
    /// The interrupt was set.
    #[error("interrupted")]
    Interrupted,
    /// A typed secret that is being set is too easy to guess, as the program that asks judges it.
    #[error("{0}")]
    TooWeak(String),
    /// A source that makes new secrets was asked for one that exists.
    #[error("{from} makes a new passphrase, but an existing one is needed")]
    OnlyNew {
        /// The source, as its own text.
        from: String,
    },
    /// The source of a [`Scheme`](super::Scheme) failed.
    #[error("{from}")]
    Scheme {
        /// The source, as its own text.
        from: String,
        /// The error of the module that has the scheme.
        source: Box<dyn core::error::Error + Send + Sync>,
    },
    /// A program that was to print the secret failed, or is not run.
    #[error("{from}")]
    Helper {
        /// The path of the program.
        from: String,
        /// What happened.
        source: HelperError,
    },
    /// A file, descriptor or terminal failed.
    #[error("cannot read {from}")]
    Io {
        /// The source, as its own text or its path.
        from: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
}

/// Why text does not name a source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseSourceError {
    /// The text has none of the forms. The message does not repeat the text, which may be a
    /// passphrase given by mistake.
    #[error(
        "not a source of a secret; one is prompt, file:PATH[,offset=N][,size=N], fd:N, stdin, credential:NAME or command:PROGRAM"
    )]
    Unknown,
    /// `file:` without a path.
    #[error("file: names no path")]
    NoPath,
    /// The value of an option of `file:` is not a number of bytes.
    #[error("{option}= takes a number of bytes")]
    NotBytes {
        /// `offset` or `size`.
        option: &'static str,
    },
    /// An option of `file:` is given twice.
    #[error("{option}= is given twice")]
    Twice {
        /// `offset` or `size`.
        option: &'static str,
    },
    /// `fd:` without the number of a descriptor.
    #[error("fd: takes the number of an open descriptor")]
    NotDescriptor,
    /// `credential:` without a plain file name.
    #[error("credential: takes a plain name, without '/'")]
    NotName,
    /// `command:` without the absolute path of a program.
    #[error("command: takes the absolute path of a program, without arguments")]
    NotProgram,
    /// The text after the name of a [`Scheme`](super::Scheme) is not in the form that it takes.
    #[error("{0}")]
    Scheme(String),
}
