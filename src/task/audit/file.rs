//! Documents and policies in files.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::audit::{Document, Policy};
use crate::task::{Advice, Error, Kind};
use crate::xml;

/// How many bytes of a document are read. One more than XML may have, so that the audit finds a
/// document that is too large.
pub const LARGEST_DOCUMENT: u64 = xml::MOST_BYTES as u64 + 1;
/// How many bytes of a policy are read.
const LARGEST_POLICY: u64 = 1 << 20;

/// Reads XML from a file.
///
/// # Errors
/// Returns an error if the file cannot be read, or is not a regular file.
pub fn read_document(path: &Path) -> Result<Document, Error> {
    let text = read(path, LARGEST_DOCUMENT).map_err(|error| {
        Error::new(Kind::Storage, error).about(format_args!("cannot read {}", path.display()))
    })?;
    Ok(Document::at(path, text))
}

/// Reads a policy from a TOML file.
///
/// # Errors
/// [`Kind::Parameters`] if the file is not a policy, and failed system calls.
pub fn read_policy(path: &Path) -> Result<Policy, Error> {
    let text = read(path, LARGEST_POLICY).map_err(|error| Error::io("read", path, error))?;
    Policy::parse(&String::from_utf8_lossy(&text)).map_err(|error| {
        Error::new(Kind::Parameters, error)
            .about(path.display())
            .advise(Advice::PolicyMembers("docs/audit.md"))
    })
}

/// Reads the first `most` bytes of a regular file. A FIFO or a device is an error, and does not
/// block this function.
pub(super) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = File::options()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = Vec::new();
    file.take(most).read_to_end(&mut text)?;
    Ok(text)
}
