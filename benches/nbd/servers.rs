//! The servers that are compared, and their images.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::bench::{median, program};

use super::client::{self, shake_hands};

/// The bytes of each image.
pub(super) const SIZE: u64 = 1 << 30;

/// The same gigabyte as plain data, as LUKS2, as LUKS1, and as LUKS1 in two qcow2 images.
pub(super) struct Files {
    folder: PathBuf,
}

impl Files {
    pub(super) fn new(folder: &Path) -> Self {
        let files = Self {
            folder: folder.to_owned(),
        };
        let mut key = std::fs::OpenOptions::new();
        let mut key = key
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(files.path("key"))
            .unwrap();
        key.write_all(b"correct horse battery staple").unwrap();
        let mut plain = std::fs::File::create(files.path("plain")).unwrap();
        let mut chunk = vec![0; 1 << 20];
        for _ in 0..SIZE >> 20 {
            luksmith::secret::random(&mut chunk).unwrap();
            plain.write_all(&chunk).unwrap();
        }
        for (name, kind) in [
            ("luks2", ["--type", "luks2"]),
            ("luks1", ["--type", "luks1"]),
            ("qcow2", QCOW2),
        ] {
            files.make(&["encrypt", &files.path("plain"), &files.path(name)], kind);
        }
        std::fs::copy(files.path("qcow2"), files.path("qemu-qcow2")).unwrap();
        files
    }

    /// Makes images without any data.
    pub(super) fn empty(&self) {
        for (name, kind) in [
            ("empty", QCOW2),
            ("qemu-empty", QCOW2),
            ("empty-luks1", ["--type", "luks1"]),
        ] {
            let _ = std::fs::remove_file(self.path(name));
            self.make(
                &["create", &self.path(name), "--size", &SIZE.to_string()],
                kind,
            );
        }
    }

    fn make(&self, arguments: &[&str], kind: [&str; 2]) {
        let made = Command::new(program(env!("CARGO_BIN_EXE_luksmith")))
            .args(arguments)
            .args(kind)
            .args(["--key-file", &self.path("key"), "--pbkdf", "pbkdf2"])
            .args(["--pbkdf-force-iterations", "1000"])
            .stdout(Stdio::null())
            .status();
        assert!(made.unwrap().success());
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

const QCOW2: [&str; 2] = ["--format", "qcow2"];

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Luksmith,
    NbdkitFile,
    QemuLuks,
    Qcow2,
    Luks1,
    QemuQcow2,
    Empty,
    EmptyLuks1,
    QemuEmpty,
}

/// A server, which runs until it is dropped.
pub(super) struct Server {
    child: Child,
    socket: String,
}

impl Server {
    pub(super) fn start(kind: Kind, files: &Files) -> Self {
        let ours = |name: &str, format: &str| {
            Self::run(files, name, |socket| {
                let mut command = luksmith(&files.path(name), &files.path("key"), socket);
                command.args(["--format", format]);
                command
            })
        };
        let qemu = |name: &str, driver: &str| {
            Self::run(files, name, |socket| {
                let mut command = Command::new("qemu-nbd");
                let secret = format!("secret,id=s,file={}", files.path("key"));
                let image = format!("driver={driver}=s,file.filename={}", files.path(name));
                command.args(["-t", "-e", "16", "--object", &secret]);
                command.args(["--image-opts", &image, "-k", socket]);
                command
            })
        };
        let in_qcow2 = "qcow2,encrypt.key-secret";
        match kind {
            Kind::Luksmith => ours("luks2", "raw"),
            Kind::NbdkitFile => Self::run(files, "nbdkit", |socket| {
                nbdkit(&files.path("plain"), socket)
            }),
            Kind::QemuLuks => qemu("luks1", "luks,key-secret"),
            Kind::Qcow2 => ours("qcow2", "qcow2"),
            Kind::Luks1 => ours("luks1", "raw"),
            Kind::QemuQcow2 => qemu("qemu-qcow2", in_qcow2),
            Kind::Empty => ours("empty", "qcow2"),
            Kind::EmptyLuks1 => ours("empty-luks1", "raw"),
            Kind::QemuEmpty => qemu("qemu-empty", in_qcow2),
        }
    }

    pub(super) fn run(files: &Files, name: &str, command: impl FnOnce(&str) -> Command) -> Self {
        let socket = files.path(&format!("{name}.sock"));
        let mut command = command(&socket);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let started = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            assert!(
                started.elapsed() < Duration::from_secs(30),
                "{command:?} does not listen"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { child, socket }
    }

    pub(super) fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket)
    }

    /// Runs fio on the server, on the first processor only.
    pub(super) fn load(&self, how: &str, block: &str, depth: &str, until: &[&str]) -> Cost {
        let mut fio = Command::new("taskset");
        fio.args(["-c", "0", "fio"]);
        self.run_fio(fio, how, block, depth, until)
    }

    /// Runs fio on the server, on any processor.
    pub(super) fn free_load(&self, how: &str, block: &str, depth: &str, until: &[&str]) -> Cost {
        self.run_fio(Command::new("fio"), how, block, depth, until)
    }

    fn run_fio(
        &self,
        mut fio: Command,
        how: &str,
        block: &str,
        depth: &str,
        until: &[&str],
    ) -> Cost {
        let before = self.cpu();
        let output = fio
            .args(["--name=load", "--ioengine=nbd", "--output-format=json"])
            .args([format!("--uri={}", self.uri()), format!("--size={SIZE}")])
            .args([
                format!("--rw={how}"),
                format!("--bs={block}"),
                format!("--iodepth={depth}"),
            ])
            .args(until)
            .args(["--randrepeat=1", "--norandommap", "--gtod_reduce=1"])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let cpu = self.cpu().saturating_sub(before);
        let text = String::from_utf8(output.stdout).unwrap();
        let json: serde_json::Value =
            serde_json::from_str(&text[text.find('{').unwrap()..]).unwrap();
        let side = if how.ends_with("read") {
            "read"
        } else {
            "write"
        };
        let done = &json["jobs"][0][side];
        let bytes = done["io_bytes"].as_f64().unwrap();
        let seconds = done["runtime"].as_f64().unwrap() / 1e3;
        Cost {
            rate: bytes / seconds,
            cpu: cpu.as_secs_f64() * 1e9 / bytes,
        }
    }

    /// Random reads or writes of 4 KiB on several connections, each with 4 requests in flight.
    pub(super) fn connections(&self, connections: usize, how: &str, time: Duration) -> Cost {
        let before = self.cpu();
        let writes = how == "randwrite";
        let (rate, bytes) = client::load(&self.socket, connections, 4, writes, SIZE, time);
        let cpu = self.cpu().saturating_sub(before);
        Cost {
            rate,
            cpu: cpu.as_secs_f64() * 1e9 / bytes,
        }
    }

    /// The median time from connecting to having the export.
    pub(super) fn connecting(&self) -> Duration {
        let times = (0..50).map(|_| {
            // Without a pause, the ends of earlier connections would be measured too.
            std::thread::sleep(Duration::from_millis(10));
            let started = Instant::now();
            shake_hands(&self.socket);
            started.elapsed().as_secs_f64()
        });
        Duration::from_secs_f64(median(times))
    }

    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_secs(1) * u32::try_from(ticks).unwrap()
            / u32::try_from(rustix::param::clock_ticks_per_second()).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn luksmith(image: &str, key: &str, socket: &str) -> Command {
    let mut command = Command::new(program(env!("CARGO_BIN_EXE_luksmith")));
    command.args([
        "serve",
        image,
        "--key-file",
        key,
        "--socket",
        socket,
        "--socket-mode",
        "600",
    ]);
    command
}

fn nbdkit(file: &str, socket: &str) -> Command {
    let mut command = Command::new("nbdkit");
    command.args(["-f", "-U", socket, "file", file]);
    command
}

/// A small image for measuring connections. On each connection nbdkit looks for the first hole of
/// its file. For a gigabyte on tmpfs that takes ten milliseconds, which would hide everything else.
pub(super) fn nbdkit_on_a_small_file(files: &Files) -> Server {
    std::fs::write(files.path("small"), [1; 4096]).unwrap();
    Server::run(files, "small", |socket| {
        nbdkit(&files.path("small"), socket)
    })
}

/// The work of a server during a measurement.
pub(super) struct Cost {
    /// Bytes per second.
    pub(super) rate: f64,
    /// CPU nanoseconds of the server per byte.
    pub(super) cpu: f64,
}
