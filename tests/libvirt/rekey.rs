//! `luksmith libvirt rekey` gives disks new volumes: of running domains whose guests write
//! meanwhile, and of those that are shut off. The payload stays, the old volumes are erased, and
//! what a copy would not change is refused.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use luksmith::libvirt::xml::{DomainXml, SecretRef};
use luksmith::libvirt::{Affect, Domain, DomainView, LibvirtError};
use luksmith_formats::json::{Value, json};

use crate::beside::ask;
use crate::daemon::Daemon;
use crate::host::Ran;
use crate::program::wait_until;
use crate::rotate::{CHEAP, Host, pattern};
use support::peers;

/// A disk of a domain: the path of its volume, and the secret that opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Current {
    pub(crate) path: String,
    pub(crate) secret: String,
}

/// What a disk of a running domain, or of its definition, is.
#[track_caller]
pub(crate) fn current(host: &Host, domain: &Domain, target: &str, inactive: bool) -> Current {
    let xml = domain.xml(DomainView::new().inactive(inactive)).unwrap();
    let xml = DomainXml::parse(xml.as_bytes()).unwrap();
    let source = xml.disk(target).unwrap().source.clone().unwrap();
    let encryption = source.encryption.unwrap();
    let secret = host.connection.find_secret(&encryption.secrets[0]).unwrap();
    assert!(matches!(encryption.secrets[0], SecretRef::Uuid(_)));
    Current {
        path: source.store.path().unwrap().to_owned(),
        secret: secret.uuid().unwrap().to_string(),
    }
}

impl Host {
    /// Starts a run that goes on beside the test.
    pub(crate) fn begin(&self, arguments: &str) -> Child {
        let mut command = self.daemon.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// The files in the folder of the pool.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let folder = self.path("x");
        let folder = Path::new(&folder).parent().unwrap();
        let files = std::fs::read_dir(folder).unwrap();
        let mut files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    /// Checks that these volumes and no others open with any passphrase, that each of the other
    /// files is a volume without keyslots, and that there is no journal. Removes the others.
    #[track_caller]
    pub(crate) fn only(&self, volumes: &[&Current], others: usize) {
        assert_eq!(self.journals(), Vec::<PathBuf>::new());
        assert_eq!(self.connection.secrets().unwrap().len(), volumes.len());
        let files = self.files();
        assert_eq!(files.len(), volumes.len() + others, "{files:?}");
        for file in files {
            let path = file.display().to_string();
            let keyslots = self.keyslots(file.file_name().unwrap().to_str().unwrap());
            match volumes.iter().find(|volume| volume.path == path) {
                Some(volume) => {
                    assert_eq!(keyslots.len(), 1);
                    self.opens(volume);
                }
                None => {
                    assert!(keyslots.is_empty(), "{path}: {keyslots:?}");
                    std::fs::remove_file(file).unwrap();
                }
            }
        }
    }

    #[track_caller]
    pub(crate) fn opens(&self, volume: &Current) {
        let Current { path, secret } = volume;
        let test = format!("key test {path} --key libvirt:{secret} --force-share");
        self.daemon.ok(&test);
    }

    /// The payload of a volume.
    #[track_caller]
    pub(crate) fn payload(&self, volume: &Current, options: &str) -> Vec<u8> {
        let Current { path, secret } = volume;
        let decrypt = format!("decrypt {path} - --key libvirt:{secret} {options}");
        self.daemon.ok(&decrypt).stdout
    }
}

/// Reads or writes on a disk as the guest would, by a command of qemu-io.
#[track_caller]
pub(crate) fn as_guest(domain: &Domain, disk: usize, command: &str) {
    let line =
        format!("qemu-io -d /machine/peripheral/virtio-disk{disk}/virtio-backend \"{command}\"");
    let said = ask(
        domain,
        "human-monitor-command",
        json!({"command-line": line}),
    );
    let text = said.as_str().unwrap();
    assert!(!text.contains("rror") && !text.contains("failed"), "{said}");
}

/// Writes to a disk as the guest would.
#[track_caller]
fn write(domain: &Domain, disk: usize, byte: u8, at: usize) {
    as_guest(domain, disk, &format!("write -P {byte} {at} 4096"));
}

/// Makes the secret private, whose value is in the file `value` then.
pub(crate) fn make_private(host: &Host, secret: &str) {
    host.keep(secret, "value");
    let known = host.connection.secret(&secret.parse().unwrap()).unwrap();
    let xml = known.xml().unwrap();
    known.undefine().unwrap();
    let private = xml.replace("private='no'", "private='yes'");
    host.connection.define_secret(&private).unwrap();
    host.daemon
        .ok(&format!("libvirt secret set {secret} --key-file value"));
}

/// Whether libvirt does not return the value of the secret.
pub(crate) fn is_private(host: &Host, secret: &str) -> bool {
    let secret = host.connection.secret(&secret.parse().unwrap()).unwrap();
    matches!(secret.value(), Err(LibvirtError::Private(_)))
}

/// Whether QEMU copies the disk now.
pub(crate) fn is_copied(domain: &Domain, target: &str) -> bool {
    domain.block_job(target).unwrap().is_some()
}

/// The program, killed if the test fails.
#[track_caller]
pub(crate) fn ended(child: Child) -> Ran {
    Ran::of(child.wait_with_output().unwrap())
}

#[test]
fn a_running_domain_gets_a_new_volume_while_its_guest_writes() {
    let Some(host) = Host::new() else { return };
    let secret = host.volume(
        "v.luks",
        "--type luks1 --cipher aes-cbc-essiv:sha256 --hash sha512",
    );
    let Some(domain) = host.domain("d", "v.luks", &secret) else {
        return;
    };
    host.keep(&secret, "old");
    domain.start().unwrap();
    write(&domain, 0, 1, 0);
    let refused = host.daemon.run(&format!("libvirt rekey d {CHEAP}"));
    refused.is(1, &["vda of d", "--force erase"]);

    let rekey = format!("libvirt rekey d {CHEAP} --force erase");
    let running = host.begin(&format!("{rekey} --rate 300K --json"));
    wait_until("the copy begins", || is_copied(&domain, "vda"));
    let mut expected = pattern();
    for step in 0..16 {
        write(&domain, 0, 2, step * 65536);
        expected[step * 65536..][..4096].fill(2);
    }
    let ran = ended(running);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let said = ran.json();
    let new = current(&host, &domain, "vda", false);
    assert_eq!(new, current(&host, &domain, "vda", true));
    let done = &said["rekeyed"][0];
    assert_eq!(
        (&done["image"], &done["secret"], &done["live"]),
        (&json!(new.path), &json!(new.secret), &json!(true)),
        "{said}"
    );
    assert_eq!(
        (&done["old_image"], &done["old_secret"]),
        (&json!(host.path("v.luks")), &json!(secret)),
        "{said}"
    );
    assert_eq!(
        (&done["erased"], &done["secret_removed"]),
        (&json!(true), &json!(true)),
        "{said}"
    );
    assert_ne!(new.secret, secret);
    write(&domain, 0, 3, 1 << 19);
    expected[1 << 19..][..4096].fill(3);

    // The old passphrase opens neither volume, and the new volume is as the old one was.
    for path in [&host.path("v.luks"), &new.path] {
        let test = format!("key test {path} --key-file old --force-share");
        host.daemon.run(&test).is(2, &[]);
    }
    let info = host
        .daemon
        .ok(&format!("info {} --json --force-share", new.path))
        .json();
    assert_eq!(info["cipher"], "aes-cbc-essiv:sha256", "{info}");
    host.only(&[&new], 1);

    domain.destroy().unwrap();
    domain.start().unwrap();
    domain.destroy().unwrap();
    assert!(host.payload(&new, "") == expected, "the payload is another");
}

#[test]
fn a_domain_that_is_shut_off_gets_a_new_volume_and_keeps_the_rest_of_its_definition() {
    let Some(host) = Host::new() else { return };
    let secret = host.volume("v.luks", "--type luks1");
    let Some(domain) = host.domain("d", "v.luks", &secret) else {
        return;
    };
    let view = DomainView::new().inactive(true);
    let before = domain.xml(view).unwrap();
    let before = before.replace(
        "<target dev='vda' bus='virtio'/>",
        "<iotune><total_iops_sec>77</total_iops_sec></iotune><target dev='vda' bus='virtio'/>\
         <serial>S 1</serial>",
    );
    let domain = host.connection.define_domain(&before).unwrap();
    let before = domain.xml(view).unwrap();
    assert!(before.contains("77") && before.contains("S 1"), "{before}");

    let said = host
        .daemon
        .ok(&format!("libvirt rekey d {CHEAP} --force erase"));
    let new = current(&host, &domain, "vda", true);
    let said = said.text();
    assert!(
        said.contains(&format!("vda of d is now {}", new.path)) && said.contains("is erased"),
        "{said}"
    );
    let after = domain.xml(view).unwrap();
    let restored = after
        .replace(&new.path, &host.path("v.luks"))
        .replace(&new.secret, &secret);
    assert_eq!(restored, before);
    host.only(&[&new], 1);
    assert!(host.payload(&new, "") == pattern());
    domain.start().unwrap();
    domain.destroy().unwrap();

    // Into another pool, with the old volume kept.
    let folder = host.daemon.folder().join("other");
    std::fs::create_dir(&folder).unwrap();
    let pool = format!(
        "<pool type='dir'><name>other</name><target><path>{}</path></target></pool>",
        folder.display()
    );
    let pool = host.connection.define_pool(&pool).unwrap();
    pool.start().unwrap();
    let kept = host
        .daemon
        .ok(&format!(
            "libvirt rekey d {CHEAP} --keep-old --pool other --json"
        ))
        .json();
    let newer = current(&host, &domain, "vda", true);
    assert!(
        newer.path.starts_with(folder.to_str().unwrap()),
        "{newer:?}"
    );
    assert_eq!(kept["rekeyed"][0]["erased"], false);
    for volume in [&new, &newer] {
        host.opens(volume);
        assert!(host.payload(volume, "") == pattern());
    }
    assert_eq!(pool.volumes().unwrap().len(), 1);
}

#[test]
fn two_disks_and_two_domains_are_copied_at_once() {
    let Some(host) = Host::new() else { return };
    let secrets: Vec<String> = ["a", "b", "c"]
        .iter()
        .map(|name| host.volume(name, "--type luks1"))
        .collect();
    let Some(first) = host.domain("d", "a", &secrets[0]) else {
        return;
    };
    let second = host.domain("e", "c", &secrets[2]).unwrap();
    let disk = format!(
        "<disk type='volume'><driver name='qemu' type='raw'/><source pool='p' volume='b'><encryption format='luks'>\
         <secret type='passphrase' usage='{}'/></encryption></source><target dev='vdb' bus='virtio'/></disk>",
        host.path("b")
    );
    first.attach(&disk, Affect::new().config(true)).unwrap();
    first.start().unwrap();
    let rekey = format!("libvirt rekey d e {CHEAP} --force erase --max-parallel 3");
    host.daemon
        .run(&format!("{rekey} --disk vda"))
        .is(1, &["not exactly one domain"]);
    let running = host.begin(&format!("{rekey} --rate 300K --progress json"));
    wait_until("both disks of the running domain are copied", || {
        is_copied(&first, "vda") && is_copied(&first, "vdb")
    });
    write(&first, 1, 9, 4096);
    let ran = ended(running);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(
        ran.stderr.contains(&format!("\"total\":{}", 3 << 20)),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains(&format!("\"done\":{}", 3 << 20)),
        "{}",
        ran.stderr
    );
    let new = [
        current(&host, &first, "vda", false),
        current(&host, &first, "vdb", false),
        current(&host, &second, "vda", true),
    ];
    assert_eq!(new[1], current(&host, &first, "vdb", true));
    host.only(&new.iter().collect::<Vec<_>>(), 3);
    first.destroy().unwrap();
    let mut expected = pattern();
    assert!(host.payload(&new[0], "") == expected && host.payload(&new[2], "") == expected);
    expected[4096..8192].fill(9);
    assert!(host.payload(&new[1], "") == expected);

    // One of the disks.
    host.daemon
        .ok(&format!("libvirt rekey d {CHEAP} --force erase --disk vdb"));
    assert_eq!(current(&host, &first, "vda", true), new[0]);
    let newer = current(&host, &first, "vdb", true);
    assert_ne!(newer, new[1]);
    host.only(&[&new[0], &newer, &new[2]], 1);
}

#[test]
fn a_qcow2_image_and_a_file_that_is_in_no_pool_get_new_volumes() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let Some(domain) = crate::domains::define(&daemon, "d") else {
        return;
    };
    let host = Host::on(daemon);
    let plain = host.daemon.folder().join("plain");
    std::fs::write(&plain, pattern()).unwrap();
    let folder = host.daemon.folder();
    for (name, format, target) in [("a.qcow2", "qcow2", "vda"), ("b.img", "raw", "vdb")] {
        let path = folder.join(name).display().to_string();
        let secret = host
            .daemon
            .ok(&format!(
                "libvirt secret define --usage volume:{path} --generate"
            ))
            .text();
        host.daemon.ok(&format!(
            "encrypt plain {path} --type luks1 --format {format} --key libvirt:{secret} {CHEAP}"
        ));
        host.daemon.ok(&format!(
            "libvirt attach d {path} --format {format} --config --target {target}"
        ));
    }
    let rekey = format!("libvirt rekey d {CHEAP} --force erase");
    let mut expected = pattern();
    for online in [false, true] {
        if online {
            domain.start().unwrap();
        }
        host.daemon.ok(&rekey);
        if online {
            write(&domain, 0, 7, 8192);
            write(&domain, 1, 7, 8192);
            expected[8192..][..4096].fill(7);
            domain.destroy().unwrap();
        }
        let new = [
            (current(&host, &domain, "vda", true), "--format qcow2"),
            (current(&host, &domain, "vdb", true), "--format raw"),
        ];
        assert_eq!(host.connection.secrets().unwrap().len(), 2);
        for (volume, format) in &new {
            assert_eq!(Path::new(&volume.path).parent(), Some(&*folder));
            assert!(host.payload(volume, format) == expected, "{volume:?}");
        }
        domain.start().unwrap();
        domain.destroy().unwrap();
    }
    assert_eq!(host.journals(), Vec::<PathBuf>::new());

    // A snapshot within the image would be lost.
    let image = current(&host, &domain, "vda", true);
    host.keep(&image.secret, "held");
    let secret = format!("secret,id=s,file={}", folder.join("held").display());
    let options = format!(
        "driver=qcow2,encrypt.format=luks,encrypt.key-secret=s,file.filename={}",
        image.path
    );
    let mut command = Command::new(peers::find("qemu-img").expect("a peer that was there"));
    command.args(["snapshot", "-c", "s", "--object", &secret]);
    peers::run(command.args(["--image-opts", &options]));
    host.daemon
        .run(&format!("{rekey} --disk vda"))
        .is(5, &["the domain has snapshots"]);
    let Current { path, secret } = image;
    let test = format!("key test {path} --format qcow2 --key libvirt:{secret}");
    host.daemon.ok(&test);
}

#[test]
fn a_private_secret_gets_a_private_one() {
    let Some(host) = Host::new() else { return };
    let secret = host.volume("v", "--type luks1");
    let Some(domain) = host.domain("d", "v", &secret) else {
        return;
    };
    make_private(&host, &secret);
    domain.start().unwrap();
    as_guest(&domain, 0, "write -P 7 0 1M");
    domain.destroy().unwrap();
    let rekey = format!("libvirt rekey d {CHEAP} --force erase");
    host.daemon.run(&rekey).is(2, &["private", "--key SOURCE"]);
    assert_eq!(host.files().len(), 1);
    // While it is shut off, with the present passphrase; while it runs, without.
    let mut olds = vec![secret];
    for (online, key) in [(false, "--key-file value"), (true, "")] {
        if online {
            domain.start().unwrap();
        }
        host.daemon.ok(&format!("{rekey} {key}"));
        if !online {
            domain.start().unwrap();
        }
        as_guest(&domain, 0, "read -P 7 0 1M");
        domain.destroy().unwrap();
        let new = current(&host, &domain, "vda", true);
        assert!(is_private(&host, &new.secret));
        for old in &olds {
            assert_ne!(&new.secret, old);
            assert!(host.connection.secret(&old.parse().unwrap()).is_err());
        }
        olds.push(new.secret);
    }
    domain.start().unwrap();
    as_guest(&domain, 0, "read -P 7 0 1M");
    domain.destroy().unwrap();
}

#[test]
fn no_passphrase_is_in_messages_journals_or_logs() {
    let Some(host) = Host::new() else { return };
    let secret = host.volume("v", "--type luks1");
    let Some(domain) = host.domain("d", "v", &secret) else {
        return;
    };
    host.keep(&secret, "old");
    domain.start().unwrap();
    let mut command = host.daemon.command(&format!(
        "libvirt rekey d {CHEAP} --force erase --rate 300K -vvv"
    ));
    command.env("LUKSMITH_LOG", "trace");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = command.spawn().unwrap();
    wait_until("the copy begins", || is_copied(&domain, "vda"));
    let journals = host.journals();
    assert_eq!(journals.len(), 1);
    let journal = std::fs::read_to_string(&journals[0]).unwrap();
    assert!(
        journal.contains("copying") && journal.contains(&secret),
        "{journal}"
    );
    let ran = ended(running);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let new = current(&host, &domain, "vda", true);
    host.keep(&new.secret, "new");
    let said = format!("{journal}{}{}{}", ran.text(), ran.stderr, host.daemon.log());
    for name in ["old", "new"] {
        let value = std::fs::read_to_string(host.daemon.folder().join(name)).unwrap();
        assert_eq!(value.trim().len(), 44);
        assert!(!said.contains(value.trim()), "the {name} passphrase");
    }
    let parsed: Value = journal.parse().unwrap();
    assert_eq!(parsed["new"]["secret"], new.secret.as_str());
}
