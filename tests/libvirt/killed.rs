//! `luksmith libvirt rotate`, killed at any point: the secret opens its volumes, and another run
//! completes the rotation. A passphrase that a person adds in the meantime stays.

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use crate::beside::{later, with_keyslots};
use crate::host::Ran;
use crate::rotate::{CHEAP, Host, pattern};
use support::peers;

/// Options for the cheapest keyslot that QEMU makes.
const CHEAP_LIVE: &str = "--iter-time 1";

/// The system calls by which files change and requests are sent to libvirt.
const CALLS: [&str; 7] = [
    "pwrite64",
    "write",
    "fsync",
    "fdatasync",
    "renameat",
    "renameat2",
    "unlinkat",
];

/// Runs a command again and again, and kills it at the first call of each kind, then at every
/// `step`th later one, or in a long run at every later one. After each kill, `check` examines the
/// state, and `finish` must complete what it did. Returns the number of kills.
pub(crate) fn killed_everywhere(
    host: &Host,
    arguments: &str,
    step: usize,
    check: impl Fn(),
    finish: impl Fn(),
) -> Option<usize> {
    let strace = peers::find("strace")?;
    let step = if support::is_long() { 1 } else { step };
    let mut kills = 0;
    for call in CALLS {
        for at in (1..).step_by(step) {
            let (trace, inject) = (
                format!("trace={call}"),
                format!("inject={call}:signal=SIGKILL:when={at}"),
            );
            let options = ["-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
            let options = options.map(OsStr::new);
            let mut command = host.daemon.traced(&strace, &options, arguments);
            let output = command.output().unwrap();
            if output.status.signal().is_none() {
                let ran = Ran::of(output);
                assert!(ran.code == Some(0) || is_busy(&ran), "{ran:?}");
                finish();
                break;
            }
            kills += 1;
            for journal in host.journals() {
                assert_eq!(
                    std::fs::metadata(&journal).unwrap().permissions().mode() & 0o777,
                    0o600
                );
            }
            check();
            finish();
        }
    }
    Some(kills)
}

/// Whether QEMU could not measure how fast it is, as happens on a busy machine with the cheapest
/// keyslots.
fn is_busy(ran: &Ran) -> bool {
    ran.stderr.contains("Unable to get accurate CPU usage")
}

/// Recovery passphrases that an admin adds after a rotation was killed. They get the numbers of
/// keyslots that the rotation has removed, or was about to make.
struct Recovery<'a> {
    host: &'a Host,
    volume: &'a str,
    secret: &'a str,
    /// The files with those that were added.
    added: RefCell<Vec<&'static str>>,
}

impl<'a> Recovery<'a> {
    fn new(host: &'a Host, volume: &'a str, secret: &'a str) -> Self {
        for name in ["first", "last"] {
            let file = host.daemon.folder().join(name);
            std::fs::write(file, format!("a {name} passphrase for emergencies")).unwrap();
        }
        Self {
            host,
            volume,
            secret,
            added: RefCell::default(),
        }
    }

    /// Adds one in the first free keyslot, and one in the last keyslot if that is free.
    fn add(&self) {
        let add = |name: &'static str, keyslot: &str| {
            let added = self.host.daemon.run(&format!(
                "key add {} --key libvirt:{} --new-key-file {name} --pbkdf pbkdf2 {CHEAP} {keyslot}",
                self.host.path(self.volume),
                self.secret
            ));
            if added.code == Some(0) {
                self.added.borrow_mut().push(name);
            }
            added.code == Some(0)
        };
        assert!(add("first", ""));
        for last in ["--keyslot 31", "--keyslot 7"] {
            if add("last", last) {
                break;
            }
        }
    }

    /// Checks that they open the volume, and removes them.
    #[track_caller]
    fn remove(&self) {
        let added = self.added.take();
        for name in added {
            let path = self.host.path(self.volume);
            self.host
                .daemon
                .ok(&format!("key remove {path} --key-file {name}"));
        }
    }
}

#[test]
fn killed_anywhere_the_secret_opens_its_volume_and_another_run_finishes() {
    for (version, least) in [("luks1", 40), ("luks2", 40)] {
        let Some(host) = Host::new() else { return };
        if peers::find("qemu-img").is_none() {
            return;
        }
        let secret = host.volume("v", &format!("--type {version}"));
        let rotate = format!("libvirt rotate {} {CHEAP} --pbkdf pbkdf2", host.path("v"));
        let test = format!("key test {} --key libvirt:{secret}", host.path("v"));
        let recovery = Recovery::new(&host, "v", &secret);
        let check = || {
            host.daemon.ok(&test);
            if version == "luks1" {
                host.opens_in_qemu("v", &secret);
            }
            recovery.add();
        };
        let finish = || {
            host.daemon.ok(&rotate);
            recovery.remove();
            host.is_finished(&["v"], 1);
        };
        let step = if version == "luks1" { 3 } else { 9 };
        let Some(kills) = killed_everywhere(&host, &rotate, step, check, finish) else {
            return;
        };
        assert!(kills >= least / step, "killed only {kills} times");
        host.whole("v", &secret);
    }
}

#[test]
fn killed_anywhere_a_private_secret_has_what_opens_its_volume() {
    let Some(host) = Host::new() else { return };
    let Some(emulator) = peers::find("qemu-system-x86_64") else {
        return;
    };
    drop(emulator);
    let path = host.path("v");
    let folder = host.daemon.folder();
    for key in ["a", "b"] {
        std::fs::write(folder.join(key), format!("the passphrase {key}")).unwrap();
        std::fs::set_permissions(folder.join(key), PermissionsExt::from_mode(0o600)).unwrap();
    }
    std::fs::write(folder.join("plain"), pattern()).unwrap();
    host.daemon.ok(&format!(
        "encrypt plain {path} --key-file a --type luks1 {CHEAP}"
    ));
    let secret = host
        .daemon
        .ok(&format!(
            "libvirt secret define --usage volume:{path} --private"
        ))
        .text();
    host.daemon.ok(&format!(
        "libvirt secret set {secret} --key-file a --force overwrite"
    ));
    let domain = host.domain("d", "v", &secret).unwrap();

    host.daemon
        .run(&format!("libvirt rotate d {CHEAP}"))
        .is(2, &["private", "--key SOURCE"]);
    host.daemon
        .run(&format!("libvirt rotate d {CHEAP} --key-file b"))
        .is(2, &["does not open"]);
    host.daemon
        .run(&format!(
            "libvirt rotate d {CHEAP} --key-file a --new-key file:a"
        ))
        .is(1, &["is the one that the secret has"]);
    let rotate = |from: &str, to: &str| {
        format!("libvirt rotate d {CHEAP} --key-file {from} --new-key file:{to}")
    };
    let test = |key: &str| {
        host.daemon
            .run(&format!("key test {path} --key-file {key}"))
            .code
            == Some(0)
    };
    let present = || if test("a") { ("a", "b") } else { ("b", "a") };
    let check = || {
        domain.start().unwrap();
        domain.destroy().unwrap();
    };
    let finish = || {
        // From the passphrase that opens the volume now.
        let (from, to) = present();
        host.daemon.ok(&rotate(from, to));
        let (from, to) = present();
        if (from, to) == ("b", "a") {
            host.daemon.ok(&rotate("b", "a"));
        }
        host.is_finished(&["v"], 1);
    };
    let Some(kills) = killed_everywhere(&host, &rotate("a", "b"), 15, check, finish) else {
        return;
    };
    assert!(kills >= 5, "killed only {kills} times");
    check();
}

#[test]
fn a_secret_of_several_volumes_is_rotated_in_all_of_them() {
    let Some(host) = Host::new() else { return };
    if peers::find("qemu-img").is_none() {
        return;
    }
    let secret = host.volume("v", "--type luks1");
    std::fs::copy(host.path("v"), host.path("w")).unwrap();
    let Some(_first) = host.domain("d", "v", &secret) else {
        return;
    };
    let Some(_second) = host.domain("e", "w", &secret) else {
        return;
    };
    let rotate = format!("libvirt rotate {} {CHEAP}", host.path("w"));
    let both = || {
        ["v", "w"]
            .iter()
            .for_each(|name| host.opens_in_qemu(name, &secret))
    };
    let finish = || {
        host.daemon.ok(&rotate);
        host.is_finished(&["v", "w"], 1);
    };
    let Some(kills) = killed_everywhere(&host, &rotate, 15, both, finish) else {
        return;
    };
    assert!(kills >= 5, "killed only {kills} times");
    host.whole("v", &secret);
    host.whole("w", &secret);
}

#[test]
fn killed_while_the_domain_runs_it_can_start_again_and_another_run_finishes() {
    if let Some(emulator) = with_keyslots() {
        killed_while_it_runs(&emulator, CHEAP_LIVE, 75);
    }
}

#[test]
fn killed_beside_a_qemu_the_domain_can_start_again_and_another_run_finishes() {
    if let Some(emulator) = later() {
        killed_while_it_runs(&emulator, CHEAP, 20);
    }
}

/// `cheap` has the options for keyslots. The rotation is killed at every `step`th call.
fn killed_while_it_runs(emulator: &Path, cheap: &str, step: usize) {
    let Some(host) = Host::new() else { return };
    let secret = host.volume("v", "--type luks1");
    let domain = host.domain_with(emulator, "none", "d", "v", &secret);
    domain.start().unwrap();
    let rotate = format!("libvirt rotate d {cheap}");
    let recovery = Recovery::new(&host, "v", &secret);
    let kills = Cell::new(0);
    let check = || {
        kills.set(kills.get() + 1);
        if kills.get() % 2 == 0 {
            // The domain goes on running, with what the killed run left in its QEMU.
            host.daemon.ok(&format!(
                "key test {} --key libvirt:{secret} --force-share",
                host.path("v")
            ));
        } else {
            domain.destroy().unwrap();
            recovery.add();
            domain.start().unwrap();
        }
    };
    let finish = || {
        let mut runs = std::iter::repeat_with(|| host.daemon.run(&rotate));
        let ran = runs.find(|ran| !is_busy(ran)).unwrap();
        assert_eq!(ran.code, Some(0), "{ran:?}");
        if !recovery.added.borrow().is_empty() {
            domain.destroy().unwrap();
            recovery.remove();
            domain.start().unwrap();
        }
        host.is_finished(&["v"], 1);
    };
    let Some(kills) = killed_everywhere(&host, &rotate, step, check, finish) else {
        return;
    };
    assert!(kills >= 5, "killed only {kills} times");
    domain.destroy().unwrap();
    domain.start().unwrap();
    domain.destroy().unwrap();
    host.whole("v", &secret);
}
