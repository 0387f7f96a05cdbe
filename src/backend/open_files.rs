//! Which processes have a file open, and which of them hold locks on it, from `/proc`.
//!
//! A process may have a file open whose file system does not answer any more: a network file system
//! without its server, or FUSE without its daemon. Every system call on such a file waits without
//! end, and no signal ends the wait. `stat` of `/proc/PID/fd/N` is such a call, since it follows
//! the link. So files of other processes are told apart by `/proc/PID/fdinfo/N`, which the kernel
//! writes from memory: the mount, the inode, and the locks. See `proc_pid_fdinfo(5)`. `/proc/locks`
//! has no process for the locks that QEMU takes.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

/// The processes that have a lock on this file. A lock that this process has with the same
/// descriptor does not count.
pub(super) fn lockers(file: &File) -> Vec<u32> {
    let Some(wanted) = Inode::of(file, &Mounts::of_process("self")) else {
        return Vec::new();
    };
    let this = (std::process::id(), file.as_raw_fd().to_string());
    let mut found: Vec<u32> = processes()
        .filter(|pid| {
            open_files(*pid)
                .filter(|(fd, _)| (*pid, fd) != (this.0, &this.1))
                .any(|(_, info)| info.locks.contains(&wanted))
        })
        .collect();
    found.sort_unstable();
    found
}

/// Whether another process has this file or block device open.
pub(super) fn is_open_elsewhere(file: &File) -> bool {
    let Ok(metadata) = file.metadata() else {
        return false;
    };
    let ours = Mounts::of_process("self");
    let device = (metadata.file_type().is_block_device()).then(|| metadata.rdev());
    let Some(wanted) = Inode::of(file, &ours) else {
        return false;
    };
    let others = processes().filter(|pid| *pid != std::process::id());
    others.into_iter().any(|pid| {
        // A process may have its own mounts, and files of ours that were passed to it.
        let theirs = Mounts::of_process(&pid.to_string());
        open_files(pid).any(|(fd, info)| {
            let Some(mount) = theirs.get(info.mount).or(ours.get(info.mount)) else {
                return false;
            };
            let path = PathBuf::from(format!("/proc/{pid}/fd/{fd}"));
            match (device, info.inode) {
                // A device can have several nodes, so its number counts.
                (Some(number), _) => mount.is_local && is_device(&path, number),
                (None, Some(inode)) => {
                    let device = mount.device;
                    Inode { device, inode } == wanted
                }
                // Before Linux 5.14. This is the file system of our own file, and it answers.
                (None, None) => {
                    let same = |file: fs::Metadata| file.ino() == wanted.inode;
                    mount.device == wanted.device && fs::metadata(path).is_ok_and(same)
                }
            }
        })
    })
}

fn is_device(path: &Path, number: u64) -> bool {
    fs::metadata(path).is_ok_and(|file| file.file_type().is_block_device() && file.rdev() == number)
}

/// A file, as the kernel names it in lists of locks: the device of its file system, and its inode.
/// On some file systems that is not the device which `stat` reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Inode {
    device: (u32, u32),
    inode: u64,
}

impl Inode {
    fn of(file: &File, mounts: &Mounts) -> Option<Self> {
        let metadata = file.metadata().ok()?;
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).ok();
        let info = info.map(|text| FdInfo::parse(&text)).unwrap_or_default();
        let device = match mounts.get(info.mount) {
            Some(mount) => mount.device,
            None => (major(metadata.dev()), minor(metadata.dev())),
        };
        Some(Self {
            device,
            inode: info.inode.unwrap_or(metadata.ino()),
        })
    }

    /// `00:2a:2210`: the numbers of the device are hexadecimal.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let mut number = || u32::from_str_radix(parts.next()?, 16).ok();
        let device = (number()?, number()?);
        let inode = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some(Self { device, inode })
    }
}

/// What the kernel tells of a descriptor.
#[derive(Debug, Default, PartialEq, Eq)]
struct FdInfo {
    mount: u64,
    /// `None` before Linux 5.14.
    inode: Option<u64>,
    locks: Vec<Inode>,
}

impl FdInfo {
    fn parse(text: &str) -> Self {
        let mut info = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match name {
                "mnt_id" => info.mount = value.parse().unwrap_or_default(),
                "ino" => info.inode = value.parse().ok(),
                "lock" => info
                    .locks
                    .extend(value.split_whitespace().find_map(Inode::parse)),
                _ => {}
            }
        }
        info
    }
}

/// The mounts that a process sees, by number.
struct Mounts(HashMap<u64, Mount>);

#[derive(Debug, PartialEq, Eq)]
struct Mount {
    device: (u32, u32),
    /// Whether the file system is in memory or on a device of this host, so that it answers.
    is_local: bool,
}

impl Mounts {
    fn of_process(process: &str) -> Self {
        let text = fs::read(format!("/proc/{process}/mountinfo")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        Self(text.lines().filter_map(mount).collect())
    }

    fn get(&self, number: u64) -> Option<&Mount> {
        self.0.get(&number)
    }
}

/// A line of `proc_pid_mountinfo(5)`: `36 35 98:0 /root /point rw shared:1 - ext3 /dev/root rw`.
fn mount(line: &str) -> Option<(u64, Mount)> {
    let mut words = line.split(' ');
    let number = words.next()?.parse().ok()?;
    let (major, minor) = words.nth(1)?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let kind = words.skip_while(|word| *word != "-").nth(1)?;
    let is_local = device.0 != 0 || ["devtmpfs", "tmpfs", "ramfs"].contains(&kind);
    Some((number, Mount { device, is_local }))
}

/// The processes that `/proc` shows.
fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The descriptors of a process, as far as this user may see them.
fn open_files(pid: u32) -> impl Iterator<Item = (String, FdInfo)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter();
    entries.flatten().flatten().filter_map(|entry| {
        let info = fs::read_to_string(entry.path()).ok()?;
        let fd = entry.file_name().into_string().ok()?;
        Some((fd, FdInfo::parse(&info)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locks_of_a_descriptor_are_read() {
        let text = "pos:\t0\nflags:\t0100002\nmnt_id:\t29\nino:\t2210\n\
                    lock:\t1: OFDLCK ADVISORY  READ -1 fe:2a:2210 100 100\n\
                    lock:\t2: FLOCK  ADVISORY  WRITE 359 00:13:11691 0 EOF\n";
        let inode = |device, inode| Inode { device, inode };
        let expected = FdInfo {
            mount: 29,
            inode: Some(2210),
            locks: vec![inode((0xfe, 0x2a), 2210), inode((0, 0x13), 11691)],
        };
        assert_eq!(FdInfo::parse(text), expected);
        assert_eq!(FdInfo::parse("lock:\nmnt_id:\tx\n"), FdInfo::default());
    }

    #[test]
    fn mounts_are_local_if_they_answer_without_a_server() {
        for (line, number, device, is_local) in [
            (
                "36 35 98:0 / /p rw shared:1 - ext3 /dev/root rw",
                36,
                (98, 0),
                true,
            ),
            ("37 35 0:5 / /dev rw - devtmpfs none rw", 37, (0, 5), true),
            (
                "38 35 0:44 / /nfs rw master:2 shared:3 - nfs4 host:/ rw",
                38,
                (0, 44),
                false,
            ),
        ] {
            let expected = Mount { device, is_local };
            assert_eq!(mount(line), Some((number, expected)));
        }
        assert_eq!(mount(""), None);
    }

    #[test]
    fn files_are_found_by_their_descriptors() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let other = tempfile::NamedTempFile::new().unwrap();
        let held = File::open(file.path()).unwrap();
        rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let ours = std::process::id();
        assert!(lockers(&File::open(file.path()).unwrap()).contains(&ours));
        assert!(!lockers(&held).contains(&ours), "its own lock");
        assert!(!lockers(other.as_file()).contains(&ours));

        // Another test may start a program. Until its exec it has all descriptors of this process.
        let is_free = |file: &File| {
            (0..500).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(20));
                !is_open_elsewhere(file)
            })
        };
        assert!(is_free(&held));
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .stdin(File::open(file.path()).unwrap())
            .spawn()
            .unwrap();
        assert!(is_open_elsewhere(&held) && is_free(other.as_file()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
