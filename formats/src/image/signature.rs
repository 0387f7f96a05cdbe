//! The signatures by which programs recognise a format, at the start or the end of an image.

use alloc::vec::Vec;

use super::fields::array;
use super::partitions;
use super::qcow2;
use crate::version::MAGIC as LUKS;

/// The number of bytes at the start that [`signatures`] looks at.
pub const START: usize = 42 << 10;
/// The number of bytes at the end that [`signatures`] looks at.
pub const END: usize = 1024;

/// A signature that was found: the format by its usual name, and where the signature is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The format.
    pub format: &'static str,
    /// The offset of the signature in bytes from the start of the image.
    pub offset: u64,
}

/// Signatures at a fixed offset from the start.
const MAGICS: &[(&str, usize, &[u8])] = &[
    ("qed", 0, b"QED\0"),
    ("vmdk", 0, b"KDMV"),
    ("vmdk", 0, b"COWD"),
    ("vmdk", 0, b"\xbe\xba\xfe\xca\0\0\0\0"),
    ("vmdk", 0, b"# Disk DescriptorFile"),
    ("vhd", 0, b"conectix"),
    ("vhdx", 0, b"vhdxfile"),
    ("vdi", 64, b"\x7f\x10\xda\xbe"),
    ("luks", 0, &LUKS),
    ("bochs", 0, b"Bochs Virtual HD Image"),
    ("parallels", 0, b"WithoutFreeSpace"),
    ("parallels", 0, b"WithouFreSpacExt"),
    ("cloop", 0, b"#!/bin/sh\n#V2.0 Format\n"),
    ("gpt", 512, b"EFI PART"),
    ("gpt", 4096, b"EFI PART"),
    ("iso", 32769, b"CD001"),
    ("iso", 34817, b"CD001"),
    ("iso", 36865, b"CD001"),
    ("udf", 32769, b"BEA01"),
    ("udf", 32769, b"NSR02"),
    ("udf", 32769, b"NSR03"),
    ("udf", 34817, b"NSR02"),
    ("udf", 34817, b"NSR03"),
    ("udf", 36865, b"NSR02"),
    ("udf", 36865, b"NSR03"),
    ("udf", 40961, b"NSR02"),
    ("udf", 40961, b"NSR03"),
];

/// Every format whose signature an image of `size` bytes has. `start` is its first [`START`] bytes,
/// and `end` its last [`END`] bytes. Each is the whole image if that is shorter.
pub fn signatures(start: &[u8], end: &[u8], size: u64) -> Vec<Signature> {
    let mut found = Vec::new();
    let mut add = |format, offset| found.push(Signature { format, offset });
    if start.starts_with(&qcow2::MAGIC) {
        let version = u32::from_be_bytes(array(start, 4));
        add(if version == 1 { "qcow1" } else { "qcow2" }, 0);
    }
    for (format, at, magic) in MAGICS {
        if start.get(*at..).is_some_and(|rest| rest.starts_with(magic)) {
            add(format, *at as u64);
        }
    }
    if is_descriptor(start) && !start.starts_with(b"# Disk DescriptorFile") {
        add("vmdk", 0);
    }
    if is_mbr(start) {
        add("mbr", 510);
    }
    // A footer of 512 bytes, or of 511 as early versions of Virtual PC wrote it. At the start of
    // the image, it was found above.
    let from_end = |back: usize, magic: &[u8]| {
        let at = end.len().checked_sub(back)?;
        let whole = size.checked_sub(back as u64).filter(|at| *at > 0)?;
        end.get(at..)?.starts_with(magic).then_some(whole)
    };
    for back in [512, 511] {
        if let Some(at) = from_end(back, b"conectix") {
            add("vhd", at);
        }
    }
    if let Some(at) = koly(end) {
        add(
            "dmg",
            size.saturating_sub(end.len() as u64).saturating_add(at),
        );
    }
    found
}

/// The offset of the trailer of a DMG in the last 1023 bytes. QEMU searches them for these four
/// letters and checks nothing else.
fn koly(end: &[u8]) -> Option<u64> {
    let from = end.len().saturating_sub(1023);
    let at = end
        .windows(4)
        .skip(from)
        .position(|bytes| bytes == b"koly")?;
    Some(at.saturating_add(from) as u64)
}

/// Whether it is a text of comments and blank lines before `version=`, which QEMU recognises as a
/// VMDK descriptor.
fn is_descriptor(start: &[u8]) -> bool {
    for line in start
        .get(..4096)
        .unwrap_or(start)
        .split(|byte| *byte == b'\n')
    {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let blank = line.iter().all(|byte| *byte == b' ');
        if blank || line.starts_with(b"#") {
            continue;
        }
        return matches!(line, b"version=1" | b"version=2" | b"version=3");
    }
    false
}

/// Whether there is a boot signature after a partition table that is valid, or empty (a new MS-DOS
/// label).
fn is_mbr(start: &[u8]) -> bool {
    partitions::mbr(start).is_some_and(|entries| {
        entries.iter().all(|entry| matches!(entry.boot, 0 | 0x80))
            && entries
                .iter()
                .any(|entry| entry.kind != 0 && entry.sectors != 0)
    }) || is_empty_label(start)
}

/// Whether there is a boot signature after four entries of zeroes.
fn is_empty_label(start: &[u8]) -> bool {
    let entries: [u8; 64] = array(start, 446);
    partitions::mbr(start).is_some() && entries == [0; 64]
}
