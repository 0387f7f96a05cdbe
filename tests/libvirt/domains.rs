//! Domains start with volumes of `luksmith libvirt provision`, whose guests read and write them,
//! and disks are attached and detached.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use luksmith::Interrupt;
use luksmith::backend::file::{FileBackend, OpenOptions};
use luksmith::container::{self, Container, Undo, Which};
use luksmith::libvirt::xml::DomainXml;
use luksmith::libvirt::{self, Domain};
use luksmith::secret::Passphrase;
use luksmith_formats::json::Value;
use rustix::process::{Pid, Signal, kill_process};

use crate::daemon::Daemon;
use crate::program::{Running, SIZE, content, wait_until};
use support::boot_sector;
use support::peers;

/// The cheapest keyslot.
pub(crate) const CHEAP: &str = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000";

/// A domain without disks. The guest in `support::boot_sector` ends it by the debug port.
pub(crate) fn define(daemon: &Daemon, name: &str) -> Option<Domain> {
    define_with(daemon, name, "")
}

/// The same, with more XML.
pub(crate) fn define_with(daemon: &Daemon, name: &str, more: &str) -> Option<Domain> {
    let emulator = peers::find("qemu-system-x86_64")?;
    let xml = format!(
        "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>{name}</name>\
         <memory unit='MiB'>32</memory>{more}<os><type machine='pc'>hvm</type><boot dev='hd'/></os><features><acpi/></features>\
         <devices><emulator>{}</emulator></devices>\
         <qemu:commandline><qemu:arg value='-device'/><qemu:arg value='isa-debug-exit,iobase=0xf4,iosize=1'/></qemu:commandline></domain>",
        emulator.display()
    );
    Some(daemon.connect().define_domain(&xml).unwrap())
}

/// A pool over the daemon's folder.
pub(crate) fn define_pool(daemon: &Daemon, name: &str) {
    let path = daemon.folder();
    let xml = format!(
        "<pool type='dir'><name>{name}</name><target><path>{}</path></target></pool>",
        path.display()
    );
    let pool = daemon.connect().define_pool(&xml).unwrap();
    pool.start().unwrap();
}

/// Runs `luksmith libvirt provision …` and returns its JSON. No output holds the passphrase.
pub(crate) fn provision(daemon: &Daemon, arguments: &str) -> Value {
    let ran = daemon.ok(&format!("libvirt provision {arguments} {CHEAP} --json"));
    let made = ran.json();
    let passphrase = passphrase(daemon, &made);
    let text = std::str::from_utf8(passphrase.as_bytes()).unwrap();
    assert_eq!(text.len(), 44, "256 bits in base64");
    assert!(!ran.text().contains(text) && !ran.stderr.contains(text));
    made
}

/// The value of a volume's secret.
pub(crate) fn passphrase(daemon: &Daemon, made: &Value) -> Passphrase {
    let uuid = made["secret"].as_str().unwrap().parse().unwrap();
    daemon.connect().secret(&uuid).unwrap().value().unwrap()
}

/// Writes the boot sector and the pattern into a volume.
pub(crate) fn fill(image: &Path, passphrase: &Passphrase) {
    let write = OpenOptions::new().write(true);
    let storage = Arc::new(FileBackend::open(image, write).unwrap());
    let container = Container::open(
        storage.clone(),
        container::OpenOptions::new(Undo::NotLookedFor),
    )
    .unwrap();
    let unlocked = container
        .unlock(passphrase, Which::Any, &Interrupt::new())
        .unwrap();
    let volume = container.volume(storage, &unlocked).unwrap();
    assert_eq!(volume.size(), SIZE as u64);
    let mut plain = content();
    plain[..512].copy_from_slice(&boot_sector::sector());
    volume.write_at(0, &plain).unwrap();
    volume.flush().unwrap();
}

/// Starts a domain whose disk is a filled volume, and waits until its guest ends it.
pub(crate) fn run(daemon: &Daemon, domain: &Domain) {
    domain
        .start()
        .unwrap_or_else(|error| panic!("{error}: {:?}: {}", error.reply(), daemon.log()));
    wait_until("the guest ends", || !domain.is_active().unwrap());
}

/// Checks that the guest has read and written the volume.
pub(crate) fn assert_guest_ran(daemon: &Daemon, image: &str, made: &Value) {
    let key = made["secret"].as_str().unwrap();
    let plain = daemon.ok(&format!("decrypt {image} - --key libvirt:{key}"));
    assert!(
        plain.stdout == boot_sector::disk_after(content()),
        "{image} is not as the guest leaves it"
    );
}

pub(crate) fn disks(domain: &Domain, inactive: bool) -> Vec<String> {
    let which = libvirt::DomainView::new().inactive(inactive);
    let xml = domain.xml(which).unwrap();
    let disks = DomainXml::parse(xml.as_bytes()).unwrap().disks;
    disks.into_iter().map(|disk| disk.target.dev).collect()
}

#[test]
fn a_domain_starts_from_a_volume_of_a_pool() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let Some(domain) = define(&daemon, "d") else {
        return;
    };
    define_pool(&daemon, "p");
    let made = provision(&daemon, &format!("--pool p --name v.luks --size {SIZE}"));
    let path = daemon.folder().join("v.luks");
    assert_eq!(made["path"], path.to_str().unwrap());
    assert_eq!(
        (&made["type"], &made["size"]),
        (&"luks1".into(), &SIZE.into())
    );
    // The pool itself has found the secret.
    let volume = daemon
        .connect()
        .pool("p")
        .unwrap()
        .volume("v.luks")
        .unwrap();
    let found = volume.xml().unwrap();
    assert!(found.contains(made["secret"].as_str().unwrap()), "{found}");
    fill(&path, &passphrase(&daemon, &made));

    // With the disk XML that was printed, and then with `attach`.
    let config = libvirt::Affect::new().config(true);
    domain
        .attach(made["xml"].as_str().unwrap(), config)
        .unwrap();
    run(&daemon, &domain);
    assert_guest_ran(&daemon, "v.luks", &made);
    daemon.ok("libvirt detach d vda");

    fill(&path, &passphrase(&daemon, &made));
    daemon.ok(&format!(
        "libvirt attach d volume:p/v.luks --secret {}",
        made["secret"].as_str().unwrap()
    ));
    run(&daemon, &domain);
    assert_guest_ran(&daemon, "v.luks", &made);
}

#[test]
fn a_domain_starts_from_a_file_an_export_and_a_served_volume() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let (Some(nbdkit), Some(domain)) = (peers::find("nbdkit"), define(&daemon, "d")) else {
        return;
    };
    let folder = daemon.folder();

    // A file, whose secret `attach` finds by its path.
    let file = provision(&daemon, &format!("f.img --size {SIZE}"));
    fill(&folder.join("f.img"), &passphrase(&daemon, &file));
    daemon.ok("libvirt attach d f.img --cache none --discard unmap --serial S1");
    run(&daemon, &domain);
    assert_guest_ran(&daemon, "f.img", &file);
    daemon.ok("libvirt detach d f.img --config");
    assert!(disks(&domain, true).is_empty());

    // An export, which becomes a volume as a whole.
    let storage = std::fs::File::create(folder.join("remote")).unwrap();
    storage.set_len(SIZE as u64 + (2 << 20)).unwrap();
    let mut server = Command::new(nbdkit);
    server.args(["-f", "-U"]).arg(folder.join("r.sock"));
    server
        .arg("file")
        .arg(folder.join("remote"))
        .stdin(Stdio::null());
    let server = Running::with_socket(server, &folder.join("r.sock"));
    let uri = "nbd+unix:///?socket=r.sock";
    let remote = provision(&daemon, uri);
    fill(&folder.join("remote"), &passphrase(&daemon, &remote));
    let secret = remote["secret"].as_str().unwrap();
    daemon.ok(&format!("libvirt attach d {uri} --secret {secret}"));
    run(&daemon, &domain);
    drop(server);
    assert_guest_ran(&daemon, "remote", &remote);
    daemon.ok("libvirt detach d vda");

    // LUKS2, which luksmith serves to the emulator's user with the command that `provision`
    // printed.
    let user = Command::new("id").arg("-un").output().unwrap().stdout;
    let user = String::from_utf8(user).unwrap();
    let served = format!("two.img --size {SIZE} --served s/two.sock --emulator-user {user}");
    let served = provision(&daemon, &served);
    assert_eq!(served["type"], "luks2");
    fill(&folder.join("two.img"), &passphrase(&daemon, &served));
    let hint = served["hints"][0].as_str().unwrap();
    let (_, serve) = hint
        .split_once("before the machine starts: luksmith ")
        .unwrap();
    std::fs::create_dir(folder.join("s")).unwrap();
    let server = Running::with_socket(daemon.command(serve), &folder.join("s/two.sock"));
    daemon.ok("libvirt attach d two.img --served s/two.sock");
    run(&daemon, &domain);
    drop(server);
    assert_guest_ran(&daemon, "two.img", &served);
}

#[test]
fn disks_are_attached_to_and_detached_from_a_running_domain() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let Some(domain) = define(&daemon, "d") else {
        return;
    };
    domain.start().unwrap();
    provision(&daemon, &format!("a.img --size {SIZE}"));

    daemon.ok("libvirt attach d a.img --target sda --bus usb --live");
    assert_eq!(
        (disks(&domain, false), disks(&domain, true)),
        (vec!["sda".to_owned()], vec![])
    );
    // The guest sees the plaintext.
    assert_eq!(domain.block_info("sda").unwrap().capacity, SIZE as u64);
    daemon.ok("libvirt detach d a.img");
    assert!(disks(&domain, false).is_empty());

    let both = daemon
        .ok("libvirt attach d a.img --target sda --bus usb --json")
        .json();
    assert_eq!(
        (&both["live"], &both["config"]),
        (&true.into(), &true.into())
    );
    daemon
        .run("libvirt attach d a.img --target sdb --bus usb")
        .is(5, &["is attached already, as sda", "libvirt detach d sda"]);
    provision(&daemon, &format!("b.img --size {SIZE}"));
    daemon
        .run("libvirt attach d b.img --target sda --bus usb")
        .is(4, &["already exists"]);
    let both = daemon.ok("libvirt detach d sda --json").json();
    assert_eq!(
        (&both["live"], &both["config"]),
        (&true.into(), &true.into())
    );
    assert!(disks(&domain, false).is_empty() && disks(&domain, true).is_empty());
    daemon
        .run("libvirt detach d sda")
        .is(1, &["d has no disk sda"]);

    // This guest has no driver that would release a PCI device.
    let made = daemon.ok("libvirt attach d a.img --live --json").json();
    assert_eq!(made["target"], "vda");
    daemon
        .run("libvirt detach d vda --timeout 1")
        .is(5, &["has not released vda", "--timeout"]);
    // libvirt 10 shares no disk with encryption.
    let shared = daemon.run("libvirt attach d a.img --shareable --config --json");
    if shared.code == Some(0) {
        assert_eq!(
            shared.json()["target"],
            "vdb",
            "the running domain uses vda"
        );
    } else {
        shared.is(4, &["vdb", "shared access"]);
    }
}

#[test]
fn a_disk_of_another_domain_and_a_domain_without_hotplug_are_refused_with_advice() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let (Some(first), Some(second)) = (define(&daemon, "d"), define(&daemon, "e")) else {
        return;
    };
    provision(&daemon, &format!("a.img --size {SIZE}"));
    first.start().unwrap();
    second.start().unwrap();
    daemon.ok("libvirt attach d a.img --live");
    daemon
        .run("libvirt attach e a.img --live")
        .is(5, &["a.img is in use", "--shareable"]);

    second.destroy().unwrap();
    let xml = second.xml(libvirt::DomainView::default()).unwrap();
    let without = xml.replace("<acpi/>", "");
    daemon.connect().define_domain(&without).unwrap();
    second.start().unwrap();
    provision(&daemon, &format!("b.img --size {SIZE}"));
    daemon
        .run("libvirt attach e b.img --live")
        .is(4, &["hotplug", "--config"]);
    daemon.ok("libvirt attach e b.img --config");
}

#[test]
fn a_disk_that_could_not_be_opened_is_not_attached() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let Some(domain) = define(&daemon, "d") else {
        return;
    };
    std::fs::write(daemon.folder().join("key"), "a passphrase").unwrap();
    daemon.ok(&format!(
        "create a.img --size 1M --type luks1 --key-file key {CHEAP}"
    ));
    daemon
        .run("libvirt attach d a.img")
        .is(4, &["no such secret", "secret list"]);
    let usage = format!("volume:{}", daemon.folder().join("a.img").display());
    daemon.ok(&format!("libvirt secret define --usage {usage}"));
    daemon
        .run("libvirt attach d a.img")
        .is(2, &["no value", "secret set"]);
    daemon.ok(&format!("libvirt secret set usage={usage} --key-file key"));
    daemon.ok("libvirt attach d a.img");
    assert_eq!(disks(&domain, true), ["vda"]);
    daemon
        .run("libvirt attach nobody a.img")
        .is(4, &["no such domain"]);
}

#[test]
fn a_volume_of_a_pool_is_looked_at_before_it_is_attached() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let Some(domain) = define(&daemon, "d") else {
        return;
    };
    define_pool(&daemon, "p");
    std::fs::write(daemon.folder().join("key"), "a passphrase").unwrap();
    let secret = daemon.ok("libvirt secret define --usage volume:any").text();
    daemon.ok(&format!("libvirt secret set {secret} --key-file key"));
    for (name, options) in [
        ("one", "--type luks1"),
        ("two", "--type luks2"),
        ("q", "--format qcow2"),
    ] {
        daemon.ok(&format!(
            "create {name} --size 1M --key-file key {options} {CHEAP}"
        ));
    }
    std::fs::write(daemon.folder().join("plain"), vec![0; 1 << 20]).unwrap();
    std::fs::write(daemon.folder().join("short"), "LUKS").unwrap();
    daemon.connect().pool("p").unwrap().refresh().unwrap();
    for (name, code, words) in [
        ("two", 1, &["LUKS2", "convert --to luks1"][..]),
        ("q", 4, &["is a qcow2 image"]),
        ("plain", 4, &["no LUKS header"]),
        ("short", 4, &["no LUKS header"]),
        ("absent", 4, &["volume:p/absent", "--type"]),
    ] {
        daemon
            .run(&format!(
                "libvirt attach d volume:p/{name} --secret {secret}"
            ))
            .is(code, words);
    }
    assert!(disks(&domain, true).is_empty());
    daemon.ok(&format!(
        "libvirt attach d volume:p/one --secret {secret} --config"
    ));
    // It is the same disk by its path, a link and a hard link.
    let folder = daemon.folder();
    std::os::unix::fs::symlink("one", folder.join("link")).unwrap();
    std::fs::hard_link(folder.join("one"), folder.join("hard")).unwrap();
    for name in ["one", "link", "hard", "../files/one"] {
        daemon
            .run(&format!(
                "libvirt attach d {name} --secret {secret} --config"
            ))
            .is(5, &["attached already, as vda"]);
    }
    daemon.ok("libvirt detach d vda");
    daemon.ok(&format!("libvirt attach d link --secret {secret} --config"));
    daemon.ok("libvirt detach d hard --config");
    assert!(disks(&domain, true).is_empty());
}

#[test]
fn the_secret_of_a_file_is_found_by_every_name_of_the_file() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let Some(domain) = define(&daemon, "d") else {
        return;
    };
    let folder = daemon.folder();
    std::fs::create_dir(folder.join("sub")).unwrap();
    std::os::unix::fs::symlink("sub", folder.join("way")).unwrap();
    for name in ["sub/../a", "way/b", "sub/./c"] {
        provision(&daemon, &format!("{name} --size 1M"));
    }
    let usages: Vec<_> = ["a", "sub/b", "sub/c"]
        .iter()
        .map(|name| format!("volume:{}", folder.join(name).display()))
        .collect();
    for (number, usage) in usages.iter().enumerate() {
        daemon.ok(&format!(
            "libvirt secret get usage={usage} --out value{number}"
        ));
    }
    let told = daemon.ok("libvirt xml secret way/../a").text();
    assert!(
        !told.contains("/../") && told.contains(&usages[0]["volume:".len()..]),
        "{told}"
    );

    // A pool tells its folder by the name that it has for it, and finds secrets by that.
    let xml = format!(
        "<pool type='dir'><name>w</name><target><path>{}</path></target></pool>",
        folder.join("way").display()
    );
    daemon.connect().define_pool(&xml).unwrap().start().unwrap();
    let made = provision(&daemon, "sub/e --size 1M");
    assert_eq!(made["path"], folder.join("way/e").to_str().unwrap());
    let pool = daemon.connect().pool("w").unwrap();
    pool.refresh().unwrap();
    let found = pool.volume("e").unwrap().xml().unwrap();
    assert!(found.contains(made["secret"].as_str().unwrap()), "{found}");

    for name in ["a", "way/b", "sub/e", "way/e"] {
        daemon.ok(&format!("libvirt attach d {name} --config"));
        daemon.ok(&format!("libvirt detach d {name} --config"));
    }
    assert!(disks(&domain, true).is_empty());
}

#[test]
fn a_provision_that_fails_leaves_nothing() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    define_pool(&daemon, "p");
    let connection = daemon.connect();
    let pool = connection.pool("p").unwrap();
    let nothing = || {
        let names: Vec<_> = pool
            .volumes()
            .unwrap()
            .iter()
            .map(|one| one.name().unwrap())
            .collect();
        names.is_empty() && connection.secrets().unwrap().is_empty()
    };

    // Another secret has the usage: the volume, which was made before, is removed again.
    let usage = format!("volume:{}", daemon.folder().join("v").display());
    let taken = daemon
        .ok(&format!("libvirt secret define --usage {usage}"))
        .text();
    let failed = daemon.run(&format!(
        "libvirt provision --pool p --name v --size 1M {CHEAP}"
    ));
    failed.is(
        5,
        &[
            "has this usage already",
            "removed again: the volume v",
            "secret remove",
        ],
    );
    let failed = daemon.run(&format!("libvirt provision v --size 1M {CHEAP}"));
    failed.is(5, &["has this usage already"]);
    daemon.ok(&format!("libvirt secret remove {taken}"));
    pool.refresh().unwrap();
    assert!(nothing());

    // A volume of that name exists.
    std::fs::write(daemon.folder().join("v"), [1; 512]).unwrap();
    pool.refresh().unwrap();
    daemon
        .run(&format!(
            "libvirt provision --pool p --name v --size 1M {CHEAP}"
        ))
        .is(5, &["exists already"]);
    daemon
        .run(&format!("libvirt provision v --size 1M {CHEAP}"))
        .is(5, &["--force overwrite"]);
    assert_eq!(std::fs::read(daemon.folder().join("v")).unwrap(), [1; 512]);
    std::fs::remove_file(daemon.folder().join("v")).unwrap();
    pool.refresh().unwrap();
    assert!(nothing());

    for name in ["../v", "a/b", ".."] {
        daemon
            .run(&format!(
                "libvirt provision --pool p --name {name} --size 1M {CHEAP}"
            ))
            .is(1, &[name, "without /"]);
    }

    // A driver that has pools but no secrets.
    let test = daemon.run(&format!(
        "libvirt provision --connect test:///default --pool default-pool --name v --size 1M {CHEAP}"
    ));
    test.is(4, &["does not support it", "removed again: the volume v"]);

    // Interrupted between the secret and the volume, whose key derivation takes long here.
    let mut slow = daemon.command("libvirt provision v --size 1M --iter-time 60000");
    let slow = slow
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the secret is there", || {
        !connection.secrets().unwrap().is_empty()
    });
    let process = Pid::from_child(&slow);
    kill_process(process, Signal::INT).unwrap();
    let stopped = crate::host::Ran::of(slow.wait_with_output().unwrap());
    stopped.is(130, &["removed again: the secret"]);
    assert!(nothing() && !daemon.folder().join("v").exists());

    pool.stop().unwrap();
    daemon
        .run(&format!(
            "libvirt provision --pool p --name v --size 1M {CHEAP}"
        ))
        .is(1, &["is not started", "pool-start"]);
    daemon
        .run(&format!(
            "libvirt provision --pool q --name v --size 1M {CHEAP}"
        ))
        .is(4, &["no such storage pool"]);
    daemon
        .run("libvirt provision v --size 1M --type luks2")
        .is(1, &["--served SOCKET"]);
    daemon
        .run("libvirt provision v --size 1M --header h")
        .is(1, &["detached header"]);
}

#[test]
fn a_private_secret_with_a_given_passphrase_opens_its_volume() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let Some(domain) = define(&daemon, "d") else {
        return;
    };
    let key = daemon.folder().join("key");
    std::fs::write(&key, "a passphrase of its own").unwrap();
    let made = daemon
        .ok(&format!(
            "libvirt provision p.img --size {SIZE} --private --key-file key {CHEAP} --json"
        ))
        .json();
    let secret = made["secret"].as_str().unwrap();
    daemon
        .run(&format!("key test p.img --key libvirt:{secret}"))
        .is(2, &["private"]);
    daemon.ok("key test p.img --key-file key");
    fill(
        &daemon.folder().join("p.img"),
        &Passphrase::copy_from(b"a passphrase of its own").unwrap(),
    );
    daemon.ok("libvirt attach d p.img");
    run(&daemon, &domain);
    let plain = daemon.ok("decrypt p.img - --key-file key");
    assert!(plain.stdout == boot_sector::disk_after(content()));
}
