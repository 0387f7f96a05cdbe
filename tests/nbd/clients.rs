//! Other clients on served volumes. Whole payloads are compared with the content of the volume.

use std::process::Command;

use crate::served::{Folder, SIZE, content};
use support::peers::{find, run};

fn clip(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn nbdinfo_lists_the_exports() {
    let Some(nbdinfo) = find("nbdinfo") else {
        return;
    };
    let folder = Folder::with_volume();
    folder.make_volume("other.img", &[]);
    let served = folder.serve(&[
        "--description",
        "the first",
        "--export",
        "other=other.img,key=file:key,read-only,description=the second",
    ]);
    let list = run(Command::new(&nbdinfo).args(["--list", "--json", &served.uri()]));
    let list: serde_json::Value = serde_json::from_slice(&list).unwrap();
    assert_eq!(list["protocol"], "newstyle-fixed");
    let exports = list["exports"].as_array().unwrap();
    let of = |key: &str| {
        exports
            .iter()
            .map(|export| export[key].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(of("export-name"), ["", "other"]);
    assert_eq!(of("description"), ["the first", "the second"]);
    assert_eq!(of("export-size"), [SIZE, SIZE]);
    assert_eq!(of("is_read_only"), [false, true]);
    assert_eq!(of("can_multi_conn"), [true, true]);
    assert_eq!(of("can_zero"), [true, false]);
    assert_eq!(of("can_trim"), [false, false]);
    let map = run(Command::new(&nbdinfo).args(["--map", &served.uri()]));
    let words: Vec<&str> = clip(&map).split_whitespace().collect();
    assert_eq!(words, ["0", &SIZE.to_string(), "0", "data"]);
    served.stop();
}

#[test]
fn nbdcopy_copies_both_ways() {
    let Some(nbdcopy) = find("nbdcopy") else {
        return;
    };
    let folder = Folder::with_volume();
    let served = folder.serve(&[]);
    let copied = folder.path("copied");
    run(Command::new(&nbdcopy).args([served.uri().as_ref(), copied.as_os_str()]));
    assert!(std::fs::read(&copied).unwrap() == content());

    let mut reversed = content();
    reversed.reverse();
    folder.write("reversed", &reversed);
    let source = folder.path("reversed");
    run(Command::new(&nbdcopy)
        .args(["--flush", "--connections=4"])
        .args([source.as_os_str(), served.uri().as_ref()]));
    served.stop();
    assert!(folder.decrypted() == reversed);
}

#[test]
fn qemu_converts_both_ways_and_finds_them_the_same() {
    let Some(qemu_img) = find("qemu-img") else {
        return;
    };
    let folder = Folder::with_volume();
    let served = folder.serve(&[]);
    let uri = served.uri();
    let mut image = folder.program(
        &qemu_img,
        ["convert", "-f", "raw", "-O", "raw", &uri, "copied"],
    );
    run(&mut image);
    assert!(std::fs::read(folder.path("copied")).unwrap() == content());

    let mut half = content();
    half[..4 << 20].fill(0);
    folder.write("half", &half);
    run(&mut folder.program(
        &qemu_img,
        [
            "convert", "-n", "-W", "-m", "8", "-f", "raw", "-O", "raw", "half", &uri,
        ],
    ));
    run(&mut folder.program(
        &qemu_img,
        ["compare", "-f", "raw", "-F", "raw", "half", &uri],
    ));
    served.stop();
    assert!(folder.decrypted() == half);
}

#[test]
fn qemu_io_writes_anywhere() {
    let Some(qemu_io) = find("qemu-io") else {
        return;
    };
    let folder = Folder::with_volume();
    let served = folder.serve(&["--discard", "zeroes"]);
    let commands = [
        "write -P 1 4097 513",
        "read -P 1 4097 513",
        "write -f -P 2 1048576 2097152",
        "write -z 1048577 4095",
        "write -z -u 2097152 4096",
        "discard 3145728 65536",
        "flush",
    ];
    let args = commands.iter().flat_map(|command| ["-c", command]);
    let output = run(folder
        .program(&qemu_io, ["-f", "raw"])
        .arg(served.uri())
        .args(args));
    assert!(!clip(&output).contains("failed"), "{}", clip(&output));
    served.stop();
    let mut expected = content();
    expected[4097..4610].fill(1);
    expected[1 << 20..3 << 20].fill(2);
    expected[1_048_577..1_048_577 + 4095].fill(0);
    expected[2 << 20..(2 << 20) + 4096].fill(0);
    expected[3 << 20..(3 << 20) + 65536].fill(0);
    assert!(folder.decrypted() == expected);
}

#[test]
fn fio_verifies_what_it_wrote() {
    let Some(fio) = find("fio") else {
        return;
    };
    let folder = Folder::with_volume();
    let served = folder.serve(&[]);
    let uri = format!("--uri={}", served.uri());
    // Sizes and offsets that are not multiples of a sector. Each block contains a checksum.
    let args = [
        "--name=verify",
        "--ioengine=nbd",
        &uri,
        "--rw=randwrite",
        "--bsrange=512-65536",
        "--blockalign=512",
        "--size=8M",
        "--iodepth=32",
        "--verify=crc32c",
        "--verify_state_save=0",
        "--do_verify=1",
        "--verify_fatal=1",
        "--randseed=7",
    ];
    run(&mut folder.program(&fio, args));
    served.stop();
}

/// The client of Linux, as far as it works without the kernel module.
#[test]
fn nbd_client_lists_the_exports() {
    let Some(nbd_client) = find("nbd-client") else {
        return;
    };
    let folder = Folder::with_volume();
    let args =
        "disk.img --key-file key --listen 127.0.0.1:0 --insecure --name vm1 --description text";
    let served = folder.serve_with(&args.split(' ').collect::<Vec<_>>(), &[]);
    let uri = served.told["uri"].as_str().unwrap().to_owned();
    let (_, port) = uri.trim_end_matches('/').rsplit_once(':').unwrap();
    let listed = run(&mut folder.program(nbd_client, ["-l", "127.0.0.1", "-p", port]));
    let listed = String::from_utf8(listed).unwrap();
    assert!(listed.lines().any(|line| line == "vm1: text"), "{listed}");
    served.stop();
}

/// As long as nbdkit takes them, and as nbd-server's own test sends them.
#[test]
fn nbdsh_sends_and_gets_64_mib_at_once() {
    let Some(nbdsh) = find("nbdsh") else {
        return;
    };
    let folder = Folder::new();
    let create =
        "create disk.img --size 65M --key-file key --pbkdf pbkdf2 --pbkdf-force-iterations 1000";
    run(&mut folder.luksmith(create.split(' ')));
    let served = folder.serve(&[]);
    for structured in ["True", "False"] {
        let script = format!(
            r#"
import nbd, os
h.set_request_structured_replies({structured})
h.connect_uri({uri:?})
assert h.get_block_size(nbd.SIZE_MAXIMUM) == 64 << 20
h.set_strict_mode(0)
for size in [50_000_000, 64 << 20]:
    data = os.urandom(1 << 20) * 64
    data = data[:size]
    h.pwrite(data, 512)
    assert h.pread(size, 512) == data
try:
    h.pwrite(bytes((64 << 20) + 1), 0)
    assert False
except nbd.Error:
    pass
assert h.pread(512, 512) == data[:512]
h.shutdown()
"#,
            uri = served.uri(),
        );
        let path = "/usr/bin:/bin";
        run(folder.program(&nbdsh, ["-c", &script]).env("PATH", path));
    }
    served.stop();
}

/// Every command of the protocol that libnbd has, with structured and with simple replies.
#[test]
fn nbdsh_does_everything() {
    let Some(nbdsh) = find("nbdsh") else {
        return;
    };
    for structured in ["True", "False"] {
        let folder = Folder::with_volume();
        let served = folder.serve(&["--discard", "zeroes"]);
        let script = format!(
            r#"
import nbd, errno
h.set_request_structured_replies({structured})
h.add_meta_context("base:allocation")
h.connect_uri({uri:?})
size = h.get_size()
assert size == {SIZE}
assert h.can_flush() and h.can_fua() and h.can_zero() and h.can_fast_zero() and h.can_cache() and h.can_multi_conn() and h.can_trim()
assert h.can_df() == {structured}
before = h.pread(size, 0)
h.pwrite(b"x" * 700, 4000)
assert h.pread(702, 3999) == before[3999:4000] + b"x" * 700 + before[4700:4701]
h.pwrite(b"y" * 512, 0, nbd.CMD_FLAG_FUA)
h.flush()
h.zero(5000, 1000, nbd.CMD_FLAG_NO_HOLE)
assert h.pread(5000, 1000) == bytearray(5000)
h.trim(4096, 8192, nbd.CMD_FLAG_FUA)
assert h.pread(4096, 8192) == bytearray(4096)
h.cache(4096, 0)
def refused(number, call):
    try:
        call()
        assert False
    except nbd.Error as error:
        assert error.errnum == number, error
refused(errno.ENOTSUP, lambda: h.zero(4096, 0, nbd.CMD_FLAG_FAST_ZERO))
assert h.pread(512, 0) == b"y" * 512
h.set_strict_mode(0)
refused(errno.EINVAL, lambda: h.pread(2, size - 1))
refused(errno.ENOSPC, lambda: h.pwrite(b"zz", size - 1))
if {structured}:
    assert h.pread(100000, 1, nbd.CMD_FLAG_DF) == h.pread(100000, 1)
    extents = []
    h.block_status(size, 0, lambda context, offset, e, error: extents.append((context, offset, e)))
    assert extents == [("base:allocation", 0, [size, 0])], extents
h.pwrite(before, 0)
h.shutdown()
"#,
            uri = served.uri(),
        );
        // nbdsh starts the first python3 in PATH. Only that of the system has the module.
        let path = "/usr/bin:/bin";
        run(folder.program(&nbdsh, ["-c", &script]).env("PATH", path));
        served.stop();
        assert!(folder.decrypted() == content());
    }
}
