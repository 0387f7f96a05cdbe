//! Connections that break, and servers that are killed with writes in their cache.
//!
//! Flushed changes are stored. Changes that were acknowledged and not flushed are sent again before
//! any other request, or the next flush fails, and every later one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use luksmith::backend::Backend;
use luksmith_formats::nbd::{Command, ErrorNumber};

use super::servers::Server;
use super::{chain, connect, impatient, options, pattern, read, sectors};
use support::nbd_server::{Action, FakeServer, Seen, Shape};

/// nbdkit with a cache that is lost when it is killed, over a file that stays.
fn cached(folder: &std::path::Path) -> Option<Server> {
    let disk = folder.join("disk");
    if !disk.exists() {
        std::fs::write(&disk, vec![0; 1 << 20]).unwrap();
    }
    let disk = disk.display().to_string();
    Server::nbdkit(
        folder,
        &["--filter=cache", "file", &disk, "cache=writeback"],
    )
}

#[test]
fn the_cache_of_a_killed_server_is_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let stored = || std::fs::read(folder.path().join("disk")).unwrap();
    let Some(mut server) = cached(folder.path()) else {
        return;
    };
    let storage = connect(&server.uri(""), options());
    let (flushed, unflushed) = (pattern(100_000, 1), pattern(300_000, 2));
    storage.write_at(0, &sectors(&flushed)).unwrap();
    storage.flush().unwrap();
    for (index, bytes) in unflushed.chunks(50_000).enumerate() {
        let offset = 200_000 + 50_000 * index as u64;
        storage.write_at(offset, &sectors(bytes)).unwrap();
    }
    storage.write_zeroes(50_000..60_000).unwrap();
    // The same bytes as before, so the order of the writes counts.
    storage.write_at(210_000, &sectors(&[7; 1000])).unwrap();
    server.kill();
    let lost = stored();
    assert!(lost[..100_000] == flushed, "what was flushed is there");
    assert!(
        lost[200_000..500_000].iter().all(|byte| *byte == 0),
        "and this was not yet"
    );

    let mut server = cached(folder.path()).unwrap();
    storage.flush().unwrap();
    server.kill();
    let mut expected = vec![0; 1 << 20];
    expected[..100_000].copy_from_slice(&flushed);
    expected[200_000..500_000].copy_from_slice(&unflushed);
    expected[50_000..60_000].fill(0);
    expected[210_000..211_000].fill(7);
    assert!(stored() == expected);
}

#[test]
fn reads_see_what_was_written_before_the_server_died() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut server) = cached(folder.path()) else {
        return;
    };
    let storage = connect(&server.uri(""), options());
    let bytes = pattern(4096, 3);
    storage.write_at(8192, &sectors(&bytes)).unwrap();
    server.kill();
    let _server = cached(folder.path()).unwrap();
    assert!(read(&storage, 8192, 4096).unwrap() == bytes);
}

#[test]
fn a_server_that_does_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut server) = cached(folder.path()) else {
        return;
    };
    let storage = connect(&server.uri(""), impatient());
    let bytes = pattern(4096, 4);
    storage.write_at(0, &sectors(&bytes)).unwrap();
    server.kill();
    let error = storage.flush().unwrap_err();
    assert!(
        chain(&error).starts_with("flush at byte 0 failed: nbd+unix://"),
        "{}",
        chain(&error)
    );
    assert!(
        chain(&error).contains("cannot be reached"),
        "{}",
        chain(&error)
    );
    // The changes are kept: once the server is back, a flush makes them durable.
    let mut server = cached(folder.path()).unwrap();
    storage.flush().unwrap();
    server.kill();
    assert!(std::fs::read(folder.path().join("disk")).unwrap()[..4096] == bytes);
}

/// exitwhen: the server exits while no request is in flight.
#[test]
fn a_server_that_exits_and_is_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, leave) = (folder.path().join("disk"), folder.path().join("leave"));
    std::fs::write(&disk, pattern(1 << 20, 5)).unwrap();
    let when = format!("exit-when-file-created={}", leave.display());
    let disk = disk.display().to_string();
    let args = [
        "--filter=exitwhen",
        "file",
        &disk,
        &when,
        "exit-when-poll=1",
    ];
    let Some(mut server) = Server::nbdkit(folder.path(), &args) else {
        return;
    };
    let storage = connect(&server.uri(""), options());
    assert!(read(&storage, 0, 4096).unwrap() == pattern(1 << 20, 5)[..4096]);
    std::fs::write(&leave, "").unwrap();
    // It waits for its clients to disconnect first.
    std::thread::sleep(Duration::from_millis(1200));
    if !server.has_ended() {
        server.kill();
    }
    std::fs::remove_file(&leave).unwrap();
    let _server = Server::nbdkit(folder.path(), &args).unwrap();
    assert!(read(&storage, 4096, 4096).unwrap() == pattern(1 << 20, 5)[4096..8192]);
}

/// Counts the requests of all connections.
fn counted(
    act: impl Fn(usize, &Seen) -> Action + Send + Sync,
) -> impl Fn(&Seen) -> Action + Send + Sync {
    let count = AtomicUsize::new(0);
    move |seen| act(count.fetch_add(1, Ordering::SeqCst), seen)
}

/// The server is killed at each request of a series in turn. The outcome is always the same.
#[test]
fn the_server_dies_at_any_request() {
    for at in 0..24 {
        let fake = FakeServer::new(
            Shape::default(),
            counted(move |number, _| {
                if number == at {
                    Action::Die
                } else {
                    Action::Serve
                }
            }),
        );
        let storage = connect(fake.uri(), options());
        let mut model = vec![0; 1 << 20];
        for step in 0..18_u64 {
            let offset = usize::try_from(step).unwrap() * 3000 % 20_000;
            match step % 6 {
                4 => storage.flush().unwrap(),
                5 => {
                    storage
                        .write_zeroes(offset as u64..offset as u64 + 5000)
                        .unwrap();
                    model[offset..offset + 5000].fill(0);
                }
                _ => {
                    storage
                        .write_at(offset as u64, &sectors(&pattern(5000, step)))
                        .unwrap();
                    model[offset..offset + 5000].copy_from_slice(&pattern(5000, step));
                }
            }
            assert!(
                read(&storage, 0, 30_000).unwrap() == model[..30_000],
                "{at} {step}"
            );
        }
        storage.flush().unwrap();
        assert!(fake.stored() == model, "{at}");
        let died = fake.seen().len() > at;
        assert_eq!(fake.connections(), 1 + usize::from(died));
    }
}

/// Many threads use a connection that breaks again and again.
#[test]
fn the_connection_breaks_again_and_again() {
    let fake = FakeServer::new(
        Shape::default(),
        counted(|number, _| match number % 97 {
            40 => Action::HangUp { carried_out: true },
            70 => Action::HangUp { carried_out: false },
            96 => Action::Die,
            _ => Action::Serve,
        }),
    );
    let storage = connect(fake.uri(), options());
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let storage = &storage;
            scope.spawn(move || {
                for round in 0..60 {
                    let bytes = pattern(4096, thread * 100 + round);
                    let offset = thread * 65_536 + round % 3 * 8192;
                    storage.write_at(offset, &sectors(&bytes)).unwrap();
                    assert!(read(storage, offset, 4096).unwrap() == bytes);
                    if round % 10 == 9 {
                        storage.flush().unwrap();
                    }
                }
            });
        }
    });
    storage.flush().unwrap();
    for thread in 0..8_u64 {
        for round in 57..60 {
            let at = usize::try_from(thread * 65_536 + round % 3 * 8192).unwrap();
            assert!(fake.stored()[at..at + 4096] == pattern(4096, thread * 100 + round));
        }
    }
    assert!(fake.connections() > 5);
}

#[test]
fn acknowledged_changes_are_sent_again_first_and_in_order() {
    let fake = FakeServer::new(Shape::default(), |seen| {
        match (seen.connection, seen.number) {
            (0, 4) => Action::Die,
            _ => Action::Serve,
        }
    });
    let storage = connect(fake.uri(), options());
    for (seed, offset) in [0, 512, 0, 1024].into_iter().enumerate() {
        storage
            .write_at(offset, &sectors(&pattern(512, seed as u64)))
            .unwrap();
    }
    assert!(read(&storage, 0, 512).unwrap() == pattern(512, 2));
    let again: Vec<_> = fake
        .seen()
        .into_iter()
        .filter(|seen| seen.connection == 1)
        .collect();
    let asked: Vec<_> = again
        .iter()
        .map(|seen| (seen.request.command, seen.request.offset))
        .collect();
    let write = |offset| (Command::Write, offset);
    assert_eq!(
        asked,
        [
            write(0),
            write(512),
            write(0),
            write(1024),
            (Command::Flush, 0),
            (Command::Read, 0)
        ]
    );
}

#[test]
fn a_flush_that_failed_stays_failed() {
    let failing = Arc::new(AtomicBool::new(true));
    let switch = failing.clone();
    let fake = FakeServer::new(Shape::default(), move |seen| match seen.request.command {
        Command::Flush if switch.load(Ordering::SeqCst) => Action::Fail(ErrorNumber::Io),
        _ => Action::Serve,
    });
    let storage = connect(fake.uri(), options());
    storage.write_at(0, &sectors(&[1; 512])).unwrap();
    let error = storage.flush().unwrap_err();
    assert!(
        chain(&error).contains("the server replied EIO (as told)"),
        "{}",
        chain(&error)
    );
    failing.store(false, Ordering::SeqCst);
    for _ in 0..3 {
        let error = storage.flush().unwrap_err();
        assert!(chain(&error).contains("may be lost"), "{}", chain(&error));
    }
    // Other requests still succeed.
    storage.write_at(0, &sectors(&[2; 512])).unwrap();
    assert_eq!(read(&storage, 0, 512).unwrap(), [2; 512]);
}

#[test]
fn a_server_that_refuses_what_it_had_acknowledged() {
    let fake = FakeServer::new(Shape::default(), |seen| {
        match (seen.connection, seen.request.command) {
            (0, Command::Read) => Action::Die,
            (1, Command::Write) => Action::Fail(ErrorNumber::NoSpace),
            _ => Action::Serve,
        }
    });
    let storage = connect(fake.uri(), options());
    storage.write_at(0, &sectors(&[1; 512])).unwrap();
    assert_eq!(read(&storage, 0, 512).unwrap(), [0; 512]);
    for _ in 0..2 {
        let error = storage.flush().unwrap_err();
        assert!(chain(&error).contains("may be lost"), "{}", chain(&error));
    }
}

/// The flush succeeds at the server, over a new connection over which a change was lost before.
#[test]
fn a_flush_fails_if_a_change_was_lost_before_it() {
    let fake = FakeServer::new(Shape::default(), |seen| {
        match (seen.connection, seen.request.command) {
            (0, Command::Flush) => Action::Die,
            (1, Command::Write) => Action::Fail(ErrorNumber::Io),
            _ => Action::Serve,
        }
    });
    let storage = connect(fake.uri(), options());
    storage.write_at(0, &sectors(&[1; 512])).unwrap();
    assert!(chain(&storage.flush().unwrap_err()).contains("may be lost"));
    assert!(storage.flush().is_err());
}

#[test]
fn the_client_disconnects_from_a_server_that_shuts_down() {
    let fake = FakeServer::new(Shape::default(), |seen| match seen.connection {
        0 => Action::Fail(ErrorNumber::Shutdown),
        _ => Action::Serve,
    });
    let storage = connect(fake.uri(), options());
    assert_eq!(read(&storage, 0, 512).unwrap(), [0; 512]);
    assert_eq!(fake.connections(), 2);
}

#[test]
fn a_request_that_crashes_the_server_fails_after_the_timeout() {
    let fake = FakeServer::new(Shape::default(), |seen| match seen.request.offset {
        512 => Action::Die,
        _ => Action::Serve,
    });
    let storage = connect(fake.uri(), options().timeout(Duration::from_secs(1)));
    let error = read(&storage, 512, 512).unwrap_err();
    assert!(
        chain(&error).contains("times during this request"),
        "{}",
        chain(&error)
    );
    assert_eq!(read(&storage, 0, 512).unwrap(), [0; 512]);
}

/// Other clients may crash the server, so the number of breaks says nothing about a request.
#[test]
fn a_request_survives_many_breaks_within_the_timeout() {
    let fake = FakeServer::new(
        Shape::default(),
        counted(|number, _| match number {
            0..8 => Action::Die,
            _ => Action::Serve,
        }),
    );
    let storage = connect(fake.uri(), options().timeout(Duration::from_secs(100)));
    assert_eq!(read(&storage, 512, 512).unwrap(), [0; 512]);
    assert_eq!(fake.connections(), 9);
}

/// The memory for unflushed writes is limited. Beyond the limit they are flushed.
#[test]
fn memory_for_unflushed_writes_is_bounded() {
    let fake = FakeServer::new(
        Shape::default(),
        counted(|number, _| {
            if number == 900 {
                Action::Die
            } else {
                Action::Serve
            }
        }),
    );
    let options = options().unflushed(256 << 10);
    let storage = connect(fake.uri(), options);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let storage = &storage;
            scope.spawn(move || {
                for round in 0..200 {
                    let offset = thread * 262_144 + round % 60 * 4096;
                    storage
                        .write_at(offset, &sectors(&pattern(4096, thread * 1000 + round)))
                        .unwrap();
                }
            });
        }
    });
    let (mut unflushed, mut most) = (0, 0);
    for seen in fake.seen() {
        match seen.request.command {
            Command::Flush => unflushed = 0,
            _ => unflushed += seen.request.len,
        }
        most = most.max(unflushed);
    }
    // Changes that are sent again count too.
    assert!((128 << 10..=512 << 10).contains(&most), "{most}");
    storage.flush().unwrap();
    for thread in 0..4_u64 {
        for round in 140..200 {
            let at = usize::try_from(thread * 262_144 + round % 60 * 4096).unwrap();
            assert!(fake.stored()[at..at + 4096] == pattern(4096, thread * 1000 + round));
        }
    }
}

#[test]
fn after_the_limit_each_request_tries_once() {
    let fake = FakeServer::new(Shape::default(), |_| Action::Die);
    let patience = Duration::from_millis(500);
    let storage = connect(fake.uri(), options().timeout(patience));
    fake.listener.stop();
    let begun = Instant::now();
    assert!(read(&storage, 0, 512).is_err());
    assert!(begun.elapsed() >= patience / 2, "it was waited for");
    let begun = Instant::now();
    for _ in 0..20 {
        assert!(chain(&read(&storage, 0, 512).unwrap_err()).contains("cannot be reached"));
    }
    assert!(begun.elapsed() < patience * 10, "and is not any more");
}
