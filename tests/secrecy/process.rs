//! Locked pages are locked and not in core files. A hardened process leaves no core file.

use luksmith::secret::LockedBytes;
use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};

/// The flags that the kernel shows for the mapping at `address`, such as `rd wr lo dd`.
pub(crate) fn flags_of(address: u64) -> Vec<String> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in smaps.lines() {
        let range = line.split_whitespace().next().unwrap_or_default();
        if let Some((start, end)) = range.split_once('-')
            && let (Ok(start), Ok(end)) =
                (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16))
        {
            inside = (start..end).contains(&address);
        } else if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
            return flags.split_whitespace().map(str::to_owned).collect();
        }
    }
    panic!("no mapping at {address:#x}");
}

#[test]
fn secrets_lie_in_locked_pages_that_are_not_dumped() {
    for len in [1, 64, 4096, 4097, 100_000] {
        let bytes = LockedBytes::new(len).unwrap();
        for at in [0, len - 1] {
            let flags = flags_of(std::ptr::from_ref(&bytes[at]) as u64);
            for flag in ["lo", "dd"] {
                assert!(flags.iter().any(|f| f == flag), "{flag} not in {flags:?}");
            }
        }
    }
    let plain = [0u8; 64];
    assert!(!flags_of(plain.as_ptr() as u64).iter().any(|f| f == "lo"));
}

#[test]
fn many_small_secrets_share_pages() {
    let secrets: Vec<LockedBytes> = (0..200).map(|_| LockedBytes::new(64).unwrap()).collect();
    let pages: std::collections::HashSet<usize> = secrets
        .iter()
        .map(|bytes| bytes.as_ptr() as usize / 4096)
        .collect();
    assert!(
        pages.len() <= 16,
        "{} pages for 200 keys of 64 bytes",
        pages.len()
    );
}

/// Hardening cannot be undone, and would keep the other tests out of `/proc`, so it is done in a
/// child process.
#[test]
fn a_hardened_process_leaves_no_core_file() {
    const CHILD: &str = "LUKSMITH_TEST_HARDEN";
    if std::env::var_os(CHILD).is_none() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process::a_hardened_process_leaves_no_core_file"])
            .env(CHILD, "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::Dumpable);
    luksmith::sys::harden().unwrap();
    assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    let core = getrlimit(Resource::Core);
    assert_eq!((core.current, core.maximum), (Some(0), Some(0)));
}
