//! Block devices, as `/sys` shows them.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rustix::fs::{Dev, major, minor};

/// The unit of sizes in `/sys`, whatever the sectors of the device are.
const SECTOR: u64 = 512;

/// The device of a partition that the kernel has on the block device `number` and that shares bytes
/// with this range.
pub(crate) fn partition_within(number: Dev, range: &Range<u64>) -> Option<PathBuf> {
    let folder = format!("/sys/dev/block/{}:{}", major(number), minor(number));
    within(Path::new(&folder), range)
}

fn within(folder: &Path, range: &Range<u64>) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .filter(|entry| {
            let number = |name| read(&entry.path(), name);
            let place = || Some((number("partition")?, number("start")?, number("size")?));
            place().is_some_and(|(_, start, size)| {
                let start = start.saturating_mul(SECTOR);
                let end = start.saturating_add(size.saturating_mul(SECTOR));
                start < range.end && range.start < end
            })
        })
        .map(|entry| entry.file_name())
        .collect();
    names.sort();
    // A slash of a name is `!` in `/sys`.
    let name = names.first()?.to_string_lossy().replace('!', "/");
    Some(Path::new("/dev").join(name))
}

fn read(folder: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(folder.join(name)).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_found_by_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        for (name, start, size) in [("d!0p1", "8", "8"), ("d!0p2", "16", "4"), ("queue", "", "")] {
            let entry = folder.path().join(name);
            fs::create_dir(&entry).unwrap();
            if !start.is_empty() {
                fs::write(entry.join("partition"), &name[4..]).unwrap();
                fs::write(entry.join("start"), format!("{start}\n")).unwrap();
                fs::write(entry.join("size"), format!("{size}\n")).unwrap();
            }
        }
        let within = |range| within(folder.path(), &range);
        assert_eq!(within(0..4096), None);
        assert_eq!(within(4096..4097), Some("/dev/d/0p1".into()));
        assert_eq!(within(0..1 << 20), Some("/dev/d/0p1".into()));
        assert_eq!(within(8192..8193), Some("/dev/d/0p2".into()));
        assert_eq!(within(10240..1 << 20), None);
    }
}
