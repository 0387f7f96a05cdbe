//! A client with any number of connections, and handshakes.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use luksmith_formats::nbd::{
    ClientFlags, Command, CommandFlags, InfoRequest, MetaContextRequest, OptionHeader, OptionReply,
    OptionReplyHeader, OptionType, Request, SimpleReply,
};

const BLOCK: usize = 4096;

/// Random reads or writes of 4 KiB on this many connections, each with a thread and `depth`
/// requests in flight. Returns the bytes a second, and the bytes.
pub(super) fn load(
    socket: &str,
    connections: usize,
    depth: usize,
    writes: bool,
    size: u64,
    time: Duration,
) -> (f64, f64) {
    let go = [(OptionType::Go, InfoRequest::default().to_bytes())];
    let streams: Vec<UnixStream> = (0..connections).map(|_| negotiate(socket, &go)).collect();
    let (begin, end) = (Barrier::new(connections + 1), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (1..)
            .zip(streams)
            .map(|(seed, mut stream)| {
                let (begin, end) = (&begin, &end);
                scope.spawn(move || {
                    begin.wait();
                    keep(&mut stream, depth, writes, size / BLOCK as u64, seed, end)
                })
            })
            .collect();
        begin.wait();
        let started = Instant::now();
        std::thread::sleep(time);
        end.store(true, Ordering::Relaxed);
        let done: usize = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum();
        let bytes = (done * BLOCK) as f64;
        (bytes / started.elapsed().as_secs_f64(), bytes)
    })
}

/// Keeps `depth` requests in flight until `end` is set. Returns how many were answered.
fn keep(
    stream: &mut UnixStream,
    depth: usize,
    writes: bool,
    blocks: u64,
    mut random: u64,
    end: &AtomicBool,
) -> usize {
    let mut message = Vec::new();
    let mut ask = |stream: &mut UnixStream, cookie| {
        // Xorshift.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let request = Request {
            flags: CommandFlags::NONE,
            command: if writes {
                Command::Write
            } else {
                Command::Read
            },
            cookie,
            offset: random % blocks * BLOCK as u64,
            len: BLOCK as u64,
        };
        message.clear();
        message.extend_from_slice(&request.to_compact());
        message.resize(message.len() + if writes { BLOCK } else { 0 }, 7);
        stream.write_all(&message).unwrap();
    };
    (0..depth).for_each(|cookie| ask(stream, cookie as u64));
    let reply_len = SimpleReply::LEN + if writes { 0 } else { BLOCK };
    let mut buffer = vec![0; 64 * reply_len];
    let (mut filled, mut done, mut in_flight) = (0, 0, depth);
    while in_flight > 0 {
        let received = stream.read(&mut buffer[filled..]).unwrap();
        assert!(received > 0, "the server has closed the connection");
        filled += received;
        let replies = filled / reply_len;
        for reply in buffer.chunks_exact(reply_len).take(replies) {
            assert_eq!(reply[4..8], [0; 4], "an error");
            done += 1;
            if end.load(Ordering::Relaxed) {
                in_flight -= 1;
            } else {
                ask(stream, done as u64);
            }
        }
        buffer.copy_within(replies * reply_len..filled, 0);
        filled -= replies * reply_len;
    }
    done
}

/// Connects as libnbd does: structured replies, `base:allocation`, GO.
pub(super) fn shake_hands(socket: &str) {
    let context = MetaContextRequest {
        export: String::new(),
        queries: vec!["base:allocation".to_owned()],
    };
    let options = [
        (OptionType::StructuredReply, vec![]),
        (OptionType::SetMetaContext, context.to_bytes()),
        (OptionType::Go, InfoRequest::default().to_bytes()),
    ];
    negotiate(socket, &options);
}

fn negotiate(socket: &str, options: &[(OptionType, Vec<u8>)]) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.read_exact(&mut [0; 18]).unwrap();
    stream.write_all(&ClientFlags::from(3).to_bytes()).unwrap();
    for (option, data) in options {
        let option = *option;
        let len = data.len().try_into().unwrap();
        let header = OptionHeader { option, len };
        stream
            .write_all(&[&header.to_bytes()[..], data].concat())
            .unwrap();
        loop {
            let mut header = [0; OptionReplyHeader::LEN];
            stream.read_exact(&mut header).unwrap();
            let header = OptionReplyHeader::parse(&header).unwrap();
            stream
                .read_exact(&mut vec![0; header.len.try_into().unwrap()])
                .unwrap();
            if header.reply == OptionReply::Ack {
                break;
            }
        }
    }
    stream
}
