//! Which clients can connect: modes of the socket and its directory, users, TCP, TLS.

use std::fs::{self, Permissions};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use luksmith_formats::nbd::{ErrorNumber, InfoRequest, OptionReply, OptionType};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use crate::served::Folder;
use crate::wire::{Handshake, is_ended};
use support::peers::{find, output};

/// Starts the server, which has to fail with this exit code and these words.
#[track_caller]
fn refused(folder: &Folder, args: &str, code: i32, said: &[&str]) {
    let args = "serve disk.img --key-file key"
        .split(' ')
        .chain(args.split(' '));
    let ran = folder.luksmith(args).output().unwrap();
    let stderr = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(code), "{stderr}");
    for word in said {
        assert!(stderr.contains(word), "{word:?} not in:\n{stderr}");
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o777
}

#[test]
fn a_socket_is_for_its_owner_by_default() {
    let folder = Folder::with_volume();
    // A directory that does not exist is created, closed to other users.
    let args = ["disk.img", "--key-file", "key", "--socket", "new/a.sock"];
    let served = folder.serve_with(&args, &[]);
    assert_eq!(mode(&folder.path("new")), 0o700);
    assert_eq!(mode(&folder.path("new/a.sock")), 0o600);
    served.stop();
    assert!(!folder.path("new/a.sock").exists());

    // A directory that other users can enter is refused.
    fs::create_dir(folder.path("open")).unwrap();
    for open in [0o755, 0o710, 0o701] {
        fs::set_permissions(folder.path("open"), Permissions::from_mode(open)).unwrap();
        refused(
            &folder,
            "--socket open/a.sock",
            2,
            &["other users can enter", "--socket-mode 600"],
        );
        assert!(!folder.path("open/a.sock").exists());
    }
    let args = ["disk.img", "--key-file", "key", "--socket", "open/a.sock"];
    let served = folder.serve_with(&args, &["--socket-mode", "666"]);
    assert_eq!(mode(&folder.path("open/a.sock")), 0o666);
    assert!(!served.stop().contains("warning"));
    // A directory that every user can write to is taken, with a warning.
    fs::set_permissions(folder.path("open"), Permissions::from_mode(0o1777)).unwrap();
    let said = folder.serve_with(&args, &["--socket-mode", "600"]).stop();
    assert!(
        said.contains(r#""warning","message":"every user can write to"#),
        "{said}"
    );
    fs::set_permissions(folder.path("open"), Permissions::from_mode(0o755)).unwrap();
    refused(
        &folder,
        "--socket no/such/a.sock",
        4,
        &["mkdir -p -m 700", "no/such` makes it"],
    );
    let group = rustix::process::getegid().as_raw().to_string();
    let served = folder.serve_with(&args, &["--socket-group", &group]);
    assert_eq!(mode(&folder.path("open/a.sock")), 0o660);
    served.stop();
    refused(&folder, "--socket a.sock --socket-mode 9", 1, &["octal"]);
    refused(
        &folder,
        "--socket a.sock --socket-group no-such-group",
        1,
        &["no group of that name"],
    );
    refused(
        &folder,
        &format!("--socket {}.sock", "x".repeat(200)),
        4,
        &["107 bytes"],
    );
}

#[test]
fn a_stale_socket_is_replaced_and_nothing_else_is() {
    let folder = Folder::with_volume();
    let mut served = folder.serve(&[]);
    served.child.kill().unwrap();
    served.child.wait().unwrap();
    assert!(folder.path("s.sock").exists());
    let served = folder.serve(&[]);
    assert_eq!(served.client().flush(), ErrorNumber::None);
    served.stop();

    let other = UnixListener::bind(folder.path("s.sock")).unwrap();
    refused(&folder, "--socket s.sock", 5, &["another process listens"]);
    drop(other);
    fs::remove_file(folder.path("s.sock")).unwrap();
    folder.write("s.sock", b"a file");
    refused(&folder, "--socket s.sock", 5, &["is not a socket"]);
    assert_eq!(fs::read(folder.path("s.sock")).unwrap(), b"a file");
}

#[test]
fn a_socket_that_another_process_has_created_stays() {
    let folder = Folder::with_volume();
    let served = folder.serve(&[]);
    fs::remove_file(folder.path("s.sock")).unwrap();
    let _other = UnixListener::bind(folder.path("s.sock")).unwrap();
    served.stop();
    assert!(folder.path("s.sock").exists());
}

#[test]
fn users_are_allowed_by_number() {
    let me = rustix::process::geteuid().as_raw();
    let folder = Folder::with_volume();
    let served = folder.serve(&["--allow-uid", &me.to_string(), "--allow-uid", "12345"]);
    assert_eq!(served.client().flush(), ErrorNumber::None);
    served.stop();
    let served = folder.serve(&["--allow-uid", &(me + 1).to_string()]);
    assert!(is_ended(&mut served.connect()), "not even greeted");
    let (said, pid) = (served.stop(), std::process::id());
    let told = format!("not one of the allowed users: user {me}, process {pid}\"");
    assert!(said.contains(&told), "{said}");
}

#[test]
fn plaintext_over_tcp_has_to_be_allowed_and_stays_on_this_machine() {
    let folder = Folder::with_volume();
    refused(
        &folder,
        "--listen 127.0.0.1:0",
        1,
        &["without TLS", "--tls-dir", "--insecure"],
    );
    for args in [
        "--listen 0.0.0.0:0 --insecure",
        "--listen [::]:0 --insecure",
    ] {
        refused(&folder, args, 1, &["without TLS", "--tls-dir"]);
    }
    refused(
        &folder,
        "--listen 127.0.0.1:0 --insecure --allow-uid 0",
        1,
        &["over TCP the user"],
    );
    refused(
        &folder,
        "--listen nonsense --insecure",
        1,
        &["--listen nonsense"],
    );
    refused(
        &folder,
        "--json",
        1,
        &["no socket to listen on", "--socket"],
    );

    let args = ["disk.img", "--key-file", "key", "--listen", "127.0.0.1:0"];
    let served = folder.serve_with(&args, &["--insecure"]);
    let address = served.uri();
    let address = address
        .strip_prefix("nbd://")
        .unwrap()
        .trim_end_matches('/');
    let mut stream = TcpStream::connect(address).unwrap();
    let mut greeting = [0; 18];
    std::io::Read::read_exact(&mut stream, &mut greeting).unwrap();
    assert!(greeting.starts_with(b"NBDMAGICIHAVEOPT"));
    served.stop();
}

/// A directory with an authority and certificates for both roles, with the names that QEMU and
/// nbdkit use.
pub(crate) fn certificates(folder: &Folder, name: &str) {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::create_dir(folder.path(name)).unwrap();
    folder.write(&format!("{name}/ca-cert.pem"), authority.pem().as_bytes());
    for (role, usage) in [
        ("server", ExtendedKeyUsagePurpose::ServerAuth),
        ("client", ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        folder.write(
            &format!("{name}/{role}-cert.pem"),
            certificate.pem().as_bytes(),
        );
        folder.write(
            &format!("{name}/{role}-key.pem"),
            key.serialize_pem().as_bytes(),
        );
    }
}

#[test]
fn a_server_that_requires_tls_tells_nothing_without_it() {
    let folder = Folder::with_volume();
    certificates(&folder, "tls");
    let served = folder.serve(&["--tls-dir", "tls"]);
    let mut handshake = Handshake::greeted(served.connect());
    let go = InfoRequest::default().to_bytes();
    for (option, data) in [
        (OptionType::List, &[][..]),
        (OptionType::Info, &go),
        (OptionType::Go, &go),
        (OptionType::StructuredReply, &[]),
        (OptionType::from(99), &[]),
    ] {
        let (replies, last) = handshake.ask(option, data);
        assert_eq!(
            (replies, last),
            (vec![], OptionReply::ErrTlsRequired),
            "{option:?}"
        );
    }
    assert_eq!(
        handshake.ask(OptionType::StartTls, b"x").1,
        OptionReply::ErrInvalid
    );
    assert!(
        Handshake::greeted(served.connect())
            .export_name("")
            .is_err()
    );

    // Bytes that come without TLS after STARTTLS are not taken for bytes under TLS.
    let mut handshake = Handshake::greeted(served.connect());
    handshake.send(OptionType::StartTls, &[]).unwrap();
    handshake.send(OptionType::List, &[]).unwrap();
    let (header, _) = handshake.reply().unwrap();
    assert_eq!(header.reply, OptionReply::Ack);
    let mut rest = Vec::new();
    let _ = std::io::Read::read_to_end(&mut handshake.0, &mut rest);
    assert!(
        !rest.windows(4).any(|bytes| bytes == [0, 3, 0xe8, 0x89]),
        "an answer in plain"
    );
    served.stop();

    // Without client certificates, every client could connect.
    let pair = "--tls-cert tls/server-cert.pem --tls-key tls/server-key.pem";
    let listen = "--listen 127.0.0.1:0";
    refused(
        &folder,
        &format!("{listen} {pair}"),
        1,
        &["every client that reaches", "--tls-client-ca"],
    );
    refused(
        &folder,
        &format!("{listen} --tls-cert tls/server-cert.pem"),
        1,
        &["--tls-key"],
    );
    refused(
        &folder,
        &format!("{listen} --tls-dir nowhere"),
        4,
        &["nowhere"],
    );
    fs::set_permissions(
        folder.path("tls/server-key.pem"),
        Permissions::from_mode(0o644),
    )
    .unwrap();
    refused(
        &folder,
        &format!("{listen} --tls-dir tls"),
        2,
        &["open to others", "chmod 600"],
    );
}

#[test]
fn libnbd_needs_a_certificate() {
    let Some(nbdinfo) = find("nbdinfo") else {
        return;
    };
    let folder = Folder::with_volume();
    certificates(&folder, "tls");
    certificates(&folder, "others");
    let args = ["disk.img", "--key-file", "key", "--listen", "127.0.0.1:0"];
    let served = folder.serve_with(&args, &["--tls-dir", "tls"]);
    let uri = served.uri();
    assert!(uri.starts_with("nbds://"));
    let size = |uri: &str, directory: &str| {
        let directory = folder.path(directory);
        let uri = format!("{uri}?tls-certificates={}", directory.display());
        output(
            folder
                .program(&nbdinfo, ["--size", &uri])
                .env("HOME", folder.path("")),
        )
    };
    let known = size(&uri, "tls");
    assert_eq!(
        known.stdout.trim_ascii(),
        crate::served::SIZE.to_string().as_bytes(),
        "{known:?}"
    );
    assert!(!size(&uri, "others").status.success());
    let plain = size(&uri.replace("nbds:", "nbd:"), "tls");
    assert!(!plain.status.success());
    served.stop();
}

#[test]
fn a_directory_of_another_user_is_refused() {
    // Only root can create one.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = Folder::with_volume();
    fs::create_dir(folder.path("theirs")).unwrap();
    fs::set_permissions(folder.path("theirs"), Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(folder.path("theirs"), Some(12345), None).unwrap();
    refused(
        &folder,
        "--socket theirs/a.sock",
        2,
        &["other users can enter"],
    );
    assert!(UnixStream::connect(folder.path("theirs/a.sock")).is_err());
}
