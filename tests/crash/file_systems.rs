//! Plaintext that is encrypted in place in a file of many extents on a real file system, which
//! stops while it moves them: the file system is shut down, or the machine that has it is killed.
//!
//! A shutdown leaves what the log of the file system has. A killed machine leaves what its kernel
//! had written to the disk, in that order.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate};
use support::initramfs::{Archive, Kernel};
use support::peers;

use crate::killed::{CHEAP, said};

/// A time limit for emulation in software on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// A folder with disks of a kind of file system, each of which has the file `disk.img`. Only root
/// can mount them.
struct Disks {
    folder: tempfile::TempDir,
    kind: &'static str,
    mount: PathBuf,
    umount: PathBuf,
    plain: Vec<u8>,
}

/// What was found after a cut.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Plaintext,
    /// The move is not complete, and its record is there.
    Moved,
    Encryption,
}

impl Disks {
    /// Makes the disk `base`. `None` if a program is missing, or nothing can be mounted.
    fn new(kind: &'static str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let disks = Self {
            kind,
            mount: peers::find("mount")?,
            umount: peers::find("umount")?,
            plain: Vec::new(),
            folder,
        };
        let quiet = if kind == "xfs" { "-fq" } else { "-Fq" };
        let mkfs = peers::find(&format!("mkfs.{kind}"))?;
        std::fs::create_dir(disks.path("at")).unwrap();
        std::fs::write(disks.path("key"), "secret").unwrap();
        let file = std::fs::File::create(disks.path("base")).unwrap();
        file.set_len(384 << 20).unwrap();
        peers::run(Command::new(mkfs).arg(quiet).arg(disks.path("base")));
        let mounted = disks.mounting("base").output().unwrap();
        if !mounted.status.success() {
            peers::skip("a loop device that can be mounted");
            return None;
        }
        let plain = fragmented(Path::new(&disks.image()));
        disks.unmount();
        Some(Self { plain, ..disks })
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    /// The file with the plaintext, on the disk that is mounted.
    fn image(&self) -> String {
        self.path("at/disk.img")
    }

    fn copy(&self, from: &str, to: &str) {
        std::fs::copy(self.path(from), self.path(to)).unwrap();
    }

    fn mounting(&self, disk: &str) -> Command {
        let mut mount = Command::new(&self.mount);
        mount
            .args(["-o", "loop"])
            .args([self.path(disk), self.path("at")]);
        mount
    }

    fn mount(&self, disk: &str) {
        peers::run(&mut self.mounting(disk));
    }

    fn unmount(&self) {
        peers::run(Command::new(&self.umount).arg(self.path("at")));
    }

    fn luksmith(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_luksmith"));
        command.args(args).args(["--key-file", &self.path("key")]);
        command
    }

    fn encrypt(&self) -> Command {
        let mut command = self.luksmith(&["reencrypt", "--encrypt", &self.image(), "--init-only"]);
        command.args(CHEAP);
        command
    }

    /// Checks what a cut has left on a disk, and that the same command then begins the encryption.
    fn judge(&self, disk: &str, case: &str) -> Found {
        self.mount(disk);
        let read = || peers::output(&mut self.luksmith(&["decrypt", &self.image(), "-"]));
        let record = format!("{}.luksmith-undo", self.image());
        let found = if std::fs::read(self.image()).unwrap() == self.plain {
            Found::Plaintext
        } else if read().stdout == self.plain {
            Found::Encryption
        } else {
            assert!(Path::new(&record).exists(), "{case}: lost data");
            Found::Moved
        };
        let again = peers::output(&mut self.encrypt());
        assert!(again.status.success(), "{case}: {}", said(&again));
        let after = read();
        assert!(after.stdout == self.plain, "{case}: {}", said(&after));
        self.unmount();
        found
    }
}

#[test]
fn a_file_system_that_is_shut_down() {
    let Some(xfs_io) = peers::find("xfs_io") else {
        return;
    };
    for kind in ["ext4", "xfs"] {
        let Some(disks) = Disks::new(kind) else {
            return;
        };
        for delay in [0, 300, 1000, 4000, 12000] {
            disks.copy("base", "disk");
            disks.mount("disk");
            let mut child = disks.encrypt().spawn().unwrap();
            let size = disks.plain.len() as u64;
            let moves = || std::fs::metadata(disks.image()).unwrap().len() != size;
            while !moves() && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_micros(20));
            }
            std::thread::sleep(Duration::from_micros(delay));
            // With -f, what the log has is durable, as if the cache of a disk had been written.
            let mut shutdown = Command::new(&xfs_io);
            peers::run(
                shutdown
                    .args(["-x", "-c", "shutdown -f"])
                    .arg(disks.path("at")),
            );
            child.wait().unwrap();
            disks.unmount();
            // A copy, since another mount namespace may still have the one that is shut down.
            disks.copy("disk", "after");
            disks.judge("after", &format!("{kind}, {delay}"));
        }
    }
}

/// Mounts the disk, and encrypts its file. Says when the move has begun, and writes what is done to
/// the disk again and again.
const SCRIPT: &str = r#"
mount -t KIND /dev/vda /mnt || poweroff -f
(while [ "$(stat -c %s /mnt/disk.img)" = SIZE ]; do :; done; echo "the file moves") &
(while :; do sync; done) &
luksmith reencrypt --encrypt /mnt/disk.img --key-file /key --init-only CHEAP
echo "the program has ended"
sleep 1000
"#;

/// A machine in which the program encrypts the file in place on a disk.
struct Machine {
    qemu: PathBuf,
    kernel: Kernel,
}

impl Machine {
    fn find() -> Option<Self> {
        let qemu = peers::find("qemu-system-x86_64")?;
        let Some(kernel) = Kernel::unpacked() else {
            peers::skip("the kernel package in target/peers/kernel");
            return None;
        };
        Some(Self { qemu, kernel })
    }

    /// Makes the initial file system of the machine, `initrd`.
    fn prepare(&self, disks: &Disks) -> Option<()> {
        let busybox = peers::find("busybox")?;
        let mut archive = Archive::default();
        for folder in ["bin", "dev", "proc", "sys", "mnt", "tmp"] {
            archive.folder(folder);
        }
        archive.file("bin/busybox", 0o755, &std::fs::read(busybox).unwrap());
        let luksmith = Path::new(env!("CARGO_BIN_EXE_luksmith"));
        archive.program("bin/luksmith", luksmith).unwrap();
        let script = SCRIPT
            .replace("KIND", disks.kind)
            .replace("SIZE", &disks.plain.len().to_string())
            .replace("CHEAP", &CHEAP.join(" "));
        archive.init(&script);
        archive.file("key", 0o600, b"secret");
        let modules = ["virtio_pci", "virtio_blk", "crc32c_generic", disks.kind];
        self.kernel.add_modules(&modules, &mut archive).unwrap();
        std::fs::write(disks.path("initrd"), archive.finish()).unwrap();
        Some(())
    }

    fn start(&self, disks: &Disks) -> Child {
        let mut qemu = Command::new(&self.qemu);
        qemu.args(["-accel", "tcg", "-m", "768", "-nodefaults", "-display"]);
        qemu.args(["none", "-no-reboot", "-kernel"])
            .arg(&self.kernel.image);
        qemu.args(["-initrd", &disks.path("initrd"), "-append"]);
        qemu.arg("console=ttyS0 quiet panic=-1 no_timer_check");
        qemu.args(["-serial", &format!("file:{}", disks.path("console"))]);
        let disk = disks.path("disk");
        let drive = format!("if=none,id=disk,format=raw,cache=writeback,file={disk}");
        qemu.args(["-drive", &drive, "-device", "virtio-blk-pci,drive=disk"]);
        qemu.stdin(Stdio::null()).spawn().unwrap()
    }
}

/// A long test: each boot takes seconds.
#[test]
#[allow(clippy::print_stdout, reason = "the result of a long run is recorded")]
fn killed_with_its_machine_while_a_file_moves() {
    if !support::is_long() {
        return;
    }
    let Some(machine) = Machine::find() else {
        return;
    };
    for kind in ["ext4", "xfs"] {
        let Some(disks) = Disks::new(kind) else {
            return;
        };
        let Some(()) = machine.prepare(&disks) else {
            return;
        };
        let mut found = Vec::new();
        for delay in (0..20).map(|number| number * 40) {
            disks.copy("base", "disk");
            let mut qemu = machine.start(&disks);
            let console = || {
                let console = std::fs::read(disks.path("console")).unwrap_or_default();
                String::from_utf8_lossy(&console).into_owned()
            };
            let begun = Instant::now();
            while !console().contains("the file moves") {
                let ended = qemu.try_wait().unwrap().is_some() || begun.elapsed() > PATIENCE;
                assert!(!ended, "{kind}: {}", console());
                std::thread::sleep(Duration::from_millis(2));
            }
            std::thread::sleep(Duration::from_millis(delay));
            qemu.kill().unwrap();
            qemu.wait().unwrap();
            found.push(disks.judge("disk", &format!("{kind}, {delay} ms")));
            std::fs::remove_file(disks.path("console")).unwrap();
        }
        let count = |what| found.iter().filter(|one| **one == what).count();
        println!(
            "{kind}: killed {} times: plaintext {}, moved in part {}, header complete {}",
            found.len(),
            count(Found::Plaintext),
            count(Found::Moved),
            count(Found::Encryption),
        );
    }
}

/// Makes a file in which each block is an extent, and returns its content.
fn fragmented(path: &Path) -> Vec<u8> {
    const BLOCK: usize = 4096;
    let mut content: Vec<u8> = (0..24 << 20)
        .map(|at: usize| (at / 777).to_le_bytes()[0] | 1)
        .collect();
    std::fs::write(path, &content).unwrap();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.sync_all().unwrap();
    // Blocks that are allocated, but not written, are extents of their own.
    for (number, block) in content.chunks_mut(BLOCK).enumerate().step_by(2) {
        let at = (number * BLOCK) as u64;
        fallocate(&file, FallocateFlags::ZERO_RANGE, at, BLOCK as u64).unwrap();
        block.fill(0);
    }
    file.sync_all().unwrap();
    content
}
