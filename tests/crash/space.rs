//! A change in place on storage that runs out of space, or fails, leaves the volume as it was.

use std::collections::BTreeSet;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use luksmith::Interrupt;
use luksmith::backend::memory::MemoryBackend;
use luksmith::backend::{Backend, Geometry, IoError, Operation};
use luksmith::container::{
    CommitError, Container, HeaderError, KeyslotError, NewKeyslot, Repaired, Settled, Version,
};
use luksmith::sectors::{Cipher, Sectors};

use crate::volume::{Sample, cost, open_options, passphrase, unlock};
use support::peers;

const BLOCK: u64 = 4096;

/// A sparse storage in memory: blocks of zeroes are holes at first, and it has space for only some
/// more blocks. It can also fail at one write.
struct Sparse {
    inner: MemoryBackend,
    allocated: Mutex<BTreeSet<u64>>,
    left: Mutex<usize>,
    reserves: bool,
    /// The number of writes until one fails.
    fails_after: Mutex<Option<usize>>,
}

impl Sparse {
    fn new(disk: &[u8], left: usize, reserves: bool) -> Self {
        Self {
            allocated: Mutex::new(used(disk).collect()),
            inner: MemoryBackend::from_bytes(disk.to_vec()),
            left: Mutex::new(left),
            reserves,
            fails_after: Mutex::new(None),
        }
    }

    fn allocate(&self, operation: Operation, range: Range<u64>) -> Result<(), IoError> {
        let mut allocated = self.allocated.lock().unwrap();
        let mut left = self.left.lock().unwrap();
        for block in range.start / BLOCK..range.end.div_ceil(BLOCK) {
            if allocated.contains(&block) {
                continue;
            }
            let offset = range.start;
            let none = IoError::NoSpace { operation, offset };
            *left = left.checked_sub(1).ok_or(none)?;
            allocated.insert(block);
        }
        Ok(())
    }
}

/// The blocks that are not holes.
fn used(disk: &[u8]) -> impl Iterator<Item = u64> {
    let blocks = (0..).zip(disk.chunks(usize::try_from(BLOCK).unwrap()));
    blocks
        .filter(|(_, block)| block.iter().any(|byte| *byte != 0))
        .map(|(number, _)| number)
}

impl Backend for Sparse {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }
    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        self.inner.read_at(offset, into)
    }
    fn write_at(&self, offset: u64, from: &Sectors<Cipher>) -> Result<(), IoError> {
        let operation = Operation::Write;
        let mut fails_after = self.fails_after.lock().unwrap();
        let fails = *fails_after == Some(0);
        *fails_after = fails_after.and_then(|left| left.checked_sub(1));
        if fails {
            let source = std::io::Error::other("a bad block");
            return Err(IoError::Failed {
                operation,
                offset,
                source,
            });
        }
        self.allocate(operation, offset..offset + from.len() as u64)?;
        self.inner.write_at(offset, from)
    }
    fn flush(&self) -> Result<(), IoError> {
        Ok(())
    }
    fn discard(&self, _: Range<u64>) -> Result<(), IoError> {
        unreachable!("metadata is never discarded")
    }
    fn write_zeroes(&self, _: Range<u64>) -> Result<(), IoError> {
        unreachable!("metadata is written, not zeroed")
    }
    fn reserve(&self, range: Range<u64>) -> Result<(), IoError> {
        match self.reserves {
            true => self.allocate(Operation::Reserve, range),
            false => Err(IoError::Unsupported(Operation::Reserve)),
        }
    }
    fn resize(&self, _: u64) -> Result<(), IoError> {
        Err(IoError::Unsupported(Operation::Resize))
    }
}

/// A LUKS1 volume in a sparse image: the areas of unused keyslots are holes. A conversion writes to
/// some of them.
fn sparse() -> Sample {
    Sample::new(Version::Luks1, 32, 0)
}

#[test]
fn space_is_reserved_before_the_first_write() {
    let sample = sparse();
    for reserves in [true, false] {
        let mut refused = 0;
        for left in 0.. {
            let storage = Arc::new(Sparse::new(&sample.state.disk, left, reserves));
            let (_, undo, log) = sample.state.start();
            let mut container = Container::open(storage.clone(), open_options(&undo)).unwrap();
            match container.convert(Version::Luks2) {
                Ok(()) => break,
                Err(HeaderError::Commit(CommitError::NoRoom(IoError::NoSpace { .. }))) => {}
                Err(error) => panic!("{left} blocks: {error:?}"),
            }
            refused += 1;
            assert!(
                storage.inner.to_bytes() == sample.state.disk,
                "{left} blocks"
            );
            assert!(
                log.lock().unwrap().is_empty(),
                "{left} blocks: a record was saved"
            );
        }
        assert!(refused > 2, "{refused}");
    }
}

/// A new keyslot is written to free space, which is a hole, before a header refers to it.
#[test]
fn space_for_a_change_that_is_not_in_place_is_reserved_too() {
    for version in [Version::Luks1, Version::Luks2] {
        let sample = Sample::new(version, 32, 4);
        let mut refused = 0;
        for left in 0.. {
            let storage = Arc::new(Sparse::new(&sample.state.disk, left, true));
            let (_, undo, _) = sample.state.start();
            let mut container = Container::open(storage.clone(), open_options(&undo)).unwrap();
            let unlocked = unlock(&container, "old").unwrap();
            let new = passphrase("new");
            let new = NewKeyslot::new(&new, cost());
            match container.add_keyslot(&unlocked, &new, &Interrupt::default()) {
                Ok(_) => break,
                Err(KeyslotError::Commit(CommitError::NoRoom(IoError::NoSpace { .. }))) => {}
                Err(error) => panic!("{left} blocks: {error:?}"),
            }
            refused += 1;
            assert!(
                storage.inner.to_bytes() == sample.state.disk,
                "{version}, {left} blocks"
            );
        }
        assert!(refused > 2, "{version}: {refused}");
    }
}

#[test]
fn a_change_that_fails_is_taken_back_at_once() {
    let sample = Sample::new(Version::Luks1, 64, 0).filled(8);
    let mut taken_back = 0;
    for after in 0.. {
        let storage = Arc::new(Sparse::new(&sample.state.disk, 0, true));
        let (_, undo, _) = sample.state.start();
        let mut container = Container::open(storage.clone(), open_options(&undo)).unwrap();
        let unlocked = unlock(&container, "old").unwrap();
        *storage.fails_after.lock().unwrap() = Some(after);
        let new = passphrase("new");
        let new = NewKeyslot::new(&new, cost());
        match container.change_keyslot(&unlocked, &new, &Interrupt::default()) {
            Ok(_) => break,
            Err(KeyslotError::Commit(CommitError::RolledBack(_))) => {}
            Err(error) => panic!("write {after}: {error:?}"),
        }
        taken_back += 1;
        assert!(
            storage.inner.to_bytes() == sample.state.disk,
            "write {after}"
        );
        assert!(undo.record().is_none(), "write {after}");
        // The container can still be used.
        assert!(unlock(&container, "old").is_some());
    }
    assert!(taken_back > 1, "{taken_back}");
}

/// Records of older versions were kept without a reservation.
#[test]
fn a_rollback_needs_no_space() {
    let sample = sparse();
    let (disk, undo, log) = sample.state.start();
    let mut container = Container::open(disk, open_options(&undo)).unwrap();
    container.convert(Version::Luks2).unwrap();
    let events = log.lock().unwrap().clone();
    let mut tried = 0_usize;
    crate::states::for_each(&sample.state, &events, |state, what| {
        if state.undo.is_none() {
            return;
        }
        tried += 1;
        if !tried.is_multiple_of(16) {
            return;
        }
        let storage = Arc::new(Sparse::new(&state.disk, 0, true));
        // The change wrote zeroes to some of them.
        storage
            .allocated
            .lock()
            .unwrap()
            .extend(used(&sample.state.disk));
        let (_, undo, _) = state.start();
        let repaired = Container::repair(storage.clone(), open_options(&undo)).unwrap();
        if let [
            Repaired::Interrupted {
                settled: Settled::RolledBack,
                ..
            },
        ] = &repaired[..]
        {
            assert!(storage.inner.to_bytes() == sample.state.disk, "{what}");
        }
    });
    assert!(tried > 32);
}

/// A mounted file system.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        peers::output(Command::new("umount").arg(&self.0));
    }
}

#[test]
fn a_full_file_system() {
    let (Some(mount), Some(_)) = (peers::find("mount"), peers::find("umount")) else {
        return;
    };
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("full")).unwrap();
    let mut command = Command::new(mount);
    command.args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]);
    peers::run(command.arg(path("full")));
    let _mounted = Mounted(path("full"));

    std::fs::write(path("key"), "secret").unwrap();
    std::fs::set_permissions(path("key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let luksmith = |args: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_luksmith"));
        command.current_dir(&folder).args(args.split(' '));
        let output = peers::output(&mut command);
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), said)
    };
    let create = "create full/disk.img --size 1M --type luks1 --key-file key --pbkdf pbkdf2 \
                  --pbkdf-force-iterations 1000";
    assert_eq!(luksmith(create), (Some(0), String::new()));
    let before = std::fs::read(path("full/disk.img")).unwrap();
    // All of the rest.
    let mut filler = std::fs::File::create(path("full/filler")).unwrap();
    while std::io::Write::write(&mut filler, &[1; 4096]).is_ok() {}

    let convert = "convert full/disk.img --to luks2 --force convert --undo-file record";
    let (code, said) = luksmith(convert);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("nothing was changed"), "{said}");
    assert!(std::fs::read(path("full/disk.img")).unwrap() == before);
    assert!(!path("record").exists());
    assert_eq!(luksmith("key test full/disk.img --key-file key").0, Some(0));

    std::fs::remove_file(path("full/filler")).unwrap();
    drop(filler);
    assert_eq!(luksmith(convert).0, Some(0));
    assert_eq!(luksmith("key test full/disk.img --key-file key").0, Some(0));
}
