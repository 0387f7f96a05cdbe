//! dm-crypt as the judge: a Linux kernel in a virtual machine opens images with cryptsetup, and
//! reads or writes their whole payload. It needs neither root nor the device-mapper of the host's
//! kernel.
//!
//! A boot takes seconds, a job a fraction of one, so give one [`DmCrypt::run`] all jobs.

use crate::{initramfs, payload};
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::initramfs::{Archive, Kernel};
use support::peers;

/// SCSI has 256 targets. More disks than this take another boot.
const DISKS_A_BOOT: usize = 200;

/// A boot that takes longer than this, with its jobs, hangs. Software emulation on a busy machine
/// is slow.
const BOOT_LIMIT: Duration = Duration::from_secs(900);

/// One volume to open. Images have whole sectors of 512 bytes.
pub(crate) struct Job {
    image: PathBuf,
    key: Vec<u8>,
    header: Option<PathBuf>,
    payload: Option<PathBuf>,
    make: Option<String>,
    plain: Option<String>,
    mapped: bool,
    left_open: bool,
}

impl Job {
    /// Reads the whole payload of `image`, which is not written to.
    pub(crate) fn read(image: &Path, key: &[u8]) -> Self {
        Self {
            image: image.to_owned(),
            key: key.to_owned(),
            header: None,
            payload: None,
            make: None,
            plain: None,
            mapped: false,
            left_open: false,
        }
    }

    /// As [`Job::read`], but `luksmith dm-table` makes the mapped device. The virtual machine has
    /// the program that is tested.
    pub(crate) fn map(image: &Path, key: &[u8]) -> Self {
        Self {
            mapped: true,
            ..Self::read(image, key)
        }
    }

    /// Writes the file `payload` over the beginning of the payload of `image`, then reads all of
    /// it.
    pub(crate) fn write(image: &Path, key: &[u8], payload: &Path) -> Self {
        Self {
            payload: Some(payload.to_owned()),
            ..Self::read(image, key)
        }
    }

    /// Makes the volume first, with these options of luksFormat. Unlike cryptsetup on the host, the
    /// one in the virtual machine has every cipher for its keyslots.
    pub(crate) fn made_with(mut self, options: &[String]) -> Self {
        self.make = Some(options.join(" "));
        self
    }

    /// The volume is not closed: the machine is turned off while it is open.
    pub(crate) fn left_open(self) -> Self {
        Self {
            left_open: true,
            ..self
        }
    }

    /// Reads no header: the key is dm-crypt's own, and these options of a plain device say the
    /// rest.
    pub(crate) fn plain(mut self, options: &[String]) -> Self {
        self.plain = Some(options.join(" "));
        self
    }

    /// The header is in a separate file.
    pub(crate) fn with_header(mut self, header: &Path) -> Self {
        self.header = Some(header.to_owned());
        self
    }

    fn disks(&self) -> usize {
        1 + usize::from(self.header.is_some()) + usize::from(self.payload.is_some())
    }
}

/// The outcome of a [`Job`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The volume was opened: the size of its payload in bytes, and the SHA-256 of the payload.
    Opened { size: u64, sha256: String },
    /// It was not opened, or not written: the message of cryptsetup or dd.
    Refused(String),
}

impl Outcome {
    /// The outcome of reading exactly `payload`.
    pub(crate) fn of(payload: &[u8]) -> Self {
        Self::Opened {
            size: payload.len() as u64,
            sha256: payload::sha256(payload),
        }
    }
}

pub(crate) struct DmCrypt {
    qemu: PathBuf,
    kernel: PathBuf,
    base: Vec<u8>,
}

impl DmCrypt {
    pub(crate) fn find() -> Option<Self> {
        let qemu = peers::find("qemu-system-x86_64")?;
        let busybox = peers::find("busybox")?;
        let cryptsetup = peers::find("cryptsetup")?;
        let Some(kernel) = Kernel::unpacked() else {
            peers::skip("the kernel package in target/peers/kernel");
            return None;
        };
        let base = initramfs::base(&kernel, &busybox, &cryptsetup).expect("the initramfs is built");
        Some(Self {
            qemu,
            kernel: kernel.image,
            base,
        })
    }

    /// Does the jobs in their order, in as few boots as possible. Returns an outcome for each.
    pub(crate) fn run(&self, jobs: &[Job]) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        let mut rest = jobs;
        while !rest.is_empty() {
            let mut disks = 0;
            let fit = rest.iter().take_while(|job| {
                disks += job.disks();
                disks <= DISKS_A_BOOT
            });
            let (now, later) = rest.split_at(fit.count());
            outcomes.extend(self.boot(now)?);
            rest = later;
        }
        Ok(outcomes)
    }

    fn boot(&self, jobs: &[Job]) -> Result<Vec<Outcome>> {
        let folder = tempfile::tempdir()?;
        let results = folder.path().join("results");
        let console = folder.path().join("console");
        let initrd = folder.path().join("initrd");

        let mut qemu = Command::new(&self.qemu);
        qemu.args([
            "-accel",
            "tcg",
            "-m",
            "768",
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
        ]);
        qemu.arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&initrd);
        qemu.args(["-append", "console=ttyS0 quiet panic=-1 no_timer_check"]);
        for log in [&console, &results] {
            qemu.arg("-serial").arg(format!("file:{}", log.display()));
        }
        qemu.args(["-device", "virtio-scsi-pci"]);

        let mut disks = Disks {
            qemu: &mut qemu,
            count: 0,
        };
        let mut script = String::new();
        let mut archive = Archive::default();
        for (number, job) in jobs.iter().enumerate() {
            let writes = job.payload.is_some();
            let image = disks.add(&job.image, writes);
            let header = job
                .header
                .as_deref()
                .map_or("-".into(), |file| disks.add(file, job.make.is_some()));
            let payload = job
                .payload
                .as_deref()
                .map_or("-".into(), |file| disks.add(file, false));
            let verb = match (job.mapped, writes) {
                (true, _) => "map",
                (false, true) => "write",
                (false, false) => "read",
            };
            script.push_str(&format!("job {number} {verb} {image} {header} {payload}\n"));
            archive.file(&format!("keys/{number}"), 0o600, &job.key);
            if job.left_open {
                archive.file(&format!("open/{number}"), 0o644, b"");
            }
            for (folder, options) in [("make", &job.make), ("plain", &job.plain)] {
                if let Some(options) = options {
                    archive.file(&format!("{folder}/{number}"), 0o644, options.as_bytes());
                }
            }
        }
        if jobs.iter().any(|job| job.mapped) {
            initramfs::add_luksmith(&mut archive)?;
        }
        archive.file("jobs", 0o644, script.as_bytes());
        std::fs::write(&initrd, [self.base.as_slice(), &archive.finish()].concat())?;

        let stderr = run_within(BOOT_LIMIT, &mut qemu)?;
        let text = std::fs::read_to_string(&results).unwrap_or_default();
        if !text.trim_end().ends_with("done") {
            let console =
                String::from_utf8_lossy(&std::fs::read(&console).unwrap_or_default()).into_owned();
            let said =
                format!("the machine stopped early: {stderr}\nresults: {text}\nconsole: {console}");
            return Err(Error::other(said));
        }
        let outcomes = text
            .lines()
            .filter(|line| line.starts_with("job "))
            .map(outcome);
        let outcomes = outcomes.collect::<Result<Vec<_>>>()?;
        if outcomes.len() != jobs.len() {
            return Err(Error::other(format!(
                "{} jobs, but the machine said: {text}",
                jobs.len()
            )));
        }
        Ok(outcomes)
    }
}

struct Disks<'a> {
    qemu: &'a mut Command,
    count: usize,
}

impl Disks<'_> {
    /// Adds `file` to the virtual machine as a raw disk, and returns its SCSI target.
    fn add(&mut self, file: &Path, writable: bool) -> String {
        let target = self.count;
        self.count += 1;
        // QEMU's options need a comma in a name twice.
        let file = file.display().to_string().replace(',', ",,");
        let drive = format!("if=none,id=d{target},format=raw,cache=unsafe,file={file}");
        let drive = if writable {
            drive
        } else {
            drive + ",readonly=on"
        };
        self.qemu.arg("-drive").arg(drive);
        let device = format!("scsi-hd,drive=d{target},scsi-id={target}");
        self.qemu.arg("-device").arg(device);
        target.to_string()
    }
}

/// Runs a command to its end and returns its standard error. Kills it when it takes too long.
fn run_within(limit: Duration, command: &mut Command) -> Result<String> {
    let log = tempfile::NamedTempFile::new()?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.reopen()?);
    let mut child = command.spawn()?;
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            let said = std::fs::read(log.path())?;
            return Ok(format!("{status} {}", String::from_utf8_lossy(&said)));
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Err(Error::new(
                ErrorKind::TimedOut,
                format!("{command:?} took over {limit:?}"),
            ));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// `job N opened SIZE SHA256`, or `job N refused WORDS`.
fn outcome(line: &str) -> Result<Outcome> {
    let unknown = || Error::new(ErrorKind::InvalidData, format!("not an outcome: {line}"));
    let mut words = line.splitn(4, ' ').skip(2);
    let verdict = words.next().ok_or_else(unknown)?;
    let rest = words.next().unwrap_or_default();
    if verdict == "refused" {
        return Ok(Outcome::Refused(rest.to_owned()));
    }
    let (size, sha256) = rest.trim_end().split_once(' ').ok_or_else(unknown)?;
    Ok(Outcome::Opened {
        size: size.parse().map_err(|_| unknown())?,
        sha256: sha256.to_owned(),
    })
}
