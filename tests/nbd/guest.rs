//! A virtual machine that boots from a served volume, reads it and writes to it.

use std::process::Stdio;
use std::time::{Duration, Instant};

use luksmith_formats::nbd::ErrorNumber;

use crate::served::{Folder, content};
use support::boot_sector;
use support::peers;

/// The exit code of QEMU when the machine writes 0x10 to the debug port: twice that plus one.
const DONE: i32 = 0x21;

/// A time limit for emulation in software on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn a_machine_boots_from_a_served_volume_and_writes_to_it() {
    let Some(qemu) = peers::find("qemu-system-x86_64") else {
        return;
    };
    for adapter in ["virtio-blk-pci,drive=disk", "ide-hd,drive=disk"] {
        let folder = Folder::with_volume();
        let served = folder.serve(&[]);
        let written = served.client().write(0, &boot_sector::sector());
        assert_eq!(written, ErrorNumber::None);

        let drive = format!("if=none,id=disk,format=raw,file={}", served.uri());
        let args = [
            "-accel",
            "tcg",
            "-m",
            "32",
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
            "-device",
            "isa-debug-exit,iobase=0xf4,iosize=1",
            "-drive",
            &drive,
            "-device",
            adapter,
        ];
        let mut machine = folder.program(&qemu, args);
        let mut machine = machine.stdout(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = machine.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > PATIENCE {
                machine.kill().unwrap();
                machine.wait().unwrap();
                panic!("{adapter}: the machine does not come to its end");
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let said = machine.wait_with_output().unwrap().stderr;
        let said = String::from_utf8_lossy(&said);
        assert_eq!(status.code(), Some(DONE), "{adapter}: {said}");
        served.stop();

        let expected = boot_sector::disk_after(content());
        assert!(folder.decrypted() == expected, "{adapter}");
    }
}
