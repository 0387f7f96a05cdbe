//! Random changes of good images: an accepted image opens in qemu-img too, with the same size, and
//! without another file.
//!
//! `DIFFER_SECONDS=3600 cargo test --release --test vet mutants` runs it for an hour, with other
//! changes in each run. An image on which the two differ is kept in `target`.

#![allow(clippy::print_stdout)] // how many images a run has judged

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use luksmith::backend::memory::MemoryBackend;
use luksmith::vet::{Feature, Format, Policy, Report, Verdict, inspect};
use luksmith_formats::image::{vhd, vhdx};
use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::Value;

use crate::judge::{be32, le32};
use crate::{qcow2, qcow2_tables, qed, vdi, vhd as vhds, vhdx as vhdxs, vmdk};
use support::peers;

/// Words that a descriptor may contain, and some that it must not.
const WORDS: [&str; 24] = [
    "parentFileNameHint=\"",
    "parentCID=",
    "CID=",
    "createType=\"",
    "RW 8192 SPARSE \"disk.vmdk\"",
    "RW ",
    "RDONLY ",
    "NOACCESS ",
    "FLAT ",
    "SPARSE ",
    "ZERO",
    "\"/etc/passwd\"",
    "\n",
    "\r\n",
    "#",
    "/*",
    "*/",
    "\"",
    "=",
    " ",
    "\t",
    "ddb.",
    "changeTrackPath=\"x\"\n",
    "version=1\n",
];

struct Mutants {
    rng: TestRng,
    seeds: Vec<(&'static str, Vec<u8>)>,
}

impl Mutants {
    fn new(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut compressed = qcow2::good();
        let entry = qcow2::compress(&mut compressed, qcow2::DATA);
        crate::judge::be64(&mut compressed, qcow2::L2, entry);
        Self {
            rng: TestRng::from_seed(RngAlgorithm::ChaCha, &bytes),
            seeds: vec![
                ("qcow2", qcow2::good()),
                ("qcow2", qcow2::version_2()),
                ("qcow2", qcow2_tables::with_snapshot()),
                ("qcow2", compressed),
                ("qed", qed::good()),
                ("vmdk", vmdk::sparse()),
                ("vmdk", vmdk::stream()),
                ("vhd", vhds::dynamic()),
                ("vhd", vhds::fixed()),
                ("vhdx", vhdxs::good()),
                ("vdi", vdi::good()),
            ],
        }
    }

    fn below(&mut self, most: usize) -> usize {
        self.rng.random_range(0..most.max(1))
    }

    /// An image with a few changes, most of them where it is not zero.
    fn next(&mut self) -> (&'static str, Vec<u8>) {
        let number = self.below(self.seeds.len());
        let (format, mut image) = self.seeds[number].clone();
        let used: Vec<usize> = (0..image.len())
            .step_by(64)
            .filter(|at| image[*at..].iter().take(64).any(|byte| *byte != 0))
            .collect();
        for _ in 0..=self.below(4) {
            if image.is_empty() {
                break;
            }
            let block = match self.below(4) {
                0 => self.below(1024 / 64) * 64,
                _ => used[self.below(used.len())],
            };
            let at = (block + self.below(64)).min(image.len() - 1);
            self.change(format, &mut image, at);
        }
        if self.below(8) != 0 {
            seal(format, &mut image);
        }
        (format, image)
    }

    fn change(&mut self, format: &str, image: &mut Vec<u8>, at: usize) {
        let words = format == "vmdk" && image.len() > 1024;
        match self.below(if words { 9 } else { 6 }) {
            0 => image[at] = self.rng.random(),
            1 => image[at] ^= 1 << self.below(8),
            2 | 3 => {
                let width = 1 << self.below(4);
                let value = self.value(image.len() as u64);
                let at = at / width * width;
                let bytes = match self.below(2) {
                    0 => value.to_le_bytes()[..width].to_vec(),
                    _ => value.to_be_bytes()[8 - width..].to_vec(),
                };
                let end = image.len().min(at + width);
                image[at..end].copy_from_slice(&bytes[..end - at]);
            }
            4 => {
                let by = [1, 511, 512, 513, 4096, 65536][self.below(6)];
                match self.below(2) {
                    0 => image.truncate(image.len().saturating_sub(by).max(1)),
                    _ => image.resize(image.len() + by, 0),
                }
            }
            5 => {
                let from = self.below(image.len());
                let len = 8.min(image.len() - from.max(at));
                image.copy_within(from..from + len, at);
            }
            // The descriptor of a VMDK is at sector 1.
            _ => {
                let end = image.len().min(512 * 21);
                let text = 512
                    + image[512..end]
                        .iter()
                        .take_while(|byte| **byte != 0)
                        .count();
                let word = WORDS[self.below(WORDS.len())].as_bytes();
                let at = 512 + self.below(text - 512);
                let after = (at + [0, 1, word.len()][self.below(3)]).min(text);
                let rest = image[after..end].to_vec();
                let changed = [word, &rest].concat();
                let room = end - at;
                image[at..end].copy_from_slice(&[&changed[..], &[0; 512]].concat()[..room]);
            }
        }
    }

    /// A number at an edge.
    fn value(&mut self, size: u64) -> u64 {
        let edges = [
            0,
            1,
            2,
            3,
            7,
            8,
            63,
            255,
            512,
            513,
            4095,
            4096,
            65535,
            65536,
            1 << 20,
            size,
            u64::MAX,
        ];
        let power = 1_u64 << self.below(64);
        let value = match self.below(3) {
            0 => power,
            1 => self.rng.random(),
            _ => edges[self.below(edges.len())],
        };
        value.wrapping_add([0, 1, u64::MAX][self.below(3)])
    }
}

/// Corrects the checksums, and makes copies equal, so that the changes themselves are judged.
fn seal(format: &str, image: &mut [u8]) {
    let size = image.len();
    match format {
        "vhd" if image.starts_with(b"conectix") && size > 4096 => {
            let sum = vhd::checksum(&image[..512], 64);
            be32(image, 64, sum);
            let sum = vhd::checksum(&image[512..1536], 36);
            be32(image, 512 + 36, sum);
            image.copy_within(..512, size - 512);
        }
        "vhd" if size > 512 => {
            let sum = vhd::checksum(&image[size - 512..], 64);
            be32(image, size - 512 + 64, sum);
        }
        "vhdx" if size > 320 << 10 => {
            image.copy_within(192 << 10..256 << 10, 256 << 10);
            for (at, len) in [(64, 4), (128, 4), (192, 64), (256, 64)] {
                let (at, len) = (at << 10, len << 10);
                let sum = vhdx::checksum(&image[at..at + len]);
                le32(image, at + 4, sum);
            }
        }
        _ => {}
    }
}

struct Qemu {
    img: PathBuf,
    strace: Option<PathBuf>,
    folder: tempfile::TempDir,
}

impl Qemu {
    /// What QEMU does otherwise with an image that was accepted.
    fn differs(&self, format: &str, image: &[u8], report: &Report) -> Option<String> {
        let path = |name: &str| self.folder.path().join(name);
        std::fs::write(path("image"), image).unwrap();
        let driver = if format == "vhd" { "vpc" } else { format };
        let mut command = Command::new("prlimit");
        command.args(["--as=4000000000", "--cpu=20", "timeout", "20"]);
        if let Some(strace) = &self.strace {
            command.arg(strace).args([
                "-f",
                "-qq",
                "-e",
                "trace=open,openat,connect",
                "-o",
                "trace",
            ]);
        }
        command.arg(&self.img);
        command.args(["info", "--output=json", "-f", driver, "image"]);
        // cargo sets this, and the loader would search its folders.
        command.env_remove("LD_LIBRARY_PATH");
        let output = peers::output(command.current_dir(self.folder.path()));
        let error = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return (!is_of_qemu(format, image)).then(|| format!("it refuses: {error}"));
        }
        let info: Value = serde_json::from_slice(&output.stdout).unwrap();
        let size = info["virtual-size"].as_u64();
        let ours = report.virtual_size.map(|size| size.next_multiple_of(512));
        let same = match format {
            // Which of its sizes counts depends on the creator, and on the version of QEMU.
            "vhd" => size <= ours,
            // Its last partial sector is not in the report. A snapshot may be larger.
            "qcow2" if report.features.contains(&Feature::Snapshots) => size <= ours,
            _ => size == ours,
        };
        if !same {
            return Some(format!("its size is {size:?}, ours {ours:?}"));
        }
        let trace = std::fs::read_to_string(path("trace")).unwrap_or_default();
        let known = [
            "/usr/", "/lib", "/etc/", "/proc/", "/sys/", "/dev/", "/run/", "image\"",
        ];
        let opened = trace.lines().filter_map(|line| line.split_once('"'));
        let mut others =
            opened.filter(|(_, path)| !known.iter().any(|known| path.starts_with(known)));
        let secret = trace.lines().find(|line| line.contains("/etc/passwd"));
        others
            .next()
            .map(|(_, path)| format!("it opens \"{path}"))
            .or(secret.map(|line| format!("it opens a file: {line}")))
    }
}

/// Whether QEMU is known to refuse an image that others accept: VHDX with sectors of 4096 bytes.
fn is_of_qemu(format: &str, image: &[u8]) -> bool {
    let sector = 4096_u32.to_le_bytes();
    let metadata = (3 << 20) + (64 << 10);
    format == "vhdx"
        && image
            .get(metadata..metadata + 4096)
            .is_some_and(|values| values.windows(4).filter(|value| *value == sector).count() > 1)
}

fn keep(image: &[u8], format: &str, number: usize) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let path = folder.join(format!("mutant-{number}.{format}"));
    std::fs::write(&path, image).unwrap();
    path
}

#[test]
fn what_is_accepted_opens_in_qemu_with_the_same_size_and_no_other_file() {
    let Some(img) = peers::find("qemu-img") else {
        return;
    };
    let seconds = std::env::var("DIFFER_SECONDS")
        .ok()
        .map(|text| text.parse().unwrap());
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let seed = if seconds.is_some() { now.as_secs() } else { 0 };
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or(0));
    let mut mutants = Mutants::new(seed);
    let qemu = Qemu {
        img,
        strace: ["/usr/bin/strace", "/bin/strace"]
            .map(PathBuf::from)
            .into_iter()
            .find(|path| path.exists()),
        folder: tempfile::tempdir().unwrap(),
    };
    // Without a time, few images, which are the same in each run.
    let (mut judged, mut compared, mut found) = (0, 0, Vec::new());
    while match seconds {
        Some(_) => Instant::now() < until && found.len() < 20,
        None => judged < 3000 && compared < 60,
    } {
        let (format, image) = mutants.next();
        judged += 1;
        let storage = MemoryBackend::from_bytes(image.clone()).into_read_only();
        let stated = Format::by_name(format).unwrap();
        let report = inspect(&storage, stated, &Policy::default()).unwrap();
        if report.verdict() != Verdict::Accept {
            continue;
        }
        compared += 1;
        if let Some(how) = qemu.differs(format, &image, &report) {
            let path = keep(&image, format, found.len());
            found.push(format!("{}: {how}", path.display()));
        }
    }
    println!("seed {seed}: {judged} images judged, {compared} accepted and compared");
    assert!(compared > 20, "{compared} of {judged} were accepted");
    assert!(found.is_empty(), "seed {seed}:\n{}", found.join("\n"));
}
