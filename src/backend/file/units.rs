//! The units in which a file or a device is read, written, zeroed and discarded.

use std::fs::File;

use rustix::fs::{AtFlags, StatxFlags};

use crate::sectors::ALIGNMENT;

/// The alignment that direct I/O needs: what the kernel says (statx since 6.1), or the sector size
/// of the device.
pub(super) fn direct_block_size(file: &File, is_device: bool) -> u32 {
    let asked = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
        .ok()
        .filter(|answer| answer.stx_mask & StatxFlags::DIOALIGN.bits() != 0)
        .map(|answer| answer.stx_dio_offset_align);
    let sector = || {
        is_device
            .then(|| rustix::fs::ioctl_blksszget(file).ok())
            .flatten()
    };
    let largest = u32::try_from(ALIGNMENT).unwrap_or(u32::MAX);
    (asked.filter(|size| size.is_power_of_two()))
        .or_else(sector)
        .filter(|size| size.is_power_of_two() && *size <= largest)
        .unwrap_or(largest)
}

/// The logical sector size of a device. The kernel does not zero or discard parts of a sector.
pub(super) fn hole_unit(file: &File, is_device: bool) -> u64 {
    if !is_device {
        return 1;
    }
    let sector = rustix::fs::ioctl_blksszget(file).ok();
    let sector = sector.filter(|size| size.is_power_of_two());
    sector.map_or(ALIGNMENT as u64, u64::from)
}
