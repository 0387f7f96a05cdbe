//! A file system of the kernel on a served volume: nbdfuse makes a file of it, and a loop device
//! makes a disk of that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::served::{Folder, until};
use support::peers::{find, output, run, skip};

/// The programs and devices that the test needs. It needs root too, to mount.
struct Tools {
    nbdfuse: PathBuf,
    losetup: PathBuf,
    mount: PathBuf,
    umount: PathBuf,
    mkfs: PathBuf,
    fsck: PathBuf,
}

impl Tools {
    #[allow(
        clippy::print_stderr,
        reason = "the reader of a test run is told what did not run"
    )]
    fn find() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root mounts");
            return None;
        }
        for device in ["/dev/fuse", "/dev/loop-control"] {
            if !Path::new(device).exists() {
                skip(device);
                return None;
            }
        }
        Some(Self {
            nbdfuse: find("nbdfuse")?,
            losetup: find("losetup")?,
            mount: find("mount")?,
            umount: find("umount")?,
            mkfs: find("mkfs.ext4")?,
            fsck: find("fsck.ext4")?,
        })
    }
}

/// Commands that clean up at the end, also of a failed test. The last one runs first.
struct Undo(Vec<Command>, Option<Child>);

impl Undo {
    fn last(&mut self) {
        let mut command = self.0.pop().unwrap();
        run(&mut command);
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        for command in self.0.iter_mut().rev() {
            output(command);
        }
        if let Some(child) = &mut self.1 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn command(program: &Path, args: &[&Path]) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// Files of many sizes, with content that identifies each place.
fn files() -> Vec<(String, Vec<u8>)> {
    let sizes = [0, 1, 511, 1000, 4096, 70_000, 1 << 20];
    let file = |(n, size): (usize, &usize)| {
        let words = (0..size / 8 + 1).map(|word| (word << 8 | n).wrapping_mul(0x9e37_79b9));
        let mut bytes: Vec<u8> = words.flat_map(usize::to_le_bytes).collect();
        bytes.truncate(*size);
        (format!("file-{n}"), bytes)
    };
    sizes.iter().enumerate().map(file).collect()
}

#[test]
fn ext4_of_the_kernel_lives_on_a_served_volume() {
    let Some(tools) = Tools::find() else {
        return;
    };
    let folder = Folder::with_volume();
    let served = folder.serve(&[]);
    let (fuse, mounted) = (folder.path("fuse"), folder.path("mounted"));
    fs::create_dir(&fuse).unwrap();
    fs::create_dir(&mounted).unwrap();
    let file = fuse.join("nbd");

    let mut nbdfuse = command(&tools.nbdfuse, &[&file]);
    let nbdfuse = nbdfuse.arg(served.uri()).stdin(Stdio::null());
    let child = nbdfuse.spawn().unwrap();
    let mut undo = Undo(vec![command(&tools.umount, &[&fuse])], Some(child));
    until("nbdfuse mounts", || file.exists());
    let device = run(command(
        &tools.losetup,
        &["--find".as_ref(), "--show".as_ref(), &file],
    )
    .arg("--nooverlap"));
    let device = PathBuf::from(String::from_utf8(device).unwrap().trim());
    undo.0
        .push(command(&tools.losetup, &["--detach".as_ref(), &device]));

    run(&mut command(&tools.mkfs, &["-q".as_ref(), &device]));
    let mount = || {
        run(&mut command(
            &tools.mount,
            &["-t".as_ref(), "ext4".as_ref(), &device, &mounted],
        ));
        command(&tools.umount, &[&mounted])
    };
    let check = |disk: &Path| run(&mut command(&tools.fsck, &["-fn".as_ref(), disk]));
    undo.0.push(mount());
    for round in 0..3 {
        let inside = mounted.join(format!("round-{round}"));
        fs::create_dir(&inside).unwrap();
        for (name, bytes) in files() {
            fs::write(inside.join(name), bytes).unwrap();
        }
    }
    fs::remove_dir_all(mounted.join("round-1")).unwrap();
    undo.last();
    check(&device);
    undo.0.push(mount());
    for (name, bytes) in files() {
        let found = fs::read(mounted.join("round-2").join(&name)).unwrap();
        assert!(found == bytes, "{name}");
    }
    undo.last();
    undo.last(); // the loop device
    undo.last(); // nbdfuse, which then ends
    undo.1.take().unwrap().wait().unwrap();
    served.stop();

    // Without any server, the volume contains the same file system.
    folder.write("decrypted", &folder.decrypted());
    check(&folder.path("decrypted"));
}

/// A file system whose daemon is stopped, and a process that has a file of it open.
struct Dead {
    nbdfuse: Child,
    user: Child,
    umount: Command,
}

impl Drop for Dead {
    fn drop(&mut self) {
        // While the daemon exists, all else would wait for it.
        for child in [&mut self.nbdfuse, &mut self.user] {
            let _ = child.kill();
            let _ = child.wait();
        }
        output(&mut self.umount);
    }
}

/// A process has a file open whose file system does not answer any more. luksmith still finds the
/// processes that use an image.
#[test]
fn a_dead_file_system_is_not_waited_for() {
    let Some(tools) = Tools::find() else {
        return;
    };
    let folder = Folder::with_volume();
    let served = folder.serve(&[]);
    let fuse = folder.path("fuse");
    fs::create_dir(&fuse).unwrap();
    let file = fuse.join("nbd");
    let mut nbdfuse = command(&tools.nbdfuse, &[&file]);
    let nbdfuse = nbdfuse.arg(served.uri()).stdin(Stdio::null());
    let child = nbdfuse.spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    until("nbdfuse mounts", || file.exists());
    // This process must not keep the file: a program that it starts would wait when it closes it.
    let user = Command::new("sleep")
        .arg("1000")
        .stdin(fs::File::open(&file).unwrap())
        .spawn();
    let _dead = Dead {
        nbdfuse: child,
        user: user.unwrap(),
        umount: command(&tools.umount, &["--lazy".as_ref(), &fuse]),
    };
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    // The kernel does not ask again for attributes that it got within a second.
    std::thread::sleep(std::time::Duration::from_millis(1500));

    let mut second = folder
        .luksmith(["config", "disk.img", "--label", "x"])
        .spawn()
        .unwrap();
    let ran = std::cell::RefCell::new(&mut second);
    until("the program ends", || {
        ran.borrow_mut().try_wait().unwrap().is_some()
    });
    let ran = second.wait_with_output().unwrap();
    let said = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(5), "{said}");
    let holder = format!("pid {} (luksmith)", served.child.id());
    assert!(said.contains(&holder), "{said}");
}
