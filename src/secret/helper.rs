//! A program that prints a secret on its stdout: the source `command:`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::error::SecretError;
use super::helper_error::HelperError;
use super::locked::LockedBytes;
use super::run::{Exchange, Input, Program, Third};
use super::trusted;
use crate::Interrupt;

/// The longest time that a program may take, unless the caller sets another one.
pub const HELPER_TIME: Duration = Duration::from_secs(60);

/// A program that prints a secret on its stdout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Helper {
    program: PathBuf,
    arguments: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    time: Duration,
}

impl Helper {
    /// The program at an absolute path, without arguments.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            variables: Vec::new(),
            time: HELPER_TIME,
        }
    }

    /// The same program with one more argument, which other processes can see.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// The same program with one more environment variable, which other processes can see. Without
    /// any, it has only `PATH`, with the folders of the system.
    #[must_use]
    pub fn variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// The same program, which may take this long.
    #[must_use]
    pub fn time(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// As [`run`](Self::run), with a secret as the stdin of the program.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_with(
        &self,
        secret: &[u8],
        limit: usize,
        interrupt: &Interrupt,
    ) -> Result<LockedBytes, SecretError> {
        self.exchange(Input::Secret(secret), limit, interrupt)
    }

    /// Runs the program, and returns all bytes that it prints, at most `limit`.
    ///
    /// # Errors
    /// [`SecretError::Helper`], [`SecretError::Nothing`] if it prints nothing,
    /// [`SecretError::TooLong`], [`SecretError::Interrupted`], and [`SecretError::Lock`].
    pub fn run(&self, limit: usize, interrupt: &Interrupt) -> Result<LockedBytes, SecretError> {
        self.exchange(Input::Nothing, limit, interrupt)
    }

    fn exchange(
        &self,
        stdin: Input<'_>,
        limit: usize,
        interrupt: &Interrupt,
    ) -> Result<LockedBytes, SecretError> {
        let from = self.program.display().to_string();
        let failed = |source| SecretError::Helper {
            from: from.clone(),
            source,
        };
        if !self.program.is_absolute() {
            return Err(failed(HelperError::Relative));
        }
        let file = trusted::open(&self.program).map_err(HelperError::Refused);
        let program = Program {
            file: &file.map_err(failed)?,
            path: &self.program,
            name: &from,
            arguments: &self.arguments,
            variables: &self.variables,
            time: self.time,
        };
        let exchange = Exchange {
            stdin,
            stdout: Some(limit),
            third: Third::Closed,
        };
        let ran = program.run(exchange, interrupt)?;
        match ran.code {
            0 if ran.stdout.is_empty() => Err(SecretError::Nothing { from }),
            0 => Ok(ran.stdout),
            code => Err(failed(HelperError::Failed(code))),
        }
    }
}

#[cfg(test)]
mod tests;
