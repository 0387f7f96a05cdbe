//! URIs in places that take no URI: a password in such a URI is never printed.

use crate::session::Session;

const SECRET: &str = "nbd://user:hunter2@host/disk";

#[test]
fn a_password_is_not_repeated_wherever_it_stands() {
    let session = Session::with_volume();
    let export = format!("=b.img,x={SECRET}");
    let key = format!("file:{SECRET}");
    for args in [
        &["encrypt", SECRET, "new.img", "--key-file", "key"][..],
        &["encrypt", "key", SECRET, "--key-file", "key"],
        &["decrypt", "disk.img", SECRET, "--key-file", "key"],
        &["decrypt", SECRET, "plain.img", "--key-file", "key"],
        &["header", "backup", "disk.img", SECRET],
        &["header", "restore", "disk.img", SECRET],
        &["info", "disk.img", SECRET],
        &["info", "disk.img", "--header", SECRET],
        &["key", "test", "disk.img", "--key-file", SECRET],
        &["key", "test", "disk.img", "--key", &key],
        &["key", "test", "disk.img", "--key", SECRET],
        &["key", "change", "disk.img", "--undo-file", SECRET],
        &["key", "volume-key", "disk.img", "--out", SECRET],
        &["token", "import", "disk.img", "--json-file", SECRET],
        &["serve", "disk.img", "--socket", SECRET],
        &["serve", "disk.img", "--socket", "s", "--tls-dir", SECRET],
        &["serve", "--socket", "s", "--export", SECRET],
        &["serve", "--socket", "s", "--export", &export],
        &["serve", "--listen", SECRET, "disk.img"],
        &["identify", SECRET],
        &["benchmark", "--plot", SECRET],
        &[SECRET],
    ] {
        let ran = session.run(args);
        let said = ran.stdout() + &ran.stderr();
        assert_ne!(ran.code(), 0, "{args:?}: {said}");
        assert!(!said.contains("hunter2"), "{args:?}: {said}");
    }
    assert!(!session.exists("nbd:"));
}

#[test]
fn where_a_file_is_wanted_that_is_said() {
    let session = Session::with_volume();
    for args in [
        &["header", "backup", "disk.img", "nbd://host/x"][..],
        &["key", "test", "disk.img", "--key-file", "nbd://host/x"],
    ] {
        session.run(args).fails(1, "file is required, not a URI");
        session.run(args).fails(1, "a file of that name is ./NAME");
    }
}

#[test]
fn virtio_sockets_and_pre_shared_keys_are_refused_by_name() {
    let session = Session::with_volume();
    for (uri, said, tip) in [
        (
            "nbd+vsock://2:10809/x",
            "nbd+vsock: nbd over virtio sockets (vsock) is not supported",
            "nbd+unix:// or nbds://",
        ),
        (
            "nbds+vsock://2/x,partition=1",
            "nbds+vsock: nbd over virtio sockets (vsock) is not supported",
            "nbd+unix:// or nbds://",
        ),
        (
            "nbds://alice@host/x?tls-psk-file=/k",
            "tls with pre-shared keys (psk) is not supported",
            "tls-certificates=DIR",
        ),
        (
            "nbds://host/x?tls-type=psk",
            "tls with pre-shared keys (psk) is not supported",
            "tls-certificates=DIR",
        ),
    ] {
        for args in [&["info", uri][..], &["encrypt", uri, "new.img"]] {
            session.run(args).fails(1, said);
            session.run(args).fails(1, tip);
        }
        assert_eq!(session.run(&["info", uri]).stderr().lines().count(), 2);
    }
}
