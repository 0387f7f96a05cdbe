//! TLS with gnutls at the other end, and certificates that gnutls' `certtool` made as QEMU's
//! documentation says.

use std::io::{IoSlice, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use luksmith::channel::{Channel, ClientTls, ServerTls};

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

const KINDS: [&str; 3] = ["rsa", "ecdsa", "ed25519"];

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
        let file = |name: &str| directory.path().join(name);
        let port = free_port();
        let mut command = Command::new(&serv);
        command.args([
            "--echo",
            "--require-client-cert",
            "--port",
            &port.to_string(),
        ]);
        command.arg("--x509cafile").arg(file("ca-cert.pem"));
        command.arg("--x509certfile").arg(file("server-cert.pem"));
        command.arg("--x509keyfile").arg(file("server-key.pem"));
        command.stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let _server = Running(command.spawn().unwrap());

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
