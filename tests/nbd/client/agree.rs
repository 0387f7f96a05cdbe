//! Whole payloads through every kind of server, and several threads at once.

use std::path::Path;

use luksmith::backend::nbd::{ConnectOptions, NbdBackend};
use luksmith::backend::{Backend, IoError};
use luksmith_formats::nbd::uri::Uri;
use luksmith_formats::nbd::{BlockSizes, TransmissionFlags};

use super::servers::Server;
use super::{connect, options, pattern, read, sectors};
use support::nbd_server::{Action, FakeServer, Replies, Shape};

const SIZE: usize = 8 << 20;

/// Makes changes of every kind, one after the other and from several threads. Compares everything
/// over a new connection.
fn agrees(uri: &Uri, options: ConnectOptions) {
    let storage = connect(uri, options);
    let geometry = storage.geometry();
    assert_eq!((geometry.size, geometry.read_only), (SIZE as u64, false));
    let unit = geometry.block_size as usize;
    let mut model = vec![0; SIZE];

    storage.write_at(0, &sectors(&pattern(SIZE, 1))).unwrap();
    model.copy_from_slice(&pattern(SIZE, 1));
    assert!(read(&storage, 0, SIZE).unwrap() == model);

    let rounded = |at: usize| at.next_multiple_of(unit);
    for (seed, (offset, len)) in [
        (0, 1),
        (4095, 4098),
        (70_000, 1 << 20),
        (SIZE - 200_000, 4000),
    ]
    .into_iter()
    .enumerate()
    {
        let (offset, len) = (rounded(offset), rounded(len));
        let bytes = pattern(len, 100 + seed as u64);
        storage.write_at(offset as u64, &sectors(&bytes)).unwrap();
        model[offset..offset + len].copy_from_slice(&bytes);
    }
    let zeroed = rounded(3_000_001)..rounded(5_500_000);
    storage
        .write_zeroes(zeroed.start as u64..zeroed.end as u64)
        .unwrap();
    model[zeroed].fill(0);
    let given_up = rounded(6_000_000)..rounded(6_100_000);
    match storage.discard(given_up.start as u64..given_up.end as u64) {
        Ok(()) => {
            // The content now depends on the server.
            let now = read(&storage, given_up.start as u64, given_up.len()).unwrap();
            model[given_up].copy_from_slice(&now);
        }
        Err(IoError::Unsupported(_)) => {}
        Err(error) => panic!("{error}"),
    }
    storage.flush().unwrap();

    let threads = 8;
    std::thread::scope(|scope| {
        for (thread, part) in model.chunks_mut(SIZE / threads).enumerate() {
            let storage = &storage;
            scope.spawn(move || in_turn(storage, thread, part, unit));
        }
    });
    storage.flush().unwrap();
    assert!(read(&connect(uri, options), 0, SIZE).unwrap() == model);
}

/// Writes and reads a range that no other thread uses.
fn in_turn(storage: &NbdBackend, thread: usize, part: &mut [u8], unit: usize) {
    let start = (thread * part.len()) as u64;
    let len = unit.max(4096);
    for round in 0..10 {
        let at = round * 83 % (part.len() / len) * len;
        let bytes = pattern(len, (thread * 1000 + round) as u64);
        storage
            .write_at(start + at as u64, &sectors(&bytes))
            .unwrap();
        part[at..at + len].copy_from_slice(&bytes);
        let whole = read(storage, start, 262_144).unwrap();
        assert!(whole == part[..262_144]);
    }
}

fn disk(folder: &Path) -> String {
    let disk = folder.join("disk");
    let file = std::fs::File::create(&disk).unwrap();
    file.set_len(SIZE as u64).unwrap();
    disk.display().to_string()
}

#[test]
fn nbdkit_with_every_set_of_options() {
    let folder = tempfile::tempdir().unwrap();
    let disk = disk(folder.path());
    let file = ["file", &disk];
    for args in [
        &["memory", "8M"][..],
        &file,
        &[&["--no-sr"][..], &file].concat(),
        &[&["--mask-handshake=0"][..], &file].concat(),
        &[&["--mask-handshake=1"][..], &file].concat(),
        &[
            &["--filter=multi-conn"][..],
            &file,
            &["multi-conn-mode=disable"],
        ]
        .concat(),
        &[&["--filter=nozero"][..], &file].concat(),
        &[&["--filter=fua"][..], &file, &["fuamode=emulate"]].concat(),
        &[
            "--filter=blocksize-policy",
            "memory",
            "8M",
            "blocksize-minimum=4096",
            "blocksize-maximum=64K",
            "blocksize-error-policy=error",
        ],
        &[
            "--filter=blocksize-policy",
            "memory",
            "8M",
            "blocksize-minimum=64K",
            "blocksize-preferred=64K",
            "blocksize-error-policy=error",
        ],
        &["--filter=cow", "memory", "8M"],
    ] {
        let Some(server) = Server::nbdkit(folder.path(), args) else {
            return;
        };
        agrees(&server.uri(""), options());
        let one = options().connections(1);
        agrees(&server.uri(""), one);
    }
}

#[test]
fn what_nbdkit_stores_is_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let disk = disk(folder.path());
    let Some(server) = Server::nbdkit(folder.path(), &["file", &disk]) else {
        return;
    };
    let bytes = pattern(SIZE, 9);
    let storage = connect(&server.uri(""), options());
    storage.write_at(0, &sectors(&bytes)).unwrap();
    storage.flush().unwrap();
    assert!(std::fs::read(&disk).unwrap() == bytes);
}

#[test]
fn qemu_nbd() {
    let folder = tempfile::tempdir().unwrap();
    let disk = disk(folder.path());
    let raw = ["--format=raw", "--discard=unmap", &disk];
    let Some(server) = Server::qemu_nbd(folder.path(), &raw) else {
        return;
    };
    agrees(&server.uri(""), options());
    drop(server);
    let named = [&["--export-name=a/b c", "--cache=writeback"][..], &raw].concat();
    let Some(server) = Server::qemu_nbd(folder.path(), &named) else {
        return;
    };
    agrees(&server.uri("a/b%20c"), options());
}

#[test]
fn qemu_storage_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let disk = disk(folder.path());
    let Some(server) = Server::storage_daemon(folder.path(), Path::new(&disk)) else {
        return;
    };
    agrees(&server.uri("disk"), options());
}

/// Forms that no other server here offers: extended headers, and every feature present or absent.
#[test]
fn every_shape_of_server() {
    let all = Shape::default().flags;
    let plain = TransmissionFlags::HAS_FLAGS;
    let fua = plain | TransmissionFlags::SEND_FUA;
    let many = all | TransmissionFlags::CAN_MULTI_CONN;
    let small = BlockSizes {
        minimum: 512,
        preferred: 4096,
        maximum: 32 << 10,
    };
    for replies in [Replies::Simple, Replies::Structured, Replies::Extended] {
        for (flags, blocks) in [
            (all, None),
            (plain, None),
            (fua, Some(small)),
            (many, Some(small)),
        ] {
            let shape = Shape {
                size: SIZE,
                replies,
                flags,
                blocks,
                allocation: None,
                first_look: true,
            };
            let fake = FakeServer::new(shape, |_| Action::Serve);
            agrees(fake.uri(), options());
            let most = if flags == many { 8 } else { 2 };
            assert!(fake.connections() <= most, "{}", fake.connections());
            if flags == fua {
                // Without flush, every change was made durable with FUA.
                assert!(fake.stored() == fake.cached());
            }
        }
    }
}

#[test]
fn several_connections_only_where_the_server_allows_them() {
    for (flag, most, expected) in [
        (TransmissionFlags::NONE, 4, 1),
        (TransmissionFlags::CAN_MULTI_CONN, 4, 4),
        (TransmissionFlags::CAN_MULTI_CONN, 1, 1),
    ] {
        let shape = Shape {
            flags: Shape::default().flags | flag,
            ..Shape::default()
        };
        // The server delays reads long enough that they queue up.
        let fake = FakeServer::new(shape, |_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            Action::Serve
        });
        let options = options().connections(most);
        let storage = connect(fake.uri(), options);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| (0..5).for_each(|_| drop(read(&storage, 0, 512).unwrap())));
            }
        });
        assert_eq!(fake.connections(), expected);
        let last = fake.seen().iter().map(|seen| seen.connection).max();
        assert_eq!(last, Some(expected - 1), "all of them are used");
    }
}
