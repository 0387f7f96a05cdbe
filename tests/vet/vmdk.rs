//! VMDK: sparse files with their descriptor, streams, and files that are only a descriptor.

use luksmith::backend::memory::MemoryBackend;
use luksmith::vet::Policy;

use crate::judge::{self, Case, le16, le32, le64, put, table};

const SECTOR: usize = 512;
/// In sectors.
const GRAIN: u64 = 8;
const CAPACITY: u64 = 8192;
const DIRECTORY: usize = 21 * SECTOR;
const REDUNDANT: usize = 22 * SECTOR;
const TABLES: usize = 23 * SECTOR;
const DATA: usize = 39 * SECTOR;

fn text(kind: &str, extents: &str) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=deadbeef\nparentCID=ffffffff\ncreateType=\"{kind}\"\n\n# Extent description\n{extents}\n\n\
         #DDB\nddb.virtualHWVersion = \"4\"\nddb.adapterType = \"ide\"\n"
    )
}

fn header(version: u32, flags: u32) -> Vec<u8> {
    let mut header = vec![0; SECTOR];
    put(&mut header, 0, b"KDMV");
    le32(&mut header, 4, version);
    le32(&mut header, 8, flags);
    for (at, value) in [
        (12, CAPACITY),
        (20, GRAIN),
        (28, 1),
        (36, 20),
        (48, 22),
        (56, 21),
        (64, 39),
    ] {
        le64(&mut header, at, value);
    }
    le32(&mut header, 44, 512);
    put(&mut header, 73, b"\n \r\n");
    header
}

/// Two grain tables of 512 grains of 4 KiB, their copies, and one grain.
pub(crate) fn sparse() -> Vec<u8> {
    let mut image = header(1, 3);
    image.resize(DATA + 8 * SECTOR, 0);
    describe(
        &mut image,
        &text("monolithicSparse", "RW 8192 SPARSE \"disk.vmdk\""),
    );
    for table in 0..2 {
        let sector = |start: usize| u32::try_from(start / SECTOR + 4 * table).unwrap();
        le32(&mut image, DIRECTORY + 4 * table, sector(TABLES));
        le32(
            &mut image,
            REDUNDANT + 4 * table,
            sector(TABLES + 8 * SECTOR),
        );
    }
    le32(&mut image, TABLES, 39);
    image
}

/// The same as a stream with its footer.
pub(crate) fn stream() -> Vec<u8> {
    let mut image = sparse();
    let flags = 1 | 1 << 16 | 1 << 17;
    let mut start = header(3, flags);
    le16(&mut start, 77, 1);
    let mut footer = start.clone();
    le64(&mut start, 56, u64::MAX);
    le64(&mut footer, 48, 0);
    put(&mut image, 0, &start);
    describe(
        &mut image,
        &text("streamOptimized", "RDONLY 8192 SPARSE \"disk.vmdk\""),
    );
    grain(&mut image, DATA, &[7; 8 * SECTOR]);
    let mut marker = vec![0; SECTOR];
    le32(&mut marker, 12, 3);
    image.extend_from_slice(&marker);
    image.extend_from_slice(&footer);
    image.extend_from_slice(&[0; SECTOR]);
    image
}

/// Writes a compressed grain with its marker.
pub(crate) fn grain(image: &mut [u8], at: usize, plain: &[u8]) {
    let data = miniz_oxide::deflate::compress_to_vec_zlib(plain, 6);
    le32(image, at + 8, u32::try_from(data.len()).unwrap());
    put(image, at + 12, &data);
}

fn describe(image: &mut [u8], text: &str) {
    image[SECTOR..DIRECTORY].fill(0);
    put(image, SECTOR, text.as_bytes());
}

/// Changes the text of an embedded descriptor.
pub(crate) fn edit(image: &mut [u8], from: &str, to: &str) {
    let whole = String::from_utf8_lossy(&image[SECTOR..DIRECTORY]).into_owned();
    let text = whole.trim_end_matches('\0');
    assert!(text.contains(from));
    let changed = text.replacen(from, to, 1);
    describe(image, &changed);
}

#[test]
fn headers() {
    let cases: &[Case] = &[
        ("an ESX image", "vmdk.kind", |i| put(i, 0, b"COWD")),
        ("a seSparse image", "vmdk.kind", |i| {
            put(i, 0, b"\xbe\xba\xfe\xca\0\0\0\0")
        }),
        ("version 4", "vmdk.header", |i| le32(i, 4, 4)),
        ("version 0", "vmdk.header", |i| le32(i, 4, 0)),
        ("unknown flags", "vmdk.flags", |i| le32(i, 8, 3 | 1 << 5)),
        ("compressed by its flag alone", "vmdk.flags", |i| {
            le32(i, 8, 3 | 1 << 16)
        }),
        ("compressed by its algorithm alone", "vmdk.flags", |i| {
            le16(i, 77, 1)
        }),
        ("no capacity", "vmdk.capacity", |i| le64(i, 12, 0)),
        ("the largest capacity", "vmdk.capacity", |i| {
            le64(i, 12, u64::MAX)
        }),
        ("another capacity", "vmdk.extents", |i| le64(i, 12, 8000)),
        ("no grains", "vmdk.header", |i| le64(i, 20, 0)),
        ("grains of 9 sectors", "vmdk.header", |i| le64(i, 20, 9)),
        ("grains over QEMU's limit", "vmdk.header", |i| {
            le64(i, 20, 0x40_0000)
        }),
        ("no table entries", "vmdk.header", |i| le32(i, 44, 0)),
        ("more than QEMU's table entries", "vmdk.header", |i| {
            le32(i, 44, 513)
        }),
        ("converted lines", "vmdk.header", |i| put(i, 73, b"\r\n \r")),
        ("an overhead over the image", "vmdk.header", |i| {
            le64(i, 64, 1 << 30)
        }),
        ("not closed", "policy.feature", |i| put(i, 72, &[1])),
        ("a footer that is not there", "vmdk.footer", |i| {
            le64(i, 56, u64::MAX)
        }),
        ("cut in the header", "vmdk.header", |i| i.truncate(500)),
        ("qcow2 at the end of a disc", "format.other", |i| {
            i.resize(40 << 10, 0);
            put(i, 32769, b"CD001");
        }),
    ];
    table("vmdk", &sparse(), cases);
}

#[test]
fn footers() {
    const FOOTER: usize = DATA + 9 * SECTOR;
    let cases: &[Case] = &[
        ("a smaller capacity in the header", "vmdk.footer", |i| {
            le64(i, 12, 4096);
            edit(i, "8192", "4096");
        }),
        ("a larger capacity in the footer", "vmdk.footer", |i| {
            le64(i, FOOTER + 12, 1 << 40)
        }),
        ("another descriptor in the footer", "vmdk.footer", |i| {
            le64(i, FOOTER + 28, 2)
        }),
        ("grains of no size in the footer", "vmdk.footer", |i| {
            le64(i, FOOTER + 20, 0)
        }),
        ("tables of no entries in the footer", "vmdk.footer", |i| {
            le32(i, FOOTER + 44, 0)
        }),
        ("the largest grains in the footer", "vmdk.footer", |i| {
            le64(i, FOOTER + 20, u64::MAX)
        }),
        ("other flags in the footer", "vmdk.footer", |i| {
            le32(i, FOOTER + 8, 1)
        }),
        ("no marker before it", "vmdk.footer", |i| {
            put(i, FOOTER - SECTOR + 12, &[0])
        }),
        ("no end behind it", "vmdk.footer", |i| {
            put(i, FOOTER + SECTOR + 12, &[1])
        }),
        ("a footer that says at the end", "vmdk.footer", |i| {
            le64(i, FOOTER + 56, u64::MAX)
        }),
        ("a directory out of the image", "vmdk.table", |i| {
            le64(i, FOOTER + 56, 1 << 40)
        }),
        ("no footer", "vmdk.footer", |i| i.truncate(FOOTER - SECTOR)),
        ("no footer and no need of one", "", |i| {
            le64(i, 56, 21);
            i.truncate(FOOTER - SECTOR);
        }),
        ("a header with a directory of its own", "", |i| {
            le64(i, 56, 21)
        }),
        ("a header with another directory", "vmdk.footer", |i| {
            le64(i, 56, 22)
        }),
        ("a plain type", "vmdk.create-type", |i| {
            edit(i, "streamOptimized", "monolithicSparse")
        }),
    ];
    table("vmdk", &stream(), cases);
    let mut image = stream();
    le64(&mut image, FOOTER + 12, 1 << 30);
    assert_eq!(judge::inspect(&image, "vmdk").virtual_size, Some(512 << 30));
}

#[test]
fn embedded_descriptors() {
    let cases: &[Case] = &[
        ("none", "vmdk.descriptor", |i| le64(i, 28, 0)),
        ("elsewhere", "vmdk.descriptor", |i| le64(i, 28, 2)),
        ("of no length", "vmdk.descriptor", |i| le64(i, 36, 0)),
        ("out of the image", "vmdk.descriptor", |i| le64(i, 36, 100)),
        ("of the largest length", "vmdk.descriptor", |i| {
            le64(i, 36, u64::MAX)
        }),
        ("empty", "vmdk.create-type", |i| describe(i, "")),
        ("no version", "vmdk.descriptor", |i| {
            edit(i, "version=1\n", "")
        }),
        ("bytes behind its end", "vmdk.descriptor", |i| {
            put(i, DIRECTORY - 50, b"parentFileNameHint=\"/etc\"")
        }),
        ("a line of nonsense", "vmdk.descriptor", |i| {
            edit(i, "#DDB", "nonsense")
        }),
        ("DOS lines", "", |i| edit(i, "version=1\n", "version=1\r\n")),
        ("an unknown field", "vmdk.unknown", |i| {
            edit(i, "#DDB", "future=\"x\"")
        }),
        ("a parent", "vmdk.parent", |i| {
            edit(i, "ffffffff", "12345678")
        }),
        ("a parent's file", "vmdk.parent", |i| {
            edit(i, "#DDB", "parentFileNameHint=\"/etc/passwd\"")
        }),
        ("a parent's file in other letters", "vmdk.parent", |i| {
            edit(i, "#DDB", "PARENTFILENAMEHINT=\"x\"")
        }),
        ("two parents' ids", "vmdk.parent", |i| {
            edit(i, "#DDB", "# parentCID=00000000")
        }),
        ("a parent's file in a comment", "vmdk.parent", |i| {
            edit(i, "#DDB", "# parentFileNameHint=\"/etc/passwd\"")
        }),
        ("a parent's file behind a prefix", "vmdk.parent", |i| {
            edit(i, "#DDB", "ddb.parentFileNameHint = \"/etc/passwd\"")
        }),
        ("a parent's file in a value", "vmdk.parent", |i| {
            edit(i, "#DDB", "ddb.note = \"parentFileNameHint=\"")
        }),
        (
            "a parent's file behind one sector of text",
            "vmdk.parent",
            |i| {
                edit(i, "#DDB", &format!("#{}", "x".repeat(2 * SECTOR)));
                edit(i, "x\n", "x\n# parentFileNameHint=\"/etc/passwd\"\n");
            },
        ),
        (
            "a text that fills the sector it claims",
            "vmdk.descriptor",
            |i| {
                le64(i, 36, 1);
                edit(i, "#DDB", &format!("#{}", "x".repeat(2 * SECTOR)));
            },
        ),
        (
            "a parent's file behind the sector it claims",
            "vmdk.descriptor",
            |i| {
                le64(i, 36, 1);
                let len = text("monolithicSparse", "RW 8192 SPARSE \"disk.vmdk\"").len();
                edit(i, "#DDB", &format!("#{}", "x".repeat(SECTOR - len + 3)));
                put(i, 2 * SECTOR, b"parentFileNameHint=\"/etc/passwd\"");
            },
        ),
        ("no content id", "vmdk.cid", |i| {
            edit(i, "CID=deadbeef\n", "")
        }),
        ("a content id in a comment", "vmdk.cid", |i| {
            edit(i, "version=1", "# CID=1\nversion=1")
        }),
        ("the parent's content id first", "vmdk.cid", |i| {
            edit(i, "CID=deadbeef\n", "");
            edit(
                i,
                "parentCID=ffffffff\n",
                "parentCID=ffffffff\nCID=deadbeef\n",
            );
        }),
        ("change tracking", "vmdk.change-tracking", |i| {
            edit(i, "#DDB", "changeTrackPath=\"x-ctk.vmdk\"")
        }),
        ("a name outside of ASCII", "vmdk.text", |i| {
            edit(i, "#DDB", "ddb.comment = \"M\u{fc}nchen\"")
        }),
        ("a vertical tab", "vmdk.descriptor", |i| {
            edit(i, "#DDB", "#\u{b}")
        }),
        ("a comment of C", "", |i| {
            edit(i, "#DDB", "/* OpenSource Tools version. */")
        }),
        ("a comment of C without an end", "vmdk.descriptor", |i| {
            edit(i, "#DDB", "/* OpenSource Tools version.")
        }),
        ("a sidecar", "vmdk.reference", |i| {
            edit(i, "#DDB", "ddb.sidecars = \"x.vmfd\"")
        }),
        ("no type", "vmdk.create-type", |i| {
            edit(i, "createType=\"monolithicSparse\"\n", "")
        }),
        ("two types", "vmdk.create-type", |i| {
            edit(i, "#DDB", "createType=\"monolithicFlat\"")
        }),
        ("a type in a comment", "vmdk.create-type", |i| {
            edit(i, "version=1", "# createType=\"monolithicFlat\"\nversion=1");
        }),
        ("a type in other letters", "vmdk.create-type", |i| {
            edit(i, "monolithicSparse", "MonolithicSparse")
        }),
        ("a type of files beside it", "vmdk.create-type", |i| {
            edit(i, "monolithicSparse", "monolithicFlat")
        }),
        ("a type of a stream", "vmdk.create-type", |i| {
            edit(i, "monolithicSparse", "streamOptimized")
        }),
        ("a type of a device", "vmdk.create-type", |i| {
            edit(i, "monolithicSparse", "fullDevice")
        }),
        ("no extent", "vmdk.extents", |i| {
            edit(i, "RW 8192 SPARSE \"disk.vmdk\"", "")
        }),
        ("two extents", "vmdk.extents", |i| {
            edit(i, "#DDB", "RW 8192 SPARSE \"other.vmdk\"")
        }),
        ("a flat extent", "vmdk.extents", |i| {
            edit(i, "SPARSE \"disk.vmdk\"", "FLAT \"disk.vmdk\" 0")
        }),
        ("an extent of another size", "vmdk.extents", |i| {
            edit(i, "RW 8192", "RW 8193")
        }),
        ("an extent by a path", "vmdk.extent-path", |i| {
            edit(i, "disk.vmdk", "/etc/passwd")
        }),
        ("an extent in the folder above", "vmdk.extent-path", |i| {
            edit(i, "disk.vmdk", "../x")
        }),
        (
            "an extent that is the folder above",
            "vmdk.extent-path",
            |i| edit(i, "disk.vmdk", ".."),
        ),
        (
            "an extent in a folder of Windows",
            "vmdk.extent-path",
            |i| edit(i, "disk.vmdk", "a\\b"),
        ),
        ("an extent by a protocol", "vmdk.extent-path", |i| {
            edit(i, "disk.vmdk", "nbd:host:1")
        }),
        ("an extent of JSON", "vmdk.extent-path", |i| {
            edit(i, "disk.vmdk", "json:{}")
        }),
        ("an extent without a name", "vmdk.extent-path", |i| {
            edit(i, "disk.vmdk", "")
        }),
    ];
    table("vmdk", &sparse(), cases);
}

#[test]
fn grains() {
    let cases: &[Case] = &[
        ("a directory out of the image", "vmdk.table", |i| {
            le64(i, 56, 1 << 30)
        }),
        ("a directory at the end of numbers", "vmdk.table", |i| {
            le64(i, 56, u64::MAX - 1)
        }),
        ("no directory", "vmdk.table", |i| le64(i, 56, 0)),
        (
            "a redundant directory out of the image",
            "vmdk.table",
            |i| le64(i, 48, 1 << 30),
        ),
        ("a table out of the image", "vmdk.table", |i| {
            le32(i, DIRECTORY, 1 << 30)
        }),
        ("a redundant table out of the image", "vmdk.table", |i| {
            le32(i, REDUNDANT, 1 << 30)
        }),
        ("a table that is not there", "", |i| {
            le32(i, DIRECTORY + 4, 0)
        }),
        ("a directory on the descriptor", "vmdk.overlap", |i| {
            le64(i, 56, 2)
        }),
        ("a table on the directory", "vmdk.overlap", |i| {
            le32(i, DIRECTORY, 21)
        }),
        ("a table twice", "vmdk.overlap", |i| {
            le32(i, DIRECTORY + 4, 23)
        }),
        ("a grain out of the image", "vmdk.grains", |i| {
            le32(i, TABLES, 1 << 30)
        }),
        ("a grain on the header's sectors", "vmdk.grains", |i| {
            le32(i, TABLES, 1)
        }),
        ("a grain of zeroes", "", |i| {
            le32(i, 8, 7);
            le32(i, TABLES, 1);
        }),
        ("a grain on a table", "vmdk.grains", |i| le32(i, TABLES, 23)),
        ("the last grain, cut", "", |i| i.truncate(DATA + 100)),
        ("a grain twice", "vmdk.shared", |i| le32(i, TABLES + 4, 39)),
        ("a grain on a part of another", "vmdk.shared", |i| {
            i.resize(DATA + 15 * SECTOR, 0);
            le32(i, TABLES + 2048, 46);
        }),
        ("a grain behind another", "", |i| {
            i.resize(DATA + 16 * SECTOR, 0);
            le32(i, TABLES + 2048, 47);
        }),
    ];
    table("vmdk", &sparse(), cases);
    let compressed: &[Case] = &[
        ("a compressed grain twice", "vmdk.shared", |i| {
            le32(i, TABLES + 4, 39)
        }),
        ("a short compressed grain", "", |i| {
            grain(i, DATA + SECTOR, &[7; 8 * SECTOR]);
            le32(i, TABLES + 4, 40);
        }),
        ("a grain that is not compressed", "vmdk.inflate", |i| {
            le32(i, TABLES + 4, 40)
        }),
        ("a compressed grain that is cut", "vmdk.inflate", |i| {
            i[DATA + 8] -= 1
        }),
        ("a compressed grain over two grains", "vmdk.inflate", |i| {
            le32(i, DATA + 8, 8193)
        }),
        ("a grain with a wrong checksum", "vmdk.inflate", |i| {
            let end = DATA + 12 + usize::from(i[DATA + 8]);
            i[end - 1] ^= 1;
        }),
        ("grains without markers", "", |i| {
            let data = miniz_oxide::deflate::compress_to_vec_zlib(&[7; 8 * SECTOR], 6);
            put(i, DATA, &data);
            for at in [8, DATA + 9 * SECTOR + 8] {
                le32(i, at, 1 | 1 << 16);
            }
        }),
    ];
    table("vmdk", &stream(), compressed);
}

/// Inspects a file that is only a descriptor, with a policy that allows extents in other files.
fn alone(kind: &str, extents: &str) -> luksmith::vet::Report {
    let storage = MemoryBackend::from_bytes(text(kind, extents).into_bytes());
    let policy = Policy::parse("features = ['extent-files']").unwrap();
    judge::inspect_on(&storage, "vmdk", &policy)
}

#[test]
fn descriptors_alone() {
    const FLAT: &str = "RW 8192 FLAT \"disk-flat.vmdk\" 0";
    for (kind, extents, id) in [
        ("monolithicFlat", FLAT, "vmdk.extent-file"),
        (
            "twoGbMaxExtentFlat",
            "RW 10 FLAT \"a\" 0\nRW 10 FLAT \"b\" 7",
            "vmdk.extent-file",
        ),
        ("vmfs", "RW 8192 VMFS \"a\"", "vmdk.extent-file"),
        // QEMU skips extents that it cannot write, and those of type ZERO.
        (
            "twoGbMaxExtentFlat",
            "RW 10 FLAT \"a\" 0\nRW 63 ZERO",
            "vmdk.extents",
        ),
        (
            "twoGbMaxExtentFlat",
            "RDONLY 10 FLAT \"a\" 0\nRW 10 FLAT \"b\" 0",
            "vmdk.extents",
        ),
        ("monolithicFlat", "RDONLY 8192 FLAT \"a\" 0", "vmdk.extents"),
        // QEMU's white space includes line ends.
        ("monolithicFlat", "\nRW 8192 FLAT \"a\" 0", "vmdk.extents"),
        (
            "twoGbMaxExtentFlat",
            "RW\n8192\nFLAT\n\"a\" 0",
            "vmdk.descriptor",
        ),
        (
            "twoGbMaxExtentFlat",
            "RW 8192 FLAT \"a\" 0 0",
            "vmdk.descriptor",
        ),
        (
            "monolithicFlat",
            "RW 8192 FLAT \"\u{e4}\" 0",
            "vmdk.extent-path",
        ),
        ("vmfs", "RW 8192 VMFS \"a\" 0", "vmdk.extents"),
        ("vmfs", "RW 8192 FLAT \"a\" 0", "vmdk.extents"),
        (
            "twoGbMaxExtentSparse",
            "RW 10 SPARSE \"a\"\nRW 10 SPARSE \"b\"",
            "vmdk.extent-file",
        ),
        (
            "monolithicFlat",
            "RW 1 FLAT \"a\" 0\nRW 1 FLAT \"b\" 0",
            "vmdk.extents",
        ),
        ("monolithicFlat", "", "vmdk.extents"),
        ("monolithicFlat", "RW 0 FLAT \"a\" 0", "vmdk.extents"),
        ("monolithicFlat", "RW 8192 FLAT \"a\"", "vmdk.extents"),
        ("monolithicFlat", "RW 8192 SPARSE \"a\"", "vmdk.extents"),
        (
            "twoGbMaxExtentSparse",
            "RW 8192 FLAT \"a\" 0",
            "vmdk.extents",
        ),
        (
            "twoGbMaxExtentFlat",
            "RW 18446744073709551615 FLAT \"a\" 0",
            "vmdk.extents",
        ),
        (
            "twoGbMaxExtentFlat",
            "RW -1 FLAT \"a\" 0",
            "vmdk.descriptor",
        ),
        ("twoGbMaxExtentFlat", "RW 1 FLAT a 0", "vmdk.descriptor"),
        (
            "monolithicFlat",
            "RW 8192 FLAT \"/etc/shadow\" 0",
            "vmdk.extent-path",
        ),
        (
            "monolithicFlat",
            "RW 8192 FLAT \"../../x\" 0",
            "vmdk.extent-path",
        ),
        (
            "monolithicFlat",
            "RW 8192 FLAT \"http://host/x\" 0",
            "vmdk.extent-path",
        ),
        (
            "monolithicSparse",
            "RW 8192 SPARSE \"a\"",
            "vmdk.create-type",
        ),
        ("fullDevice", "RW 8192 FLAT \"a\" 0", "vmdk.create-type"),
    ] {
        judge::one(extents, &alone(kind, extents), id);
    }
    let report = alone("monolithicFlat", FLAT);
    assert_eq!(report.references, ["\"disk-flat.vmdk\""]);
    assert_eq!(report.virtual_size, Some(CAPACITY * 512));

    let strict = judge::inspect(text("monolithicFlat", FLAT).as_bytes(), "vmdk");
    judge::one("by the default policy", &strict, "policy.feature");
    let mut long = text("monolithicFlat", FLAT);
    long.push_str(&"#\n".repeat(1 << 19));
    judge::one(
        "too long",
        &judge::inspect(long.as_bytes(), "vmdk"),
        "vmdk.descriptor",
    );
    // QEMU needs minutes for these.
    for lines in ["\n".repeat(100 << 10), "#\n".repeat(400 << 10)] {
        let slow = text("monolithicFlat", &format!("{lines}{FLAT}"));
        judge::one(
            "many lines",
            &judge::inspect(slow.as_bytes(), "vmdk"),
            "vmdk.descriptor",
        );
    }
}
