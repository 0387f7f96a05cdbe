//! Writes tables of partitions into images.

use std::ops::Range;

use luksmith_formats::image::partitions::Crc32;

/// The bytes of the entries of a GPT: 128 of 128 bytes.
const ENTRIES: usize = 16384;

/// Writes a GPT in both copies, with its protective MBR. The partitions are numbers with ranges of
/// sectors. The image has whole sectors, and zeroes at the places of the tables.
///
/// # Panics
/// An image that is too small.
pub fn gpt(image: &mut [u8], sector: usize, partitions: &[(usize, Range<u64>)]) {
    let last = image.len() / sector - 1;
    let each = ENTRIES.div_ceil(sector);
    mbr(image, &[(1, 0xee, 1..last as u64 + 1)]);
    for (number, range) in partitions {
        let at = 2 * sector + (number - 1) * 128;
        put(image, at, &[0xab; 32]);
        put(image, at + 32, &range.start.to_le_bytes());
        put(image, at + 40, &(range.end - 1).to_le_bytes());
    }
    let backup = (last - each) * sector;
    image.copy_within(2 * sector..2 * sector + ENTRIES, backup);
    for (lba, alternate, entries) in [(1, last, 2), (last, 1, last - each)] {
        let at = lba * sector;
        put(image, at, b"EFI PART\0\0\x01\0\x5c\0\0\0");
        put(image, at + 24, &(lba as u64).to_le_bytes());
        put(image, at + 32, &(alternate as u64).to_le_bytes());
        put(image, at + 40, &(2 + each as u64).to_le_bytes());
        put(image, at + 48, &((last - each - 1) as u64).to_le_bytes());
        put(image, at + 56, &[0xcd; 16]);
        put(image, at + 72, &(entries as u64).to_le_bytes());
        put(image, at + 80, &[128, 0, 0, 0, 128, 0, 0, 0]);
        seal(image, sector, lba);
    }
}

/// Corrects the checksums of the copy of a GPT whose header is in this sector.
///
/// # Panics
/// An image that is too small.
pub fn seal(image: &mut [u8], sector: usize, lba: usize) {
    let at = lba * sector;
    let entries = u64::from_le_bytes(image[at + 72..at + 80].try_into().unwrap());
    let entries = usize::try_from(entries).unwrap() * sector;
    let checksum = crc(&image[entries..entries + ENTRIES]);
    put(image, at + 88, &checksum.to_le_bytes());
    put(image, at + 16, &[0; 4]);
    let checksum = crc(&image[at..at + 92]);
    put(image, at + 16, &checksum.to_le_bytes());
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc32::default();
    crc.update(bytes);
    crc.value()
}

/// Writes an MBR. The partitions are numbers with types and ranges of sectors.
///
/// # Panics
/// An image that is too small, and numbers that no MBR has.
pub fn mbr(image: &mut [u8], partitions: &[(usize, u8, Range<u64>)]) {
    put(image, 510, &[0x55, 0xaa]);
    for (number, kind, range) in partitions {
        let at = 446 + (number - 1) * 16;
        put(image, at, &[0, 0, 2, 0, *kind]);
        let number = |number: u64| u32::try_from(number).unwrap().to_le_bytes();
        put(image, at + 8, &number(range.start));
        put(image, at + 12, &number(range.end - range.start));
    }
}

/// Writes the chain of tables of an extended partition that begins at this sector. Each table is
/// the number of its sector with the range of its logical partition, in the order of the chain.
///
/// # Panics
/// An image that is too small.
pub fn chain(image: &mut [u8], sector: usize, extended: u64, tables: &[(u64, Range<u64>)]) {
    for (index, (table, range)) in tables.iter().enumerate() {
        let mut entries = vec![(1, 0x83, range.start - table..range.end - table)];
        if let Some((next, range)) = tables.get(index + 1) {
            entries.push((2, 0x05, next - extended..range.end - extended));
        }
        let at = usize::try_from(*table).unwrap() * sector;
        mbr(&mut image[at..], &entries);
    }
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}
