//! Runs the commands of docs/untrusted-images.md verbatim: on good images, and on bad ones, for
//! which no command after the inspection may run.

#![allow(clippy::print_stderr)] // a missing guestfish is named

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::judge::{be32, be64, put};
use crate::qcow2;
use support::peers;

const PAGE: &str = include_str!("../../docs/untrusted-images.md");
const LETTER: &[u8] = b"dear all,\n\nthis is on the disk\0\x1b[2J\r\n";

/// All blocks of the page in `language`, as one script.
fn script(language: &str) -> String {
    let opening = format!("```{language}\n");
    let blocks = PAGE.split(&opening).skip(1);
    blocks.filter_map(|rest| rest.split("```").next()).collect()
}

/// The exit status and the output of a script.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    said: String,
}

/// The files and programs that the page expects.
struct Shell {
    folder: TempDir,
    kernel: PathBuf,
    modules: PathBuf,
}

impl Shell {
    /// Makes both images. Returns `None`, with a message, if a program is missing.
    fn find() -> Option<Self> {
        for program in ["qemu-system-x86_64", "busybox", "qemu-img", "mkfs.ext4"] {
            peers::find(program)?;
        }
        let root = peers::unpacked("kernel");
        let first = |folder: &str, begins: &str| {
            let entries = fs::read_dir(root.join(folder))
                .into_iter()
                .flatten()
                .flatten();
            let mut paths = entries.map(|entry| entry.path());
            paths.find(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with(begins))
            })
        };
        let modules = first("lib/modules", "").or_else(|| first("usr/lib/modules", ""));
        let (Some(kernel), Some(modules)) = (first("boot", "vmlinuz-"), modules) else {
            peers::skip("the kernel package in target/peers/kernel");
            return None;
        };
        let closed = fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().permissions(closed).tempdir();
        let shell = Self {
            folder: folder.unwrap(),
            kernel,
            modules,
        };
        shell.make_images();
        Some(shell)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn make_images(&self) {
        fs::create_dir_all(self.path("files/folder")).unwrap();
        fs::write(self.path("files/folder/letter.txt"), LETTER).unwrap();
        fs::write(self.path("plain"), vec![0; 8 << 20]).unwrap();
        fs::write(self.path("key"), "passphrase").unwrap();
        fs::set_permissions(self.path("key"), fs::Permissions::from_mode(0o600)).unwrap();
        let made = self.run(
            "mkfs.ext4 -q -F -d files plain
             luksmith encrypt plain stranger.img --key-file key --pbkdf pbkdf2 --pbkdf-force-iterations 1000
             qemu-img convert -f raw -O qcow2 plain stranger.qcow2
             rm -r files plain",
        );
        assert_eq!(made.code, Some(0), "{made:?}");
    }

    fn run(&self, script: &str) -> Ran {
        let program = Path::new(env!("CARGO_BIN_EXE_luksmith"));
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!(
            "{}:{path}:/usr/sbin:/sbin:{}",
            program.parent().unwrap().display(),
            peers::unpacked("bin").display()
        );
        let said = self.path("said");
        let log = fs::File::create(&said).unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-euc", script]).current_dir(self.folder.path());
        shell.env("PATH", path).env("ACCEL", "tcg");
        shell
            .env("KERNEL", &self.kernel)
            .env("MODULES", &self.modules);
        // The same for guestfish, which has no options for them.
        shell
            .env("SUPERMIN_KERNEL", &self.kernel)
            .env("SUPERMIN_MODULES", &self.modules);
        shell.env("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg");
        shell.env("LIBGUESTFS_CACHEDIR", self.folder.path());
        shell
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let mut shell = shell.process_group(0).spawn().unwrap();
        let group = Pid::from_child(&shell);
        let code = shell.wait().unwrap().code();
        // A server that a failed script left running.
        let _ = kill_process_group(group, Signal::TERM);
        let said = String::from_utf8_lossy(&fs::read(said).unwrap()).into_owned();
        Ran { code, said }
    }
}

#[test]
fn the_commands_of_the_page_work() {
    let Some(shell) = Shell::find() else {
        return;
    };
    let Ran { code, said } = shell.run(&script("sh"));
    assert_eq!(code, Some(0), "{said}");
    assert!(fs::read(shell.path("copied")).unwrap() == LETTER);
    // Twice in the guest, and twice on the host.
    let hash = hex::encode(Sha256::digest(LETTER));
    assert_eq!(said.matches(&hash).count(), 4, "{said}");
    assert_eq!(said.matches("./folder/letter.txt").count(), 2, "{said}");
    assert!(!said.contains('\x1b'), "{said}");
}

#[test]
fn a_bad_image_gets_no_machine() {
    let Some(shell) = Shell::find() else {
        return;
    };
    let mut bad = qcow2::good();
    be64(&mut bad, 8, 1024);
    be32(&mut bad, 16, 11);
    put(&mut bad, 1024, b"/etc/passwd");
    fs::write(shell.path("stranger.qcow2"), bad).unwrap();
    let Ran { code, said } = shell.run(&script("sh"));
    assert_eq!(code, Some(10), "{said}");
    assert!(said.contains("stranger.qcow2 as qcow2: reject"), "{said}");
    assert!(!shell.path("guest").exists() && !shell.path("served").exists());
}

/// guestfish is large, so `./test` does not install it. This test runs if it is there.
#[test]
fn guestfish_sees_the_same() {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let here = std::env::split_paths(&path).any(|folder| folder.join("guestfish").is_file());
    // Without this folder supermin fails, whichever modules it gets.
    if !here || !Path::new("/lib/modules").exists() {
        eprintln!("skipped: no guestfish, or no /lib/modules, which it needs");
        return;
    }
    let Some(shell) = Shell::find() else {
        return;
    };
    let index = "[ -f \"$MODULES/modules.dep\" ] || busybox depmod -b \"$MODULES/../../..\" \"$(basename \"$MODULES\")\"\n";
    let Ran { code, said } = shell.run(&format!("{index}{}", script("guestfish")));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("\nfolder/letter.txt\n"), "{said}");
    assert!(fs::read(shell.path("copied")).unwrap() == LETTER);
}
