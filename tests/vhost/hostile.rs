//! Hostile guests and clients: the server answers with an error or drops that client, and nothing
//! else suffers.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use support::vhost_guest::{
    DATA, Descriptor, Guest, INDIRECT, MEMORY, NEXT, WRITE, header, headers, kind,
};
use vhost::vhost_user::VhostUserFrontend;
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};

use crate::disk::{Served, Storage, export};

fn part(address: u64, len: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor {
        address,
        len,
        flags,
        next,
    }
}

/// What the server does with a chain.
#[derive(Debug, PartialEq)]
enum Answer {
    Status(u8),
    Dropped,
}

fn give(served: &Served, describe: impl Fn(&Guest) -> u16) -> Answer {
    let mut guest = served.guest(2);
    let at = headers(0);
    guest.memory.write(at, &header(kind::READ, 0));
    guest.memory.write(at + 64, &[0xff]);
    let head = describe(&guest);
    guest.make_available(0, head);
    guest.kick(0);
    loop {
        if guest.poll(0).is_some() {
            let status = guest.memory.read(at + 64, 1)[0];
            // The other ring of the guest works too.
            guest.read(1, 0, 512).unwrap();
            return Answer::Status(status);
        }
        let dropped = guest.config(0, 8).is_err();
        if dropped && guest.poll(0).is_none() {
            return Answer::Dropped;
        }
    }
}

#[test]
fn chains_that_are_not_possible_drop_their_client_only() {
    let served = Served::start(export(&Storage::new()));
    let at = headers(0);
    let table = at + 256;
    let raw = |part: Descriptor| {
        let mut raw = part.address.to_le_bytes().to_vec();
        raw.extend(part.len.to_le_bytes());
        raw.extend(part.flags.to_le_bytes());
        raw.extend(part.next.to_le_bytes());
        raw
    };
    let chains: Vec<(&str, Vec<Descriptor>, u16)> = vec![
        ("a loop of one", vec![part(at, 16, NEXT, 0)], 0),
        (
            "a loop of two",
            vec![part(at, 16, NEXT, 1), part(DATA, 512, NEXT | WRITE, 0)],
            0,
        ),
        (
            "a head outside of the table",
            vec![part(at, 16, 0, 0)],
            4000,
        ),
        (
            "a next one outside of the table",
            vec![part(at, 16, NEXT, 128)],
            0,
        ),
        (
            "a readable descriptor after a writable one",
            vec![
                part(at, 16, NEXT, 1),
                part(DATA, 512, NEXT | WRITE, 2),
                part(at + 64, 1, 0, 0),
            ],
            0,
        ),
        ("no status", vec![part(at, 16, 0, 0)], 0),
        (
            "a status of no bytes",
            vec![part(at, 16, NEXT, 1), part(at + 64, 0, WRITE, 0)],
            0,
        ),
        ("no header", vec![part(at + 64, 1, WRITE, 0)], 0),
        (
            "a header that is too short",
            vec![part(at, 15, NEXT, 1), part(at + 64, 1, WRITE, 0)],
            0,
        ),
        (
            "a header that is not there",
            vec![part(MEMORY - 8, 16, NEXT, 1), part(at + 64, 1, WRITE, 0)],
            0,
        ),
        (
            "a status that is not there",
            vec![
                part(at, 16, NEXT, 1),
                part(DATA, 512, NEXT | WRITE, 2),
                part(MEMORY, 1, WRITE, 0),
            ],
            0,
        ),
        (
            "more than 4 GiB",
            vec![
                part(at, 16, NEXT, 1),
                part(DATA, u32::MAX, NEXT | WRITE, 2),
                part(DATA, u32::MAX, NEXT | WRITE, 3),
                part(at + 64, 1, WRITE, 0),
            ],
            0,
        ),
        (
            "a table of no descriptors",
            vec![part(table, 0, INDIRECT, 0)],
            0,
        ),
        ("a part of a table", vec![part(table, 17, INDIRECT, 0)], 0),
        ("a table of 4 GiB", vec![part(table, !15, INDIRECT, 0)], 0),
        (
            "a table that is not there",
            vec![part(MEMORY - 16, 32, INDIRECT, 0)],
            0,
        ),
        ("a table in a table", vec![part(table, 32, INDIRECT, 0)], 0),
    ];
    for (what, descriptors, head) in chains {
        let answer = give(&served, |guest| {
            let nested = [part(at, 16, NEXT, 1), part(table, 16, INDIRECT, 0)];
            let nested = nested.map(raw).concat();
            guest.memory.write(table, &nested);
            if what == "a table that is not there" {
                guest.memory.write(MEMORY - 16, &raw(part(at, 16, NEXT, 1)));
            }
            guest.describe(0, 0, &descriptors);
            head
        });
        assert_eq!(answer, Answer::Dropped, "{what}");
        assert!(served.serves(), "{what}");
    }
}

#[test]
fn data_that_is_not_in_memory_is_an_error() {
    let served = Served::start(export(&Storage::new()));
    let at = headers(0);
    served.guest(1).write(0, 0, &[1; 4096]).unwrap();
    for (kind, flags) in [(kind::READ, WRITE), (kind::WRITE, 0)] {
        for (address, len) in [
            (MEMORY - 512, 1024),
            (MEMORY, 512),
            (1 << 50, 4096),
            (u64::MAX - 100, 512),
            (DATA, 1 << 31),
        ] {
            let answer = give(&served, |guest| {
                guest.memory.write(at, &header(kind, 0));
                let descriptors = [
                    part(at, 16, NEXT, 1),
                    part(address, len, NEXT | flags, 2),
                    part(at + 64, 1, WRITE, 0),
                ];
                guest.describe(0, 0, &descriptors);
                0
            });
            assert_eq!(answer, Answer::Status(1), "{kind} {address:#x} {len:#x}");
        }
    }
    let stored = served.export.read(0, 4096).unwrap();
    assert!(stored.as_slice() == [1; 4096]);
}

#[test]
fn an_impossible_index_drops_the_client() {
    let served = Served::start(export(&Storage::new()));
    let mut guest = served.guest(1);
    guest.set_available(0, 1000);
    guest.kick(0);
    assert!(guest.is_dropped());
    assert!(served.serves());
}

#[test]
fn memory_that_is_taken_away_drops_the_client() {
    let served = Served::start(export(&Storage::new()));
    let mut guest = served.guest(1);
    guest.write(0, 0, &[1; 4096]).unwrap();
    let at = headers(0);
    guest.memory.write(at, &header(kind::WRITE, 0));
    let descriptors = [
        part(at, 16, NEXT, 1),
        part(DATA, 4096, NEXT, 2),
        part(at + 64, 1, WRITE, 0),
    ];
    guest.describe(0, 0, &descriptors);
    guest.make_available(0, 0);
    // The rings stay, the data goes.
    guest.memory.file().set_len(DATA).unwrap();
    guest.kick(0);
    assert!(guest.is_dropped());
    let stored = served.export.read(0, 4096).unwrap();
    assert!(stored.as_slice() == [1; 4096], "nothing was written");
    assert!(served.serves());
    // The rings go too.
    let guest = served.guest(1);
    guest.memory.file().set_len(0).unwrap();
    guest.kick(0);
    assert!(guest.is_dropped());
    assert!(served.serves());
}

#[test]
fn tables_of_memory_that_are_not_possible_are_refused() {
    let served = Served::start(export(&Storage::new()));
    let region = |start, len, offset, guest: &Guest| VhostUserMemoryRegionInfo {
        guest_phys_addr: start,
        memory_size: len,
        userspace_addr: 1 << 41,
        mmap_offset: offset,
        mmap_handle: guest.memory.file().as_raw_fd(),
    };
    for (what, regions) in [
        (
            "past the end of the file",
            [(0, MEMORY + 4096, 0)].as_slice(),
        ),
        ("an offset past the end", &[(0, 4096, MEMORY)]),
        ("an offset of no page", &[(0, 4096, 1)]),
        (
            "the end of the address space",
            &[(u64::MAX - 4095, 8192, 0)],
        ),
        ("a huge region", &[(0, 1 << 62, 0)]),
        ("regions that overlap", &[(0, 8192, 0), (4096, 8192, 0)]),
    ] {
        let guest = served.guest(1);
        let regions: Vec<_> = (regions.iter())
            .map(|&(start, len, offset)| region(start, len, offset, &guest))
            .collect();
        assert!(guest.frontend.set_mem_table(&regions).is_err(), "{what}");
        assert!(guest.is_dropped(), "{what}");
        assert!(served.serves(), "{what}");
    }
}

#[test]
fn rings_that_are_not_possible_are_refused() {
    let served = Served::start(export(&Storage::new()));
    let place = |descriptors, available, used| VringConfigData {
        queue_max_size: 128,
        queue_size: 128,
        flags: 0,
        desc_table_addr: descriptors,
        used_ring_addr: used,
        avail_ring_addr: available,
        log_addr: None,
    };
    let client = 1 << 40;
    for (what, config) in [
        ("nowhere", place(0, 0, 0)),
        ("past the end", place(client + MEMORY, client, client)),
        (
            "across the end",
            place(client + MEMORY - 16, client, client),
        ),
        (
            "a used ring across the end",
            place(client, client, client + MEMORY - 8),
        ),
    ] {
        let guest = served.guest(1);
        assert!(guest.frontend.set_vring_addr(0, &config).is_err(), "{what}");
        assert!(guest.is_dropped(), "{what}");
        assert!(served.serves(), "{what}");
    }
    for size in [0, 3, 2048, u16::MAX] {
        let guest = served.guest(1);
        assert!(guest.frontend.set_vring_num(0, size).is_err(), "{size}");
        assert!(guest.is_dropped(), "{size}");
        assert!(served.serves(), "{size}");
    }
}

#[test]
fn messages_that_are_not_valid_drop_the_client() {
    let served = Served::start(export(&Storage::new()));
    let message = |code: u32, flags: u32, size: u32, body: &[u8]| {
        let mut bytes = [code, flags, size].map(u32::to_le_bytes).concat();
        bytes.extend_from_slice(body);
        bytes
    };
    for (what, bytes) in [
        ("an unknown message", message(1000, 1, 0, &[])),
        ("another version", message(1, 2, 0, &[])),
        ("a long body", message(2, 1, 1 << 30, &[0; 64])),
        ("a short body", message(2, 1, 4, &[0; 4])),
        (
            "features that were not offered",
            message(2, 1, 8, &(1u64 << 26).to_le_bytes()),
        ),
        ("a log of pages", message(6, 1, 16, &[1; 16])),
        (
            "no table of memory",
            message(5, 1, 8, &[1, 0, 0, 0, 0, 0, 0, 0]),
        ),
        (
            "a ring that is not there",
            message(8, 1, 8, &[200, 0, 0, 0, 1, 0, 0, 0]),
        ),
        ("an event without a descriptor", message(12, 1, 8, &[0; 8])),
        (
            "a ring without an event",
            message(12, 1, 8, &[0, 1, 0, 0, 0, 0, 0, 0]),
        ),
        ("nothing", Vec::new()),
        ("half of a header", vec![1; 6]),
    ] {
        let mut stream = UnixStream::connect(served.socket()).unwrap();
        // The server may have dropped the client before all of it is sent.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut end = [0; 64];
        while std::io::Read::read(&mut stream, &mut end).is_ok_and(|read| read > 0) {}
        assert!(served.serves(), "{what}");
    }
}

#[test]
fn a_configuration_that_cannot_be_written_drops_the_client() {
    let served = Served::start(export(&Storage::new()));
    let flags = vhost::vhost_user::message::VhostUserConfigFlags::empty();
    for (offset, bytes) in [(0, &[1; 8][..]), (32, &[2]), (32, &[1, 1]), (33, &[1])] {
        let mut guest = served.guest(1);
        assert!(guest.frontend.set_config(offset, flags, bytes).is_err());
        assert!(guest.is_dropped());
        assert!(served.serves());
    }
}
