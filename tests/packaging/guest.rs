//! A virtual machine whose first process is the systemd of this host. It serves a file and a block
//! device by the units of `packaging/`, with the drop-ins that `docs/services.md` shows.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::initramfs::{Archive, Kernel};
use support::peers::{find, run, skip};

use crate::{of_repository, text_of};

/// A time limit for emulation in software on a busy machine.
const PATIENCE: Duration = Duration::from_secs(200);

/// Programs of systemd that the guest runs.
const PROGRAMS: &[&str] = &[
    "lib/systemd/systemd",
    "lib/systemd/systemd-journald",
    "lib/systemd/systemd-shutdown",
    "bin/systemctl",
    "bin/systemd-sysusers",
    "bin/journalctl",
];

/// Units of systemd that those of the guest refer to.
const UNITS: &[&str] = &[
    "basic.target",
    "final.target",
    "local-fs.target",
    "paths.target",
    "poweroff.target",
    "shutdown.target",
    "slices.target",
    "sockets.target",
    "swap.target",
    "sysinit.target",
    "systemd-journald-dev-log.socket",
    "systemd-journald.service",
    "systemd-journald.socket",
    "systemd-poweroff.service",
    "timers.target",
    "umount.target",
];

const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
while read -r module; do /bin/busybox insmod /modules/$module; done </modules/order
/bin/busybox chmod 1777 /tmp
exec /lib/systemd/systemd
";

/// The unit that systemd starts in place of a multi-user system.
const DEFAULT: &str = "[Unit]
Requires=basic.target systemd-journald.service test.service
After=basic.target
AllowIsolate=yes
";

const TEST: &str = "[Unit]
After=basic.target systemd-journald.service
[Service]
Type=oneshot
StandardOutput=file:/dev/ttyS1
StandardError=file:/dev/ttyS1
ExecStartPre=systemd-sysusers
ExecStart=/bin/busybox sh /test
ExecStopPost=/bin/systemctl poweroff --force
";

/// A client of both servers, which is a user of its own.
const CLIENT: &str = "[Service]
Type=oneshot
User=%i
StandardOutput=file:/dev/ttyS1
StandardError=file:/dev/ttyS1
ExecStart=/bin/busybox sh /client %i
";

const CLIENT_SCRIPT: &str = r#"
for name in file device; do
    uri="nbd+unix:///?socket=/run/luksmith/$name.sock"
    nbdcopy --flush /pattern "$uri" && nbdcopy "$uri" /tmp/$1 && cmp /pattern /tmp/$1 &&
        echo "ok: $1 writes and reads the $name"
done
"#;

const TEST_SCRIPT: &str = r#"
export PATH=/bin
chown luksmith:luksmith /srv/file.img /srv/closed.img
chgrp disk /dev/vda
chmod 660 /dev/vda
for name in file device closed; do systemctl start luksmith-serve@$name.socket; done
for name in file device closed; do
    [ "$(stat -c '%a %U %G' /run/luksmith/$name.sock)" = "660 root luksmith" ] &&
        echo "ok: the socket $name is for the group"
done
systemctl start client@member.service
systemctl start client@stranger.service || echo "ok: a stranger is refused"
for name in file device; do
    status=/proc/$(systemctl show -p MainPID --value luksmith-serve@$name.service)/status
    grep -q '^Uid:.*[1-9]' $status && grep -q '^CapEff:	0*$' $status &&
        grep -q '^NoNewPrivs:	1' $status && grep -q '^Seccomp:	2' $status &&
        grep -q '^VmLck:.* [1-9]' $status && echo "ok: the server of the $name is confined"
done
server=$(systemctl show -p MainPID --value luksmith-serve@file.service)
[ "$(nsenter -t $server -m ls /run/luksmith)" = file.sock ] &&
    echo "ok: a server reaches no other socket"
systemctl start luksmith-serve@closed.service || echo "ok: nothing else can be written"
systemctl stop luksmith-serve@closed.socket luksmith-serve@closed.service
for name in file device; do
    systemctl stop luksmith-serve@$name.socket luksmith-serve@$name.service &&
        [ "$(systemctl show -p Result --value luksmith-serve@$name.service)" = success ] &&
        echo "ok: the server of the $name ended"
done
[ ! -e /run/luksmith/file.sock ] && echo "ok: the socket is removed"
luksmith decrypt /srv/file.img /tmp/again --key-file /etc/luksmith/keys/file &&
    cmp /pattern /tmp/again && echo "ok: the file has what was written"
journalctl -o cat -u 'luksmith-serve@*'
"#;

const EXPECTED: &[&str] = &[
    "the socket file is for the group",
    "the socket device is for the group",
    "the socket closed is for the group",
    "member writes and reads the file",
    "member writes and reads the device",
    "a stranger is refused",
    "the server of the file is confined",
    "the server of the device is confined",
    "a server reaches no other socket",
    "nothing else can be written",
    "the server of the file ended",
    "the server of the device ended",
    "the socket is removed",
    "the file has what was written",
];

/// The drop-ins of the guest's instances. Those of the file and of the device are the ones that
/// `docs/services.md` shows, with the names that these have in the guest.
fn drop_ins() -> [(&'static str, String); 3] {
    let docs = text_of("docs/services.md");
    let shown = |name: &str| {
        let title = format!("luksmith-serve@{name}.service.d/volume.conf\n");
        let (_, after) = docs.split_once(&title).expect("the docs show the drop-in");
        let lines = after.lines().map_while(|line| line.strip_prefix("    "));
        lines.fold(String::new(), |text, line| text + line + "\n")
    };
    [
        (
            "file",
            shown("vm1").replace("/srv/vm1.img", "/srv/file.img"),
        ),
        ("device", shown("vm2").replace("/dev/vg/vm2", "/dev/vda")),
        (
            "closed",
            "[Service]\nEnvironment=IMAGE=/srv/closed.img\n".to_owned(),
        ),
    ]
}

#[test]
fn a_real_systemd_serves_a_file_and_a_device_and_nothing_else() {
    let Some(machine) = Machine::find() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("key"), "secret").unwrap();
    let pattern: Vec<u8> = (0..2 << 20)
        .map(|at: u32| ((at / 7) ^ (at >> 11)) as u8)
        .collect();
    std::fs::write(at("pattern"), &pattern).unwrap();
    create(folder.path(), "file.img", &["--type", "luks1"]);
    create(folder.path(), "device.img", &["--pbkdf", "pbkdf2"]);

    let archive = machine.archive(folder.path()).unwrap();
    std::fs::write(at("initrd"), archive).unwrap();
    let said = machine.boot(folder.path());
    for line in EXPECTED {
        assert!(
            said.contains(&format!("ok: {line}\n")),
            "{line} is not in:\n{said}"
        );
    }
    assert!(!said.contains("panicked"), "{said}");

    let mut decrypt = luksmith(folder.path());
    decrypt.args(["decrypt", "device.img", "again", "--key-file", "key"]);
    run(&mut decrypt);
    assert!(std::fs::read(at("again")).unwrap() == pattern);
}

fn luksmith(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_luksmith"));
    command.current_dir(folder);
    command
}

/// A volume of the size of the pattern, whose key is cheap to derive in emulation.
fn create(folder: &Path, image: &str, arguments: &[&str]) {
    let mut create = luksmith(folder);
    create.args(["create", image, "--size", "2M", "--key-file", "key"]);
    create.args(["--force-weak", "--pbkdf-force-iterations", "1000"]);
    run(create.args(arguments));
}

struct Machine {
    qemu: PathBuf,
    busybox: PathBuf,
    nbdcopy: PathBuf,
    kernel: Kernel,
}

impl Machine {
    fn find() -> Option<Self> {
        find("systemd-sysusers")?;
        let (qemu, busybox) = (find("qemu-system-x86_64")?, find("busybox")?);
        let nbdcopy = find("nbdcopy")?;
        let Some(kernel) = Kernel::unpacked() else {
            skip("the kernel package in target/peers/kernel");
            return None;
        };
        Some(Self {
            qemu,
            busybox,
            nbdcopy,
            kernel,
        })
    }

    /// The root of the guest.
    fn archive(&self, folder: &Path) -> std::io::Result<Vec<u8>> {
        let mut archive = Archive::default();
        for name in [
            "usr",
            "usr/bin",
            "usr/lib",
            "usr/lib64",
            "etc",
            "dev",
            "proc",
            "sys",
            "run",
            "tmp",
        ] {
            archive.folder(name);
        }
        for name in ["bin", "lib", "lib64"] {
            archive.link(name, &format!("usr/{name}"));
        }
        archive.link("sbin", "usr/bin");
        for program in PROGRAMS {
            archive.program(&format!("usr/{program}"), &Path::new("/").join(program))?;
        }
        archive.folders_of("usr/lib/systemd/system/");
        for unit in UNITS {
            let unit = format!("lib/systemd/system/{unit}");
            archive.file(
                &format!("usr/{unit}"),
                0o644,
                &std::fs::read(Path::new("/").join(&unit))?,
            );
        }
        archive.file("usr/bin/busybox", 0o755, &std::fs::read(&self.busybox)?);
        archive.program("usr/bin/nbdcopy", &self.nbdcopy)?;
        archive.program(
            "usr/bin/luksmith",
            Path::new(env!("CARGO_BIN_EXE_luksmith")),
        )?;
        for tool in [
            "chgrp", "chmod", "chown", "cmp", "grep", "ls", "nsenter", "stat",
        ] {
            archive.link(&format!("usr/bin/{tool}"), "busybox");
        }
        let mut add = |name: &str, mode: u32, bytes: &[u8]| {
            archive.folders_of(name);
            archive.file(name, mode, bytes);
        };
        for unit in ["luksmith-serve@.service", "luksmith-serve@.socket"] {
            let path = of_repository(&format!("packaging/{unit}"));
            add(
                &format!("usr/lib/systemd/system/{unit}"),
                0o644,
                &std::fs::read(path)?,
            );
        }
        let users = text_of("packaging/luksmith.sysusers");
        add("usr/lib/sysusers.d/luksmith.conf", 0o644, users.as_bytes());
        let users = "u member - \"A client\"\nm member luksmith\nu stranger - \"Another user\"\n";
        add("usr/lib/sysusers.d/test.conf", 0o644, users.as_bytes());
        for (name, text) in [
            ("etc/passwd", "root:x:0:0:root:/:/bin/sh\n"),
            ("etc/group", "root:x:0:\ndisk:x:6:\n"),
            ("etc/nsswitch.conf", "passwd: files\ngroup: files\n"),
            ("etc/machine-id", ""),
            ("etc/systemd/system/default.target", DEFAULT),
            ("etc/systemd/system/test.service", TEST),
            ("etc/systemd/system/client@.service", CLIENT),
            ("client", CLIENT_SCRIPT),
            ("test", TEST_SCRIPT),
        ] {
            add(name, 0o644, text.as_bytes());
        }
        for (name, text) in drop_ins() {
            let path = format!("etc/systemd/system/luksmith-serve@{name}.service.d/volume.conf");
            add(&path, 0o644, text.as_bytes());
            let key = std::fs::read(folder.join("key"))?;
            add(&format!("etc/luksmith/keys/{name}"), 0o600, &key);
        }
        let image = std::fs::read(folder.join("file.img"))?;
        add("srv/file.img", 0o600, &image);
        add("srv/closed.img", 0o600, &image);
        add("pattern", 0o644, &std::fs::read(folder.join("pattern"))?);
        add("init", 0o755, INIT.as_bytes());
        let modules = ["virtio_pci", "virtio_blk", "autofs4"];
        self.kernel.add_modules(&modules, &mut archive)?;
        Ok(archive.finish())
    }

    /// Runs the guest until it turns itself off, and returns what it wrote to both of its ports.
    fn boot(&self, folder: &Path) -> String {
        let mut qemu = Command::new(&self.qemu);
        qemu.args([
            "-accel",
            "tcg",
            "-m",
            "640",
            "-nodefaults",
            "-display",
            "none",
        ]);
        qemu.args([
            "-no-reboot",
            "-serial",
            "file:console",
            "-serial",
            "file:said",
        ]);
        qemu.arg("-kernel").arg(&self.kernel.image);
        qemu.args(["-initrd", "initrd", "-append"]);
        qemu.arg("console=ttyS0 quiet panic=-1 no_timer_check systemd.show_status=0");
        qemu.args(["-drive", "file=device.img,format=raw,if=virtio"]);
        qemu.current_dir(folder).stdin(Stdio::null());
        qemu.stdout(File::create(folder.join("qemu")).unwrap());
        let mut child = qemu.spawn().unwrap();
        let begun = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if begun.elapsed() > PATIENCE {
                child.kill().unwrap();
                child.wait().unwrap();
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let [said, console] = ["said", "console"].map(|name| {
            let bytes = std::fs::read(folder.join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\r', "")
        });
        format!("{said}\n--- console:\n{console}")
    }
}
