//! Who uses a mounted file: processes that have it open or mapped, and loop devices.

use std::fs;
use std::path::{Path, PathBuf};

/// As many users as a message names.
const MOST: usize = 5;

/// The users of the file that is mounted at this path, as far as this process can see them, such as
/// `/dev/loop0` and `pid 7 (dd)`. Nothing here asks the file system itself.
pub(super) fn of(path: &Path) -> Vec<String> {
    let mut users = loops(path);
    users.extend(processes(path));
    users.truncate(MOST);
    users
}

fn entries(folder: impl AsRef<Path>) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

fn loops(path: &Path) -> Vec<String> {
    let mut found: Vec<_> = entries("/sys/block")
        .filter(|device| {
            let backing = fs::read_to_string(device.join("loop/backing_file"));
            backing.is_ok_and(|backing| Path::new(backing.trim_end_matches('\n')) == path)
        })
        .filter_map(|device| Some(format!("/dev/{}", device.file_name()?.display())))
        .collect();
    found.sort();
    found
}

fn processes(path: &Path) -> impl Iterator<Item = String> {
    entries("/proc").filter_map(move |process| {
        let pid: u32 = process.file_name()?.to_str()?.parse().ok()?;
        // The server has the file below open, which has the same path.
        if pid == std::process::id() {
            return None;
        }
        let is_open = |link: PathBuf| fs::read_link(link).is_ok_and(|open| open == path);
        let uses = entries(process.join("fd")).any(is_open)
            || entries(process.join("map_files")).any(is_open);
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        uses.then(|| format!("pid {pid} ({})", name.trim_end()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_a_file_open_is_a_user() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("file");
        assert!(of(&path).is_empty());
        let file = fs::File::create(&path).unwrap();
        assert!(of(&path).is_empty(), "this process does not count");
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .stdin(file)
            .spawn()
            .unwrap();
        let users = of(&path);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(users, [format!("pid {} (sleep)", child.id())]);
    }
}
