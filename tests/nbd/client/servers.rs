//! Starts other servers. They end with the test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use luksmith_formats::nbd::uri::Uri;
use rustix::process::{Pid, Signal, kill_process};

use support::peers;

/// A server on a Unix socket.
pub(super) struct Server {
    child: Child,
    socket: PathBuf,
}

impl Server {
    /// nbdkit with these arguments, if it is installed.
    pub(super) fn nbdkit(folder: &Path, args: &[&str]) -> Option<Self> {
        let mut command = Command::new(peers::find("nbdkit")?);
        command.args(["--foreground", "--exit-with-parent"]);
        let (socket, pid) = places(folder);
        command
            .arg("--unix")
            .arg(&socket)
            .arg("--pidfile")
            .arg(&pid);
        command.args(args);
        Some(Self::start(command, socket, &pid))
    }

    /// qemu-nbd with these arguments, if it is installed.
    pub(super) fn qemu_nbd(folder: &Path, args: &[&str]) -> Option<Self> {
        let mut command = Command::new(peers::find("qemu-nbd")?);
        command.args(["--persistent", "--shared=0"]);
        let (socket, pid) = places(folder);
        command.arg("--socket").arg(&socket);
        command.arg(format!("--pid-file={}", pid.display()));
        command.args(args);
        Some(Self::start(command, socket, &pid))
    }

    /// qemu-storage-daemon that exports a file as `disk`, if it is installed.
    pub(super) fn storage_daemon(folder: &Path, file: &Path) -> Option<Self> {
        let mut command = Command::new(peers::find("qemu-storage-daemon")?);
        let (socket, pid) = places(folder);
        let file = file.display();
        command.arg("--blockdev");
        command.arg(format!(
            "driver=file,node-name=disk,filename={file},discard=unmap"
        ));
        command.arg("--nbd-server");
        command.arg(format!("addr.type=unix,addr.path={}", socket.display()));
        command.args(["--export", "type=nbd,id=disk,node-name=disk,writable=on"]);
        command.arg("--pidfile").arg(&pid);
        Some(Self::start(command, socket, &pid))
    }

    fn start(mut command: Command, socket: PathBuf, pid: &Path) -> Self {
        let _ = std::fs::remove_file(&socket);
        let _ = std::fs::remove_file(pid);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        // Each of them creates it when it listens.
        while !std::fs::read(pid).is_ok_and(|pid| !pid.is_empty()) || !socket.exists() {
            assert!(Instant::now() < until, "{command:?} does not listen");
            if let Some(status) = child.try_wait().unwrap() {
                panic!("{command:?} ended with {status}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { child, socket }
    }

    /// The URI of an export of this name.
    pub(super) fn uri(&self, export: &str) -> Uri {
        Uri::parse(&self.uri_text(export)).unwrap()
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(super) fn uri_text(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.socket.display())
    }

    pub(super) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Sends SIGKILL.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether the server has ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

fn places(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join("socket"), folder.join("pid"))
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
