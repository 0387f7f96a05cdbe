//! A Ceph cluster of one node, on the loopback interface and in memory, which ends with the test.
//!
//! A monitor and an OSD run as children of a thread that lives as long as the process. `setpriv`
//! has the kernel kill them when that thread ends, however the process ends.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::peers;

/// What a cluster needs.
const PROGRAMS: [&str; 8] = [
    "ceph-mon",
    "ceph-osd",
    "ceph",
    "ceph-authtool",
    "monmaptool",
    "rbd",
    "rados",
    "setpriv",
];

/// The interpreter for which Debian installs Ceph's own binding.
const PYTHON: &str = "/usr/bin/python3";

/// The pool of the cluster.
pub const POOL: &str = "rbd";

/// A running cluster. `client.admin` may do everything in it, with a key.
#[derive(Debug)]
pub struct Ceph {
    folder: PathBuf,
    /// The port of the monitor.
    port: u16,
}

impl Ceph {
    /// The cluster of this process, which the first call starts below `parent`. `None` after saying
    /// that the test is skipped, if a program is missing.
    ///
    /// # Panics
    ///
    /// If it does not start, or if a program is missing and `CI=true`.
    pub fn running(parent: &Path) -> Option<&'static Self> {
        static RUNNING: OnceLock<Option<Ceph>> = OnceLock::new();
        let start = || {
            // Without short-circuit, so that every missing program is named.
            let missing = PROGRAMS.iter().filter(|name| peers::find(name).is_none());
            (missing.count() == 0).then(|| Self::start(parent))
        };
        let running = RUNNING.get_or_init(start).as_ref();
        if running.is_none() {
            peers::skip("ceph");
        }
        running
    }

    fn start(parent: &Path) -> Self {
        let (sender, receiver) = mpsc::channel();
        let parent = parent.to_owned();
        std::thread::spawn(move || {
            let (ceph, children) = Starting::new(&parent).start();
            sender.send(ceph).expect("the caller waits");
            // The kernel kills the children when this thread ends.
            loop {
                std::thread::park();
                assert_eq!(children.len(), 2);
            }
        });
        let started = receiver.recv();
        started.unwrap_or_else(|_| panic!("the cluster did not start"))
    }

    /// The configuration file of its clients.
    pub fn conf(&self) -> PathBuf {
        self.folder.join("ceph.conf")
    }

    /// Its monitor, `HOST:PORT`.
    pub fn monitor(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The key of `client.admin`, without base64.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    pub fn key(&self) -> Vec<u8> {
        let keyring = self.folder.join("keyring");
        let keyring = fs::read_to_string(keyring).expect("a keyring");
        let line = keyring
            .lines()
            .find_map(|line| line.trim().strip_prefix("key = "));
        let mut decode = Command::new("base64");
        let decode = decode
            .arg("-d")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut decode = decode.spawn().expect("base64 starts");
        let text = line.expect("a key").as_bytes();
        let mut input = decode.stdin.take().expect("a pipe");
        input.write_all(text).expect("it reads");
        drop(input);
        decode.wait_with_output().expect("it ends").stdout
    }

    /// The URI of an image: `IMAGE`, `NAMESPACE/IMAGE`, and `@SNAPSHOT` after it.
    pub fn uri(&self, image: &str) -> String {
        format!("rbd://{POOL}/{image}?conf={}", self.conf().display())
    }

    /// Runs `rbd` with these arguments, separated by spaces, and returns what it prints.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn rbd(&self, arguments: &str) -> String {
        let mut command = self.client("rbd");
        let output = peers::run(command.args(arguments.split_whitespace()));
        String::from_utf8(output).expect("text")
    }

    /// A client program of Ceph with the configuration of this cluster.
    ///
    /// # Panics
    ///
    /// If the program is missing.
    pub fn client(&self, program: &str) -> Command {
        let program = peers::find(program).expect("it was found before");
        let mut command = Command::new(program);
        command.arg("--conf").arg(self.conf());
        command
    }

    /// Runs the [program in Python](Self::python_command) with these arguments.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn python(&self, image: &str, program: &str, arguments: &[&str]) {
        peers::run(self.python_command(image, program).args(arguments));
    }

    /// A program in Python, with `image` opened for writing by librbd's own binding and the
    /// arguments as `sys.argv[1:]`.
    pub fn python_command(&self, image: &str, program: &str) -> Command {
        let conf = self.conf();
        let open = format!(
            "import rados, rbd, sys\n\
             cluster = rados.Rados(conffile='{}')\n\
             cluster.connect()\n\
             image = rbd.Image(cluster.open_ioctx('{POOL}'), '{image}')\n\
             {program}\n\
             image.close()\n\
             cluster.shutdown()\n",
            conf.display()
        );
        let mut command = Command::new(PYTHON);
        command.arg("-c").arg(open);
        command
    }
}

/// A cluster that is being started.
struct Starting {
    folder: PathBuf,
}

impl Starting {
    fn new(parent: &Path) -> Self {
        // What an earlier process has left. Its daemons ended with it.
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            let pid = name.strip_prefix("ceph-").map(|pid| format!("/proc/{pid}"));
            if pid.is_some_and(|pid| !Path::new(&pid).exists()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let folder = parent.join(format!("ceph-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        for name in ["mon", "osd", "log"] {
            fs::create_dir_all(folder.join(name)).expect("a folder for the cluster");
        }
        Self { folder }
    }

    fn start(self) -> (Ceph, Vec<Child>) {
        let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let ports = ports.map(|free| free.local_addr().expect("its address").port());
        let monitor = format!("[v2:127.0.0.1:{},v1:127.0.0.1:{}]", ports[0], ports[1]);
        let uuid = || fs::read_to_string("/proc/sys/kernel/random/uuid").expect("a uuid");
        let cluster = uuid();
        self.write_conf(cluster.trim(), &monitor);
        let [all, monitors, map] = ["keyring", "mon.keyring", "monmap"].map(|name| self.path(name));

        self.run(
            "ceph-authtool",
            &[
                "--create-keyring",
                &monitors,
                "--gen-key",
                "-n",
                "mon.",
                "--cap",
                "mon",
                "allow *",
            ],
        );
        self.run(
            "ceph-authtool",
            &[
                "--create-keyring",
                &all,
                "--gen-key",
                "-n",
                "client.admin",
                "--cap",
                "mon",
                "allow *",
                "--cap",
                "osd",
                "allow *",
            ],
        );
        self.run("ceph-authtool", &[&monitors, "--import-keyring", &all]);
        self.run(
            "monmaptool",
            &[
                "--create",
                "--fsid",
                cluster.trim(),
                "--addv",
                "a",
                &monitor,
                &map,
            ],
        );
        self.run(
            "ceph-mon",
            &[
                "--mkfs",
                "-i",
                "a",
                "--monmap",
                &map,
                "--keyring",
                &monitors,
            ],
        );
        let monitor = self.daemon("ceph-mon", "a");

        let osd = uuid();
        let secret = self.run("ceph-authtool", &["--gen-print-key"]);
        let secrets = self.path("secrets");
        fs::write(
            &secrets,
            format!("{{\"cephx_secret\":\"{}\"}}", secret.trim()),
        )
        .expect("a file");
        let id = self.run("ceph", &["osd", "new", osd.trim(), "-i", &secrets]);
        assert_eq!(id.trim(), "0");
        let key = [
            "--create-keyring",
            &self.path("osd/keyring"),
            "-n",
            "osd.0",
            "--add-key",
            secret.trim(),
        ];
        self.run("ceph-authtool", &key);
        self.run("ceph-osd", &["-i", "0", "--mkfs", "--osd-uuid", osd.trim()]);
        self.run(
            "ceph",
            &[
                "osd",
                "crush",
                "add",
                "osd.0",
                "1.0",
                "root=default",
                "host=here",
            ],
        );
        let storage = self.daemon("ceph-osd", "0");

        let until = Instant::now() + Duration::from_secs(60);
        while !self.run("ceph", &["osd", "stat"]).contains("1 up") {
            assert!(Instant::now() < until, "the osd does not start");
            std::thread::sleep(Duration::from_millis(100));
        }
        self.run("ceph", &["osd", "pool", "create", POOL, "8", "8"]);
        self.run(
            "ceph",
            &["osd", "pool", "application", "enable", POOL, "rbd"],
        );
        let folder = self.folder;
        let port = ports[0];
        (Ceph { folder, port }, vec![monitor, storage])
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn write_conf(&self, cluster: &str, monitor: &str) {
        let folder = self.folder.display();
        let libraries = [
            "/usr/lib/x86_64-linux-gnu",
            "/usr/lib/aarch64-linux-gnu",
            "/usr/lib",
        ];
        let mut classes = libraries
            .iter()
            .map(|library| format!("{library}/rados-classes"));
        let classes = classes.find(|folder| Path::new(folder).exists());
        let conf = format!(
            "[global]\n\
             fsid = {cluster}\n\
             mon host = {monitor}\n\
             mon initial members = a\n\
             public network = 127.0.0.0/8\n\
             cluster network = 127.0.0.0/8\n\
             auth allow insecure global id reclaim = false\n\
             keyring = {folder}/keyring\n\
             log file = {folder}/log/$name.log\n\
             admin socket =\n\
             run dir = {folder}\n\
             mon data = {folder}/mon\n\
             osd data = {folder}/osd\n\
             osd objectstore = memstore\n\
             memstore device bytes = 4294967296\n\
             osd pool default size = 1\n\
             osd pool default min size = 1\n\
             osd pool default pg autoscale mode = off\n\
             osd crush chooseleaf type = 0\n\
             osd crush update on start = false\n\
             mon allow pool size one = true\n\
             mon warn on pool no redundancy = false\n\
             mon osd min in ratio = 0\n\
             mon tick interval = 1\n\
             paxos propose interval = 0.1\n\
             setuser match path =\n\
             [osd]\n\
             keyring = {folder}/osd/keyring\n\
             osd class dir = {}\n",
            classes.unwrap_or_default()
        );
        fs::write(self.folder.join("ceph.conf"), conf).expect("a configuration");
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(peers::find(program).expect("it was found before"));
        // `ceph-authtool` and `monmaptool` read the configuration of the host otherwise.
        command.env("CEPH_CONF", self.folder.join("ceph.conf"));
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = peers::run(self.command(program).args(arguments));
        String::from_utf8(output).expect("text")
    }

    /// Starts a daemon, which the kernel kills when this thread ends.
    fn daemon(&self, program: &str, id: &str) -> Child {
        let mut command = self.command("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        command.arg(peers::find(program).expect("it was found before"));
        command.args(["-f", "-i", id]).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn();
        child.unwrap_or_else(|error| panic!("{program} does not start: {error}"))
    }
}
