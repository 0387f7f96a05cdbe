//! A machine of QEMU that boots from a served volume, reads it and writes to it.

use std::process::Stdio;
use std::time::{Duration, Instant};

use luksmith_formats::nbd::ErrorNumber;

use crate::peers;
use crate::served::{Folder, content};

/// A boot sector (16-bit x86, loaded at 0x7c00): reads 64 sectors from sector 1 on, turns every bit of them over, writes
/// them at sector 2048, and ends the machine by its debug port: with 0x10, or with 0x20 if the disk failed.
const BOOT: &[u8] = &[
    0x31, 0xc0, // xor %ax,%ax
    0x8e, 0xd8, // mov %ax,%ds
    0x8e, 0xc0, // mov %ax,%es
    0x8e, 0xd0, // mov %ax,%ss
    0xbc, 0x00, 0x7c, // mov $0x7c00,%sp
    0xbe, 0x3c, 0x7c, // mov $packet,%si
    0xb4, 0x42, // mov $0x42,%ah       extended read; %dl is the disk that was booted from
    0xcd, 0x13, // int $0x13
    0x72, 0x21, // jc failed
    0xbb, 0x00, 0x80, // mov $0x8000,%bx
    0xb9, 0x00, 0x40, // mov $0x4000,%cx
    0xf7, 0x17, // turn: notw (%bx)
    0x83, 0xc3, 0x02, // add $2,%bx
    0xe2, 0xf9, // loop turn
    0xc7, 0x06, 0x44, 0x7c, 0x00, 0x08, // movw $2048,packet+8
    0xbe, 0x3c, 0x7c, // mov $packet,%si
    0xb8, 0x00, 0x43, // mov $0x4300,%ax     extended write
    0xcd, 0x13, // int $0x13
    0x72, 0x04, // jc failed
    0xb0, 0x10, // mov $0x10,%al
    0xeb, 0x02, // jmp end
    0xb0, 0x20, // failed: mov $0x20,%al
    0xe6, 0xf4, // end: out %al,$0xf4
    0xf4, 0x66, 0x90, // hlt, and room
    0x10, 0x00, 0x40, 0x00, // packet: its size, 64 sectors,
    0x00, 0x80, 0x00, 0x00, // to and from 0:0x8000,
    0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // at sector 1
];
const READ: std::ops::Range<usize> = 512..512 + 64 * 512;
const WRITTEN: usize = 2048 * 512;

/// What QEMU exits with when the machine writes 0x10 to the debug port: twice that and one.
const DONE: i32 = 0x21;

/// Emulation in software on a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn a_machine_boots_from_a_served_volume_and_writes_to_it() {
    let Some(qemu) = peers::find("qemu-system-x86_64") else {
        return;
    };
    for adapter in ["virtio-blk-pci,drive=disk", "ide-hd,drive=disk"] {
        let folder = Folder::with_volume();
        let served = folder.serve(&[]);
        let mut sector = BOOT.to_vec();
        sector.resize(510, 0);
        sector.extend([0x55, 0xaa]);
        let written = served.client().write(0, &sector);
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

        let mut expected = content();
        expected[..512].copy_from_slice(&sector);
        let turned: Vec<u8> = expected[READ].iter().map(|byte| !byte).collect();
        expected[WRITTEN..WRITTEN + turned.len()].copy_from_slice(&turned);
        assert!(folder.decrypted() == expected, "{adapter}");
    }
}
