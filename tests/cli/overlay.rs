//! Work on the header of a qcow2 overlay, and of an image with a data file: no other file is ever
//! opened, and no server contacted.

use std::io::ErrorKind;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use rustix::fs::inotify;
use support::peers;

use crate::session::{CHEAP, Session};

/// Notices every opening of a file in a folder.
struct Openings(rustix::fd::OwnedFd);

impl Openings {
    fn of(folder: &Path) -> Self {
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&watch, folder, inotify::WatchFlags::OPEN).unwrap();
        Self(watch)
    }

    /// How many there were.
    fn count(&self) -> usize {
        let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        let mut count = 0;
        while reader.next().is_ok() {
            count += 1;
        }
        count
    }
}

fn qemu_img(session: &Session, args: &str) -> Option<()> {
    let mut command = Command::new(peers::find("qemu-img")?);
    command.current_dir(session.folder());
    command.args(args.split(' ').take(1));
    command.args(["--object", "secret,id=key,file=key"]);
    command.args(["--object", "secret,id=other,file=other"]);
    peers::run(command.args(args.split(' ').skip(1)));
    Some(())
}

const ENCRYPT: &str = "encrypt.format=luks,encrypt.iter-time=10,encrypt.key-secret";

/// An overlay `over` of 1 MiB that `key` opens, with this backing file, which may be missing.
fn overlay(session: &Session, backing: &str) {
    let args = "create over --format qcow2 --size 1M --key-file key";
    session.ok(args.split(' ').chain(CHEAP));
    let mut bytes = session.read("over");
    // The place of the name, in the first cluster, and its length.
    bytes[8..16].copy_from_slice(&1024_u64.to_be_bytes());
    bytes[16..20].copy_from_slice(&u32::try_from(backing.len()).unwrap().to_be_bytes());
    bytes[1024..][..backing.len()].copy_from_slice(backing.as_bytes());
    session.write("over", &bytes);
}

/// The same, as QEMU makes it.
fn overlay_of_qemu(session: &Session, backing: &str) -> Option<()> {
    let options = format!("-u -f qcow2 -F raw -b {backing} -o {ENCRYPT}=key over 1M");
    qemu_img(session, &format!("create -q {options}"))
}

/// Runs each command of the header, the last of which leaves no keyslot.
fn work_on_the_header(session: &Session, shown: &str) {
    let said = session.ok("info over --format qcow2".split(' '));
    assert!(said.contains(shown), "{said}");
    let json = session.ok("info over --format qcow2 --json".split(' '));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["size"], 1 << 20);
    for command in [
        "key test over --key-file key",
        "key add over --key-file key --new-key-file other CHEAP",
        "key test over --key-file other",
        "key list over",
        "header backup over backup",
        "key remove over --key-file key",
        "key change over --key-file other --new-key-file key CHEAP",
        "header restore over backup --force restore",
        "key test over --key-file other",
        "header erase over --force erase",
    ] {
        let mut args: Vec<_> = command.split(' ').filter(|word| *word != "CHEAP").collect();
        if args.len() < command.split(' ').count() {
            args.extend(CHEAP);
        }
        args.extend(["--format", "qcow2"]);
        session.ok(args);
    }
    session
        .run("key test over --format qcow2 --key-file key".split(' '))
        .fails(2, "");
}

/// Commands that need the data of the disk refuse it, and change nothing.
fn data_is_refused(session: &Session, why: &str) {
    let before = session.read("over");
    for command in [
        "decrypt over plain --key-file key",
        "resize over --size 2M",
        "serve over --key-file key --socket socket",
        "copy over new --key-file key",
    ] {
        let args = command.split(' ').chain(["--format", "qcow2"]);
        let args = args.map(
            |word| match command.starts_with("copy") && word == "--format" {
                true => "--source-format",
                false => word,
            },
        );
        session.run(args).fails(4, why);
        assert!(
            !session.exists("plain") && !session.exists("new"),
            "{command}"
        );
    }
    assert!(session.read("over") == before);
}

#[test]
fn the_header_of_an_overlay_is_changed_without_its_backing_file() {
    let session = Session::new();
    let base = session.path("base");
    std::fs::create_dir(&base).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, base.join("fifo"), mode).unwrap();
    session.write("base/plain", b"no image");
    let args = "create base/other --format qcow2 --size 1M --key-file other";
    session.ok(args.split(' ').chain(CHEAP));
    for name in ["missing", "fifo", "plain", "other"] {
        overlay(&session, &format!("base/{name}"));
        let openings = Openings::of(&base);
        data_is_refused(&session, "the image names a backing file");
        let shown = format!("backing file   base/{name} (not opened)");
        work_on_the_header(&session, &shown);
        assert_eq!(openings.count(), 0, "{name}");
        for file in ["over", "backup"] {
            std::fs::remove_file(session.path(file)).unwrap();
        }
    }
    // The watch sees an opening.
    let openings = Openings::of(&base);
    drop(std::fs::File::open(base.join("plain")).unwrap());
    assert_eq!(openings.count(), 1);
}

#[test]
fn no_server_of_a_backing_file_is_contacted() {
    let session = Session::new();
    let listener = UnixListener::bind(session.path("listen")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let backing = "nbd+unix:///x?socket=listen";
    overlay(&session, backing);
    data_is_refused(&session, "the image names a backing file");
    work_on_the_header(&session, &format!("{backing} (not opened)"));
    let error = listener.accept().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_changed_overlay_opens_with_its_backing_file() {
    let session = Session::new();
    let data: Vec<u8> = (0..1_u32 << 18).flat_map(|n| n.to_be_bytes()).collect();
    session.write("base", &data);
    if overlay_of_qemu(&session, "base").is_none() {
        return;
    }
    let opts = |key| format!("driver=qcow2,encrypt.key-secret={key},file.filename=over");
    let Some(io) = peers::find("qemu-io") else {
        return;
    };
    let mut command = Command::new(io);
    command.current_dir(session.folder());
    command.args([
        "--object",
        "secret,id=key,file=key",
        "-c",
        "write -P 7 300000 100k",
    ]);
    peers::run(command.args(["--image-opts", &opts("key")]));
    std::fs::rename(session.path("base"), session.path("away")).unwrap();
    for command in [
        "key add over --format qcow2 --key-file key --new-key-file other",
        "key remove over --format qcow2 --key-file key",
    ] {
        let cheap = CHEAP.iter().filter(|_| command.contains("add"));
        session.ok(command.split(' ').chain(cheap.copied()));
    }
    std::fs::rename(session.path("away"), session.path("base")).unwrap();
    let convert = format!("convert -O raw --image-opts {} out", opts("other"));
    qemu_img(&session, &convert).unwrap();
    let mut expected = data;
    expected[300_000..402_400].fill(7);
    assert!(session.read("out") == expected);
}

#[test]
fn an_image_with_a_data_file_or_extended_entries_has_a_header_too() {
    let session = Session::new();
    let create = |options: &str| {
        let args = format!("create -q -f qcow2 -o {options},{ENCRYPT}=key over 1M");
        qemu_img(&session, &args)
    };
    if create("extended_l2=on,cluster_size=65536").is_none() {
        return;
    }
    data_is_refused(&session, "extended L2 entries");
    work_on_the_header(&session, "clusters of 64 KiB");
    std::fs::remove_file(session.path("backup")).unwrap();
    create("data_file=guest").unwrap();
    let openings = Openings::of(session.folder());
    std::fs::remove_file(session.path("guest")).unwrap();
    std::fs::write(session.path("guest"), b"").unwrap();
    std::fs::remove_file(session.path("guest")).unwrap();
    assert_eq!(openings.count(), 1);
    data_is_refused(&session, "the data of the image is in another file");
    work_on_the_header(&session, "data file      guest (not opened)");
}

/// What a header change must not do to a damaged image, and what it leaves in the others.
#[test]
fn the_marks_of_an_image_are_kept_as_the_format_says() {
    let session = Session::new();
    let args = "create over --format qcow2 --size 1M --key-file key";
    session.ok(args.split(' ').chain(CHEAP));
    let set = |at: usize, value: u8| {
        let mut bytes = session.read("over");
        bytes[at] = value;
        session.write("over", &bytes);
    };
    let add = || {
        let args = "key add over --format qcow2 --key-file key --new-key-file other";
        session.run(args.split(' ').chain(CHEAP))
    };
    // Damaged: read only. Dirty: its counts may be wrong, which a header does not need.
    set(79, 2);
    session.ok("key test over --format qcow2 --key-file key".split(' '));
    add().fails(4, "the image is marked as damaged");
    set(79, 1);
    assert_eq!(add().code(), 0);
    // Bitmaps stay valid, as far as they were: the disk is the same. Unknown promises are cleared.
    set(79, 0);
    set(95, 1 | 1 << 7);
    assert_eq!(add().code(), 0);
    assert_eq!(session.read("over")[88..96], [0, 0, 0, 0, 0, 0, 0, 1]);
    // A damaged table of the disk does not matter, as long as it does not overlap.
    let l1 = session.read("over")[40..48].to_vec();
    set(43, 1);
    assert_eq!(add().code(), 0);
    let crypto = session
        .read("over")
        .windows(4)
        .position(|four| four == [5, 0x37, 0xbe, 0x77]);
    let place = session.read("over")[crypto.unwrap() + 8..][..8].to_vec();
    let mut bytes = session.read("over");
    bytes[40..48].copy_from_slice(&place);
    session.write("over", &bytes);
    add().fails(4, "overlaps");
    bytes[40..48].copy_from_slice(&l1);
    session.write("over", &bytes);
    assert_eq!(add().code(), 0);
}
