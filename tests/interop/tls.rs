//! TLS with gnutls at the other end, and certificates that gnutls' `certtool` made as QEMU's
//! documentation says.

use std::io::{IoSlice, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use luksmith::channel::{Channel, ClientTls, ServerTls, TlsError};

use support::certificates;
use support::peers;

/// A child process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn tools() -> Option<[PathBuf; 3]> {
    let tools = ["certtool", "gnutls-cli", "gnutls-serv"];
    let [a, b, c] = tools.map(peers::find);
    Some([a?, b?, c?])
}

const KINDS: [&str; 5] = [
    "rsa",
    "ecdsa",
    "ecdsa secp384r1",
    "ecdsa secp521r1",
    "ed25519",
];

/// Keys that gnutls has and TLS here has not are named, in the own file and at the peer.
#[test]
fn kinds_of_keys_that_are_not_supported_are_named() {
    let Some([certtool, _, serv]) = tools() else {
        return;
    };
    for (kind, name) in [("ed448", "Ed448"), ("rsa-pss", "RSA-PSS")] {
        let directory = certificates::make(&certtool, kind);
        let error = ServerTls::from_directory(directory.path()).unwrap_err();
        let said = format!("server-key.pem is {name}; supported are RSA");
        assert!(error.to_string().contains(&said), "{error}");

        let (_server, port) = serve(&serv, directory.path(), &[]);
        let ca = directory.path().join("ca-cert.pem");
        let tls = ClientTls::from_files(&ca, None).unwrap();
        let error = Channel::connect_tls(connect(port).into(), &tls, "localhost").unwrap_err();
        let said = std::error::Error::source(&error).map(ToString::to_string);
        // gnutls has no algorithm for these keys that we offer, and ends the connection; or the
        // client sees the certificate.
        let named = said.is_some_and(|said| said.contains(name));
        let refused = matches!(error, TlsError::Refused { .. } | TlsError::Closed);
        assert!(named || refused, "{kind}: {error:?}");
    }
}

#[test]
fn gnutls_as_the_client() {
    let Some([certtool, cli, _]) = tools() else {
        return;
    };
    for (kind, priority) in KINDS
        .map(|kind| (kind, "NORMAL"))
        .into_iter()
        .chain([("rsa", "NORMAL:-VERS-ALL:+VERS-TLS1.2")])
    {
        let directory = certificates::make(&certtool, kind);
        let file = |name: &str| directory.path().join(name);
        let tls = ServerTls::from_directory(directory.path()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let mut command = Command::new(&cli);
        command.args(["127.0.0.1", "--port", &port, "--priority", priority]);
        command.arg("--x509cafile").arg(file("ca-cert.pem"));
        command.arg("--x509certfile").arg(file("client-cert.pem"));
        command.arg("--x509keyfile").arg(file("client-key.pem"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut client = Running(command.spawn().unwrap());

        let (stream, _) = listener.accept().unwrap();
        let channel = Channel::accept_tls(stream.into(), &tls)
            .unwrap_or_else(|error| panic!("{kind}, {priority}: {error}"));
        let mut words = client.0.stdin.take().unwrap();
        words.write_all(b"from gnutls\n").unwrap();
        let mut heard = [0; 12];
        channel.recv_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"from gnutls\n", "{kind}, {priority}");
        channel.send(&mut [IoSlice::new(b"from rustls\n")]).unwrap();
        channel.shutdown();
        let mut said = String::new();
        let mut output = client.0.stdout.take().unwrap();
        std::io::Read::read_to_string(&mut output, &mut said).unwrap();
        assert!(said.contains("from rustls"), "{kind}, {priority}: {said}");
    }
}

#[test]
fn gnutls_as_the_server() {
    let Some([certtool, _, serv]) = tools() else {
        return;
    };
    for kind in KINDS {
        let directory = certificates::make(&certtool, kind);
        let (_server, port) = serve(&serv, directory.path(), &["--require-client-cert"]);
        let tls = ClientTls::from_directory(directory.path()).unwrap();
        for name in ["localhost", "127.0.0.1"] {
            let channel = Channel::connect_tls(connect(port).into(), &tls, name)
                .unwrap_or_else(|error| panic!("{kind}: {error}"));
            channel.send(&mut [IoSlice::new(b"an echo\n")]).unwrap();
            let mut heard = [0; 8];
            channel.recv_exact(&mut heard).unwrap();
            assert_eq!(&heard, b"an echo\n", "{kind}");
        }
    }
}

/// Starts gnutls' server, which sends back what it receives.
fn serve(serv: &Path, directory: &Path, more: &[&str]) -> (Running, u16) {
    let port = free_port();
    let file = |name: &str| directory.join(name);
    let mut command = Command::new(serv);
    command
        .args(["--echo", "--port", &port.to_string()])
        .args(more);
    command.arg("--x509cafile").arg(file("ca-cert.pem"));
    command.arg("--x509certfile").arg(file("server-cert.pem"));
    command.arg("--x509keyfile").arg(file("server-key.pem"));
    command.stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    (Running(command.spawn().unwrap()), port)
}

/// A port on which probably no program listens.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Connects as soon as the server listens.
fn connect(port: u16) -> TcpStream {
    let begun = Instant::now();
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => return stream,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
