//! What can go wrong with a server, and which [`IoError`] it is: the one place where the two meet.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use luksmith_formats::FormatError;
use luksmith_formats::nbd::ErrorNumber;

use crate::backend::{IoError, Operation};
use crate::channel::TlsError;

/// A problem with a server, and which one.
#[derive(Debug, thiserror::Error)]
#[error("{server}")]
#[non_exhaustive]
pub struct NbdError {
    /// The URI.
    pub server: Arc<str>,
    /// What is wrong.
    pub source: Problem,
}

/// What can be wrong with a server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// There is no way to it, or nobody there.
    #[error("cannot be reached")]
    Unreachable(#[source] io::Error),
    /// The connection broke.
    #[error("the connection failed")]
    Connection(#[source] io::Error),
    /// The server ended it.
    #[error("the server closed the connection")]
    Closed,
    /// Nothing came for too long.
    #[error("no answer within {} s", .0.as_secs_f32())]
    Silent(Duration),
    /// What came is no message of the protocol, or of an older one.
    #[error("not the protocol that was expected")]
    Malformed(#[source] FormatError),
    /// What came is a message that has no place there.
    #[error("the server breaks the protocol: {0}")]
    Violation(&'static str),
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// `nbds` without a directory of certificates.
    #[error("tls needs certificates: tls-certificates=DIRECTORY is missing in the uri")]
    NoCertificates,
    /// `nbds`, and the server does not.
    #[error("the server does not offer tls")]
    NoTls,
    /// `nbd`, and the server wants TLS.
    #[error("the server wants tls (nbds:// or nbds+unix://)")]
    TlsRequired,
    /// TLS did not come about.
    #[error("no tls")]
    Tls(#[source] TlsError),
    /// It has no such export.
    #[error("there is no export of that name{}", told(.0))]
    NoExport(String),
    /// It refuses an option that is needed, with what it says about that.
    #[error("the server refuses {what}{}", told(message))]
    Refused {
        /// What was asked of it.
        what: &'static str,
        /// What it says, which may be nothing.
        message: String,
    },
    /// Opened for writing, and the server allows reading alone.
    #[error("the export is read-only")]
    ReadOnly,
    /// It wants requests of sizes that make no sense, or are too large.
    #[error("the export asks for blocks of {minimum} to {maximum} bytes, which is not supported")]
    BlockSizes {
        /// The smallest.
        minimum: u32,
        /// The largest.
        maximum: u32,
    },
    /// It is said to be larger than any disk can be.
    #[error("the export is said to have {0} bytes, which no disk has")]
    TooLarge(u64),
    /// After a reconnection it is another export, or somebody cut it.
    #[error("the export had {was} bytes and has {is} now")]
    Shrunk {
        /// The size in bytes when it was opened.
        was: u64,
        /// The size in bytes now.
        is: u64,
    },
    /// After a reconnection it begins with other bytes than before.
    #[error("the export holds another disk than before")]
    OtherDisk,
    /// It needs larger blocks than before.
    #[error("the export changed its block size")]
    OtherBlocks,
    /// It answered with an error.
    #[error("the server answered {}{}", name(*error), told(message))]
    Answered {
        /// Which one.
        error: ErrorNumber,
        /// What it says, which may be nothing.
        message: String,
    },
    /// The connection broke again and again under the same request.
    #[error("the connection broke {0} times under this request")]
    TooOften(u32),
    /// What it had acknowledged could not be made sure of.
    #[error("writes that the server had acknowledged may be lost")]
    Lost,
}

impl Problem {
    /// Whether the same request may go well over a new connection.
    pub(super) fn is_of_the_connection(&self) -> bool {
        matches!(self, Self::Closed | Self::Connection(_))
    }

    /// Whether the server may answer after a while.
    pub(super) fn passes(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_) | Self::Connection(_) | Self::Closed | Self::Silent(_)
        )
    }

    fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Unreachable(error) | Self::Connection(error) | Self::Thread(error) => {
                error.kind()
            }
            Self::Closed | Self::TooOften(_) => io::ErrorKind::ConnectionAborted,
            Self::Silent(_) => io::ErrorKind::TimedOut,
            Self::Malformed(_) | Self::Violation(_) => io::ErrorKind::InvalidData,
            Self::NoExport(_) => io::ErrorKind::NotFound,
            Self::ReadOnly => io::ErrorKind::ReadOnlyFilesystem,
            Self::Answered { error, .. } => match error {
                ErrorNumber::NotPermitted => io::ErrorKind::PermissionDenied,
                ErrorNumber::NoMemory => io::ErrorKind::OutOfMemory,
                ErrorNumber::Invalid => io::ErrorKind::InvalidInput,
                _ => io::ErrorKind::Other,
            },
            _ => io::ErrorKind::Other,
        }
    }
}

/// What this means for who asked for `operation` at byte `offset`.
pub(super) fn io_error(error: Arc<NbdError>, operation: Operation, offset: u64) -> IoError {
    let answered = match &error.source {
        Problem::Answered { error, .. } => *error,
        _ => ErrorNumber::None,
    };
    match answered {
        ErrorNumber::NoSpace => IoError::NoSpace { operation, offset },
        ErrorNumber::NotSupported => IoError::Unsupported(operation),
        ErrorNumber::NotPermitted if operation != Operation::Read => IoError::ReadOnly(operation),
        _ => IoError::Failed {
            operation,
            offset,
            source: io::Error::new(error.source.kind(), error),
        },
    }
}

/// The name that the protocol gives to an error.
fn name(error: ErrorNumber) -> String {
    let name = match error {
        ErrorNumber::NotPermitted => "EPERM",
        ErrorNumber::Io => "EIO",
        ErrorNumber::NoMemory => "ENOMEM",
        ErrorNumber::Invalid => "EINVAL",
        ErrorNumber::NoSpace => "ENOSPC",
        ErrorNumber::Overflow => "EOVERFLOW",
        ErrorNumber::NotSupported => "ENOTSUP",
        ErrorNumber::Shutdown => "ESHUTDOWN",
        other => return format!("error {}", u32::from(other)),
    };
    name.to_owned()
}

fn told(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(" ({message})")
    }
}
