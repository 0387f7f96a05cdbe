//! What programs write to a mounted file is in the volume, and what they read is from there.

use std::fs;
use std::io::{Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use support::peers::{find, run};

use crate::mounted::{Folder, SIZE, can_mount, content};

/// Random numbers that are the same in each run.
fn numbers() -> impl FnMut(u64) -> u64 {
    let mut state = 88_172_645_463_325_252_u64;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    }
}

#[test]
fn the_whole_payload_is_read_and_written() {
    if !can_mount() {
        return;
    }
    for more in [&[][..], &["--direct-io"]] {
        let folder = Folder::new();
        let mounted = folder.mount(more);
        assert_eq!(mounted.told["size"], SIZE);
        let about = fs::metadata(mounted.path()).unwrap();
        assert_eq!((about.len(), about.mode()), (SIZE, 0o100_600));
        assert!(fs::read(mounted.path()).unwrap() == content());

        let mut expected: Vec<u8> = content().iter().map(|byte| !byte).collect();
        let file = mounted.open();
        file.write_all_at(&expected, 0).unwrap();
        // Parts of sectors, at any place and of any length.
        let mut number = numbers();
        for _ in 0..200 {
            let len = usize::try_from(1 + number(9000)).unwrap();
            let at = number(SIZE - len as u64);
            let bytes = vec![u8::try_from(number(256)).unwrap(); len];
            file.write_all_at(&bytes, at).unwrap();
            let at = usize::try_from(at).unwrap();
            expected[at..at + len].copy_from_slice(&bytes);
        }
        file.sync_all().unwrap();
        let mut part = vec![0; 5000];
        file.read_exact_at(&mut part, 1234).unwrap();
        assert!(part == expected[1234..6234]);
        drop(file);
        assert!(fs::read(mounted.path()).unwrap() == expected);
        mounted.unmount();
        assert!(folder.decrypted(&[]) == expected, "{more:?}");
        assert!(!folder.path("file").exists());
    }
}

#[test]
fn threads_write_at_the_same_time() {
    if !can_mount() {
        return;
    }
    const THREADS: u64 = 8;
    let folder = Folder::new();
    let mounted = folder.mount(&["--direct-io"]);
    // The borders of the parts are inside of sectors.
    let part = SIZE / THREADS - 100;
    let pattern = |thread: u64| u8::try_from(thread + 1).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let mounted = &mounted;
            scope.spawn(move || {
                let file = mounted.open();
                let (mut at, end) = (thread * part, (thread + 1) * part);
                while at < end {
                    let bytes = [pattern(thread); 3000];
                    let len = usize::try_from((end - at).min(3000)).unwrap();
                    file.write_all_at(&bytes[..len], at).unwrap();
                    let mut back = vec![0; len];
                    file.read_exact_at(&mut back, at).unwrap();
                    assert!(back == bytes[..len], "{at}");
                    at += len as u64;
                }
            });
        }
    });
    mounted.unmount();
    let mut expected = content();
    for thread in 0..THREADS {
        let range =
            usize::try_from(thread * part).unwrap()..usize::try_from((thread + 1) * part).unwrap();
        expected[range].fill(pattern(thread));
    }
    assert!(folder.decrypted(&[]) == expected);
}

#[test]
fn its_size_and_its_owner_are_fixed() {
    if !can_mount() {
        return;
    }
    let folder = Folder::new();
    let mounted = folder.mount(&[]);
    let file = mounted.open();
    let denied = |result: std::io::Result<()>| {
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EPERM));
    };
    denied(file.set_len(SIZE / 2));
    denied(file.set_len(SIZE * 2));
    file.set_len(SIZE).unwrap();
    denied(fs::write(mounted.path(), "x"));
    denied(std::os::unix::fs::chown(mounted.path(), Some(7), None));
    file.set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    // As at the end of a disk.
    assert_eq!(file.write_at(&[1; 100], SIZE - 60).unwrap(), 60);
    let error = file.write_at(&[1], SIZE).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    assert_eq!(file.read_at(&mut [0; 100], SIZE - 60).unwrap(), 60);
    assert_eq!(file.read_at(&mut [0; 100], SIZE).unwrap(), 0);
    assert_eq!(fs::metadata(mounted.path()).unwrap().len(), SIZE);
    drop(file);
    mounted.unmount();
    let mut expected = content();
    let end = expected.len() - 60;
    expected[end..].fill(1);
    assert!(folder.decrypted(&[]) == expected);
}

#[test]
fn a_read_only_file_is_not_written() {
    if !can_mount() {
        return;
    }
    let folder = Folder::new();
    let mounted = folder.mount(&["--read-only"]);
    assert_eq!(mounted.told["read_only"], true);
    assert_eq!(fs::metadata(mounted.path()).unwrap().mode(), 0o100_400);
    let error = fs::OpenOptions::new()
        .write(true)
        .open(mounted.path())
        .unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    assert!(fs::read(mounted.path()).unwrap() == content());
    // Others can read the volume meanwhile.
    assert!(folder.decrypted(&[]) == content());
    mounted.unmount();
}

const PUNCH: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);

#[test]
fn holes_read_as_zeroes_and_need_the_option() {
    if !can_mount() {
        return;
    }
    let folder = Folder::new();
    let mounted = folder.mount(&[]);
    let punched = fallocate(mounted.open(), PUNCH, 0, 4096);
    assert_eq!(punched, Err(Errno::OPNOTSUPP));
    let zero = FallocateFlags::ZERO_RANGE;
    fallocate(mounted.open(), zero, 100, 5000).unwrap();
    assert_eq!(
        fallocate(mounted.open(), FallocateFlags::empty(), 0, 4096),
        Err(Errno::OPNOTSUPP)
    );
    mounted.unmount();
    let mounted = folder.mount(&["--discard", "zeroes"]);
    fallocate(mounted.open(), PUNCH, 1 << 20, 3 << 20).unwrap();
    let mut expected = content();
    expected[100..5100].fill(0);
    expected[1 << 20..4 << 20].fill(0);
    assert!(fs::read(mounted.path()).unwrap() == expected);
    mounted.unmount();
    assert!(folder.decrypted(&[]) == expected);

    // In a raw volume, storage that was freed would read as noise.
    let args = [
        "mount",
        "disk.img",
        "file",
        "--key-file",
        "key",
        "--discard",
        "pass",
    ];
    let said = folder.fail(1, args);
    assert!(
        said.contains("reads as noise") && said.contains("--discard zeroes"),
        "{said}"
    );
}

#[test]
fn holes_of_an_image_free_its_clusters() {
    if !can_mount() {
        return;
    }
    let folder = Folder::of_format("qcow2");
    let stored = || fs::metadata(folder.path("disk.img")).unwrap().blocks() * 512;
    let before = stored();
    let mounted = folder.mount(&["--format", "qcow2", "--discard", "pass"]);
    let file = mounted.open();
    // Not whole clusters, so the ends are overwritten.
    fallocate(&file, PUNCH, 1000, 6 << 20).unwrap();
    let mut expected = content();
    expected[1000..1000 + (6 << 20)].fill(0);
    assert!(fs::read(mounted.path()).unwrap() == expected);

    let seek = |at| {
        let mut file = file.try_clone().unwrap();
        file.seek(at).unwrap();
        let hole = rustix::fs::seek(file.as_fd(), rustix::fs::SeekFrom::Hole(0)).unwrap();
        let data = rustix::fs::seek(file.as_fd(), rustix::fs::SeekFrom::Data(hole)).unwrap();
        let end = rustix::fs::seek(file.as_fd(), rustix::fs::SeekFrom::Hole(data)).unwrap();
        (hole, data, end)
    };
    let (hole, data, end) = seek(SeekFrom::Start(0));
    assert!(
        hole > 0 && hole < 1 << 20 && data > 5 << 20 && data < 7 << 20,
        "{hole} {data}"
    );
    assert_eq!(end, SIZE);
    let past = rustix::fs::seek(file.as_fd(), rustix::fs::SeekFrom::Data(SIZE));
    assert_eq!(past, Err(Errno::NXIO));
    drop(file);
    mounted.unmount();
    assert!(folder.decrypted(&["--format", "qcow2"]) == expected);
    assert!(stored() + (5 << 20) < before, "{before} {}", stored());
}

#[test]
fn other_programs_read_and_write_the_same() {
    let (Some(qemu_img), Some(dd), Some(fio)) = (find("qemu-img"), find("dd"), find("fio")) else {
        return;
    };
    if !can_mount() {
        return;
    }
    let folder = Folder::new();
    let mounted = folder.mount(&[]);
    let file = mounted.path();
    run(Command::new(&qemu_img)
        .args(["compare", "-f", "raw", "-F", "raw"])
        .arg(&file)
        .arg(folder.path("plain")));
    let other: Vec<u8> = content().iter().map(|byte| byte.wrapping_mul(3)).collect();
    fs::write(folder.path("other"), &other).unwrap();
    let convert = ["convert", "-n", "-f", "raw", "-O", "raw"];
    run(Command::new(&qemu_img)
        .args(convert)
        .arg(folder.path("other"))
        .arg(&file));
    assert!(fs::read(&file).unwrap() == other);
    for flag in ["conv=notrunc,fsync", "oflag=direct conv=notrunc"] {
        let mut copy = Command::new(&dd);
        copy.arg(format!("if={}", folder.path("plain").display()));
        copy.arg(format!("of={}", file.display()));
        run(copy.arg("bs=64K").args(flag.split(' ')));
        assert!(fs::read(&file).unwrap() == content(), "{flag}");
    }
    let mut verify = Command::new(&fio);
    verify.arg(format!("--filename={}", file.display()));
    verify.args([
        "--name=v",
        "--rw=randwrite",
        "--bsrange=512-64k",
        "--bs_unaligned",
    ]);
    verify.args([
        "--verify=crc32c",
        "--verify_state_save=0",
        "--verify_fatal=1",
        "--ioengine=psync",
        "--numjobs=1",
    ]);
    verify.args([
        "--overwrite=1",
        "--allow_file_create=0",
        "--size=8m",
        "--randseed=7",
    ]);
    run(&mut verify);
    mounted.unmount();
}
