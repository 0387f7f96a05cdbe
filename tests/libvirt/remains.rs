//! What a command leaves of a passphrase when it ends: nothing in the memory of its process, nor in
//! arguments, the environment, output, logs, the journal or any file. The tests also check to which
//! peers the command sent the passphrase.
//!
//! strace stops the process as it exits, or at another system call. The trace has every byte that
//! the process wrote, and the arguments and environment of every program that it started.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use luksmith::libvirt::Connection;
use luksmith::libvirt::xml::Usage;
use rustix::process::{Pid, Signal, kill_process};

use crate::daemon::Daemon;
use crate::domains;
use crate::rotate::{CHEAP, CHEAP_LIVE, Host};
use support::certificates;
use support::peers;
use support::secret_search::{PIECE, SecretSearch};

/// The system calls by which bytes leave a process and programs are started.
const TELLING: &str =
    "trace=execve,execveat,write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,sendmmsg";

/// The last system call of a process.
const END: (&str, i64) = ("exit_group", libc::SYS_exit_group);

/// The forms in which a passphrase is looked for.
struct Forms(Vec<(&'static str, Vec<u8>)>);

impl Forms {
    fn of(passphrases: &[Vec<u8>]) -> Self {
        let mut forms = Vec::new();
        for bytes in passphrases {
            forms.push(("the passphrase", bytes.to_vec()));
            forms.push(("its base64", BASE64_STANDARD.encode(bytes).into_bytes()));
            if let Ok(bits) = BASE64_STANDARD.decode(bytes) {
                forms.push(("the bits that it is made of", bits));
            }
        }
        Self(forms)
    }

    fn search(&self) -> SecretSearch<'_> {
        SecretSearch::new(
            self.0
                .iter()
                .map(|(name, bytes)| (*name, &bytes[..]))
                .collect(),
        )
    }
}

/// The program, stopped at a system call by strace.
struct Stopped {
    strace: Child,
    process: Pid,
    /// The first argument of the call: the exit code, if the call is that at the end.
    argument: u64,
    trace: PathBuf,
}

impl Stopped {
    fn at(daemon: &Daemon, (call, number): (&str, i64), arguments: &str) -> Self {
        let folder = daemon.folder();
        let (trace, errors) = (folder.join("trace"), folder.join("errors"));
        let watch = format!("{TELLING},{call}");
        let stop = format!("inject={call}:delay_enter=600s");
        let options = [
            OsStr::new("-fqqvxxy"),
            OsStr::new("-s1048576"),
            OsStr::new("-o"),
            trace.as_os_str(),
            OsStr::new("-e"),
            OsStr::new(&watch),
            OsStr::new("-e"),
            OsStr::new(&stop),
        ];
        let strace = peers::find("strace").expect("a peer that was there");
        let strace = daemon
            .traced(&strace, &options, &format!("-vv {arguments}"))
            .env("LUKSMITH_LOG", "trace")
            .stdout(Stdio::null())
            .stderr(File::create(&errors).unwrap())
            .spawn();
        let mut strace = strace.unwrap();
        for _ in 0..6000 {
            if let Some((process, argument)) = child_in(&strace, number) {
                return Self {
                    strace,
                    process,
                    argument,
                    trace,
                };
            }
            let ended = strace.try_wait().unwrap();
            let errors = || fs::read_to_string(&errors).unwrap();
            assert!(ended.is_none(), "{arguments} has ended: {}", errors());
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{arguments} does not come to {call}");
    }

    /// Runs the program to its end, and checks that it has succeeded.
    fn at_end(daemon: &Daemon, arguments: &str) -> Self {
        let stopped = Self::at(daemon, END, arguments);
        let errors = fs::read_to_string(daemon.folder().join("errors")).unwrap();
        assert_eq!(stopped.argument, 0, "{arguments}: {errors}");
        stopped
    }

    /// Which of the forms are in memory that the process can read, and in which mapping.
    fn in_memory(&self, forms: &Forms) -> BTreeSet<(&'static str, String)> {
        let process = format!("/proc/{}", self.process.as_raw_nonzero());
        let memory = File::open(format!("{process}/mem")).unwrap();
        let search = forms.search();
        let mut found = BTreeSet::new();
        let mut window = vec![0; 1 << 20];
        for line in fs::read_to_string(format!("{process}/maps"))
            .unwrap()
            .lines()
        {
            let (range, rest) = line.split_once(' ').unwrap();
            // A read-only mapping of a file has the contents of the file.
            let is_file = rest.contains('/') && !rest.starts_with("rw");
            if !rest.starts_with('r') || is_file {
                continue;
            }
            let (start, end) = range.split_once('-').unwrap();
            let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap());
            // Windows overlap by the length of a piece, so that no piece is cut.
            for at in (start..end).step_by(window.len() - PIECE) {
                let len = usize::try_from(end - at).unwrap().min(window.len());
                match memory.read_exact_at(&mut window[..len], at) {
                    Ok(()) => {}
                    // A mapping of the kernel's, or beyond the end of a file: no data of the
                    // process.
                    Err(_) if !rest.starts_with("rw") => break,
                    Err(error) => panic!("{line}: {error}"),
                }
                let names = search.found_in(&window[..len]);
                found.extend(names.into_iter().map(|name| (name, line.to_owned())));
            }
        }
        found
    }

    /// Where it wrote one of the forms to, and which programs it started with one.
    fn told(&self, forms: &Forms) -> BTreeSet<String> {
        let search = forms.search();
        let trace = fs::read_to_string(&self.trace).unwrap();
        assert!(trace.contains(" execve("), "the trace has no beginning");
        let lines = trace.lines().map(bytes_of);
        let lines = lines.filter(|line| !search.found_in(line).is_empty());
        lines
            .map(|line| {
                let line = String::from_utf8_lossy(&line).into_owned();
                let call = line.split('(').next().unwrap();
                let call = call.rsplit(' ').next().unwrap();
                let place = line
                    .split_once('<')
                    .and_then(|(_, rest)| rest.split_once('>'));
                let place = place.map_or("", |(place, _)| place);
                let name = place.rsplit('/').next().unwrap();
                // A socket is followed by its number, and the name of an unfinished file by an
                // ending.
                let name = name.split([':', '[']).next().unwrap();
                format!("{call} {}", name.split(".luksmith-").next().unwrap())
            })
            .collect()
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill_process(self.process, Signal::KILL);
        // strace may wait for the end of the delay, or for the killed process.
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// The child of strace that is in this system call, and the call's first argument.
fn child_in(strace: &Child, call: i64) -> Option<(Pid, u64)> {
    let id = strace.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
    children.split_whitespace().find_map(|child| {
        // strace has started other children before.
        let program = fs::read_link(format!("/proc/{child}/exe")).ok()?;
        let state = fs::read_to_string(format!("/proc/{child}/syscall")).ok()?;
        let mut words = state.split_whitespace();
        if !program.ends_with("luksmith") || words.next()? != call.to_string() {
            return None;
        }
        let argument = u64::from_str_radix(words.next()?.trim_start_matches("0x"), 16).ok()?;
        Some((Pid::from_raw(child.parse().ok()?)?, argument))
    })
}

/// The bytes of a line of strace, in which it writes bytes as `\x00`.
fn bytes_of(line: &str) -> Vec<u8> {
    let mut pieces = line.split("\\x");
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let (byte, rest) = piece.split_at(2);
        bytes.push(u8::from_str_radix(byte, 16).unwrap());
        bytes.extend(rest.as_bytes());
    }
    bytes
}

/// Whether these tests can run. Only root can read the memory of a program that protects it.
fn is_here() -> bool {
    rustix::process::geteuid().is_root() && peers::find("strace").is_some()
}

fn value(connection: &Connection, path: &str) -> Vec<u8> {
    let usage = Usage::volume(path);
    let value = connection.secret_for(&usage).unwrap().value().unwrap();
    value.as_bytes().to_vec()
}

/// Checks that a command sends these passphrases only to the peers `whom`, and leaves none in
/// memory.
#[track_caller]
fn runs(
    daemon: &Daemon,
    arguments: &str,
    whom: &[&str],
    passphrases: impl FnOnce() -> Vec<Vec<u8>>,
) {
    let stopped = Stopped::at_end(daemon, arguments);
    let forms = Forms::of(&passphrases());
    let whom: BTreeSet<String> = whom.iter().map(|&place| place.to_owned()).collect();
    assert_eq!(stopped.told(&forms), whom, "luksmith {arguments}");
    let left = stopped.in_memory(&forms);
    assert_eq!(left, BTreeSet::new(), "luksmith {arguments}");
}

/// The files below a folder that hold one of the forms, except those named in `but`, and the
/// number of files that were read.
fn in_files(folder: &Path, forms: &Forms, but: &[&str]) -> (Vec<PathBuf>, usize) {
    let search = forms.search();
    let (mut found, mut looked) = (Vec::new(), 0);
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if but.iter().any(|name| path.ends_with(name)) {
                continue;
            }
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                looked += 1;
                if !search.found_in(&fs::read(&path).unwrap()).is_empty() {
                    found.push(path);
                }
            }
        }
    }
    (found, looked)
}

/// The peer to which values are sent: libvirt's socket.
const LIBVIRT: &[&str] = &["write socket"];

#[test]
fn no_command_leaves_a_passphrase_anywhere() {
    if !is_here() {
        return;
    }
    // libvirtd logs at its most detailed level.
    let Some(daemon) = Daemon::start_with("log_level = 1\n") else {
        return;
    };
    let host = Host::on(daemon);
    let (daemon, connection) = (&host.daemon, &host.connection);
    let (made, key) = (host.path("made"), random_text());
    let held = || value(connection, &made);

    let size = "--size 1M --pbkdf pbkdf2";
    let provision = format!("libvirt provision --pool p --name made {size} {CHEAP}");
    runs(daemon, &provision, LIBVIRT, || vec![held()]);
    let first = held();
    let rotate = format!("libvirt rotate {made} {CHEAP}");
    {
        // The search finds a passphrase where there is one.
        let stopped = Stopped::at(daemon, ("fsync", libc::SYS_fsync), &rotate);
        let found = stopped.in_memory(&Forms::of(&[held()]));
        assert!(!found.is_empty());
    }
    runs(daemon, &rotate, LIBVIRT, || vec![first.clone(), held()]);
    let second = held();

    let folder = daemon.folder();
    fs::write(folder.join("key"), &key).unwrap();
    daemon.ok("libvirt secret define --usage volume:other");
    let set = "libvirt secret set usage=volume:other --key-file key --force overwrite";
    runs(daemon, set, LIBVIRT, || vec![key.clone()]);
    let get = "libvirt secret get usage=volume:other --out got";
    runs(daemon, get, &["write .got"], || vec![key.clone()]);
    assert!(fs::read(folder.join("got")).unwrap() == key);

    let disk = format!("libvirt xml disk {made}");
    runs(daemon, &disk, &[], || vec![held()]);
    let Some(domain) = domains::define(daemon, "d") else {
        return;
    };
    runs(daemon, &format!("libvirt attach d {made}"), &[], || {
        vec![held()]
    });
    domain.start().unwrap();
    let live = format!("libvirt rotate d {CHEAP_LIVE}");
    runs(daemon, &live, LIBVIRT, || vec![second.clone(), held()]);
    let third = held();
    domain.destroy().unwrap();
    assert!(first != second && second != third, "nothing was rotated");

    // libvirt's own folder of secrets, the files of this test, and strace's trace.
    let but = ["libvirt/secrets", "files/key", "files/got", "files/trace"];
    let forms = Forms::of(&[first, second, third, key]);
    let (found, looked) = in_files(folder.parent().unwrap(), &forms, &but);
    assert_eq!(found, Vec::<PathBuf>::new());
    assert!(looked > 10, "only {looked} files");
    let log = fs::read_to_string(folder.parent().unwrap().join("log")).unwrap();
    assert!(log.contains("SecretSetValue"), "libvirtd logs nothing");
}

/// gnutls has buffers of its own, which must be wiped too.
#[test]
fn no_value_is_left_by_a_connection_with_tls() {
    let (true, Some(certtool)) = (is_here(), peers::find("certtool")) else {
        return;
    };
    let certificates = certificates::make(&certtool, "rsa");
    for (name, old) in [
        ("cacert", "ca-cert"),
        ("clientcert", "client-cert"),
        ("clientkey", "client-key"),
    ] {
        let place = |name| certificates.path().join(name).with_extension("pem");
        fs::copy(place(old), place(name)).unwrap();
    }
    // The port is free now, and it is unlikely that another program takes it before the daemon
    // does.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let folder = certificates.path().display();
    let settings = format!(
        "listen_tls = 1\nlisten_addr = \"127.0.0.1\"\ntls_port = \"{port}\"\nca_file = \"{folder}/ca-cert.pem\"\n\
         cert_file = \"{folder}/server-cert.pem\"\nkey_file = \"{folder}/server-key.pem\"\n"
    );
    let Some(daemon) = Daemon::start_with(&settings) else {
        return;
    };
    let key = random_text();
    fs::write(daemon.folder().join("key"), &key).unwrap();
    let here = daemon.run("libvirt secret define --usage volume:v");
    assert_eq!(here.code, Some(0), "{}: {}", here.stderr, daemon.log());
    let far = format!("--connect qemu+tls://localhost:{port}/system?pkipath={folder}");
    let set = format!("libvirt secret set usage=volume:v --key-file key --force overwrite {far}");
    runs(&daemon, &set, &[], || vec![key.clone()]);
    let get = format!("libvirt secret get usage=volume:v --out got {far}");
    runs(&daemon, &get, &["write .got"], || vec![key.clone()]);
    assert!(fs::read(daemon.folder().join("got")).unwrap() == key);
}

/// 48 random letters.
fn random_text() -> Vec<u8> {
    let mut bytes = [0; 36];
    luksmith::secret::random(&mut bytes).unwrap();
    BASE64_STANDARD.encode(bytes).into_bytes()
}
