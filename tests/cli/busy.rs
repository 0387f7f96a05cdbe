//! Another program has the image open.

use std::fs::File;
use std::time::{Duration, Instant};

use support::peers::find;

use crate::session::{CHEAP, Session};

#[test]
fn a_holder_is_named_and_readers_may_insist() {
    let session = Session::with_volume();
    let held = File::open(session.path("disk.img")).unwrap();
    held.lock().unwrap();
    let us = format!("in use by pid {} ", std::process::id());
    let decrypt = ["decrypt", "disk.img", "plain", "--key-file", "key"];
    let ran = session.run(decrypt);
    ran.fails(5, "luksmith: error: disk.img is busy: ");
    ran.fails(5, &us);
    ran.fails(5, "luksmith: hint: --force-share");
    session.ok(decrypt.iter().chain(&["--force-share"]));

    let add = [
        "key",
        "add",
        "disk.img",
        "--key-file",
        "key",
        "--new-key-file",
        "other",
    ];
    let ran = session.run(add.iter().chain(&CHEAP));
    ran.fails(5, &us);
    assert!(
        !ran.stderr().contains("--force-share"),
        "two programs write at the same time"
    );
    drop(held);
    session.ok(add.iter().chain(&CHEAP));
}

#[test]
fn readers_do_not_mind_each_other() {
    let session = Session::with_volume();
    let held = File::open(session.path("disk.img")).unwrap();
    held.lock_shared().unwrap();
    session.ok(["key", "test", "disk.img", "--key-file", "key"]);
    session
        .run([
            "key",
            "priority",
            "disk.img",
            "--keyslot",
            "0",
            "--priority",
            "prefer",
        ])
        .fails(5, "busy");
}

/// The commands that only show a header, and one that saves it.
const LOOKS: [&str; 5] = [
    "info disk.img",
    "key list disk.img",
    "key test disk.img --key-file key",
    "token list disk.img",
    "header backup disk.img disk.header",
];

#[test]
fn a_header_is_read_while_qemu_writes_to_the_volume() {
    let Some(daemon) = find("qemu-storage-daemon") else {
        return;
    };
    let session = Session::with_volume();
    let mut qemu = std::process::Command::new(daemon)
        .args(["--nbd-server", "addr.type=unix,addr.path=q.sock"])
        .args(["--blockdev", "driver=file,node-name=a,filename=disk.img"])
        .args(["--export", "type=nbd,id=e,node-name=a,writable=on"])
        .args(["--pidfile", "qemu.pid"])
        .current_dir(session.folder())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while !session.exists("qemu.pid") {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "QEMU does not start"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let held = format!("in use by pid {}", qemu.id());
    let decrypt = ["decrypt", "disk.img", "plain", "--key-file", "key"];
    let ran = session.run(decrypt);
    ran.fails(5, &held);
    // Its name, and no advice for machines.
    ran.fails(5, "(qemu-storage-d");
    ran.fails(5, "stop the program that has it open");
    for look in LOOKS {
        session.ok(look.split(' '));
    }
    qemu.kill().unwrap();
    qemu.wait().unwrap();
}

#[test]
fn a_header_is_shown_while_luksmith_has_the_volume_open_but_not_in_the_middle_of_a_change() {
    let session = Session::with_volume();
    let held = File::options()
        .write(true)
        .open(session.path("disk.img"))
        .unwrap();
    held.lock().unwrap();
    let (save, looks) = LOOKS.split_last().unwrap();
    for look in looks {
        session.ok(look.split(' '));
    }
    // The material of a keyslot could be in the middle of a change.
    session.run(save.split(' ')).fails(5, "busy");
    // What the other program has only begun shows by its undo record.
    session.write("disk.img.luksmith-undo", b"a record");
    for look in looks {
        session.run(look.split(' ')).fails(5, "busy");
    }
}

#[test]
fn an_image_that_is_encrypted_onto_itself_is_in_use_by_this_process() {
    let session = Session::with_volume();
    let before = session.read("disk.img");
    let args = "encrypt disk.img disk.img --source-format raw --key-file key --force overwrite";
    session
        .run(args.split(' '))
        .fails(5, "disk.img is busy: in use by this process");
    assert!(session.read("disk.img") == before);
}
