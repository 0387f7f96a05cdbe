//! A Linux machine whose disk is served. It makes a file system there, the server is killed while
//! the machine writes, and the machine goes on with the next server.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::program::{Folder, content};
use support::initramfs::{Archive, Kernel};
use support::peers::{find, run, skip};

/// A time limit for emulation in software on a busy machine.
const PATIENCE: Duration = Duration::from_secs(400);

const SCRIPT: &str = r#"
cd /sys/block/vda
echo "queues $(ls mq | wc -l), blocks $(cat queue/logical_block_size) $(cat queue/physical_block_size), discard $(cat queue/discard_max_bytes), cache $(cat queue/write_cache)"
cd /
mke2fs -F /dev/vda 7168 &&
    mount -t ext4 /dev/vda /mnt &&
    mkdir -p /mnt/a/folder &&
    dd if=/pattern of=/mnt/a/folder/pattern bs=5000 &&
    sync &&
    echo "the first file is there"
n=0
while [ $n -lt 12 ]; do
    dd if=/small of=/mnt/direct bs=4096 oflag=direct conv=fsync 2>/dev/null || echo "an error"
    n=$((n + 1))
    if [ $n = 2 ]; then echo "it writes"; fi
done
umount /mnt &&
    echo 3 >/proc/sys/vm/drop_caches &&
    mount -t ext4 -o ro /dev/vda /mnt &&
    cmp /pattern /mnt/a/folder/pattern &&
    cmp /small /mnt/direct &&
    umount /mnt &&
    # Beyond the file system.
    blkdiscard -o 7340032 -l 65536 /dev/vda &&
    echo "all is well"
poweroff -f
"#;

/// A machine whose console is a pipe.
struct Machine {
    child: Child,
    said: String,
    begun: Instant,
}

impl Machine {
    /// Waits until the console has this text.
    fn until(&mut self, text: &str) {
        let console = self.child.stdout.as_mut().unwrap();
        while !self.said.contains(text) {
            assert!(self.begun.elapsed() < PATIENCE, "{text}: {}", self.said);
            let mut some = [0; 4096];
            let read = console.read(&mut some).unwrap();
            assert!(read > 0, "{text}: {}", self.said);
            self.said.push_str(&String::from_utf8_lossy(&some[..read]));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_linux_machine_keeps_its_files_when_the_server_is_killed() {
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
    archive.file("small", 0o644, &pattern[..256 << 10]);
    let modules = ["virtio_pci", "virtio_blk", "crc32c_generic", "ext4"];
    kernel.add_modules(&modules, &mut archive).unwrap();

    let folder = Folder::new();
    folder.write("initrd", &archive.finish());
    let mut served = folder.serve(&["--discard", "pass"]);
    let mut machine = Command::new(&qemu);
    machine.current_dir(folder.path("."));
    machine.args(["-accel", "tcg", "-m", "256", "-smp", "2", "-nodefaults"]);
    machine.args(["-object", "memory-backend-memfd,id=m,size=256M,share=on"]);
    machine.args(["-numa", "node,memdev=m"]);
    machine.args(["-display", "none", "-no-reboot", "-serial", "stdio"]);
    machine.arg("-kernel").arg(&kernel.image);
    machine.args([
        "-initrd",
        "initrd",
        "-append",
        "console=ttyS0 quiet panic=-1 no_timer_check",
    ]);
    machine.args(["-chardev", "socket,id=c,path=v.sock,reconnect=1"]);
    machine.args(["-device", "vhost-user-blk-pci,chardev=c,num-queues=2"]);
    machine
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    let mut machine = Machine {
        child: machine.spawn().unwrap(),
        said: String::new(),
        begun: Instant::now(),
    };
    machine.until("queues 2, blocks 512 ");
    machine.until("the first file is there");
    machine.until("it writes");
    served.kill();
    served = folder.serve(&["--discard", "pass"]);
    machine.until("all is well");
    assert!(!machine.said.contains("error"), "{}", machine.said);
    drop(machine);
    served.stop();

    folder.write("plain", &folder.decrypted());
    run(Command::new(&fsck)
        .args(["-fn", "plain"])
        .current_dir(folder.path(".")));
    let small = &pattern[..256 << 10];
    for (file, expected) in [("/a/folder/pattern", pattern), ("/direct", small)] {
        let mut cat = Command::new(&debugfs);
        cat.args(["-R", &format!("cat {file}"), "plain"])
            .current_dir(folder.path("."));
        assert!(run(&mut cat) == expected, "{file}");
    }
}
