//! While a volume is the disk of a virtual machine, its plaintext is in the memory of the guest
//! only; afterwards no piece of its key is left either.

use std::os::unix::net::UnixListener;
use std::sync::Arc;

use luksmith::backend::memory::MemoryBackend;
use luksmith::crypt::{IvSector, SectorCrypt};
use luksmith::export::Export;
use luksmith::export::vhost_user::{Disk, Options, Server};
use luksmith::formats::CipherSpec;
use luksmith::secret::VolumeKey;
use luksmith::volume::Volume;
use support::vhost_guest::{DATA, FEATURES, Guest, NEXT, WRITE, header, headers, kind};

use crate::scan::{Needle, fresh};

/// Carries out a request for the canary at `DATA`, without a copy of it.
fn ask(guest: &mut Guest, kind: u32, sector: u64, len: u32) {
    let at = headers(0);
    guest.memory.write(at, &header(kind, sector));
    guest.memory.write(at + 16, &[0xff]);
    let flags = if kind == kind::READ {
        NEXT | WRITE
    } else {
        NEXT
    };
    let parts = [(at, 16, NEXT), (DATA, len, flags), (at + 16, 1, WRITE)];
    guest.chain(0, 0, &parts);
    guest.make_available(0, 0);
    guest.kick(0);
    guest.wait(0).unwrap();
    assert_eq!(guest.memory.read(at + 16, 1), [0]);
}

#[test]
fn nothing_is_left_of_a_disk_of_a_virtual_machine() {
    let (key, canary) = (fresh(64), fresh(512));
    let needles = [
        ("the volume key", Needle::of(&key)),
        ("the plaintext", Needle::of(&canary[..128])),
    ];
    let crypt = {
        let key = VolumeKey::copy_from(&key).unwrap();
        SectorCrypt::new(CipherSpec::AES_XTS_PLAIN64, 4096, &key).unwrap()
    };
    let storage = Arc::new(MemoryBackend::new(4 << 20));
    let volume = Volume::new(storage, crypt, 0, 4 << 20, IvSector(0), false).unwrap();
    drop(key);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let disk = Disk::new(Arc::new(Export::new("", Arc::new(volume))), listener);
    let server = Server::new(Options::default()).unwrap();
    let stopper = server.stopper();
    let serving = std::thread::spawn(move || server.run(vec![disk]));

    let mut guest = Guest::connect(&socket, 1, FEATURES).unwrap();
    // Partial sectors, and many whole ones.
    let lengths = [512, 4096, 1 << 20];
    for (n, len) in (0..).zip(lengths) {
        for at in (0..u64::from(len)).step_by(512) {
            guest.memory.write(DATA + at, &canary);
        }
        ask(&mut guest, kind::WRITE, 2048 * n + 3 * (1 - n.min(1)), len);
    }
    for (n, len) in (0..).zip(lengths) {
        ask(&mut guest, kind::READ, 2048 * n + 3 * (1 - n.min(1)), len);
        for at in (0..512).step_by(8) {
            assert_eq!(guest.memory.read(DATA + at as u64, 8), canary[at..at + 8]);
        }
    }
    drop(canary);
    // Positive controls: the search finds the plaintext in the guest, and the key.
    assert!(needles.iter().all(|(_, needle)| !needle.find().is_empty()));
    for at in (0..1 << 20).step_by(4096) {
        guest.memory.write(DATA + at, &[0; 4096]);
    }
    needles[1].1.assert_gone("the plaintext");
    drop(guest);
    stopper.stop();
    serving.join().unwrap().unwrap();
    for (name, needle) in &needles {
        needle.assert_gone(name);
    }
}
