//! LUKS inside of qcow2 images: domains start from them, and their passphrases are rotated while
//! they run. QEMU itself reads the whole payload afterwards.

use std::path::Path;
use std::process::Command;

use luksmith::libvirt::{Affect, Domain};
use luksmith_formats::json::{Value, json};

use crate::beside::later;
use crate::daemon::Daemon;
use crate::domains::{define, define_pool, disks};
use crate::program::{Folder, SIZE, content, said, wait_until};
use crate::qemu::boot;
use crate::rotate::{CHEAP, CHEAP_LIVE, Host, pattern};
use support::{boot_sector, peers};

/// A disk that a guest boots from: the boot sector, and then the content.
fn bootable() -> Vec<u8> {
    let mut plain = content();
    plain[..512].copy_from_slice(&boot_sector::sector());
    plain
}

/// The whole payload of an image, as qemu-img reads it with the passphrase in a file.
fn converted(folder: &Path, image: &str, key: &str) -> Vec<u8> {
    let mut command = Command::new(peers::find("qemu-img").expect("a peer that was there"));
    command.current_dir(folder).args(["convert", "--object"]);
    command.arg(format!("secret,id=s,file={key}"));
    let opts = format!("driver=qcow2,encrypt.key-secret=s,file.filename={image}");
    peers::run(command.args(["--image-opts", &opts, "-O", "raw", "raw"]));
    let raw = std::fs::read(folder.join("raw")).unwrap();
    std::fs::remove_file(folder.join("raw")).unwrap();
    raw
}

/// Fills an image that was provisioned, through the server of luksmith.
fn fill(daemon: &Daemon, image: &str, secret: &str) {
    std::fs::write(daemon.folder().join("content"), bootable()).unwrap();
    let mut copy = daemon.on_host(peers::find("qemu-img").unwrap());
    let serve = format!(
        "serve {image} --format qcow2 --key libvirt:{secret} --socket serve/s --exit-when-idle"
    );
    let mut server = daemon.command(&serve).spawn().unwrap();
    wait_until("the server listens", || {
        daemon.folder().join("serve/s").exists()
    });
    copy.args(["convert", "-n", "-f", "raw", "-O", "raw", "content"]);
    peers::run(copy.arg("nbd+unix:///?socket=serve/s"));
    assert!(server.wait().unwrap().success());
}

fn run(daemon: &Daemon, domain: &Domain) {
    domain
        .start()
        .unwrap_or_else(|error| panic!("{error}: {:?}: {}", error.reply(), daemon.log()));
    wait_until("the guest ends", || !domain.is_active().unwrap());
}

/// Checks the whole payload after the guest has run, by luksmith and by QEMU.
#[track_caller]
fn guest_ran(daemon: &Daemon, image: &str, secret: &str) {
    let expected = boot_sector::disk_after(content());
    let key = format!("--key libvirt:{secret}");
    let read = daemon.ok(&format!("decrypt {image} - --format qcow2 {key}"));
    assert!(read.stdout == expected, "{image}, as luksmith reads it");
    let _ = std::fs::remove_file(daemon.folder().join("value"));
    daemon.ok(&format!("libvirt secret get {secret} --out value"));
    let read = converted(&daemon.folder(), image, "value");
    assert!(read == expected, "{image}, as QEMU reads it");
}

#[test]
fn a_domain_starts_from_an_image_in_a_pool_and_from_one_in_a_file() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let (Some(domain), Some(_)) = (define(&daemon, "d"), peers::find("qemu-img")) else {
        return;
    };
    define_pool(&daemon, "p");
    let cheap = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000";
    let config = Affect::new().config(true);

    // In a pool, of which libvirt makes the file.
    let made = daemon.ok(&format!(
        "libvirt provision --pool p --name q --size {SIZE} --format qcow2 {cheap} --json"
    ));
    let made = made.json();
    let secret = made["secret"].as_str().unwrap();
    assert_eq!(
        (&made["type"], &made["size"]),
        (&"luks1".into(), &SIZE.into())
    );
    let volume = daemon.connect().pool("p").unwrap().volume("q").unwrap();
    let xml = volume.xml().unwrap();
    assert!(
        xml.contains("<format type='qcow2'/>") && xml.contains(secret),
        "{xml}"
    );
    assert_eq!(volume.info().unwrap().capacity, SIZE as u64);
    fill(&daemon, "q", secret);
    domain
        .attach(made["xml"].as_str().unwrap(), config)
        .unwrap();
    run(&daemon, &domain);
    guest_ran(&daemon, "q", secret);
    daemon.ok("libvirt detach d vda");
    let pooled = format!("volume:p/q --secret {secret}");
    daemon
        .run(&format!("libvirt attach d {pooled}"))
        .is(4, &["is a qcow2 image", "--format qcow2"]);
    fill(&daemon, "q", secret);
    daemon.ok(&format!("libvirt attach d {pooled} --format qcow2"));
    run(&daemon, &domain);
    guest_ran(&daemon, "q", secret);
    daemon.ok("libvirt detach d vda");

    // In a file, whose secret `attach` finds by its path.
    let made = daemon.ok(&format!(
        "libvirt provision f.qcow2 --size {SIZE} --format qcow2 --cluster-size 4096 {cheap} --json"
    ));
    let made = made.json();
    let secret = made["secret"].as_str().unwrap();
    fill(&daemon, "f.qcow2", secret);
    daemon.ok("libvirt attach d f.qcow2 --format qcow2 --cache none --discard unmap");
    run(&daemon, &domain);
    guest_ran(&daemon, "f.qcow2", secret);
    daemon.ok("libvirt detach d f.qcow2");
    assert!(disks(&domain, true).is_empty());

    // What no disk describes.
    daemon
        .run("libvirt attach d f.qcow2")
        .is(4, &["is a qcow2 image", "--format qcow2"]);
    let mut overlay = daemon.on_host(peers::find("qemu-img").unwrap());
    overlay.args([
        "create", "-q", "-f", "qcow2", "-F", "raw", "-u", "-b", "none", "--object",
    ]);
    overlay.arg("secret,id=s,file=value");
    let options = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    peers::run(overlay.args(["-o", options, "over", "1M"]));
    for place in ["over", "volume:p/over"] {
        daemon.connect().pool("p").unwrap().refresh().unwrap();
        daemon
            .run(&format!(
                "libvirt attach d {place} --format qcow2 --secret {secret}"
            ))
            .is(4, &["names a backing file", "qemu-img convert"]);
    }
    for (options, said) in [
        ("rbd://p/i --format qcow2", "a qcow2 image is a file"),
        (
            "f.qcow2 --header h",
            "cannot describe a volume with a detached header",
        ),
        ("f.qcow2 --format qcow2 --type luks2", "knows only LUKS1"),
    ] {
        daemon
            .run(&format!("libvirt xml disk {options} --secret {secret}"))
            .is(1, &[said]);
    }
    daemon
        .run("libvirt provision g --size 1M --format qcow2 --type luks2")
        .is(1, &["LUKS"]);
    daemon
        .run("libvirt provision --pool p --name g --size 1M --format qcow2 --preallocate")
        .is(1, &["grows as it is written"]);
    assert!(!daemon.folder().join("g").exists());
}

/// A domain whose disk is an image, with this QEMU.
fn domain(host: &Host, emulator: &Path, name: &str, secret: &str) -> Domain {
    let xml = format!(
        "<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory><os><type machine='pc'>hvm</type></os>\
         <features><acpi/></features><devices><emulator>{}</emulator>\
         <disk type='file'><driver name='qemu' type='qcow2'/><source file='{}'><encryption format='luks'>\
         <secret type='passphrase' uuid='{secret}'/></encryption></source><target dev='vda' bus='virtio'/></disk></devices></domain>",
        emulator.display(),
        host.path(name)
    );
    host.connection.define_domain(&xml).unwrap()
}

/// The keyslots that the QEMU of a domain holds in memory.
fn in_memory(domain: &Domain) -> Vec<usize> {
    let command = json!({"execute": "query-named-block-nodes", "arguments": {"flat": true}});
    let command = std::ffi::CString::new(command.to_string()).unwrap();
    let answer: Value = domain.monitor_command(&command).unwrap().parse().unwrap();
    let nodes = answer["return"].as_array().unwrap();
    let node = nodes.iter().find(|node| node["drv"] == "qcow2").unwrap();
    let slots = &node["image"]["format-specific"]["data"]["encrypt"]["slots"];
    let slots = slots.as_array().unwrap().iter().enumerate();
    slots
        .filter(|(_, slot)| slot["active"] == true)
        .map(|(number, _)| number)
        .collect()
}

/// The numbers of the keyslots in the header.
fn in_header(host: &Host, name: &str) -> Vec<usize> {
    let path = host.path(name);
    let listed = host
        .daemon
        .ok(&format!("key list {path} --format qcow2 --json"));
    let listed = listed.json();
    let slots = listed["keyslots"].as_array().unwrap().iter();
    slots
        .map(|slot| usize::try_from(slot["keyslot"].as_u64().unwrap()).unwrap())
        .collect()
}

/// Rotates twice while the domain runs. The QEMU changes the keyslots itself, also one that would
/// abort over this for a raw volume.
fn rotated_while_it_runs(host: &Host, emulator: &Path, name: &str) {
    let secret = host.volume(name, "--format qcow2 --sparse");
    let domain = domain(host, emulator, name, &secret);
    domain.start().unwrap();
    let path = host.path(name);
    let test = format!("key test {path} --format qcow2");
    for _ in 0..2 {
        host.keep(&secret, "old");
        let said = host
            .daemon
            .ok(&format!("libvirt rotate {name} {CHEAP_LIVE}"));
        assert!(said.text().contains("has the new passphrase"), "{said:?}");
        host.daemon
            .run(&format!("{test} --key-file old"))
            .is(2, &[]);
        host.daemon.ok(&format!("{test} --key libvirt:{secret}"));
        assert_eq!(host.journals().len(), 0);
        assert_eq!(in_header(host, name).len(), 1);
        assert_eq!(in_memory(&domain), in_header(host, name));
    }
    // Another program's keyslot stays.
    std::fs::write(host.daemon.folder().join("own"), "its own").unwrap();
    domain.destroy().unwrap();
    host.daemon.ok(&format!(
        "key add {path} --format qcow2 --key libvirt:{secret} --new-key-file own --pbkdf pbkdf2 {CHEAP}"
    ));
    domain.start().unwrap();
    host.daemon
        .ok(&format!("libvirt rotate {name} {CHEAP_LIVE}"));
    host.daemon.ok(&format!("{test} --key-file own"));
    domain.destroy().unwrap();
    host.daemon.ok(&format!("libvirt rotate {name} {CHEAP}"));
    host.daemon.ok(&format!("{test} --key-file own"));
    assert_eq!(in_header(host, name).len(), 2);
    // The domain starts with the present value.
    domain.start().unwrap();
    domain.destroy().unwrap();
    host.keep(&secret, "value");
    let value = host.daemon.folder().join("value").display().to_string();
    assert!(converted(&host.daemon.folder(), &path, &value) == pattern());
}

#[test]
fn an_image_is_rotated_while_its_domain_runs() {
    let (Some(host), Some(qemu)) = (Host::new(), peers::find("qemu-system-x86_64")) else {
        return;
    };
    rotated_while_it_runs(&host, &qemu, "q");
}

#[test]
fn an_image_is_rotated_by_a_qemu_that_aborts_for_a_raw_volume() {
    let (Some(host), Some(later)) = (Host::new(), later()) else {
        return;
    };
    rotated_while_it_runs(&host, &later, "q");
}

/// The overlay is rotated while a domain has it open; its backing file, which the secret does not
/// open, is not changed.
#[test]
fn an_overlay_is_rotated_and_its_backing_file_is_not() {
    let (Some(host), Some(qemu)) = (Host::new(), peers::find("qemu-system-x86_64")) else {
        return;
    };
    let Some(img) = peers::find("qemu-img") else {
        return;
    };
    let (path, base) = (host.path("o"), host.path("base"));
    std::fs::write(&base, pattern()).unwrap();
    let secret = host
        .daemon
        .ok(&format!(
            "libvirt secret define --usage volume:{path} --generate"
        ))
        .text();
    host.keep(&secret, "value");
    let mut create = Command::new(img);
    create
        .current_dir(host.daemon.folder())
        .args(["create", "-q", "-f", "qcow2", "-F", "raw"]);
    create.args(["-b", &base, "--object", "secret,id=s,file=value", "-o"]);
    create.arg("encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10");
    peers::run(create.arg(&path));
    let running = domain(&host, &qemu, "o", &secret);
    running.start().unwrap();
    let test = format!("key test {path} --format qcow2");
    host.keep(&secret, "old");
    host.daemon.ok(&format!("libvirt rotate o {CHEAP_LIVE}"));
    running.destroy().unwrap();
    std::fs::rename(&base, host.path("away")).unwrap();
    host.daemon
        .run(&format!("{test} --key-file old"))
        .is(2, &[]);
    host.daemon.ok(&format!("libvirt rotate o {CHEAP}"));
    host.daemon.ok(&format!("{test} --key libvirt:{secret}"));
    std::fs::rename(host.path("away"), &base).unwrap();
    assert!(std::fs::read(&base).unwrap() == pattern());
    host.keep(&secret, "value");
    let value = host.daemon.folder().join("value").display().to_string();
    assert!(converted(&host.daemon.folder(), &path, &value) == pattern());
}

#[test]
fn a_guest_boots_from_an_image_by_the_arguments() {
    let Some(qemu) = peers::find("qemu-system-x86_64") else {
        return;
    };
    let folder = Folder::new();
    folder.write("key", b"a secret");
    folder.write("new", b"another secret");
    folder.write("plain", &bootable());
    let make = "encrypt plain a,b.qcow2 --format qcow2 --sparse --key-file key --pbkdf pbkdf2";
    folder.luksmith(make.split(' ').chain(["--pbkdf-force-iterations", "1000"]));
    for more in [
        "--key-file key",
        "--key-file key --master-key master --cache none",
    ] {
        let args = format!("qemu args a,b.qcow2 --format qcow2 {more}");
        boot(&folder, &qemu, &folder.luksmith(args.split(' ')));
        let read = "decrypt a,b.qcow2 - --format qcow2 --key-file key";
        let read = folder.command(read.split(' ')).output().unwrap();
        assert!(
            read.stdout == boot_sector::disk_after(content()),
            "{}",
            said(&read)
        );
        // For the next guest.
        std::fs::remove_file(folder.path("a,b.qcow2")).unwrap();
        folder.luksmith(make.split(' ').chain(["--pbkdf-force-iterations", "1000"]));
    }
    let refused = folder.fails(
        1,
        "qemu args a,b.qcow2 --format qcow2 --header h --key-file key".split(' '),
    );
    assert!(refused.contains("has its header inside"), "{refused}");
}

/// The monitor of a QEMU without libvirt.
#[test]
fn the_keyslots_of_an_image_change_in_a_running_qemu() {
    let folder = Folder::new();
    folder.write("key", b"a secret");
    folder.write("new", b"another secret");
    let make = "create q --format qcow2 --size 4M --key-file key --pbkdf pbkdf2";
    folder.luksmith(make.split(' ').chain(["--pbkdf-force-iterations", "1000"]));
    for qemu in [peers::find("qemu-system-x86_64"), later()]
        .into_iter()
        .flatten()
    {
        let args = folder.luksmith("qemu args q --format qcow2 --key-file key".split(' '));
        let line = format!(
            "exec {} -accel tcg -m 32 -nodefaults -display none -S {} \
             -qmp unix:qmp,server=on,wait=off",
            qemu.display(),
            args.trim_end()
        );
        let running = folder.program("sh", ["-c", &line]);
        let running = crate::program::Running::with_socket(running, &folder.path("qmp"));
        for (from, to) in [("key", "new"), ("new", "key")] {
            let change = format!(
                "qemu amend change qmp --key-file {from} --new-key-file {to} --iter-time 1 --json"
            );
            let changed: Value = folder.luksmith(change.split(' ')).parse().unwrap();
            assert_eq!(
                changed["keyslots"].as_array().unwrap().len(),
                1,
                "{changed}"
            );
            let test = |key| format!("key test q --format qcow2 --key-file {key}");
            folder.luksmith(test(to).split(' '));
            folder.fails(2, test(from).split(' '));
        }
        drop(running);
        std::fs::remove_file(folder.path("qmp")).unwrap();
    }
}

/// A detached header, which QEMU 9.0 and later open.
#[test]
fn a_guest_boots_from_a_volume_with_a_detached_header() {
    let Some(later) = later() else { return };
    let folder = Folder::new();
    folder.write("key", b"a secret");
    folder.write("plain", &bootable());
    let make = "encrypt plain data --header header --type luks1 --key-file key --pbkdf pbkdf2";
    folder.luksmith(make.split(' ').chain(["--pbkdf-force-iterations", "1000"]));
    let args = "qemu args data --header header --key-file key";
    let output = folder.command(args.split(' ')).output().unwrap();
    assert!(
        said(&output).contains("QEMU 9.0 or later is needed"),
        "{}",
        said(&output)
    );
    let args = String::from_utf8(output.stdout).unwrap();
    boot(&folder, &later, &args);
    let read = "decrypt data - --header header --key-file key";
    let read = folder.command(read.split(' ')).output().unwrap();
    assert!(
        read.stdout == boot_sector::disk_after(content()),
        "{}",
        said(&read)
    );

    // The whole payload, as that QEMU reads it.
    let copy = format!(
        "exec {} -accel tcg -m 32 -nodefaults -display none -S {} -blockdev \
         driver=file,node-name=out,filename=out -qmp unix:qmp,server=on,wait=off",
        later.display(),
        args.trim_end()
    );
    folder.write("out", &vec![0; SIZE]);
    let running = folder.program("sh", ["-c", &copy]);
    let running = crate::program::Running::with_socket(running, &folder.path("qmp"));
    let mut qmp =
        luksmith::qemu::Qmp::connect(&folder.path("qmp"), crate::program::PATIENCE).unwrap();
    luksmith::qemu::Monitor::run_job(
        &mut qmp,
        "blockdev-backup",
        json!({"device": "disk", "target": "out", "sync": "full", "auto-dismiss": false}),
    )
    .unwrap();
    assert!(std::fs::read(folder.path("out")).unwrap() == boot_sector::disk_after(content()));
    drop(running);

    // A header that places the data elsewhere: QEMU would take other bytes for the data.
    folder.make_bootable("whole", "luks1");
    folder.luksmith("header backup whole backup".split(' '));
    let refused = "qemu args whole --header backup --key-file key";
    let refused = folder.fails(1, refused.split(' '));
    assert!(
        refused.contains("QEMU takes it from byte 0 on"),
        "{refused}"
    );
    let refused = "qemu args data --header whole --key-file key";
    folder.fails(1, refused.split(' '));
}
