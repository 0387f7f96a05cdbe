//! `/proc/self/mountinfo` (proc(5)): the mounted file systems, their mount points and their
//! sources.

use crate::audit::inventory::Document;
use crate::audit::policy::lies_in;

/// A mounted file system.
pub(in crate::audit) struct Mount {
    pub(super) line: usize,
    /// The major and minor number of the device.
    pub(super) number: (u32, u32),
    pub(super) point: String,
    pub(super) kind: String,
    pub(super) source: String,
}

/// The kernel's limit of mounts in a namespace.
const MOST: usize = 100_000;

/// The file systems whose files are on another machine.
const REMOTE: [&str; 13] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "ceph",
    "glusterfs",
    "fuse.glusterfs",
    "fuse.sshfs",
    "fuse.ceph",
    "9p",
    "afs",
    "lustre",
    "gpfs",
];

pub(super) fn mounts(mountinfo: &Document) -> Vec<Mount> {
    let lines = mountinfo.text.split(|byte| *byte == b'\n');
    let read = |(number, line): (usize, &[u8])| {
        let line = String::from_utf8_lossy(line);
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(2);
        let device = before.next()?.split_once(':')?;
        let point = unescaped(before.nth(1)?);
        let mut after = after.split(' ');
        Some(Mount {
            line: number,
            number: (device.0.parse().ok()?, device.1.parse().ok()?),
            point,
            kind: after.next()?.to_owned(),
            source: unescaped(after.next()?),
        })
    };
    (1..).zip(lines).filter_map(read).take(MOST).collect()
}

/// The type of the file system of a path, if its files are on another machine.
pub(in crate::audit) fn remote_filesystem<'a>(mounts: &'a [Mount], path: &str) -> Option<&'a str> {
    // The innermost mount has the path. If there are several at one mount point, it is the last.
    let over = mounts.iter().filter(|mount| lies_in(path, &mount.point));
    let found = over.max_by_key(|mount| mount.point.len())?;
    let kind = found.kind.as_str();
    REMOTE.contains(&kind).then_some(kind)
}

/// Replaces escapes: spaces, tabs, line ends and backslashes are written as three octal digits.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.get(..3);
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(char::from(byte));
                plain.push_str(part.get(3..).unwrap_or_default());
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}
