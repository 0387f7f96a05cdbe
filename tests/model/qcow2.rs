//! Encrypted qcow2 images: the behaviour of their volumes, and the state of the images.

use std::ops::Range;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use luksmith::backend::memory::MemoryBackend;
use luksmith::backend::{Backend, Geometry, IoError, Operation};
use luksmith::layout::{NewImage, Qcow2};
use luksmith::sectors::{Cipher, Sectors};
use luksmith::volume::{Allocation, Volume, Windows};
use luksmith_formats::CipherSpec;
use luksmith_formats::image::qcow2::Header;
use proptest::prelude::*;

use crate::crypt;
use support::qcow2::check;
use support::qcow2::compress;
use support::segments::Segments;

const HEADER: u64 = 8192;

fn new_image(size: u64, cluster_size: u32) -> (Arc<MemoryBackend>, Arc<Qcow2>) {
    let storage = Arc::new(MemoryBackend::new(0));
    let image = NewImage::new(size, HEADER).cluster_size(cluster_size);
    let image = Qcow2::create(storage.clone(), &image).unwrap();
    (storage, Arc::new(image))
}

fn volume(image: Arc<Qcow2>) -> Volume {
    encrypted_alone(image).with_compressed_plaintext()
}

fn encrypted_alone(image: Arc<Qcow2>) -> Volume {
    let crypt = crypt(CipherSpec::AES_XTS_PLAIN64, 512);
    Volume::in_qcow2(image, crypt, false).unwrap()
}

fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let numbers = (seed..).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    numbers.flat_map(u64::to_le_bytes).take(len).collect()
}

fn reopened(storage: &MemoryBackend) -> (Arc<MemoryBackend>, Volume) {
    let storage = Arc::new(MemoryBackend::from_bytes(storage.to_bytes()));
    let image = Arc::new(Qcow2::open(storage.clone()).unwrap());
    (storage, volume(image))
}

fn read(volume: &Volume, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![1; len];
    volume.read_at(offset, &mut bytes).unwrap();
    bytes
}

#[test]
fn a_new_image_is_a_hole() {
    for cluster_size in [512, 4096, 65_536, 2 << 20] {
        let (storage, image) = new_image(10 << 20, cluster_size);
        assert_eq!(image.size(), 10 << 20);
        assert_eq!(image.cluster_size(), u64::from(cluster_size));
        let header = image.header();
        assert_eq!((header.version(), header.refcount_bits()), (3, 16));
        assert_eq!(image.header_storage().geometry().size, HEADER);
        let (_, volume) = reopened(&storage);
        assert_eq!(
            volume.allocation(0..volume.size()).unwrap(),
            (10 << 20, Allocation::Hole)
        );
        assert!(read(&volume, 12_345, 100_000).iter().all(|byte| *byte == 0));
    }
}

#[test]
fn what_is_written_is_found_again_beside_zeroes() {
    for cluster_size in [512, 4096, 65_536, 2 << 20] {
        let (storage, image) = new_image(8 << 20, cluster_size);
        let mut model = vec![0; 8 << 20];
        let disk = volume(image);
        for (seed, (offset, len)) in [
            (5, 70_000),
            (3 << 20, 512),
            ((3 << 20) + 511, 2),
            (7 << 20, 1 << 20),
        ]
        .into_iter()
        .enumerate()
        {
            let bytes = pattern(len, seed as u64);
            disk.write_at(offset as u64, &bytes).unwrap();
            model[offset..offset + len].copy_from_slice(&bytes);
        }
        assert!(read(&disk, 0, model.len()) == model, "{cluster_size}");
        disk.flush().unwrap();
        let (_, disk) = reopened(&storage);
        assert!(
            read(&disk, 0, model.len()) == model,
            "{cluster_size}, opened again"
        );
    }
}

#[test]
fn nothing_refers_to_a_cluster_before_the_flush() {
    let (storage, image) = new_image(1 << 20, 4096);
    let disk = volume(image);
    disk.write_at(0, &pattern(4096, 1)).unwrap();
    let (_, early) = reopened(&storage);
    assert_eq!(early.allocation(0..4096).unwrap().1, Allocation::Hole);
    disk.flush().unwrap();
    let (_, late) = reopened(&storage);
    assert_eq!(late.allocation(0..4096).unwrap().1, Allocation::Data);
}

#[test]
fn a_dropped_cluster_is_used_again_after_the_flush_alone() {
    let (storage, image) = new_image(1 << 20, 4096);
    let disk = volume(image);
    disk.write_at(0, &pattern(3 * 4096, 1)).unwrap();
    disk.flush().unwrap();
    let size = storage.geometry().size;
    disk.discard(100..3 * 4096).unwrap();
    assert!(read(&disk, 0, 4096) == pattern(3 * 4096, 1)[..4096]);
    assert!(read(&disk, 4096, 8192).iter().all(|byte| *byte == 0));
    disk.write_at(65_536, &pattern(4096, 2)).unwrap();
    assert_eq!(storage.geometry().size, size + 4096, "not free yet");
    disk.flush().unwrap();
    disk.write_at(131_072, &pattern(8192, 3)).unwrap();
    assert_eq!(storage.geometry().size, size + 4096, "free");
}

#[test]
fn blocks_and_the_table_grow() {
    let (storage, image) = new_image(24 << 20, 512);
    let table = |storage: &MemoryBackend| {
        let header = Header::parse(&storage.to_bytes()).unwrap();
        header.refcount_table_clusters
    };
    let before = table(&storage);
    let disk = volume(image);
    let bytes = pattern(20 << 20, 9);
    disk.write_at(1000, &bytes).unwrap();
    disk.flush().unwrap();
    assert!(table(&storage) > before);
    let (_, disk) = reopened(&storage);
    assert!(read(&disk, 1000, bytes.len()) == bytes);
}

#[test]
fn a_disk_grows_and_shrinks_in_whole_clusters() {
    let (storage, image) = new_image(32 << 10, 512);
    let disk = volume(image);
    disk.write_at(0, &pattern(32 << 10, 4)).unwrap();
    // This needs another 64 L2 tables, so the L1 table has to move.
    disk.resize(4 << 20).unwrap();
    disk.write_at((4 << 20) - 512, &pattern(512, 5)).unwrap();
    disk.flush().unwrap();
    let (_, disk) = reopened(&storage);
    assert_eq!(disk.size(), 4 << 20);
    assert!(read(&disk, 0, 32 << 10) == pattern(32 << 10, 4));
    disk.resize(1024).unwrap();
    disk.resize(4 << 20).unwrap();
    assert!(
        read(&disk, 1024, (4 << 20) - 1024)
            .iter()
            .all(|byte| *byte == 0)
    );

    let (_, image) = new_image(1 << 20, 65_536);
    let disk = volume(image);
    disk.write_at(65_536, &[1]).unwrap();
    assert!(matches!(
        disk.resize(65_536 + 512),
        Err(IoError::Unaligned { unit: 65_536, .. })
    ));
    disk.resize(131_072 + 512).unwrap();
}

#[test]
fn many_threads_write_into_the_same_clusters() {
    let storage = Arc::new(Peculiar {
        memory: MemoryBackend::new(0),
        grows: true,
        pause: Duration::from_micros(300),
    });
    let image = NewImage::new(4 << 20, HEADER);
    let disk = volume(Arc::new(Qcow2::create(storage.clone(), &image).unwrap()));
    // All threads write at the same time, including the first write to each cluster, and slowly
    // enough to overlap there. No two of them write to the same sector.
    let together = Barrier::new(8);
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let (disk, together) = (&disk, &together);
            scope.spawn(move || {
                for step in 0..128 {
                    let offset = (step * 8 + thread) * 1024 + 100;
                    together.wait();
                    disk.write_at(offset, &pattern(300, offset)).unwrap();
                    if step % 64 == thread {
                        disk.flush().unwrap();
                    }
                }
            });
        }
    });
    disk.flush().unwrap();
    let (_, disk) = reopened(&storage.memory);
    for number in 0..8 * 128 {
        let offset = number * 1024 + 100;
        assert!(read(&disk, offset, 300) == pattern(300, offset), "{offset}");
    }
    assert!(
        read(&disk, (1 << 20) + 1024, 1 << 20)
            .iter()
            .all(|byte| *byte == 0)
    );
}

#[test]
fn zeroes_leave_holes_and_hide_in_what_is_stored() {
    let (_, image) = new_image(1 << 20, 4096);
    let disk = volume(image);
    disk.write_at(8192, &pattern(4096, 1)).unwrap();
    disk.write_zeroes(0..65_536).unwrap();
    assert!(read(&disk, 0, 65_536).iter().all(|byte| *byte == 0));
    assert_eq!(
        disk.allocation(0..65_536).unwrap(),
        (8192, Allocation::Hole)
    );
    assert_eq!(
        disk.allocation(8192..65_536).unwrap(),
        (4096, Allocation::Data)
    );
}

#[test]
fn storage_of_fixed_size_fills_up() {
    let storage = Arc::new(Peculiar {
        memory: MemoryBackend::new(64 << 10),
        grows: false,
        pause: Duration::ZERO,
    });
    let image = NewImage::new(1 << 20, HEADER).cluster_size(4096);
    let image = Arc::new(Qcow2::create(storage, &image).unwrap());
    let disk = volume(image);
    let written = (0..256)
        .take_while(|n| disk.write_at(n * 4096, &[3; 4096]).is_ok())
        .count();
    // There are six clusters of tables before it, and one L2 table.
    assert_eq!(written, 16 - 6 - 1);
    assert!(matches!(
        disk.write_at(900_000, &[1]),
        Err(IoError::NoSpace { .. })
    ));
    disk.discard(0..8192).unwrap();
    disk.write_at(900_000, &[1]).unwrap();
}

/// Memory that cannot grow, and writes slowly.
struct Peculiar {
    memory: MemoryBackend,
    grows: bool,
    pause: Duration,
}

impl Backend for Peculiar {
    fn geometry(&self) -> Geometry {
        self.memory.geometry()
    }
    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        self.memory.read_at(offset, into)
    }
    fn write_at(&self, offset: u64, from: &Sectors<Cipher>) -> Result<(), IoError> {
        std::thread::sleep(self.pause);
        self.memory.write_at(offset, from)
    }
    fn flush(&self) -> Result<(), IoError> {
        Ok(())
    }
    fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        self.memory.discard(range)
    }
    fn write_zeroes(&self, range: Range<u64>) -> Result<(), IoError> {
        self.memory.write_zeroes(range)
    }
    fn resize(&self, size: u64) -> Result<(), IoError> {
        if self.grows {
            self.memory.resize(size)
        } else {
            Err(IoError::Unsupported(Operation::Resize))
        }
    }
}

/// Compresses clusters of a closed image, as many as are consecutive, and returns their number.
fn compress_in(storage: &MemoryBackend, guest: u64, plain: &[u8]) -> usize {
    let bytes = storage.to_bytes();
    let mut sectors = Sectors::<Cipher>::zeroed(bytes.len());
    sectors.as_mut_slice().copy_from_slice(&bytes);
    let count = compress(sectors.as_mut_slice(), guest, plain);
    storage.write_at(0, &sectors).unwrap();
    count
}

/// Bytes that compress well.
fn compressible(len: usize, seed: u64) -> Vec<u8> {
    let runs = pattern(len.div_ceil(50), seed).into_iter();
    runs.flat_map(|byte| [byte; 50]).take(len).collect()
}

#[test]
fn compressed_clusters_are_read_by_who_says_so_and_written_by_all() {
    for cluster_size in [512, 4096, 65_536] {
        let (storage, image) = new_image(24 * u64::from(cluster_size), cluster_size);
        let cluster = cluster_size as usize;
        let plain = compressible(8 * cluster, 5);
        let disk = volume(image);
        // First the L2 table, which would otherwise be between them.
        disk.write_at(20 * cluster as u64, &[1]).unwrap();
        disk.write_at(0, &pattern(10 * cluster, 1)).unwrap();
        drop(disk);
        assert_eq!(compress_in(&storage, 1, &plain), 8);
        assert_eq!(check(&storage.to_bytes()), Ok(0));
        let end = 9 * cluster as u64;

        let (storage, disk) = reopened(&storage);
        assert!(read(&disk, cluster as u64, plain.len()) == plain);
        // In parts, which are read from the storage only once, and across the boundaries of
        // clusters.
        assert!(read(&disk, end - 700, 600) == plain[plain.len() - 700..][..600]);
        drop(disk);

        let strict = || encrypted_alone(Arc::new(Qcow2::open(storage.clone()).unwrap()));
        let disk = strict();
        let mut buffer = vec![0; 2 * cluster];
        disk.read_at(0, &mut buffer[..cluster]).unwrap();
        for refused in [
            disk.read_at(cluster as u64 - 100, &mut buffer),
            // The rest of the cluster would have to be read.
            disk.write_at(end - 100, &[1; 100]),
            disk.write_zeroes(end - 100..end),
        ] {
            assert!(matches!(refused, Err(IoError::Plaintext { .. })));
        }
        let whole = pattern(cluster, 3);
        disk.write_at(2 * cluster as u64, &whole).unwrap();
        disk.discard(3 * cluster as u64..4 * cluster as u64)
            .unwrap();
        disk.write_zeroes(4 * cluster as u64..5 * cluster as u64)
            .unwrap();
        drop(disk);
        assert_eq!(check(&storage.to_bytes()), Ok(0));
        let disk = strict();
        disk.read_at(2 * cluster as u64, &mut buffer).unwrap();
        assert!(buffer[..cluster] == whole && buffer[cluster..].iter().all(|byte| *byte == 0));
        drop(disk);

        let disk = opened(&storage);
        disk.write_at(end - 100, &[1; 100]).unwrap();
        drop(disk);
        assert_eq!(check(&storage.to_bytes()), Ok(0));
        let last = [&plain[7 * cluster..8 * cluster - 100], &[1; 100]].concat();
        strict()
            .read_at(8 * cluster as u64, &mut buffer[..cluster])
            .unwrap();
        assert!(buffer[..cluster] == last);
    }
}

#[test]
fn compressed_data_that_is_damaged_is_an_error() {
    let (storage, image) = new_image(1 << 20, 4096);
    volume(image).write_at(0, &pattern(8192, 1)).unwrap();
    assert_eq!(compress_in(&storage, 0, &compressible(8192, 2)), 2);
    let bytes = storage.to_bytes();
    // After the data, which was there first.
    let l2 = bytes.len() - 4096;
    let place = |bytes: &[u8]| u64::from_be_bytes(*bytes[l2..].first_chunk().unwrap());
    let at = place(&bytes) & 0xff_ffff;
    let error = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        let storage = Arc::new(MemoryBackend::from_bytes(bytes));
        let disk = opened(&storage);
        disk.read_at(0, &mut [0; 512]).unwrap_err().to_string()
    };
    let entry = |entry: u64| {
        move |bytes: &mut Vec<u8>| bytes[l2..l2 + 8].copy_from_slice(&entry.to_be_bytes())
    };
    // A block of a type that does not exist, zeroes (endless empty stored blocks), and random
    // bytes.
    for fill in [0xff, 0, 0x55] {
        let text = error(&|bytes| bytes[at as usize..][..2000].fill(fill));
        assert!(text.contains("that is damaged"), "{fill}: {text}");
    }
    // Cut off, at an unused offset, on the header, and on the L1 table.
    let size = bytes.len() as u64;
    let text = error(&entry(1 << 62 | (at + 30)));
    assert!(text.contains("that is damaged"), "{text}");
    for at in [0, 100, 4095, size, 1 << 50, 3 * 4096 + 5] {
        let text = error(&entry(1 << 62 | at));
        assert!(
            text.contains("outside of the image or on its tables"),
            "{at}: {text}"
        );
    }
}

#[derive(Clone, Debug)]
enum Step {
    Read(usize, usize),
    Write(usize, usize, u64),
    Zero(usize, usize),
    Discard(usize, usize),
    Resize(usize),
    Flush,
    Reopen,
    Compress(usize, usize, u64),
}

const DISK: usize = 192 << 10;

fn step() -> impl Strategy<Value = Step> {
    let range = || (0..DISK + 1000, prop_oneof![0..900usize, 0..40_000usize]);
    prop_oneof![
        4 => range().prop_map(|(offset, len)| Step::Read(offset, len)),
        8 => (range(), any::<u64>()).prop_map(|((offset, len), seed)| Step::Write(offset, len, seed)),
        2 => range().prop_map(|(offset, len)| Step::Zero(offset, len)),
        3 => range().prop_map(|(offset, len)| Step::Discard(offset, len)),
        1 => (1..DISK / 512 * 2).prop_map(|sectors| Step::Resize(sectors * 512)),
        2 => Just(Step::Flush),
        1 => Just(Step::Reopen),
        2 => (0..DISK, 0..40_000usize, any::<u64>()).prop_map(|(offset, len, seed)| Step::Compress(offset, len, seed)),
    ]
}

/// Whether it succeeded. It has to succeed if and only if the range is inside of the disk.
fn agree(result: Result<(), IoError>, fits: bool) -> bool {
    match result {
        Ok(()) => assert!(fits, "done, out of range"),
        Err(IoError::OutOfRange { .. }) => assert!(!fits, "refused, in range"),
        Err(error) => panic!("{error}"),
    }
    fits
}

fn opened(storage: &Arc<MemoryBackend>) -> Volume {
    volume(Arc::new(Qcow2::open(storage.clone()).unwrap()))
}

fn follow(storage: &Arc<MemoryBackend>, cluster: usize, steps: &[Step]) {
    let mut disk = opened(storage);
    let mut model = vec![0; DISK];
    for step in steps {
        let size = model.len();
        match *step {
            Step::Read(offset, len) => {
                let mut memory = Segments::new(len, &[offset % 3000, 512], 0);
                let result = disk.read_into(offset as u64, Windows::new(&memory.windows()));
                if agree(result, offset + len <= size) {
                    assert!(memory.content() == model[offset..offset + len]);
                }
            }
            Step::Write(offset, len, seed) => {
                let bytes = pattern(len, seed);
                let result = if seed.is_multiple_of(2) {
                    disk.write_at(offset as u64, &bytes)
                } else {
                    let mut memory = Segments::of(&bytes, &[4096, offset % 3000]);
                    disk.write_from(offset as u64, Windows::new(&memory.windows()))
                };
                if agree(result, offset + len <= size) {
                    model[offset..offset + len].copy_from_slice(&bytes);
                }
            }
            Step::Zero(offset, len) => {
                let range = offset as u64..(offset + len) as u64;
                if agree(disk.write_zeroes(range), offset + len <= size) {
                    model[offset..offset + len].fill(0);
                }
            }
            Step::Discard(offset, len) => {
                let end = offset + len;
                if agree(disk.discard(offset as u64..end as u64), end <= size) {
                    let end = if end == size {
                        size
                    } else {
                        end / cluster * cluster
                    };
                    let start = offset.next_multiple_of(cluster);
                    model[start.min(end)..end].fill(0);
                }
            }
            // A size that ends within a stored cluster is refused.
            Step::Resize(new) => match disk.resize(new as u64) {
                Ok(()) => model.resize(new, 0),
                Err(IoError::Unaligned { .. }) => {
                    assert!(new < size && !new.is_multiple_of(cluster));
                }
                Err(error) => panic!("{error}"),
            },
            Step::Flush => disk.flush().unwrap(),
            Step::Reopen => {
                drop(disk);
                assert_eq!(check(&storage.to_bytes()), Ok(0));
                disk = opened(storage);
            }
            Step::Compress(offset, len, seed) => {
                drop(disk);
                let first = offset.min(size) / cluster;
                let count = len.min(size - first * cluster) / cluster;
                let plain = compressible(count * cluster, seed);
                let count = compress_in(storage, first as u64, &plain);
                model[first * cluster..][..count * cluster]
                    .copy_from_slice(&plain[..count * cluster]);
                assert_eq!(check(&storage.to_bytes()), Ok(0));
                disk = opened(storage);
            }
        }
    }
    assert!(read(&disk, 0, model.len()) == model);
    drop(disk);
    assert_eq!(check(&storage.to_bytes()), Ok(0));
    assert!(read(&opened(storage), 0, model.len()) == model);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_operations_match_a_model_and_leave_no_leak(
        (cluster_size, block_size) in prop::sample::select(vec![(512, 1), (4096, 4096), (65_536, 512)]),
        refcount_bits in prop::sample::select(vec![16, 64]),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let storage = Arc::new(MemoryBackend::new(0).with_block_size(block_size));
        let image = NewImage::new(DISK as u64, HEADER).cluster_size(cluster_size).refcount_bits(refcount_bits);
        Qcow2::create(storage.clone(), &image).unwrap();
        follow(&storage, cluster_size as usize, &steps);
    }
}
