//! The program, a volume in a folder, and Tang servers.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use luksmith_formats::json::Value;
use support::peers;
use support::program::{refused, succeeds};

/// A folder with a file `key`, and its volume `disk.img`.
pub(crate) struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        let site = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        site.write("key", b"a passphrase");
        site.luksmith(
            "create disk.img --size 1M --key-file key --pbkdf pbkdf2 --pbkdf-force-iterations 1000",
        );
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file that only its owner can read.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    }

    /// A command in the folder. Words are between spaces.
    pub(crate) fn command(&self, program: &str, line: &str) -> Command {
        let program = match program {
            "luksmith" => PathBuf::from(env!("CARGO_BIN_EXE_luksmith")),
            other => peers::find(other).unwrap_or_else(|| other.into()),
        };
        let mut command = Command::new(program);
        command
            .current_dir(self.folder.path())
            .args(line.split_whitespace())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn luksmith(&self, line: &str) -> String {
        succeeds(&mut self.command("luksmith", line))
    }

    pub(crate) fn refused(&self, line: &str) -> (i32, String) {
        refused(&mut self.command("luksmith", line))
    }

    pub(crate) fn run(&self, program: &str, line: &str) -> Vec<u8> {
        peers::run(&mut self.command(program, line))
    }

    /// A token of the header.
    pub(crate) fn token(&self, id: u32) -> Value {
        let json = self.luksmith(&format!("token export disk.img --token-id {id}"));
        json.parse().unwrap()
    }

    pub(crate) fn import(&self, token: &Value) {
        std::fs::write(self.path("token.json"), token.to_string()).unwrap();
        self.luksmith("token import disk.img --json-file token.json");
    }
}

/// Whether the peers of clevis are there.
pub(crate) fn have_clevis() -> bool {
    let missing = ["clevis", "jose", "cryptsetup"]
        .into_iter()
        .find(|peer| peers::find(peer).is_none());
    let tangd = std::path::Path::new(TANGD).exists();
    match missing.or((!tangd).then_some("tangd")) {
        Some(peer) => {
            peers::skip(peer);
            false
        }
        None => true,
    }
}

const TANGD: &str = "/usr/libexec/tangd";

/// A server on a port of this machine, which counts its connections. Its thread ends with the
/// process.
pub(crate) struct Server {
    pub(crate) url: String,
    connections: Arc<AtomicUsize>,
    /// The folder of its keys.
    keys: Option<tempfile::TempDir>,
}

impl Server {
    /// A server that answers each connection with this function.
    pub(crate) fn start(answer: impl Fn(TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = connections.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                counter.fetch_add(1, Ordering::SeqCst);
                answer(client.unwrap());
            }
        });
        Self {
            url,
            connections,
            keys: None,
        }
    }

    /// A Tang server with new keys on this curve.
    pub(crate) fn tang(curve: &str) -> Self {
        let keys = tempfile::tempdir().unwrap();
        let folder = keys.path().to_owned();
        let alg = if curve == "P-256" { "ES256" } else { "ES512" };
        for (name, key) in [
            ("signing.jwk", format!(r#"{{"alg":"{alg}"}}"#)),
            (
                "exchange.jwk",
                format!(r#"{{"alg":"ECMR","crv":"{curve}"}}"#),
            ),
        ] {
            let mut jose = Command::new("jose");
            jose.args(["jwk", "gen", "-i", &key, "-o"])
                .arg(folder.join(name));
            peers::run(&mut jose);
        }
        let mut server = Self::start(move |client| {
            let client = std::os::fd::OwnedFd::from(client);
            let tangd = Command::new(TANGD)
                .arg(&folder)
                .stdin(client.try_clone().unwrap())
                .stdout(client)
                .stderr(Stdio::null())
                .spawn();
            // A connection that is kept lasts until its client closes it.
            std::thread::spawn(move || tangd.unwrap().wait());
        });
        server.keys = Some(keys);
        server
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn keys(&self) -> PathBuf {
        self.keys.as_ref().unwrap().path().to_owned()
    }

    /// The thumbprint of its signing key by SHA-256.
    pub(crate) fn thumbprint(&self) -> String {
        let mut jose = Command::new("jose");
        jose.args(["jwk", "thp", "-a", "S256", "-i"])
            .arg(self.keys().join("signing.jwk"));
        String::from_utf8(peers::run(&mut jose)).unwrap()
    }
}
