//! What the user has not agreed to lose is kept: detached headers, files that appear while the
//! program runs, the volume's own storage.

use std::process::Command;

use luksmith_formats::Limits;
use luksmith_formats::luks2::{Header, Position, Segment, SegmentSize};

use crate::session::{CHEAP, Session};

/// `data.img` with the detached header `head.img`.
fn detached() -> Session {
    let session = Session::new();
    let create = "create data.img --header head.img --size 1M --key-file key";
    session.ok(create.split(' ').chain(CHEAP));
    session
}

#[test]
fn a_detached_header_is_no_data() {
    let session = detached();
    let before = session.read("head.img");
    for command in [
        "resize head.img --size 64K --force shrink",
        "resize head.img --size 64M",
        "decrypt head.img plain.img --key-file key",
    ] {
        let ran = session.run(command.split(' '));
        ran.fails(1, "the header is detached: the data is elsewhere");
        ran.fails(1, "luksmith: hint: name the data as IMAGE");
    }
    assert!(session.read("head.img") == before && !session.exists("plain.img"));
    session.ok("resize data.img --header head.img --size 2M".split(' '));
    assert_eq!(session.read("data.img").len(), 2 << 20);
}

#[test]
fn a_volume_is_not_decrypted_over_its_own_header() {
    let session = detached();
    let before = session.read("head.img");
    let decrypt =
        "decrypt data.img head.img --header head.img --key-file key --force overwrite".split(' ');
    session
        .run(decrypt)
        .fails(1, "head.img is the header itself");
    assert!(session.read("head.img") == before);
}

#[test]
fn a_file_that_came_after_the_look_stays() {
    let session = Session::new();
    let create = "create disk.img --size 1M --key stdin";
    let mut child = session
        .command(create.split(' ').chain(CHEAP))
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // The program looks at the path before it reads the passphrase, and reads that before it makes
    // a file.
    let mut stdin = child.stdin.take().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    session.write("disk.img", b"another's");
    std::io::Write::write_all(&mut stdin, b"secret").unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(5),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(session.read("disk.img"), b"another's");
}

#[test]
fn a_header_in_use_is_not_replaced() {
    let session = detached();
    let held = std::fs::File::open(session.path("head.img")).unwrap();
    held.lock().unwrap();
    let create = "create new.img --header head.img --size 1M --key-file key --force overwrite";
    session
        .run(create.split(' ').chain(CHEAP))
        .fails(5, "head.img is busy");
}

#[test]
fn an_undo_record_that_others_could_have_put_there_is_not_believed() {
    let session = Session::with_volume();
    let record = session.path("disk.img.luksmith-undo");
    let fifo = Command::new("mkfifo").arg(&record).status().unwrap();
    assert!(fifo.success());
    session
        .run(["info", "disk.img"])
        .fails(4, "is no undo record");
    std::fs::remove_file(&record).unwrap();
    std::os::unix::fs::symlink(session.path("key"), &record).unwrap();
    session
        .run(["info", "disk.img"])
        .fails(4, "cannot read the undo record");
    std::fs::remove_file(&record).unwrap();
    session.write("disk.img.luksmith-undo", b"");
    // Only root can change the owner of a file.
    if std::os::unix::fs::chown(&record, Some(4711), None).is_ok() {
        session
            .run(["header", "repair", "disk.img"])
            .fails(4, "belongs to user 4711");
    }
}

/// A LUKS2 volume of fixed size in a larger file. Other data is behind the volume.
fn fixed() -> (Session, usize) {
    let session = Session::new();
    let create = "create disk.img --size 64K --key-file key --offset 4096";
    session.ok(create.split(' ').chain(CHEAP));
    let mut image = session.read("disk.img");
    let mut header = Header::parse(&image, Position::Primary, &Limits::default()).unwrap();
    let (id, segment) = header.metadata.data_segment().unwrap();
    let mut segment = segment.clone();
    segment.size = SegmentSize::Fixed(64 << 10);
    header
        .metadata
        .set_segment(id, &Segment::Crypt(segment))
        .unwrap();
    for position in Position::ALL {
        let copy = header.to_bytes(position, &[7; 64]).unwrap();
        let at = usize::try_from(position.offset(header.hdr_size)).unwrap();
        image[at..at + copy.len()].copy_from_slice(&copy);
    }
    let end = image.len();
    image.extend(b"behind the volume".repeat(1 << 14));
    session.write("disk.img", &image);
    (session, end)
}

#[test]
fn what_is_behind_a_volume_of_fixed_size_is_kept() {
    let (session, end) = fixed();
    let before = session.read("disk.img");
    for size in ["68K", "1M"] {
        let resize = ["resize", "disk.img", "--size", size];
        let refused = session.run(resize);
        refused.fails(1, "behind it are 278528 more bytes");
        refused.fails(1, &format!("truncate -s {end} IMAGE"));
        assert!(session.read("disk.img") == before, "{size}: written");
    }
    session.ok("resize disk.img --size 32K --force shrink".split(' '));
    assert!(session.read("disk.img")[end..] == before[end..]);
    let info = session.ok(["info", "disk.img", "--json"]);
    assert!(info.contains("\"size\": 32768"), "{info}");

    // Where nothing is behind it, the volume grows and shrinks with its file.
    let (session, end) = fixed();
    let image = std::fs::OpenOptions::new()
        .write(true)
        .open(session.path("disk.img"));
    image.unwrap().set_len(end as u64).unwrap();
    session.ok(["resize", "disk.img", "--size", "128K"]);
    assert_eq!(session.read("disk.img").len(), end + (64 << 10));
    session.ok("resize disk.img --size 64K --force shrink".split(' '));
    assert_eq!(session.read("disk.img").len(), end);
}

/// The offset of the first byte after the keyslots of a LUKS1 volume.
fn gap(key_bits: usize) -> usize {
    4096 + 8 * (key_bits / 8 * 4000).next_multiple_of(4096)
}

/// A LUKS1 volume, with bytes of another program in the gap between its keyslots and its data.
fn with_gap(key_bits: usize, text: &[u8]) -> Session {
    let session = Session::new();
    let bits = key_bits.to_string();
    let create = "create disk.img --size 64K --type luks1 --key-file key --key-size";
    session.ok(create.split(' ').chain([bits.as_str()]).chain(CHEAP));
    let mut image = session.read("disk.img");
    let gap = gap(key_bits);
    assert!(image[gap..gap + 8192].iter().all(|byte| *byte == 0));
    image[gap..gap + text.len()].copy_from_slice(text);
    session.write("disk.img", &image);
    session
}

fn random() -> [u8; 4096] {
    let mut bytes = [0; 4096];
    let mut source = std::fs::File::open("/dev/urandom").unwrap();
    std::io::Read::read_exact(&mut source, &mut bytes).unwrap();
    bytes
}

const LUKSMETA: &[u8] = b"LUKSMETA\0\0\0\x01";

#[test]
fn what_clevis_keeps_before_the_data_is_not_converted_away() {
    let convert = "convert disk.img --to luks2 --force convert";
    for (text, named) in [
        (LUKSMETA, "a LUKSMETA block"),
        (b"any other text", "data of another program"),
    ] {
        let session = with_gap(512, text);
        let before = session.read("disk.img");
        let refused = session.run(convert.split(' '));
        refused.fails(1, named);
        refused.fails(1, &format!("at byte {}", gap(512)));
        assert!(session.read("disk.img") == before, "{named}: written");
    }
    // Random bytes are what overwritten key material leaves.
    let session = with_gap(512, &random());
    session.ok(convert.split(' '));
    session.ok(["key", "test", "disk.img", "--key-file", "key"]);
    session.ok("convert disk.img --to luks1 --force convert".split(' '));
    session.ok(convert.split(' '));
    session.ok(["key", "test", "disk.img", "--key-file", "key"]);
}

#[test]
fn a_changed_passphrase_does_not_take_the_place_of_what_clevis_keeps() {
    let session = with_gap(256, LUKSMETA);
    let add = "key add disk.img --key-file key --new-key-file other";
    for _ in 1..8 {
        session.ok(add.split(' ').chain(CHEAP));
    }
    session.write("new", b"a new passphrase");
    let change = "key change disk.img --key-file key --new-key-file new";
    session.ok(change.split(' ').chain(CHEAP));
    session.ok(["key", "test", "disk.img", "--key-file", "new"]);
    let gap = gap(256);
    assert_eq!(
        &session.read("disk.img")[gap..gap + LUKSMETA.len()],
        LUKSMETA
    );
}

#[test]
fn a_volume_becomes_luks1_only_where_its_keyslots_replace_nothing() {
    let session = Session::new();
    let create = "create disk.img --size 64K --key-file key --sector-size 512 --offset 8192 \
                  --luks2-keyslots-size 1M";
    session.ok(create.split_whitespace().chain(CHEAP));
    let mut image = session.read("disk.img");
    let text = b"after the keyslots area";
    let at = (1 << 20) + 32768 + 4096;
    image[at..at + text.len()].copy_from_slice(text);
    session.write("disk.img", &image);
    let convert = "convert disk.img --to luks1 --force convert";
    session
        .run(convert.split(' '))
        .fails(1, "data of another program");
    assert!(session.read("disk.img") == image, "written");
    image[at..at + text.len()].fill(0);
    session.write("disk.img", &image);
    session.ok(convert.split(' '));
    session.ok(["key", "test", "disk.img", "--key-file", "key"]);
}
