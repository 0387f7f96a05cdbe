//! Superblocks as the kernel writes them, and those that no kernel writes.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may fail"
)]

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::error::Kind;

/// The superblock of a device: its areas have 2^15 sectors, its sectors 512 << `log2_block` bytes.
fn superblock(tag: u16, sections: u32, sectors: u64, flags: u32, log2_block: u8) -> Vec<u8> {
    let mut bytes = vec![0; SUPERBLOCK];
    bytes[..8].copy_from_slice(b"integrt\0");
    bytes[8] = 4;
    bytes[9] = 15;
    bytes[10..12].copy_from_slice(&tag.to_le_bytes());
    bytes[12..16].copy_from_slice(&sections.to_le_bytes());
    bytes[16..24].copy_from_slice(&sectors.to_le_bytes());
    bytes[24..28].copy_from_slice(&flags.to_le_bytes());
    bytes[28] = log2_block;
    bytes
}

fn places(bytes: &[u8], start: u64, size: u64) -> Result<Places, FormatError> {
    Superblock::parse(bytes, start)?.places(start, size)
}

const LARGE: u64 = 1 << 40;

#[test]
fn places_are_those_of_the_kernel() {
    // An HMAC of each 4096 bytes: 4 entries of 104 bytes in a journal sector, so 264 sectors in a
    // section. The tags of an area have 4096 * 32 bytes.
    let found = places(&superblock(32, 1, 2032, 8, 3), 1 << 20, LARGE).unwrap();
    let first = (1 << 20) + (8 + 264) * 512;
    assert_eq!((found.size(), found.sector_size()), (2032 * 512, 4096));
    assert_eq!((found.section_size(), found.sections()), (264 * 512, 1));
    assert_eq!(found.journal(), (1 << 20) + 4096..first);
    let run = found.run(4096..12_288).unwrap();
    assert_eq!((run.tags, run.len), (first + 32, 8192));
    assert_eq!(run.data, first + 131_072 + 4096);
    assert_eq!(found.end(), first + 131_072 + 2032 * 512);

    // Sectors of 1024 bytes: an entry has 56 bytes, so 9 of them fill all 504 bytes.
    let found = places(&superblock(32, 1, 1376, 8, 1), 0, LARGE).unwrap();
    assert_eq!(found.section_size(), (8 * 9 * 2 + 8) * 512);

    // A second area: 28 bytes of each sector of 512 make 917504 bytes, which are 224 blocks.
    let found = places(&superblock(28, 6, 67_816, 8, 0), 0, LARGE).unwrap();
    let first = (8 + 6 * (8 * 10 + 8)) * 512;
    let run = found.run((16 << 20) - 512..(16 << 20) + 512).unwrap();
    assert_eq!(
        (run.len, run.data),
        (512, first + 917_504 + (16 << 20) - 512)
    );
    assert_eq!(run.tags, first + 32_767 * 28);
    let run = found.run(16 << 20..(16 << 20) + 512).unwrap();
    assert_eq!(run.tags, first + 917_504 + (16 << 20));
    assert_eq!(run.data, run.tags + 917_504);

    // The padding of the first versions is 128 KiB.
    let found = places(&superblock(28, 6, 67_816, 0, 0), 0, LARGE).unwrap();
    assert_eq!(found.run(0..512).unwrap().data, first + 917_504);
    let found = places(&superblock(20, 6, 67_816, 0, 0), 0, LARGE).unwrap();
    let tags = found.run(0..512).unwrap();
    assert_eq!(tags.data - tags.tags, 655_360);
    let found = places(&superblock(48, 6, 67_816, 8, 3), 0, LARGE).unwrap();
    let tags = found.run(0..4096).unwrap();
    assert_eq!(tags.data - tags.tags, 196_608);
}

#[test]
fn runs_are_whole_sectors_inside_of_the_data() {
    let found = places(&superblock(28, 1, 2064, 8, 3), 0, LARGE).unwrap();
    for range in [
        0..0,
        1..4096,
        0..4095,
        512..4608,
        4096..4096,
        0..(2064 * 512) + 4096,
        2064 * 512..2064 * 512 + 4096,
        u64::MAX - 4095..u64::MAX,
    ] {
        assert_eq!(found.run(range.clone()), None, "{range:?}");
    }
    assert!(found.run(0..2064 * 512).is_some());
}

#[test]
fn the_data_is_inside_of_the_storage() {
    let bytes = superblock(32, 1, 2032, 8, 3);
    let end = places(&bytes, 4096, LARGE).unwrap().end();
    assert!(places(&bytes, 4096, end).is_ok());
    let error = places(&bytes, 4096, end - 1).unwrap_err();
    assert_eq!(error.kind, Kind::Malformed);
    assert!(error.cause.contains("the storage ends at"), "{error}");
}

#[test]
fn an_entry_in_use_is_found_wherever_it_is() {
    for (tag, sections, log2_block) in [(32, 1, 3), (48, 1, 0), (32, 1, 1), (424, 2, 3)] {
        let found = places(&superblock(tag, sections, 2048, 8, log2_block), 0, LARGE).unwrap();
        let size = (8 + (8 << log2_block) + usize::from(tag)).next_multiple_of(8);
        let per_sector = 504 / size;
        let mut clean = [0; ENTRIES];
        for sector in 0..8 {
            for entry in 0..per_sector {
                clean[sector * 512 + entry * size + 4..][..4].fill(0xff);
            }
        }
        assert_eq!(found.used_entry(&clean), None);
        for sector in 0..8 {
            for entry in 0..per_sector {
                for high in [0_u32, 1, u32::MAX - 1] {
                    let mut used = clean;
                    let place = sector * 512 + entry * size;
                    used[place..][..4].copy_from_slice(&7_u32.to_le_bytes());
                    used[place + 4..][..4].copy_from_slice(&high.to_le_bytes());
                    let number = u64::from(high) << 32 | 7;
                    assert_eq!(found.used_entry(&used), Some(number));
                }
            }
        }
        // What is between the last entry and the end of a journal sector is no entry.
        let mut other = clean;
        other[504..512].fill(0x5a);
        assert_eq!(found.used_entry(&other), None);
    }
}

/// What is wrong with a superblock after a change of one of its bytes.
fn refused(at: usize, byte: u8) -> (Kind, String) {
    let mut bytes = superblock(32, 1, 2032, 8, 3);
    bytes[at] = byte;
    let error = places(&bytes, 0, LARGE).unwrap_err();
    (error.kind, error.cause)
}

#[test]
fn each_fault_has_its_refusal() {
    for (at, byte, kind, words) in [
        (0, b'I', Kind::Malformed, "there is none"),
        (7, 1, Kind::Malformed, "there is none"),
        (8, 0, Kind::Unsupported, "0 is not known"),
        (8, 7, Kind::Unsupported, "7 is not known"),
        (9, 2, Kind::Malformed, "areas"),
        (9, 32, Kind::Malformed, "areas"),
        (9, 0xff, Kind::Malformed, "areas"),
        (10, 0, Kind::Malformed, "tag"),
        (11, 0xff, Kind::Malformed, "tag"),
        (12, 0, Kind::Malformed, "no journal"),
        (15, 0xff, Kind::OverLimit, "at most"),
        (16, 1, Kind::Malformed, "not a number of sectors"),
        (23, 0xff, Kind::Malformed, "too large"),
        (22, 1, Kind::Malformed, "the storage ends"),
        (24, 8 | 1, Kind::Unsupported, "codes of authentication"),
        (24, 8 | 2, Kind::Unsupported, "being computed"),
        (24, 8 | 4, Kind::Unsupported, "bitmap"),
        (
            24,
            8 | 32,
            Kind::Unsupported,
            "in the sectors of the device",
        ),
        (24, 8 | 64, Kind::Unsupported, "0x40"),
        (27, 0x80, Kind::Unsupported, "0x80000000"),
        (28, 4, Kind::Malformed, "no sectors of this size"),
        (28, 0xff, Kind::Malformed, "no sectors of this size"),
    ] {
        let (found, cause) = refused(at, byte);
        assert_eq!(found, kind, "byte {at}: {cause}");
        assert!(cause.contains(words), "byte {at}: {cause}");
    }
    for flags in [0, 8, 8 | 16] {
        assert!(places(&superblock(32, 1, 2032, flags, 3), 0, LARGE).is_ok());
    }
    for length in [0, 8, SUPERBLOCK - 1] {
        let bytes = superblock(32, 1, 2032, 8, 3);
        assert!(Superblock::parse(&bytes[..length], 0).is_err());
    }
}

proptest! {
    /// Whatever a superblock says, what it describes is inside of the storage, and no two sectors
    /// or tags have a byte in common.
    #[test]
    fn all_places_are_inside_and_apart(
        tag in 1..=LARGEST_TAG,
        sections in 1..=5_u32,
        blocks in 1..200_000_u64,
        padding in any::<bool>(),
        log2_block in 0..=3_u8,
        log2_area in 3..=31_u8,
        start in 0..1_u64 << 40,
        at in any::<prop::sample::Index>(),
    ) {
        let mut bytes = superblock(tag, sections, blocks << log2_block, u32::from(padding) << 3, log2_block);
        bytes[9] = log2_area;
        let start = start * 512;
        let found = places(&bytes, start, u64::MAX).unwrap();
        prop_assert!(places(&bytes, start, found.end()).is_ok());
        let unit = u64::from(found.sector_size());
        let one = |block: u64| found.run(block * unit..(block + 1) * unit).unwrap();
        let block = at.index(usize::try_from(blocks).unwrap()) as u64;
        let this = one(block);
        let size = u64::from(tag);
        prop_assert!(this.tags >= found.journal().end && this.data + unit <= found.end());
        prop_assert!(this.tags + size <= this.data || this.data + unit <= this.tags);
        if block + 1 < blocks {
            let next = one(block + 1);
            prop_assert!(this.data + unit <= next.data && this.tags + size <= next.tags);
            prop_assert!(next.tags + size <= this.data || this.data + unit <= next.tags);
        }
    }

    /// No bytes make the parser fail otherwise than with an error.
    #[test]
    fn arbitrary_superblocks(
        mut bytes in prop::collection::vec(any::<u8>(), SUPERBLOCK),
        begins in any::<bool>(),
        start in any::<u64>(),
        size in any::<u64>(),
        range in any::<(u64, u64)>(),
    ) {
        if begins {
            let good = superblock(32, 1, 2032, 8, 3);
            bytes[..10].copy_from_slice(&good[..10]);
            bytes[24..29].copy_from_slice(&good[24..29]);
        }
        if let Ok(found) = places(&bytes, start, size) {
            prop_assert!(found.end() <= size);
            if let Some(run) = found.run(range.0..range.1) {
                prop_assert!(run.len > 0 && run.data + run.len <= found.end());
            }
        }
    }
}
