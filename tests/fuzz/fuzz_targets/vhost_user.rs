//! Any descriptors and rings of a guest: the server answers or drops that client, and then serves
//! another one.
//!
//! The first byte says how many chains are made available, and the rest is the table of
//! descriptors, then the available ring, then what the descriptors of a table of its own can refer
//! to.
#![no_main]

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use luksmith::backend::memory::MemoryBackend;
use luksmith::crypt::{IvSector, SectorCrypt};
use luksmith::export::vhost_user::{Disk, Options, Server};
use luksmith::export::{Discard, Export};
use luksmith::formats::CipherSpec;
use luksmith::secret::VolumeKey;
use luksmith::volume::Volume;
use support::vhost_guest::{FEATURES, Guest, RING};

const SIZE: usize = 1 << 20;

static SOCKET: LazyLock<PathBuf> = LazyLock::new(|| {
    let path = std::env::temp_dir().join(format!("luksmith-fuzz-vhost-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    let key = VolumeKey::copy_from(&[7; 64]).unwrap();
    let crypt = SectorCrypt::new(CipherSpec::AES_XTS_PLAIN64, 512, &key).unwrap();
    let storage = Arc::new(MemoryBackend::new(SIZE));
    let volume = Volume::new(storage, crypt, 0, SIZE as u64, IvSector(0), false).unwrap();
    let export = Export::new("", Arc::new(volume)).with_discard(Discard::Pass);
    std::thread::spawn(move || {
        let server = Server::new(Options::default()).unwrap();
        server.run(vec![Disk::new(Arc::new(export), listener)])
    });
    path
});

fuzz_target!(|input: &[u8]| {
    let Some((&count, rest)) = input.split_first() else {
        return;
    };
    let (table, rest) = rest.split_at(rest.len().min(16 * usize::from(RING)));
    let (ring, more) = rest.split_at(rest.len().min(2 * usize::from(RING)));
    let mut guest = Guest::connect(&SOCKET, 2, FEATURES).expect("the server serves");
    guest.memory.write(0, table);
    guest.memory.write(0x4000, more.get(..0x4000).unwrap_or(more));
    for head in ring.chunks_exact(2).take(usize::from(count)) {
        guest.make_available(0, u16::from_le_bytes([head[0], head[1]]));
    }
    guest.kick(0);
    // It answers all of them, or closes the connection. Chains that write to the rings themselves
    // can hide both, so there is a limit.
    let begun = Instant::now();
    let mut left = ring.len() / 2;
    left = left.min(usize::from(count));
    while left > 0 && begun.elapsed() < Duration::from_millis(20) && guest.config(0, 8).is_ok() {
        while left > 0 && guest.poll(0).is_some() {
            left -= 1;
        }
    }
    drop(guest);
    let mut other = Guest::connect(&SOCKET, 1, FEATURES).expect("the server serves");
    assert_eq!(other.read(0, 0, 512).expect("the server answers").len(), 512);
});
