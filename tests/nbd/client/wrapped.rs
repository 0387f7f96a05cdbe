//! The whole way: a client, the program that serves a volume, and under it an export whose server is killed with its cache.

use luksmith::backend::Backend;
use luksmith_formats::nbd::uri::Uri;

use super::servers::Server;
use super::{connect, options, pattern, read, sectors};
use crate::served::{Folder, SIZE, content};

#[test]
fn the_remote_dies_under_a_served_volume() {
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

#[test]
fn another_disk_behind_the_same_name_is_left_alone() {
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

    // The right one is welcome again, and gets what was not flushed.
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
