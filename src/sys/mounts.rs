//! The file systems that this process sees mounted (`proc_pid_mountinfo(5)`). Nothing here asks the
//! file systems themselves: one whose server has stopped would not answer.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Its number, which no other one gets while it is mounted.
    pub(crate) id: u64,
    /// The device number of the file system.
    pub(crate) device: (u32, u32),
    pub(crate) point: PathBuf,
    /// The type, such as `ext4`.
    pub(crate) kind: Vec<u8>,
}

/// Those that are mounted, in the order in which they were mounted.
pub(crate) fn mounts() -> io::Result<Vec<Mount>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    Ok(text
        .split(|byte| *byte == b'\n')
        .filter_map(parse)
        .collect())
}

/// A line such as `36 35 98:0 /root /point rw shared:1 - ext3 /dev/root rw`.
fn parse(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|byte| *byte == b' ');
    let number = |word: &[u8]| str::from_utf8(word).ok()?.parse().ok();
    let id = number(words.next()?)?;
    let device = str::from_utf8(words.nth(1)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let point = unescape(words.nth(1)?);
    let kind = words.skip_while(|word| *word != b"-").nth(1)?.to_vec();
    Some(Mount {
        id,
        device: (major.parse().ok()?, minor.parse().ok()?),
        point: OsString::from_vec(point).into(),
        kind,
    })
}

/// A word in which `\040` stands for a space.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut left = word;
    while let Some((first, rest)) = left.split_first() {
        let code = rest.first_chunk::<3>().filter(|_| *first == b'\\');
        let code = code.and_then(|code| u8::from_str_radix(str::from_utf8(code).ok()?, 8).ok());
        bytes.push(code.unwrap_or(*first));
        left = rest
            .get(if code.is_some() { 3 } else { 0 }..)
            .unwrap_or_default();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read() {
        let line =
            br"36 35 0:98 / /mnt/a\040b\134c rw,nosuid shared:1 master:2 - fuse.x disk\040y rw";
        let mount = parse(line).unwrap();
        assert_eq!((mount.id, mount.device), (36, (0, 98)));
        assert_eq!(mount.point, PathBuf::from("/mnt/a b\\c"));
        assert_eq!(mount.kind, b"fuse.x");
        for bad in [
            "",
            "36",
            "36 35 0:98 / /mnt rw",
            "x 35 0:98 / /mnt rw - ext4 y rw",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(unescape(b"a\\04"), b"a\\04");
    }

    #[test]
    fn the_root_is_mounted() {
        let all = mounts().unwrap();
        assert!(all.iter().any(|mount| mount.point.as_os_str() == "/"));
    }
}
