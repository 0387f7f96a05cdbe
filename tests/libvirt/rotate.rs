//! `luksmith libvirt rotate` replaces passphrases, of closed volumes and of those of running
//! domains, and the payload stays the same.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use luksmith::libvirt::xml::Usage;
use luksmith::libvirt::{Connection, Domain, Pool};
use luksmith_formats::json::{Value, json};

use crate::daemon::Daemon;
use crate::host::Ran;
use support::peers;

/// Options for the cheapest keyslot that luksmith makes, and for the cheapest that QEMU makes.
pub(crate) const CHEAP: &str = "--pbkdf-force-iterations 1000";
pub(crate) const CHEAP_LIVE: &str = "--iter-time 1";

/// A libvirtd with a pool for encrypted volumes.
pub(crate) struct Host {
    pub(crate) daemon: Daemon,
    pub(crate) connection: Connection,
    pool: Pool,
}

impl Host {
    pub(crate) fn new() -> Option<Self> {
        Daemon::start().map(Self::on)
    }

    pub(crate) fn on(daemon: Daemon) -> Self {
        let connection = daemon.connect();
        let folder = daemon.folder().join("pool");
        std::fs::create_dir(&folder).unwrap();
        let xml = format!(
            "<pool type='dir'><name>p</name><target><path>{}</path></target></pool>",
            folder.display()
        );
        let pool = connection.define_pool(&xml).unwrap();
        pool.start().unwrap();
        Self {
            daemon,
            connection,
            pool,
        }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.daemon
            .folder()
            .join("pool")
            .join(name)
            .display()
            .to_string()
    }

    /// Makes a volume with a pattern in it, and returns the UUID of the secret that opens it.
    pub(crate) fn volume(&self, name: &str, options: &str) -> String {
        let path = self.path(name);
        let secret = self
            .daemon
            .ok(&format!(
                "libvirt secret define --usage volume:{path} --generate"
            ))
            .text();
        std::fs::write(self.daemon.folder().join("plain"), pattern()).unwrap();
        self.daemon.ok(&format!(
            "encrypt plain {path} --key libvirt:{secret} --pbkdf pbkdf2 {CHEAP} {options}"
        ));
        self.pool.refresh().unwrap();
        secret
    }

    /// A domain with the volume as its disk, whose guest does nothing.
    pub(crate) fn domain(&self, name: &str, volume: &str, secret: &str) -> Option<Domain> {
        let emulator = peers::find("qemu-system-x86_64")?;
        Some(self.domain_with(&emulator, "default", name, volume, secret))
    }

    /// The same with this QEMU and this cache mode. Without ACPI, libvirt 9.0 passes an argument
    /// that later versions of QEMU do not take.
    pub(crate) fn domain_with(
        &self,
        emulator: &Path,
        cache: &str,
        name: &str,
        volume: &str,
        secret: &str,
    ) -> Domain {
        let xml = format!(
            "<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory><os><type machine='pc'>hvm</type></os>\
             <features><acpi/></features><devices>\
             <emulator>{}</emulator><disk type='file'><driver name='qemu' type='raw' cache='{cache}'/><source file='{}'><encryption format='luks'>\
             <secret type='passphrase' uuid='{secret}'/></encryption></source><target dev='vda' bus='virtio'/></disk></devices></domain>",
            emulator.display(),
            self.path(volume)
        );
        self.connection.define_domain(&xml).unwrap()
    }

    /// Checks that the payload is the pattern, decrypted with the secret.
    #[track_caller]
    pub(crate) fn whole(&self, name: &str, secret: &str) {
        let read = self.daemon.ok(&format!(
            "decrypt {} - --key libvirt:{secret}",
            self.path(name)
        ));
        assert!(read.stdout == pattern(), "the payload of {name} is another");
    }

    /// The numbers of the keyslots.
    pub(crate) fn keyslots(&self, name: &str) -> Vec<u64> {
        let listed = self
            .daemon
            .ok(&format!("key list {} --json", self.path(name)))
            .json();
        let slots = listed["keyslots"]
            .as_array()
            .unwrap_or_else(|| panic!("{listed}"));
        slots
            .iter()
            .map(|slot| {
                slot["keyslot"]
                    .as_u64()
                    .unwrap_or_else(|| panic!("{listed}"))
            })
            .collect()
    }

    pub(crate) fn keep(&self, secret: &str, name: &str) {
        let _ = std::fs::remove_file(self.daemon.folder().join(name));
        self.daemon
            .ok(&format!("libvirt secret get {secret} --out {name}"));
    }

    /// The journals that exist.
    pub(crate) fn journals(&self) -> Vec<PathBuf> {
        let folder = std::fs::read_dir(self.daemon.folder().join("state/luksmith"));
        let files = folder
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path());
        files
            .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
            .collect()
    }

    /// Checks that QEMU opens the volume with the present value of the secret, so that a domain
    /// would start.
    #[track_caller]
    pub(crate) fn opens_in_qemu(&self, name: &str, secret: &str) {
        self.keep(secret, "held");
        let mut command = Command::new(peers::find("qemu-img").expect("a peer that was there"));
        command.args(["check", "-U", "--object"]).arg(format!(
            "secret,id=s,file={}",
            self.daemon.folder().join("held").display()
        ));
        command.args([
            "--image-opts",
            &format!("driver=luks,key-secret=s,file.filename={}", self.path(name)),
        ]);
        let output = peers::output(&mut command);
        // Exit code 63 means that the format has no check, and comes only after the volume was
        // opened.
        assert_eq!(
            output.status.code(),
            Some(63),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Checks that a rotation left nothing: one keyslot in each volume, no journal, and only this
    /// number of secrets.
    #[track_caller]
    pub(crate) fn is_finished(&self, volumes: &[&str], secrets: usize) {
        for name in volumes {
            assert_eq!(
                self.keyslots(name).len(),
                1,
                "{name} has keyslots {:?}",
                self.keyslots(name)
            );
        }
        assert_eq!(self.journals(), Vec::<PathBuf>::new());
        assert_eq!(self.connection.secrets().unwrap().len(), secrets);
    }
}

pub(crate) fn pattern() -> Vec<u8> {
    (0..251u8).cycle().take(1 << 20).collect()
}

#[test]
fn a_domain_is_rotated_while_it_runs_and_starts_again() {
    let Some(host) = Host::new() else { return };
    let secret = host.volume("v", "--type luks1");
    let Some(domain) = host.domain("d", "v", &secret) else {
        return;
    };
    domain.start().unwrap();
    for round in 0..2 {
        host.keep(&secret, "old");
        let said = host
            .daemon
            .ok(&format!("libvirt rotate d {CHEAP_LIVE}"))
            .text();
        assert!(
            said.contains(&host.path("v")) && said.contains("has the new passphrase"),
            "{said}"
        );
        host.daemon
            .run(&format!(
                "key test {} --key-file old --force-share",
                host.path("v")
            ))
            .is(2, &[]);
        host.daemon.ok(&format!(
            "key test {} --key libvirt:{secret} --force-share",
            host.path("v")
        ));
        host.is_finished(&["v"], 1);
        if round == 1 {
            // QEMU still holds its lock on the volume.
            host.daemon
                .run(&format!("verify-ciphertext {}", host.path("v")))
                .is(5, &["busy"]);
        }
    }
    domain.destroy().unwrap();
    domain.start().unwrap();
    assert!(domain.is_active().unwrap());
    domain.destroy().unwrap();
    host.whole("v", &secret);
    assert_eq!(
        host.daemon
            .run(&format!("libvirt rotate {} {CHEAP}", host.path("v")))
            .code,
        Some(0)
    );
    host.whole("v", &secret);
    domain.start().unwrap();
}

#[test]
fn a_pool_is_rotated_despite_failures_and_each_is_reported() {
    let Some(host) = Host::new() else { return };
    let secrets: Vec<String> = ["a", "b", "c"]
        .iter()
        .map(|name| host.volume(name, ""))
        .collect();
    let before: Vec<u64> = host.keyslots("b");
    // Another program has one of them open.
    let mut holder = host.daemon.command(&format!(
        "serve {} --key libvirt:{} --socket serve/s",
        host.path("b"),
        secrets[1]
    ));
    let mut holder = holder
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let socket = host.daemon.folder().join("serve/s");
    for _ in 0..600 {
        if socket.exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let ran = host.daemon.run(&format!(
        "libvirt rotate --pool p {CHEAP} --pbkdf pbkdf2 --json --progress json"
    ));
    ran.is(
        5,
        &[
            "1 of 3 secrets were not rotated",
            "\"done\":3",
            "run it again",
        ],
    );
    let said = ran.json();
    let rotated: Vec<&Value> = said["rotated"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["secret"])
        .collect();
    assert!(
        rotated.len() == 2 && !rotated.contains(&&json!(secrets[1])),
        "{said}"
    );
    assert!(
        said["failed"][0]["secret"] == *secrets[1]
            && said["failed"][0]["message"]
                .as_str()
                .unwrap()
                .contains("busy"),
        "{said}"
    );
    assert_eq!(host.keyslots("b"), before);
    holder.kill().unwrap();
    holder.wait().unwrap();
    host.daemon
        .ok(&format!("libvirt rotate --all {CHEAP} --pbkdf pbkdf2"));
    host.is_finished(&["a", "b", "c"], 3);
    for (name, secret) in ["a", "b", "c"].iter().zip(&secrets) {
        host.whole(name, secret);
    }
    host.daemon
        .run("libvirt rotate --pool nosuch")
        .is(4, &["no such storage pool"]);
    host.daemon
        .run("libvirt rotate nosuch")
        .is(4, &["nosuch", "no encrypted volume"]);
    host.daemon.run("libvirt rotate").is(1, &[]);
    host.daemon
        .run("libvirt rotate --all --new-key stdin")
        .is(1, &["several secrets"]);
}

#[test]
fn a_check_finds_what_is_wrong_and_changes_nothing() {
    let Some(host) = Host::new() else { return };
    let (good, wrong, wiped) = (
        host.volume("good", ""),
        host.volume("wrong", ""),
        host.volume("wiped", "--type luks1"),
    );
    let named = |ran: &Ran| {
        let findings = ran.json()["findings"].as_array().unwrap().clone();
        let mut names: Vec<(String, Option<String>)> = findings
            .iter()
            .map(|finding| {
                (
                    finding["id"].as_str().unwrap().to_owned(),
                    finding["secret"].as_str().map(str::to_owned),
                )
            })
            .collect();
        names.sort();
        names
    };
    let check = || host.daemon.run("libvirt rotate --all --check --json");
    let clean = check();
    assert_eq!((clean.code, named(&clean)), (Some(0), Vec::new()));
    assert!(
        host.daemon
            .ok("libvirt rotate --pool p --check")
            .text()
            .contains("volumes checked: 3; nothing is wrong")
    );

    // Plaintext over a volume, which libvirt accepts.
    let volume = host.pool.volume("wiped").unwrap();
    volume
        .upload(&host.connection, 0, &mut &pattern()[..])
        .unwrap();
    host.daemon.ok(&format!(
        "key add {} --key libvirt:{wrong} --new-key file:plain {CHEAP} --pbkdf pbkdf2",
        host.path("wrong")
    ));
    let other = host.daemon.folder().join("other");
    std::fs::write(&other, "another").unwrap();
    host.daemon.ok(&format!(
        "libvirt secret set {wrong} --key-file other --force overwrite"
    ));
    let empty = host
        .daemon
        .ok("libvirt secret define --usage volume:nothing")
        .text();
    let path = host.path("removed");
    let absent = host
        .daemon
        .ok(&format!(
            "libvirt secret define --usage volume:{path} --generate"
        ))
        .text();
    let expected = [
        ("no-value", &empty),
        ("no-volume", &absent),
        ("no-volume", &wiped),
        ("wrong-value", &wrong),
    ];
    let mut expected: Vec<_> = expected
        .into_iter()
        .map(|(name, secret)| (name.to_owned(), Some(secret.clone())))
        .collect();
    expected.sort();
    let found = check();
    assert_eq!((found.code, named(&found)), (Some(11), expected.clone()));
    let found = found.json()["findings"].as_array().unwrap().clone();
    let found = found.iter().find(|finding| finding["secret"] == absent);
    assert_eq!(found.unwrap()["image"], path);
    // After a refresh the pool reports no encryption. The usage of the secret still names the
    // volume.
    host.pool.refresh().unwrap();
    assert_eq!(named(&check()), expected);

    let usage = |id: String| Usage::volume(id);
    host.connection
        .secret_for(&usage(host.path("wiped")))
        .unwrap()
        .undefine()
        .unwrap();
    host.connection
        .secret_for(&usage(path))
        .unwrap()
        .undefine()
        .unwrap();
    host.connection
        .secret_for(&usage("nothing".to_owned()))
        .unwrap()
        .undefine()
        .unwrap();
    host.daemon
        .ok(&format!("libvirt secret remove {wrong} --force in-use"));
    std::fs::copy(host.path("good"), host.path("twin")).unwrap();
    let Some(_first) = host.domain("d", "good", &good) else {
        return;
    };
    let Some(_second) = host.domain("e", "twin", &good) else {
        return;
    };
    let Some(_third) = host.domain("f", "wrong", &wrong) else {
        return;
    };
    let journal = host
        .daemon
        .folder()
        .join(format!("state/luksmith/rotate-{good}.json"));
    std::fs::create_dir_all(journal.parent().unwrap()).unwrap();
    std::fs::write(&journal, "{}").unwrap();
    let private = host
        .daemon
        .ok(&format!(
            "libvirt secret define --usage volume:{} --private --generate",
            host.path("wiped")
        ))
        .text();
    // XML that is nested deeper than luksmith reads. libvirt accepts it.
    let deep = "<a>".repeat(80) + &"</a>".repeat(80);
    let deep = format!("<m:m xmlns:m='urn:m'>{deep}</m:m>");
    let xml = format!(
        "<domain type='qemu'><name>deep</name><metadata>{deep}</metadata><memory>1024</memory><os><type>hvm</type></os>\
         <devices><emulator>{}</emulator></devices></domain>",
        peers::find("qemu-system-x86_64").unwrap().display()
    );
    host.connection.define_domain(&xml).unwrap();
    let expected = [
        ("no-secret", None),
        ("shared", Some(&good)),
        ("unfinished", Some(&good)),
        ("unread", None),
        ("untested", Some(&private)),
    ];
    let expected: Vec<_> = expected
        .into_iter()
        .map(|(name, secret)| (name.to_owned(), secret.cloned()))
        .collect();
    assert_eq!(named(&check()), expected);
    host.daemon
        .run(&format!("libvirt rotate d {CHEAP}"))
        .is(4, &["journal", "damaged"]);
}

/// A journal says which keyslots and which secret are removed.
#[test]
fn a_journal_that_another_user_could_have_written_is_not_believed() {
    // Only root gives files to another user.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let Some(host) = Host::new() else { return };
    let secret = host.volume("v", "");
    let before = host.keyslots("v");
    let state = host.daemon.folder().join("theirs");
    let journal = state.join(format!("rotate-{secret}.json"));
    std::fs::create_dir(&state).unwrap();
    std::fs::write(&journal, "{}").unwrap();
    let refused = || {
        let rotate = format!(
            "libvirt rotate {} --state-dir theirs {CHEAP}",
            host.path("v")
        );
        let ran = host.daemon.run(&rotate);
        ran.is(
            2,
            &[
                "are not trusted",
                "belongs to user 65534",
                "--state-dir DIR",
            ],
        );
        assert_eq!(host.keyslots("v"), before);
        let left = std::fs::read_dir(&state).unwrap();
        assert_eq!(left.count(), 1, "only the journal");
    };
    std::os::unix::fs::chown(&journal, Some(65534), None).unwrap();
    refused();
    std::os::unix::fs::chown(&journal, Some(0), None).unwrap();
    std::os::unix::fs::chown(&state, Some(65534), None).unwrap();
    refused();
}

#[test]
fn a_pin_follows_a_rotation() {
    let Some(host) = Host::new() else { return };
    let (path, secret) = (host.path("v.img"), host.volume("v.img", "--type luks1"));
    let key = format!("--trust pins --key libvirt:{secret}");
    host.daemon.ok(&format!("trust init {path} {key}"));
    let rotate = format!("libvirt rotate {path} --trust pins {CHEAP}");
    host.daemon.ok(&rotate);
    host.daemon.ok(&format!("trust verify {path} {key}"));
    host.whole("v.img", &secret);
    // Without the pin it is a change of another program.
    host.daemon.ok(&format!("libvirt rotate {path} {CHEAP}"));
    host.daemon.run(&rotate).is(7, &["as it is pinned"]);
    host.daemon.ok(&format!("trust accept {path} {key}"));
    host.daemon.ok(&rotate);
    host.daemon.ok(&format!("trust verify {path} {key}"));
}
