//! Clients that disconnect at any point, violate the protocol, flood the server or are slow. Other
//! clients are served, and memory stays bounded.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use luksmith_formats::nbd::{
    ClientFlags, Command, CommandFlags, ErrorNumber, InfoRequest, OptionHeader, OptionReply,
    OptionType, Request,
};

use crate::served::{Folder, SIZE, Served, content, until};
use crate::wire::{Client, Handshake, is_ended};

/// The most memory of the server here, in bytes: program and libraries, the pool of buffers (32
/// MiB), 64 MiB for requests, and the memory of each connection.
const MEMORY: u64 = 192 << 20;

#[track_caller]
fn others_are_served(served: &Served) {
    let mut client = served.client();
    assert!(client.read(12_345, 54_321) == content()[12_345..12_345 + 54_321]);
    assert!(
        served.most_memory() < MEMORY,
        "{} bytes",
        served.most_memory()
    );
}

/// Every byte that a client sends in a session with a read and a write.
fn session() -> Vec<u8> {
    let go = InfoRequest::default().to_bytes();
    let header = |option, len: usize| {
        let len = len.try_into().unwrap();
        OptionHeader { option, len }.to_bytes()
    };
    let request = |command, offset, len| Request {
        flags: CommandFlags::NONE,
        command,
        cookie: 1,
        offset,
        len,
    };
    [
        &ClientFlags::from(3).to_bytes()[..],
        &header(OptionType::StructuredReply, 0),
        &header(OptionType::List, 0),
        &header(OptionType::Go, go.len()),
        &go,
        &request(Command::Read, 0, 4096).to_compact(),
        &request(Command::Write, 0, 600).to_compact(),
        &content()[..600],
        &request(Command::Flush, 0, 0).to_compact(),
    ]
    .concat()
}

#[test]
fn a_client_can_disconnect_after_every_byte() {
    let folder = Folder::with_volume();
    let served = folder.serve(&[]);
    let session = session();
    for end in 0..=session.len() {
        let mut stream = served.connect();
        // No reply is read. The server may have closed the connection before.
        let _ = stream.write_all(&session[..end]);
    }
    others_are_served(&served);
    served.stop();
    assert!(folder.decrypted() == content());
}

#[test]
fn a_client_can_choose_an_export_and_disconnect() {
    let folder = Folder::with_volume();
    let served = folder.serve(&[]);
    for _ in 0..100 {
        let mut handshake = Handshake::greeted(served.connect());
        handshake.send(OptionType::ExportName, b"").unwrap();
        drop(handshake);
        let mut client = served.client();
        let read = Request {
            flags: CommandFlags::NONE,
            command: Command::Read,
            cookie: 0,
            offset: 0,
            len: SIZE,
        };
        client.send(read, &[]).unwrap();
    }
    others_are_served(&served);
    served.stop();
}

#[test]
fn garbage_ends_its_own_connection() {
    let folder = Folder::with_volume();
    let served = folder.serve(&[]);
    let garbage = content();
    for start in [0, 1 << 20, 2 << 20] {
        let garbage = &garbage[start..start + 4096];
        let mut stream = served.connect();
        let _ = stream.write_all(garbage);
        let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer.len(), 18, "no more than the greeting");

        let mut handshake = Handshake::greeted(served.connect());
        let _ = handshake.0.write_all(garbage);
        assert!(is_ended(&mut handshake.0));

        let mut client = served.client();
        let _ = client.stream.write_all(garbage);
        assert!(client.is_ended());
    }
    others_are_served(&served);
    served.stop();
}

#[test]
fn huge_lengths_cost_nothing() {
    let folder = Folder::with_volume();
    let served = folder.serve(&[]);
    // An option that is too long is skipped and refused. One of an absurd length ends the
    // connection.
    let mut handshake = Handshake::greeted(served.connect());
    let long = vec![0; 100_000];
    assert_eq!(
        handshake.ask(OptionType::Go, &long).1,
        OptionReply::ErrTooBig
    );
    for option in [
        OptionType::Go,
        OptionType::SetMetaContext,
        OptionType::from(1234),
    ] {
        let mut handshake = Handshake::greeted(served.connect());
        let header = OptionHeader {
            option,
            len: u32::MAX,
        };
        handshake.0.write_all(&header.to_bytes()).unwrap();
        assert!(is_ended(&mut handshake.0));
    }
    // So does a write that is longer than the limit.
    for extended in [false, true] {
        let mut handshake = Handshake::greeted(served.connect());
        if extended {
            handshake.acked(OptionType::ExtendedHeaders, &[]);
        }
        let mut client = handshake.go("");
        client.extended = extended;
        let write = Request {
            flags: CommandFlags::NONE,
            command: Command::Write,
            cookie: 0,
            offset: 0,
            len: if extended { u64::MAX } else { u32::MAX.into() },
        };
        // The server may close the connection before all is sent.
        let _ = client.send(write, &[1; 1000]);
        assert!(client.is_ended());
    }
    others_are_served(&served);
    served.stop();
    assert!(folder.decrypted() == content());
}

#[test]
fn ten_thousand_options_are_too_many() {
    let folder = Folder::with_volume();
    let served = folder.serve(&[]);
    let mut handshake = Handshake::greeted(served.connect());
    let mut answered = 0;
    for _ in 0..10_000 {
        if handshake.send(OptionType::List, &[]).is_err() || handshake.reply().is_err() {
            break;
        }
        // The reply is one export and the ACK.
        handshake.reply().unwrap();
        answered += 1;
    }
    assert!((100..1000).contains(&answered), "{answered}");
    others_are_served(&served);
    served.stop();
}

#[test]
fn a_client_that_reads_no_replies_delays_only_itself() {
    let folder = Folder::with_volume();
    let served = folder.serve(&[]);
    let mut dawdlers = Vec::new();
    for structured in [true, false].repeat(10) {
        let mut handshake = Handshake::greeted(served.connect());
        if structured {
            handshake.acked(OptionType::StructuredReply, &[]);
        }
        let client = handshake.go("");
        client.stream.set_nonblocking(true).unwrap();
        dawdlers.push(client);
    }
    // Each sends as many requests as its socket takes.
    for client in &mut dawdlers {
        let read = Request {
            flags: CommandFlags::NONE,
            command: Command::Read,
            cookie: 0,
            offset: 0,
            len: SIZE,
        };
        while client.send(read, &[]).is_ok() {}
    }
    others_are_served(&served);
    let mut client = served.client();
    assert_eq!(client.write(0, &content()[..100_000]), ErrorNumber::None);
    assert_eq!(client.flush(), ErrorNumber::None);
    // The server does not wait for them forever.
    let start = Instant::now();
    served.stop();
    assert!(start.elapsed() < Duration::from_secs(20));
    drop(dawdlers);
}

#[test]
fn a_silent_client_is_disconnected() {
    let folder = Folder::with_volume();
    let served = folder.serve(&["--max-connections", "3", "--handshake-time", "1"]);
    let mut silent: Vec<UnixStream> = (0..3).map(|_| served.connect()).collect();
    // One client sends one byte after the other, and is disconnected too.
    let mut drip = silent.pop().unwrap();
    let dripping = std::thread::spawn(move || {
        let bytes = session();
        for byte in bytes {
            if drip.write_all(&[byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        panic!("it was let go on for ever");
    });
    // This one waits until their time is over: the limit is three clients.
    others_are_served(&served);
    dripping.join().unwrap();
    for stream in &mut silent {
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let mut greeting = Vec::new();
        stream.read_to_end(&mut greeting).unwrap();
        assert_eq!(greeting.len(), 18);
    }
    served.stop();
}

#[test]
fn a_write_that_never_ends_delays_only_itself() {
    let folder = Folder::with_volume();
    let served = folder.serve(&[]);
    let stuck: Vec<Client> = (0..20)
        .map(|_| {
            let mut client = served.client();
            let write = Request {
                flags: CommandFlags::NONE,
                command: Command::Write,
                cookie: 0,
                offset: 0,
                len: SIZE,
            };
            // Only the first sector is sent.
            client.send(write, &content()[..4096]).unwrap();
            client
        })
        .collect();
    others_are_served(&served);
    let mut client = served.client();
    assert_eq!(client.write(0, &content()[..100]), ErrorNumber::None);
    assert_eq!(client.flush(), ErrorNumber::None);
    drop(stuck);
    until("they are gone", || {
        served.client().flush() == ErrorNumber::None
    });
    served.stop();
    assert!(folder.decrypted() == content());
}
