//! Another program has the image open.

use std::fs::File;

use crate::session::{CHEAP, Session};

#[test]
fn a_holder_is_named_and_readers_may_insist() {
    let session = Session::with_volume();
    let held = File::open(session.path("disk.img")).unwrap();
    held.lock().unwrap();
    let us = format!("in use by pid {} ", std::process::id());
    let ran = session.run(["info", "disk.img"]);
    ran.fails(5, "luksmith: error: disk.img is busy: ");
    ran.fails(5, &us);
    ran.fails(5, "luksmith: hint: --force-share");
    session.ok(["info", "disk.img", "--force-share"]);

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

#[test]
fn an_image_that_is_encrypted_onto_itself_is_in_use_by_this_process() {
    let session = Session::with_volume();
    let before = session.read("disk.img");
    let args = ["encrypt", "disk.img", "disk.img", "--key-file", "key"];
    session
        .run(args.iter().chain(&["--force", "overwrite"]))
        .fails(5, "disk.img is busy: in use by this process");
    assert!(session.read("disk.img") == before);
}
