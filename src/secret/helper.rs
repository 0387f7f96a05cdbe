//! Runs another program that prints a secret.
//!
//! The program is opened once, checked, and executed by its descriptor, so that what runs is what
//! was checked. It runs in a process group of its own, without a terminal, with stdin from
//! `/dev/null` and few environment variables, and no shell is involved. Its stdout goes directly
//! into locked memory. Each line of its stderr becomes a warning in the log, with escapes for
//! control characters. When it ends, is too slow or is interrupted, its whole process group is
//! killed.
//!
//! `argv` and the environment are visible to other processes: no secret may be passed in them.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use luksmith_formats::text::Shown;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::error::SecretError;
use super::helper_error::HelperError;
use super::input::Growing;
use super::locked::LockedBytes;
use crate::Interrupt;
use crate::sys::folder::{Folder, check_trusted};

/// The longest time that a program may take, unless the caller sets another one.
pub const HELPER_TIME: Duration = Duration::from_secs(60);

/// Where the program finds other programs.
const SEARCH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The interval at which a wait checks the interrupt.
const LOOK: Duration = Duration::from_millis(100);

/// The interval at which the end of a program is looked for that has closed its stdout.
const END: Duration = Duration::from_millis(5);

/// The most bytes of stderr that are shown.
const SHOWN: usize = 16 << 10;

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

    /// Runs the program, and returns all bytes that it prints, at most `limit`.
    ///
    /// # Errors
    /// [`SecretError::Helper`], [`SecretError::Nothing`] if it prints nothing,
    /// [`SecretError::TooLong`], [`SecretError::Interrupted`], and [`SecretError::Lock`].
    pub fn run(&self, limit: usize, interrupt: &Interrupt) -> Result<LockedBytes, SecretError> {
        let from = self.program.display().to_string();
        let failed = |source| SecretError::Helper {
            from: from.clone(),
            source,
        };
        let program = self.open().map_err(failed)?;
        let mut running = self.start(&program).map_err(failed)?;
        let read = running.read(limit, &from, interrupt)?;
        let status = running.end(interrupt).map_err(|error| match error {
            Ended::Interrupted => SecretError::Interrupted,
            Ended::Failed(error) => failed(error),
        })?;
        match (status.code(), status.signal()) {
            (Some(0), _) => {}
            (Some(code), _) => return Err(failed(HelperError::Failed(code))),
            (None, signal) => return Err(failed(HelperError::Killed(signal.unwrap_or(0)))),
        }
        if read.used == 0 {
            return Err(SecretError::Nothing { from });
        }
        read.finish()
    }

    /// Opens the program, if no other user can have written it or replaced it.
    fn open(&self) -> Result<File, HelperError> {
        if !self.program.is_absolute() {
            return Err(HelperError::Relative);
        }
        let open = || {
            let (folder, name) = Folder::resolve(&self.program)?;
            folder.check_trusted()?;
            let file = folder.open_file(&name, OFlags::RDONLY)?;
            let about = file.metadata()?;
            if !about.is_file() {
                return Err(refused(&self.program, "is not a regular file"));
            }
            if about.mode() & 0o111 == 0 {
                return Err(refused(&self.program, "is not executable"));
            }
            check_trusted(&self.program, &about)?;
            Ok(file)
        };
        open().map_err(HelperError::Refused)
    }

    fn start(&self, program: &File) -> Result<Running, HelperError> {
        // The interpreter of a script opens this descriptor by its number, after the execution.
        let inherited =
            rustix::io::dup(program).map_err(|error| HelperError::Start(error.into()))?;
        let mut command = Command::new(format!("/proc/self/fd/{}", inherited.as_raw_fd()));
        command
            .arg0(&self.program)
            .args(&self.arguments)
            .env_clear()
            .env("PATH", SEARCH)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(HelperError::Start)?;
        let lost = || HelperError::Start(io::ErrorKind::BrokenPipe.into());
        let stdout = child.stdout.take().map(OwnedFd::from);
        let stderr = child.stderr.take().map(OwnedFd::from);
        let mut running = Running {
            child,
            name: self.program.display().to_string(),
            stdout: None,
            errors: Errors::default(),
            time: self.time,
            until: Instant::now() + self.time,
            over: false,
        };
        let (stdout, stderr) = (stdout.ok_or_else(lost)?, stderr.ok_or_else(lost)?);
        // stderr never blocks the read of the secret.
        rustix::io::ioctl_fionbio(&stderr, true)
            .map_err(|error| HelperError::Read(error.into()))?;
        (running.stdout, running.errors.from) = (Some(stdout), Some(stderr));
        Ok(running)
    }
}

fn refused(path: &Path, why: &str) -> io::Error {
    let message = format!("{} {why}", path.display());
    io::Error::new(io::ErrorKind::PermissionDenied, message)
}

/// How the wait for a program went wrong.
enum Ended {
    Interrupted,
    Failed(HelperError),
}

/// A program that runs. Dropping it kills its process group.
struct Running {
    child: Child,
    name: String,
    stdout: Option<OwnedFd>,
    errors: Errors,
    time: Duration,
    until: Instant,
    /// Whether it was waited for: its number may belong to another process then.
    over: bool,
}

impl Running {
    /// Reads stdout up to its end or that of the program, and shows what arrives on stderr
    /// meanwhile.
    fn read(
        &mut self,
        limit: usize,
        from: &str,
        interrupt: &Interrupt,
    ) -> Result<Growing, SecretError> {
        let failed = |source| SecretError::Helper {
            from: from.to_owned(),
            source,
        };
        let mut read = Growing::new()?;
        let mut killed = false;
        loop {
            self.check(interrupt).map_err(|error| match error {
                Ended::Interrupted => SecretError::Interrupted,
                Ended::Failed(error) => failed(error),
            })?;
            let Some(stdout) = &self.stdout else {
                return Ok(read);
            };
            let ready = self.errors.wait(stdout.as_fd(), LOOK);
            self.errors.show(&self.name);
            if !ready.map_err(|error| failed(HelperError::Read(error.into())))? {
                // What the program printed before its end has been read. A process that it left
                // running can still hold its stdout.
                if killed {
                    return Ok(read);
                }
                if self.has_ended() {
                    self.kill_group();
                    killed = true;
                }
                continue;
            }
            match rustix::io::read(stdout, read.free(limit, from)?) {
                Ok(0) => self.stdout = None,
                Ok(n) => read.used += n,
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(failed(HelperError::Read(error.into()))),
            }
        }
    }

    /// Waits for the end of the program, and kills what it has left in its process group.
    fn end(&mut self, interrupt: &Interrupt) -> Result<ExitStatus, Ended> {
        while !self.has_ended() {
            self.check(interrupt)?;
            self.errors.show(&self.name);
            std::thread::sleep(END);
        }
        self.errors.show(&self.name);
        self.kill_group();
        self.over = true;
        self.child
            .wait()
            .map_err(|error| Ended::Failed(HelperError::Read(error)))
    }

    /// Whether the program has ended. Its number stays taken until it is waited for, so no other
    /// process group has it.
    fn has_ended(&self) -> bool {
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let process = WaitId::Pid(Pid::from_child(&self.child));
        !matches!(waitid(process, ended), Ok(None))
    }

    fn check(&self, interrupt: &Interrupt) -> Result<(), Ended> {
        if interrupt.is_set() {
            return Err(Ended::Interrupted);
        }
        if Instant::now() >= self.until {
            return Err(Ended::Failed(HelperError::Slow(self.time)));
        }
        Ok(())
    }

    fn kill_group(&self) {
        // Nothing may be left in it.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.over {
            self.kill_group();
            let _ = self.child.wait();
        }
    }
}

/// The stderr of a program.
#[derive(Default)]
struct Errors {
    from: Option<OwnedFd>,
    line: Vec<u8>,
    shown: usize,
}

impl Errors {
    /// Waits until `stdout` has something to read, or stderr has, or this time is over. Tells
    /// whether `stdout` has.
    fn wait(&self, stdout: BorrowedFd<'_>, time: Duration) -> rustix::io::Result<bool> {
        let fds = [Some(stdout), self.from.as_ref().map(AsFd::as_fd)];
        let mut fds: Vec<_> = fds
            .into_iter()
            .flatten()
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let time = Timespec::try_from(time).ok();
        rustix::io::retry_on_intr(|| poll(&mut fds, time.as_ref()))?;
        Ok(fds.first().is_some_and(|fd| !fd.revents().is_empty()))
    }

    /// Shows what has arrived, line by line. What is beyond the limit is read and dropped.
    fn show(&mut self, name: &str) {
        let mut bytes = [0; 1024];
        // A program that writes without end does not keep this from returning.
        for _ in 0..64 {
            let Some(from) = &self.from else { break };
            match rustix::io::read(from, &mut bytes) {
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Ok(n) if n > 0 => {
                    let room = SHOWN.saturating_sub(self.shown).min(n);
                    self.shown += room;
                    self.line.extend_from_slice(&bytes[..room]);
                }
                _ => self.from = None,
            }
        }
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<_> = self.line.drain(..=end).collect();
            warn(name, &line);
        }
        if self.from.is_none() {
            warn(name, &std::mem::take(&mut self.line));
        }
    }
}

fn warn(name: &str, line: &[u8]) {
    let line = String::from_utf8_lossy(line);
    let line = line.trim_end();
    if !line.is_empty() {
        tracing::warn!("{}: {}", Shown(name), Shown(line));
    }
}

#[cfg(test)]
mod tests;
