//! Which parts of an export hold data: what real servers say in `base:allocation`, and what servers
//! say that have no such context, or lie.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use luksmith::backend::nbd::NbdBackend;
use luksmith::backend::{Allocation, Backend, Extents};
use luksmith_formats::nbd::uri::Uri;
use luksmith_formats::nbd::{
    ChunkFlags, ChunkType, Command, ErrorNumber, Extent, ExtentFlags, Greeting, HandshakeFlags,
    MetaContext, OptionReply, OptionType, TransmissionFlags,
};

use super::lies::{greeted, wait_for_the_end};
use super::servers::Server;
use super::{chain, connect, impatient, options, pattern, read};
use crate::served::Folder;
use support::nbd_server::{
    Action, FakeServer, Listener, Replies, Seen, Shape, chunk, option_reply, status,
};

const SIZE: u64 = 8 << 20;
const CONTEXT: u32 = 0xffff_fff0;

/// A file of 8 MiB with data in two places.
fn sparse(path: &std::path::Path) -> Vec<std::ops::Range<u64>> {
    let file = std::fs::File::create(path).unwrap();
    file.set_len(SIZE).unwrap();
    let data = [1 << 20..(1 << 20) + 100_000, 5 << 20..6 << 20];
    for range in &data {
        let len = usize::try_from(range.end - range.start).unwrap();
        file.write_all_at(&pattern(len, range.start), range.start)
            .unwrap();
    }
    data.to_vec()
}

/// All extents of a storage. Each answer has to make progress.
fn all(storage: &NbdBackend) -> Vec<(std::ops::Range<u64>, Allocation)> {
    let size = storage.geometry().size;
    let (mut at, mut found) = (0, Vec::new());
    while at < size {
        let told = storage.extents(at..size).unwrap();
        assert!(!told.is_empty());
        for (len, allocation) in told {
            found.push((at..at + len, allocation));
            at += len;
        }
    }
    assert_eq!(at, size);
    found
}

const KEY: &str = "--key-file key --pbkdf pbkdf2 --pbkdf-force-iterations 1000";

/// Runs a command that must succeed, and returns its output.
#[track_caller]
fn ok(folder: &Folder, args: &str) -> String {
    let output = folder.luksmith(args.split(' ')).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Checks that the holes are those of [`sparse`].
fn has_holes(uri: &Uri, data: &[std::ops::Range<u64>], what: &str) {
    let storage = connect(uri, options().write(false).extents(true));
    let mut holes = 0;
    for (range, allocation) in all(&storage) {
        if allocation == Allocation::Hole {
            let overlaps =
                |data: &std::ops::Range<u64>| data.start < range.end && range.start < data.end;
            assert!(!data.iter().any(overlaps), "{what}: {range:?}");
            holes += range.end - range.start;
        }
    }
    let data: u64 = data.iter().map(|range| range.end - range.start).sum();
    // In whole blocks of the file system.
    assert!(
        (SIZE - data - (64 << 10)..=SIZE - data).contains(&holes),
        "{what}: {holes}"
    );
    // An option of the caller: without it, nothing is asked.
    let storage = connect(uri, options().write(false));
    assert_eq!(all(&storage), [(0..SIZE, Allocation::Data)], "{what}");
}

#[test]
fn the_holes_of_other_servers_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let data = sparse(&path);
    let file = path.display().to_string();
    if let Some(server) = Server::nbdkit(folder.path(), &["--readonly", "file", &file]) {
        has_holes(&server.uri(""), &data, "nbdkit");
    }
    if let Some(server) = Server::qemu_nbd(folder.path(), &["--read-only", "--format=raw", &file]) {
        has_holes(&server.uri(""), &data, "qemu-nbd");
    }
    if let Some(server) = Server::storage_daemon(folder.path(), &path) {
        has_holes(&server.uri("disk"), &data, "qemu-storage-daemon");
    }
    // Without structured replies there are no contexts.
    let args = ["--no-sr", "--readonly", "file", &file];
    let Some(server) = Server::nbdkit(folder.path(), &args) else {
        return;
    };
    let storage = connect(&server.uri(""), options().write(false).extents(true));
    assert_eq!(all(&storage), [(0..SIZE, Allocation::Data)]);
}

/// Our server, with extended headers, and holes of a qcow2 image.
#[test]
fn the_holes_of_our_own_server_are_found() {
    let folder = Folder::new();
    let data = sparse(&folder.path("plain"));
    ok(
        &folder,
        &format!("encrypt plain sparse.qcow2 --format qcow2 --sparse {KEY}"),
    );
    let args = [
        "sparse.qcow2",
        "--format",
        "qcow2",
        "--socket",
        "s.sock",
        "--key-file",
        "key",
    ];
    let served = folder.serve_with(&args, &[]);
    let front = format!("nbd+unix:///?socket={}", folder.path("s.sock").display());
    has_holes(&Uri::parse(&front).unwrap(), &data, "luksmith serve");
    drop(served);
}

fn extent(len: u64, flags: ExtentFlags) -> Extent {
    Extent { len, flags }
}

fn shapes() -> [Shape; 2] {
    [Replies::Structured, Replies::Extended].map(|replies| Shape {
        replies,
        allocation: Some(CONTEXT),
        ..Shape::default()
    })
}

/// A server that answers each BLOCK_STATUS in this way.
fn telling(
    shape: Shape,
    answer: impl Fn(&Seen, &Shape) -> Action + Send + Sync + 'static,
) -> FakeServer {
    FakeServer::new(shape, move |seen| match seen.request.command {
        Command::BlockStatus => answer(seen, &shape),
        _ => Action::Serve,
    })
}

fn asked(fake: &FakeServer) -> usize {
    let seen = fake.seen();
    let is_status = |seen: &&Seen| seen.request.command == Command::BlockStatus;
    seen.iter().filter(is_status).count()
}

/// The server may tell of less than was asked, or of more in its last extent.
#[test]
fn answers_of_any_length_are_used() {
    let (data, hole) = (ExtentFlags::NONE, ExtentFlags::HOLE | ExtentFlags::ZERO);
    for shape in shapes() {
        let fake = telling(shape, move |seen, shape| {
            let extents = match seen.request.offset {
                0 => &[extent(100_000, data), extent(200_000, hole)][..],
                _ => &[extent(100_000, hole), extent((1 << 20) - 400_000, data)],
            };
            Action::Say(status(&seen.request, shape, CONTEXT, extents))
        });
        let storage = connect(fake.uri(), options().extents(true));
        let expected = [(100_000, Allocation::Data), (200_000, Allocation::Hole)];
        assert_eq!(storage.extents(0..500_000).unwrap(), expected);
        let expected = [(100_000, Allocation::Hole), (100_000, Allocation::Data)];
        assert_eq!(storage.extents(300_000..500_000).unwrap(), expected);
        // A hole that may hold anything is none.
        let fake = telling(shape, move |seen, shape| {
            let told = [extent(seen.request.len, ExtentFlags::HOLE)];
            Action::Say(status(&seen.request, shape, CONTEXT, &told))
        });
        let storage = connect(fake.uri(), options().extents(true));
        assert_eq!(all(&storage), [(0..1 << 20, Allocation::Data)]);
    }
}

/// What a reply to a BLOCK_STATUS for the first 512 KiB says, and what the error says.
type Lie = (&'static str, fn(&Seen, &Shape) -> Vec<u8>);

const LIES: &[Lie] = &[
    ("contains one of length zero", |seen, shape| {
        let told = [extent(4096, 0.into()), extent(0, 0.into())];
        status(&seen.request, shape, CONTEXT, &told)
    }),
    ("contains none", |seen, shape| {
        status(&seen.request, shape, CONTEXT, &[])
    }),
    ("goes on after what was asked", |seen, shape| {
        let told = [extent(seen.request.len, 0.into()), extent(4096, 0.into())];
        status(&seen.request, shape, CONTEXT, &told)
    }),
    ("reaches beyond the export", |seen, shape| {
        let told = [extent((1 << 20) + 2, ExtentFlags::ZERO)];
        status(&seen.request, shape, CONTEXT, &told)
    }),
    ("belongs to another context", |seen, shape| {
        status(&seen.request, shape, CONTEXT + 1, &[extent(4096, 0.into())])
    }),
    ("was sent twice", |seen, shape| {
        let told = status(&seen.request, shape, CONTEXT, &[extent(4096, 0.into())]);
        [not_done(&told, shape), told].concat()
    }),
    ("a reply to a block status is incomplete", |seen, shape| {
        chunk(&seen.request, shape, ChunkType::None, ChunkFlags::DONE, &[])
    }),
    ("ends within an extent", |seen, shape| {
        let (kind, data) = match shape.replies {
            Replies::Extended => (ChunkType::BlockStatusExtended, vec![0; 9]),
            _ => (ChunkType::BlockStatus, vec![0; 13]),
        };
        chunk(&seen.request, shape, kind, ChunkFlags::DONE, &data)
    }),
    ("a chunk has an unexpected type", |seen, shape| {
        let kind = match shape.replies {
            Replies::Extended => ChunkType::BlockStatus,
            _ => ChunkType::BlockStatusExtended,
        };
        chunk(&seen.request, shape, kind, ChunkFlags::DONE, &[0; 24])
    }),
    (
        "data belongs to a request that is not a read",
        |seen, shape| {
            chunk(
                &seen.request,
                shape,
                ChunkType::OffsetData,
                ChunkFlags::DONE,
                &[0; 16],
            )
        },
    ),
    ("is too long", |seen, shape| {
        // A gigabyte is announced, and neither allocated nor waited for.
        let kind = match shape.replies {
            Replies::Extended => ChunkType::BlockStatusExtended,
            _ => ChunkType::BlockStatus,
        };
        let mut told = chunk(&seen.request, shape, kind, ChunkFlags::DONE, &[0; 64]);
        let at = told.len() - 64 - 4;
        told[at..at + 4].copy_from_slice(&(1_u32 << 30).to_be_bytes());
        told
    }),
    ("too many chunks", |seen, shape| {
        // Errors without an end.
        let error = [0, 0, 0, 5, 0, 0];
        let one = chunk(
            &seen.request,
            shape,
            ChunkType::Error,
            ChunkFlags::NONE,
            &error,
        );
        one.repeat(2000)
    }),
    ("no reply within", |_, _| Vec::new()),
];

/// The same chunk, but not the last one of its reply.
fn not_done(told: &[u8], _: &Shape) -> Vec<u8> {
    let mut told = told.to_vec();
    // After the magic.
    told[4..6].copy_from_slice(&0_u16.to_be_bytes());
    told
}

#[test]
fn lies_about_extents_are_named() {
    for shape in shapes() {
        for (said, lie) in LIES {
            let fake = telling(shape, move |seen, shape| Action::Say(lie(seen, shape)));
            let storage = connect(fake.uri(), impatient().extents(true));
            let begun = Instant::now();
            let error = chain(&storage.extents(0..512 << 10).unwrap_err());
            assert!(begun.elapsed() < Duration::from_secs(5), "{said}");
            assert!(
                error.starts_with("search for holes at byte 0 failed: "),
                "{error}"
            );
            assert!(error.contains(said), "{said:?} not in {error}");
            // The next request gets a new connection.
            assert_eq!(read(&storage, 0, 16).unwrap(), [0; 16], "{said}");
        }
    }
    // A simple reply, after structured ones were agreed.
    let fake = telling(shapes()[0], |seen, _| {
        let (error, cookie) = (ErrorNumber::None, seen.request.cookie);
        Action::Say(
            luksmith_formats::nbd::SimpleReply { error, cookie }
                .to_bytes()
                .to_vec(),
        )
    });
    let storage = connect(fake.uri(), impatient().extents(true));
    let error = chain(&storage.extents(0..512 << 10).unwrap_err());
    assert!(
        error.contains("a block status has a simple reply"),
        "{error}"
    );
}

/// A byte at a time, without an end.
#[test]
fn a_server_that_tells_little_is_asked_little() {
    for shape in shapes() {
        let fake = telling(shape, |seen, shape| {
            let told = [extent(1, ExtentFlags::ZERO)];
            Action::Say(status(&seen.request, shape, CONTEXT, &told))
        });
        let storage = connect(fake.uri(), options().extents(true));
        let told: Extents = all(&storage)
            .into_iter()
            .map(|(range, allocation)| (range.end - range.start, allocation))
            .collect();
        assert!(
            told.iter()
                .all(|(_, allocation)| *allocation == Allocation::Data)
        );
        assert!(asked(&fake) <= 16, "{}", asked(&fake));
    }
}

/// An error is no reason to fail: all is data then.
#[test]
fn a_server_that_refuses_is_asked_once() {
    for shape in shapes() {
        for error in [
            ErrorNumber::Invalid,
            ErrorNumber::NotSupported,
            ErrorNumber::Io,
        ] {
            let fake = telling(shape, move |_, _| Action::Fail(error));
            let storage = connect(fake.uri(), options().extents(true));
            for _ in 0..3 {
                assert_eq!(all(&storage), [(0..1 << 20, Allocation::Data)]);
            }
            assert_eq!(asked(&fake), 1);
            assert_eq!(read(&storage, 7, 9).unwrap(), [0; 9]);
        }
    }
}

/// A broken connection is replaced, and the context negotiated again: with another number, or not
/// at all.
#[test]
fn the_question_is_asked_again_over_a_new_connection() {
    for shape in shapes() {
        for (next, expected) in [(Some(7), Allocation::Hole), (None, Allocation::Data)] {
            let fake = FakeServer::new(shape, move |seen| match seen.request.command {
                Command::BlockStatus if seen.connection == 0 => {
                    Action::HangUp { carried_out: false }
                }
                Command::BlockStatus if next.is_none() => Action::Fail(ErrorNumber::Invalid),
                Command::BlockStatus => {
                    let told = [extent(seen.request.len, ExtentFlags::ZERO)];
                    Action::Say(status(&seen.request, &shape, 7, &told))
                }
                _ => Action::Serve,
            });
            let storage = connect(fake.uri(), options().extents(true));
            fake.reshape(|shape| shape.allocation = next);
            assert_eq!(storage.extents(0..1 << 20).unwrap(), [(1 << 20, expected)]);
            assert_eq!(fake.connections(), 2);
        }
    }
}

/// The error of a handshake with these replies to SET_META_CONTEXT.
fn shaken(contexts: Vec<(OptionReply, Vec<u8>)>) -> String {
    let server = Listener::new(move |_, mut stream: UnixStream| {
        let mut serve = || -> std::io::Result<()> {
            greeted(&mut stream, 1)?;
            let accepted = option_reply(OptionType::ExtendedHeaders, OptionReply::Ack, &[]);
            stream.write_all(&accepted)?;
            for (reply, data) in &contexts {
                stream.write_all(&option_reply(OptionType::SetMetaContext, *reply, data))?;
            }
            wait_for_the_end(&mut stream)
        };
        let _ = serve();
    });
    let begun = Instant::now();
    let error = NbdBackend::connect(&server.uri, impatient().extents(true)).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5));
    chain(&error)
}

#[test]
fn lies_about_contexts_are_named() {
    let context = |name: &str| {
        let name = name.to_owned();
        (
            OptionReply::MetaContext,
            MetaContext { id: 1, name }.to_bytes(),
        )
    };
    let ours = context("base:allocation");
    for (contexts, said) in [
        (
            vec![context("qemu:dirty-bitmap:x")],
            "a context was not asked for",
        ),
        (
            vec![ours.clone(), ours.clone()],
            "a context was not asked for",
        ),
        (
            vec![(OptionReply::MetaContext, vec![0; 3])],
            "meta_context.id",
        ),
        (
            vec![(OptionReply::Server, vec![])],
            "a reply to an option has an invalid type",
        ),
        (vec![ours], "no reply within"),
        (vec![(OptionReply::ErrTlsRequired, vec![])], "requires tls"),
    ] {
        let error = shaken(contexts);
        assert!(error.contains(said), "{said:?} not in {error}");
    }
}

/// A server without the context, and one that answers the question for it with an error.
#[test]
fn servers_without_the_context_work_as_before() {
    for replies in [Replies::Simple, Replies::Structured, Replies::Extended] {
        let shape = Shape {
            replies,
            ..Shape::default()
        };
        let fake = FakeServer::with_disk(shape, pattern(1 << 20, 3), |_| Action::Serve);
        let storage = connect(fake.uri(), options().extents(true));
        assert_eq!(all(&storage), [(0..1 << 20, Allocation::Data)]);
        assert!(read(&storage, 0, 1 << 20).unwrap() == pattern(1 << 20, 3));
        assert_eq!(asked(&fake), 0);
    }
    let flags = HandshakeFlags::NONE;
    let old = Listener::new(move |_, mut stream: UnixStream| {
        let _ = stream.write_all(&Greeting { flags }.to_bytes());
        let _ = wait_for_the_end(&mut stream);
    });
    let error = NbdBackend::connect(&old.uri, impatient().extents(true)).unwrap_err();
    assert!(
        chain(&error).contains("no reply within"),
        "{}",
        chain(&error)
    );
}

/// `encrypt` from an export reads no hole: the bytes that the server would send there are not
/// zeroes.
#[test]
fn a_copy_reads_no_holes() {
    let folder = Folder::new();
    let shape = Shape {
        size: 4 << 20,
        flags: TransmissionFlags::HAS_FLAGS | TransmissionFlags::READ_ONLY,
        ..shapes()[0]
    };
    let disk = pattern(4 << 20, 9);
    let hole = 1 << 20..3 << 20;
    let fake = FakeServer::with_disk(shape, disk.clone(), move |seen| {
        let request = &seen.request;
        match request.command {
            Command::BlockStatus => {
                let flags = ExtentFlags::HOLE | ExtentFlags::ZERO;
                let told = match request.offset {
                    0 => vec![extent(1 << 20, 0.into()), extent(2 << 20, flags)],
                    offset => vec![extent((4 << 20) - offset, 0.into())],
                };
                Action::Say(status(request, &shape, CONTEXT, &told))
            }
            _ => Action::Serve,
        }
    });
    let uri = fake.uri().to_string();
    ok(&folder, &format!("encrypt {uri} copy.img {KEY}"));
    ok(&folder, "decrypt copy.img out --key-file key");
    let mut expected = disk;
    expected[1 << 20..3 << 20].fill(0);
    assert!(std::fs::read(folder.path("out")).unwrap() == expected);
    for seen in fake
        .seen()
        .iter()
        .filter(|seen| seen.request.command == Command::Read)
    {
        let (start, end) = (seen.request.offset, seen.request.offset + seen.request.len);
        assert!(end <= hole.start || hole.end <= start, "{start}..{end}");
    }
}

/// `verify-ciphertext` counts the holes of an export apart, and does not read them.
#[test]
fn a_search_counts_the_holes_of_an_export() {
    let folder = Folder::new();
    let plain = folder.path("plain");
    let data = sparse(&plain);
    let file = plain.display().to_string();
    let Some(server) = Server::nbdkit(plain.parent().unwrap(), &["--readonly", "file", &file])
    else {
        return;
    };
    let uri = server.uri_text("");
    let said = ok(
        &folder,
        &format!("verify-ciphertext {uri} --no-header --json"),
    );
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    let area = &json["areas"][0];
    let data: u64 = data.iter().map(|range| range.end - range.start).sum();
    let sum =
        |names: &[&str]| -> u64 { names.iter().map(|name| area[*name].as_u64().unwrap()).sum() };
    assert_eq!(sum(&["random", "zero", "hole", "suspicious"]), SIZE);
    assert_eq!(area["suspicious"], 0);
    assert!(sum(&["random"]) >= data - 4096, "{area}");
    assert!(sum(&["hole"]) >= SIZE - data - (64 << 10), "{area}");
    assert_eq!(json["hole"]["bytes"], area["hole"]);
}
