//! The helpers that luksmith brings: a directory, systemd-creds, and Vault.
//!
//! No package of Debian has Vault. `Imitation` answers as its documentation says for the KV store
//! of version 2: versions, check-and-set, soft deletion, errors.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use luksmith::channel::{Channel, ServerTls};
use serde_json::{Value, json};
use support::{certificates, peers};

use crate::session::{CHEAP, Ran, Session};

/// A session whose folder of helpers has the program itself as a helper.
struct Brought {
    session: Session,
    name: &'static str,
}

impl Brought {
    fn new(name: &'static str, settings: &str) -> Self {
        let session = Session::new();
        let folder = session.path("helpers");
        fs::create_dir(&folder).unwrap();
        // The folders above the program may be writable by the group of its builder.
        let program = folder.join("luksmith");
        fs::copy(env!("CARGO_BIN_EXE_luksmith"), &program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        symlink("luksmith", folder.join(format!("key-{name}"))).unwrap();
        fs::create_dir(session.path("store")).unwrap();
        for folder in ["helpers", "store"] {
            let mode = fs::Permissions::from_mode(0o700);
            fs::set_permissions(session.path(folder), mode).unwrap();
        }
        let brought = Self { session, name };
        let settings = settings.replace("STORE", brought.path("").to_str().unwrap());
        let file = format!("helpers/key-{name}.conf");
        brought.session.write(&file, settings.as_bytes());
        brought
    }

    fn path(&self, name: &str) -> PathBuf {
        self.session.path("store").join(name)
    }

    fn run(&self, args: &str) -> Ran {
        let args = args.replace("HELPER", &format!("helper:{}", self.name));
        let args = args.split(' ').chain(["--helper-dir", "helpers"]);
        self.session.run(args)
    }

    fn cheap(&self, args: &str) -> Ran {
        self.run(&format!("{args} {}", CHEAP.join(" ")))
    }

    #[track_caller]
    fn ok(&self, args: &str) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code(), 0, "{args}: {}", ran.stderr());
        ran.stdout()
    }

    /// A volume is made, opened and rotated twice.
    #[track_caller]
    fn works(&self, reference: &str) {
        let cheap = CHEAP.join(" ");
        let secret = format!("HELPER:{reference}");
        self.ok(&format!(
            "create disk.img --size 1M --key generate:{secret} {cheap}"
        ));
        for _ in 0..2 {
            self.ok(&format!("key test disk.img --key {secret}"));
            self.ok(&format!("key rotate disk.img --secret {secret} {cheap}"));
        }
        self.ok(&format!("key test disk.img --key {secret}"));
        self.cheap(&format!("create b.img --size 1M --key generate:{secret}"))
            .fails(5, "has a value under this reference already");
    }
}

#[test]
fn a_directory_of_files_is_a_key_store() {
    let brought = Brought::new("directory", "# keys\ndirectory = STORE\n");
    brought.works("vm1");
    let key = fs::read(brought.path("vm1")).unwrap();
    assert_eq!(key.len(), 44);
    let mode = fs::metadata(brought.path("vm1"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut left: Vec<_> = fs::read_dir(brought.path("")).unwrap().collect();
    left.retain(|entry| entry.as_ref().unwrap().file_name() != ".luksmith-lock");
    assert_eq!(left.len(), 1);
    let ran = brought.cheap("key rotate disk.img --secret HELPER:vm1");
    assert_eq!((ran.code(), ran.stderr()), (0, String::new()));
    let none = brought.run("key test disk.img --key HELPER:none");
    none.fails(4, "has no value under this reference");
    none.fails(
        4,
        "key change IMAGE --new-key generate:helper:NAME:REFERENCE",
    );
    assert!(!none.stderr().contains("warning"), "{}", none.stderr());
    // A file that others can read is not a secret.
    fs::set_permissions(brought.path("vm1"), fs::Permissions::from_mode(0o640)).unwrap();
    let open = brought.run("key test disk.img --key HELPER:vm1");
    open.fails(2, "helper directory: ");
    open.fails(2, "other users can read it");
    fs::set_permissions(brought.path("vm1"), fs::Permissions::from_mode(0o600)).unwrap();
    for reference in ["../disk.img", ".hidden", "a/b"] {
        let ran = brought.run(&format!("key test disk.img --key HELPER:{reference}"));
        ran.fails(1, "the reference is the name of a file");
    }
    fs::remove_file(brought.path("vm1")).unwrap();
    symlink(brought.session.path("key"), brought.path("vm1")).unwrap();
    assert_eq!(brought.run("key test disk.img --key HELPER:vm1").code(), 4);
    fs::set_permissions(brought.path(""), fs::Permissions::from_mode(0o777)).unwrap();
    let open = brought.run("key test disk.img --key HELPER:vm1");
    open.fails(2, "other users can write to");
}

#[test]
fn settings_that_are_wrong_are_errors() {
    let brought = Brought::new("directory", "directory = STORE\nfolder = /x\n");
    let ran = brought.run("key test disk.img --key HELPER:vm1");
    assert!(ran.code() != 0);
    let session = Session::with_volume();
    fs::copy(session.path("disk.img"), brought.session.path("disk.img")).unwrap();
    let ran = brought.run("key test disk.img --key HELPER:vm1");
    ran.fails(4, "key-directory.conf: folder is no setting of this helper");
    let conf = brought.session.path("helpers/key-directory.conf");
    fs::set_permissions(conf, fs::Permissions::from_mode(0o666)).unwrap();
    brought
        .run("key test disk.img --key HELPER:vm1")
        .fails(2, "other users can write to");
}

#[test]
fn credentials_of_systemd_are_a_key_store() {
    if peers::find("systemd-creds").is_none() {
        return;
    }
    // The key of the host would be made for this test. The credential is encrypted with a key that
    // is not secret instead.
    let brought = Brought::new(
        "systemd-creds",
        "directory = STORE\nwith-key = tpm2-absent\n",
    );
    brought.works("vm1");
    let credential = fs::read_to_string(brought.path("vm1")).unwrap();
    assert!(credential.len() > 100 && credential.is_ascii());
    // A credential opens under its own name only.
    fs::rename(brought.path("vm1"), brought.path("vm2")).unwrap();
    let renamed = brought.run("key test disk.img --key HELPER:vm2");
    renamed.fails(
        4,
        "Embedded credential name 'vm1' does not match filename 'vm2'",
    );
}

/// An imitation of Vault's KV store, version 2.
struct Imitation {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The versions of each path. A deleted one is null.
    values: BTreeMap<String, Vec<Value>>,
    /// What the next requests get instead of their answer.
    instead: Vec<(u16, Value)>,
    requests: Vec<String>,
    chunked: bool,
}

const TOKEN: &str = "hvs.token-of-the-test";

impl Imitation {
    fn on(socket: PathBuf) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        Self::start(move |state| {
            for stream in listener.incoming() {
                serve(stream.unwrap(), &state);
            }
        })
    }

    /// With TLS on a port of this machine, which is returned.
    fn with_tls(credentials: ServerTls) -> (Self, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let imitation = Self::start(move |state| {
            for stream in listener.incoming() {
                // A client may refuse the certificate.
                if let Ok(channel) = Channel::accept_tls(stream.unwrap().into(), &credentials) {
                    serve(Stream(channel), &state);
                }
            }
        });
        (imitation, port)
    }

    /// The thread ends with the process.
    fn start(listen: impl FnOnce(Arc<Mutex<State>>) + Send + 'static) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        std::thread::spawn(move || listen(shared));
        Self { state }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// A connection with TLS.
struct Stream(Channel);

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.recv(into)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(&mut [IoSlice::new(bytes)])?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Answers one request.
fn serve(stream: impl Read + Write, state: &Mutex<State>) {
    let mut stream = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    let field = |name: &str| {
        let found = head.iter().find_map(|line| line.strip_prefix(name));
        found.map(|value| value.trim().to_owned())
    };
    let length = field("Content-Length:").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    let mut state = state.lock().unwrap();
    let (status, answer) = state.answer(head.first().unwrap(), field("X-Vault-Token:"), &body);
    let text = match answer {
        Value::Null => String::new(),
        answer => answer.to_string(),
    };
    let head = format!("HTTP/1.1 {status} Whatever\r\nContent-Type: application/json\r\n");
    let text = if state.chunked {
        let (begin, end) = text.split_at(text.len() / 2);
        let parts = [begin, end].into_iter().filter(|part| !part.is_empty());
        let parts = parts.map(|part| format!("{:x}\r\n{part}\r\n", part.len()));
        let parts: String = parts.collect();
        format!("{head}Transfer-Encoding: chunked\r\n\r\n{parts}0\r\n\r\n")
    } else {
        format!("{head}Content-Length: {}\r\n\r\n{text}", text.len())
    };
    drop(state);
    // The client is gone if it has what it needs.
    let _ = stream.get_mut().write_all(text.as_bytes());
}

impl State {
    fn answer(&mut self, line: &str, token: Option<String>, body: &[u8]) -> (u16, Value) {
        let errors = |status, text: &str| (status, json!({ "errors": [text] }));
        self.requests.push(line.to_owned());
        if !self.instead.is_empty() {
            return self.instead.remove(0);
        }
        if token.as_deref() != Some(TOKEN) {
            return errors(403, "permission denied");
        }
        let words: Vec<_> = line.split(' ').collect();
        let [method, path, "HTTP/1.1"] = words[..] else {
            return errors(400, "no request");
        };
        let metadata =
            |versions: &[Value]| json!({ "version": versions.len(), "destroyed": false });
        if let Some(name) = path.strip_prefix("/v1/kv/metadata/") {
            assert_eq!(method, "DELETE");
            self.values.remove(name);
            return (204, Value::Null);
        }
        let Some(name) = path.strip_prefix("/v1/kv/data/") else {
            return errors(404, "no handler for route");
        };
        let versions = self.values.get(name).cloned().unwrap_or_default();
        match method {
            "GET" => match versions.last() {
                None => (404, json!({ "errors": [] })),
                Some(data) => {
                    let data = json!({ "data": data, "metadata": metadata(&versions) });
                    let status = if data["data"].is_null() { 404 } else { 200 };
                    (status, json!({ "request_id": "x", "data": data }))
                }
            },
            "POST" => {
                let body: Value = serde_json::from_slice(body).unwrap();
                if body["options"]["cas"] != json!(versions.len()) {
                    return errors(
                        400,
                        "check-and-set parameter did not match the current version",
                    );
                }
                let versions = self.values.entry(name.to_owned()).or_default();
                versions.push(body["data"].clone());
                (200, json!({ "data": metadata(versions) }))
            }
            _ => errors(405, "unsupported operation"),
        }
    }
}

fn vault() -> (Brought, Imitation) {
    let settings = "address = unix:STOREsocket\ntoken-file = STOREtoken\nmount = kv\n";
    let brought = Brought::new("vault", settings);
    brought
        .session
        .write("store/token", format!("{TOKEN}\n").as_bytes());
    let imitation = Imitation::on(brought.path("socket"));
    (brought, imitation)
}

#[test]
fn vault_is_a_key_store() {
    for chunked in [false, true] {
        let (brought, vault) = vault();
        vault.state().chunked = chunked;
        brought.works("hosts/vm1");
        let mut state = vault.state();
        assert_eq!(state.values.keys().collect::<Vec<_>>(), ["hosts/vm1"]);
        let versions = state.values["hosts/vm1"].clone();
        assert_eq!(versions.len(), 3);
        assert!(
            versions
                .iter()
                .all(|version| version["passphrase"].is_string())
        );
        // What luksmith does not know stays, and so does a passphrase that is escaped.
        let last = versions.last().unwrap()["passphrase"].clone();
        let more = json!({ "note": "a \"b\"", "n": 1.5, "passphrase": last, "o": { "p": [1] } });
        state.values.get_mut("hosts/vm1").unwrap().push(more);
        drop(state);
        assert_eq!(
            brought
                .cheap("key rotate disk.img --secret HELPER:hosts/vm1")
                .code(),
            0
        );
        let now = vault.state().values["hosts/vm1"].last().unwrap().clone();
        assert_eq!(now["note"], "a \"b\"");
        assert_eq!((&now["n"], &now["o"]["p"]), (&json!(1.5), &json!([1])));
        assert!(now["passphrase"] != last);
    }
}

#[test]
fn passphrases_of_any_bytes_are_read_from_vault() {
    let (brought, vault) = vault();
    let session = &brought.session;
    for (key, data) in [
        (
            &b"a\"\\\n\t\x01\xc3\xa4\xf0\x9f\x98\x80/"[..],
            json!({ "passphrase": "a\"\\\n\t\u{1}ä😀/" }),
        ),
        (b"\xff\0\xfe", json!({ "passphrase_base64": "/wD+" })),
    ] {
        session.write("key", key);
        let make = "create disk.img --size 1M --key-file key --force overwrite";
        assert_eq!(brought.cheap(make).code(), 0);
        vault.state().values.insert("a%20b".to_owned(), vec![data]);
        brought.session.write("other", b"other");
        let args = [
            "key",
            "test",
            "disk.img",
            "--helper-dir",
            "helpers",
            "--key",
        ];
        let ran = session.run(args.iter().chain(&["helper:vault:a b"]));
        assert_eq!(ran.code(), 0, "{}", ran.stderr());
        // Bytes that are no text are kept as they are when they are the old passphrase.
        let args = [
            "key",
            "rotate",
            "disk.img",
            "--helper-dir",
            "helpers",
            "--secret",
        ];
        let ran = session.run(args.iter().chain(&["helper:vault:a b"]).chain(&CHEAP));
        assert_eq!(ran.code(), 0, "{}", ran.stderr());
    }
}

#[test]
fn what_vault_refuses_is_said() {
    let (brought, vault) = vault();
    brought.works("vm");
    let test = || brought.run("key test disk.img --key HELPER:vm");
    let error = |text: &str| json!({ "errors": [text] });
    for (status, code, said) in [
        (503, 4, "cannot be reached at present"),
        (429, 4, "cannot be reached at present"),
        (403, 2, "does not permit it"),
        (307, 4, "the server answers 307"),
        (400, 4, "the server answers 400: some reason"),
    ] {
        vault.state().instead = vec![(status, error("some reason"))];
        test().fails(code, said);
    }
    vault.state().instead = vec![(200, json!({ "data": { "passphrase": "version 1" } }))];
    test().fails(4, "is the mount a KV store of version 2?");
    brought.session.write("store/token", b"other");
    let denied = test();
    denied.fails(2, "the server answers 403: permission denied");
    denied.fails(2, "does not permit it");
    brought
        .session
        .write("store/token", format!("{TOKEN}\n").as_bytes());
    // A version that was deleted is no value, and its number counts for check-and-set.
    vault
        .state()
        .values
        .get_mut("vm")
        .unwrap()
        .push(Value::Null);
    test().fails(4, "has no value under this reference");
    let add = "key add disk.img --key-file key --new-key generate:HELPER:vm";
    let make = "create disk.img --size 1M --key-file key --force overwrite";
    assert_eq!(brought.cheap(make).code(), 0);
    let ran = brought.cheap(add);
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    assert_eq!(test().code(), 0);
    // Another client writes between the question and the answer.
    let answers = vault.state().values["vm"].last().unwrap()["passphrase"].clone();
    let before = json!({
        "data": { "data": { "passphrase": answers }, "metadata": { "version": 1 } }
    });
    vault.state().instead = vec![(200, before.clone()), (200, before)];
    let ran = brought.cheap("key rotate disk.img --secret HELPER:vm");
    ran.fails(
        5,
        "has another value under this reference, which is not replaced",
    );
    let ran = brought.cheap("key rotate disk.img --secret HELPER:vm");
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    // The token is nowhere but in the header of the requests.
    assert!(
        vault
            .state()
            .requests
            .iter()
            .all(|line| !line.contains(TOKEN))
    );
    fs::remove_file(brought.path("socket")).unwrap();
    test().fails(4, "cannot be reached at present");
}

#[test]
fn a_vault_with_tls_gets_the_token_only_with_its_certificate() {
    let Some(certtool) = peers::find("certtool") else {
        return;
    };
    let (ours, others) = (
        certificates::make(&certtool, "ecdsa"),
        certificates::make(&certtool, "ecdsa"),
    );
    let file = |name: &str| ours.path().join(name);
    let credentials =
        ServerTls::from_files(&file("server-cert.pem"), &file("server-key.pem"), None).unwrap();
    let (vault, port) = Imitation::with_tls(credentials);
    let settings = |authorities: PathBuf| {
        format!(
            "address = https://localhost:{port}\nca-file = {}\ntoken-file = STOREtoken\nmount = kv\n",
            authorities.display()
        )
    };
    let brought = Brought::new("vault", &settings(file("ca-cert.pem")));
    let token = format!("{TOKEN}\n");
    brought.session.write("store/token", token.as_bytes());
    brought.works("hosts/vm1");
    assert_eq!(vault.state().values["hosts/vm1"].len(), 3);
    let brought = Brought::new("vault", &settings(others.path().join("ca-cert.pem")));
    brought.session.write("store/token", token.as_bytes());
    vault.state().requests.clear();
    let make = "create disk.img --size 1M --key-file key";
    assert_eq!(brought.cheap(make).code(), 0);
    let refused = brought.run("key test disk.img --key HELPER:hosts/vm1");
    refused.fails(4, &format!("helper vault: localhost:{port}: "));
    assert_eq!(vault.state().requests, [""; 0]);
}

#[test]
fn a_vault_elsewhere_needs_tls() {
    let brought = Brought::new("vault", "address = http://vault.example\n");
    let make = "create disk.img --size 1M --key-file key";
    assert_eq!(brought.cheap(make).code(), 0);
    brought
        .run("key test disk.img --key HELPER:vm")
        .fails(4, "without TLS the token would be sent as it is");
}
