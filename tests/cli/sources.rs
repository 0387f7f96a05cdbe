//! What `encrypt` takes as its SOURCE: raw data, and the disks in disk images.

use std::path::Path;
use std::process::Command;

use support::peers;

use crate::session::{CHEAP, Ran, Session};

fn encrypt(session: &Session, args: &str) -> Ran {
    session.run(
        format!("encrypt {args} --key-file key")
            .split(' ')
            .chain(CHEAP),
    )
}

/// The plaintext of the volume in a file.
fn decrypted(session: &Session, image: &str) -> Vec<u8> {
    let ran = session.run(format!("decrypt {image} - --key-file key").split(' '));
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    ran.bytes().to_vec()
}

/// 1 MiB of a text, with `magic` at an offset.
fn data(magic: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = b"plaintext ".repeat(104_858);
    bytes.truncate(1 << 20);
    bytes[at..at + magic.len()].copy_from_slice(magic);
    bytes
}

#[test]
fn what_begins_as_a_disk_image_does_is_refused() {
    let session = Session::new();
    for (format, magic, at) in [
        ("qcow2", &b"QFI\xfb\0\0\0\x03"[..], 0),
        ("qed", b"QED\0", 0),
        ("vmdk", b"KDMV", 0),
        ("vmdk", b"# Disk DescriptorFile\n", 0),
        ("vhd", b"conectix", 0),
        ("vhdx", b"vhdxfile", 0),
        ("vdi", b"\x7f\x10\xda\xbe", 64),
        ("luks", b"LUKS\xba\xbe\0\x02", 0),
    ] {
        let bytes = data(magic, at);
        session.write("image", &bytes);
        let ran = encrypt(&session, "image disk.img");
        ran.fails(1, "image begins as");
        ran.fails(1, "--source-format raw");
        let way = match format {
            "luks" => "`luksmith copy`".to_owned(),
            format => format!("--source-format {format} reads"),
        };
        ran.fails(1, &way);
        let args = "encrypt - disk.img --key-file key";
        let piped = session.run_with(args.split(' ').chain(CHEAP), &bytes);
        piped.fails(1, "stdin begins as");
        assert!(!session.exists("disk.img"), "{format}");
        // It is taken as it is where that is stated.
        let args = "image disk.img --source-format raw --force overwrite";
        assert_eq!(encrypt(&session, args).code(), 0, "{format}");
        assert!(decrypted(&session, "disk.img") == bytes, "{format}");
        std::fs::remove_file(session.path("disk.img")).unwrap();
    }
}

#[test]
fn raw_disks_and_streams_are_taken_as_they_are() {
    let session = Session::new();
    for (magic, at) in [
        (&b"EFI PART"[..], 512),
        (b"\x55\xaa", 510),
        (b"\x01CD001\x01", 32768),
        (b"conectix", (1 << 20) - 512),
    ] {
        let bytes = data(magic, at);
        session.write("plain", &bytes);
        let args = "plain disk.img --force overwrite";
        assert_eq!(encrypt(&session, args).code(), 0, "{at}");
        assert!(decrypted(&session, "disk.img") == bytes, "{at}");
        let args = "encrypt - disk.img --key-file key --force overwrite";
        let piped = session.run_with(args.split(' ').chain(CHEAP), &bytes);
        assert_eq!(piped.code(), 0, "{}", piped.stderr());
        assert!(decrypted(&session, "disk.img") == bytes, "{at}");
    }
}

/// Runs qemu-img in the folder of the session.
fn qemu_img(session: &Session, qemu: &Path, args: &str) {
    let mut command = Command::new(qemu);
    command.current_dir(session.folder());
    peers::run(command.args(args.split(' ')));
}

/// Writes data with holes, zeroes and a partial cluster into an image, through qemu-io.
fn fill(session: &Session, io: &Path, format: &str) {
    let mut command = Command::new(io);
    command.current_dir(session.folder()).args(["-f", format]);
    for write in [
        "write -P 0x11 0 70000",
        "write -P 0x22 1M 300k",
        "write -z 1100k 64k",
        "write -P 0x33 3000000 4096",
        "write -P 0x44 5000704 512",
        "write -P 0x55 6M 1M",
    ] {
        command.args(["-c", write]);
    }
    peers::run(command.arg("image"));
}

/// Encrypts the disk in `image`, and compares it with what qemu-img reads.
#[track_caller]
fn is_read_as_qemu_reads_it(session: &Session, qemu: &Path, format: &str, what: &str) {
    let args = format!("image disk.img --source-format {format} --force overwrite");
    let ran = encrypt(session, &args);
    assert_eq!(ran.code(), 0, "{what}: {}", ran.stderr());
    let driver = if format == "vhd" { "vpc" } else { format };
    qemu_img(
        session,
        qemu,
        &format!("convert -f {driver} -O raw image raw"),
    );
    let (ours, theirs) = (decrypted(session, "disk.img"), session.read("raw"));
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let differs = ours.iter().zip(&theirs).position(|(a, b)| a != b);
    assert_eq!(differs, None, "{what}");
}

#[test]
fn the_disk_in_a_qcow2_image_is_read_as_qemu_reads_it() {
    let (Some(qemu), Some(io)) = (peers::find("qemu-img"), peers::find("qemu-io")) else {
        return;
    };
    for options in [
        "compat=1.1",
        "compat=0.10",
        "cluster_size=512",
        "cluster_size=4096",
        "cluster_size=2M",
        "refcount_bits=1",
        "preallocation=metadata",
        "compression_type=zstd",
    ] {
        let session = Session::new();
        qemu_img(
            &session,
            &qemu,
            &format!("create -q -f qcow2 -o {options} image 9000448"),
        );
        fill(&session, &io, "qcow2");
        is_read_as_qemu_reads_it(&session, &qemu, "qcow2", options);
        // Internal snapshots share clusters with the disk.
        if options != "refcount_bits=1" {
            qemu_img(&session, &qemu, "snapshot -c one image");
            fill(&session, &io, "qcow2");
            is_read_as_qemu_reads_it(&session, &qemu, "qcow2", &format!("{options}, snapshot"));
        }
        std::fs::rename(session.path("image"), session.path("from")).unwrap();
        let convert = format!("convert -c -f qcow2 -O qcow2 -o {options} from image");
        if options != "preallocation=metadata" {
            qemu_img(&session, &qemu, &convert);
            is_read_as_qemu_reads_it(&session, &qemu, "qcow2", &format!("{options}, compressed"));
        }
    }
}

#[test]
fn references_keys_and_damage_in_a_qcow2_image_are_refused() {
    let Some(qemu) = peers::find("qemu-img") else {
        return;
    };
    let session = Session::new();
    session.write("base", &data(b"", 0));
    let refused = |what: &str, said: &str| {
        let ran = encrypt(&session, "image disk.img --source-format qcow2");
        assert!(ran.code() != 0 && !session.exists("disk.img"), "{what}");
        assert!(ran.stderr().contains(said), "{what}: {}", ran.stderr());
    };
    qemu_img(&session, &qemu, "create -q -f qcow2 -b base -F raw image");
    refused("a backing file", "qcow2.backing-file");
    refused("the way out", "`luksmith inspect --format qcow2`");
    qemu_img(
        &session,
        &qemu,
        "create -q -f qcow2 -o data_file=data image 1M",
    );
    refused("a data file", "qcow2.data-file");
    session.ok(
        "create image --format qcow2 --size 1M --key-file key --force overwrite"
            .split(' ')
            .chain(CHEAP),
    );
    refused("an encrypted image", "luksmith copy --source-format qcow2");
    session.write("image", &data(b"", 0));
    refused("another format", "not accepted as qcow2");
    qemu_img(
        &session,
        &qemu,
        "create -q -f qcow2 -o extended_l2=on image 1M",
    );
    refused("extended L2 entries", "extended L2 entries");
    let piped = encrypt(&session, "- disk.img --source-format qcow2");
    piped.fails(1, "cannot be read from stdin");
    qemu_img(&session, &qemu, "create -q -f qcow2 image 1M");
    let mut bytes = session.read("image");
    // The first entry of the L1 table leads outside of the image.
    bytes[3 * 65536..3 * 65536 + 8].copy_from_slice(&0x8000_0000_7fff_0000_u64.to_be_bytes());
    session.write("image", &bytes);
    refused("a damaged image", "not accepted as qcow2");
}

#[test]
fn the_disks_in_other_images_are_read_as_qemu_reads_them() {
    let (Some(qemu), Some(io)) = (peers::find("qemu-img"), peers::find("qemu-io")) else {
        return;
    };
    for (format, driver, options) in [
        ("vdi", "vdi", "static=off"),
        ("vdi", "vdi", "static=on"),
        ("vhd", "vpc", "subformat=dynamic,force_size=on"),
        ("vhd", "vpc", "subformat=fixed,force_size=on"),
        ("vhdx", "vhdx", "subformat=dynamic"),
        ("vhdx", "vhdx", "subformat=fixed"),
        ("vhdx", "vhdx", "block_size=1M"),
        ("vmdk", "vmdk", "subformat=monolithicSparse"),
        ("vmdk", "vmdk", "subformat=monolithicSparse,zeroed_grain=on"),
        ("vmdk", "vmdk", "subformat=streamOptimized"),
        ("qed", "qed", "cluster_size=64K"),
        ("qed", "qed", "cluster_size=4096,table_size=2"),
    ] {
        let session = Session::new();
        let what = format!("{format}, {options}");
        let create = format!("create -q -f {driver} -o {options} image 9000448");
        qemu_img(&session, &qemu, &create);
        if options.ends_with("streamOptimized") {
            qemu_img(&session, &qemu, "create -q -f raw from 9000448");
            std::fs::rename(session.path("from"), session.path("image")).unwrap();
            fill(&session, &io, "raw");
            std::fs::rename(session.path("image"), session.path("from")).unwrap();
            let convert = format!("convert -f raw -O {driver} -o {options} from image");
            qemu_img(&session, &qemu, &convert);
        } else {
            fill(&session, &io, driver);
        }
        let ran = encrypt(&session, "image disk.img");
        ran.fails(1, &format!("--source-format {format} reads the disk in it"));
        is_read_as_qemu_reads_it(&session, &qemu, format, &what);
    }
}

#[test]
fn a_vmdk_of_several_files_and_a_parent_are_refused() {
    let Some(qemu) = peers::find("qemu-img") else {
        return;
    };
    let session = Session::new();
    for options in ["monolithicFlat", "twoGbMaxExtentSparse"] {
        qemu_img(
            &session,
            &qemu,
            &format!("create -q -f vmdk -o subformat={options} image 1M"),
        );
        let ran = encrypt(&session, "image disk.img --source-format vmdk");
        ran.fails(4, "not accepted as vmdk");
    }
    qemu_img(&session, &qemu, "create -q -f vmdk base 1M");
    qemu_img(&session, &qemu, "create -q -f vmdk -b base -F vmdk image");
    let ran = encrypt(&session, "image disk.img --source-format vmdk");
    ran.fails(4, "not accepted as vmdk");
    assert!(!session.exists("disk.img"));
}
