//! A Linux machine whose disk is a served volume. It makes a file system there, and its files are
//! read back on the host.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::served::{Folder, content};
use support::initramfs::{Archive, Kernel};
use support::peers::{find, run, skip};

/// A time limit for emulation in software on a busy machine.
const PATIENCE: Duration = Duration::from_secs(200);

const SCRIPT: &str = r#"
mke2fs -F /dev/vda &&
    mount -t ext4 /dev/vda /mnt &&
    mkdir -p /mnt/a/folder &&
    dd if=/pattern of=/mnt/a/folder/pattern bs=5000 &&
    dd if=/pattern of=/mnt/direct bs=4096 oflag=direct &&
    umount /mnt &&
    mount -t ext4 -o ro /dev/vda /mnt &&
    cmp /pattern /mnt/a/folder/pattern &&
    cmp /pattern /mnt/direct &&
    umount /mnt &&
    echo "all is well"
poweroff -f
"#;

#[test]
fn a_linux_machine_keeps_its_files_on_a_served_volume() {
    let Some(qemu) = find("qemu-system-x86_64") else {
        return;
    };
    let (Some(busybox), Some(fsck), Some(debugfs)) =
        (find("busybox"), find("fsck.ext4"), find("debugfs"))
    else {
        return;
    };
    let Some(kernel) = Kernel::unpacked() else {
        return skip("the kernel package in target/peers/kernel");
    };
    let pattern = &content()[1 << 20..2 << 20];
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "proc", "sys", "mnt"] {
        archive.folder(folder);
    }
    archive.file("bin/busybox", 0o755, &std::fs::read(busybox).unwrap());
    archive.init(SCRIPT);
    archive.file("pattern", 0o644, pattern);
    let modules = ["virtio_pci", "virtio_blk", "crc32c_generic", "ext4"];
    kernel.add_modules(&modules, &mut archive).unwrap();

    let folder = Folder::with_volume();
    folder.write("initrd", &archive.finish());
    let served = folder.serve(&["--discard", "pass"]);
    let drive = format!(
        "if=none,id=disk,format=raw,discard=unmap,cache=none,file={}",
        served.uri()
    );
    let mut machine = folder.program(&qemu, ["-accel", "tcg", "-m", "256", "-nodefaults"]);
    machine.args(["-display", "none", "-no-reboot", "-serial", "stdio"]);
    machine.arg("-kernel").arg(&kernel.image);
    machine.args([
        "-initrd",
        "initrd",
        "-append",
        "console=ttyS0 quiet panic=-1 no_timer_check",
    ]);
    machine.args(["-drive", &drive, "-device", "virtio-blk-pci,drive=disk"]);
    let console = std::fs::File::create(folder.path("console")).unwrap();
    machine.stdout(Stdio::from(console));
    let mut machine = machine.spawn().unwrap();
    let begun = Instant::now();
    while machine.try_wait().unwrap().is_none() {
        if begun.elapsed() > PATIENCE {
            machine.kill().unwrap();
            machine.wait().unwrap();
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let said = std::fs::read(folder.path("console")).unwrap();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("all is well"), "{said}");
    served.stop();

    folder.write("plain", &folder.decrypted());
    run(&mut folder.program(&fsck, ["-fn", "plain"]));
    for file in ["/a/folder/pattern", "/direct"] {
        let cat = format!("cat {file}");
        let stored = run(&mut folder.program(&debugfs, ["-R", &cat, "plain"]));
        assert!(stored == pattern, "{file}");
    }
}
