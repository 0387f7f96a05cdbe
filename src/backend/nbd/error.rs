//! Errors of an NBD server, and which [`IoError`] each of them becomes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use luksmith_formats::FormatError;
use luksmith_formats::nbd::ErrorNumber;

use crate::backend::{IoError, Operation};
use crate::channel::TlsError;

/// A problem with a server.
#[derive(Debug, thiserror::Error)]
#[error("{server}")]
#[non_exhaustive]
pub struct NbdError {
    /// The URI of the export.
    pub server: Arc<str>,
    /// The problem.
    pub source: Problem,
}

/// The problem with a server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The server cannot be reached.
    #[error("cannot be reached")]
    Unreachable(#[source] io::Error),
    /// The connection broke.
    #[error("the connection failed")]
    Connection(#[source] io::Error),
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// The server sent nothing for too long.
    #[error("no reply within {} s", .0.as_secs_f32())]
    Silent(Duration),
    /// The server sent something, but no complete reply in this time.
    #[error("no complete reply within {} s", .0.as_secs_f32())]
    Slow(Duration),
    /// The [`Interrupt`](crate::Interrupt) of the options was set.
    #[error("interrupted")]
    Interrupted,
    /// The server sent bytes that are not a message of the protocol, or only of an old form of it.
    #[error("not the NBD protocol that was expected")]
    Malformed(#[source] FormatError),
    /// The server sent a message that is not allowed at that point.
    #[error("the server violates the protocol: {0}")]
    Violation(&'static str),
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// `nbds` without a directory of certificates.
    #[error("tls needs certificates: tls-certificates=DIRECTORY is missing in the uri")]
    NoCertificates,
    /// The URI asks for TLS, and the server does not offer it.
    #[error("the server does not offer tls")]
    NoTls,
    /// The URI does not ask for TLS, and the server requires it.
    #[error("the server requires tls (nbds:// or nbds+unix://)")]
    TlsRequired,
    /// TLS could not be set up.
    #[error("tls failed")]
    Tls(#[source] TlsError),
    /// The server has no export of this name. Contains its message, which may be empty.
    #[error("there is no export of that name{}", in_parentheses(.0))]
    NoExport(String),
    /// The server refuses something that is needed.
    #[error("the server refuses {what}{}", in_parentheses(message))]
    Refused {
        /// What the server refuses.
        what: &'static str,
        /// The message of the server, which may be empty.
        message: String,
    },
    /// The export was opened for writing, and the server only allows reading.
    #[error("the export is read-only")]
    ReadOnly,
    /// The block sizes of the export are inconsistent or too large.
    #[error("the export asks for blocks of {minimum} to {maximum} bytes, which is not supported")]
    BlockSizes {
        /// The smallest block, in bytes.
        minimum: u32,
        /// The largest request, in bytes.
        maximum: u32,
    },
    /// The server claims a size that no disk can have.
    #[error("the server claims that the export has {0} bytes, which no disk has")]
    TooLarge(u64),
    /// After a reconnect the export is smaller than before.
    #[error("the export had {was} bytes and has {is} now")]
    Shrunk {
        /// The size when it was opened, in bytes.
        was: u64,
        /// The size now, in bytes.
        is: u64,
    },
    /// The first bytes of the export over a new connection are not those of before.
    #[error("the export contains another disk than before")]
    OtherDisk,
    /// After a reconnect the export needs larger blocks, or takes only smaller requests, than
    /// before.
    #[error("the export changed its block size")]
    OtherBlocks,
    /// The server replied with an error.
    #[error("the server replied {}{}", name(*error), in_parentheses(message))]
    Answered {
        /// The error.
        error: ErrorNumber,
        /// The message of the server, which may be empty.
        message: String,
    },
    /// The connection broke again and again while the same request was in flight, for as long as
    /// the timeout. Contains how often.
    #[error("the connection broke {0} times during this request")]
    TooOften(u32),
    /// Acknowledged writes could not be made durable.
    #[error("writes that the server had acknowledged may be lost")]
    Lost,
}

impl Problem {
    /// Whether the same request may succeed over a new connection.
    pub(super) fn is_of_the_connection(&self) -> bool {
        matches!(self, Self::Closed | Self::Connection(_))
    }

    /// The problem of a connection whose request was lost, for a connection that will not be
    /// restored.
    pub(super) fn of_lost_request(&self) -> Self {
        match self {
            Self::Silent(time) => Self::Silent(*time),
            Self::Slow(time) => Self::Slow(*time),
            Self::Interrupted => Self::Interrupted,
            Self::Malformed(error) => Self::Malformed(error.clone()),
            Self::Violation(what) => Self::Violation(what),
            _ => Self::Closed,
        }
    }

    /// Whether a later attempt to connect may succeed without any change by an administrator.
    pub(super) fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_)
                | Self::Connection(_)
                | Self::Closed
                | Self::Silent(_)
                | Self::Slow(_)
        )
    }

    fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Unreachable(error) | Self::Connection(error) | Self::Thread(error) => {
                error.kind()
            }
            Self::Closed | Self::TooOften(_) => io::ErrorKind::ConnectionAborted,
            Self::Silent(_) | Self::Slow(_) => io::ErrorKind::TimedOut,
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

impl NbdError {
    /// Whether an error of the storage says that the interrupt ended a request.
    pub(crate) fn is_interrupt(error: &io::Error) -> bool {
        let source = (error.get_ref()).and_then(|source| source.downcast_ref::<Arc<Self>>());
        source.is_some_and(|error| matches!(error.source, Problem::Interrupted))
    }
}

/// The error of `operation` at byte `offset`.
pub(super) fn io_error(error: Arc<NbdError>, operation: Operation, offset: u64) -> IoError {
    let replied = match &error.source {
        Problem::Answered { error, .. } => *error,
        _ => ErrorNumber::None,
    };
    match replied {
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

fn in_parentheses(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(" ({message})")
    }
}
