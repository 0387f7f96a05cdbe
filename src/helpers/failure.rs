//! How a helper fails: an exit code of the contract, and a line for people.

use core::fmt;

/// Why a helper fails.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn new(code: u8, message: impl fmt::Display) -> Self {
        let message = message.to_string();
        Self { code, message }
    }

    /// The exit code of the process. The line for people is empty if there is nothing to add.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.code
    }

    pub(super) fn other(message: impl fmt::Display) -> Self {
        Self::new(1, message)
    }

    pub(super) fn not_accepted(message: impl fmt::Display) -> Self {
        Self::new(64, message)
    }

    pub(super) fn no_value() -> Self {
        // The caller may have expected that, and says so itself if not.
        Self::new(66, "")
    }

    pub(super) fn conflict() -> Self {
        Self::new(73, "there is a value already, or another one than expected")
    }

    #[cfg(feature = "nbd")]
    pub(super) fn unreachable(message: impl fmt::Display) -> Self {
        Self::new(75, message)
    }

    pub(super) fn denied(message: impl fmt::Display) -> Self {
        Self::new(77, message)
    }

    /// The failure of a system call on a file.
    pub(super) fn io(what: impl fmt::Display, error: &std::io::Error) -> Self {
        let message = format!("{what}: {error}");
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => Self::denied(message),
            _ => Self::other(message),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
