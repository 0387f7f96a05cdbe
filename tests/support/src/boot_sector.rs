//! A guest whose whole program is one boot sector. It reads and writes, so that the content of its
//! disk afterwards shows that the disk was the volume.

/// 16-bit x86, loaded at 0x7c00: reads 64 sectors from sector 1 on, inverts every bit, writes them
/// at sector 2048, and ends the machine by its debug port: with 0x10, or with 0x20 if the disk
/// failed.
const PROGRAM: &[u8] = &[
    0x31, 0xc0, // xor %ax,%ax
    0x8e, 0xd8, // mov %ax,%ds
    0x8e, 0xc0, // mov %ax,%es
    0x8e, 0xd0, // mov %ax,%ss
    0xbc, 0x00, 0x7c, // mov $0x7c00,%sp
    0xbe, 0x3c, 0x7c, // mov $packet,%si
    0xb4, 0x42, // mov $0x42,%ah       extended read; %dl is the disk that was booted from
    0xcd, 0x13, // int $0x13
    0x72, 0x21, // jc failed
    0xbb, 0x00, 0x80, // mov $0x8000,%bx
    0xb9, 0x00, 0x40, // mov $0x4000,%cx
    0xf7, 0x17, // turn: notw (%bx)
    0x83, 0xc3, 0x02, // add $2,%bx
    0xe2, 0xf9, // loop turn
    0xc7, 0x06, 0x44, 0x7c, 0x00, 0x08, // movw $2048,packet+8
    0xbe, 0x3c, 0x7c, // mov $packet,%si
    0xb8, 0x00, 0x43, // mov $0x4300,%ax     extended write
    0xcd, 0x13, // int $0x13
    0x72, 0x04, // jc failed
    0xb0, 0x10, // mov $0x10,%al
    0xeb, 0x02, // jmp end
    0xb0, 0x20, // failed: mov $0x20,%al
    0xe6, 0xf4, // end: out %al,$0xf4
    0xf4, 0x66, 0x90, // hlt, and room
    0x10, 0x00, 0x40, 0x00, // packet: its size, 64 sectors,
    0x00, 0x80, 0x00, 0x00, // to and from 0:0x8000,
    0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // at sector 1
];
const READ: std::ops::Range<usize> = 512..512 + 64 * 512;
const WRITTEN: usize = 2048 * 512;

/// The boot sector, for the first 512 bytes of the disk.
pub fn sector() -> Vec<u8> {
    let mut sector = PROGRAM.to_vec();
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector
}

/// What the disk holds after the guest has run, if it held the boot sector and then `content` from
/// byte 512 on.
///
/// # Panics
///
/// If the disk is smaller than 1 MiB and 32 KiB.
pub fn disk_after(mut content: Vec<u8>) -> Vec<u8> {
    content[..512].copy_from_slice(&sector());
    let turned: Vec<u8> = content[READ].iter().map(|byte| !byte).collect();
    content[WRITTEN..WRITTEN + turned.len()].copy_from_slice(&turned);
    content
}
