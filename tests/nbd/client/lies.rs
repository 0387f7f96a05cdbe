//! Servers that violate the protocol. Each is noticed at once, without a panic and without trusting
//! a length.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use luksmith::backend::Backend;
use luksmith::backend::nbd::NbdBackend;
use luksmith_formats::nbd::{
    BlockSizes, ChunkFlags, ChunkType, Command, Greeting, HandshakeFlags, Info, OffsetHole,
    OptionReply, OptionType, Request, SimpleReply, TransmissionFlags,
};

use super::{chain, connect, impatient, options, pattern, read, sectors};
use support::nbd_server::{Action, FakeServer, Listener, Replies, Shape, chunk, option_reply};

/// The error of a connection to a server with this handshake.
fn shaken(
    handshake: impl Fn(&mut UnixStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> String {
    let server = Listener::new(move |_, mut stream| {
        let _ = handshake(&mut stream);
    });
    let begun = Instant::now();
    let error = NbdBackend::connect(&server.uri, impatient()).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5));
    chain(&error)
}

/// Sends a greeting, and receives the flags of the client and this many options.
pub(super) fn greeted(stream: &mut UnixStream, options: usize) -> std::io::Result<()> {
    let flags = HandshakeFlags::FIXED_NEWSTYLE;
    stream.write_all(&Greeting { flags }.to_bytes())?;
    stream.read_exact(&mut [0; 4])?;
    for _ in 0..options {
        let mut header = [0; 16];
        stream.read_exact(&mut header)?;
        let len = u32::from_be_bytes(header[12..].try_into().unwrap());
        stream.read_exact(&mut vec![0; len as usize])?;
    }
    Ok(())
}

pub(super) fn wait_for_the_end(stream: &mut UnixStream) -> std::io::Result<()> {
    std::io::copy(stream, &mut std::io::sink()).map(|_| ())
}

#[test]
fn malformed_handshakes() {
    let closed = "the server closed the connection";
    for (greeting, told) in [
        (&b""[..], closed),
        (b"NBDMAGIC", closed),
        (
            b"SSH-2.0-OpenSSH_9.2p1\r\n",
            "not the NBD protocol that was expected: greeting.magic",
        ),
        (b"NBDMAGICIHAVEOPS\0\0", "greeting.style"),
        (
            b"NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53\0\0\0\0",
            "oldstyle",
        ),
    ] {
        let error = shaken(move |stream| stream.write_all(greeting));
        assert!(error.contains(told), "{error}");
    }
    // The server sends nothing at all, or nothing after the greeting.
    assert!(shaken(wait_for_the_end).contains("no reply within 0.3 s"));
    let error = shaken(|stream| {
        greeted(stream, 0)?;
        wait_for_the_end(stream)
    });
    assert!(error.contains("no reply within 0.3 s"), "{error}");
}

#[test]
fn malformed_replies_to_options() {
    let unsupported = || {
        let extended = option_reply(
            OptionType::ExtendedHeaders,
            OptionReply::ErrUnsupported,
            &[],
        );
        let structured = option_reply(
            OptionType::StructuredReply,
            OptionReply::ErrUnsupported,
            &[],
        );
        [extended, structured]
    };
    let said = move |answers: Vec<Vec<u8>>| {
        shaken(move |stream| {
            greeted(stream, 1)?;
            for answer in &answers {
                stream.write_all(answer)?;
            }
            wait_for_the_end(stream)
        })
    };
    let first = |bytes: &[u8]| said(vec![bytes.to_vec()]);
    assert!(first(&[0; 20]).contains("option_reply.magic"));
    let other = option_reply(OptionType::List, OptionReply::Ack, &[]);
    assert!(first(&other).contains("a reply belongs to another option"));
    let mut long = option_reply(OptionType::ExtendedHeaders, OptionReply::Ack, &[]);
    long[16..].copy_from_slice(&[0xff; 4]);
    assert!(first(&long).contains("a reply to an option is too long"));
    let odd = option_reply(OptionType::ExtendedHeaders, OptionReply::Server, &[]);
    assert!(first(&odd).contains("a reply to an option has an invalid type"));

    let go = |data: &[u8], reply| option_reply(OptionType::Go, reply, data);
    let with = |more: Vec<Vec<u8>>| said(unsupported().into_iter().chain(more).collect());
    let ack = go(&[], OptionReply::Ack);
    assert!(with(vec![ack.clone()]).contains("the export has no size"));
    let sized = |size, flags| go(&Info::Export { size, flags }.to_bytes(), OptionReply::Info);
    let export = |flags| sized(1 << 20, flags);
    let none = export(TransmissionFlags::NONE);
    assert!(with(vec![none, ack.clone()]).contains("the export has no flags"));
    assert!(with(vec![go(&[0, 0, 1], OptionReply::Info)]).contains("info.export.size"));
    let immense = sized(1 << 63, TransmissionFlags::HAS_FLAGS);
    assert!(with(vec![immense, ack.clone()]).contains("the export has 9223372036854775808 bytes"));
    let many = vec![export(TransmissionFlags::HAS_FLAGS); 1000];
    assert!(with(many).contains("too many replies to an option"));
    for sizes in [
        (3, 4096, 1 << 20),
        (0, 1, 1),
        (1 << 17, 1 << 17, 1 << 20),
        (512, 512, 100),
    ] {
        let (minimum, preferred, maximum) = sizes;
        let blocks = Info::BlockSize(BlockSizes {
            minimum,
            preferred,
            maximum,
        });
        let blocks = go(&blocks.to_bytes(), OptionReply::Info);
        let error = with(vec![
            export(TransmissionFlags::HAS_FLAGS),
            blocks,
            ack.clone(),
        ]);
        assert!(error.contains("asks for blocks"), "{error}");
    }
}

/// The error of a read of 4096 bytes at 8192 with this reply.
fn answered(
    replies: Replies,
    answer: impl Fn(&Request, &Shape) -> Vec<u8> + Send + Sync + 'static,
) -> String {
    let shape = Shape {
        replies,
        ..Shape::default()
    };
    let fake = FakeServer::new(shape, move |seen| {
        Action::Say(answer(&seen.request, &shape))
    });
    let storage = connect(fake.uri(), impatient());
    let begun = Instant::now();
    let error = read(&storage, 8192, 4096).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5));
    let error = chain(&error);
    assert!(
        error.starts_with(&format!("read at byte 8192 failed: {}: ", fake.uri())),
        "{error}"
    );
    error
}

#[test]
fn malformed_replies() {
    let say = |bytes: &[u8]| {
        let bytes = bytes.to_vec();
        answered(Replies::Structured, move |_, _| bytes.clone())
    };
    assert!(say(&pattern(100, 3)).contains("reply.magic"));
    assert!(say(&[]).contains("no reply within 0.3 s"));
    let stranger = Request {
        cookie: 0xdead_beef,
        ..Request::parse_compact(&some_request().to_compact()).unwrap()
    };
    let shape = Shape::default();
    let done = chunk(&stranger, &shape, ChunkType::None, ChunkFlags::DONE, &[]);
    assert!(say(&done).contains("a reply belongs to no request"));

    let simple = |request: &Request, _: &Shape| {
        let (error, cookie) = (0.into(), request.cookie);
        SimpleReply { error, cookie }.to_bytes().to_vec()
    };
    assert!(answered(Replies::Structured, simple).contains("a read has a simple reply"));
    assert!(answered(Replies::Extended, simple).contains("a form that was not negotiated"));
    let structured = |request: &Request, _: &Shape| {
        chunk(
            request,
            &Shape::default(),
            ChunkType::None,
            ChunkFlags::DONE,
            &[],
        )
    };
    assert!(answered(Replies::Simple, structured).contains("a form that was not negotiated"));
}

/// The first look at the export is a part of opening it.
#[test]
fn a_violation_while_the_export_is_opened_is_named() {
    let shape = Shape {
        first_look: false,
        ..Shape::default()
    };
    let refused = |answer: fn(&Request) -> Vec<u8>| {
        let fake = FakeServer::new(shape, move |seen| Action::Say(answer(&seen.request)));
        let error = NbdBackend::connect(fake.uri(), impatient()).unwrap_err();
        chain(&error)
    };
    let error = refused(|_| pattern(100, 3));
    assert!(error.contains("was expected: reply.magic"), "{error}");
    let error = refused(|request| {
        let cookie = request.cookie.wrapping_add(1);
        let stranger = Request { cookie, ..*request };
        chunk(
            &stranger,
            &Shape::default(),
            ChunkType::None,
            ChunkFlags::DONE,
            &[],
        )
    });
    assert!(error.contains("a reply belongs to no request"), "{error}");
    let error = refused(|request| {
        chunk(
            request,
            &Shape::default(),
            ChunkType::None,
            ChunkFlags::DONE,
            &[],
        )
    });
    assert!(error.contains("a reply to a read is incomplete"), "{error}");
}

fn some_request() -> Request {
    Request {
        flags: 0.into(),
        command: Command::Read,
        cookie: 0,
        offset: 8192,
        len: 4096,
    }
}

type Chunks = Vec<(ChunkType, Vec<u8>)>;

#[test]
fn chunks_that_do_not_fit() {
    let data = |offset: u64, len: usize| [&offset.to_be_bytes()[..], &pattern(len, 1)].concat();
    let hole = |offset, len| OffsetHole { offset, len }.to_bytes().to_vec();
    let chunks: &[(Chunks, &str)] = &[
        (
            vec![(ChunkType::OffsetData, data(8191, 4096))],
            "outside of the requested range",
        ),
        (
            vec![(ChunkType::OffsetData, data(8192, 4097))],
            "outside of the requested range",
        ),
        (
            vec![(ChunkType::OffsetData, data(u64::MAX, 1))],
            "outside of the requested range",
        ),
        (
            vec![(ChunkType::OffsetData, data(8192, 0))],
            "outside of the requested range",
        ),
        (
            vec![(ChunkType::OffsetData, vec![0; 7])],
            "data has no offset",
        ),
        (
            vec![(ChunkType::OffsetHole, hole(0, 4096))],
            "outside of the requested range",
        ),
        (
            vec![(ChunkType::OffsetHole, hole(8192, u32::MAX))],
            "outside of the requested range",
        ),
        (
            vec![(ChunkType::OffsetHole, vec![0; 11])],
            "a hole has the wrong length",
        ),
        (
            vec![(ChunkType::OffsetData, data(8192, 4095))],
            "a reply to a read is incomplete",
        ),
        (
            vec![(ChunkType::None, vec![])],
            "a reply to a read is incomplete",
        ),
        (
            vec![(ChunkType::None, vec![1])],
            "an empty chunk is not empty",
        ),
        (
            vec![(ChunkType::BlockStatus, vec![0; 12])],
            "a chunk has an unexpected type",
        ),
        (
            vec![(ChunkType::Unknown(77), vec![])],
            "a chunk has an unexpected type",
        ),
        (vec![(ChunkType::Error, vec![0; 6])], "error.number"),
        (
            vec![(ChunkType::Error, vec![0; 9000])],
            "an error is too long",
        ),
        (
            vec![
                (ChunkType::OffsetData, data(8192, 4096)),
                (ChunkType::OffsetHole, hole(8192, 1)),
            ],
            "sent twice",
        ),
    ];
    for (chunks, told) in chunks {
        for replies in [Replies::Structured, Replies::Extended] {
            let chunks = chunks.clone();
            let error = answered(replies, move |request, shape| {
                let last = chunks.len() - 1;
                let one = |(index, (kind, data)): (usize, &(ChunkType, Vec<u8>))| {
                    let flags = ChunkFlags::NONE.with_if(ChunkFlags::DONE, index == last);
                    chunk(request, shape, *kind, flags, data)
                };
                chunks.iter().enumerate().flat_map(one).collect()
            });
            assert!(error.contains(told), "{error}, not {told}");
        }
    }
    // With extended headers each chunk contains the offset of its request.
    let error = answered(Replies::Extended, |request, shape| {
        let other = Request {
            offset: 0,
            ..*request
        };
        chunk(&other, shape, ChunkType::None, ChunkFlags::DONE, &[])
    });
    assert!(error.contains("the offset of another request"), "{error}");
}

#[test]
fn a_write_gets_no_data() {
    let shape = Shape::default();
    let fake = FakeServer::new(shape, move |seen| {
        let data = [&[0; 8][..], &[1; 512]].concat();
        Action::Say(chunk(
            &seen.request,
            &shape,
            ChunkType::OffsetData,
            ChunkFlags::DONE,
            &data,
        ))
    });
    let storage = connect(fake.uri(), impatient());
    let error = storage.write_at(0, &sectors(&[1; 512])).unwrap_err();
    assert!(chain(&error).contains("not a read"), "{error}");
}

#[test]
fn a_length_is_not_trusted() {
    // Four exabytes of data are announced. The client neither allocates nor waits for them.
    let error = answered(Replies::Extended, |request, shape| {
        let mut bytes = chunk(request, shape, ChunkType::OffsetData, ChunkFlags::DONE, &[]);
        bytes[24..32].copy_from_slice(&(1u64 << 62).to_be_bytes());
        bytes.extend(8192u64.to_be_bytes());
        bytes
    });
    assert!(error.contains("outside of the requested range"), "{error}");
}

#[test]
fn after_a_violation_the_next_request_uses_a_new_connection() {
    let fake = FakeServer::new(Shape::default(), |seen| match seen.connection {
        0 => Action::Say(vec![0; 64]),
        _ => Action::Serve,
    });
    let storage = connect(fake.uri(), options());
    assert!(read(&storage, 0, 512).is_err());
    storage.write_at(0, &sectors(&[7; 512])).unwrap();
    assert_eq!(read(&storage, 0, 512).unwrap(), [7; 512]);
    assert_eq!(fake.connections(), 2);
}

#[test]
fn chunks_in_any_order_with_holes() {
    for replies in [Replies::Structured, Replies::Extended] {
        let shape = Shape {
            replies,
            ..Shape::default()
        };
        let fake = FakeServer::new(shape, move |seen| {
            let data = |offset: u64, len: usize, seed| {
                [&offset.to_be_bytes()[..], &pattern(len, seed)].concat()
            };
            let one =
                |kind, data: Vec<u8>| chunk(&seen.request, &shape, kind, ChunkFlags::NONE, &data);
            let hole = OffsetHole {
                offset: 9192,
                len: 2000,
            }
            .to_bytes()
            .to_vec();
            let end = chunk(
                &seen.request,
                &shape,
                ChunkType::None,
                ChunkFlags::DONE,
                &[],
            );
            Action::Say(
                [
                    one(ChunkType::OffsetData, data(11192, 1096, 2)),
                    one(ChunkType::OffsetHole, hole),
                    one(ChunkType::OffsetData, data(8192, 1000, 1)),
                    end,
                ]
                .concat(),
            )
        });
        let storage = connect(fake.uri(), options());
        let expected = [pattern(1000, 1), vec![0; 2000], pattern(1096, 2)].concat();
        assert!(read(&storage, 8192, 4096).unwrap() == expected);
    }
}
