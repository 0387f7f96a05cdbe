//! A file system of the kernel on a mounted volume: a loop device makes a disk of the file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::peers::{find, output, run};

use crate::mounted::{Folder, can_mount, skip_device};

struct Tools {
    losetup: PathBuf,
    mount: PathBuf,
    umount: PathBuf,
    mkfs: PathBuf,
    fsck: PathBuf,
    fstrim: PathBuf,
}

impl Tools {
    #[allow(
        clippy::print_stderr,
        reason = "the reader of a test run is told what did not run"
    )]
    fn find() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root makes loop devices");
            return None;
        }
        if !can_mount() {
            return None;
        }
        if !Path::new("/dev/loop-control").exists() {
            skip_device("/dev/loop-control");
            return None;
        }
        Some(Self {
            losetup: find("losetup")?,
            mount: find("mount")?,
            umount: find("umount")?,
            mkfs: find("mkfs.ext4")?,
            fsck: find("fsck.ext4")?,
            fstrim: find("fstrim")?,
        })
    }
}

/// A loop device of a file, until it is dropped.
struct Loop<'a> {
    tools: &'a Tools,
    device: PathBuf,
}

impl<'a> Loop<'a> {
    fn of(tools: &'a Tools, file: &Path) -> Self {
        let made = run(Command::new(&tools.losetup)
            .args(["--find", "--show"])
            .arg(file));
        let device = String::from_utf8(made).unwrap().trim().into();
        Self { tools, device }
    }
}

impl Drop for Loop<'_> {
    fn drop(&mut self) {
        output(
            Command::new(&self.tools.losetup)
                .arg("--detach")
                .arg(&self.device),
        );
    }
}

/// A mounted file system, until it is dropped.
struct Mount<'a>(&'a Tools, PathBuf);

impl<'a> Mount<'a> {
    fn new(tools: &'a Tools, device: &Path, at: PathBuf) -> Self {
        run(Command::new(&tools.mount)
            .args(["-t", "ext4"])
            .arg(device)
            .arg(&at));
        Self(tools, at)
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        output(Command::new(&self.0.umount).arg(&self.1));
    }
}

/// Files of many sizes, with content that identifies each place.
fn files() -> Vec<(String, Vec<u8>)> {
    let sizes = [0, 1, 511, 1000, 4096, 70_000, 1 << 20];
    let file = |(n, size): (usize, &usize)| {
        let words = (0..size / 8 + 1).map(|word| (word << 8 | n).wrapping_mul(0x9e37_79b9));
        let mut bytes: Vec<u8> = words.flat_map(usize::to_le_bytes).collect();
        bytes.truncate(*size);
        (format!("file-{n}"), bytes)
    };
    sizes.iter().enumerate().map(file).collect()
}

fn lives_in(format: &str, discard: &str) {
    let Some(tools) = Tools::find() else {
        return;
    };
    let folder = Folder::of_format(format);
    let mounted = folder.mount(&["--format", format, "--discard", discard]);
    let device = Loop::of(&tools, &mounted.path());
    run(Command::new(&tools.mkfs).arg("-q").arg(&device.device));
    let check = |disk: &Path| run(Command::new(&tools.fsck).arg("-fn").arg(disk));
    let inside = folder.path("inside");
    fs::create_dir(&inside).unwrap();

    let file_system = Mount::new(&tools, &device.device, inside.clone());
    for round in 0..2 {
        let to = inside.join(format!("round-{round}"));
        fs::create_dir(&to).unwrap();
        for (name, bytes) in files() {
            fs::write(to.join(name), bytes).unwrap();
        }
    }
    fs::remove_dir_all(inside.join("round-0")).unwrap();
    let trimmed = run(Command::new(&tools.fstrim).arg("-v").arg(&inside));
    let trimmed = String::from_utf8(trimmed).unwrap();
    assert!(!trimmed.contains(": 0 B"), "{trimmed}");
    let said = folder.fail(5, ["unmount", "file"]);
    assert!(said.contains(device.device.to_str().unwrap()), "{said}");
    drop(file_system);
    check(&device.device);
    let file_system = Mount::new(&tools, &device.device, inside.clone());
    for (name, bytes) in files() {
        let found = fs::read(inside.join("round-1").join(&name)).unwrap();
        assert!(found == bytes, "{name}");
    }
    drop(file_system);
    drop(device);
    mounted.unmount();
    // Without any server, the volume contains the same file system.
    fs::write(
        folder.path("decrypted"),
        folder.decrypted(&["--format", format]),
    )
    .unwrap();
    check(&folder.path("decrypted"));
}

#[test]
fn ext4_lives_in_a_raw_volume() {
    lives_in("raw", "zeroes");
}

#[test]
fn ext4_lives_in_an_image_and_frees_its_clusters() {
    lives_in("qcow2", "pass");
}
