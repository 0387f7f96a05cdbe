//! After volumes were served to clients, no piece of their keys or plaintext is left in memory.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use luksmith::Interrupt;
use luksmith::backend::memory::MemoryBackend;
use luksmith::container::{Container, OpenOptions, Undo, Version, Which};
use luksmith::export::Export;
use luksmith::export::nbd::{Options, Server};
use luksmith::formats::nbd::{
    ClientFlags, Command, CommandFlags, Greeting, OptionHeader, OptionType, Request, SimpleReply,
};
use luksmith::secret::{LockedBytes, Passphrase};

use crate::sample::{PBKDF2, copy, create, options};
use crate::scan::{Needle, fresh};

/// A client that keeps plaintext only in locked memory.
struct Client(UnixStream);

impl Client {
    fn of(mut stream: UnixStream) -> Self {
        stream.read_exact(&mut [0; Greeting::LEN]).unwrap();
        let flags = ClientFlags::from(3);
        stream.write_all(&flags.to_bytes()).unwrap();
        let option = OptionType::ExportName;
        let header = OptionHeader { option, len: 0 };
        stream.write_all(&header.to_bytes()).unwrap();
        stream.read_exact(&mut [0; 10]).unwrap();
        Self(stream)
    }

    fn send(&mut self, command: Command, offset: u64, len: usize, payload: &[u8]) {
        let request = Request {
            flags: CommandFlags::NONE,
            command,
            cookie: 1,
            offset,
            len: len as u64,
        };
        self.0.write_all(&request.to_compact()).unwrap();
        self.0.write_all(payload).unwrap();
        if command != Command::Disconnect {
            let mut reply = [0; SimpleReply::LEN];
            self.0.read_exact(&mut reply).unwrap();
            assert_eq!(reply[4..8], [0; 4], "an error");
        }
    }

    fn write_and_read(&mut self, offset: u64, bytes: &[u8]) {
        self.send(Command::Write, offset, bytes.len(), bytes);
        self.send(Command::Read, offset, bytes.len(), &[]);
        let mut back = LockedBytes::new(bytes.len()).unwrap();
        self.0.read_exact(&mut back).unwrap();
        assert_eq!(back[..], bytes[..]);
    }
}

#[test]
fn nothing_is_left_of_a_served_volume() {
    let (key, passphrase, canary) = (fresh(64), fresh(24), fresh(512));
    let needles = [
        ("the volume key", Needle::of(&key)),
        ("the passphrase", Needle::of(&passphrase)),
        ("the plaintext", Needle::of(&canary[..128])),
    ];
    let storage = Arc::new(MemoryBackend::new(4 << 20));
    let made = options(Version::Luks2, PBKDF2, "aes-xts-plain64", &key);
    drop(create(
        storage.clone(),
        made,
        OpenOptions::new(Undo::NotLookedFor),
        &passphrase,
    ));
    let container = Container::open(storage.clone(), OpenOptions::new(Undo::NotLookedFor)).unwrap();
    let typed = Passphrase::from_locked(copy(&passphrase));
    let unlocked = container
        .unlock(&typed, Which::Any, &Interrupt::new())
        .unwrap();
    drop((key, passphrase, typed));
    let volume = Arc::new(container.volume(storage, &unlocked).unwrap());
    drop((container, unlocked));

    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = Server::new(vec![Export::new("", volume)], Options::default()).unwrap();
    let stopper = server.stopper();
    let serving = std::thread::spawn(move || server.run(vec![listener.into()]));
    let mut clients: Vec<_> = (0..3)
        .map(|_| Client::of(UnixStream::connect(&socket).unwrap()))
        .collect();
    for (offset, client) in (0..).step_by(100_000).zip(&mut clients) {
        // Whole and partial sectors.
        for offset in [offset, offset + 8191, offset + 50_100] {
            client.write_and_read(offset, &canary);
        }
        client.send(Command::Flush, 0, 0, &[]);
    }
    clients.pop().unwrap().send(Command::Disconnect, 0, 0, &[]);
    drop(canary);
    // Positive control: the search finds the key while the volume is served.
    assert!(!needles[0].1.find().is_empty());
    stopper.stop();
    serving.join().unwrap().unwrap();
    drop(clients);
    for (name, needle) in &needles {
        needle.assert_gone(name);
    }
}
