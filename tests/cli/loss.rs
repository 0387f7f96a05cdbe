//! What the user has not agreed to lose is kept: detached headers, files that appear while the
//! program runs, the volume's own storage.

use std::process::Command;

use crate::session::{CHEAP, Session};

/// `data.img` with the detached header `head.img`.
fn detached() -> Session {
    let session = Session::new();
    let create = "create data.img --header head.img --size 1M --key-file key";
    session.ok(create.split(' ').chain(CHEAP));
    session
}

#[test]
fn a_detached_header_is_no_data() {
    let session = detached();
    let before = session.read("head.img");
    for command in [
        "resize head.img --size 64K --force shrink",
        "resize head.img --size 64M",
        "decrypt head.img plain.img --key-file key",
    ] {
        let ran = session.run(command.split(' '));
        ran.fails(1, "the header is detached: the data is elsewhere");
        ran.fails(1, "luksmith: hint: name the data as IMAGE");
    }
    assert!(session.read("head.img") == before && !session.exists("plain.img"));
    session.ok("resize data.img --header head.img --size 2M".split(' '));
    assert_eq!(session.read("data.img").len(), 2 << 20);
}

#[test]
fn a_volume_is_not_decrypted_over_its_own_header() {
    let session = detached();
    let before = session.read("head.img");
    let decrypt =
        "decrypt data.img head.img --header head.img --key-file key --force overwrite".split(' ');
    session
        .run(decrypt)
        .fails(1, "head.img is the header itself");
    assert!(session.read("head.img") == before);
}

#[test]
fn a_file_that_came_after_the_look_stays() {
    let session = Session::new();
    let create = "create disk.img --size 1M --key stdin";
    let mut child = session
        .command(create.split(' ').chain(CHEAP))
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // The program looks at the path before it reads the passphrase, and reads that before it makes
    // a file.
    let mut stdin = child.stdin.take().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    session.write("disk.img", b"another's");
    std::io::Write::write_all(&mut stdin, b"secret").unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(5),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(session.read("disk.img"), b"another's");
}

#[test]
fn a_header_in_use_is_not_replaced() {
    let session = detached();
    let held = std::fs::File::open(session.path("head.img")).unwrap();
    held.lock().unwrap();
    let create = "create new.img --header head.img --size 1M --key-file key --force overwrite";
    session
        .run(create.split(' ').chain(CHEAP))
        .fails(5, "head.img is busy");
}

#[test]
fn an_undo_record_that_others_could_have_put_there_is_not_believed() {
    let session = Session::with_volume();
    let record = session.path("disk.img.luksmith-undo");
    let fifo = Command::new("mkfifo").arg(&record).status().unwrap();
    assert!(fifo.success());
    session
        .run(["info", "disk.img"])
        .fails(4, "is no undo record");
    std::fs::remove_file(&record).unwrap();
    std::os::unix::fs::symlink(session.path("key"), &record).unwrap();
    session
        .run(["info", "disk.img"])
        .fails(4, "cannot read the undo record");
    std::fs::remove_file(&record).unwrap();
    session.write("disk.img.luksmith-undo", b"");
    // Only root can change the owner of a file.
    if std::os::unix::fs::chown(&record, Some(4711), None).is_ok() {
        session
            .run(["header", "repair", "disk.img"])
            .fails(4, "belongs to user 4711");
    }
}
