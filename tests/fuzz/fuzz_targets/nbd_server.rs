//! Any bytes of a client, to a server of a volume in memory: the server answers or closes the
//! connection, and goes on serving other clients.
//!
//! If the first byte is odd, the rest comes after a valid handshake, so that it is read as
//! requests.
#![no_main]

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use luksmith::Interrupt;
use luksmith::backend::memory::MemoryBackend;
use luksmith::container::{Container, CreateOptions, OpenOptions, Undo, Version};
use luksmith::export::nbd::{Options, Server};
use luksmith::export::{Discard, Export};
use luksmith::formats::Hash;
use luksmith::kdf::calibrate::Cost;
use luksmith::secret::Passphrase;

/// FIXED_NEWSTYLE and NO_ZEROES.
const FLAGS: &[u8] = &[0, 0, 0, 3];
/// The option GO for the export without a name, without a request for information.
const GO: &[u8] = b"IHAVEOPT\0\0\0\x07\0\0\0\x06\0\0\0\0\0\0";

/// The socket of a server that runs as long as the process.
static SOCKET: LazyLock<PathBuf> = LazyLock::new(|| {
    let passphrase = Passphrase::copy_from(b"passphrase").unwrap();
    let storage = Arc::new(MemoryBackend::new(3 << 20));
    let cost = Cost::Pbkdf2 {
        hash: Hash::Sha256,
        iterations: 1000,
    };
    let (container, unlocked) = Container::create(
        storage.clone(),
        CreateOptions::new(Version::Luks1, cost),
        OpenOptions::new(Undo::NotLookedFor),
        &passphrase,
        &Interrupt::new(),
    )
    .unwrap();
    let volume = Arc::new(container.volume(storage, &unlocked).unwrap());
    let export = Export::new("", volume).with_discard(Discard::Pass);
    let server = Server::new(vec![export], Options::default()).unwrap();
    let path = std::env::temp_dir().join(format!("luksmith-fuzz-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || server.run(vec![listener.into()]));
    path
});

/// Sends `bytes`, reads meanwhile what the server sends, and waits until it closes the connection.
fn talk(bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(&*SOCKET).unwrap();
    stream.set_nonblocking(true).unwrap();
    let (mut left, mut said, mut open) = (bytes, Vec::new(), true);
    let mut buffer = vec![0; 1 << 16];
    let begun = Instant::now();
    loop {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "the server keeps a client that has left"
        );
        let mut waits = true;
        if !left.is_empty() {
            match stream.write(left) {
                Ok(n) => (left, waits) = (&left[n..], false),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => left = &[],
            }
        } else if open {
            let _ = stream.shutdown(Shutdown::Write);
            open = false;
        }
        match stream.read(&mut buffer) {
            Ok(0) => return said,
            Ok(n) => {
                waits = false;
                said.extend_from_slice(&buffer[..n.min((1 << 20) - said.len().min(1 << 20))]);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return said,
        }
        if waits {
            std::thread::sleep(Duration::from_micros(20));
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    if first & 1 == 1 {
        talk(&[FLAGS, GO, rest].concat());
    } else {
        talk(rest);
    }
    // Another client still gets the export: the last of its replies is an acknowledgement.
    let said = talk(&[FLAGS, GO].concat());
    assert_eq!(
        said[said.len() - 8..],
        [0, 0, 0, 1, 0, 0, 0, 0],
        "{said:x?}"
    );
});
