//! Is data that is not ciphertext found at its place, and nothing else?

use std::sync::Arc;

use luksmith::Interrupt;
use luksmith::backend::Backend;
use luksmith::backend::memory::MemoryBackend;
use luksmith::container::{Container, CreateOptions, OpenOptions, Undo, Version, Which};
use luksmith::formats::{Hash, Limits};
use luksmith::kdf::calibrate::Cost;
use luksmith::secret::Passphrase;
use luksmith::vet::ciphertext::areas::{Layout, Purpose};
use luksmith::vet::ciphertext::{
    PIECE, Region, Report, Sample, Tally, VerifyOptions, VetError, Why, verify,
};
use luksmith::volume::Volume;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The size of the data of the volumes here.
const DATA: u64 = 4 << 20;

fn whole() -> VerifyOptions {
    VerifyOptions::new().threads(2)
}

/// A volume in memory, and the offset of its data.
struct Disk {
    storage: Arc<MemoryBackend>,
    volume: Volume,
    begin: u64,
}

impl Disk {
    fn new(version: Version) -> Self {
        let header = match version {
            Version::Luks1 => 2 << 20,
            Version::Luks2 => 16 << 20,
        };
        let storage = Arc::new(MemoryBackend::from_bytes(zeroes(header + DATA)));
        let cost = Cost::Pbkdf2 {
            hash: Hash::Sha256,
            iterations: 1000,
        };
        let passphrase = Passphrase::copy_from(b"passphrase").unwrap();
        let interrupt = Interrupt::new();
        let container = Container::create(
            storage.clone(),
            CreateOptions::new(version, cost),
            OpenOptions::new(Undo::NotLookedFor),
            &passphrase,
            &interrupt,
        );
        drop(container.unwrap());
        let container =
            Container::open(storage.clone(), OpenOptions::new(Undo::NotLookedFor)).unwrap();
        let unlocked = container
            .unlock(&passphrase, Which::Any, &interrupt)
            .unwrap();
        let volume = container.volume(storage.clone(), &unlocked).unwrap();
        let begin = header + DATA - volume.size();
        Self {
            storage,
            volume,
            begin,
        }
    }

    /// A volume whose data is written completely, with a simple text.
    fn full(version: Version) -> Self {
        let disk = Self::new(version);
        let zeroes = zeroes(disk.volume.size());
        disk.volume.write_at(0, &zeroes).unwrap();
        disk
    }

    fn bytes(&self) -> Vec<u8> {
        self.storage.to_bytes()
    }

    fn verify(&self) -> Report {
        let layout = Layout::read(&*self.storage, &Limits::default()).unwrap();
        report(&*self.storage, &layout, whole())
    }
}

fn report(storage: &dyn Backend, layout: &Layout, options: VerifyOptions) -> Report {
    verify(storage, layout, options, &Interrupt::new(), &|_| {}).unwrap()
}

/// Verifies the bytes with `plain` at `offset`.
fn planted(bytes: &[u8], offset: u64, plain: &[u8]) -> Report {
    let mut bytes = bytes.to_vec();
    let at = usize::try_from(offset).unwrap();
    bytes[at..at + plain.len()].copy_from_slice(plain);
    let storage = MemoryBackend::from_bytes(bytes);
    let layout = Layout::read(&storage, &Limits::default()).unwrap();
    report(&storage, &layout, whole())
}

#[test]
fn a_full_volume_is_clean() {
    for version in [Version::Luks1, Version::Luks2] {
        let disk = Disk::full(version);
        let report = disk.verify();
        assert_eq!(report.suspicious.listed, [], "{version}");
        let data = report.areas.last().unwrap();
        assert_eq!(data.area.purpose, Purpose::Data);
        assert_eq!(data.area.range, disk.begin..disk.begin + DATA);
        let mut expected = Tally::default();
        expected.random = DATA;
        assert_eq!(data.tally, expected, "{version}");
        let keyslot = report
            .areas
            .iter()
            .find(|report| report.area.purpose == Purpose::Keyslot(0));
        assert!(keyslot.unwrap().tally.random >= 250_000, "{version}");
    }
}

#[test]
fn unwritten_data_is_reported_as_zero() {
    let disk = Disk::new(Version::Luks2);
    disk.volume.write_at(1 << 20, &[7; 8192]).unwrap();
    let report = disk.verify();
    assert_eq!(report.suspicious.count, 0);
    let zero: Vec<Region> = report.zero.listed;
    let data: Vec<(u64, u64)> = zero
        .iter()
        .filter(|region| region.offset >= disk.begin)
        .map(|region| (region.offset - disk.begin, region.length))
        .collect();
    let written = (1 << 20, 8192);
    assert_eq!(data[0].0 + data[0].1, written.0, "{data:?}");
    assert_eq!(data[1].0, written.0 + written.1, "{data:?}");
    assert_eq!(data.len(), 2);
}

/// The unwritten part of a sector stays zero, in whole cipher blocks.
#[test]
fn partly_written_sectors_look_like_ciphertext_among_zeroes() {
    let disk = Disk::new(Version::Luks1);
    for (at, len) in [
        (0, 1),
        (10_000, 16),
        (20_480, 40),
        (30_700, 30),
        (50_000, 5000),
    ] {
        disk.volume.write_at(at, &vec![0; len]).unwrap();
    }
    let report = disk.verify();
    assert_eq!(report.suspicious.listed, []);
    let data = report.areas.last().unwrap();
    // One block each, or those that a write touches.
    let written = 16 + 16 + 48 + 48 + 5008;
    assert_eq!(data.tally.random, written);
    assert_eq!(data.tally.zero, DATA - written);
}

#[test]
fn plaintext_is_found_at_its_offset() {
    let disk = Disk::full(Version::Luks2);
    let bytes = disk.bytes();
    let text = b"It is a truth universally acknowledged, that a single man. ".repeat(100);
    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let mut rng = StdRng::seed_from_u64(5);
    let mut png: Vec<u8> = (0..512).map(|_| rng.random()).collect();
    png[..8].copy_from_slice(b"\x89PNG\r\n\x1a\n");
    let counter: Vec<u8> = (0..2048_u32).flat_map(|n| n.to_be_bytes()).collect();
    let cases: [(&[u8], Why); 6] = [
        (&text[..512], Why::LowEntropy),
        (&text[..4096], Why::LowEntropy),
        (&[0xff; 1024], Why::LowEntropy),
        (&program[..512], Why::Signature("ELF program")),
        (&png, Why::Signature("PNG picture")),
        (&counter, Why::LowEntropy),
    ];
    for (plain, why) in cases {
        // At the start of the data, across two reads, and at the end.
        let end = disk.begin + DATA;
        for offset in [
            disk.begin,
            disk.begin + (1 << 20) - 512,
            end - plain.len() as u64,
        ] {
            let report = planted(&bytes, offset, plain);
            let [region] = report.suspicious.listed.as_slice() else {
                panic!("{:?}", report.suspicious.listed);
            };
            assert_eq!(
                (region.offset, region.length, region.why),
                (offset, plain.len() as u64, why)
            );
        }
    }
}

#[test]
fn plaintext_between_header_and_data_is_found() {
    let disk = Disk::full(Version::Luks2);
    let bytes = disk.bytes();
    let text = [b'x'; 512];
    for (offset, purpose) in [
        (40_960, Purpose::Keyslot(0)),
        (1 << 20, Purpose::FreeKeyslots),
    ] {
        let report = planted(&bytes, offset, &text);
        assert_eq!(report.suspicious.listed[0].offset, offset);
        let area = report
            .areas
            .iter()
            .find(|report| report.tally.suspicious > 0);
        assert_eq!(area.unwrap().area.purpose, purpose);
    }
    // The header itself is text, and is not judged.
    assert_eq!(disk.verify().areas[0].area.purpose, Purpose::Header);
}

#[test]
fn file_systems_are_named() {
    let disk = Disk::full(Version::Luks1);
    let bytes = disk.bytes();
    let mut image = std::io::Cursor::new(vec![0; 1 << 20]);
    fatfs::format_volume(&mut image, fatfs::FormatVolumeOptions::new()).unwrap();
    let report = planted(&bytes, disk.begin, image.get_ref());
    let first = report.suspicious.listed[0];
    assert_eq!(first.offset, disk.begin);
    assert_eq!(first.why, Why::Signature("boot sector"));
    // The rest of it is mostly zero, and is reported as zero.
    let zero: u64 = report.areas.last().unwrap().tally.zero;
    assert!(zero > 900_000, "{zero}");
}

#[test]
fn a_detached_header_gives_the_start_of_the_data() {
    let disk = Disk::full(Version::Luks2);
    let bytes = disk.bytes();
    let begin = usize::try_from(disk.begin).unwrap();
    let header = MemoryBackend::from_bytes(bytes[..begin].to_vec());
    let layout = Layout::read(&header, &Limits::default())
        .unwrap()
        .detached();

    // The bytes before the data, where the header would be, are judged too.
    let mut data = bytes.clone();
    data[..begin].fill(0);
    let report = report(&MemoryBackend::from_bytes(data), &layout, whole());
    let purposes: Vec<_> = report.areas.iter().map(|r| r.area.purpose).collect();
    assert_eq!(purposes, [Purpose::Unused, Purpose::Data]);
    assert_eq!(report.suspicious.count, 0);
    assert_eq!(report.total().random, DATA);
}

#[test]
fn one_damaged_copy_is_accepted_and_two_are_an_error() {
    let disk = Disk::full(Version::Luks2);
    let mut bytes = disk.bytes();
    bytes[5000] ^= 1;
    let storage = MemoryBackend::from_bytes(bytes.clone());
    let layout = Layout::read(&storage, &Limits::default()).unwrap();
    assert!(layout.damaged_copy);
    assert_eq!(report(&storage, &layout, whole()).suspicious.count, 0);

    bytes[16384 + 5000] ^= 1;
    let error = Layout::read(&MemoryBackend::from_bytes(bytes), &Limits::default()).unwrap_err();
    assert!(matches!(error, VetError::Header(_)), "{error:?}");
}

#[test]
fn a_sample_finds_common_plaintext_and_its_seed_repeats_it() {
    let disk = Disk::full(Version::Luks2);
    let mut bytes = disk.bytes();
    let begin = usize::try_from(disk.begin).unwrap();
    // A quarter of all pieces.
    for piece in bytes[begin..].chunks_mut(usize::try_from(PIECE).unwrap() * 4) {
        piece[..4096].fill(b'A');
    }
    let storage = MemoryBackend::from_bytes(bytes);
    let layout = Layout::read(&storage, &Limits::default()).unwrap();
    let sampled = |pieces, seed| {
        let options = VerifyOptions::new()
            .sample(Some(Sample { pieces, seed }))
            .threads(2);
        report(&storage, &layout, options)
    };
    let first = sampled(32, 1);
    assert!(first.suspicious.count > 0);
    let data = first.areas.last().unwrap();
    assert_eq!(data.sampled, Some((32, DATA / PIECE)));
    assert_eq!(data.tally.random + data.tally.suspicious, 32 * PIECE);
    assert_eq!(sampled(32, 1).suspicious.listed, first.suspicious.listed);
    assert_ne!(sampled(32, 2).suspicious.listed, first.suspicious.listed);
    // More pieces than there are: each is read once.
    assert_eq!(sampled(10_000, 3).suspicious.count, DATA / PIECE / 4);
}

#[test]
fn storages_of_any_size_are_read_to_the_end() {
    let mut rng = StdRng::seed_from_u64(6);
    let bytes: Vec<u8> = (0..(1 << 20) + 5000).map(|_| rng.random()).collect();
    for size in [0, 1, 511, 512, 513, 4096, 5000, 1 << 20, (1 << 20) + 700] {
        let storage = MemoryBackend::from_bytes(bytes[..size].to_vec());
        let report = report(&storage, &Layout::headerless(), whole());
        let whole = (size - size % 512) as u64;
        assert_eq!(report.total().random, whole, "{size}");
        assert_eq!(report.suspicious.count, 0, "{size}");
    }
}

#[test]
fn an_interrupt_ends_the_search() {
    let interrupt = Interrupt::new();
    interrupt.trigger();
    let storage = MemoryBackend::new(8 << 20);
    let outcome = verify(
        &storage,
        &Layout::headerless(),
        whole(),
        &interrupt,
        &|_| {},
    );
    assert!(matches!(outcome, Err(VetError::Interrupted)));
}

fn zeroes(len: u64) -> Vec<u8> {
    vec![0; usize::try_from(len).unwrap()]
}
