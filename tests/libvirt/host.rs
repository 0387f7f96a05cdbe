//! luksmith, run on the host of a test's libvirtd.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use luksmith_formats::json::Value;
use support::json_schema;

use crate::daemon::Daemon;

const PROGRAM: &str = env!("CARGO_BIN_EXE_luksmith");

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// stdout as text, without the newline at its end.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    pub(crate) fn json(&self) -> Value {
        let document =
            Value::parse(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        json_schema::check(&document);
        document
    }

    /// Checks that it ended with this code, and that each of these texts is on stderr.
    #[track_caller]
    pub(crate) fn is(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        for word in words {
            assert!(
                self.stderr.contains(word),
                "{word:?} is not in {}",
                self.stderr
            );
        }
    }
}

impl Daemon {
    /// The program with these arguments, separated by spaces, in the daemon's folder.
    pub(crate) fn command(&self, arguments: &str) -> Command {
        self.with_arguments(self.on_host(PROGRAM), arguments)
    }

    /// The same under strace, with these options of strace.
    pub(crate) fn traced(&self, strace: &Path, options: &[&OsStr], arguments: &str) -> Command {
        let mut command = self.on_host(strace);
        command.args(options).arg(PROGRAM);
        self.with_arguments(command, arguments)
    }

    fn with_arguments(&self, mut command: Command, arguments: &str) -> Command {
        command
            .args(arguments.split_whitespace())
            .env("LIBVIRT_DEFAULT_URI", self.uri())
            .env("XDG_STATE_HOME", self.folder().join("state"))
            .env_remove("LUKSMITH_LOG")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &str) -> Ran {
        Ran::of(self.command(arguments).output().expect("the program runs"))
    }

    /// The same, with these bytes on stdin.
    pub(crate) fn run_with(&self, arguments: &str, stdin: &[u8]) -> Ran {
        let mut command = self.command(arguments);
        let command = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program runs");
        // A program that fails before it reads closes its end.
        let _ = child.stdin.take().expect("a pipe").write_all(stdin);
        Ran::of(child.wait_with_output().expect("the program ends"))
    }

    /// Runs the program, which must succeed.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &str) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, Some(0), "luksmith {arguments}: {}", ran.stderr);
        ran
    }
}
