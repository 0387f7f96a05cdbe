//! Servers that send a byte now and then, or small chunks without end: the client ends the
//! connection, and the interrupt ends each wait.

use std::io::Write;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use luksmith::Interrupt;
use luksmith::backend::Backend;
use luksmith::backend::nbd::{NbdBackend, Problem};
use luksmith_formats::nbd::{
    ChunkFlags, ChunkType, ErrorChunk, ErrorNumber, Greeting, HandshakeFlags, OptionReply,
    OptionType, Request,
};
use rustix::process::{Pid, Signal, kill_process};

use super::{chain, connect, options, pattern, read, sectors};
use crate::served::{Folder, until};
use support::nbd_server::{Action, FakeServer, Listener, Replies, Shape, chunk, option_reply};

/// A timeout that a server which sends byte by byte exceeds many times.
const SHORT: Duration = Duration::from_secs(1);

/// A timeout that no test waits for.
const LONG: Duration = Duration::from_secs(86_400);

fn data_chunk(request: &Request, shape: &Shape, bytes: &[u8]) -> Vec<u8> {
    let data = [&request.offset.to_be_bytes(), bytes].concat();
    chunk(
        request,
        shape,
        ChunkType::OffsetData,
        ChunkFlags::DONE,
        &data,
    )
}

#[test]
fn a_reply_that_drips_is_given_up() {
    for replies in [Replies::Structured, Replies::Extended] {
        let shape = Shape {
            replies,
            ..Shape::default()
        };
        // More than a minute.
        let fake = FakeServer::new(shape, move |seen| {
            Action::Drip(data_chunk(&seen.request, &shape, &pattern(4096, 1)), 1)
        });
        let storage = connect(fake.uri(), options().timeout(SHORT));
        let error = chain(&read(&storage, 8192, 4096).unwrap_err());
        assert!(error.contains("no complete reply within"), "{error}");
    }
}

/// The data arrive at 100 KiB each second, and need longer than the timeout.
#[test]
fn a_slow_link_is_not_given_up() {
    let shape = Shape::default();
    let fake = FakeServer::new(shape, move |seen| {
        let bytes = pattern(256 << 10, 1);
        Action::Drip(data_chunk(&seen.request, &shape, &bytes), 2048)
    });
    let storage = connect(fake.uri(), options().timeout(2 * SHORT));
    assert!(read(&storage, 8192, 256 << 10).unwrap() == pattern(256 << 10, 1));
}

#[test]
fn chunks_without_end_are_too_many() {
    let shape = Shape::default();
    let error_chunk = move |request: &Request| {
        let error = ErrorChunk {
            error: ErrorNumber::Io,
            message: String::new(),
            offset: None,
        };
        let bytes = error.to_bytes();
        chunk(request, &shape, error.kind(), ChunkFlags::NONE, &bytes)
    };
    let fake = FakeServer::new(shape, move |seen| {
        Action::Say(error_chunk(&seen.request).repeat(2000))
    });
    let storage = connect(fake.uri(), options().timeout(LONG));
    let error = chain(&read(&storage, 8192, 4096).unwrap_err());
    assert!(error.contains("too many chunks"), "{error}");
    let error = chain(&storage.write_at(0, &sectors(&[1; 512])).unwrap_err());
    assert!(error.contains("too many chunks"), "{error}");
}

#[test]
fn a_handshake_that_drips_is_given_up() {
    let server = Listener::new(|_, mut stream| {
        let flags = HandshakeFlags::FIXED_NEWSTYLE;
        let long = option_reply(
            OptionType::ExtendedHeaders,
            OptionReply::ErrUnsupported,
            &[b'x'; 8000],
        );
        // More than a minute.
        for byte in [&Greeting { flags }.to_bytes()[..], &long].concat() {
            if stream.write_all(&[byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let error = NbdBackend::connect(&server.uri, options().timeout(SHORT)).unwrap_err();
    assert!(matches!(error.source, Problem::Silent(_)), "{error:?}");
}

/// Runs `wait` with an interrupt that is set once `begun` holds.
fn interrupted<T: Send>(
    begun: impl Fn() -> bool + Sync,
    wait: impl FnOnce(Interrupt) -> T + Send,
) -> T {
    let interrupt = Interrupt::new();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(interrupt.clone()));
        until("it waits", begun);
        interrupt.trigger();
        waiting.join().unwrap()
    })
}

/// A server that accepts connections, and sends nothing. Counts them.
fn silent() -> (Listener, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let server = Listener::new(move |_, mut stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    (server, count)
}

#[test]
fn the_interrupt_ends_a_handshake() {
    let (server, connected) = silent();
    let begun = || connected.load(Ordering::SeqCst) > 0;
    let error = interrupted(begun, |interrupt| {
        let options = options().timeout(LONG);
        NbdBackend::connect_interruptible(&server.uri, options, interrupt).unwrap_err()
    });
    assert!(matches!(error.source, Problem::Interrupted), "{error:?}");
}

#[test]
fn the_interrupt_ends_requests_and_reconnects() {
    let unanswered = FakeServer::new(Shape::default(), |_| Action::Say(Vec::new()));
    let gone = FakeServer::new(Shape::default(), |_| Action::Die);
    for fake in [&unanswered, &gone] {
        let error = interrupted(
            || !fake.seen().is_empty(),
            |interrupt| {
                let options = options().timeout(LONG);
                let storage =
                    NbdBackend::connect_interruptible(fake.uri(), options, interrupt).unwrap();
                read(&storage, 8192, 512).unwrap_err()
            },
        );
        assert!(chain(&error).ends_with("interrupted"), "{}", chain(&error));
    }
}

/// After an interrupt, the writes that complete a change still reach a server that answers.
#[test]
fn requests_after_an_interrupt_are_answered() {
    let fake = FakeServer::new(Shape::default(), |_| Action::Serve);
    let interrupt = Interrupt::new();
    let storage =
        NbdBackend::connect_interruptible(fake.uri(), options(), interrupt.clone()).unwrap();
    interrupt.trigger();
    storage.write_at(0, &sectors(&[1; 512])).unwrap();
    storage.flush().unwrap();
    assert_eq!(fake.stored()[..512], [1; 512]);
}

/// Sends SIGTERM. The program has to end with the code of an interruption.
fn ends(mut child: Child) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let child = std::cell::RefCell::new(&mut child);
    until("it ends", || {
        child.borrow_mut().try_wait().unwrap().is_some()
    });
    let status = child.borrow_mut().wait().unwrap();
    assert_eq!(status.code(), Some(130), "{status}");
}

#[test]
fn the_first_signal_ends_the_program() {
    let folder = Folder::new();
    let start = |uri: &str, args: &[&str]| {
        let args = args.iter().map(|arg| if *arg == "URI" { uri } else { arg });
        let mut command = folder.luksmith(args.chain(["--timeout", "86400"]));
        command.spawn().unwrap()
    };
    let commands: &[&[&str]] = &[
        &["info", "URI"],
        &["create", "URI", "--key-file", "key"],
        &["serve", "URI", "--key-file", "key", "--socket", "s.sock"],
        &["verify-ciphertext", "URI", "--no-header"],
    ];
    for args in commands {
        let (server, connected) = silent();
        let child = start(&server.uri.to_string(), args);
        until("it waits", || connected.load(Ordering::SeqCst) > 0);
        ends(child);
        // All replies drip.
        let shape = Shape::default();
        let dripping = FakeServer::new(shape, move |seen| {
            let len = usize::try_from(seen.request.len).unwrap();
            Action::Drip(data_chunk(&seen.request, &shape, &pattern(len, 1)), 1)
        });
        let child = start(&dripping.uri().to_string(), args);
        until("it waits", || !dripping.seen().is_empty());
        ends(child);
    }
}
