//! Ends a libvirtd and what runs beside it if a test takes too long.
//!
//! Calls of libvirt have no time-out. When libvirtd or a QEMU does not answer, the test would wait
//! for ever, and so would everything that comes after it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// How long a test may have a libvirtd. The longest takes two minutes on a busy machine.
const LIMIT: Duration = Duration::from_secs(480);

/// Watches a test until this is dropped.
pub(crate) struct Watchdog(
    #[expect(dead_code, reason = "what matters is when it ends")] Sender<()>,
);

impl Watchdog {
    /// Watches the test that has this libvirtd, whose log is at `log`. The tests of `./test long`
    /// may take as long as they want.
    pub(crate) fn watch(libvirtd: u32, log: PathBuf) -> Option<Self> {
        if support::is_long() {
            return None;
        }
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        let (sender, ended) = mpsc::channel();
        std::thread::spawn(move || {
            if ended.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                end(&test, libvirtd, &log);
            }
        });
        Some(Self(sender))
    }
}

/// Says what each process beside the libvirtd waits for, and ends them all.
fn end(test: &str, libvirtd: u32, log: &Path) {
    let beside = beside(libvirtd);
    let mut said = format!("{test} takes longer than {} s\n", LIMIT.as_secs());
    for pid in &beside {
        said += &about(*pid);
    }
    let log = fs::read_to_string(log).unwrap_or_default();
    let last = log.lines().count().saturating_sub(20);
    for line in log.lines().skip(last) {
        said += &format!("  libvirtd: {line}\n");
    }
    // Not captured, since it explains a test that may not end.
    let _ = std::io::stderr().write_all(said.as_bytes());
    for pid in beside
        .into_iter()
        .filter_map(|pid| Pid::from_raw(pid as i32))
    {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// The libvirtd, and what is in its mount namespace, but for the test itself.
fn beside(libvirtd: u32) -> Vec<u32> {
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let own = namespace(std::process::id());
    let shared = namespace(libvirtd).filter(|namespace| Some(namespace) != own.as_ref());
    let mut found = vec![libvirtd];
    let Some(shared) = shared else { return found };
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let others = pid.filter(|&pid| pid != libvirtd && namespace(pid).as_ref() == Some(&shared));
        found.extend(others);
    }
    found
}

/// The arguments of a process, and what each of its threads waits for.
fn about(pid: u32) -> String {
    let read = |place: &str| fs::read_to_string(format!("/proc/{pid}/{place}")).unwrap_or_default();
    let arguments: String = read("cmdline")
        .replace('\0', " ")
        .chars()
        .take(200)
        .collect();
    let mut said = format!("  {pid} {arguments}\n");
    for task in fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let task = task.file_name();
        let of = |place: &str| {
            read(&format!("task/{}/{place}", task.display()))
                .trim()
                .to_owned()
        };
        said += &format!(
            "    {} {}: {} {}\n",
            task.display(),
            of("comm"),
            of("wchan"),
            of("syscall")
        );
    }
    said
}
