//! Sockets that systemd passes. The rules for the sockets that luksmith makes hold for them too.

use std::fs::{Permissions, set_permissions};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};

use support::acl;

use crate::served::{Folder, Served, content};
use crate::wire::Client;

/// The server of `disk.img` with these arguments, and with `socket` as systemd passes it.
fn server(folder: &Folder, socket: impl Into<OwnedFd>, more: &str) -> Command {
    let script = format!(
        r#"exec 3<&0 </dev/null
        LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" serve --json disk.img --key-file key {more}"#
    );
    let mut command = folder.program("sh", ["-c", &*script, env!("CARGO_BIN_EXE_luksmith")]);
    command.stdin(Stdio::from(socket.into()));
    command
}

/// A socket of this mode at `s.sock`.
fn socket(folder: &Folder, mode: u32) -> UnixListener {
    let path = folder.path("s.sock");
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    set_permissions(path, Permissions::from_mode(mode)).unwrap();
    listener
}

#[track_caller]
fn refused(mut command: Command, code: i32, said: &[&str]) {
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A server that starts, although it should refuse, would serve without end.
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it is not refused");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut stderr = String::new();
    child.stderr.unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(status.code(), Some(code), "{stderr}");
    for word in said {
        assert!(stderr.contains(word), "{word:?} not in:\n{stderr}");
    }
}

#[test]
fn systemd_can_pass_the_socket() {
    let folder = Folder::with_volume();
    let command = server(&folder, socket(&folder, 0o600), "");
    // A client that connects before the server runs waits.
    let early = UnixStream::connect(folder.path("s.sock")).unwrap();
    let served = Served::start(&folder, command);
    assert_eq!(
        served.uri(),
        format!("nbd+unix:///?socket={}", folder.path("s.sock").display())
    );
    assert!(Client::of(early).read(0, 4096) == content()[..4096]);
    served.stop();
    // The server does not remove the socket of systemd.
    assert!(folder.path("s.sock").exists());
}

#[test]
fn a_passed_socket_is_for_the_users_that_are_stated() {
    let folder = Folder::with_volume();
    let me = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    for (mode, more, advice) in [
        // The default of systemd.
        (0o666, String::new(), "--socket-mode 666"),
        (0o666, "--socket-mode 660".into(), "--socket-mode 666"),
        (0o660, String::new(), "--socket-mode 660"),
        (
            0o660,
            format!("--socket-group {}", group + 1),
            &*format!("--socket-group {group}"),
        ),
    ] {
        let command = server(&folder, socket(&folder, mode), &more);
        refused(command, 2, &["could connect", advice]);
    }
    for (mode, more) in [
        (0o666, "--socket-mode 666".to_owned()),
        (0o666, format!("--allow-uid {me}")),
        (0o660, "--socket-mode 660".into()),
        (0o660, format!("--socket-group {group}")),
        (0o600, "--socket-mode 660".into()),
    ] {
        let served = Served::start(&folder, server(&folder, socket(&folder, mode), &more));
        assert!(served.client().read(0, 512) == content()[..512]);
        served.stop();
    }
}

#[test]
fn a_passed_socket_admits_no_users_of_an_access_list() {
    let folder = Folder::with_volume();
    let passed = socket(&folder, 0o660);
    if !acl::admit(65534, &folder.path("s.sock")) {
        return;
    }
    set_permissions(folder.path("s.sock"), Permissions::from_mode(0o660)).unwrap();
    let more = "--socket-mode 660";
    refused(
        server(&folder, passed, more),
        2,
        &["access control list could connect", "setfacl -b"],
    );
}

#[test]
fn a_passed_socket_is_not_judged_by_another_one_that_has_its_path() {
    let folder = Folder::with_volume();
    let passed = socket(&folder, 0o666);
    std::fs::rename(folder.path("s.sock"), folder.path("moved.sock")).unwrap();
    let _other = socket(&folder, 0o600);
    refused(
        server(&folder, passed, ""),
        4,
        &["s.sock is not the socket any more"],
    );
}

#[test]
fn an_abstract_socket_needs_users_or_the_agreement_to_all() {
    let folder = Folder::with_volume();
    let name = format!("luksmith-passed-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let listener = || UnixListener::bind_addr(&address).unwrap();
    let command = server(&folder, listener(), "");
    refused(command, 1, &[&name, "--allow-uid", "--insecure"]);
    let me = rustix::process::geteuid().as_raw();
    for more in [format!("--allow-uid {me}"), "--insecure".into()] {
        let served = Served::start(&folder, server(&folder, listener(), &more));
        let uri = served.uri();
        assert_eq!(uri, format!("nbd+unix:///?socket=%00{name}"));
        let stream = UnixStream::connect_addr(&address).unwrap();
        assert!(Client::of(stream).read(0, 512) == content()[..512]);
        served.stop();
    }
}

#[test]
fn what_is_no_socket_to_listen_on_is_refused() {
    let folder = Folder::with_volume();
    // Accept=yes passes a connection.
    let (ours, _theirs) = UnixStream::pair().unwrap();
    refused(
        server(&folder, ours, ""),
        1,
        &["is a connection", "Accept=no"],
    );
    let address = SocketAddrUnix::new(folder.path("deaf.sock")).unwrap();
    let deaf = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&deaf, &address).unwrap();
    refused(server(&folder, deaf, ""), 1, &["does not listen"]);
    let datagrams = UnixDatagram::bind(folder.path("datagrams.sock")).unwrap();
    refused(server(&folder, datagrams, ""), 1, &["not a stream socket"]);
    let file = std::fs::File::open(folder.path("disk.img")).unwrap();
    refused(server(&folder, file, ""), 1, &["not a stream socket"]);
}

#[test]
fn a_passed_socket_and_a_named_one_contradict() {
    let folder = Folder::with_volume();
    for more in ["--socket other.sock", "--listen 127.0.0.1:0 --insecure"] {
        let command = server(&folder, socket(&folder, 0o600), more);
        refused(
            command,
            1,
            &["systemd passes", more.split(' ').next().unwrap()],
        );
        assert!(!folder.path("other.sock").exists());
    }
}

#[test]
fn all_sockets_that_are_passed_are_served() {
    let folder = Folder::with_volume();
    let other = UnixListener::bind(folder.path("other.sock")).unwrap();
    let script = r#"exec 3<&0 4<&2 </dev/null 2>/dev/null
        LISTEN_FDS=2 LISTEN_PID=$$ exec "$0" serve --json disk.img --key-file key"#;
    let mut command = folder.program("sh", ["-c", script, env!("CARGO_BIN_EXE_luksmith")]);
    command.stdin(Stdio::from(OwnedFd::from(socket(&folder, 0o600))));
    command.stderr(Stdio::from(OwnedFd::from(other)));
    let served = Served::start(&folder, command);
    for (name, uri) in [("s.sock", 0), ("other.sock", 1)] {
        let path = folder.path(name);
        let told = served.told["exports"][0]["uris"][uri].as_str().unwrap();
        assert_eq!(told, format!("nbd+unix:///?socket={}", path.display()));
        let stream = UnixStream::connect(path).unwrap();
        assert!(Client::of(stream).read(0, 512) == content()[..512]);
    }
}
