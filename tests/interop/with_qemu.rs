//! LUKS1 with QEMU in both directions: `qemu-img` makes and writes an image, we read it, and write
//! it for `qemu-img` to read; then the same with an image that we made. Whole payloads are
//! compared.

use crate::ours;
use crate::payload::{assert_same, file, payload, sparse};
use crate::qemu::Qemu;
use luksmith::backend::IoError;
use luksmith::container::{CreateOptions, Version};
use luksmith::kdf::calibrate::Cost;
use luksmith_formats::{CipherSpec, Hash};
use std::collections::BTreeSet;
use std::path::Path;

/// QEMU takes only text.
const KEY: &[u8] = "korrektes Pferd, Batterie, Heftklammer: äöü\n".as_bytes();
const SIZE: usize = 512 * 1025;

/// Keys of 192 bits are here only in XTS, where they are two: the stripes of a single one end in
/// the middle of a sector, which makes QEMU stop with a failed assertion.
///
/// QEMU's names of the cipher, mode, IV generator, its hash, and the hash of the header; then our
/// name of the cipher.
const ROWS: [(&str, &str, &str, &str, Hash, &str); 16] = [
    (
        "aes-256",
        "xts",
        "plain64",
        "",
        Hash::Sha256,
        "aes-xts-plain64",
    ),
    ("aes-128", "xts", "plain", "", Hash::Sha1, "aes-xts-plain"),
    (
        "aes-192",
        "xts",
        "plain64",
        "",
        Hash::Sha256,
        "aes-xts-plain64",
    ),
    (
        "aes-192",
        "xts",
        "essiv",
        "sha256",
        Hash::Sha256,
        "aes-xts-essiv:sha256",
    ),
    (
        "serpent-192",
        "xts",
        "plain64",
        "",
        Hash::Sha256,
        "serpent-xts-plain64",
    ),
    (
        "twofish-192",
        "xts",
        "essiv",
        "sha256",
        Hash::Sha1,
        "twofish-xts-essiv:sha256",
    ),
    (
        "aes-256",
        "cbc",
        "essiv",
        "sha256",
        Hash::Sha512,
        "aes-cbc-essiv:sha256",
    ),
    (
        "aes-256",
        "cbc",
        "plain64",
        "",
        Hash::Ripemd160,
        "aes-cbc-plain64",
    ),
    (
        "aes-128",
        "cbc",
        "essiv",
        "sha256",
        Hash::Sha224,
        "aes-cbc-essiv:sha256",
    ),
    (
        "serpent-256",
        "xts",
        "plain64",
        "",
        Hash::Sha256,
        "serpent-xts-plain64",
    ),
    (
        "serpent-128",
        "xts",
        "plain64",
        "",
        Hash::Sha384,
        "serpent-xts-plain64",
    ),
    (
        "serpent-256",
        "cbc",
        "plain",
        "",
        Hash::Sha256,
        "serpent-cbc-plain",
    ),
    (
        "twofish-256",
        "xts",
        "plain64",
        "",
        Hash::Sha256,
        "twofish-xts-plain64",
    ),
    (
        "twofish-128",
        "xts",
        "plain",
        "",
        Hash::Sha512,
        "twofish-xts-plain",
    ),
    (
        "twofish-256",
        "cbc",
        "essiv",
        "sha256",
        Hash::Sha256,
        "twofish-cbc-essiv:sha256",
    ),
    // As libvirt asks for it: the mode in the header is then "xts-plain64:sha256".
    (
        "aes-256",
        "xts",
        "plain64",
        "sha256",
        Hash::Sha256,
        "aes-xts-plain64",
    ),
];

#[test]
fn qemu_and_we_read_what_the_other_wrote() {
    let Some(qemu) = Qemu::find() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let key = file(folder.path(), "key", KEY);
    let mut offsets = BTreeSet::new();
    let mut modes = BTreeSet::new();
    for (seed, row) in (0..).step_by(3).zip(ROWS) {
        let (cipher, mode, iv, iv_hash, hash, ours) = row;
        let theirs = folder.path().join(format!("theirs-{seed}"));
        let mut options = vec![
            format!("cipher-alg={cipher}"),
            format!("cipher-mode={mode}"),
            format!("ivgen-alg={iv}"),
            format!("hash-alg={hash}"),
        ];
        if !iv_hash.is_empty() {
            options.push(format!("ivgen-hash-alg={iv_hash}"));
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        qemu.create(&theirs, &key, SIZE as u64, &options);
        qemu_writes_we_read(&qemu, &theirs, &key, payload(seed, SIZE));
        we_write_qemu_reads(&qemu, &theirs, &key, payload(seed + 1, SIZE));

        let container = ours::open(&theirs);
        let segment = container.data_segment().unwrap();
        assert_eq!(segment.cipher.to_string(), ours, "{row:?}");
        offsets.insert(segment.offset);
        let luksmith::container::Header::Luks1(header) = container.header() else {
            panic!("qemu-img makes LUKS1");
        };
        modes.insert(header.cipher_mode.clone());
        let key_size = container.keyslots()[0].key_size;
        drop(container);

        let image = create(folder.path(), &format!("ours-{seed}"), ours, key_size, hash);
        we_write_qemu_reads(&qemu, &image, &key, payload(seed + 2, SIZE));
        qemu_writes_we_read(&qemu, &image, &key, payload(seed, SIZE));
    }
    // QEMU aligns the beginning of the data at most to pages.
    assert!(
        offsets.iter().any(|offset| offset % (1 << 20) != 0),
        "{offsets:?}"
    );
    assert!(offsets.len() > 2, "{offsets:?}");
    assert!(modes.contains("xts-plain64:sha256"), "{modes:?}");
}

/// The key is for a cipher of this size. The data begins one sector after the first possible place.
fn create(
    folder: &Path,
    name: &str,
    cipher: &str,
    key_size: usize,
    hash: Hash,
) -> std::path::PathBuf {
    let area = (key_size as u64 * 4000).next_multiple_of(4096);
    let offset = 4096 + 8 * area + 512;
    let image = sparse(folder, name, offset + SIZE as u64);
    let mut options = CreateOptions::new(
        Version::Luks1,
        Cost::Pbkdf2 {
            hash,
            iterations: 1000,
        },
    );
    options.cipher = CipherSpec::parse(cipher).unwrap();
    options.key_size = key_size;
    options.hash = hash;
    options.data_offset = Some(offset);
    ours::create(&image, KEY, options);
    image
}

fn qemu_writes_we_read(qemu: &Qemu, image: &Path, key: &Path, mut plain: Vec<u8>) {
    let raw = image.with_extension("raw");
    std::fs::write(&raw, &plain).unwrap();
    qemu.convert_in(&raw, image, key);
    qemu.io(
        image,
        key,
        &["write -P 0x5a 1536 4096", "write -P 0xc3 262144 65536"],
    );
    plain[1536..1536 + 4096].fill(0x5a);
    plain[262_144..262_144 + 65_536].fill(0xc3);
    let volume = ours::volume(image, None, KEY);
    assert_same(
        &plain,
        &ours::read_all(&volume),
        &format!("{} read by us", image.display()),
    );
}

fn we_write_qemu_reads(qemu: &Qemu, image: &Path, key: &Path, mut plain: Vec<u8>) {
    let volume = ours::volume(image, None, KEY);
    ours::write_all(&volume, &plain);
    for (range, byte) in [(1000..70_000, 0xa5), (SIZE - 3000..SIZE, 0x3c)] {
        plain[range.clone()].fill(byte);
        volume.write_at(range.start as u64, &plain[range]).unwrap();
    }
    volume.flush().unwrap();
    drop(volume);
    // qemu-io compares whole sectors inside what was written.
    let end = SIZE as u64 - 2560;
    qemu.io(
        image,
        key,
        &[
            "read -P 0xa5 1024 68608",
            &format!("read -P 0x3c {end} 2560"),
        ],
    );
    assert_same(
        &plain,
        &qemu.convert_out(image, key),
        &format!("{} read by QEMU", image.display()),
    );
}

/// QEMU's names of the cipher, mode and IV generator, then our name of the cipher.
const ONLY_READ: [(&str, &str, &str, &str); 4] = [
    ("cast5-128", "cbc", "plain64", "cast5-cbc-plain64"),
    ("cast5-128", "cbc", "plain", "cast5-cbc-plain"),
    ("cast5-128", "ecb", "plain64", "cast5-ecb-plain64"),
    ("aes-256", "ecb", "plain64", "aes-ecb-plain64"),
];

/// We read what we do not write, and change its passphrases.
#[test]
fn qemu_writes_weak_volumes_that_we_only_read() {
    const NEW: &[u8] = b"another passphrase";
    let Some(qemu) = Qemu::find() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let key = file(folder.path(), "key", KEY);
    let new = file(folder.path(), "new", NEW);
    for (seed, (cipher, mode, generator, ours)) in (900..).zip(ONLY_READ) {
        let image = folder.path().join(ours);
        let options = [
            format!("cipher-alg={cipher}"),
            format!("cipher-mode={mode}"),
            format!("ivgen-alg={generator}"),
        ];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        qemu.create(&image, &key, SIZE as u64, &options);
        let plain = payload(seed, SIZE);
        qemu_writes_we_read(&qemu, &image, &key, plain.clone());
        let container = ours::open(&image);
        assert_eq!(container.data_segment().unwrap().cipher.to_string(), ours);
        drop(container);
        let volume = ours::volume(&image, None, KEY);
        assert!(volume.is_read_only());
        let refused = volume.write_at(0, &[0; 512]).unwrap_err();
        assert!(matches!(refused, IoError::ReadOnly(_)), "{refused}");
        drop(volume);

        let before = qemu.convert_out(&image, &key);
        ours::add_keyslot(&image, KEY, NEW, None);
        assert_same(&before, &qemu.convert_out(&image, &new), ours);
    }
}

/// QEMU shows a last sector that the image has in part, and takes zeroes for the rest. We leave it
/// out, and show what QEMU shows once the zeroes are there.
#[test]
fn a_last_partial_sector_is_that_of_qemu_with_zeroes() {
    let Some(qemu) = Qemu::find() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let key = file(folder.path(), "key", KEY);
    let image = folder.path().join("a.img");
    qemu.create(&image, &key, 1000, &[]);
    let length = std::fs::metadata(&image).unwrap().len();
    assert_eq!(length % 512, 1000 % 512);
    let theirs = qemu.convert_out(&image, &key);
    assert_eq!(theirs.len(), 1024);

    let container = ours::open(&image);
    assert_eq!(container.data_segment().unwrap().left_out(length), 488);
    drop(container);
    let volume = ours::volume(&image, None, KEY);
    assert_eq!(ours::read_all(&volume), theirs[..512]);
    drop(volume);
    let grown = std::fs::File::options().write(true).open(&image).unwrap();
    grown.set_len(length.next_multiple_of(512)).unwrap();
    let volume = ours::volume(&image, None, KEY);
    assert_same(&theirs, &ours::read_all(&volume), "with zeroes");
}
