//! Commands on volumes in Ceph.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::peers;

use crate::program::{CHEAP, Site, content};

const MIB: usize = 1 << 20;

/// The size of an image in bytes, or `None` if there is none.
fn size(site: &Site, image: &str) -> Option<u64> {
    let mut rbd = site.ceph.client("rbd");
    let output = peers::output(rbd.args(["info", "--format", "json", &format!("rbd/{image}")]));
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, rest) = text.split_once("\"size\":")?;
    rest.split([',', '}']).next()?.trim().parse().ok()
}

#[test]
fn create_makes_the_image_and_resize_resizes_it() {
    let Some(site) = Site::new() else { return };
    site.create("sized", "8M", "");
    assert_eq!(size(&site, "sized"), Some(24 << 20));
    let plain = content(1, 8 * MIB);
    site.write("plain", &plain);

    // An existing image is only overwritten on request, even if it holds nothing.
    let cheap = CHEAP.join(" ");
    let again = format!("create {{sized}} --key-file key {cheap}");
    let (_, said) = site.refused(&again);
    assert!(
        said.contains("would be overwritten: it holds the LUKS2 volume"),
        "{said}"
    );
    assert!(said.contains("--force overwrite"), "{said}");
    site.ceph.rbd("create rbd/empty --size 24M");
    let empty = format!("create {{empty}} --key-file key {cheap}");
    let (_, said) = site.refused(&empty);
    assert!(said.contains("exists and would be overwritten"), "{said}");
    site.luksmith(&format!("{empty} --force overwrite"));
    site.luksmith(&format!(
        "encrypt plain {{sized}} --force overwrite --key-file key {cheap}"
    ));

    site.luksmith("resize {sized} --size +4M");
    assert_eq!(size(&site, "sized"), Some(28 << 20));
    site.luksmith("resize {sized} --size 5M --force shrink");
    assert_eq!(size(&site, "sized"), Some(21 << 20));
    site.luksmith("decrypt {sized} out --key-file key");
    assert!(site.read("out") == plain[..5 * MIB]);

    for (line, expected) in [
        (
            format!("create {{nosize}} --key-file key {cheap}"),
            "needs a size",
        ),
        (
            format!("create {{q}} --size 4M --format qcow2 --key-file key {cheap}"),
            "a new image in ceph is raw",
        ),
        (
            "decrypt {sized} {sized} --key-file key".to_owned(),
            "rbd import",
        ),
    ] {
        let (_, said) = site.refused(&line);
        assert!(said.contains(expected), "{line}: {said}");
    }
    assert_eq!(size(&site, "nosize"), None);
}

#[test]
fn an_interrupted_command_removes_the_image_that_it_made() {
    let Some(site) = Site::new() else { return };
    // The source never ends.
    let words = [
        "encrypt",
        "-",
        "{interrupted}",
        "--size",
        "64M",
        "--key-file",
        "key",
    ];
    let words: Vec<&str> = words.into_iter().chain(CHEAP).collect();
    let mut encrypt = site.command(&words);
    let mut running = encrypt
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut source = running.stdin.take().unwrap();
    source.write_all(&content(2, 1 << 20)).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while size(&site, "interrupted").is_none() {
        assert!(Instant::now() < until && running.try_wait().unwrap().is_none());
    }
    kill_process(Pid::from_child(&running), Signal::INT).unwrap();
    assert!(!running.wait().unwrap().success());
    assert_eq!(size(&site, "interrupted"), None);
}

#[test]
fn a_copy_goes_into_a_new_image_and_never_onto_its_source() {
    let Some(site) = Site::new() else { return };
    let plain = content(4, 6 * MIB);
    site.write("plain", &plain);
    let cheap = CHEAP.join(" ");
    site.luksmith(&format!("encrypt plain disk.img --key-file key {cheap}"));
    site.luksmith(&format!(
        "copy disk.img {{copied}} --type luks1 --key-file key {cheap}"
    ));
    assert_eq!(size(&site, "copied"), Some((4 << 20) + plain.len() as u64));
    site.luksmith("decrypt {copied} out --key-file key");
    assert!(site.read("out") == plain);

    // By another spelling, and with the header elsewhere, so that no UUID tells.
    let detached = format!("create {{bare}} --size 4M --header h.img --key-file key {cheap}");
    site.luksmith(&detached);
    assert_eq!(size(&site, "bare"), Some(4 << 20));
    let line = "copy {bare} {bare}&id=admin --source-header h.img --force overwrite --key-file key";
    let (_, said) = site.refused(&format!("{line} {cheap}"));
    assert!(said.contains("the source is in"), "{said}");
}

#[test]
fn the_header_changes_and_a_part_is_used() {
    let Some(site) = Site::new() else { return };
    site.create("changed", "4M", "");
    site.write("other", b"another passphrase");
    let cheap = CHEAP.join(" ");
    for line in [
        format!("key add {{changed}} --key-file key --new-key-file other {cheap}"),
        "key remove {changed} --key-file key --force last".replace(" --force last", ""),
        "key test {changed} --key-file other".to_owned(),
        "config {changed} --label in-ceph".to_owned(),
        "header backup {changed} backup".to_owned(),
        format!("reencrypt {{changed}} --key-file other {cheap}"),
        "key test {changed} --key-file other".to_owned(),
    ] {
        site.luksmith(&line);
    }
    assert!(site.luksmith("info {changed}").contains("in-ceph"));

    site.ceph.rbd("create rbd/whole --size 64M");
    let part = "{whole},offset=8M,size=20M";
    site.luksmith(&format!("create {part} --key-file key {cheap}"));
    site.luksmith(&format!("key test {part} --key-file key"));
    let (_, said) = site.refused(&format!("resize {part} --size 2M"));
    assert!(said.contains("reaches to its end"), "{said}");
    assert_eq!(site.refused("info {whole}").0, 4);
}

#[test]
fn a_guest_reads_and_writes_what_is_served() {
    let Some(site) = Site::new() else { return };
    let Some(nbdcopy) = peers::find("nbdcopy") else {
        return;
    };
    let plain = content(8, 24 * MIB);
    site.write("plain", &plain);
    site.create("served", "24M", "");
    let serving = site.serve("served");
    let uri = &serving.uri;
    peers::run(
        Command::new(&nbdcopy)
            .arg("--flush")
            .arg(site.path("plain"))
            .arg(uri),
    );
    peers::run(Command::new(&nbdcopy).arg(uri).arg(site.path("back")));
    assert!(site.read("back") == plain);
    // The header is read and the passphrase is tested beside the server, and nothing is changed.
    site.luksmith("key list {served}");
    assert_eq!(site.refused("config {served} --label x").0, 5);
    serving.stop();
    site.luksmith("decrypt {served} out --key-file key");
    assert!(site.read("out") == plain);
}

#[test]
fn a_snapshot_is_opened_for_reading() {
    let Some(site) = Site::new() else { return };
    let cheap = CHEAP.join(" ");
    let plain = content(6, 4 * MIB);
    site.write("plain", &plain);
    site.luksmith(&format!("encrypt plain {{dated}} --key-file key {cheap}"));
    site.ceph.rbd("snap create rbd/dated@then");
    site.write("plain", &content(7, 4 * MIB));
    site.luksmith(&format!(
        "encrypt plain {{dated}} --force overwrite --key-file key {cheap}"
    ));
    site.luksmith("decrypt {dated@then} out --key-file key");
    assert!(site.read("out") == plain);
    let (_, said) = site.refused("config {dated@then} --label x");
    assert!(said.contains("a snapshot is read-only"), "{said}");
}

#[test]
fn a_name_of_qemu_and_a_missing_feature_get_a_hint() {
    let Some(site) = Site::new() else { return };
    let (code, said) = site.refused("info rbd:pool/image@snap");
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("rbd://pool/image@snap"), "{said}");
    site.ceph
        .rbd("create rbd/bare-lock --size 24M --image-feature layering");
    let line = "create {bare-lock} --force overwrite --key-file key";
    let (_, said) = site.refused(line);
    assert!(
        said.contains("rbd feature enable POOL/IMAGE exclusive-lock"),
        "{said}"
    );
    let (_, said) = site.refused("info {absent}");
    assert!(said.contains("there is no image of that name"), "{said}");
}
