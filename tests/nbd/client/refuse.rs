//! Exports that cannot be opened, and why.

use luksmith::backend::nbd::{NbdBackend, Problem};
use luksmith::backend::{Backend, IoError, Operation};
use luksmith_formats::nbd::uri::Uri;
use luksmith_formats::nbd::{Command, TransmissionFlags};

use super::servers::Server;
use super::{chain, connect, impatient, options, read, sectors};
use support::nbd_server::{Action, FakeServer, Shape};

fn refused(uri: &Uri) -> Problem {
    NbdBackend::connect(uri, options()).unwrap_err().source
}

#[test]
fn no_server() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("none");
    for uri in [
        format!("nbd+unix:///?socket={}", socket.display()),
        "nbd://127.0.0.1:1/".to_owned(),
        "nbd://[::1]:1/".to_owned(),
    ] {
        let uri = Uri::parse(&uri).unwrap();
        assert!(matches!(refused(&uri), Problem::Unreachable(_)));
    }
}

#[test]
fn a_server_of_the_old_style() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = Server::nbdkit(folder.path(), &["--oldstyle", "memory", "1M"]) else {
        return;
    };
    let error = NbdBackend::connect(&server.uri(""), options()).unwrap_err();
    assert!(chain(&error).contains("oldstyle"), "{}", chain(&error));
}

#[test]
fn another_name() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("disk"), [0; 65_536]).unwrap();
    let disk = folder.path().join("disk").display().to_string();
    let args = ["--format=raw", "--export-name=right", &disk];
    let Some(server) = Server::qemu_nbd(folder.path(), &args) else {
        return;
    };
    assert!(matches!(
        refused(&server.uri("wrong")),
        Problem::NoExport(_)
    ));
    connect(&server.uri("right"), options());
    drop(server);
    // A server that only supports EXPORT_NAME closes the connection.
    let args = [
        "--mask-handshake=0",
        "--filter=exportname",
        "memory",
        "1M",
        "exportname-strict=true",
        "exportname=right",
    ];
    let Some(server) = Server::nbdkit(folder.path(), &args) else {
        return;
    };
    let problem = refused(&server.uri("wrong"));
    assert!(matches!(problem, Problem::NoExport(_)), "{problem:?}");
}

#[test]
fn a_read_only_export() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = Server::nbdkit(folder.path(), &["--readonly", "memory", "1M"]) else {
        return;
    };
    assert!(matches!(refused(&server.uri("")), Problem::ReadOnly));
    let reading = options().write(false);
    let storage = connect(&server.uri(""), reading);
    assert_eq!(read(&storage, 0, 512).unwrap(), [0; 512]);
    assert!(storage.geometry().read_only);
    let change = storage.write_at(0, &sectors(&[1; 512]));
    assert!(matches!(change, Err(IoError::ReadOnly(Operation::Write))));
}

/// The export shrinks while it is open. The client notices it when it reconnects.
#[test]
fn an_export_that_shrank() {
    let folder = tempfile::tempdir().unwrap();
    let args = |size: &'static str| ["--filter=truncate", "memory", "8M", size];
    let Some(server) = Server::nbdkit(folder.path(), &args("truncate=4M")) else {
        return;
    };
    let storage = connect(&server.uri(""), options());
    assert_eq!(read(&storage, (4 << 20) - 512, 512).unwrap(), [0; 512]);
    drop(server);
    let server = Server::nbdkit(folder.path(), &args("truncate=3M")).unwrap();
    let error = read(&storage, 0, 512).unwrap_err();
    let told = format!("the export had {} bytes and has {} now", 4 << 20, 3 << 20);
    assert!(chain(&error).contains(&told), "{}", chain(&error));
    drop(server);
    // An export that has grown is still the same one.
    let _server = Server::nbdkit(folder.path(), &args("truncate=5M")).unwrap();
    assert_eq!(read(&storage, 0, 512).unwrap(), [0; 512]);
    assert_eq!(storage.geometry().size, 4 << 20);
}

#[test]
fn an_export_that_is_read_only_after_a_while() {
    let fake = FakeServer::new(Shape::default(), |seen| match seen.connection {
        0 => Action::HangUp { carried_out: false },
        _ => Action::Serve,
    });
    let storage = connect(fake.uri(), impatient());
    fake.reshape(|shape| shape.flags = shape.flags | TransmissionFlags::READ_ONLY);
    let error = storage.write_at(0, &sectors(&[1; 512])).unwrap_err();
    assert!(chain(&error).contains("read-only"), "{}", chain(&error));
}

/// The client does not send requests that the server does not offer.
#[test]
fn only_offered_requests_are_sent() {
    let shape = Shape {
        flags: TransmissionFlags::HAS_FLAGS,
        ..Shape::default()
    };
    let fake = FakeServer::new(shape, |_| Action::Serve);
    let storage = connect(fake.uri(), options());
    storage.write_at(0, &sectors(&[1; 4096])).unwrap();
    storage.write_zeroes(0..2048).unwrap();
    storage.flush().unwrap();
    assert!(matches!(
        storage.discard(0..512),
        Err(IoError::Unsupported(Operation::Discard))
    ));
    assert!(matches!(
        storage.resize(1 << 21),
        Err(IoError::Unsupported(Operation::Resize))
    ));
    let asked = fake.seen();
    assert!(
        asked
            .iter()
            .all(|seen| seen.request.command == Command::Write)
    );
    assert!(asked.iter().all(|seen| seen.request.flags == 0.into()));
    assert_eq!(fake.cached()[..4096], [[0; 2048], [1; 2048]].concat());
}

#[test]
fn ranges_are_checked_before_anything_is_sent() {
    let fake = FakeServer::new(Shape::default(), |_| Action::Serve);
    let storage = connect(fake.uri(), options());
    let over = storage.write_at((1 << 20) - 1, &sectors(&[1; 2]));
    assert!(matches!(over, Err(IoError::OutOfRange { .. })));
    assert!(read(&storage, u64::MAX, 512).is_err());
    assert!(storage.write_zeroes(0..(1 << 20) + 1).is_err());
    assert!(storage.discard(1..u64::MAX).is_err());
    assert_eq!(read(&storage, 0, 0).unwrap(), [0; 0]);
    storage.write_at(0, &sectors(&[])).unwrap();
    assert!(fake.seen().is_empty());
}
