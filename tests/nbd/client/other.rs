//! Another disk under the same name. It is recognised by its first bytes, whatever this client has
//! written to the first disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use luksmith::backend::Backend;
use luksmith_formats::nbd::{Command, TransmissionFlags};

use super::{chain, connect, impatient, options, pattern, read, sectors};
use crate::served::Folder;
use support::nbd_server::{Action, FakeServer, Shape};

/// A server that is replaced by another one with an empty disk when the switch is set.
fn replaced(shape: Shape, disk: Vec<u8>) -> (FakeServer, Arc<AtomicBool>) {
    let switch = Arc::new(AtomicBool::new(false));
    let set = switch.clone();
    let fake = FakeServer::with_disk(shape, disk, move |_| {
        if set.swap(false, Ordering::SeqCst) {
            Action::Replace
        } else {
            Action::Serve
        }
    });
    (fake, switch)
}

#[track_caller]
fn assert_refused(storage: &dyn Backend, fake: &FakeServer) {
    let asked = fake.seen().len();
    let error = storage
        .write_at(65_536, &sectors(&[5; 4096]))
        .expect_err("it was written to");
    let told = "the export contains another disk than before";
    assert!(chain(&error).contains(told), "{}", chain(&error));
    assert!(storage.flush().is_err() && read(storage, 0, 512).is_err());
    // Except the request during which the server was replaced.
    assert!(
        fake.seen().len() <= asked + 1,
        "a request was sent to the other disk"
    );
    assert_eq!(fake.cached(), vec![0; 1 << 20]);
}

#[test]
fn before_anything_was_read_or_written() {
    let (fake, replace) = replaced(Shape::default(), pattern(1 << 20, 1));
    let storage = connect(fake.uri(), impatient());
    replace.store(true, Ordering::SeqCst);
    assert_refused(&storage, &fake);
}

/// As for the data of a detached header, every sector can be written, the first ones too.
#[test]
fn after_its_beginning_was_written_and_flushed() {
    for (block, len) in [(1, 512), (1, 100), (4096, 4096), (512, 65_536)] {
        let shape = Shape {
            blocks: (block > 1).then_some(luksmith_formats::nbd::BlockSizes {
                minimum: block,
                preferred: 4096,
                maximum: 1 << 20,
            }),
            ..Shape::default()
        };
        let (fake, replace) = replaced(shape, vec![0; 1 << 20]);
        let storage = connect(fake.uri(), impatient());
        storage.write_at(0, &sectors(&pattern(len, 2))).unwrap();
        storage.flush().unwrap();
        // This one is not flushed, so it may be stored or not.
        storage.write_at(0, &sectors(&pattern(len, 3))).unwrap();
        replace.store(true, Ordering::SeqCst);
        assert_refused(&storage, &fake);
    }
}

#[test]
fn after_its_beginning_was_zeroed_and_written_again() {
    let (fake, replace) = replaced(Shape::default(), pattern(1 << 20, 4));
    let storage = connect(fake.uri(), impatient());
    storage.write_zeroes(0..4096).unwrap();
    storage.flush().unwrap();
    storage.write_at(512, &sectors(&pattern(512, 5))).unwrap();
    storage.flush().unwrap();
    replace.store(true, Ordering::SeqCst);
    assert_refused(&storage, &fake);
}

/// A further connection may reach another server under the same name.
#[test]
fn a_further_connection_that_ends_elsewhere() {
    let shape = Shape {
        flags: Shape::default().flags | TransmissionFlags::CAN_MULTI_CONN,
        ..Shape::default()
    };
    let slowly = |_: &_| {
        std::thread::sleep(Duration::from_millis(5));
        Action::Serve
    };
    let right = FakeServer::with_disk(shape, pattern(1 << 20, 6), slowly);
    let wrong = FakeServer::with_disk(shape, pattern(1 << 20, 7), slowly);
    let storage = connect(right.uri(), options());
    std::fs::rename(wrong.listener.socket(), right.listener.socket()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..16_u64 {
            let (storage, wrong) = (&storage, &wrong);
            scope.spawn(move || {
                let mut round = 0;
                while round < 10 || wrong.connections() == 0 {
                    let offset = thread * 65_536 + round % 16 * 4096;
                    storage
                        .write_at(offset, &sectors(&pattern(4096, round)))
                        .unwrap();
                    round += 1;
                }
            });
        }
    });
    storage.flush().unwrap();
    assert!(wrong.seen().is_empty());
    assert_eq!(wrong.cached(), pattern(1 << 20, 7));
}

/// `encrypt` to an export that is replaced by an empty one at each request in turn: it fails, or
/// the volume is complete.
#[test]
fn encrypt_does_not_succeed_with_lost_data() {
    const SIZE: usize = 8 << 20;
    let folder = Folder::new();
    let plain = pattern(SIZE - (2 << 20), 8);
    folder.write("plain", &plain);
    let shape = Shape {
        size: SIZE,
        ..Shape::default()
    };
    let mut failed = 0;
    for at in 0.. {
        let count = AtomicUsize::new(0);
        let fake = FakeServer::new(shape, move |seen| match seen.request.command {
            Command::Read => Action::Serve,
            _ if count.fetch_add(1, Ordering::SeqCst) == at => Action::Replace,
            _ => Action::Serve,
        });
        let location = fake.uri().to_string();
        let cheap = ["--pbkdf-force-iterations", "1000", "--key-file", "key"];
        let args = ["encrypt", "plain", &location, "--type", "luks1"];
        let more = ["--timeout", "2", "--connections", "1"];
        let output = folder
            .luksmith(args.iter().chain(&cheap).chain(&more))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            folder.write("disk.img", &fake.cached());
            assert!(folder.decrypted() == plain, "replaced at {at}: {said}");
        } else {
            assert_eq!(output.status.code(), Some(4), "replaced at {at}: {said}");
            failed += 1;
        }
        if fake.connections() == 1 {
            // The command ended before that request.
            assert!(failed >= 8, "{failed} of {at}");
            return;
        }
    }
}
