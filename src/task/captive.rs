//! A command that uses a server. The server stops when the command ends.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use uuid::Uuid;

use super::Error;
use super::listen::Listening;
use crate::sys::folder::Folder;

/// The environment variables of a service manager, which are for the server.
const OF_THE_SERVER: [&str; 5] = [
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "CREDENTIALS_DIRECTORY",
];

/// A command that runs while a server serves.
pub struct Captive {
    waiting: JoinHandle<io::Result<ExitStatus>>,
    process: Option<Arc<OwnedFd>>,
}

/// Ends a [`Captive`] early.
#[derive(Clone)]
pub struct Ending(Option<Arc<OwnedFd>>);

impl Captive {
    /// Starts `/bin/sh -c COMMAND` with the environment variables `uri`, `exportname` and
    /// `unixsocket` (empty for TCP) of the export of this name. Calls `ended` when the command has
    /// ended.
    ///
    /// # Errors
    /// A command or thread that cannot be started.
    pub fn start(
        command: &OsStr,
        listening: &Listening<'_>,
        export: &str,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<Self, Error> {
        let socket = listening.socket().unwrap_or_default();
        let mut shell = Command::new("/bin/sh");
        shell
            .arg("-c")
            .arg(command)
            .env("uri", listening.uri(export).to_string())
            .env("exportname", export)
            .env("unixsocket", OsString::from_vec(socket.to_vec()));
        for name in OF_THE_SERVER {
            shell.env_remove(name);
        }
        let path = Path::new("/bin/sh");
        let mut child = shell
            .spawn()
            .map_err(|error| Error::io("start", path, error))?;
        // Until the child is waited for, its number is its own.
        let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
        let process = process.ok().map(Arc::new);
        let waiting = std::thread::Builder::new()
            .name("command".to_owned())
            .spawn(move || {
                let status = child.wait();
                ended();
                status
            })
            .map_err(Error::thread)?;
        Ok(Self { waiting, process })
    }

    /// What ends it early.
    #[must_use]
    pub fn ending(&self) -> Ending {
        Ending(self.process.clone())
    }

    /// Waits for its end, and returns its exit code, or 128 and the number of the signal that ended
    /// it.
    ///
    /// # Errors
    /// A failed system call.
    pub fn finish(self) -> Result<u8, Error> {
        let status = self
            .waiting
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a thread failed")))
            .map_err(|error| Error::io("wait for", Path::new("the command"), error))?;
        let code = status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Ok(u8::try_from(code).unwrap_or(u8::MAX))
    }
}

impl Ending {
    /// Sends SIGTERM to the command. Nothing happens if it has ended.
    pub fn terminate(&self) {
        if let Some(process) = &self.0 {
            let _ = pidfd_send_signal(process, Signal::TERM);
        }
    }
}

/// A new folder that only this user can enter, for the socket of a captive command. Dropping it
/// removes it, if it is empty.
#[derive(Debug)]
pub struct SocketFolder {
    around: Folder,
    name: OsString,
}

impl SocketFolder {
    /// Makes it in `base`.
    ///
    /// # Errors
    /// Failed system calls.
    pub fn make(base: &Path) -> Result<Self, Error> {
        let failed = |error| Error::io("make a folder in", base, error);
        let around = Folder::open(base).map_err(failed)?;
        let name = OsString::from(format!("luksmith-{}", Uuid::new_v4()));
        around.make_private(&name).map_err(failed)?;
        Ok(Self { around, name })
    }

    /// The path of a socket in it.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.around.path().join(&self.name).join("socket")
    }
}

impl Drop for SocketFolder {
    fn drop(&mut self) {
        // It stays if something else is in it.
        let _ = self.around.remove_folder(&self.name);
    }
}
