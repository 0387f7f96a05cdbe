//! The program: its options, and a server that is killed.

use std::os::unix::fs::MetadataExt;

use support::vhost_guest::{DATA, FEATURES, Guest, NEXT, WRITE, header, headers, kind};

use crate::program::{Folder, content};

/// Puts a write of 4 KiB into the place `slot` of the ring, without telling the server.
fn put_write(guest: &mut Guest, slot: u16, sector: u64, byte: u8) {
    let at = headers(0) + 64 * u64::from(slot);
    let data = DATA + 4096 * u64::from(slot);
    guest.memory.write(at, &header(kind::WRITE, sector));
    guest.memory.write(at + 16, &[0xff]);
    guest.memory.write(data, &[byte; 4096]);
    let parts = [(at, 16, NEXT), (data, 4096, NEXT), (at + 16, 1, WRITE)];
    guest.chain(0, 3 * slot, &parts);
    guest.make_available(0, 3 * slot);
}

#[test]
fn writes_survive_a_server_that_is_killed_and_the_rest_is_done_by_the_next_one() {
    const SLOTS: u16 = 40;
    let folder = Folder::new();
    let mut served = folder.serve(&[]);
    let mut guest = Guest::connect(&folder.path("v.sock"), 1, FEATURES).unwrap();
    let mut expected = content();
    for round in 1..=4_u8 {
        // Writes that are answered and flushed.
        for n in 0..8_u64 {
            guest.write(0, 8 * n, &[round; 4096]).unwrap();
        }
        guest.flush(0).unwrap();
        expected[..8 * 4096].fill(round);
        // The server is killed in the middle of others.
        for slot in 0..SLOTS {
            put_write(&mut guest, slot, 1024 + 8 * u64::from(slot), round);
        }
        guest.kick(0);
        let mut ended = 0;
        while ended < 1 + u16::from(round) {
            ended += u16::from(guest.poll(0).is_some());
        }
        served.kill();
        expected[512 << 10..][..usize::from(SLOTS) * 4096].fill(round);
        served = folder.serve(&[]);
        guest = guest.reconnect(&folder.path("v.sock"), FEATURES).unwrap();
        // Every request ends once, in its order, and without an error.
        for slot in ended..SLOTS {
            assert_eq!(guest.wait(0).unwrap().0, 3 * slot, "round {round}");
        }
        for slot in 0..SLOTS {
            let status = guest.memory.read(headers(0) + 64 * u64::from(slot) + 16, 1);
            assert_eq!(status, [0]);
        }
        assert!(guest.poll(0).is_none());
        guest.flush(0).unwrap();
        let read = guest.read(0, 0, 1 << 20).unwrap();
        assert!(read == expected[..1 << 20], "round {round}");
    }
    served.kill();
    assert!(folder.decrypted() == expected);
}

#[test]
fn the_socket_is_for_its_owner_and_goes_with_the_server() {
    let folder = Folder::new();
    let served = folder.serve(&["--read-only"]);
    let socket = folder.path("v.sock");
    assert_eq!(socket.metadata().unwrap().mode() & 0o7777, 0o600);
    let export = &served.told["exports"][0];
    assert_eq!(export["vhost_user"], socket.display().to_string());
    assert_eq!(export["read_only"], true);
    assert!(served.told["uri"].is_null() && export["uri"].is_null());
    let mut guest = Guest::connect(&socket, 1, FEATURES).unwrap();
    assert!(guest.read(0, 0, 1 << 20).unwrap() == content()[..1 << 20]);
    assert!(guest.write(0, 0, &[0; 512]).is_err());
    let said = served.stop();
    assert!(
        said.contains(&format!("vhost-user:{}", socket.display())),
        "{said}"
    );
    assert!(!socket.exists());
    // A directory that others can enter is refused, as for NBD.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path("."), open).unwrap();
    let args = [
        "serve",
        "disk.img",
        "--vhost-user",
        "v.sock",
        "--key-file",
        "key",
    ];
    let refused = folder.refusal(&args);
    assert!(refused.contains("other users can enter"), "{refused}");
}

#[test]
fn several_disks_are_served_beside_nbd() {
    let folder = Folder::new();
    folder.make_volume("other.img");
    let served = folder.serve_with(&[
        "--export",
        "a=disk.img,key=file:key,vhost-user=a.sock",
        "--export",
        "b=other.img,key=file:key,vhost-user=b.sock,read-only",
        "--socket",
        "n.sock",
    ]);
    let mut a = Guest::connect(&folder.path("a.sock"), 2, FEATURES).unwrap();
    let mut b = Guest::connect(&folder.path("b.sock"), 2, FEATURES).unwrap();
    a.write(1, 0, &[1; 4096]).unwrap();
    a.flush(0).unwrap();
    assert!(b.read(1, 0, 4096).unwrap() == content()[..4096]);
    assert!(
        served.told["exports"][0]["uri"]
            .as_str()
            .unwrap()
            .contains("/a?socket=")
    );
    drop((a, b));
    served.stop();
    assert!(folder.decrypted()[..4096] == [1; 4096]);
    // Without NBD, each export needs a socket.
    let refused = folder.refusal(&[
        "serve",
        "--export",
        "a=disk.img,key=file:key,vhost-user=a.sock",
        "--export",
        "b=other.img,key=file:key",
    ]);
    assert!(
        refused.contains("no socket where a client could connect"),
        "{refused}"
    );
}

#[test]
fn the_server_ends_with_its_guest() {
    let folder = Folder::new();
    let served = folder.serve(&["--exit-when-idle", "--block-size", "4096"]);
    let mut guest = Guest::connect(&folder.path("v.sock"), 1, FEATURES).unwrap();
    assert_eq!(guest.config(20, 4).unwrap(), 4096_u32.to_le_bytes());
    guest.write(0, 0, &[5; 4096]).unwrap();
    drop(guest);
    served.ends();
    assert!(folder.decrypted()[..4096] == [5; 4096]);
}
