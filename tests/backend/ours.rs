//! The backends of the library keep the contract.

use std::path::Path;
use std::sync::Arc;

use luksmith::backend::Backend;
use luksmith::backend::conformance::{self, Access, Clause, Opened};
use luksmith::backend::file::{FileBackend, OpenOptions};
use luksmith::backend::memory::MemoryBackend;
use luksmith::backend::section::{Section, SectionError};
use luksmith::layout::{NewImage, Qcow2};
use support::loop_device::LoopDevice;

const SIZE: usize = 2 << 20;

/// Fails unless the contract holds, and returns the clauses that were not examined.
#[track_caller]
fn skipped<'a>(open: impl Fn(Access) -> Opened<'a>) -> Vec<Clause> {
    let report = conformance::check(open).unwrap_or_else(|violation| panic!("{violation:?}"));
    report.skipped().iter().map(|(clause, _)| *clause).collect()
}

fn open_file(path: &Path, access: Access, direct: bool) -> Opened<'static> {
    let options = OpenOptions::new()
        .write(access == Access::ReadWrite)
        .direct(direct);
    Ok(Box::new(FileBackend::open(path, options)?))
}

#[test]
fn memory() {
    let open = |block_size: u32| {
        let storage = Arc::new(MemoryBackend::new(SIZE).with_block_size(block_size));
        move |_: Access| -> Opened<'static> { Ok(Box::new(storage.clone())) }
    };
    assert_eq!(skipped(open(1)), [Clause::WholeBlocks, Clause::ReadOnly]);
    assert_eq!(skipped(open(4096)), [Clause::ReadOnly]);
}

#[test]
fn memory_that_is_read_only() {
    let storage = Arc::new(MemoryBackend::from_bytes(vec![7; SIZE]).into_read_only());
    let skipped = skipped(|_| Ok(Box::new(storage.clone())));
    assert!(!skipped.contains(&Clause::ReadOnly), "{skipped:?}");
    assert!(skipped.contains(&Clause::Contents), "{skipped:?}");
}

#[test]
fn a_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    // Not in whole blocks of direct I/O.
    file.as_file().set_len(SIZE as u64 + 777).unwrap();
    let open = |access| open_file(file.path(), access, false);
    assert_eq!(skipped(open), [Clause::WholeBlocks]);
}

#[test]
fn a_file_by_direct_io() {
    // Not in /tmp, which may be a file system in memory that has no direct I/O.
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    file.as_file().set_len(SIZE as u64).unwrap();
    if let Err(error) = open_file(file.path(), Access::ReadWrite, true) {
        eprintln!("skipped: {error}");
        return;
    }
    let open = |access| open_file(file.path(), access, true);
    assert_eq!(skipped(open), []);
}

#[test]
fn a_block_device() {
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    file.as_file().set_len(SIZE as u64).unwrap();
    for (sector_size, direct) in [
        ("512", false),
        ("512", true),
        ("4096", false),
        ("4096", true),
    ] {
        let Some(device) = LoopDevice::attach(file.path(), &["--sector-size", sector_size]) else {
            eprintln!("skipped: no loop device can be attached");
            return;
        };
        let open = |access| open_file(device.path(), access, direct);
        let skipped = skipped(open);
        assert!(skipped.contains(&Clause::Resize), "{skipped:?}");
        assert_eq!(skipped.contains(&Clause::WholeBlocks), !direct);
    }
}

/// Bytes that no clause writes before and after a part.
const AROUND: usize = 64 << 10;

/// A part of a storage keeps the contract, and nothing around it changes.
#[test]
fn a_part_of_memory() {
    for block_size in [1, 512, 4096] {
        let around = vec![0x5a; AROUND];
        let bytes = [&around[..], &vec![0; SIZE], &around].concat();
        let memory = MemoryBackend::from_bytes(bytes).with_block_size(block_size);
        let memory = Arc::new(memory);
        let part = AROUND as u64..(AROUND + SIZE) as u64;
        let open = |access| -> Opened<'static> {
            let section = Section::new(memory.clone(), part.clone())?;
            Ok(match access {
                Access::ReadWrite => Box::new(section),
                Access::ReadOnly => Box::new(section.into_read_only()),
            })
        };
        let skipped = skipped(open);
        assert!(skipped.contains(&Clause::Resize), "{skipped:?}");
        assert!(!skipped.contains(&Clause::ReadOnly), "{skipped:?}");
        assert!(!skipped.contains(&Clause::Discard), "{skipped:?}");
        let bytes = memory.to_bytes();
        assert!(bytes[..AROUND] == around && bytes[AROUND + SIZE..] == around);
    }
}

#[test]
fn a_part_of_a_file() {
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let around = vec![0x5a; AROUND];
    for direct in [false, true] {
        let bytes = [&around[..], &vec![0; SIZE], &around].concat();
        std::fs::write(file.path(), bytes).unwrap();
        let part = AROUND as u64..(AROUND + SIZE) as u64;
        let open = |access| -> Opened<'static> {
            let storage = open_file(file.path(), access, direct)?;
            Ok(Box::new(Section::new(storage, part.clone())?))
        };
        if let Err(error) = open_file(file.path(), Access::ReadWrite, direct) {
            eprintln!("skipped: {error}");
            return;
        }
        assert_eq!(skipped(open).contains(&Clause::WholeBlocks), !direct);
        let bytes = std::fs::read(file.path()).unwrap();
        assert!(bytes[..AROUND] == around && bytes[AROUND + SIZE..] == around);
        assert_eq!(bytes.len(), SIZE + 2 * AROUND);
    }
}

#[test]
fn a_part_lies_within_its_storage_and_begins_at_a_block() {
    let memory = MemoryBackend::new(8192).with_block_size(512);
    let part = |part| Section::new(&memory, part).map(|section| section.geometry().size);
    assert_eq!(part(512..8192), Ok(7680));
    assert_eq!(part(8192..8192), Ok(0));
    assert_eq!(part(512..1000), Ok(488));
    for outside in [0..8193, 8193..8193, 512..u64::MAX, u64::MAX..u64::MAX] {
        let error = part(outside).unwrap_err();
        assert!(matches!(error, SectionError::Outside { size: 8192, .. }));
    }
    #[allow(clippy::reversed_empty_ranges)] // it is the case that is tested
    let reversed = part(1024..512);
    assert!(matches!(reversed, Err(SectionError::Outside { .. })));
    let error = part(100..1024).unwrap_err();
    let (offset, block_size) = (100, 512);
    assert_eq!(error, SectionError::Unaligned { offset, block_size });
}

/// The part of a qcow2 image that holds the LUKS header.
#[test]
fn the_header_of_a_qcow2_image() {
    let storage = Arc::new(MemoryBackend::new(0));
    let image = Qcow2::create(storage, &NewImage::new(1 << 20, SIZE as u64)).unwrap();
    let open = |_| Ok(Box::new(image.header_storage()) as Box<dyn Backend>);
    let expected = [Clause::WholeBlocks, Clause::Resize, Clause::ReadOnly];
    assert_eq!(skipped(open), expected);
}

/// An export of our own server, over a Unix socket.
#[cfg(feature = "nbd")]
mod nbd {
    use std::os::unix::net::UnixListener;
    use std::thread::JoinHandle;

    use luksmith::backend::nbd::{ConnectOptions, NbdBackend};
    use luksmith::crypt::{IvSector, SectorCrypt};
    use luksmith::export::nbd::{Options, ServeError, Server, Stopper};
    use luksmith::export::{Discard, Export};
    use luksmith::formats::CipherSpec;
    use luksmith::formats::nbd::uri::Uri;
    use luksmith::secret::VolumeKey;
    use luksmith::volume::Volume;

    use super::*;

    struct Serving {
        folder: tempfile::TempDir,
        stopper: Stopper,
        server: Option<JoinHandle<Result<(), ServeError>>>,
    }

    impl Serving {
        fn start() -> Self {
            let key = VolumeKey::random(64).unwrap();
            let crypt = SectorCrypt::new(CipherSpec::AES_XTS_PLAIN64, 512, &key).unwrap();
            let storage = Arc::new(MemoryBackend::new(SIZE));
            let size = SIZE as u64;
            let volume = Volume::new(storage, crypt, 0, size, IvSector(0), false).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
            let export = Export::new("", Arc::new(volume)).with_discard(Discard::Pass);
            let server = Server::new(vec![export], Options::default()).unwrap();
            let stopper = server.stopper();
            let server = std::thread::spawn(move || server.run(vec![listener.into()]));
            Self {
                folder,
                stopper,
                server: Some(server),
            }
        }

        fn connect(&self, access: Access) -> Opened<'static> {
            let socket = self.folder.path().join("socket");
            let uri = format!("nbd+unix:///?socket={}", socket.display());
            let options = ConnectOptions::new().write(access == Access::ReadWrite);
            Ok(Box::new(NbdBackend::connect(&Uri::parse(&uri)?, options)?))
        }
    }

    impl Drop for Serving {
        fn drop(&mut self) {
            self.stopper.stop();
            let ended = self.server.take().map(JoinHandle::join);
            assert!(matches!(ended, Some(Ok(Ok(())))) || std::thread::panicking());
        }
    }

    #[test]
    fn an_export() {
        let serving = Serving::start();
        let skipped = skipped(|access| serving.connect(access));
        assert!(skipped.contains(&Clause::Resize), "{skipped:?}");
        assert!(!skipped.contains(&Clause::Discard), "{skipped:?}");
        assert!(!skipped.contains(&Clause::ReadOnly), "{skipped:?}");
    }
}
