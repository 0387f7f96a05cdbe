//! Volumes with ciphers that are only read. No command makes one: here a header is changed.

use luksmith_formats::luks2::{Header, Position, Segment};
use luksmith_formats::{CipherSpec, Limits};

use crate::session::{CHEAP, Session};

const DATA: usize = 16 << 20;
const SIZE: usize = 1 << 20;

fn plaintext() -> Vec<u8> {
    let words = (0..SIZE as u64 / 8).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n);
    words.flat_map(u64::to_le_bytes).collect()
}

/// With `weak.img`, whose data is aes-ecb, and its plaintext.
///
/// The data was encrypted with aes-cbc, and a block of the header that names it was changed. A
/// block of CBC is the encryption of the sum of the plaintext and the block before it.
fn session() -> (Session, Vec<u8>) {
    let session = Session::new();
    session.write("plain", &plaintext());
    let args = "encrypt plain weak.img --cipher aes-cbc-plain64 --sector-size 512 --key-file key";
    session.ok(args.split(' ').chain(CHEAP));
    let mut image = session.read("weak.img");
    let size = Header::probe_size(&image[..4096], Position::Primary).unwrap();
    let size = usize::try_from(size).unwrap();
    let limits = Limits::default();
    let mut header = Header::parse(&image[..size], Position::Primary, &limits).unwrap();
    let Segment::Crypt(segment) = &header.metadata.segments()[&0] else {
        panic!("a new volume has one crypt segment");
    };
    let mut segment = segment.clone();
    segment.encryption = CipherSpec::parse("aes-ecb").unwrap();
    let segment = Segment::Crypt(segment);
    header.metadata.set_segment(0, &segment).unwrap();
    for position in Position::ALL {
        let copy = header.to_bytes(position, &[7; 64]).unwrap();
        let at = usize::try_from(position.offset(header.hdr_size)).unwrap();
        image[at..at + copy.len()].copy_from_slice(&copy);
    }
    session.write("weak.img", &image);

    let mut plain = plaintext();
    let sectors = plain.chunks_mut(512).zip(image[DATA..].chunks(512));
    for (number, (plain, cipher)) in (0u128..).zip(sectors) {
        let iv = number.to_le_bytes();
        let before = iv.iter().chain(&cipher[..512 - 16]);
        plain.iter_mut().zip(before).for_each(|(a, b)| *a ^= b);
    }
    (session, plain)
}

#[test]
fn no_command_makes_or_writes_a_weak_volume() {
    let (session, _) = session();
    let before = session.read("weak.img");
    let usual = "hint: --cipher aes-xts-plain64 is the default";
    let copy = "hint: `luksmith copy IMAGE NEW";
    // These fail before a key is read.
    for (args, code, hint) in [
        (
            "create x.img --size 1M --key-file no --cipher cast5-cbc-plain64",
            1,
            usual,
        ),
        (
            "encrypt plain x.img --key-file no --cipher serpent-ecb",
            1,
            usual,
        ),
        (
            "copy weak.img x.img --key-file no --cipher aes-ecb",
            1,
            usual,
        ),
        ("serve weak.img --socket s --key-file no", 4, copy),
        ("resize weak.img --size 2M", 4, copy),
        ("convert weak.img --to luks1 --force convert", 4, copy),
        (
            "reencrypt weak.img --key-file no --cipher aes-xts-plain64",
            4,
            copy,
        ),
    ] {
        let ran = session.run(args.split(' '));
        ran.fails(code, "are only read: ");
        assert!(ran.stderr().contains(hint), "{args}: {}", ran.stderr());
        assert!(!session.exists("x.img"), "{args}");
        assert!(session.read("weak.img") == before, "{args}");
    }
}

#[test]
fn a_weak_volume_is_read_with_a_warning() {
    let (session, plain) = session();
    let warning = "warning: weak.img: the cipher aes-ecb is weak (anyone who reads the storage";
    let ran = session.run("decrypt weak.img - --key-file key".split(' '));
    ran.fails(0, warning);
    assert!(ran.bytes() == plain);

    let copy = "copy weak.img new.img --key-file key".split(' ');
    let ran = session.run(copy.chain(CHEAP));
    ran.fails(0, warning);
    let ran = session.run("decrypt new.img - --key-file key".split(' '));
    assert!(ran.bytes() == plain);
    assert!(!ran.stderr().contains("weak"), "{}", ran.stderr());

    let add = "key add weak.img --key-file key --new-key-file other --force-weak";
    session.run(add.split(' ').chain(CHEAP)).fails(0, warning);
    let remove = "key remove weak.img --keyslot 0 --key-file other";
    session.run(remove.split(' ')).fails(0, warning);
    let ran = session.run("decrypt weak.img - --key-file other".split(' '));
    assert!(ran.bytes() == plain);
    let info = session.run(["info", "weak.img"]);
    info.fails(0, warning);
    assert!(info.stdout().contains("aes-ecb"), "{}", info.stdout());
}
