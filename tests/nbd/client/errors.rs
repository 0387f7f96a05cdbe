//! Servers that fail: the right request gets the right error, and others get none.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use luksmith::backend::{Backend, IoError, Operation};
use luksmith_formats::nbd::{Command, ErrorNumber};

use super::servers::Server;
use super::{chain, connect, impatient, options, pattern, read, sectors};
use support::nbd_server::{Action, FakeServer, Replies, Shape};

#[test]
fn errors_of_nbdkit_are_mapped() {
    let folder = tempfile::tempdir().unwrap();
    for (error, name) in [
        ("EIO", "EIO"),
        ("ENOSPC", "ENOSPC"),
        ("ENOMEM", "ENOMEM"),
        ("EPERM", "EPERM"),
    ] {
        let error = format!("error={error}");
        let args = [
            "--filter=error",
            "memory",
            "1M",
            &error,
            "error-pread-rate=100%",
            "error-pwrite-rate=100%",
        ];
        let Some(server) = Server::nbdkit(folder.path(), &args) else {
            return;
        };
        let storage = connect(&server.uri(""), options());
        let write = storage.write_at(4096, &sectors(&[1; 512])).unwrap_err();
        match name {
            "ENOSPC" => {
                let (operation, offset) = (Operation::Write, 4096);
                assert!(
                    matches!(write, IoError::NoSpace { operation: o, offset: at } if (o, at) == (operation, offset))
                );
            }
            "EPERM" => assert!(matches!(write, IoError::ReadOnly(Operation::Write))),
            _ => assert!(
                chain(&write).contains(&format!("replied {name}")),
                "{}",
                chain(&write)
            ),
        }
        if name == "EIO" {
            let read = read(&storage, 8192, 512).unwrap_err();
            let said = chain(&read);
            let begin = format!(
                "read at byte 8192 failed: {}: the server replied EIO",
                server.uri_text("")
            );
            assert!(said.starts_with(&begin), "{said}");
        }
    }
}

/// One request fails. Requests before, at the same time and after succeed, and the connection
/// stays.
#[test]
fn an_error_is_of_one_request() {
    for replies in [Replies::Simple, Replies::Structured, Replies::Extended] {
        let shape = Shape {
            replies,
            ..Shape::default()
        };
        let fake = FakeServer::new(shape, |seen| match seen.request {
            request if request.offset == 4096 => Action::Fail(ErrorNumber::Io),
            _ => Action::Serve,
        });
        let storage = connect(fake.uri(), options());
        storage.write_at(0, &sectors(&pattern(4096, 1))).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        assert!(read(&storage, 0, 4096).unwrap() == pattern(4096, 1));
                        let IoError::Failed {
                            operation,
                            offset,
                            source,
                        } = read(&storage, 4096, 512).unwrap_err()
                        else {
                            panic!("another error");
                        };
                        assert_eq!(
                            (operation, offset, source.kind()),
                            (Operation::Read, 4096, ErrorKind::Other)
                        );
                    }
                });
            }
        });
        assert!(storage.write_at(4096, &sectors(&[1; 512])).is_err());
        storage.flush().unwrap();
        assert_eq!(fake.connections(), 1);
    }
}

#[test]
fn a_request_that_the_server_does_not_support_is_replaced_by_others() {
    let fake = FakeServer::new(Shape::default(), |seen| match seen.request.command {
        Command::WriteZeroes => Action::Fail(ErrorNumber::NotSupported),
        _ => Action::Serve,
    });
    let storage = connect(fake.uri(), options());
    storage.write_at(0, &sectors(&[1; 8192])).unwrap();
    storage.write_zeroes(0..4096).unwrap();
    assert_eq!(fake.cached()[..8192], [[0; 4096], [1; 4096]].concat());
}

/// The pause filter: the server receives requests and replies to none.
#[test]
fn a_server_that_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let control = folder.path().join("control");
    let _ = std::fs::remove_file(&control);
    let socket = format!("pause-control={}", control.display());
    let args = ["--filter=pause", "memory", "1M", &socket];
    let Some(server) = Server::nbdkit(folder.path(), &args) else {
        return;
    };
    let storage = connect(&server.uri(""), impatient());
    storage.write_at(0, &sectors(&[5; 512])).unwrap();
    let mut control = UnixStream::connect(&control).unwrap();
    let mut tell = |what: &[u8; 1], answer: &[u8; 1]| {
        use std::io::{Read, Write};
        let mut said = [0];
        control.write_all(what).unwrap();
        control.read_exact(&mut said).unwrap();
        assert_eq!(&said, answer);
    };
    tell(b"p", b"P");
    let begun = Instant::now();
    let error = read(&storage, 0, 512).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(
        chain(&error).contains("no reply within 0.3 s"),
        "{}",
        chain(&error)
    );
    tell(b"r", b"R");
    assert_eq!(read(&storage, 0, 512).unwrap(), [5; 512]);
}

/// A slow server does not count as silent, as long as it sends something.
#[test]
fn a_slow_server_is_waited_for() {
    let fake = FakeServer::new(Shape::default(), |_| {
        std::thread::sleep(Duration::from_millis(100));
        Action::Serve
    });
    let storage = connect(fake.uri(), impatient());
    // All requests are sent at once and replied one after the other. The last reply comes after
    // more than the timeout.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(read(&storage, 0, 512).unwrap(), [0; 512]));
        }
    });
    assert_eq!(fake.connections(), 1);
}

#[test]
fn an_idle_connection_is_kept() {
    let fake = FakeServer::new(Shape::default(), |_| Action::Serve);
    let storage = connect(fake.uri(), impatient());
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(read(&storage, 0, 512).unwrap(), [0; 512]);
    assert_eq!(fake.connections(), 1);
}
