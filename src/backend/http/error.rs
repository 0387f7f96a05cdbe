//! Why a file on a web server cannot be read.

use std::io;

use luksmith_formats::text::without_query;

use crate::backend::{IoError, Operation};
use crate::http::AuthoritiesError;

/// A problem with a file on a web server.
#[derive(Debug, thiserror::Error)]
#[error("{url}")]
#[non_exhaustive]
pub struct HttpError {
    /// The URL of the file, without its query, which may be a signature.
    pub url: Box<str>,
    /// The problem.
    pub source: Problem,
}

impl HttpError {
    /// A problem with the file at a URL.
    #[must_use]
    pub fn new(url: &str, source: Problem) -> Self {
        let url = without_query(url).into();
        Self { url, source }
    }
}

/// The problem with a file on a web server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The authorities to trust are not known.
    #[error(transparent)]
    Authorities(#[from] AuthoritiesError),
    /// The URL is not one that can be asked for.
    #[error("the url cannot be asked for")]
    Url,
    /// There was no answer, or not all of it.
    #[error("no complete answer from the web server")]
    Unreachable(#[source] io::Error),
    /// There is no such file.
    #[error("there is no such file on the web server")]
    Absent,
    /// The server wants to know who asks.
    #[error("the web server denies access (status {0})")]
    Denied(u16),
    /// Another status.
    #[error("the web server answers with status {0}")]
    Status(u16),
    /// The server sends the whole file when it is asked for a part.
    #[error("the web server does not serve parts of a file (Range)")]
    NoRanges,
    /// The server does not say which version of the file it has.
    #[error(
        "the web server does not tell versions of a file apart (a strong ETag, or a Last-Modified \
         before its Date)"
    )]
    NoVersion,
    /// The file is another one than when it was opened. From then on every call fails.
    #[error("the file on the web server has changed")]
    Changed,
    /// The answer makes no sense.
    #[error("the web server answers with {0}")]
    Answer(&'static str),
    /// It was opened for writing.
    #[error("a file on a web server is read-only")]
    ReadOnly,
}

impl Problem {
    /// Whether the same request may succeed later.
    pub(super) fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable(error) => crate::http::is_temporary(error),
            Self::Status(status) => matches!(status, 408 | 429 | 500..),
            _ => false,
        }
    }

    /// The same as an error of a read.
    pub(super) fn of_read(self, url: &str, offset: u64) -> IoError {
        let error = HttpError::new(url, self);
        let kind = match &error.source {
            Self::Denied(_) => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::Other,
        };
        IoError::from_os(Operation::Read, offset, io::Error::new(kind, error))
    }
}
