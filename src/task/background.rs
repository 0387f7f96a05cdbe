//! Runs this program again in the background, and waits until it is ready.
//!
//! The second process asks for passphrases and prints what it has to say, since it shares the
//! terminal with the first one until it is ready. Then it leaves the terminal, and the first one
//! ends.

use std::ffi::OsString;
use std::io::{self, PipeReader, Read as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;

use rustix::io::FdFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::Error;

/// The program.
const PROGRAM: &str = "/proc/self/exe";

/// A second process of this program, which is not ready yet.
pub struct Background {
    child: Child,
    process: Option<Arc<OwnedFd>>,
    ready: PipeReader,
}

impl Background {
    /// Starts this program with the arguments that `arguments` makes, name included. They get the
    /// number of a descriptor to which the second process writes a line when it is ready.
    ///
    /// # Errors
    /// Failed system calls.
    pub fn start(arguments: impl FnOnce(u32) -> Vec<OsString>) -> Result<Self, Error> {
        let failed = |error| Error::io("start", Path::new(PROGRAM), error);
        let start = || {
            let (ready, told) = io::pipe()?;
            rustix::io::fcntl_setfd(&told, FdFlags::empty())?;
            let number = u32::try_from(told.as_raw_fd()).unwrap_or_default();
            let mut arguments = arguments(number).into_iter();
            let mut command = Command::new(PROGRAM);
            command.arg0(arguments.next().unwrap_or_default());
            let child = command.args(arguments).spawn()?;
            // Until the child is waited for, its number is its own.
            let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
            Ok(Self {
                child,
                process: process.ok().map(Arc::new),
                ready,
            })
        };
        start().map_err(failed)
    }

    /// A function that sends SIGTERM to the second process, from any thread.
    pub fn stopper(&self) -> impl Fn() + Send + 'static {
        let process = self.process.clone();
        move || {
            if let Some(process) = &process {
                let _ = pidfd_send_signal(process, Signal::TERM);
            }
        }
    }

    /// Waits until the second process is ready, and returns `None`; or until it ends, and returns
    /// its exit code, or 128 and the number of the signal that ended it.
    ///
    /// # Errors
    /// Failed system calls.
    pub fn wait(mut self) -> Result<Option<u8>, Error> {
        let failed = |error| Error::io("wait for", Path::new(PROGRAM), error);
        let mut byte = [0];
        match self.ready.read_exact(&mut byte) {
            Ok(()) => Ok(None),
            // It has closed the pipe.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let status = self.child.wait().map_err(failed)?;
                let signal = || 128 + status.signal().unwrap_or(0);
                let code = status.code().unwrap_or_else(signal);
                Ok(Some(u8::try_from(code).unwrap_or(u8::MAX)))
            }
            Err(error) => Err(failed(error)),
        }
    }
}

/// Leaves the terminal. What is printed later is lost.
///
/// # Errors
/// Failed system calls.
pub fn leave_terminal() -> Result<(), Error> {
    crate::sys::standard::leave_terminal()
        .map_err(|error| Error::io("leave", Path::new("the terminal"), error))
}
