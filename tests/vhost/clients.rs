//! Clients that come and go.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use luksmith::export::vhost_user::Options;
use support::vhost_guest::{FEATURES, Guest};
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;

use crate::disk::{Served, Storage, export};

#[test]
fn there_is_one_client_at_a_time() {
    let served = Served::start(export(&Storage::new()));
    let mut first = served.guest(1);
    first.write(0, 0, &[1; 512]).unwrap();
    assert!(Guest::connect(&served.socket(), 1, FEATURES).is_err());
    first.write(0, 0, &[2; 512]).unwrap();
    // When it has left, the next one is served at once.
    for _ in 0..50 {
        drop(first);
        first = served.guest(1);
        assert!(first.read(0, 0, 512).unwrap() == [2; 512]);
    }
}

#[test]
fn clients_that_connect_and_leave_do_no_harm() {
    let served = Served::start(export(&Storage::new()));
    for _ in 0..200 {
        drop(UnixStream::connect(served.socket()).unwrap());
    }
    assert!(served.serves());
}

#[test]
fn other_users_are_refused_if_the_users_are_named() {
    let mut options = Options::default();
    options.allow_uids = Some(vec![rustix::process::geteuid().as_raw() + 1]);
    let served = Served::with(export(&Storage::new()), 512, options.clone());
    assert!(Guest::connect(&served.socket(), 1, FEATURES).is_err());
    options.allow_uids = Some(vec![rustix::process::geteuid().as_raw()]);
    assert!(Served::with(export(&Storage::new()), 512, options).serves());
}

#[test]
fn the_server_ends_when_the_last_client_has_left() {
    let mut options = Options::default();
    options.exit_when_idle = true;
    let served = Served::with(export(&Storage::new()), 512, options);
    let guest = served.guest(1);
    assert!(!served.has_ended());
    drop(guest);
    let begun = Instant::now();
    while !served.has_ended() {
        assert!(begun.elapsed() < Duration::from_secs(30));
        std::thread::yield_now();
    }
    served.stop().unwrap();
}

#[test]
fn a_server_that_stops_ends_what_was_begun_before_the_client_notices() {
    for _ in 0..20 {
        let served = Served::start(export(&Storage::new()));
        let mut guest = served.guest(1);
        guest.write(0, 8, &[7; 4096]).unwrap();
        let export = served.export.clone();
        let stopping = std::thread::spawn(|| served.stop().unwrap());
        let mut n = 0;
        while guest.write(0, 0, &[n; 4096]).is_ok() {
            n = n.wrapping_add(1);
            if stopping.is_finished() {
                break;
            }
        }
        assert!(guest.is_dropped());
        stopping.join().unwrap();
        drop(export);
    }
}

#[test]
fn a_ring_can_be_stopped_and_go_on_where_it_was() {
    let served = Served::start(export(&Storage::new()));
    let mut guest = served.guest(2);
    for n in 0..3 {
        guest.write(0, 0, &[n; 512]).unwrap();
    }
    let next = guest.frontend.get_vring_base(0).unwrap();
    assert_eq!(next, 3);
    guest.read(1, 0, 512).unwrap();
    guest.start(0, 3).unwrap();
    assert!(guest.read(0, 0, 512).unwrap() == [2; 512]);
    // A ring that is not enabled waits.
    guest.frontend.set_vring_enable(0, false).unwrap();
    guest.frontend.set_vring_enable(0, true).unwrap();
    assert!(guest.read(0, 0, 512).unwrap() == [2; 512]);
}

#[test]
fn memory_is_added_and_removed_while_rings_run() {
    let served = Served::start(export(&Storage::new()));
    let mut guest = served.guest(1);
    guest.write(0, 0, &[3; 512]).unwrap();
    let other = support::vhost_guest::Memory::new().unwrap();
    let mut region = guest.region();
    region.guest_phys_addr = 1 << 32;
    region.userspace_addr = 1 << 41;
    region.mmap_handle = std::os::fd::AsRawFd::as_raw_fd(other.file());
    guest.frontend.add_mem_region(&region).unwrap();
    assert!(guest.read(0, 0, 512).unwrap() == [3; 512]);
    guest.frontend.remove_mem_region(&region).unwrap();
    assert!(guest.read(0, 0, 512).unwrap() == [3; 512]);
    assert!(guest.frontend.remove_mem_region(&region).is_err());
}
