//! Faults of the images that a domain names. Their headers are read; the files that they name are
//! not opened.

use luksmith::audit::{self, Image, Inventory, Policy, Seen, Wanted};
use luksmith::backend::memory::MemoryBackend;

use crate::judge::{complaint, good, ids, none, within_bounds};

const OVERLAY: &str = "/var/lib/libvirt/images/vm1.qcow2";
const BASE: &str = "/var/lib/libvirt/images/base.img";

/// The header of a qcow2 image with a disk of 1 GiB, and with the name of its backing file.
fn qcow2(backing: &str) -> Vec<u8> {
    let mut image = vec![0; 65536];
    image[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    if !backing.is_empty() {
        image[8..16].copy_from_slice(&512_u64.to_be_bytes());
        image[16..20].copy_from_slice(&u32::try_from(backing.len()).unwrap().to_be_bytes());
        image[512..512 + backing.len()].copy_from_slice(backing.as_bytes());
    }
    image[20..24].copy_from_slice(&16_u32.to_be_bytes());
    image[24..32].copy_from_slice(&(1_u64 << 30).to_be_bytes());
    image[96..100].copy_from_slice(&4_u32.to_be_bytes());
    image[100..104].copy_from_slice(&104_u32.to_be_bytes());
    image
}

fn luks() -> Vec<u8> {
    let mut image = vec![0; 4096];
    image[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
    image
}

fn vmdk(extent: &str) -> Vec<u8> {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=11111111\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 2048 FLAT \"{extent}\" 0\n"
    )
    .into_bytes()
}

/// The good host, and the bytes of one image.
fn with(path: &str, format: &str, bytes: Vec<u8>) -> Inventory {
    let mut inventory = good();
    add(&mut inventory, path, format, bytes);
    inventory
}

fn add(inventory: &mut Inventory, path: &str, format: &str, bytes: Vec<u8>) {
    let wanted = Wanted::new(path, format);
    assert!(audit::images(inventory).contains(&wanted), "{wanted:?}");
    let storage = MemoryBackend::from_bytes(bytes).into_read_only();
    let seen = Seen::Bytes(audit::look(&storage, format).unwrap());
    let image = Image::new(seen);
    inventory.images.insert(wanted, image);
}

#[test]
fn only_images_that_the_xml_names_are_requested() {
    let wanted: Vec<_> = audit::images(&good())
        .into_iter()
        .map(|one| (one.path, one.format))
        .collect();
    let expected = [
        ("/dev/vg/vm1", "raw"),
        (BASE, "raw"),
        ("/var/lib/libvirt/images/install.iso", "raw"),
        (OVERLAY, "qcow2"),
    ]
    .map(|(path, format)| (path.to_owned(), format.to_owned()));
    assert_eq!(wanted, expected);
}

#[test]
fn a_chain_has_to_be_declared_in_the_xml() {
    let mut wrong = Vec::new();
    for backing in [BASE, "base.img", ""] {
        let inventory = with(OVERLAY, "qcow2", qcow2(backing));
        wrong.push(complaint(backing, &inventory, &[]));
    }
    let other = [
        "/etc/shadow",
        "./base.img",
        "../base.img",
        "nbd://10.0.0.9/x",
        "json:{\"driver\":\"file\",\"filename\":\"/etc/shadow\"}",
        "base.img\n",
    ];
    for backing in other {
        let inventory = with(OVERLAY, "qcow2", qcow2(backing));
        wrong.push(complaint(backing, &inventory, &["chain.undeclared"]));
    }
    none(wrong);
}

#[test]
fn data_files_and_extents_have_to_be_declared() {
    let mut data = qcow2(BASE);
    data[72..80].copy_from_slice(&4_u64.to_be_bytes());
    // The name of the data file, in a header extension (0x44415441).
    data[104..112].copy_from_slice(b"DATA\0\0\0\x08");
    data[112..120].copy_from_slice(b"data.raw");
    let mut declared = with(OVERLAY, "qcow2", data.clone());
    let text = String::from_utf8(declared.documents[0].text.clone()).unwrap();
    let to = format!(
        "<source file='{OVERLAY}'><dataStore type='file'><format type='raw'/>
         <source file='/var/lib/libvirt/images/data.raw'/></dataStore></source>"
    );
    let text = text.replace(&format!("<source file='{OVERLAY}'/>"), &to);
    none(vec![complaint(
        "undeclared",
        &with(OVERLAY, "qcow2", data),
        &["chain.undeclared"],
    )]);
    declared.documents[0].text = text.into_bytes();
    none(vec![complaint("declared", &declared, &[])]);

    // The same in the largest first cluster.
    let mut large = qcow2("");
    large.resize(5 << 20, 0);
    large[20..24].copy_from_slice(&21_u32.to_be_bytes());
    large[72..80].copy_from_slice(&4_u64.to_be_bytes());
    large[104..112].copy_from_slice(b"DATA\0\0\0\x08");
    large[112..120].copy_from_slice(b"data.raw");
    let inventory = with(OVERLAY, "qcow2", large);
    none(vec![complaint("large", &inventory, &["chain.undeclared"])]);

    let mut inventory = good();
    let text = String::from_utf8(inventory.documents[0].text.clone()).unwrap();
    let text = text.replace(
        "<source dev='/dev/vg/vm1'>",
        "<source dev='/dev/vg/vm1'/><source>",
    );
    let text = text.replace("type='raw' cache='none' discard='unmap'", "type='vmdk'");
    inventory.documents[0].text = text.into_bytes();
    add(
        &mut inventory,
        "/dev/vg/vm1",
        "vmdk",
        vmdk("disk-flat.vmdk"),
    );
    none(vec![complaint("extent", &inventory, &["chain.undeclared"])]);
}

#[test]
fn a_raw_disk_with_the_signature_of_an_image_is_found() {
    let mut disc = vec![0; 40960];
    disc[32769..32774].copy_from_slice(b"CD001");
    let mut partitioned = vec![0; 4096];
    partitioned[510..512].copy_from_slice(&[0x55, 0xaa]);
    let mut vdi = vec![0; 4096];
    vdi[64..68].copy_from_slice(b"\x7f\x10\xda\xbe");
    let other = &["probing.other-format"][..];
    none(vec![
        complaint("qcow2", &with(BASE, "raw", qcow2("")), other),
        complaint("vdi", &with(BASE, "raw", vdi), other),
        complaint("vmdk", &with(BASE, "raw", vmdk("x")), other),
        complaint("nothing", &with(BASE, "raw", vec![0; 4096]), &[]),
        complaint("partitions", &with(BASE, "raw", partitioned), &[]),
        complaint(
            "disc",
            &with("/var/lib/libvirt/images/install.iso", "raw", disc),
            &[],
        ),
        complaint(
            "not qcow2",
            &with(OVERLAY, "qcow2", luks()),
            &["probing.not-format"],
        ),
    ]);
}

#[test]
fn a_luks_image_that_is_attached_as_raw_is_found() {
    let raw = with(BASE, "raw", luks());
    none(vec![
        // This disk has <encryption>.
        complaint("encrypted", &with("/dev/vg/vm1", "raw", luks()), &[]),
        complaint("as raw", &raw, &["storage.luks-as-raw"]),
    ]);
    let mut own = with("/dev/vg/vm1", "raw", luks());
    let text = String::from_utf8(own.documents[0].text.clone()).unwrap();
    let (before, rest) = text.split_once("<encryption").unwrap();
    let (_, after) = rest.split_once("</encryption>").unwrap();
    own.documents[0].text = format!("{before}{after}").into_bytes();
    none(vec![complaint("bare", &own, &["storage.luks-as-raw"])]);
    let policy = Policy::parse("guest-encrypted = ['vm1:vda']").unwrap();
    assert_eq!(ids(&within_bounds(&own, &policy)), [""; 0]);
}

#[test]
fn the_size_of_the_disk_counts_and_not_that_of_the_file() {
    let inventory = with(OVERLAY, "qcow2", qcow2(BASE));
    let limit = |size: u64| {
        let mut policy = Policy::default();
        policy.max_size = size;
        ids(&within_bounds(&inventory, &policy))
    };
    // The volume has 10 GiB, and is checked by another rule.
    assert_eq!(limit(10 << 30), [""; 0]);
    let mut large = qcow2(BASE);
    large[24..32].copy_from_slice(&(20_u64 << 40).to_be_bytes());
    let large = with(OVERLAY, "qcow2", large);
    none(vec![complaint("20 TiB", &large, &["size.limit"])]);
}

#[test]
fn an_image_that_was_not_opened_is_a_finding() {
    let mut inventory = good();
    let wanted = audit::images(&inventory).into_iter().next().unwrap();
    inventory.images.insert(
        wanted,
        Image::new(Seen::Not("permission denied".to_owned())),
    );
    none(vec![complaint(
        "closed",
        &inventory,
        &["chain.not-looked-at"],
    )]);
}
