//! The holes of a file, as its file system knows them.

use std::fs::File;
use std::ops::Range;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::extents::{Allocation, Extents, push};
use super::{IoError, Operation};

/// The most extents that one call looks for.
const MOST: usize = 4096;

/// The extents of a range of a file. Devices, and files on file systems without holes, are all
/// data.
pub(super) fn extents(file: &File, range: Range<u64>) -> Result<Extents, IoError> {
    let mut found = Extents::new();
    let mut at = range.start;
    for _ in 0..MOST {
        if at >= range.end {
            return Ok(found);
        }
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data.clamp(at, range.end),
            Err(Errno::NXIO) if reaches(file, range.end) => range.end,
            // A read of a file that was cut meanwhile reports that.
            Err(Errno::NXIO | Errno::INVAL | Errno::NOTSUP | Errno::NOSYS) => {
                push(&mut found, range.end - at, Allocation::Data);
                return Ok(found);
            }
            Err(error) => return Err(IoError::from_os(Operation::Extents, at, error.into())),
        };
        push(&mut found, data - at, Allocation::Hole);
        if data == range.end {
            return Ok(found);
        }
        let hole = match seek(file, SeekFrom::Hole(data)) {
            Ok(hole) => hole.clamp(data, range.end),
            Err(_) => range.end,
        };
        push(&mut found, hole - data, Allocation::Data);
        at = hole;
    }
    // A program that changes the file meanwhile can prevent progress.
    if found.is_empty() {
        push(&mut found, range.end - range.start, Allocation::Data);
    }
    Ok(found)
}

fn reaches(file: &File, end: u64) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.len() >= end)
}
