//! Recognises other data in the place of a primary LUKS2 header.
//!
//! A file system that was made on an old volume leaves the secondary header intact. Recovery must
//! not overwrite that file system, so a damaged primary header is rewritten only if no known data
//! is in its place. Nothing is opened or trusted because of this check.

use crate::backend::{Backend, IoError};
use crate::door;

/// The offset of a signature in bytes, the signature, and its name.
const SIGNATURES: [(u64, &[u8], &str); 18] = [
    // Boot sectors, which also end like a partition table.
    (3, b"-FVE-FS-", "a BitLocker volume"),
    (3, b"NTFS    ", "an NTFS filesystem"),
    (0, b"KDMV", "a VMDK image"),
    (0, b"# Disk DescriptorFile", "a VMDK descriptor"),
    (0, b"conectix", "a VHD image"),
    (64, b"\x7f\x10\xda\xbe", "a VDI image"),
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

/// The name of the data, if its signature is known.
pub(crate) fn signature(storage: &dyn Backend) -> Result<Option<&'static str>, IoError> {
    let size = storage.geometry().size;
    for (offset, magic, what) in SIGNATURES {
        // The storage of a detached header may end before some signatures.
        if size < offset + magic.len() as u64 {
            continue;
        }
        if door::read(storage, offset, magic.len())? == magic {
            return Ok(Some(what));
        }
    }
    Ok(None)
}
