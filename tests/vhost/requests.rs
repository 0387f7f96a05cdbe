//! Requests of a guest, and what the device says of itself.

use std::sync::atomic::Ordering;

use luksmith::export::Discard;
use luksmith::export::vhost_user::Options;
use support::vhost_guest::{
    DATA, Descriptor, FEATURES, Guest, INDIRECT, NEXT, WRITE, header, headers, kind, range,
};
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserConfigFlags;

use crate::disk::{SIZE, Served, Storage, export};

fn pattern(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

fn le<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().unwrap()
}

#[test]
fn what_is_written_is_read_back_on_every_ring() {
    let served = Served::start(export(&Storage::new()));
    let mut guest = served.guest(4);
    let bytes = pattern(768 << 10);
    for ring in 0..4 {
        let sector = 3 + 2048 * ring as u64;
        guest.write(ring, sector, &bytes).unwrap();
        assert!(guest.read(3 - ring, sector, 768 << 10).unwrap() == bytes);
        let stored = served.export.read(512 * sector, bytes.len()).unwrap();
        assert!(stored.as_slice() == bytes);
    }
    guest.flush(0).unwrap();
}

#[test]
fn rings_are_served_at_the_same_time() {
    let storage = Storage::new();
    let served = Served::start(export(&storage));
    let mut guest = served.guest(2);
    storage.to_meet.store(2, Ordering::Relaxed);
    let at = |ring| headers(ring);
    for ring in 0..2 {
        guest.memory.write(at(ring), &header(kind::READ, 0));
        guest.memory.write(at(ring) + 16, &[0xff]);
        let data = DATA + 4096 * ring as u64;
        let parts = [
            (at(ring), 16, NEXT),
            (data, 4096, NEXT | WRITE),
            (at(ring) + 16, 1, WRITE),
        ];
        guest.chain(ring, 0, &parts);
        guest.make_available(ring, 0);
        guest.kick(ring);
    }
    for ring in 0..2 {
        assert_eq!(guest.wait(ring).unwrap().0, 0);
        assert_eq!(guest.memory.read(at(ring) + 16, 1), [0], "{ring}");
    }
}

#[test]
fn the_configuration_describes_the_volume() {
    let served = Served::start(export(&Storage::new()).with_discard(Discard::Pass));
    let mut guest = served.guest(1);
    let config = guest.config(0, 60).unwrap();
    assert_eq!(u64::from_le_bytes(le(&config, 0)), SIZE / 512);
    assert_eq!(u32::from_le_bytes(le(&config, 12)), 126);
    assert_eq!(u32::from_le_bytes(le(&config, 20)), 512);
    assert_eq!(config[24], 3, "blocks of 512 bytes in sectors of 4096");
    assert_eq!(config[32], 1, "a write-back cache");
    assert_eq!(u16::from_le_bytes(le(&config, 34)), 128);
    assert_eq!(u32::from_le_bytes(le(&config, 44)), 8);
    // Any part of it can be read, also beyond its end.
    for (offset, len) in [(0, 8), (20, 4), (32, 1), (34, 2), (57, 100), (256, 8)] {
        let mut whole = config.clone();
        whole.resize(512, 0);
        let part = &whole[offset..offset + len];
        let read = guest.config(u32::try_from(offset).unwrap(), u32::try_from(len).unwrap());
        assert_eq!(read.unwrap(), part, "{offset}");
    }
    let larger = Served::with(export(&Storage::new()), 4096, Options::default());
    let config = larger.guest(1).config(0, 60).unwrap();
    assert_eq!((u32::from_le_bytes(le(&config, 20)), config[24]), (4096, 0));
}

#[test]
fn features_follow_the_rules_of_the_export() {
    const RO: u64 = 1 << 5;
    const DISCARD: u64 = 1 << 13;
    const WRITE_ZEROES: u64 = 1 << 14;
    const LOG_ALL: u64 = 1 << 26;
    let offered = |export| Served::start(export).guest(1).offered;
    let deny = offered(export(&Storage::new()));
    assert_eq!(deny & (RO | DISCARD | WRITE_ZEROES | LOG_ALL), WRITE_ZEROES);
    let pass = offered(export(&Storage::new()).with_discard(Discard::Pass));
    assert_eq!(
        pass & (RO | DISCARD | WRITE_ZEROES | LOG_ALL),
        DISCARD | WRITE_ZEROES
    );
    let read_only = export(&Storage::new()).with_discard(Discard::Pass);
    let read_only = offered(read_only.with_read_only(true));
    assert_eq!(read_only & (RO | DISCARD | WRITE_ZEROES | LOG_ALL), RO);
}

#[test]
fn zeroes_and_discards_reach_their_ranges() {
    let served = Served::start(export(&Storage::new()).with_discard(Discard::Zeroes));
    let mut guest = served.guest(1);
    let mut bytes = pattern(64 << 10);
    guest.write(0, 0, &bytes).unwrap();
    let zeroes = [range(1, 3, 1), range(20, 8, 0)].concat();
    let (status, _) = guest
        .request(0, &header(kind::WRITE_ZEROES, 0), &zeroes, 0)
        .unwrap();
    assert_eq!(status, 0);
    bytes[512..2048].fill(0);
    bytes[10240..14336].fill(0);
    let (status, _) = guest
        .request(0, &header(kind::DISCARD, 0), &range(64, 8, 0), 0)
        .unwrap();
    assert_eq!(status, 0);
    bytes[32768..36864].fill(0);
    assert!(guest.read(0, 0, 64 << 10).unwrap() == bytes);
    // Flags that are not known, too many sectors, too many ranges, no range, a part of one.
    for (data, expected) in [
        (range(0, 8, 2).to_vec(), 2),
        (range(0, u32::MAX, 0).to_vec(), 1),
        (range(u64::MAX, 8, 0).to_vec(), 1),
        (range(0, 8, 0).repeat(17), 1),
        (Vec::new(), 1),
        (range(0, 8, 0)[..15].to_vec(), 1),
    ] {
        let answer = guest.request(0, &header(kind::WRITE_ZEROES, 0), &data, 0);
        assert_eq!(answer.unwrap().0, expected, "{data:?}");
    }
    assert!(guest.read(0, 0, 64 << 10).unwrap() == bytes);
}

#[test]
fn a_discard_that_is_denied_is_unsupported() {
    let served = Served::start(export(&Storage::new()));
    let mut guest = served.guest(1);
    let (status, _) = guest
        .request(0, &header(kind::DISCARD, 0), &range(0, 8, 0), 0)
        .unwrap();
    assert_eq!(status, 2);
}

#[test]
fn the_disk_has_a_name_and_unknown_requests_are_unsupported() {
    let served = Served::start(export(&Storage::new()));
    let mut guest = served.guest(1);
    let (status, name) = guest.request(0, &header(kind::NAME, 0), &[], 20).unwrap();
    assert_eq!(
        (status, &name[..]),
        (0, &b"the disk\0\0\0\0\0\0\0\0\0\0\0\0"[..])
    );
    let (status, _) = guest.request(0, &header(99, 0), &[], 512).unwrap();
    assert_eq!(status, 2);
}

#[test]
fn requests_past_the_end_and_uneven_ones_fail_and_change_nothing() {
    let served = Served::start(export(&Storage::new()));
    let mut guest = served.guest(1);
    let end = SIZE / 512;
    let before = (guest.read(0, end - 1, 512), guest.read(0, 0, 1024));
    for (sector, len) in [
        (end, 512),
        (end - 1, 1024),
        (u64::MAX, 512),
        (u64::MAX / 512, 512),
        (0, 511),
        (0, 513),
    ] {
        let data = vec![9; len];
        let write = guest.request(0, &header(kind::WRITE, sector), &data, 0);
        assert_eq!(write.unwrap().0, 1, "{sector} {len}");
        let len = u32::try_from(len).unwrap();
        let read = guest.request(0, &header(kind::READ, sector), &[], len);
        assert_eq!(read.unwrap().0, 1, "{sector} {len}");
    }
    assert!(guest.read(0, end - 1, 512).unwrap() == before.0.unwrap());
    assert!(guest.read(0, 0, 1024).unwrap() == before.1.unwrap());
}

#[test]
fn a_read_only_disk_is_not_changed() {
    let storage = Storage::new();
    let served = Served::start(export(&storage).with_read_only(true));
    let mut guest = served.guest(1);
    let before = guest.read(0, 0, 512).unwrap();
    assert_eq!(
        guest
            .request(0, &header(kind::WRITE, 0), &[9; 512], 0)
            .unwrap()
            .0,
        1
    );
    let zeroes = guest.request(0, &header(kind::WRITE_ZEROES, 0), &range(0, 8, 0), 0);
    assert_eq!(zeroes.unwrap().0, 1);
    guest.flush(0).unwrap();
    assert!(guest.read(0, 0, 512).unwrap() == before);
}

#[test]
fn a_request_may_be_divided_into_descriptors_in_any_way() {
    let served = Served::start(export(&Storage::new()));
    let mut guest = served.guest(1);
    let bytes = pattern(1024);
    // Header and data in one descriptor for the write.
    guest
        .memory
        .write(DATA, &[&header(kind::WRITE, 8)[..], &bytes].concat());
    let at = headers(0);
    guest.memory.write(at, &[0xff; 8]);
    let part = |address, len, flags, next| Descriptor {
        address,
        len,
        flags,
        next,
    };
    guest.describe(0, 0, &[part(DATA, 1040, NEXT, 1), part(at, 1, WRITE, 0)]);
    guest.make_available(0, 0);
    guest.kick(0);
    assert_eq!(guest.wait(0).unwrap(), (0, 1));
    assert_eq!(guest.memory.read(at, 1), [0]);
    // The header in three, and the status behind the data, in a table of its own for the read.
    guest.memory.write(at, &header(kind::READ, 8));
    let table = at + 256;
    let descriptors = [
        part(at, 3, NEXT, 1),
        part(at + 3, 1, NEXT, 2),
        part(at + 4, 12, NEXT, 3),
        part(DATA + 4096, 100, NEXT | WRITE, 4),
        part(DATA + 8192, 925, WRITE, 0),
    ];
    for (n, descriptor) in (0..).zip(descriptors) {
        let mut raw = descriptor.address.to_le_bytes().to_vec();
        raw.extend(descriptor.len.to_le_bytes());
        raw.extend(descriptor.flags.to_le_bytes());
        raw.extend(descriptor.next.to_le_bytes());
        guest.memory.write(table + 16 * n, &raw);
    }
    guest.describe(0, 7, &[part(table, 5 * 16, INDIRECT, 0)]);
    guest.make_available(0, 7);
    guest.kick(0);
    assert_eq!(guest.wait(0).unwrap(), (7, 1025));
    let read = [
        guest.memory.read(DATA + 4096, 100),
        guest.memory.read(DATA + 8192, 925),
    ]
    .concat();
    assert!(read == [&bytes[..], &[0]].concat());
}

#[test]
fn data_may_lie_anywhere_and_be_divided_within_sectors() {
    const LEN: usize = 40 << 10;
    let served = Served::start(export(&Storage::new()));
    let mut guest = served.guest(1);
    let mut disk = served.export.read(0, 1 << 20).unwrap().as_slice().to_vec();
    let bytes = pattern(LEN);
    let at = headers(0);
    for (round, lens) in [
        &[4096_usize][..],
        &[512, 3584],
        &[511, 513, 1],
        &[1000, 0, 7, 4096],
        &[4095, 1],
        &[20 << 10, 100],
    ]
    .iter()
    .enumerate()
    {
        // From a sector that is the first one of a unit, and from others.
        for sector in [8, 9, 1007] {
            for (kind, flags) in [(kind::WRITE, NEXT), (kind::READ, NEXT | WRITE)] {
                guest.memory.write(at, &header(kind, sector));
                let mut parts = vec![(at, 16, NEXT)];
                // An odd distance, so that the pieces have all alignments.
                let (mut place, mut left) = (DATA + round as u64, &bytes[..]);
                let mut places = Vec::new();
                for len in lens.iter().cycle() {
                    let (now, later) = left.split_at((*len).min(left.len()));
                    guest.memory.write(place, &[0xee; 8192][..13]);
                    match kind {
                        kind::WRITE => guest.memory.write(place, now),
                        _ => guest.memory.write(place, &vec![0xee; now.len()]),
                    }
                    guest.memory.write(place + now.len() as u64, &[0xa5; 13]);
                    parts.push((place, u32::try_from(now.len()).unwrap(), flags));
                    places.push((place, now.len()));
                    (place, left) = (place + now.len() as u64 + 13, later);
                    if left.is_empty() {
                        break;
                    }
                }
                parts.push((at + 64, 1, WRITE));
                assert!(parts.len() <= 128);
                guest.chain(0, 0, &parts);
                guest.make_available(0, 0);
                guest.kick(0);
                guest.wait(0).unwrap();
                assert_eq!(guest.memory.read(at + 64, 1), [0]);
                let mut read = Vec::new();
                for (place, len) in places {
                    let whole = guest.memory.read(place, len + 13);
                    assert_eq!(whole[len..], [0xa5; 13], "the bytes behind a piece");
                    read.extend_from_slice(&whole[..len]);
                }
                assert!(read == bytes, "{lens:?} {sector} {kind}");
            }
            let start = usize::try_from(512 * sector).unwrap();
            disk[start..start + LEN].copy_from_slice(&bytes);
            let stored = served.export.read(0, 1 << 20).unwrap();
            assert!(stored.as_slice() == disk, "{lens:?} {sector}");
        }
    }
}

#[test]
fn a_guest_that_switches_the_cache_off_gets_durable_writes() {
    let storage = Storage::new();
    let served = Served::start(export(&storage));
    let mut guest = served.guest(1);
    let flushes = || storage.flushes.load(Ordering::Relaxed);
    guest.write(0, 0, &[1; 512]).unwrap();
    assert_eq!(flushes(), 0);
    let flags = VhostUserConfigFlags::empty();
    guest.frontend.set_config(32, flags, &[0]).unwrap();
    assert_eq!(guest.config(32, 1).unwrap(), [0]);
    guest.write(0, 0, &[2; 512]).unwrap();
    assert_eq!(flushes(), 1);
    guest.read(0, 0, 512).unwrap();
    assert_eq!(flushes(), 1);
    guest.frontend.set_config(32, flags, &[1]).unwrap();
    guest.write(0, 0, &[3; 512]).unwrap();
    assert_eq!(flushes(), 1);
    drop(guest);
    // One that cannot flush gets them always.
    let mut guest = Guest::connect(&served.socket(), 1, FEATURES & !(1 << 9)).unwrap();
    guest.write(0, 0, &[4; 512]).unwrap();
    assert_eq!(flushes(), 2);
}

#[test]
fn a_flush_that_failed_fails_for_ever() {
    let storage = Storage::new();
    let served = Served::start(export(&storage));
    let mut guest = served.guest(1);
    guest.write(0, 0, &[1; 512]).unwrap();
    storage.flush_fails.store(true, Ordering::Relaxed);
    assert!(guest.flush(0).is_err());
    assert!(guest.flush(0).is_err());
    drop(guest);
    assert!(served.stop().is_err());
}

#[test]
fn requests_that_wait_for_storage_overlap_and_end_in_their_order() {
    let storage = Storage::new();
    let served = Served::start(export(&storage));
    let mut guest = served.guest(1);
    storage.slow.store(true, Ordering::Relaxed);
    // The server learns that the storage is slow.
    for _ in 0..8 {
        guest.read(0, 0, 512).unwrap();
    }
    let at = headers(0);
    for n in 0..32 {
        let place = at + 32 * u64::from(n);
        let kind = if n % 2 == 0 { kind::WRITE } else { kind::READ };
        guest
            .memory
            .write(place, &header(kind, 8 * u64::from(n / 2)));
        guest.memory.write(place + 16, &[0xff]);
        let data = DATA + 4096 * u64::from(n);
        guest.memory.write(data, &[u8::try_from(n).unwrap(); 4096]);
        let flags = if n % 2 == 0 { NEXT } else { NEXT | WRITE };
        let parts = [
            (place, 16, NEXT),
            (data, 4096, flags),
            (place + 16, 1, WRITE),
        ];
        guest.chain(0, 3 * n, &parts);
        guest.make_available(0, 3 * n);
    }
    guest.kick(0);
    for n in 0..32 {
        assert_eq!(guest.wait(0).unwrap().0, 3 * n);
        assert_eq!(guest.memory.read(at + 32 * u64::from(n) + 16, 1), [0]);
    }
    for n in 0..16 {
        let stored = served.export.read(4096 * n, 4096).unwrap();
        assert!(
            stored.as_slice() == [u8::try_from(2 * n).unwrap(); 4096],
            "{n}"
        );
    }
}
