//! The signatures of file systems, partition tables and files.
//!
//! A signature gives a name to plaintext that the statistics find. A signature of at least eight
//! bytes is a finding by itself: the rest of the first sector of a compressed file may look random.

use super::randomness::SECTOR;

/// Bytes at a fixed offset of a sector.
struct Signature {
    name: &'static str,
    at: usize,
    bytes: &'static [u8],
}

const fn signature(name: &'static str, at: usize, bytes: &'static [u8]) -> Signature {
    Signature { name, at, bytes }
}

/// The signatures, from the specification of each format. Where a superblock is not in the first
/// sector of its volume, `at` is the offset in the superblock's sector.
const SIGNATURES: &[Signature] = &[
    // At least eight bytes. There may be at most 16 of them: `randomness::false_alarm_bound` is
    // computed with this number.
    signature("GPT partition table", 0, b"EFI PART"),
    signature("LVM2 physical volume", 0, b"LABELONE"),
    signature("btrfs file system", 64, b"_BHRfS_M"),
    signature("NTFS file system", 3, b"NTFS    "),
    signature("exFAT file system", 3, b"EXFAT   "),
    signature("FAT file system", 54, b"FAT16   "),
    signature("FAT file system", 82, b"FAT32   "),
    signature("swap space", 502, b"SWAPSPACE2"),
    signature("SQLite database", 0, b"SQLite format 3\0"),
    signature("PEM text", 0, b"-----BEGIN "),
    signature("PNG picture", 0, b"\x89PNG\r\n\x1a\n"),
    signature("JPEG picture", 0, b"\xff\xd8\xff\xe0\x00\x10JFIF\0"),
    signature("xz archive", 0, b"\xfd7zXZ\0\x00\x04"),
    signature("7z archive", 0, b"7z\xbc\xaf\x27\x1c\x00\x04"),
    signature("RAR archive", 0, b"Rar!\x1a\x07\x01\x00"),
    // These only give a name to what the statistics find.
    signature("LUKS header", 0, b"LUKS\xba\xbe"),
    signature("LUKS header", 0, b"SKUL\xba\xbe"),
    signature("XFS file system", 0, b"XFSB"),
    signature("ext file system", 56, b"\x53\xef"),
    signature("F2FS file system", 0, b"\x10\x20\xf5\xf2"),
    signature("squashfs file system", 0, b"hsqs"),
    signature("ISO 9660 file system", 1, b"CD001"),
    signature("qcow2 image", 0, b"QFI\xfb"),
    signature("ELF program", 0, b"\x7fELF"),
    signature("PDF document", 0, b"%PDF-"),
    signature("zip archive", 0, b"PK\x03\x04"),
    signature("gzip archive", 0, b"\x1f\x8b\x08"),
    signature("zstd archive", 0, b"\x28\xb5\x2f\xfd"),
    signature("boot sector", 510, b"\x55\xaa"),
];

/// The length from which a signature is a finding by itself, in bytes.
const ALONE: usize = 8;

impl Signature {
    fn is_in(&self, sector: &[u8; SECTOR]) -> bool {
        sector
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(self.bytes))
    }
}

/// The name of a signature in the sector that is long enough to be a finding by itself.
#[must_use]
pub fn alone(sector: &[u8; SECTOR]) -> Option<&'static str> {
    SIGNATURES
        .iter()
        .take_while(|signature| signature.bytes.len() >= ALONE)
        .find(|signature| signature.is_in(sector))
        .map(|signature| signature.name)
}

/// The name of any signature in the sector, for a sector that does not look random.
#[must_use]
pub fn any(sector: &[u8; SECTOR]) -> Option<&'static str> {
    SIGNATURES
        .iter()
        .find(|signature| signature.is_in(sector))
        .map(|signature| signature.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_signatures_come_first_and_are_at_most_16() {
        let long = |signature: &Signature| signature.bytes.len() >= ALONE;
        assert!(SIGNATURES.is_sorted_by_key(|signature| !long(signature)));
        assert!(
            SIGNATURES
                .iter()
                .filter(|signature| long(signature))
                .count()
                <= 16
        );
        for signature in SIGNATURES {
            assert!(
                signature.at + signature.bytes.len() <= SECTOR,
                "{}",
                signature.name
            );
        }
    }

    #[test]
    fn sectors_are_named() {
        let mut sector = [1; SECTOR];
        assert_eq!((alone(&sector), any(&sector)), (None, None));
        sector[510..].copy_from_slice(b"\x55\xaa");
        assert_eq!((alone(&sector), any(&sector)), (None, Some("boot sector")));
        sector[3..11].copy_from_slice(b"NTFS    ");
        assert_eq!(alone(&sector), Some("NTFS file system"));
        assert_eq!(any(&sector), Some("NTFS file system"));
    }
}
