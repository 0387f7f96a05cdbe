//! The command: its exit codes, the files that it reads and does not read, and its output.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::good;

pub(crate) fn luksmith(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_luksmith"))
        .current_dir(folder)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[track_caller]
pub(crate) fn fails(folder: &Path, arguments: &[&str], code: i32, says: &str) {
    let output = luksmith(folder, arguments);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert!(text.contains(says), "{arguments:?}: {text}");
}

/// A folder with a good domain, and with one that is not confined.
pub(crate) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("good.xml"), good::DOMAIN).unwrap();
    let from = "type='dynamic' model='apparmor'";
    let bad = good::DOMAIN.replace(from, "type='none' model='apparmor'");
    std::fs::write(folder.path().join("bad vm.xml"), bad).unwrap();
    folder
}

#[test]
fn the_exit_code_depends_on_the_findings() {
    let folder = folder();
    let folder = folder.path();
    let audit = |more: &[&'static str]| [&["audit", "--no-images"], more].concat();
    let output = luksmith(folder, &audit(&["good.xml"]));
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, "0 errors, 0 warnings, 0 notes; 0 excepted\n");
    fails(
        folder,
        &audit(&["good.xml", "bad vm.xml"]),
        11,
        "1 finding of a severity",
    );
    fails(
        folder,
        &audit(&["bad vm.xml", "--fail-on", "error"]),
        11,
        "docs/audit.md",
    );
    fails(folder, &audit(&["bad vm.xml", "--fail-on", "never"]), 0, "");
    fails(
        folder,
        &audit(&["missing.xml"]),
        4,
        "cannot read missing.xml",
    );
    fails(folder, &audit(&["."]), 4, "not a regular file");
    let image = [b"LUKS\xba\xbe\x00\x01", &[0; 5 << 20][..]].concat();
    std::fs::write(folder.join("disk.img"), image).unwrap();
    let output = luksmith(folder, &audit(&["disk.img"]));
    assert_eq!(output.status.code(), Some(11));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("it is not XML") && text.contains("`luksmith inspect`"),
        "{text}"
    );
    fails(folder, &audit(&[]), 1, "--connect");
    fails(folder, &audit(&["good.xml", "--root", "x"]), 1, "--host");
    fails(
        folder,
        &audit(&["good.xml", "--policy", "missing"]),
        4,
        "cannot read missing",
    );
    fails(
        folder,
        &audit(&["good.xml", "--policy", "good.xml"]),
        1,
        "every member",
    );

    let output = luksmith(folder, &audit(&["bad vm.xml", "--json"]));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let finding = &report["findings"][0];
    assert_eq!(finding["id"], "confinement.seclabel");
    assert_eq!(
        (&finding["severity"], &finding["origin"]),
        (&"error".into(), &"bad vm.xml".into())
    );
    assert_eq!(finding["line"], 79);
    assert_eq!(finding["object"][0]["name"], "vm1");
    assert_eq!(
        (&report["counts"]["error"], &report["counts"]["note"]),
        (&1.into(), &0.into())
    );
}

#[test]
fn findings_below_the_severity_of_fail_on_do_not_count() {
    let folder = folder();
    let folder = folder.path();
    let text = good::DOMAIN.replace("<on_crash>destroy", "<on_crash>coredump-destroy");
    std::fs::write(folder.join("warns.xml"), text).unwrap();
    let audit = |severity| ["audit", "--no-images", "warns.xml", "--fail-on", severity];
    for (severity, code) in [("note", 11), ("warning", 11), ("error", 0), ("never", 0)] {
        let output = luksmith(folder, &audit(severity));
        assert_eq!(output.status.code(), Some(code), "{severity}");
    }
}

#[test]
fn xml_is_read_from_stdin() {
    let folder = folder();
    let xml = std::fs::File::open(folder.path().join("bad vm.xml")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_luksmith"))
        .args(["audit", "-", "--no-images"])
        .stdin(xml)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(11));
    assert!(text.contains("  stdin:79: domain vm1\n"), "{text}");
}

/// Images are opened by the paths in the XML, only to be read. The files that they name are not
/// opened, and a FIFO does not block the audit.
#[test]
fn images_are_read_and_nothing_blocks() {
    let folder = folder();
    let folder = folder.path();
    let path = |name: &str| folder.join(name).display().to_string();
    let mut luks = vec![0; 4096];
    luks[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
    std::fs::write(folder.join("luks"), &luks).unwrap();
    symlink("luks", folder.join("link")).unwrap();
    let fifo = folder.join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
    let with = |image: &str| {
        let xml = format!(
            "<domain><name>d</name><devices><disk><driver type='raw'/><source file='{}'/><target dev='vda'/></disk></devices></domain>",
            path(image)
        );
        std::fs::write(folder.join("d.xml"), xml).unwrap();
        let output = luksmith(folder, &["audit", "d.xml", "--json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let finding = report["findings"][0].clone();
        let text = |name: &str| finding[name].as_str().unwrap_or_default().to_owned();
        (text("id"), text("detail"))
    };
    for image in ["luks", "link"] {
        let (id, detail) = with(image);
        assert_eq!(id, "storage.luks-as-raw");
        assert!(detail.starts_with(&path(image)), "{detail}");
    }
    for (image, why) in [
        ("fifo", "fifo"),
        ("missing", "does not exist"),
        ("", "directory"),
    ] {
        let (id, detail) = with(image);
        assert_eq!(id, "chain.not-looked-at");
        assert!(detail.contains(why), "{detail}");
    }
    let output = luksmith(folder, &["audit", "d.xml", "--no-images"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(std::fs::read(folder.join("luks")).unwrap(), luks);
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// The files of a host below another root.
#[test]
fn a_host_is_read_below_its_root() {
    let folder = folder();
    let root = folder.path();
    fails(
        root,
        &["audit", "--host", "--root", "."],
        4,
        "etc/libvirt is not a folder",
    );
    for file in good::host()
        .files
        .iter()
        .chain(good::host().sockets.iter().flat_map(|unit| &unit.files))
    {
        write(
            root,
            &file.origin[1..],
            std::str::from_utf8(&file.text).unwrap(),
        );
    }
    let audit = [
        "audit",
        "--host",
        "--root",
        ".",
        "--json",
        "--fail-on",
        "note",
    ];
    let ids = || {
        let output = luksmith(root, &audit);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = report["findings"].as_array().unwrap().iter();
        let mut found: Vec<_> = findings
            .map(|one| {
                format!(
                    "{} {}",
                    one["id"].as_str().unwrap(),
                    one["origin"].as_str().unwrap()
                )
            })
            .collect();
        found.sort();
        assert_eq!(
            output.status.code(),
            Some(if found.is_empty() { 0 } else { 11 })
        );
        found
    };
    assert_eq!(ids(), [""; 0]);

    // Each of these files is found below the root.
    let qemu = std::fs::read_to_string(root.join("etc/libvirt/qemu.conf")).unwrap();
    write(
        root,
        "etc/libvirt/qemu.conf",
        &(qemu + "seccomp_sandbox = 0\n"),
    );
    write(
        root,
        "etc/libvirt/virtqemud.conf",
        "access_drivers = ['polkit']\nauth_unix_rw = 'none'\n",
    );
    write(
        root,
        "usr/lib/systemd/system/virtqemud.socket",
        "[Socket]\nSocketMode=0600\n",
    );
    write(
        root,
        "etc/systemd/system/virtqemud.socket.d/mode.conf",
        "[Socket]\nSocketMode=0666\n",
    );
    std::fs::create_dir_all(root.join("etc/systemd/system/sockets.target.wants")).unwrap();
    symlink(
        "/x",
        root.join("etc/systemd/system/sockets.target.wants/libvirtd-tcp.socket"),
    )
    .unwrap();
    write(
        root,
        "lib/systemd/system/libvirtd-tcp.socket",
        "[Socket]\nListenStream=10.0.0.1:16509\n",
    );
    write(root, "etc/libvirt/secrets/a.base64", "");
    write(root, "etc/libvirt/secrets/a.xml", "");
    write(root, "var/lib/libvirt/qemu/save/vm1.save", "");
    write(
        root,
        "proc/self/mountinfo",
        "50 22 7:9 / /mnt rw - ext4 /dev/loop0 rw\n",
    );
    write(root, "sys/class/block/loop0/dev", "7:9\n");
    write(
        root,
        "sys/class/block/loop0/loop/backing_file",
        "/pool/x.img\n",
    );
    write(
        root,
        "etc/libvirt/storage/p.xml",
        "<pool type='dir'><name>p</name><target><path>/pool</path></target></pool>",
    );
    let expected = [
        "access.looped /pool/x.img",
        "access.mounted /pool/x.img",
        "confinement.seccomp ./etc/libvirt/qemu.conf",
        "control.socket ./etc/systemd/system/virtqemud.socket.d/mode.conf",
        "listener.tcp ./lib/systemd/system/libvirtd-tcp.socket",
        "memory.saved ./var/lib/libvirt/qemu/save/vm1.save",
        "secret.file-mode ./etc/libvirt/secrets/a.base64",
        "secret.stored ./etc/libvirt/secrets/a.base64",
    ];
    assert_eq!(ids(), expected);

    // A masked unit does not count, and a rule of polkit hides one with the same name.
    std::fs::remove_file(root.join("lib/systemd/system/libvirtd-tcp.socket")).unwrap();
    symlink(
        "/dev/null",
        root.join("lib/systemd/system/libvirtd-tcp.socket"),
    )
    .unwrap();
    let rule = "if (action.id == \"org.libvirt.unix.manage\") { return polkit.Result.YES; }";
    write(root, "usr/share/polkit-1/rules.d/60-libvirt.rules", rule);
    let more = ids();
    assert!(
        !more.iter().any(|one| one.starts_with("listener.tcp")),
        "{more:?}"
    );
    assert!(
        more.iter()
            .any(|one| one.starts_with("control.polkit-rule")),
        "{more:?}"
    );
    write(root, "etc/polkit-1/rules.d/60-libvirt.rules", "");
    assert!(
        !ids()
            .iter()
            .any(|one| one.starts_with("control.polkit-rule"))
    );

    std::fs::remove_file(root.join("etc/libvirt/qemu.conf")).unwrap();
    let defaults = ids();
    assert!(
        defaults.iter().any(|one| one.starts_with("migration.tls ")),
        "{defaults:?}"
    );
}
