//! Runs luksmith as a user would, and a server of it.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::peers;

/// Runs a program that has to succeed, and returns what it says on both of its outputs.
///
/// # Panics
///
/// If it fails, or its output is no UTF-8.
#[track_caller]
pub fn succeeds(command: &mut Command) -> String {
    let output = peers::output(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).expect("UTF-8") + &said
}

/// Runs a program that has to fail, and returns its exit code and what it says on standard error.
/// The exit code is -1 if a signal ended it.
///
/// # Panics
///
/// If it succeeds.
#[track_caller]
pub fn refused(command: &mut Command) -> (i32, String) {
    let output = peers::output(command);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{command:?} succeeded: {said}");
    (output.status.code().unwrap_or(-1), said)
}

/// A `luksmith serve`, killed at the end.
#[derive(Debug)]
pub struct Serving {
    server: Child,
    /// The URI for its clients.
    pub uri: String,
}

impl Serving {
    /// Starts a server, and waits until it accepts clients at its Unix socket.
    ///
    /// # Panics
    ///
    /// If it ends before.
    pub fn start(command: &mut Command, socket: &Path) -> Self {
        let server = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut server = server.expect("the program starts");
        // The socket may be there already: a server that was killed has left it.
        while UnixStream::connect(socket).is_err() {
            let ended = server.try_wait().expect("the process is ours");
            assert!(ended.is_none(), "{command:?} does not serve");
            std::thread::sleep(Duration::from_millis(20));
        }
        let uri = format!("nbd+unix:///?socket={}", socket.display());
        Self { server, uri }
    }

    /// Sends it a signal.
    ///
    /// # Panics
    ///
    /// If it is gone.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.server), signal).expect("the process is there");
    }

    /// Stops it in order.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.server.wait().expect("the process is ours");
        assert!(status.success(), "{status}");
    }

    /// Runs a program of nbdsh as a client, and returns whether it succeeded.
    ///
    /// # Panics
    ///
    /// If nbdsh is missing.
    pub fn client(&self, program: &str) -> bool {
        let mut nbdsh = Command::new(peers::find("nbdsh").expect("it was found before"));
        // Its binding is for the python3 of the system.
        nbdsh.env("PATH", "/usr/bin:/bin");
        let output = peers::output(nbdsh.args(["-u", &self.uri, "-c", program]));
        output.status.success()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
