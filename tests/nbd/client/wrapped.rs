//! A client, the program that serves a volume, and below it an export whose server is killed with
//! writes in its cache.

use std::io::{BufRead, BufReader};

use luksmith::backend::Backend;
use luksmith_formats::nbd::uri::Uri;
use luksmith_formats::nbd::{Command, CommandFlags, ErrorNumber, Request, TransmissionFlags};
use rustix::process::Signal;

use super::servers::Server;
use super::{connect, options, pattern, read, sectors};
use crate::reencrypted::{is_pending, pending};
use crate::served::{Folder, SIZE, content, until};
use support::nbd_server::{Action, FakeServer, Shape};

#[test]
fn the_server_below_is_killed() {
    let folder = Folder::with_volume();
    let below = tempfile::tempdir().unwrap();
    let disk = folder.path("disk.img").display().to_string();
    let remote = || {
        let args = ["--filter=cache", "file", &disk, "cache=writeback"];
        Server::nbdkit(below.path(), &args)
    };
    let Some(mut server) = remote() else {
        return;
    };
    let location = server.uri_text("");
    let served = folder.serve_with(&[&location, "--socket", "s.sock", "--key-file", "key"], &[]);
    let front = format!("nbd+unix:///?socket={}", folder.path("s.sock").display());
    let volume = connect(&Uri::parse(&front).unwrap(), options());
    assert_eq!(volume.geometry().size, SIZE);

    let mut model = content();
    for (seed, offset) in [4096, 1_000_001, 5_000_000].into_iter().enumerate() {
        let bytes = pattern(300_000, seed as u64);
        volume.write_at(offset as u64, &sectors(&bytes)).unwrap();
        model[offset..offset + bytes.len()].copy_from_slice(&bytes);
        server.kill();
        server = remote().unwrap();
    }
    assert!(read(&volume, 0, model.len()).unwrap() == model);
    volume.flush().unwrap();
    drop(volume);
    drop(served);
    server.kill();
    assert!(folder.decrypted() == model);
}

/// The server below is killed while the volume is reencrypted, and loses what is in its cache.
#[test]
fn the_server_below_is_killed_in_a_reencryption_beside_a_client() {
    let rounds = if support::is_long() { 13 } else { 1 };
    for resilience in ["checksum", "journal"].repeat(rounds) {
        let (folder, mut model) = pending(resilience);
        let below = tempfile::tempdir().unwrap();
        let disk = folder.path("disk.img").display().to_string();
        let remote = || {
            let args = ["--filter=cache", "file", &disk, "cache=writeback"];
            Server::nbdkit(below.path(), &args)
        };
        let Some(mut server) = remote() else {
            return;
        };
        let location = server.uri_text("");
        let args = [&location, "--socket", "s.sock", "--key-file", "key"];
        let served = folder.serve_with(&args, &["--control", "control.sock"]);
        let front = format!("nbd+unix:///?socket={}", folder.path("s.sock").display());
        let volume = connect(&Uri::parse(&front).unwrap(), options());
        for seed in 0..4 {
            let offset = usize::try_from(seed * 5_300_001).unwrap();
            let bytes = pattern(300_000, seed);
            volume.write_at(offset as u64, &sectors(&bytes)).unwrap();
            model[offset..offset + bytes.len()].copy_from_slice(&bytes);
            server.kill();
            server = remote().unwrap();
        }
        volume.flush().unwrap();
        until("everything is converted", || !is_pending(&folder));
        assert!(read(&volume, 0, model.len()).unwrap() == model);
        drop(volume);
        served.stop();
        server.kill();
        assert!(!is_pending(&folder) && folder.decrypted() == model);
    }
}

/// A client's read that the storage never answers must not delay what was written before.
#[test]
fn a_stop_flushes_before_it_waits_for_slow_requests() {
    let folder = Folder::with_volume();
    let image = std::fs::read(folder.path("disk.img")).unwrap();
    let shape = Shape {
        size: image.len(),
        ..Shape::default()
    };
    // The data of the volume begins at 16 MiB.
    let stuck = (16 << 20) + (4 << 20);
    let fake = FakeServer::with_disk(shape, image.clone(), move |seen| {
        match (seen.request.command, seen.request.offset) {
            (Command::Read, offset) if offset == stuck => Action::Say(Vec::new()),
            _ => Action::Serve,
        }
    });
    let location = fake.uri().to_string();
    let args = [&location, "--socket", "s.sock", "--key-file", "key"];
    let served = folder.serve_with(&args, &["--timeout", "86400"]);
    let mut writer = served.client();
    let mut reader = served.client();
    let read = Request {
        flags: CommandFlags::NONE,
        command: Command::Read,
        cookie: 0,
        offset: 4 << 20,
        len: 4096,
    };
    reader.send(read, &[]).unwrap();
    until("the read is stuck", || {
        let seen = fake.seen();
        seen.iter().any(|seen| seen.request.offset == stuck)
    });
    assert_eq!(writer.write(0, &[7; 4096]), ErrorNumber::None);
    assert!(fake.stored() == image, "it is in the server's cache");
    served.signal(Signal::TERM);
    until("the write is flushed", || fake.stored() != image);
}

#[test]
fn another_disk_under_the_same_name_is_not_touched() {
    let folder = Folder::with_volume();
    folder.make_volume("other.img", &[]);
    let below = tempfile::tempdir().unwrap();
    let remote = |disk| {
        let disk = folder.path(disk).display().to_string();
        Server::nbdkit(below.path(), &["file", &disk])
    };
    let Some(mut server) = remote("disk.img") else {
        return;
    };
    let location = server.uri_text("");
    let args = [&location, "--socket", "s.sock", "--key-file", "key"];
    let served = folder.serve_with(&args, &["--timeout", "2"]);
    let front = format!("nbd+unix:///?socket={}", folder.path("s.sock").display());
    let volume = connect(&Uri::parse(&front).unwrap(), options());
    volume.write_at(4096, &sectors(&pattern(8192, 1))).unwrap();

    server.kill();
    let other = std::fs::read(folder.path("other.img")).unwrap();
    let mut server = remote("other.img").unwrap();
    let bytes = sectors(&pattern(8192, 2));
    assert!(volume.write_at(1 << 20, &bytes).is_err());
    assert!(read(&volume, 0, 4096).is_err());
    server.kill();
    assert!(std::fs::read(folder.path("other.img")).unwrap() == other);

    // The right disk is accepted again, and gets the changes that were not flushed.
    let mut server = remote("disk.img").unwrap();
    volume.write_at(1 << 20, &bytes).unwrap();
    volume.flush().unwrap();
    drop(volume);
    drop(served);
    server.kill();
    let mut expected = content();
    expected[4096..12_288].copy_from_slice(&pattern(8192, 1));
    expected[1 << 20..][..8192].copy_from_slice(&pattern(8192, 2));
    assert!(folder.decrypted() == expected);
}

/// Problems of the server below are logged when they change, and not for each request.
#[test]
fn the_server_below_goes_and_comes_back() {
    let folder = Folder::with_volume();
    let below = tempfile::tempdir().unwrap();
    let disk = folder.path("disk.img").display().to_string();
    let remote = || Server::nbdkit(below.path(), &["file", &disk]);
    let Some(mut server) = remote() else {
        return;
    };
    let location = server.uri_text("");
    let args = [&location, "--socket", "s.sock", "--key-file", "key"];
    let served = folder.serve_with(&args, &["--timeout", "1"]);
    let mut client = served.client();
    server.kill();
    for _ in 0..5 {
        let answer = client.ask(Command::Read, CommandFlags::NONE, 0, 4096, &[]);
        assert_eq!(answer.error, ErrorNumber::Io);
    }
    let server = remote().unwrap();
    for _ in 0..5 {
        assert!(client.read(0, 4096) == content()[..4096]);
    }
    let said = served.stop();
    drop(server);
    for word in [
        "no connection (cannot be reached",
        "requests fail until the server is back",
        "connected again",
        "the storage answers again",
    ] {
        assert_eq!(said.matches(word).count(), 1, "{word}: {said}");
    }
}

#[test]
fn a_stop_tells_what_it_waits_for_and_how_to_end_that() {
    let folder = Folder::with_volume();
    let below = tempfile::tempdir().unwrap();
    let disk = folder.path("disk.img").display().to_string();
    let Some(server) = Server::nbdkit(below.path(), &["file", &disk]) else {
        return;
    };
    let location = server.uri_text("");
    let args = [&location, "--socket", "s.sock", "--key-file", "key"];
    let mut served = folder.serve_with(&args, &[]);
    assert_eq!(served.client().write(0, b"x"), ErrorNumber::None);
    server.signal(Signal::STOP);
    served.signal(Signal::TERM);
    let mut said = String::new();
    let mut stderr = BufReader::new(served.child.stderr.take().unwrap());
    while !said.contains(r#""message":"stopping: "#) {
        assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "{said}");
    }
    assert!(said.contains("a second signal stops at once"), "{said}");
    std::thread::sleep(std::time::Duration::from_secs(1));
    served.signal(Signal::TERM);
    let status = served.child.wait().unwrap();
    server.signal(Signal::CONT);
    assert_eq!(status.code(), Some(130));
}

/// A server that loses what it has acknowledged can leave a header half written.
#[test]
fn a_change_of_a_header_that_cannot_be_flushed_has_a_warning() {
    let folder = Folder::with_volume();
    let image = std::fs::read(folder.path("disk.img")).unwrap();
    for (more, warned) in [
        (TransmissionFlags::NONE, true),
        (TransmissionFlags::SEND_FUA, false),
        (TransmissionFlags::SEND_FLUSH, false),
    ] {
        let shape = Shape {
            size: image.len(),
            flags: TransmissionFlags::HAS_FLAGS | more,
            ..Shape::default()
        };
        let fake = FakeServer::with_disk(shape, image.clone(), |_| Action::Serve);
        let location = fake.uri().to_string();
        let said = |args: &[&str]| {
            let ran = folder.luksmith(args).output().unwrap();
            let said = String::from_utf8(ran.stderr).unwrap();
            assert!(ran.status.success(), "{said}");
            said.contains("does not offer to flush")
        };
        assert_eq!(said(&["config", &location, "--label", "x"]), warned);
        assert!(!said(&["info", &location]), "nothing is changed");
        let args = [&location, "--socket", "s.sock", "--key-file", "key"];
        let served = folder.serve_with(&args, &[]).stop();
        assert_eq!(
            served.contains("does not offer to flush"),
            warned,
            "{served}"
        );
    }
}
