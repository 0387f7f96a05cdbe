//! Certificates as QEMU's documentation has admins make them, with gnutls' `certtool`, and gnutls at the other end.

use std::fs;
use std::io::{IoSlice, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use luksmith::channel::{Channel, ClientTls, ServerTls};

use crate::peers;

/// A child that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory with the six files, keys of `kind`.
fn certificates(certtool: &Path, kind: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let template = |name: &str, text: &str| {
        let path = file(&format!("{name}.info"));
        fs::write(&path, text).unwrap();
        path
    };
    let key = |name: &str| {
        let path = file(name);
        let mut command = Command::new(certtool);
        command.args(["--generate-privkey", "--key-type", kind, "--outfile"]);
        peers::run(command.arg(&path));
        path
    };
    let ca_key = key("ca-key.pem");
    let ca = file("ca-cert.pem");
    let info = template("ca", "cn = Disks of Example\nca\ncert_signing_key\n");
    let mut command = Command::new(certtool);
    command.arg("--generate-self-signed").arg("--load-privkey");
    command.arg(&ca_key).arg("--template").arg(info);
    peers::run(command.arg("--outfile").arg(&ca));

    let sign = |role: &str, info: &str| {
        let own_key = key(&format!("{role}-key.pem"));
        let info = template(role, info);
        let mut command = Command::new(certtool);
        command.arg("--generate-certificate");
        command.arg("--load-ca-certificate").arg(&ca);
        command.arg("--load-ca-privkey").arg(&ca_key);
        command.arg("--load-privkey").arg(own_key);
        command.arg("--template").arg(info);
        peers::run(
            command
                .arg("--outfile")
                .arg(file(&format!("{role}-cert.pem"))),
        );
    };
    let uses = "encryption_key\nsigning_key\n";
    let names = "dns_name = localhost\nip_address = 127.0.0.1\n";
    sign(
        "server",
        &format!("organization = Example\ncn = localhost\n{names}tls_www_server\n{uses}"),
    );
    sign(
        "client",
        &format!("country = DE\norganization = Example\ncn = vm-host\ntls_www_client\n{uses}"),
    );
    directory
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
        let directory = certificates(&certtool, kind);
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
        let directory = certificates(&certtool, kind);
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

/// A port that nobody listens on, as far as that can be known.
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
