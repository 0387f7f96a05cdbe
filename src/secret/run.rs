//! Runs another program that gives or takes a secret.
//!
//! The caller has opened the program and checked it. It is executed by its descriptor, so that what
//! runs is what was checked. It runs in a session and a process group of its own, without a
//! terminal, in `/`, with only the environment variables that the caller states, and with no
//! descriptors but the standard ones and, for some exchanges, 3. No shell is involved. What it
//! writes goes directly into locked memory. Each line of its stderr becomes a warning in the log,
//! with escapes for control characters. When it ends, is too slow or is interrupted, its whole
//! process group is killed.
//!
//! `argv` and the environment are visible to other processes: no secret may be passed in them.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use luksmith_formats::text::Shown;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::error::SecretError;
use super::helper_error::HelperError;
use super::input::Growing;
use super::locked::LockedBytes;
use crate::Interrupt;
use crate::sys::child::Passed;

/// Where the program finds other programs.
pub(super) const SEARCH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The interval at which a wait checks the interrupt.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// The interval at which the end of a program is looked for that has closed its outputs.
const END: Duration = Duration::from_millis(5);

/// The most bytes of stderr that are shown.
const SHOWN: usize = 16 << 10;

/// A program that was opened and checked.
pub(super) struct Program<'a> {
    pub(super) file: &'a File,
    /// What it sees as its own name.
    pub(super) path: &'a Path,
    /// Its name in errors, and before each line of its stderr.
    pub(super) name: &'a str,
    pub(super) arguments: &'a [OsString],
    pub(super) variables: &'a [(OsString, OsString)],
    /// The longest time that it may take.
    pub(super) time: Duration,
}

/// What a program reads on stdin.
#[derive(Clone, Copy)]
pub(super) enum Input<'a> {
    /// Nothing: `/dev/null`.
    Nothing,
    /// A text that is not secret.
    Text(&'a [u8]),
    /// A secret.
    Secret(&'a [u8]),
}

/// What descriptor 3 of a program is.
#[derive(Clone, Copy)]
pub(super) enum Third<'a> {
    /// It is not open.
    Closed,
    /// The program writes a secret of at most this many bytes to it.
    From(usize),
    /// The program reads this secret from it.
    To(&'a [u8]),
}

/// What a program reads and writes.
#[derive(Clone, Copy)]
pub(super) struct Exchange<'a> {
    pub(super) stdin: Input<'a>,
    /// The most bytes that it may print. `None` is `/dev/null`.
    pub(super) stdout: Option<usize>,
    pub(super) third: Third<'a>,
}

/// How a program ended, and what it wrote.
pub(super) struct Ran {
    pub(super) code: i32,
    pub(super) stdout: LockedBytes,
    pub(super) third: LockedBytes,
}

impl Program<'_> {
    /// Runs the program to its end, whatever its exit code is.
    ///
    /// # Errors
    /// [`SecretError::Helper`], [`SecretError::TooLong`], [`SecretError::Interrupted`], and
    /// [`SecretError::Lock`].
    pub(super) fn run(
        &self,
        exchange: Exchange<'_>,
        interrupt: &Interrupt,
    ) -> Result<Ran, SecretError> {
        let mut running = self.start(exchange)?;
        running.exchange(interrupt)?;
        let status = running.end(interrupt)?;
        let code = match (status.code(), status.signal()) {
            (Some(code), _) => code,
            (None, signal) => return Err(self.failed(HelperError::Killed(signal.unwrap_or(0)))),
        };
        let [stdout, third] = &mut running.outputs;
        let written = |output: &mut Output| std::mem::take(&mut output.read).finish();
        let (stdout, third) = (written(stdout)?, written(third)?);
        Ok(Ran {
            code,
            stdout,
            third,
        })
    }

    fn failed(&self, source: HelperError) -> SecretError {
        SecretError::Helper {
            from: self.name.to_owned(),
            source,
        }
    }

    fn start<'a>(&'a self, exchange: Exchange<'a>) -> Result<Running<'a>, SecretError> {
        self.spawn(exchange)
            .map_err(|error| self.failed(HelperError::Start(error)))
    }

    fn spawn<'a>(&'a self, exchange: Exchange<'a>) -> io::Result<Running<'a>> {
        let mut feed = Feed::default();
        let mut third = Output::default();
        let mut pipe_of_third = None;
        match exchange.third {
            Third::Closed => {}
            Third::From(limit) => {
                let (reader, writer) = io::pipe()?;
                third = Output::new(reader.into(), limit)?;
                pipe_of_third = Some(OwnedFd::from(writer));
            }
            Third::To(secret) => {
                let (reader, writer) = io::pipe()?;
                pipe_of_third = Some(reader.try_clone()?.into());
                feed = Feed::new(writer, secret, reader.into())?;
            }
        }
        let stdin = match exchange.stdin {
            Input::Nothing => Stdio::null(),
            Input::Text(text) => file_in_memory(text)?.into(),
            Input::Secret(secret) => {
                let (reader, writer) = io::pipe()?;
                let stdin = reader.try_clone()?;
                feed = Feed::new(writer, secret, reader.into())?;
                stdin.into()
            }
        };
        let passed = Passed::new(self.file, pipe_of_third.as_ref().map(AsFd::as_fd))?;
        let mut command = Command::new(passed.path());
        command
            .arg0(self.path)
            .args(self.arguments)
            .env_clear()
            .env("PATH", SEARCH)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(stdin)
            .stdout(match exchange.stdout {
                Some(_) => Stdio::piped(),
                None => Stdio::null(),
            })
            .stderr(Stdio::piped());
        passed.prepare(&mut command);
        let mut child = command.spawn()?;
        // Their ends in this process would keep the reader of the other end waiting.
        drop((command, passed, pipe_of_third));
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut running = Running {
            child,
            program: self,
            outputs: [Output::default(), third],
            feed,
            errors: Errors::default(),
            until: Instant::now() + self.time,
            over: false,
        };
        if let (Some(stdout), Some(limit)) = (stdout, exchange.stdout) {
            running.outputs[0] = Output::new(stdout.into(), limit)?;
        }
        if let Some(stderr) = stderr {
            ioctl_fionbio(&stderr, true)?;
            running.errors.from = Some(stderr.into());
        }
        Ok(running)
    }
}

/// A file without a name, at its beginning.
fn file_in_memory(text: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("request", MemfdFlags::CLOEXEC)?);
    file.write_all(text)?;
    io::Seek::rewind(&mut file)?;
    Ok(file)
}

/// What a program writes to stdout or to descriptor 3.
#[derive(Default)]
struct Output {
    from: Option<File>,
    read: Growing,
    limit: usize,
}

impl Output {
    fn new(from: OwnedFd, limit: usize) -> io::Result<Self> {
        ioctl_fionbio(&from, true)?;
        Ok(Self {
            from: Some(from.into()),
            read: Growing::default(),
            limit,
        })
    }

    /// Reads what is there. Returns whether there was something, or the end.
    fn take(&mut self, program: &Program<'_>) -> Result<bool, SecretError> {
        let Some(from) = &mut self.from else {
            return Ok(false);
        };
        let free = self.read.free(self.limit, program.name)?;
        match from.read(free) {
            Ok(0) => self.from = None,
            Ok(n) => self.read.used += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(program.failed(HelperError::Read(error))),
        }
        Ok(true)
    }
}

/// A secret that the program reads.
#[derive(Default)]
struct Feed<'a> {
    to: Option<PipeWriter>,
    rest: &'a [u8],
    /// Keeps the pipe open for reading, so that a program which reads only a part of the secret
    /// causes no `SIGPIPE`.
    _reader: Option<OwnedFd>,
}

impl<'a> Feed<'a> {
    fn new(to: PipeWriter, rest: &'a [u8], reader: OwnedFd) -> io::Result<Self> {
        ioctl_fionbio(&to, true)?;
        Ok(Self {
            to: Some(to),
            rest,
            _reader: Some(reader),
        })
    }

    /// Writes as much as the pipe takes. Returns whether it took something, or has all.
    fn give(&mut self, program: &Program<'_>) -> Result<bool, SecretError> {
        let Some(to) = &mut self.to else {
            return Ok(false);
        };
        match to.write(self.rest) {
            Ok(n) => self.rest = self.rest.get(n..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(program.failed(HelperError::Write(error))),
        }
        if self.rest.is_empty() {
            self.to = None;
        }
        Ok(true)
    }
}

/// A program that runs. Dropping it kills its process group.
struct Running<'a> {
    child: Child,
    program: &'a Program<'a>,
    /// stdout and descriptor 3.
    outputs: [Output; 2],
    feed: Feed<'a>,
    errors: Errors,
    until: Instant,
    /// Whether it was waited for: its number may belong to another process then.
    over: bool,
}

impl Running<'_> {
    /// Reads and writes up to the end of all pipes or that of the program, and shows what arrives
    /// on stderr meanwhile.
    fn exchange(&mut self, interrupt: &Interrupt) -> Result<(), SecretError> {
        let mut killed = false;
        loop {
            self.check(interrupt)?;
            let mut moved = self.feed.give(self.program)?;
            for output in &mut self.outputs {
                moved |= output.take(self.program)?;
            }
            self.errors.show(self.program.name);
            let open = self.outputs.iter().any(|output| output.from.is_some());
            if !open && self.feed.to.is_none() {
                return Ok(());
            }
            if moved {
                continue;
            }
            // What the program wrote before its end has been read. A process that it left running
            // can still hold its pipes.
            if killed {
                return Ok(());
            }
            if self.has_ended() {
                self.kill_group();
                killed = true;
                continue;
            }
            self.wait()
                .map_err(|error| self.program.failed(HelperError::Read(error.into())))?;
        }
    }

    /// Waits until a pipe is ready, for a while.
    fn wait(&self) -> rustix::io::Result<()> {
        let outputs = self.outputs.iter().flat_map(|output| &output.from);
        let outputs = outputs.map(AsFd::as_fd);
        let outputs = outputs.chain(self.errors.from.as_ref().map(AsFd::as_fd));
        let mut fds: Vec<_> = outputs
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let feed = self.feed.to.as_ref();
        fds.extend(feed.map(|to| PollFd::new(to, PollFlags::OUT)));
        rustix::io::retry_on_intr(|| poll(&mut fds, Some(&LOOK)))?;
        Ok(())
    }

    /// Waits for the end of the program, and kills what it has left in its process group.
    fn end(&mut self, interrupt: &Interrupt) -> Result<ExitStatus, SecretError> {
        while !self.has_ended() {
            self.check(interrupt)?;
            self.errors.show(self.program.name);
            std::thread::sleep(END);
        }
        self.errors.show(self.program.name);
        self.kill_group();
        self.over = true;
        let status = self.child.wait();
        status.map_err(|error| self.program.failed(HelperError::Read(error)))
    }

    /// Whether the program has ended. Its number stays taken until it is waited for, so no other
    /// process group has it.
    fn has_ended(&self) -> bool {
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let process = WaitId::Pid(Pid::from_child(&self.child));
        !matches!(waitid(process, ended), Ok(None))
    }

    fn check(&self, interrupt: &Interrupt) -> Result<(), SecretError> {
        if interrupt.is_set() {
            return Err(SecretError::Interrupted);
        }
        if Instant::now() >= self.until {
            return Err(self.program.failed(HelperError::Slow(self.program.time)));
        }
        Ok(())
    }

    fn kill_group(&self) {
        // Nothing may be left in it.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
    }
}

impl Drop for Running<'_> {
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
