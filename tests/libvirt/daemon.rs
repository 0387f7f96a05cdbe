//! A libvirtd for one test. It does not see the machine's libvirt and leaves nothing behind.
//!
//! For root it is `qemu:///system` in a mount namespace of its own, in which libvirt's folders and
//! `/run` are folders of the test. For other users it is `qemu:///session`, with its folders in
//! the test's folder. In both cases its socket is below the test's folder, and it uses the
//! machine's network.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use luksmith::libvirt::{ConnectOptions, Connection};
use tempfile::TempDir;

use support::peers;

use crate::watchdog::Watchdog;

/// A libvirtd, which ends when this is dropped.
pub(crate) struct Daemon {
    process: Child,
    folder: TempDir,
    uri: String,
    _watchdog: Option<Watchdog>,
}

/// Without confinement and machine-wide services, because the configuration of the host is not
/// tested.
const QEMU_CONF: &str = r#"
security_driver = "none"
dynamic_ownership = 0
remember_owner = 0
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
"#;

/// Mounts the test's folders over libvirt's. `$0` is the test's folder.
const NAMESPACE: &str = r#"set -e
for place in /etc/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt /run; do
    mount --bind "$0$place" "$place"
done
exec setpriv --pdeathsig KILL "$@" --config "$0/libvirtd.conf" --pid-file "$0/libvirtd.pid""#;

/// libvirt's cache of the capabilities of emulators. Probing them takes seconds, and libvirt
/// notices when the cache is out of date, so the daemons share it. They share nothing else.
fn known_emulators() -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("libvirt-cache-{user}"));
    fs::create_dir_all(folder.join("libvirt")).expect("a folder");
    folder
}

impl Daemon {
    /// Starts one, or reports that the test is skipped.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with("")
    }

    /// The same, with more lines in `libvirtd.conf`. It listens if they say so.
    pub(crate) fn start_with(settings: &str) -> Option<Self> {
        let libvirtd = peers::find("libvirtd")?;
        let folder = TempDir::with_prefix("libvirt-").expect("a folder");
        let root = folder.path();
        let conf = format!(
            "unix_sock_dir = \"{}/sock\"\nauth_unix_ro = \"none\"\nauth_unix_rw = \"none\"\n{settings}",
            root.display()
        );
        let privileged = rustix::process::geteuid().is_root();
        let known = known_emulators();
        let (mut command, socket, driver) = if privileged {
            for place in [
                "etc/libvirt",
                "var/lib/libvirt",
                "var/cache",
                "var/log/libvirt",
                "run/libvirt",
                "sock",
            ] {
                fs::create_dir_all(root.join(place)).expect("a folder");
            }
            symlink(known.join("libvirt"), root.join("var/cache/libvirt")).expect("a link");
            let root_only = "user = \"root\"\ngroup = \"root\"\n";
            fs::write(
                root.join("etc/libvirt/qemu.conf"),
                format!("{QEMU_CONF}{root_only}"),
            )
            .expect("qemu.conf");
            let mut command = Command::new(peers::find("unshare")?);
            command
                .args(["--mount", "--propagation", "private", "sh", "-c", NAMESPACE])
                .arg(root)
                .arg(libvirtd);
            if settings.contains("listen_") {
                command.arg("--listen");
            }
            (command, root.join("sock/libvirt-sock"), "system")
        } else {
            for place in ["config/libvirt", "run", "data"] {
                fs::create_dir_all(root.join(place)).expect("a folder");
            }
            fs::write(root.join("config/libvirt/qemu.conf"), QEMU_CONF).expect("qemu.conf");
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL"]).arg(libvirtd);
            for (variable, place) in [
                ("CONFIG_HOME", "config"),
                ("RUNTIME_DIR", "run"),
                ("DATA_HOME", "data"),
            ] {
                command.env(format!("XDG_{variable}"), root.join(place));
            }
            command.env("XDG_CACHE_HOME", known);
            (command, root.join("run/libvirt/libvirt-sock"), "session")
        };
        fs::write(root.join("libvirtd.conf"), conf).expect("libvirtd.conf");
        let log = fs::File::create(root.join("log")).expect("a log");
        let process = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("libvirtd starts");
        let uri = format!("qemu:///{driver}?socket={}", socket.display());
        let watchdog = Watchdog::watch(process.id(), root.join("log"));
        let mut daemon = Self {
            process,
            folder,
            uri,
            _watchdog: watchdog,
        };
        daemon.wait_for(&socket);
        Some(daemon)
    }

    fn wait_for(&mut self, socket: &Path) {
        for _ in 0..600 {
            if socket.exists() {
                return;
            }
            let ended = self.process.try_wait().expect("the process is ours");
            assert!(ended.is_none(), "libvirtd ended: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("libvirtd has no socket: {}", self.log());
    }

    /// Its log, for the message of a failure.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Its URI, which names its socket.
    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// A folder of the test that the daemon also sees.
    pub(crate) fn folder(&self) -> PathBuf {
        let folder = self.folder.path().join("files");
        fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    /// A program that runs in the folder and sees the files of this libvirt.
    pub(crate) fn on_host(&self, program: impl AsRef<OsStr>) -> Command {
        let mut folder = OsString::from("--chdir=");
        folder.push(self.folder());
        let mut command = Command::new("env");
        if rustix::process::geteuid().is_root() {
            command = Command::new("nsenter");
            command
                .arg(format!("--mount=/proc/{}/ns/mnt", self.process.id()))
                .arg("env");
        }
        command.arg(folder).arg(program);
        command
    }

    /// A connection to it.
    pub(crate) fn connect(&self) -> Connection {
        let options = ConnectOptions::new().uri(self.uri.clone());
        Connection::open(&options).unwrap_or_else(|error| panic!("{error}: {}", self.log()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // QEMU goes on running when its libvirtd ends.
        let options = ConnectOptions::new().uri(self.uri.clone());
        if let Ok(connection) = Connection::open(&options) {
            for domain in connection.domains().unwrap_or_default() {
                let _ = domain.destroy();
            }
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
