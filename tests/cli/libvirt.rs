//! A libvirt library that cannot be loaded.

use crate::session::{CHEAP, Session};

#[test]
fn a_broken_library_is_not_said_to_be_missing() {
    let session = Session::new();
    // The beginning of a shared library, and a text.
    for (bytes, why) in [
        (&b"\x7fELF\x02\x01\x01"[..], "file too short"),
        (&[b'x'; 4096], "invalid ELF header"),
    ] {
        session.write("libvirt.so.0", bytes);
        let mut command = session.command(["libvirt", "secret", "list"]);
        command.env("LD_LIBRARY_PATH", session.folder());
        let ran = crate::session::Ran(command.output().unwrap());
        ran.fails(4, "the installed libvirt.so.0 cannot be loaded");
        ran.fails(4, why);
        ran.fails(4, "reinstall libvirt's client library");
    }
}

#[test]
fn xml_of_a_qcow2_image_needs_its_format() {
    let session = Session::new();
    let create = "create a.qcow2 --format qcow2 --size 1M --key-file key";
    session.ok(create.split(' ').chain(CHEAP));
    let xml = session.run(["libvirt", "xml", "volume", "a.qcow2"]);
    xml.fails(4, "no LUKS header");
    xml.fails(4, "--format qcow2 opens it as one");
    session.ok("libvirt xml volume a.qcow2 --format qcow2".split(' '));
}
