//! What else may lie where a primary LUKS2 header should be.
//!
//! A filesystem made on top of an old volume leaves the secondary header intact. Recovery from that one must not
//! write over somebody else's data, so a damaged primary is rewritten only where nothing known is in its place.
//! This is no probing: nothing is opened or believed because of it.

use crate::backend::{Backend, IoError};
use crate::door;

/// Where it lies in bytes, its magic, and what it is.
const SIGNATURES: [(u64, &[u8], &str); 12] = [
    (0, b"XFSB", "an XFS filesystem"),
    (0, b"hsqs", "a squashfs filesystem"),
    (0, b"QFI\xfb", "a qcow2 image"),
    (0, b"vhdxfile", "a VHDX image"),
    (510, b"\x55\xaa", "a partition table"),
    (512, b"EFI PART", "a GUID partition table"),
    (512, b"LABELONE", "an LVM physical volume"),
    (1024, b"\x10\x20\xf5\xf2", "an F2FS filesystem"),
    (1080, b"\x53\xef", "an ext2, ext3 or ext4 filesystem"),
    (4086, b"SWAPSPACE2", "swap space"),
    (32769, b"CD001", "an ISO 9660 filesystem"),
    (65600, b"_BHRfS_M", "a btrfs filesystem"),
];

/// What is there, if it is one of the things that are known.
pub(super) fn signature(storage: &dyn Backend) -> Result<Option<&'static str>, IoError> {
    let size = storage.geometry().size;
    for (offset, magic, what) in SIGNATURES {
        // A header alone may end before some of them.
        if size < offset + magic.len() as u64 {
            continue;
        }
        if door::read(storage, offset, magic.len())? == magic {
            return Ok(Some(what));
        }
    }
    Ok(None)
}
