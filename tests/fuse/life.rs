//! How a mounted file ends: by a signal, by a request to unmount it, and by SIGKILL.

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use luksmith_formats::nbd::ErrorNumber;
use rustix::process::Signal;
use support::nbd_server::{Action, FakeServer, Shape};
use support::peers::output;

use crate::mounted::{Folder, Mounted, SIZE, can_mount, content, until};

#[test]
fn a_signal_unmounts_the_file() {
    if !can_mount() {
        return;
    }
    for signal in [Signal::TERM, Signal::INT] {
        let folder = Folder::new();
        let mut mounted = folder.mount(&["--pid-file", "pid"]);
        let pid = fs::read_to_string(folder.path("pid")).unwrap();
        assert_eq!(pid, format!("{}\n", mounted.child.id()));
        mounted.open().write_all_at(b"written", 77).unwrap();
        mounted.signal(signal);
        let (status, said) = mounted.ended();
        assert!(status.success(), "{status}: {said}");
        assert!(!folder.is_mounted() && !folder.path("file").exists());
        assert!(!folder.path("pid").exists());
        assert_eq!(folder.decrypted(&[])[77..84], *b"written");
    }
}

#[test]
fn a_file_in_use_is_served_until_it_is_closed() {
    if !can_mount() {
        return;
    }
    let folder = Folder::new();
    let mut mounted = folder.mount(&[]);
    let file = mounted.open();
    mounted.signal(Signal::TERM);
    until("the name is gone", || !folder.is_mounted());
    file.write_all_at(b"late", 4000).unwrap();
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, 4000).unwrap();
    assert_eq!(bytes, *b"late");
    assert!(mounted.child.try_wait().unwrap().is_none());
    drop(file);
    let (status, said) = mounted.ended();
    assert!(status.success(), "{status}: {said}");
    let us = format!("in use by pid {}", std::process::id());
    assert!(said.contains(&us), "{said}");
    assert_eq!(folder.decrypted(&[])[4000..4004], *b"late");
}

#[test]
fn a_second_signal_ends_the_program_at_once() {
    if !can_mount() {
        return;
    }
    let folder = Folder::new();
    let mut mounted = folder.mount(&[]);
    let file = mounted.open();
    mounted.signal(Signal::INT);
    until("the name is gone", || !folder.is_mounted());
    mounted.signal(Signal::INT);
    let (status, said) = mounted.ended();
    assert_eq!(status.code(), Some(130), "{said}");
    let mut bytes = [0; 512];
    let error = file.read_exact_at(&mut bytes, SIZE / 2).unwrap_err();
    assert!(
        matches!(
            error.raw_os_error(),
            Some(libc::ENOTCONN | libc::ECONNABORTED)
        ),
        "{error}"
    );
    drop(file);
    // Nothing is left in the way of the next one.
    let mounted = folder.mount(&[]);
    assert!(fs::read(mounted.path()).unwrap() == content());
    mounted.unmount();
}

#[test]
fn unmount_waits_until_the_volume_is_free_again() {
    if !can_mount() {
        return;
    }
    let folder = Folder::new();
    for round in 0..5_u8 {
        let mut mounted = folder.mount(&[]);
        mounted.open().write_all_at(&[round; 4096], 0).unwrap();
        folder.succeed(["unmount", "file"]);
        // A writer finds the volume in use while the program runs.
        folder.succeed(["config", "disk.img", "--label", "x"]);
        let (status, said) = mounted.ended();
        assert!(status.success(), "{status}: {said}");
        assert_eq!(folder.decrypted(&[])[..4096], [round; 4096]);
    }
}

#[test]
fn a_file_in_use_is_unmounted_only_lazily() {
    if !can_mount() {
        return;
    }
    let folder = Folder::new();
    let mut mounted = folder.mount(&[]);
    let mut file = mounted.open();
    let said = folder.fail(5, ["unmount", "file"]);
    assert!(
        said.contains(&format!("in use by pid {}", std::process::id())),
        "{said}"
    );
    assert!(said.contains("unmount --lazy"), "{said}");
    assert!(folder.is_mounted());
    let json = folder.succeed(["unmount", "file", "--lazy", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(
        (&json["in_use"], &json["was_dead"]),
        (&true.into(), &false.into())
    );
    assert!(!folder.is_mounted());
    let mut all = Vec::new();
    file.read_to_end(&mut all).unwrap();
    assert!(all == content());
    drop(file);
    let (status, said) = mounted.ended();
    assert!(status.success(), "{status}: {said}");
}

#[test]
fn what_a_killed_program_leaves_is_unmounted() {
    if !can_mount() {
        return;
    }
    let folder = Folder::new();
    let mut mounted = folder.mount(&[]);
    let file = mounted.open();
    file.write_all_at(b"flushed", 512).unwrap();
    file.sync_data().unwrap();
    mounted.signal(Signal::KILL);
    mounted.ended();
    // A program that has the file open gets the first of these, once.
    let mut bytes = [0; 512];
    let error = file.read_exact_at(&mut bytes, SIZE / 2).unwrap_err();
    assert!(
        matches!(
            error.raw_os_error(),
            Some(libc::ECONNABORTED | libc::ENOTCONN)
        ),
        "{error}"
    );
    let error = fs::read(mounted.path()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN), "{error}");
    // The next program says what has happened.
    let args = ["mount", "disk.img", "file", "--key-file", "key"];
    let said = folder.fail(5, args);
    assert!(
        said.contains("its program has ended") && said.contains("luksmith unmount"),
        "{said}"
    );
    let ran = output(&mut folder.luksmith(["unmount", "file"]));
    let line = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(
        ran.status.success() && line.contains("had ended before"),
        "{line}"
    );
    assert!(!folder.is_mounted());
    // The empty file that the killed program had made is a mount point again.
    let mounted = folder.mount(&[]);
    assert_eq!(fs::read(mounted.path()).unwrap()[512..519], *b"flushed");
    mounted.unmount();
}

#[test]
fn others_unmount_it_too() {
    if !can_mount() {
        return;
    }
    let folder = Folder::new();
    for command in [&["umount"][..], &["fusermount3", "-u"]] {
        let mut mounted = folder.mount(&[]);
        let mut unmount = Command::new(command[0]);
        support::peers::run(unmount.args(&command[1..]).arg(mounted.path()));
        let (status, said) = mounted.ended();
        assert!(status.success(), "{command:?}: {status}: {said}");
    }
}

/// The storage fails while the file is open: programs get EIO, and the user is told why.
#[test]
fn failing_storage_is_an_error_of_the_file() {
    if !can_mount() {
        return;
    }
    let folder = Folder::new();
    let disk = fs::read(folder.path("disk.img")).unwrap();
    let size = disk.len();
    let fails = Arc::new(AtomicBool::new(false));
    let failing = fails.clone();
    let shape = Shape {
        size,
        ..Shape::default()
    };
    let server =
        FakeServer::with_disk(shape, disk, move |_| match failing.load(Ordering::SeqCst) {
            true => Action::Fail(ErrorNumber::Io),
            false => Action::Serve,
        });
    let uri = server.uri().to_string();
    let args = [
        "mount",
        &uri,
        "file",
        "--key-file",
        "key",
        "--json",
        "--direct-io",
    ];
    let mut mounted = Mounted::start(&folder, folder.luksmith(args));
    let file = mounted.open();
    let mut bytes = [0; 4096];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == content()[..4096]);
    fails.store(true, Ordering::SeqCst);
    let eio = |result: std::io::Result<()>| {
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EIO));
    };
    eio(file.read_exact_at(&mut bytes, 4 << 20));
    eio(file.write_all_at(&bytes, 4 << 20));
    eio(file.sync_all());
    // A flush that failed stays failed, and reads work again.
    fails.store(false, Ordering::SeqCst);
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == content()[..4096]);
    eio(file.sync_all());
    drop(file);
    let said = folder.fail(4, ["unmount", "file"]);
    assert!(
        said.contains("cannot flush") && folder.is_mounted(),
        "{said}"
    );
    mounted.signal(Signal::TERM);
    let (status, said) = mounted.ended();
    assert_eq!(status.code(), Some(4), "{said}");
    assert!(
        said.contains("the server replied EIO") && said.contains("the last flush failed"),
        "{said}"
    );
    assert!(!folder.is_mounted());
}

/// A server that does not answer is not waited for if the name is only to go.
#[test]
fn a_stopped_program_is_unmounted_lazily() {
    if !can_mount() {
        return;
    }
    let folder = Folder::new();
    let mounted = folder.mount(&[]);
    mounted.signal(Signal::STOP);
    folder.succeed(["unmount", "--lazy", "file"]);
    assert!(!folder.is_mounted());
    mounted.signal(Signal::CONT);
    let mut mounted = mounted;
    let (status, said) = mounted.ended();
    assert!(status.success(), "{status}: {said}");
}

#[test]
fn a_program_in_the_background_returns_when_the_file_is_there() {
    if !can_mount() {
        return;
    }
    let folder = Folder::new();
    let args = ["mount", "disk.img", "file", "--key-file", "key"];
    let more = ["--background", "--pid-file", "pid"];
    // This waits for the end of its output too, which the program in the background closes.
    folder.succeed(args.iter().chain(&more));
    assert!(fs::read(folder.path("file")).unwrap() == content());
    assert!(folder.path("pid").exists());
    folder.succeed(["unmount", "file"]);
    until("its file is gone", || !folder.path("pid").exists());

    folder.write("key", b"wrong");
    let said = folder.fail(2, args.iter().chain(&["--background"]));
    assert!(
        said.contains("no keyslot opens") && said.matches("error").count() == 1,
        "{said}"
    );
    assert!(!folder.path("file").exists());
}

/// A reencryption goes on beside the programs that use the file.
#[test]
fn a_reencryption_goes_on() {
    if !can_mount() {
        return;
    }
    let folder = Folder::new();
    let cheap = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
    let begin = ["reencrypt", "disk.img", "--key-file", "key", "--init-only"];
    folder.succeed(begin.iter().chain(&cheap));
    let mut mounted = folder.mount(&[]);
    let file = mounted.open();
    let mut expected = content();
    for at in (0..SIZE).step_by(100_000) {
        let bytes = [9; 777];
        file.write_all_at(&bytes, at).unwrap();
        let at = usize::try_from(at).unwrap();
        expected[at..at + 777].copy_from_slice(&bytes);
    }
    assert!(fs::read(mounted.path()).unwrap() == expected);
    drop(file);
    until("it is finished", || {
        let info = folder.succeed(["info", "disk.img", "--json", "--force-share"]);
        let info: serde_json::Value = serde_json::from_slice(&info).unwrap();
        info["reencryption"].is_null()
    });
    folder.succeed(["unmount", "file"]);
    let (status, said) = mounted.ended();
    assert!(
        status.success() && said.contains("is finished"),
        "{status}: {said}"
    );
    assert!(folder.decrypted(&[]) == expected);
}
