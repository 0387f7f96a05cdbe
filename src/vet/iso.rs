//! ISO 9660 discs (ECMA-119): the volume descriptors, and the bounds of the volume.

use luksmith_formats::image::iso::{Both, Descriptor, FIRST_DESCRIPTOR, Kind, SECTOR};

use super::finding::checks;
use super::report::Report;
use super::source::{Source, Stop};

checks! {
    PRIMARY: reject, "iso.primary",
        "there is not exactly one primary volume descriptor, or it is not the first descriptor";
    DESCRIPTOR: reject, "iso.descriptor", "a volume descriptor has an unknown type or version";
    TERMINATOR: reject, "iso.terminator", "the list of volume descriptors has no terminator";
    BOTH: reject, "iso.both-endian",
        "a number is stored in both byte orders, and the two values differ";
    BLOCK: reject, "iso.block-size",
        "the logical block size is not 2048 bytes, the only one that all programs read";
    SIZE: reject, "iso.size", "the volume is not within the image";
    ROOT: reject, "iso.root", "the root directory is not within the volume";
}

/// The most volume descriptors that are read. Real discs have up to five.
const MOST: u64 = 64;

pub(super) fn check(source: &mut Source<'_>, report: &mut Report) -> Result<(), Stop> {
    report.claims(source.size());
    let mut primaries = 0_u32;
    for number in 0..MOST {
        let at = FIRST_DESCRIPTOR + number * SECTOR;
        let Some(descriptor) = Descriptor::parse(&source.read(at, SECTOR)?) else {
            break;
        };
        let known = match descriptor.kind {
            Kind::Boot | Kind::Partition | Kind::Terminator => descriptor.version == 1,
            Kind::Primary => descriptor.version == 1,
            Kind::Supplementary => matches!(descriptor.version, 1 | 2),
            Kind::Unknown(_) => false,
        };
        report.require(known, &DESCRIPTOR, at, "type", || {
            format!("{}, version {}", name(descriptor.kind), descriptor.version)
        });
        match descriptor.kind {
            Kind::Terminator => {
                report.require(primaries == 1, &PRIMARY, at, "type", || {
                    format!("{primaries} primary descriptors")
                });
                return Ok(());
            }
            Kind::Primary | Kind::Supplementary => {
                primaries += u32::from(descriptor.kind == Kind::Primary);
                volume(source, report, at, &descriptor);
            }
            Kind::Boot | Kind::Partition | Kind::Unknown(_) => {}
        }
        // Programs read the first descriptor as the primary one.
        let first = number != 0 || descriptor.kind == Kind::Primary;
        report.require(first, &PRIMARY, at, "type", || {
            format!("{} is the first", name(descriptor.kind))
        });
    }
    report.add(&TERMINATOR, FIRST_DESCRIPTOR, "type", "no terminator");
    Ok(())
}

fn name(kind: Kind) -> String {
    match kind {
        Kind::Boot => "a boot record".to_owned(),
        Kind::Primary => "a primary descriptor".to_owned(),
        Kind::Supplementary => "a supplementary descriptor".to_owned(),
        Kind::Partition => "a partition descriptor".to_owned(),
        Kind::Terminator => "a terminator".to_owned(),
        Kind::Unknown(kind) => format!("type {kind}"),
    }
}

/// Checks the numbers in one descriptor.
fn volume(source: &Source<'_>, report: &mut Report, at: u64, descriptor: &Descriptor) {
    let mut agree = |offset: u64, field: &str, little: u64, big: u64| {
        report.require(little == big, &BOTH, at + offset, field, || {
            format!("{little} and {big}")
        });
    };
    let Both {
        little: blocks,
        big,
    } = descriptor.blocks;
    agree(80, "volume space size", blocks.into(), big.into());
    let block_size = descriptor.block_size;
    agree(
        128,
        "logical block size",
        block_size.little.into(),
        block_size.big.into(),
    );
    let (root, length) = (descriptor.root, descriptor.root_length);
    agree(158, "root directory", root.little.into(), root.big.into());
    agree(
        166,
        "root directory length",
        length.little.into(),
        length.big.into(),
    );
    report.require(
        u64::from(block_size.little) == SECTOR,
        &BLOCK,
        at + 128,
        "logical block size",
        || block_size.little.to_string(),
    );
    let size = u64::from(blocks) * SECTOR;
    report.claims(size);
    report.require(
        blocks > 16 && size <= source.size(),
        &SIZE,
        at + 80,
        "volume space size",
        || format!("{blocks} blocks; the image has {} bytes", source.size()),
    );
    let end = u64::from(root.little) * SECTOR + u64::from(length.little);
    report.require(
        root.little > 16 && length.little != 0 && end <= size,
        &ROOT,
        at + 158,
        "root directory",
        || format!("{} bytes at block {}", length.little, root.little),
    );
}
