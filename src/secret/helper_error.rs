//! Why a program that was to give or take a secret did not.

use std::io;
use std::time::Duration;

/// Why a program did not give or take a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HelperError {
    /// The path does not begin with `/`.
    #[error("the path of a program has to be absolute")]
    Relative,
    /// The program or its folder cannot be opened, or another user could have written it.
    #[error("it is not run")]
    Refused(#[source] io::Error),
    /// It cannot be started.
    #[error("it cannot be started")]
    Start(#[source] io::Error),
    /// Its output cannot be read.
    #[error("its output cannot be read")]
    Read(#[source] io::Error),
    /// The secret cannot be passed to it.
    #[error("the secret cannot be passed to it")]
    Write(#[source] io::Error),
    /// It ended with an exit code other than 0.
    #[error("it failed with exit code {0}")]
    Failed(i32),
    /// A signal ended it.
    #[error("it was ended by signal {0}")]
    Killed(i32),
    /// It took too long, and was killed.
    #[error("it did not end within {} s, and was killed", .0.as_secs_f64())]
    Slow(Duration),
}
