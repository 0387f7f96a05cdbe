//! Tables of partitions that are damaged, that contradict each other, or that programs could read
//! in two ways.

use std::ops::Range;

use luksmith::backend::memory::MemoryBackend;
use luksmith::partition::{Disk, PartitionError};
use support::partitions::{chain, gpt, mbr, seal};

const SECTORS: usize = 2048;
const SIZE: usize = SECTORS * 512;

fn find(image: &[u8], number: u32) -> Result<Range<u64>, PartitionError> {
    let storage = MemoryBackend::from_bytes(image.to_vec());
    Disk::of(&storage).partition(number)
}

#[track_caller]
fn found(image: &[u8], number: u32, sectors: Range<u64>, sector: u64) {
    let range = sectors.start * sector..sectors.end * sector;
    assert_eq!(find(image, number).unwrap(), range, "partition {number}");
}

/// A change of a good image: its name, what the error says (nothing if the partition is found all
/// the same), and the change.
type Case = (&'static str, &'static str, fn(&mut Vec<u8>));

#[track_caller]
fn table(good: &[u8], number: u32, cases: &[Case]) {
    let place = find(good, number).unwrap();
    for (name, says, change) in cases {
        let mut image = good.to_vec();
        change(&mut image);
        assert!(image != good, "{name}: changes nothing");
        match find(&image, number) {
            Ok(range) => assert!(says.is_empty() && range == place, "{name}: {range:?}"),
            Err(error) => {
                let error = error.to_string();
                assert!(!says.is_empty() && error.contains(says), "{name}: {error}");
            }
        }
    }
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Partitions 1, 2 and 7.
fn gpt_disk() -> Vec<u8> {
    let mut image = vec![0; SIZE];
    gpt(
        &mut image,
        512,
        &[(1, 34..100), (2, 100..2015), (7, 2015..2015)],
    );
    // Entry 7 is not in use.
    put(&mut image, 1024 + 6 * 128, &[0; 128]);
    put(&mut image, 2015 * 512 + 6 * 128, &[0; 128]);
    seal(&mut image, 512, 1);
    seal(&mut image, 512, 2047);
    image
}

/// Writes the range of an entry into both copies.
fn entry(image: &mut [u8], number: usize, range: Range<u64>) {
    for (table, header) in [(1024, 1), (2015 * 512, 2047)] {
        let at = table + (number - 1) * 128;
        put(image, at, &[0xab; 32]);
        put(image, at + 32, &range.start.to_le_bytes());
        put(image, at + 40, &range.end.wrapping_sub(1).to_le_bytes());
        seal(image, 512, header);
    }
}

/// Changes the first header, and corrects its checksum.
fn header(image: &mut [u8], at: usize, bytes: &[u8]) {
    put(image, 512 + at, bytes);
    seal(image, 512, 1);
}

#[test]
fn a_gpt() {
    let good = gpt_disk();
    found(&good, 1, 34..100, 512);
    found(&good, 2, 100..2015, 512);
    for number in [0, 3, 7, 128, 129, u32::MAX] {
        let error = find(&good, number).unwrap_err().to_string();
        assert!(error.ends_with("the GPT has 1 and 2"), "{error}");
    }
    let copy = "; its second copy has the partition at byte 51200, with 980480 bytes";
    let cases: &[Case] = &[
        ("no MBR", "no MBR that protects", |i| put(i, 510, &[0; 2])),
        ("a boot sector", "no MBR that protects", |i| {
            put(i, 446, b"x")
        }),
        ("an MBR of its own", "does not protect it: programs", |i| {
            put(i, 450, &[0x83])
        }),
        ("protection from sector 2", "not begin at sector 1", |i| {
            put(i, 454, &[2])
        }),
        ("another partition in the MBR", "", |i| {
            mbr(i, &[(3, 0x83, 40..50)])
        }),
        ("no header", "no header at the start", |i| {
            put(i, 512, &[0; 512])
        }),
        ("no header, but a copy", "at byte 51200", |i| {
            put(i, 512, &[0; 512])
        }),
        (
            "a header of nonsense",
            "header of the GPT is damaged",
            |i| put(i, 520, &[7]),
        ),
        ("a header with another place", "header of the GPT is", |i| {
            header(i, 24, &[2])
        }),
        ("entries of 64 bytes", "header of the GPT is damaged", |i| {
            header(i, 84, &[64])
        }),
        (
            "entries of 129 bytes",
            "header of the GPT is damaged",
            |i| header(i, 84, &[129]),
        ),
        ("no entries", "header of the GPT is damaged", |i| {
            header(i, 80, &[0])
        }),
        ("many entries", "header of the GPT is damaged", |i| {
            header(i, 80, &[255, 255, 255, 255])
        }),
        ("entries over the first partition", "header of the", |i| {
            header(i, 40, &[30])
        }),
        ("usable sectors over the end", "header of the GPT is", |i| {
            header(i, 48, &[0, 8])
        }),
        ("a length of the header", "header of the GPT is", |i| {
            put(i, 512 + 12, &[0, 16])
        }),
        ("damaged entries", "checksum is wrong; its", |i| {
            put(i, 1024 + 56, b"a name")
        }),
        ("two entries", "the two copies of the GPT differ", |i| {
            put(i, 1024 + 128 + 32, &[101]);
            seal(i, 512, 1);
        }),
        ("another entry in the second copy", "", |i| {
            put(i, 2015 * 512 + 32, &[35]);
            seal(i, 512, 2047);
        }),
        ("no second copy", "", |i| put(i, 2047 * 512, &[0; 512])),
        ("a damaged second copy", "", |i| put(i, 2016 * 512, &[1])),
        ("a second copy nowhere", "", |i| header(i, 32, &[255; 8])),
        ("a disk that was enlarged", "", |i| i.resize(SIZE * 2, 0)),
        ("a disk that was cut", "header of the GPT is damaged", |i| {
            i.truncate(SIZE / 2)
        }),
        ("one that ends before it begins", "does not lie", |i| {
            entry(
                i,
                2,
                Range {
                    start: 200,
                    end: 100,
                },
            )
        }),
        ("one over the tables", "does not lie within", |i| {
            entry(i, 2, 2..100)
        }),
        ("one over the second copy", "does not lie within", |i| {
            entry(i, 2, 100..2016)
        }),
        ("one of the largest numbers", "does not lie within", |i| {
            entry(i, 2, u64::MAX - 5..u64::MAX)
        }),
        ("one that overlaps", "overlaps partition 1", |i| {
            entry(i, 2, 99..2015)
        }),
        ("one within another", "overlaps partition 5", |i| {
            entry(i, 5, 100..101)
        }),
        ("others that overlap", "", |i| {
            entry(i, 2, 100..1000);
            entry(i, 5, 40..50);
            entry(i, 2, 100..2015);
        }),
    ];
    table(&good, 2, cases);
    let mut without = good.clone();
    put(&mut without, 512, &[0; 512]);
    let error = find(&without, 2).unwrap_err().to_string();
    assert!(error.ends_with(copy), "{error}");
    let error = find(&without, 3).unwrap_err().to_string();
    assert_eq!(error, "the GPT has no header at the start of the disk");
}

#[test]
fn a_gpt_with_sectors_of_4096_bytes() {
    let mut image = vec![0; 64 * 4096];
    gpt(&mut image, 4096, &[(1, 6..20), (2, 20..59)]);
    found(&image, 2, 20..59, 4096);
    let storage = MemoryBackend::from_bytes(image).with_block_size(4096);
    let disk = |sector| Disk::of(&storage).with_sector_size(sector);
    assert_eq!(disk(4096).partition(1).unwrap(), 6 * 4096..20 * 4096);
    let error = disk(512).partition(1).unwrap_err().to_string();
    assert!(error.contains("no header at the start"), "{error}");
}

/// Primary partitions 1 and 3, an extended one, and three logical ones whose order is not that of
/// their places.
fn mbr_disk() -> Vec<u8> {
    let mut image = vec![0; SIZE];
    mbr(
        &mut image,
        &[
            (1, 0x83, 63..163),
            (2, 0x05, 200..1000),
            (3, 0x83, 1000..2048),
        ],
    );
    let tables = [(200, 210..260), (600, 610..700), (400, 410..420)];
    chain(&mut image, 512, 200, &tables);
    image
}

#[test]
fn an_mbr() {
    let good = mbr_disk();
    for (number, sectors) in [
        (1, 63..163),
        (3, 1000..2048),
        (5, 210..260),
        (6, 610..700),
        (7, 410..420),
    ] {
        found(&good, number, sectors, 512);
    }
    let error = find(&good, 2).unwrap_err().to_string();
    assert!(error.contains("an extended one"), "{error}");
    for number in [8, 4000] {
        let error = find(&good, number).unwrap_err().to_string();
        assert!(error.ends_with("has 1, 2, 3, 5, 6 and 7"), "{error}");
    }
    for number in [0, 4] {
        let error = find(&good, number).unwrap_err().to_string();
        assert!(error.ends_with("has 1, 2 and 3"), "{error}");
    }
    let storage = MemoryBackend::from_bytes(vec![0; 8 * 4096]);
    let disk = Disk::of(&storage).with_sector_size(4096);
    assert!(matches!(disk.partition(1), Err(PartitionError::NoTable)));
    let mut image = vec![0; 8 * 4096];
    mbr(&mut image, &[(1, 0x83, 2..4)]);
    let storage = MemoryBackend::from_bytes(image);
    let disk = Disk::of(&storage).with_sector_size(4096);
    assert_eq!(disk.partition(1).unwrap(), 2 * 4096..4 * 4096);

    let cases: &[Case] = &[
        ("no signature", "no table", |i| put(i, 510, &[0; 2])),
        ("a boot sector", "no table", |i| put(i, 446, b"x")),
        ("an active partition", "", |i| put(i, 446, &[0x80])),
        ("one on the MBR", "does not lie", |i| put(i, 454, &[0])),
        ("one over the end", "does not lie within", |i| {
            put(i, 458, &[0, 0, 1])
        }),
        ("of the largest numbers", "does not lie within", |i| {
            put(i, 454, &[255; 8])
        }),
        ("one that overlaps", "overlaps partition 2", |i| {
            mbr(i, &[(1, 0x83, 63..201)])
        }),
        ("one over an extended one", "overlaps partition 2", |i| {
            mbr(i, &[(1, 0x83, 500..501)])
        }),
        ("others that overlap", "", |i| {
            mbr(i, &[(4, 0x83, 900..1100)])
        }),
        ("a type of zero", "no partition 1", |i| put(i, 450, &[0])),
        ("no length", "no partition 1", |i| put(i, 458, &[0])),
        ("a cut chain", "", |i| put(i, 200 * 512, &[0; 512])),
        ("the rest of a GPT", "", |i| put(i, 512, b"EFI PART")),
    ];
    table(&good, 1, cases);
}

#[test]
fn logical_partitions() {
    let good = mbr_disk();
    let cases: &[Case] = &[
        ("two extended ones", "number its logical", |i| {
            mbr(i, &[(4, 0x0f, 170..180)])
        }),
        (
            "an extended one over the end",
            "partition 2 does not",
            |i| mbr(i, &[(2, 0x05, 200..2049), (3, 0, 200..200)]),
        ),
        (
            "an extended one that overlaps",
            "partition 2 overlaps",
            |i| mbr(i, &[(2, 0x05, 200..1001)]),
        ),
        ("a table that is missing", "chain of logical", |i| {
            put(i, 600 * 512 + 510, &[0; 2])
        }),
        ("a later table that is missing", "chain of logical", |i| {
            put(i, 400 * 512 + 510, &[0; 2])
        }),
        ("a chain that stands still", "chain of logical", |i| {
            mbr(&mut i[400 * 512..], &[(2, 0x05, 200..300)])
        }),
        ("a chain in a circle", "chain of logical", |i| {
            mbr(&mut i[400 * 512..], &[(2, 0x05, 0..300)])
        }),
        ("a chain that leaves", "chain of logical", |i| {
            mbr(&mut i[400 * 512..], &[(2, 0x05, 800..900)])
        }),
        ("a third entry", "number its logical", |i| {
            mbr(&mut i[200 * 512..], &[(3, 0x83, 20..21)])
        }),
        ("two partitions", "number its logical", |i| {
            mbr(&mut i[400 * 512..], &[(2, 0x83, 20..21)])
        }),
        ("two next tables", "number its logical", |i| {
            mbr(&mut i[200 * 512..], &[(1, 0x05, 300..301)])
        }),
        ("a type of zero", "number its logical", |i| {
            put(i, 200 * 512 + 450, &[0])
        }),
        ("the next table first", "", |i| {
            let (first, second) = (200 * 512 + 446, 200 * 512 + 462);
            let entry: [u8; 16] = i[first..][..16].try_into().unwrap();
            i.copy_within(second..second + 16, first);
            put(i, second, &entry);
        }),
        ("a type of zero without a length", "", |i| {
            mbr(&mut i[400 * 512..], &[(3, 0, 20..20), (4, 7, 9..9)])
        }),
        ("one that leaves", "partition 6 does not lie", |i| {
            mbr(&mut i[600 * 512..], &[(1, 0x83, 10..401)])
        }),
        ("one over the next table", "overlaps a table", |i| {
            mbr(&mut i[600 * 512..], &[(1, 0x83, 0..90)])
        }),
        ("ones that overlap", "overlaps partition 7", |i| {
            mbr(&mut i[400 * 512..], &[(1, 0x83, 10..211)])
        }),
    ];
    table(&good, 6, cases);

    // As many tables as there may be, and one more.
    for (tables, is_found) in [(128_u64, true), (129, false)] {
        let mut image = vec![0; SIZE];
        mbr(&mut image, &[(1, 0x05, 100..1000)]);
        let all: Vec<_> = (0..tables)
            .map(|number| 100 + 4 * number)
            .map(|table| (table, table + 1..table + 4))
            .collect();
        chain(&mut image, 512, 100, &all);
        let last = find(&image, 4 + 128);
        assert_eq!(last.is_ok(), is_found, "{last:?}");
    }
}

#[test]
fn small_disks_have_no_partitions() {
    for size in [0, 1, 511, 512, 513, 1024] {
        let mut image = vec![0; size];
        assert!(matches!(find(&image, 1), Err(PartitionError::NoTable)));
        if size >= 512 {
            mbr(&mut image, &[(1, 0xee, 1..2), (2, 0x83, 1..1)]);
            assert!(matches!(
                find(&image, 1),
                Err(PartitionError::Damaged { .. })
            ));
        }
    }
}

/// What is found lies within the disk, whatever the tables are.
#[test]
fn random_damage_leads_nowhere() {
    let mut state = 1_u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        usize::try_from(state >> 33).unwrap() % below
    };
    for good in [gpt_disk(), mbr_disk()] {
        for _ in 0..300 {
            let mut image = good.clone();
            for _ in 0..=random(3) {
                let place = [random(512), 512 + random(96), 1024 + random(256)];
                let tables = [200 * 512 + random(512), 600 * 512 + random(512)];
                let at = [&place[..], &tables[..]].concat()[random(5)];
                image[at] = [0, 1, 0x05, 0x7f, 0xff, 0xee][random(6)];
            }
            if random(2) == 0 {
                seal_if_possible(&mut image);
            }
            for number in [1, 2, 5, 6, 7] {
                if let Ok(range) = find(&image, number) {
                    assert!(range.start >= 512 && range.start < range.end);
                    assert!(range.end <= SIZE as u64, "{range:?}");
                }
            }
        }
    }
}

fn seal_if_possible(image: &mut [u8]) {
    if image[512 + 72..512 + 80] == 2_u64.to_le_bytes() {
        seal(image, 512, 1);
    }
}
