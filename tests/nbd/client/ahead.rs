//! Prefetching: a CACHE request of a client reaches the storage, whether that is a file or a
//! server.

use luksmith::backend::Backend;
use luksmith_formats::nbd::{Command, CommandFlags, ErrorNumber};

use super::servers::Server;
use super::{connect, options, pattern, read, sectors};
use crate::served::{Folder, Served, content};
use support::peers::find;

/// The offset of the data of a volume in its image, in bytes.
const DATA: u64 = 16 << 20;

#[test]
fn a_file_is_read_into_the_page_cache() {
    let Some(strace) = find("strace") else {
        return;
    };
    let folder = Folder::with_volume();
    let program = env!("CARGO_BIN_EXE_luksmith");
    let traced = ["-f", "-o", "calls", "-e", "trace=fadvise64", program];
    let mut command = folder.program(&strace, traced);
    let args = "serve --json disk.img --key-file key --socket s.sock --exit-when-idle";
    command.args(args.split(' '));
    let mut served = Served::start(&folder, command);
    let mut client = served.client();
    let answer = client.ask(Command::Cache, CommandFlags::NONE, 1000, 200_000, &[]);
    assert_eq!(answer.error, ErrorNumber::None);
    assert!(client.read(0, 4096) == content()[..4096]);
    drop(client);
    // The server ends by itself: killing strace would leave the traced process behind.
    let (status, said) = served.ended();
    assert!(status.success(), "{said}");
    let calls = std::fs::read_to_string(folder.path("calls")).unwrap();
    // Whole sectors, 128 KiB at a time.
    for (at, len) in [(DATA, 131_072), (DATA + 131_072, 73_728)] {
        let call = format!(", {at}, {len}, POSIX_FADV_WILLNEED) = 0");
        assert!(calls.contains(&call), "{call}: {calls}");
    }
}

#[test]
fn a_server_is_asked_to_cache_the_range() {
    let folder = Folder::with_volume();
    let below = tempfile::tempdir().unwrap();
    let disk = folder.path("disk.img").display().to_string();
    let log = below.path().join("log");
    let logfile = format!("logfile={}", log.display());
    let args = ["--filter=log", "file", &disk, &logfile];
    let Some(server) = Server::nbdkit(below.path(), &args) else {
        return;
    };
    let location = server.uri_text("");
    let served = folder.serve_with(&[&location, "--socket", "s.sock", "--key-file", "key"], &[]);
    let mut client = served.client();
    let answer = client.ask(Command::Cache, CommandFlags::NONE, 5000, 100_000, &[]);
    assert_eq!(answer.error, ErrorNumber::None);
    served.stop();
    let log = std::fs::read_to_string(log).unwrap();
    let line = format!(" offset={:#x} count={:#x}", DATA + 4096, 102_400);
    let asked = |entry: &str| entry.contains(" Cache ") && entry.contains(&line);
    assert!(log.lines().any(asked), "{line}: {log}");
}

#[test]
fn servers_with_and_without_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::write(&disk, pattern(40 << 20, 1)).unwrap();
    let disk = disk.display().to_string();
    let servers: [&dyn Fn() -> Option<Server>; 3] = [
        &|| Server::qemu_nbd(folder.path(), &["--format=raw", &disk]),
        &|| Server::nbdkit(folder.path(), &["file", &disk]),
        &|| {
            let args = ["--filter=nocache", "file", &disk, "cachemode=none"];
            Server::nbdkit(folder.path(), &args)
        },
    ];
    for server in servers {
        let Some(server) = server() else {
            return;
        };
        let storage = connect(&server.uri(""), options());
        // Longer than the longest request.
        storage.prefetch(0..40 << 20).unwrap();
        assert!(storage.prefetch(0..(40 << 20) + 1).is_err());
        storage.write_at(4096, &sectors(&[7; 4096])).unwrap();
        assert!(read(&storage, 8192, 4096).unwrap() == pattern(40 << 20, 1)[8192..12_288]);
        drop((storage, server));
    }
}
