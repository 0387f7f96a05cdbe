//! `luksmith libvirt secret`, and the sources `libvirt:` and `generate:libvirt:`.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use luksmith::libvirt::LibvirtError;
use luksmith_formats::json::json;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::daemon::Daemon;
use crate::host::Ran;
use support::peers;

/// Options for the cheapest keyslot.
const CHEAP: &str = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000";

fn write(daemon: &Daemon, name: &str, bytes: &[u8]) {
    let path = daemon.folder().join(name);
    std::fs::write(&path, bytes).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

#[test]
fn the_value_that_was_set_is_written_to_a_file_for_its_owner() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let uuid = daemon
        .ok("libvirt secret define --usage volume:/pool/a,b:c --description a<b")
        .text();
    let usage = "usage=volume:/pool/a,b:c";
    daemon
        .run(&format!("libvirt secret get {uuid} --out x"))
        .is(2, &["no value", "secret set"]);
    write(&daemon, "key", b"pass phrase\n\xc3\xb6");
    daemon.ok(&format!("libvirt secret set {usage} --key-file key"));
    daemon.ok(&format!("libvirt secret get {uuid} --out got"));
    let got = daemon.folder().join("got");
    assert_eq!(std::fs::read(&got).unwrap(), b"pass phrase\n\xc3\xb6");
    assert_eq!(std::fs::metadata(&got).unwrap().mode() & 0o777, 0o600);
    daemon
        .run(&format!("libvirt secret get {uuid} --out got"))
        .is(5, &["exists"]);
    assert_eq!(
        daemon
            .ok(&format!("libvirt secret get {usage} --out -"))
            .stdout,
        b"pass phrase\n\xc3\xb6"
    );
    // Another value is replaced only if that is agreed to; the same one again is no loss.
    write(&daemon, "other", b"another");
    daemon
        .run(&format!("libvirt secret set {uuid} --key-file other"))
        .is(5, &["has another value", "--force overwrite"]);
    daemon.ok(&format!("libvirt secret set {usage} --key-file key"));
    assert!(
        daemon
            .run_with(
                &format!("libvirt secret set {uuid} --key stdin --force overwrite"),
                b"typed\n"
            )
            .code
            == Some(0)
    );
    assert_eq!(
        daemon
            .ok(&format!("libvirt secret get {usage} --fd 1"))
            .stdout,
        b"typed"
    );

    let listed = daemon.ok("libvirt secret list --json").json();
    let expected = json!([{
        "secret": uuid, "usage": {"type": "volume", "id": "/pool/a,b:c"}, "description": "a<b", "private": false, "ephemeral": false,
        "has_value": true, "domains": [], "volumes": [],
    }]);
    assert_eq!(listed["secrets"], expected);
    let table = daemon.ok("libvirt secret list").text();
    assert!(
        table.contains(&uuid) && table.contains("volume:/pool/a,b:c") && !table.contains("typed"),
        "{table}"
    );
    daemon.ok(&format!("libvirt secret remove {usage}"));
    assert_eq!(
        daemon.ok("libvirt secret list --json").json()["secrets"],
        json!([])
    );
    daemon
        .run(&format!("libvirt secret remove {uuid}"))
        .is(4, &["no such secret", "secret list"]);
}

#[test]
fn a_value_is_never_shown_on_a_terminal() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let uuid = daemon
        .ok("libvirt secret define --usage volume:/a --generate")
        .text();
    let controller =
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, Vec::new())
        .unwrap()
        .into_string()
        .unwrap();
    let terminal = || {
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&name)
            .unwrap()
    };
    for to in ["--out -", "--fd 1", &format!("--out {name}")] {
        let mut command = daemon.command(&format!("libvirt secret get {uuid} {to}"));
        let ran = Ran::of(
            command
                .stdout(terminal())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
                .wait_with_output()
                .unwrap(),
        );
        ran.is(1, &["never shown on a terminal", "--out"]);
    }
    daemon
        .run(&format!("libvirt secret get {uuid}"))
        .is(1, &["--out"]);
}

#[test]
fn private_ephemeral_and_duplicate_secrets_behave_as_documented() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let private = daemon
        .ok("libvirt secret define --usage volume:/private --private --generate --json")
        .json();
    let private = private["secret"].as_str().unwrap();
    daemon
        .run(&format!("libvirt secret get {private} --out x"))
        .is(2, &["private", "--key"]);
    daemon
        .run(&format!("key test x --key libvirt:{private}"))
        .is(4, &["x"]);
    daemon.ok("libvirt secret define --usage tls:t --ephemeral");
    daemon.ok("libvirt secret define --usage ceph:c");
    daemon
        .run("libvirt secret define --usage volume:/private")
        .is(5, &["has this usage already"]);
    daemon
        .run(&format!(
            "libvirt secret define --usage vtpm:x --uuid {private}"
        ))
        .is(5, &["already"]);
    daemon
        .run("libvirt secret define --usage nosuch:x")
        .is(1, &["volume, ceph, iscsi, tls or vtpm"]);
    let uuid = "0b9cb9a2-8b5c-4f06-9a8f-4b6f0d9d9d01";
    assert_eq!(
        daemon
            .ok(&format!(
                "libvirt secret define --usage iscsi:t --uuid {uuid}"
            ))
            .text(),
        uuid
    );
    let listed = daemon.ok("libvirt secret list --json").json();
    let row = |kind: &str| {
        let rows = listed["secrets"].as_array().unwrap();
        let row = rows
            .iter()
            .find(|row| row["usage"]["type"] == kind)
            .unwrap();
        (
            row["private"] == true,
            row["ephemeral"] == true,
            row["has_value"].as_bool(),
        )
    };
    assert_eq!(row("volume"), (true, false, None));
    assert_eq!(row("tls"), (false, true, Some(false)));
    assert_eq!(row("ceph"), (false, false, Some(false)));
}

#[test]
fn a_secret_in_use_is_removed_only_by_force() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let connection = daemon.connect();
    let pool = daemon.folder().join("pool");
    std::fs::create_dir(&pool).unwrap();
    let disk = pool.join("disk.img").display().to_string();
    let by_path = daemon
        .ok(&format!(
            "libvirt secret define --usage volume:{disk} --generate"
        ))
        .text();
    let other = daemon
        .ok("libvirt secret define --usage volume:other --generate")
        .text();
    daemon.ok(&format!(
        "create {disk} --size 1M --type luks1 --key libvirt:usage=volume:{disk} {CHEAP}"
    ));
    let xml = format!(
        "<pool type='dir'><name>p</name><target><path>{}</path></target></pool>",
        pool.display()
    );
    connection.define_pool(&xml).unwrap().start().unwrap();
    let emulator = peers::find("qemu-system-x86_64").unwrap_or_else(|| "/usr/bin/false".into());
    let xml = format!(
        "<domain type='qemu'><name>d</name><memory>32768</memory><os><type machine='pc'>hvm</type></os><devices><emulator>{}</emulator>\
         <disk type='file'><driver name='qemu' type='raw'/><source file='/x.img'><encryption format='luks'>\
         <secret type='passphrase' usage='other'/></encryption></source><target dev='vda' bus='virtio'/></disk></devices></domain>",
        emulator.display()
    );
    connection.define_domain(&xml).unwrap();

    daemon
        .run(&format!("libvirt secret remove {by_path}"))
        .is(5, &[&disk, "pool p", "--force in-use"]);
    daemon
        .run(&format!("libvirt secret remove {other}"))
        .is(5, &["domain d (disk vda)"]);
    let listed = daemon.ok("libvirt secret list --json").json();
    let row = |uuid: &str| {
        let rows = listed["secrets"].as_array().unwrap();
        rows.iter()
            .find(|row| row["secret"] == *uuid)
            .unwrap()
            .clone()
    };
    assert_eq!(
        row(&by_path)["volumes"],
        json!([{"pool": "p", "path": disk}])
    );
    assert_eq!(
        row(&other)["domains"],
        json!([{"name": "d", "by": "disk vda"}])
    );
    daemon.ok(&format!("libvirt secret remove {other} --force in-use"));

    // An image that is in no pool and that no domain uses yet.
    let alone = daemon.folder().join("alone.img").display().to_string();
    daemon.ok(&format!(
        "libvirt secret define --usage volume:{alone} --generate"
    ));
    daemon.ok(&format!(
        "create {alone} --size 1M --type luks1 --key libvirt:usage=volume:{alone} {CHEAP}"
    ));
    daemon
        .run(&format!("libvirt secret remove usage=volume:{alone}"))
        .is(5, &["the encrypted image", &alone, "--force in-use"]);
    std::fs::remove_file(&alone).unwrap();
    daemon.ok(&format!("libvirt secret remove usage=volume:{alone}"));
    assert!(matches!(
        connection.secret(&other.parse().unwrap()),
        Err(LibvirtError::NoSecret(_))
    ));
}

#[test]
fn secrets_are_sources_everywhere() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    write(&daemon, "key", b"by hand");
    daemon.ok(&format!("create disk.img --size 1M --key-file key {CHEAP}"));
    let uuid = daemon
        .ok("libvirt secret define --usage volume:disk.img")
        .text();
    let new = format!("generate:libvirt:{uuid}");
    daemon
        .run("key add disk.img --key-file key --new-key generate")
        .is(1, &["generate:libvirt:SECRET"]);
    daemon
        .run("key add disk.img --key-file key --new-key libvirt:")
        .is(1, &["--new-key", "UUID"]);
    daemon
        .run("key add disk.img --key-file key --new-key generate:libvirt:usage=volume:no")
        .is(4, &["no such secret"]);
    daemon
        .run(&format!("key test disk.img --key {new}"))
        .is(1, &["an existing one is needed"]);
    daemon
        .run(&format!("key test disk.img --key libvirt:{uuid}"))
        .is(2, &["no value"]);
    daemon.ok(&format!(
        "key add disk.img --key-file key --new-key {new} {CHEAP}"
    ));
    assert_eq!(
        daemon
            .ok(&format!("key test disk.img --key libvirt:{uuid}"))
            .text(),
        "keyslot 1 opens the volume"
    );
    daemon.ok("key test disk.img --key libvirt:usage=volume:disk.img");
    assert_eq!(
        daemon
            .ok(&format!("libvirt secret get {uuid} --out -"))
            .stdout
            .len(),
        44
    );
    // A value that opens something is not replaced.
    daemon
        .run(&format!(
            "key change disk.img --key libvirt:{uuid} --new-key {new} {CHEAP}"
        ))
        .is(5, &["has a value already"]);
    daemon.ok(&format!("key test disk.img --key libvirt:{uuid}"));
    let private = daemon
        .ok("libvirt secret define --usage volume:p --private")
        .text();
    daemon
        .run(&format!(
            "key add disk.img --key-file key --new-key generate:libvirt:{private}"
        ))
        .is(2, &["cannot be seen"]);
    daemon
        .run("key test disk.img --key nosuch")
        .is(1, &["libvirt:SECRET", "credential:NAME"]);

    let mut nowhere = daemon.command(&format!("key test disk.img --key libvirt:{uuid}"));
    let ran = Ran::of(
        nowhere
            .env("LIBVIRT_DEFAULT_URI", "qemu:///system?socket=/nonexistent")
            .output()
            .unwrap(),
    );
    ran.is(4, &["no connection to libvirt", "LIBVIRT_DEFAULT_URI"]);
}

#[test]
fn qemu_takes_only_text_so_other_bytes_become_base64() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let Some(qemu_img) = peers::find("qemu-img") else {
        return;
    };
    let opens = |image: &str, key: &str| {
        let folder = daemon.folder();
        let mut command = Command::new(&qemu_img);
        command
            .current_dir(folder)
            .args(["check", "--object"])
            .arg(format!("secret,id=s,file={key}"));
        command.args([
            "--image-opts",
            &format!("driver=luks,key-secret=s,file.filename={image}"),
        ]);
        let output = peers::output(&mut command);
        // Exit code 63 means that the format has no check, and comes only after the volume was
        // opened.
        (
            output.status.code() == Some(63),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let uuid = daemon
        .ok("libvirt secret define --usage volume:disk.img")
        .text();
    for binary in [&b"\xff\xfe random \x80"[..], b"with\0nul"] {
        write(&daemon, "binary", binary);
        daemon.ok(&format!(
            "create binary.img --size 1M --type luks1 --key-file binary {CHEAP}"
        ));
        let (opened, why) = opens("binary.img", "binary");
        assert!(!opened, "QEMU takes {binary:?} after all");
        assert!(why.contains("UTF-8"), "{why}");
        let set = format!("libvirt secret set {uuid} --key-file binary --force overwrite");
        daemon
            .run(&set)
            .is(1, &["not text (UTF-8", "--base64", "--force not-text"]);
        daemon.ok(&format!("{set} --force not-text"));
        daemon.ok(&format!("key test binary.img --key libvirt:{uuid}"));
        daemon.ok(&format!("{set} --base64"));
        daemon.ok(&format!(
            "key add binary.img --key-file binary --new-key libvirt:{uuid} {CHEAP}"
        ));
        daemon.ok(&format!("libvirt secret get {uuid} --out text"));
        let (opened, why) = opens("binary.img", "text");
        assert!(opened, "{why}");
        for used in ["binary.img", "text"] {
            std::fs::remove_file(daemon.folder().join(used)).unwrap();
        }
    }
    // Ceph's keys are bytes, which libvirt passes on as base64.
    let ceph = daemon.ok("libvirt secret define --usage ceph:c").text();
    daemon.ok(&format!("libvirt secret set {ceph} --key-file binary"));
}

#[test]
fn events_report_each_change_and_no_value() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let Some(virsh) = peers::find("virsh") else {
        return;
    };
    let (sender, seen) = mpsc::channel();
    let mut watchers = Vec::new();
    for event in ["lifecycle", "value-changed"] {
        let mut command = Command::new(&virsh);
        command.args([
            "-q",
            "-c",
            daemon.uri(),
            "secret-event",
            "--loop",
            "--event",
            event,
        ]);
        let mut watcher = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(watcher.stdout.take().unwrap()).lines();
        let sender = sender.clone();
        std::thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .all(|line| sender.send(line).is_ok())
        });
        watchers.push(watcher);
    }
    // Events are missed until both programs listen: cause events until each has reported one.
    let mut heard = String::new();
    for round in 0..100 {
        daemon.ok(&format!(
            "libvirt secret define --usage tls:{round} --generate"
        ));
        while let Ok(line) = seen.recv_timeout(Duration::from_millis(50)) {
            heard.push_str(&line);
        }
        if heard.contains("Defined") && heard.contains("value-changed") {
            break;
        }
    }
    let uuid = daemon
        .ok("libvirt secret define --usage volume:v --generate")
        .text();
    daemon.ok(&format!("libvirt secret remove {uuid}"));
    let mut events = String::new();
    while events.matches(&uuid).count() < 3 {
        events.push_str(&seen.recv_timeout(Duration::from_secs(30)).unwrap());
        events.push('\n');
    }
    for word in ["Defined", "value-changed", "Undefined"] {
        assert!(events.contains(word), "no {word} in {events}");
    }
    for mut watcher in watchers {
        watcher.kill().unwrap();
        watcher.wait().unwrap();
    }
}
