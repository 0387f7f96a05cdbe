//! A server and a client of this module connect to each other, with certificates made here. Tests
//! with other programs are in `tests/interop/tls.rs`.

use std::fs;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    ExtendedKeyUsagePurpose as Usage, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, date_time_ymd,
};

use super::{Channel, ClientTls, ServerTls, Socket, TlsError};

mod forms;

fn put(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

const HOST: &str = "disks.example";

/// An authority, and directories with certificates that it has signed.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn server() -> CertificateParams {
        let names = vec![HOST.to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![Usage::ServerAuth];
        params
    }

    fn client() -> CertificateParams {
        let mut params = CertificateParams::new([]).unwrap();
        params.extended_key_usages = vec![Usage::ClientAuth];
        params.serial_number = Some(SerialNumber::from(4711));
        params
    }

    /// Writes `role-cert.pem` and `role-key.pem`.
    fn sign(&self, into: &Path, role: &str, params: &CertificateParams) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        fs::write(into.join(format!("{role}-cert.pem")), certificate.pem()).unwrap();
        let path = into.join(format!("{role}-key.pem"));
        fs::write(&path, key.serialize_pem()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn trust(&self, into: &Path) {
        fs::write(into.join("ca-cert.pem"), self.0.pem()).unwrap();
    }

    /// A directory with the certificates and keys of both roles.
    fn directory(&self) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        self.trust(directory.path());
        self.sign(directory.path(), "server", &Self::server());
        self.sign(directory.path(), "client", &Self::client());
        directory
    }
}

fn server_tls(directory: &Path) -> ServerTls {
    ServerTls::from_directory(directory).unwrap()
}

fn client_tls(directory: &Path) -> ClientTls {
    ClientTls::from_directory(directory).unwrap()
}

/// The handshake of a client and a server over a pair of Unix sockets.
fn meet(
    client: &ClientTls,
    server: &ServerTls,
    name: &str,
) -> (Result<Channel, TlsError>, Result<Channel, TlsError>) {
    let (a, b) = UnixStream::pair().unwrap();
    thread::scope(|scope| {
        let accepted = scope.spawn(|| Channel::accept_tls(b.into(), server));
        let connected = Channel::connect_tls(a.into(), client, name);
        (connected, accepted.join().unwrap())
    })
}

fn pair() -> (Channel, Channel) {
    let directory = Authority::new().directory();
    let (a, b) = meet(
        &client_tls(directory.path()),
        &server_tls(directory.path()),
        HOST,
    );
    (a.unwrap(), b.unwrap())
}

fn plain_pair() -> (Channel, Channel) {
    let (a, b) = UnixStream::pair().unwrap();
    (Channel::plain(a.into()), Channel::plain(b.into()))
}

fn both() -> [(Channel, Channel); 2] {
    [plain_pair(), pair()]
}

fn text(channel: &Channel, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    channel.recv_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn bytes_go_both_ways() {
    for (a, b) in both() {
        a.send(&mut [IoSlice::new(b"he"), IoSlice::new(b""), IoSlice::new(b"llo")])
            .unwrap();
        assert_eq!(text(&b, 5), b"hello");
        b.send(&mut [IoSlice::new(b"world")]).unwrap();
        assert_eq!(text(&a, 5), b"world");
        a.send(&mut []).unwrap();
        a.shutdown();
        assert_eq!(b.recv(&mut [0; 8]).unwrap(), 0, "{b:?}");
        assert_eq!(a.recv(&mut [0; 8]).unwrap(), 0, "{a:?}");
        assert!(a.send(&mut [IoSlice::new(b"late")]).is_err());
    }
}

#[test]
fn the_ends_know_what_they_are() {
    let (plain, _) = plain_pair();
    assert!(!plain.is_tls());
    let peer = plain.peer_credentials().unwrap();
    assert_eq!(peer.uid, rustix::process::getuid().as_raw());
    assert_eq!(u32::try_from(peer.pid).unwrap(), std::process::id());
    assert!(pair().0.is_tls());

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let probe = stream.try_clone().unwrap();
    let socket = Socket::try_from(OwnedFd::from(stream)).unwrap();
    assert!(probe.nodelay().unwrap());
    assert_eq!(socket.peer_credentials(), None);
    let file = tempfile::tempfile().unwrap();
    assert!(Socket::try_from(OwnedFd::from(file)).is_err());
}

#[test]
fn messages_of_many_senders_do_not_mix_while_a_receiver_waits() {
    const SENDERS: u8 = 4;
    const MESSAGES: usize = 40;
    const LEN: usize = 100_000;
    for (a, b) in both() {
        thread::scope(|scope| {
            // A receiver waits on `a` all the time. The senders on `a` are not delayed.
            let waiting = scope.spawn(|| text(&a, 3));
            for sender in 1..=SENDERS {
                let a = &a;
                scope.spawn(move || {
                    let body = vec![sender; LEN];
                    for _ in 0..MESSAGES {
                        let (front, back) = body.split_at(LEN / 3);
                        a.send(&mut [IoSlice::new(front), IoSlice::new(back)])
                            .unwrap();
                    }
                });
            }
            for _ in 0..usize::from(SENDERS) * MESSAGES {
                let message = text(&b, LEN);
                assert!(message.iter().all(|&byte| byte == message[0]), "mixed");
            }
            b.send(&mut [IoSlice::new(b"end")]).unwrap();
            assert_eq!(waiting.join().unwrap(), b"end");
        });
    }
}

#[test]
fn shutdown_wakes_waiting_threads() {
    for (a, _b) in both() {
        thread::scope(|scope| {
            let reader = scope.spawn(|| a.recv(&mut [0; 1]));
            // The other end does not read, so at some byte this waits forever.
            let sender = scope.spawn(|| {
                let body = vec![0; 1 << 20];
                loop {
                    a.send(&mut [IoSlice::new(&body)])?;
                }
                #[allow(unreachable_code)]
                std::io::Result::Ok(())
            });
            thread::sleep(Duration::from_millis(50));
            a.shutdown();
            assert_eq!(reader.join().unwrap().unwrap(), 0);
            assert!(sender.join().unwrap().is_err());
        });
    }
}

#[test]
fn the_channel_stays_usable_after_a_timeout() {
    for (a, b) in both() {
        a.set_timeout(Some(Duration::from_millis(5))).unwrap();
        let error = a.recv(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        b.send(&mut [IoSlice::new(b"x")]).unwrap();
        a.set_timeout(None).unwrap();
        assert_eq!(text(&a, 1), b"x");
    }
}

#[test]
fn a_tls_stream_that_is_cut_off_is_an_error() {
    let directory = Authority::new().directory();
    let (a, b) = UnixStream::pair().unwrap();
    let cut = a.try_clone().unwrap();
    let server = server_tls(directory.path());
    let accepted = thread::spawn(move || Channel::accept_tls(b.into(), &server).unwrap());
    let _client = Channel::connect_tls(a.into(), &client_tls(directory.path()), HOST).unwrap();
    let server = accepted.join().unwrap();
    cut.shutdown(std::net::Shutdown::Write).unwrap();
    let error = server.recv(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn changed_bytes_are_noticed() {
    let directory = Authority::new().directory();
    let (a, b) = UnixStream::pair().unwrap();
    let mut forger = a.try_clone().unwrap();
    let server = server_tls(directory.path());
    let accepted = thread::spawn(move || Channel::accept_tls(b.into(), &server).unwrap());
    let _client = Channel::connect_tls(a.into(), &client_tls(directory.path()), HOST).unwrap();
    let server = accepted.join().unwrap();
    // A record of application data that neither side has encrypted.
    forger.write_all(&[23, 3, 3, 0, 32]).unwrap();
    forger.write_all(&[7; 32]).unwrap();
    for _ in 0..2 {
        let error = server.recv(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error:?}");
    }
}

#[test]
fn tls_starts_on_a_socket_that_was_used_before() {
    let directory = Authority::new().directory();
    let (a, b) = plain_pair();
    a.send(&mut [IoSlice::new(b"STARTTLS")]).unwrap();
    assert_eq!(text(&b, 8), b"STARTTLS");
    b.send(&mut [IoSlice::new(b"ACK")]).unwrap();
    assert_eq!(text(&a, 3), b"ACK");
    let server = server_tls(directory.path());
    let accepted = thread::spawn(move || Channel::accept_tls(b.into_socket(), &server).unwrap());
    let a = Channel::connect_tls(a.into_socket(), &client_tls(directory.path()), HOST).unwrap();
    let b = accepted.join().unwrap();
    a.send(&mut [IoSlice::new(b"secret")]).unwrap();
    assert_eq!(text(&b, 6), b"secret");
}

#[test]
fn servers_are_verified_by_name_and_authority() {
    let authority = Authority::new();
    let directory = authority.directory();
    let directory = directory.path();
    let met = |client: &Path, name: &str| {
        let (connected, accepted) = meet(&client_tls(client), &server_tls(directory), name);
        (connected.err(), accepted.err())
    };
    assert!(matches!(met(directory, HOST), (None, None)));
    assert!(matches!(met(directory, "127.0.0.1"), (None, None)));

    let (ours, theirs) = met(directory, "other.example");
    let Some(TlsError::WrongName { wanted, presented }) = &ours else {
        panic!("{ours:?}");
    };
    assert_eq!(
        (wanted.as_str(), presented.join(" ").as_str()),
        ("other.example", "disks.example 127.0.0.1")
    );
    assert!(
        matches!(theirs, Some(TlsError::Refused { .. })),
        "{theirs:?}"
    );

    let stranger = Authority::new().directory();
    let (ours, theirs) = met(stranger.path(), HOST);
    assert!(matches!(ours, Some(TlsError::Untrusted)), "{ours:?}");
    assert!(
        matches!(theirs, Some(TlsError::Refused { .. })),
        "{theirs:?}"
    );

    for bad in ["", "a b", "-", "nbd://host"] {
        let (a, _b) = UnixStream::pair().unwrap();
        let refused = Channel::connect_tls(a.into(), &client_tls(directory), bad);
        assert!(matches!(refused, Err(TlsError::Name { .. })), "{bad:?}");
    }
}

/// The errors of a client that verifies the certificate `server`, and of a server that verifies
/// `client`.
fn verdicts(server: &CertificateParams, client: &CertificateParams) -> [Option<TlsError>; 2] {
    let authority = Authority::new();
    let directory = authority.directory();
    authority.sign(directory.path(), "server", server);
    authority.sign(directory.path(), "client", client);
    let (connected, accepted) = meet(
        &client_tls(directory.path()),
        &server_tls(directory.path()),
        HOST,
    );
    [connected.err(), accepted.err()]
}

#[test]
fn time_and_use_of_certificates_count_in_both_roles() {
    type Change = fn(&mut CertificateParams);
    type Verdict = fn(&TlsError) -> bool;
    let (good_server, good_client) = (Authority::server(), Authority::client());
    let set = |params: &CertificateParams, change: Change| {
        let mut params = params.clone();
        change(&mut params);
        params
    };
    let over = |params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 1, 1);
    let to_come = |params: &mut CertificateParams| params.not_before = date_time_ymd(2200, 1, 1);
    let useless = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![Usage::CodeSigning];
    };
    let changes: [(Change, Verdict); 3] = [
        (over, |error| matches!(error, TlsError::Expired)),
        (to_come, |error| matches!(error, TlsError::NotYetValid)),
        (useless, |error| matches!(error, TlsError::WrongUse)),
    ];
    for (change, expected) in changes {
        let [client, _] = verdicts(&set(&good_server, change), &good_client);
        assert!(client.as_ref().is_some_and(expected), "{client:?}");
        let [_, server] = verdicts(&good_server, &set(&good_client, change));
        assert!(server.as_ref().is_some_and(expected), "{server:?}");
    }
}

#[test]
fn clients_need_a_certificate_if_the_server_has_an_authority_for_them() {
    let authority = Authority::new();
    let directory = authority.directory();
    let directory = directory.path();
    let bare = tempfile::tempdir().unwrap();
    authority.trust(bare.path());

    let (connected, accepted) = meet(&client_tls(bare.path()), &server_tls(directory), HOST);
    let error = accepted.unwrap_err();
    assert!(matches!(error, TlsError::NoClientCertificate), "{error:?}");
    // With TLS 1.3 the client gets the alert with its first read.
    let error = connected.unwrap().recv(&mut [0; 1]).unwrap_err();
    let source = error.get_ref().unwrap().downcast_ref::<TlsError>();
    let Some(TlsError::Refused { alert }) = source else {
        panic!("{error:?}");
    };
    assert_eq!(alert, "certificate_required");

    let stranger = Authority::new();
    stranger.sign(bare.path(), "client", &Authority::client());
    let (_, accepted) = meet(&client_tls(bare.path()), &server_tls(directory), HOST);
    let error = accepted.unwrap_err();
    assert!(matches!(error, TlsError::Untrusted), "{error:?}");

    let [certificate, key] = ["server-cert.pem", "server-key.pem"].map(|name| directory.join(name));
    let open = ServerTls::from_files(&certificate, &key, None).unwrap();
    let (connected, accepted) = meet(&client_tls(bare.path()), &open, HOST);
    assert!(connected.is_ok() && accepted.is_ok());
}

#[test]
fn revoked_clients_are_refused() {
    let authority = Authority::new();
    let directory = authority.directory();
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 1, 1),
        next_update: date_time_ymd(2026, 2, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(4711),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let pem = list.signed_by(&authority.0).unwrap().pem().unwrap();
    fs::write(directory.path().join("ca-crl.pem"), pem).unwrap();
    let (_, accepted) = meet(
        &client_tls(directory.path()),
        &server_tls(directory.path()),
        HOST,
    );
    let error = accepted.unwrap_err();
    assert!(matches!(error, TlsError::Revoked), "{error:?}");
}

#[test]
fn a_peer_without_tls_is_told_from_one_that_violates_it() {
    let directory = Authority::new().directory();
    let (server, client) = (server_tls(directory.path()), client_tls(directory.path()));
    for garbage in [
        &b"NBDMAGICIHAVEOPT\x00\x03 and so on, in plain"[..],
        b"GET / HTTP/1.1\r\nHost: disks.example\r\n\r\n",
        &[0xff; 64],
        &[0; 64],
    ] {
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(garbage).unwrap();
        let error = Channel::accept_tls(b.into(), &server).unwrap_err();
        assert!(matches!(error, TlsError::NotTls), "{error:?}");

        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(garbage).unwrap();
        let error = Channel::connect_tls(b.into(), &client, HOST).unwrap_err();
        assert!(matches!(error, TlsError::NotTls), "{error:?}");
    }

    let (a, b) = UnixStream::pair().unwrap();
    drop(a);
    let error = Channel::accept_tls(b.into(), &server).unwrap_err();
    assert!(matches!(error, TlsError::Closed), "{error:?}");
}

#[test]
fn a_handshake_ends_in_time_however_slowly_its_bytes_come() {
    let directory = Authority::new().directory();
    let limit = Duration::from_millis(200);
    let server = server_tls(directory.path()).handshake_within(limit);
    let (mut a, b) = UnixStream::pair().unwrap();
    let mut other = a.try_clone().unwrap();
    let accepted = thread::spawn(move || Channel::accept_tls(b.into(), &server));
    let slow = thread::spawn(move || {
        // The beginning of a record of 512 bytes, one byte after the other until the server gives
        // up.
        for byte in [22, 3, 1, 2, 0, 1, 0, 1, 252].into_iter().chain([0; 500]) {
            if a.write_all(&[byte]).is_err() {
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
        false
    });
    let error = accepted.join().unwrap().unwrap_err();
    assert!(matches!(error, TlsError::TimedOut), "{error:?}");
    assert!(slow.join().unwrap(), "the server was still there");
    let mut rest = Vec::new();
    other.read_to_end(&mut rest).unwrap();
}

#[test]
fn keys_that_others_can_read_are_refused() {
    let directory = Authority::new().directory();
    let path = directory.path().join("server-key.pem");
    for (mode, as_root, as_user) in [
        (0o600, true, true),
        (0o400, true, true),
        (0o640, true, false),
        (0o660, false, false),
        (0o644, false, false),
        (0o602, false, false),
    ] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let read = ServerTls::from_directory(directory.path());
        let root = rustix::process::getuid().is_root();
        if if root { as_root } else { as_user } {
            read.unwrap();
            continue;
        }
        let error = read.unwrap_err();
        assert!(
            matches!(error, TlsError::Exposed { mode: m, .. } if m == mode),
            "{error:?}"
        );
    }
}

#[test]
fn errors_name_the_file() {
    let authority = Authority::new();
    let whole = authority.directory();
    let certificate = fs::read(whole.path().join("server-cert.pem")).unwrap();
    let key = fs::read(whole.path().join("client-key.pem")).unwrap();
    let encrypted =
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let refused = |name: &str, content: Option<&[u8]>| {
        let directory = authority.directory();
        let path = directory.path().join(name);
        match content {
            None => fs::remove_file(&path).unwrap(),
            Some(content) => fs::write(&path, content).unwrap(),
        }
        let error = match name.starts_with("client") {
            true => ClientTls::from_directory(directory.path()).unwrap_err(),
            false => ServerTls::from_directory(directory.path()).unwrap_err(),
        };
        assert!(error.to_string().contains(name), "{name}: {error}");
        error
    };
    let is = |error: TlsError, expected: fn(&TlsError) -> bool| {
        assert!(expected(&error), "{error:?}");
    };
    is(refused("ca-cert.pem", None), |e| {
        matches!(e, TlsError::File { .. })
    });
    is(refused("ca-cert.pem", Some(b"")), |e| {
        matches!(e, TlsError::NoCertificate { .. })
    });
    is(refused("ca-cert.pem", Some(broken)), |e| {
        matches!(e, TlsError::Unusable { .. })
    });
    is(refused("server-cert.pem", None), |e| {
        matches!(e, TlsError::File { .. })
    });
    is(refused("server-cert.pem", Some(&key)), |e| {
        matches!(e, TlsError::NoCertificate { .. })
    });
    is(refused("server-key.pem", Some(&certificate)), |e| {
        matches!(e, TlsError::NoKey { .. })
    });
    is(refused("server-key.pem", Some(b"")), |e| {
        matches!(e, TlsError::NoKey { .. })
    });
    is(refused("server-key.pem", Some(encrypted)), |e| {
        matches!(e, TlsError::EncryptedKey { .. })
    });
    is(refused("server-key.pem", Some(&key)), |e| {
        matches!(e, TlsError::OtherKey { .. })
    });
    is(refused("client-cert.pem", None), |e| {
        matches!(e, TlsError::Half { .. })
    });
    is(refused("client-key.pem", None), |e| {
        matches!(e, TlsError::Half { .. })
    });

    // Nothing would end the wait for the writer of a FIFO.
    for name in [
        "ca-cert.pem",
        "ca-crl.pem",
        "client-key.pem",
        "server-cert.pem",
    ] {
        let directory = authority.directory();
        let path = directory.path().join(name);
        let _ = fs::remove_file(&path);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        let error = match name.starts_with("server") {
            false => ClientTls::from_directory(directory.path()).unwrap_err(),
            true => ServerTls::from_directory(directory.path()).unwrap_err(),
        };
        let TlsError::File {
            path: named,
            source,
        } = error
        else {
            panic!("{error:?}");
        };
        assert_eq!(
            (named, source.to_string()),
            (path, "it is not a regular file".into())
        );
    }

    fs::write(
        whole.path().join("ca-crl.pem"),
        "-----BEGIN X509 CRL-----\n",
    )
    .unwrap();
    let error = ServerTls::from_directory(whole.path()).unwrap_err();
    assert!(error.to_string().contains("ca-crl.pem"), "{error}");
}
