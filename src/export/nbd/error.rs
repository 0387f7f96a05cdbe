//! Maps failures of a volume to the errors of the protocol. One table.

use std::io;

use luksmith_formats::nbd::ErrorNumber;

use crate::backend::{IoError, Operation};

/// The error that a client gets.
pub(super) fn number(error: &IoError) -> ErrorNumber {
    match error {
        // The protocol asks for these: ENOSPC for a write beyond the end, EINVAL for other
        // requests.
        IoError::OutOfRange {
            operation: Operation::Write | Operation::WriteZeroes,
            ..
        }
        | IoError::NoSpace { .. }
        | IoError::TooLarge { .. } => ErrorNumber::NoSpace,
        IoError::OutOfRange { .. } | IoError::Unaligned { .. } => ErrorNumber::Invalid,
        IoError::ReadOnly(_) => ErrorNumber::NotPermitted,
        IoError::Unsupported(_) | IoError::MissingFeature(_) => ErrorNumber::NotSupported,
        IoError::Plaintext { .. }
        | IoError::Image { .. }
        | IoError::LockLost(_)
        | IoError::Altered { .. }
        | IoError::TagMismatch { .. }
        | IoError::SourceLost { .. } => ErrorNumber::Io,
        IoError::Failed { source, .. } => match source.kind() {
            io::ErrorKind::OutOfMemory => ErrorNumber::NoMemory,
            io::ErrorKind::StorageFull => ErrorNumber::NoSpace,
            _ => ErrorNumber::Io,
        },
    }
}

/// Why a request failed, with a message for people that structured replies have room for.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) error: ErrorNumber,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(error: ErrorNumber, message: impl Into<String>) -> Self {
        Self {
            error,
            message: message.into(),
        }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorNumber::Invalid, message)
    }
}

impl From<IoError> for Refusal {
    fn from(error: IoError) -> Self {
        tracing::debug!(%error, "a request failed");
        Self::new(number(&error), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_error() {
        let out_of_range = |operation| IoError::OutOfRange {
            operation,
            offset: 0,
            len: 1,
            size: 0,
        };
        let failed = |kind: io::ErrorKind| IoError::Failed {
            operation: Operation::Read,
            offset: 0,
            source: kind.into(),
        };
        for (error, expected) in [
            (out_of_range(Operation::Read), ErrorNumber::Invalid),
            (out_of_range(Operation::Discard), ErrorNumber::Invalid),
            (out_of_range(Operation::Write), ErrorNumber::NoSpace),
            (out_of_range(Operation::WriteZeroes), ErrorNumber::NoSpace),
            (
                IoError::ReadOnly(Operation::Write),
                ErrorNumber::NotPermitted,
            ),
            (
                IoError::Unsupported(Operation::Discard),
                ErrorNumber::NotSupported,
            ),
            (
                IoError::NoSpace {
                    operation: Operation::Write,
                    offset: 0,
                },
                ErrorNumber::NoSpace,
            ),
            (failed(io::ErrorKind::OutOfMemory), ErrorNumber::NoMemory),
            (failed(io::ErrorKind::Other), ErrorNumber::Io),
            (IoError::Plaintext { at: 0 }, ErrorNumber::Io),
            (IoError::Altered { offset: 0 }, ErrorNumber::Io),
            (
                IoError::TagMismatch {
                    offset: 0,
                    len: 512,
                },
                ErrorNumber::Io,
            ),
            (
                IoError::Image {
                    what: "a hole",
                    at: 0,
                },
                ErrorNumber::Io,
            ),
        ] {
            assert_eq!(number(&error), expected, "{error}");
        }
    }
}
