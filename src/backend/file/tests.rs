//! Tests of files as storage: reads and writes, every refusal, holes, direct I/O.

use super::*;
use crate::backend::Allocation;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

fn writing() -> OpenOptions {
    OpenOptions::new().write(true)
}

fn creating() -> OpenOptions {
    OpenOptions::new().create_new(true)
}

fn image(size: u64) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    FileBackend::open(&path, creating())
        .unwrap()
        .resize(size)
        .unwrap();
    (directory, path)
}

fn read(storage: &FileBackend, offset: u64, len: usize) -> Result<Vec<u8>, IoError> {
    let mut sectors = Sectors::<Cipher>::with_len(len);
    storage.read_at(offset, &mut sectors)?;
    Ok(sectors.as_slice().to_vec())
}

#[test]
fn the_holes_of_a_file_are_found() {
    let (_directory, path) = image(3 << 20);
    let storage = FileBackend::open(&path, writing()).unwrap();
    let len = 256 << 10;
    storage
        .write_at(1 << 20, &Sectors::metadata(&vec![7; len]))
        .unwrap();
    let told = storage.extents(4096 + 1..(3 << 20) - 1).unwrap();
    let data: u64 = told
        .iter()
        .filter(|(_, allocation)| *allocation == Allocation::Data)
        .map(|(len, _)| len)
        .sum();
    // A file system without holes says that all is data.
    if data < (3 << 20) - 2 - 4096 {
        let (first, last) = ((1 << 20) - 4097, (2 << 20) - len as u64 - 1);
        let (hole, stored) = (Allocation::Hole, Allocation::Data);
        assert_eq!(told, [(first, hole), (len as u64, stored), (last, hole)]);
        let inside = (1 << 20) + 5..(1 << 20) + 6;
        assert_eq!(storage.extents(inside).unwrap(), [(1, stored)]);
        assert_eq!(storage.extents(7..7).unwrap(), []);
        assert_eq!(storage.extents(0..512).unwrap(), [(512, hole)]);
    }
    // A file that was cut meanwhile has no hole there: a read says so.
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    let told = storage.extents(2 << 20..3 << 20).unwrap();
    assert_eq!(told, [(1 << 20, Allocation::Data)]);
}

#[test]
fn what_is_written_is_read_and_stays() {
    let (_directory, path) = image(100_000);
    let storage = FileBackend::open(&path, writing()).unwrap();
    storage
        .write_at(333, &Sectors::metadata(&[7; 5000]))
        .unwrap();
    storage.flush().unwrap();
    drop(storage);
    let storage = FileBackend::open(&path, OpenOptions::new()).unwrap();
    assert_eq!(read(&storage, 333, 5000).unwrap(), [7; 5000]);
    assert_eq!(read(&storage, 0, 333).unwrap(), [0; 333]);
    assert_eq!(
        storage.geometry(),
        Geometry {
            size: 100_000,
            block_size: 1,
            read_only: true
        }
    );
}

#[test]
fn a_new_file_is_its_owners_alone_and_never_an_old_one() {
    let (_directory, path) = image(0);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(matches!(
        FileBackend::open(&path, creating()),
        Err(FileError::Exists(_))
    ));
}

#[test]
fn reading_refuses_every_change() {
    let (_directory, path) = image(4096);
    let storage = FileBackend::open(&path, OpenOptions::new()).unwrap();
    let sectors = Sectors::zeroed(512);
    assert!(matches!(
        storage.write_at(0, &sectors),
        Err(IoError::ReadOnly(Operation::Write))
    ));
    assert!(matches!(
        storage.discard(0..512),
        Err(IoError::ReadOnly(Operation::Discard))
    ));
    assert!(matches!(
        storage.write_zeroes(0..512),
        Err(IoError::ReadOnly(_))
    ));
    assert!(matches!(
        storage.resize(0),
        Err(IoError::ReadOnly(Operation::Resize))
    ));
}

#[test]
fn ranges_outside_are_refused_and_nothing_grows() {
    let (_directory, path) = image(4096);
    let storage = FileBackend::open(&path, writing()).unwrap();
    assert!(matches!(
        read(&storage, 4000, 97),
        Err(IoError::OutOfRange { size: 4096, .. })
    ));
    assert!(matches!(
        read(&storage, u64::MAX, 1),
        Err(IoError::OutOfRange { .. })
    ));
    assert!(matches!(
        storage.write_at(4096, &Sectors::zeroed(1)),
        Err(IoError::OutOfRange { .. })
    ));
    assert_eq!(fs::metadata(&path).unwrap().len(), 4096);
}

#[test]
fn a_file_cut_under_us_is_a_failure() {
    let (_directory, path) = image(8192);
    let storage = FileBackend::open(&path, OpenOptions::new()).unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(100)
        .unwrap();
    let Err(IoError::Failed { source, .. }) = read(&storage, 0, 4096) else {
        panic!("no failure of the storage");
    };
    assert_eq!(source.to_string(), "the file was cut to 100 bytes");
}

#[test]
fn discarded_and_zeroed_ranges_read_as_zeroes() {
    let (_directory, path) = image(3 << 20);
    let storage = FileBackend::open(&path, writing()).unwrap();
    storage
        .write_at(0, &Sectors::metadata(&vec![9; 3 << 20]))
        .unwrap();
    match storage.discard(0..8192) {
        Ok(()) => assert_eq!(read(&storage, 0, 8192).unwrap(), [0; 8192]),
        Err(error) => assert!(matches!(error, IoError::Unsupported(Operation::Discard))),
    }
    storage.write_zeroes(10_001..20_002).unwrap();
    assert_eq!(read(&storage, 10_001, 10_001).unwrap(), [0; 10_001]);
    assert_eq!(read(&storage, 10_000, 1).unwrap(), [9]);
    assert_eq!(read(&storage, 20_002, 1).unwrap(), [9]);
    // On a file system that does not support it.
    write_zero_bytes(&storage, 30_003..30_003 + (2 << 20) + 5).unwrap();
    assert!(
        read(&storage, 30_003, (2 << 20) + 5)
            .unwrap()
            .iter()
            .all(|&byte| byte == 0)
    );
    assert_eq!(read(&storage, 30_002, 1).unwrap(), [9]);
    assert_eq!(read(&storage, 30_003 + (2 << 20) + 5, 1).unwrap(), [9]);
    assert_eq!(storage.geometry().size, 3 << 20);
}

#[test]
fn resizing_goes_to_the_file() {
    let (_directory, path) = image(4096);
    let storage = FileBackend::open(&path, writing()).unwrap();
    storage.resize(10_000).unwrap();
    assert_eq!(storage.geometry().size, 10_000);
    assert_eq!(read(&storage, 4096, 5904).unwrap(), [0; 5904]);
    assert_eq!(fs::metadata(&path).unwrap().len(), 10_000);
}

#[test]
fn what_stores_nothing_is_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
    )
    .unwrap();
    let socket = directory.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    for path in [
        fifo.as_path(),
        socket.as_path(),
        directory.path(),
        Path::new("/dev/zero"),
    ] {
        for options in [OpenOptions::new(), writing()] {
            let refused = FileBackend::open(path, options);
            assert!(
                matches!(refused, Err(FileError::NotStorage { .. })),
                "{refused:?}"
            );
        }
    }
    let none = directory.path().join("none");
    assert!(matches!(
        FileBackend::open(none, writing()),
        Err(FileError::NotFound(_))
    ));
}

#[test]
fn a_writer_is_alone_and_force_share_looks_anyway() {
    let (_directory, path) = image(4096);
    let reading = OpenOptions::new();
    let readers = [reading, reading].map(|options| FileBackend::open(&path, options).unwrap());
    assert!(matches!(
        FileBackend::open(&path, writing()),
        Err(FileError::Busy { .. })
    ));
    drop(readers);
    let _writer = FileBackend::open(&path, writing()).unwrap();
    assert!(matches!(
        FileBackend::open(&path, reading),
        Err(FileError::Busy { .. })
    ));
    let share = reading.force_share(true);
    assert!(
        FileBackend::open(&path, share)
            .unwrap()
            .geometry()
            .read_only
    );
    let unlocked_write = writing().force_share(true);
    assert!(matches!(
        FileBackend::open(&path, unlocked_write),
        Err(FileError::UnlockedWrite(_))
    ));
}

#[test]
fn direct_reads_and_writes_are_in_whole_blocks() {
    // A file system in memory may not support direct I/O, so this uses the directory of the build.
    let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let path = directory.path().join("image");
    FileBackend::open(&path, creating())
        .unwrap()
        .resize(1 << 20)
        .unwrap();
    let storage = match FileBackend::open(&path, writing().direct(true)) {
        Ok(storage) => storage,
        Err(error) => return assert!(matches!(error, FileError::NoDirect(_)), "{error}"),
    };
    let unit = storage.geometry().block_size;
    assert!(unit.is_power_of_two() && unit <= 4096);
    storage
        .write_at(4096, &Sectors::metadata(&[5; 8192]))
        .unwrap();
    assert_eq!(read(&storage, 4096, 8192).unwrap(), [5; 8192]);
    if unit > 1 {
        assert!(matches!(
            read(&storage, 1, 4096),
            Err(IoError::Unaligned { .. })
        ));
    }
}

#[test]
fn a_failed_flush_stays_failed() {
    let (_directory, path) = image(4096);
    let storage = FileBackend::open(&path, writing()).unwrap();
    storage.flush().unwrap();
    storage.flush_failed.store(true, Ordering::Release);
    assert!(matches!(
        storage.flush(),
        Err(IoError::Failed {
            operation: Operation::Flush,
            ..
        })
    ));
}

#[test]
fn a_file_that_was_replaced_or_removed_is_no_longer_at_its_path() {
    let (directory, path) = image(4096);
    let opened = File::open(&path).unwrap();
    assert!(is_still_at(&path, &opened).unwrap());
    let new = directory.path().join("new");
    File::create(&new).unwrap();
    fs::rename(&new, &path).unwrap();
    assert!(!is_still_at(&path, &opened).unwrap());
    fs::remove_file(&path).unwrap();
    assert!(!is_still_at(&path, &opened).unwrap());
}

#[test]
fn a_link_is_followed_unless_that_is_refused() {
    let (folder, path) = image(4096);
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let refusing = OpenOptions::new().no_follow(true);
    assert!(FileBackend::open(&link, OpenOptions::new()).is_ok());
    assert!(matches!(
        FileBackend::open(&link, refusing),
        Err(FileError::Symlink(named)) if named == link
    ));
    assert!(FileBackend::open(&path, refusing).is_ok());
}
