//! The commands of README.md and of the pages in `docs/` work as they are printed.
//!
//! Each test runs the `sh` blocks of one page as one script, in a folder with a file `key`. The
//! pages of libvirt and of untrusted images have tests of their own, in `tests/libvirt` and
//! `tests/vet`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use support::peers;

use crate::session::{CHEAP, Session};

/// The `sh` blocks of a page that contain `word`, as one script.
fn script(page: &str, word: &str) -> String {
    let blocks = page.split("```sh\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split("```").next());
    let script: String = blocks.filter(|block| block.contains(word)).collect();
    assert!(!script.is_empty());
    script
}

/// Runs a script that has to succeed, and returns what it printed.
fn run(session: &Session, script: &str) -> String {
    // Opening a keyslot takes two seconds by default, so this program makes cheap ones.
    let program = session.path("bin/luksmith");
    let wrapper = format!(
        "#!/bin/sh\n\
         case \"$1 $2\" in\n\
         create*|encrypt*|copy*|reencrypt*|'key add'*|'key rotate'*) exec '{luksmith}' \"$@\" {cheap} ;;\n\
         *) exec '{luksmith}' \"$@\" ;;\n\
         esac\n",
        luksmith = env!("CARGO_BIN_EXE_luksmith"),
        cheap = CHEAP.join(" "),
    );
    fs::create_dir(session.path("bin")).unwrap();
    fs::write(&program, wrapper).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();

    let printed = session.path("printed");
    let log = fs::File::create(&printed).unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let shell = Command::new("timeout")
        .args(["--kill-after=5", "120", "bash", "-euxc", script])
        .current_dir(session.folder())
        .env(
            "PATH",
            format!("{}:{path}:/usr/sbin:/sbin", session.path("bin").display()),
        )
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .process_group(0)
        .spawn();
    let mut shell = shell.unwrap();
    let group = Pid::from_child(&shell);
    let status = shell.wait().unwrap();
    // A script that failed may leave a server behind.
    let _ = kill_process_group(group, Signal::TERM);
    // Programs may print what is no UTF-8.
    let printed = String::from_utf8_lossy(&fs::read(printed).unwrap()).into_owned();
    assert!(status.success(), "{printed}");
    printed
}

/// Whether all these programs are installed.
fn installed(programs: &[&str]) -> bool {
    programs.iter().all(|name| peers::find(name).is_some())
}

#[test]
fn readme() {
    let session = Session::new();
    session.write("plain.img", &[7; 1 << 20]);
    let page = include_str!("../../README.md");
    run(&session, &script(page, "plain.img"));
    assert_eq!(session.read("again.img"), session.read("plain.img"));
    assert!(session.exists("disk.header"));
}

#[test]
fn storage() {
    if !installed(&["nbdkit"]) {
        return;
    }
    let page = include_str!("../../docs/storage.md");
    let nbd = script(page, "").replace(&script(page, "tgtd"), "");
    run(&Session::new(), &nbd);
}

#[test]
fn iscsi() {
    let modules = peers::unpacked("modules/usr/lib/x86_64-linux-gnu/qemu");
    let has = |folder: &Path| folder.join("block-iscsi.so").exists();
    let installed_too = has(Path::new("/usr/lib/x86_64-linux-gnu/qemu"));
    if !installed(&["tgtd", "qemu-nbd"]) {
        return;
    }
    if !installed_too && !has(&modules) {
        return peers::skip("qemu-block-extra");
    }
    // The target's control socket is in a folder of root's.
    if !rustix::process::getuid().is_root() {
        return;
    }
    let page = include_str!("../../docs/storage.md");
    let mut script = script(page, "tgtd");
    if !installed_too {
        script = format!("export QEMU_MODULE_DIR='{}'\n{script}", modules.display());
    }
    let session = Session::new();
    let printed = run(&session, &script);
    assert!(printed.contains("keyslot 0 opens the volume"), "{printed}");
    assert!(session.read("lun.img").starts_with(b"LUKS"));
}

#[test]
fn serving() {
    if !installed(&["nbdinfo", "nbdcopy", "certtool"]) {
        return;
    }
    let page = include_str!("../../docs/serving.md");
    let printed = run(&Session::new(), &script(page, ""));
    assert!(printed.contains("export=\"b\""), "{printed}");
}

#[test]
fn mount() {
    if !std::path::Path::new("/dev/fuse").exists() || !installed(&["fusermount3"]) {
        return;
    }
    let page = include_str!("../../docs/mount.md");
    let printed = run(&Session::new(), &script(page, ""));
    assert!(printed.contains("disk: unmounted"), "{printed}");
}

#[test]
fn qcow2() {
    if !installed(&["qemu-img"]) {
        return;
    }
    let page = include_str!("../../docs/qcow2.md");
    run(&Session::new(), &script(page, ""));
}

#[test]
fn tokens() {
    let page = include_str!("../../docs/tokens.md");
    let printed = run(&Session::new(), &script(page, ""));
    assert!(printed.contains("luks2-keyring"), "{printed}");
}

#[test]
fn key_helpers() {
    let session = Session::new();
    let page = include_str!("../../docs/key-helpers.md");
    let printed = run(&session, &script(page, ""));
    assert!(
        printed.contains("helper:files:vm1 has a new passphrase"),
        "{printed}"
    );
    assert!(session.exists("values/vm1") && !session.exists("values/vm1.luksmith-old"));
}

#[test]
fn reencrypt() {
    let page = include_str!("../../docs/reencrypt.md");
    let printed = run(&Session::new(), &script(page, ""));
    assert!(printed.contains("has a new encryption"), "{printed}");
}

#[test]
fn programs() {
    let page = include_str!("../../docs/programs.md");
    let printed = run(&Session::new(), &script(page, ""));
    assert!(printed.contains("wrong-passphrase"), "{printed}");
}

#[test]
fn troubleshooting() {
    let page = include_str!("../../docs/troubleshooting.md");
    let printed = run(&Session::new(), &script(page, ""));
    for said in [
        "\nexit code 2\n",
        "\nkeyslot 0 opens the volume\n",
        "\nexit code 1\n",
    ] {
        assert!(printed.contains(said), "{said:?} in {printed}");
    }
}

#[test]
fn trust() {
    let page = include_str!("../../docs/trust.md");
    let printed = run(&Session::new(), &script(page, ""));
    assert!(printed.contains("exit code 7"), "{printed}");
    assert!(printed.contains("the label was changed"), "{printed}");
}
