//! VDI.

use crate::judge::{Case, le32, le64, put, table};

const MIB: usize = 1 << 20;
const MAP: usize = 512;

/// Three blocks, two of them in the image, in reverse order.
pub(crate) fn good() -> Vec<u8> {
    let mut image = vec![0; 1024 + 2 * MIB];
    put(&mut image, 0, b"<<< a disk >>>\n");
    for (at, value) in [
        (64, 0xbeda_107f),
        (68, 0x0001_0001),
        (72, 0x190),
        (76, 1),
        (340, 512),
        (344, 1024),
        (360, 512),
        (376, 1 << 20),
        (384, 3),
        (388, 2),
        (MAP, 1),
        (MAP + 4, u32::MAX),
        (MAP + 8, 0),
    ] {
        le32(&mut image, at, value);
    }
    le64(&mut image, 368, 3 << 20);
    put(&mut image, 392, &[0xaa; 32]);
    image
}

#[test]
fn images() {
    let cases: &[Case] = &[
        ("no signature", "format.not", |i| le32(i, 64, 0)),
        ("version 1.0", "vdi.version", |i| le32(i, 68, 0x0001_0000)),
        ("version 2", "vdi.version", |i| le32(i, 68, 2 << 16)),
        ("static", "", |i| le32(i, 76, 2)),
        ("an undo image", "vdi.type", |i| le32(i, 76, 3)),
        ("a differencing image", "vdi.type", |i| le32(i, 76, 4)),
        ("no type", "vdi.type", |i| le32(i, 76, 0)),
        ("a parent's id", "vdi.parent", |i| put(i, 440, &[1])),
        ("a link's id", "vdi.parent", |i| put(i, 439, &[1])),
        ("sectors of 4096 bytes", "vdi.header", |i| {
            le32(i, 360, 4096)
        }),
        ("blocks of 2 MiB", "vdi.header", |i| le32(i, 376, 2 << 20)),
        ("no blocks' size", "vdi.header", |i| le32(i, 376, 0)),
        ("bytes before each block", "vdi.header", |i| {
            le32(i, 380, 512)
        }),
        ("a header of 100 bytes", "vdi.header", |i| le32(i, 72, 100)),
        ("too many blocks", "vdi.header", |i| {
            le32(i, 384, 0x4000_0000)
        }),
        ("more allocated than there are", "vdi.header", |i| {
            le32(i, 388, 4)
        }),
        ("cut in the header", "vdi.header", |i| i.truncate(400)),
        ("a disk over its blocks", "vdi.size", |i| {
            le64(i, 368, (3 << 20) + 1)
        }),
        ("the largest disk", "vdi.size", |i| le64(i, 368, u64::MAX)),
        ("a smaller disk", "", |i| le64(i, 368, 512)),
        ("a map that is not aligned", "vdi.map", |i| {
            le32(i, 340, 513)
        }),
        ("a map on the header", "vdi.map", |i| le32(i, 340, 0)),
        ("a map out of the image", "vdi.map", |i| {
            le32(i, 340, 3 << 20);
            le32(i, 344, (3 << 20) + 512);
        }),
        ("a map longer than the image", "vdi.map", |i| {
            le32(i, 384, 0x3fff_ffff)
        }),
        ("data on the map", "vdi.map", |i| le32(i, 344, 512)),
        ("a block that is not allocated", "vdi.blocks", |i| {
            le32(i, MAP, 2)
        }),
        ("a block of zeroes", "", |i| le32(i, MAP, u32::MAX - 1)),
        ("a block out of the image", "vdi.blocks", |i| {
            i.truncate(2 * MIB)
        }),
        ("a block twice", "vdi.overlap", |i| le32(i, MAP, 0)),
    ];
    table("vdi", &good(), cases);
}
