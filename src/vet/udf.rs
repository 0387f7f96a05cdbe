//! UDF volumes (ECMA-167; OSTA UDF 2.60) without ISO 9660: the recognition sequence, the anchors,
//! and both sequences of volume descriptors. A disc that has ISO 9660 too is inspected as that.

use luksmith_formats::image::udf::{
    ANCHOR, BLOCK_SIZES, Content, DESCRIPTOR_LENGTH, Extent, FIRST_STRUCTURE, STRUCTURE, Structure,
};

use super::finding::checks;
use super::report::Report;
use super::source::{Source, Stop};

checks! {
    RECOGNITION: reject, "udf.recognition",
        "the recognition sequence is not BEA01, one of NSR02 and NSR03, and TEA01";
    ANCHORS: reject, "udf.anchor",
        "there is no anchor, or two of them differ: programs would read different volumes";
    DESCRIPTOR: reject, "udf.descriptor", "a volume descriptor is not valid, or is missing";
    COPIES: reject, "udf.copies", "the main and the reserve volume descriptors differ";
    BLOCK: reject, "udf.block-size", "the blocks of the volume are not those of the anchor";
    SIZE: reject, "udf.size", "a partition or a sequence of descriptors is not within the image";
}

/// The most descriptors of a sequence that are read. Real volumes have six.
const MOST: u64 = 64;

pub(super) fn check(source: &mut Source<'_>, report: &mut Report) -> Result<(), Stop> {
    report.claims(source.size());
    let Some((block_size, main, reserve)) = anchor(source, report)? else {
        return Ok(());
    };
    recognition(source, report, block_size)?;
    let main = sequence(source, report, block_size, main)?;
    let reserve = sequence(source, report, block_size, reserve)?;
    report.require(main == reserve, &COPIES, 0, "volume descriptors", || {
        "the sequences differ".to_owned()
    });
    Ok(())
}

/// Finds the anchor and the block size. Programs look for an anchor in these blocks, with blocks of
/// any size.
fn anchor(
    source: &mut Source<'_>,
    report: &mut Report,
) -> Result<Option<(u64, Extent, Extent)>, Stop> {
    let mut found = None;
    for block_size in BLOCK_SIZES {
        let blocks = source.size() / block_size;
        for block in [
            ANCHOR,
            2 * ANCHOR,
            blocks.saturating_sub(1 + ANCHOR),
            blocks.saturating_sub(1),
        ] {
            let at = block * block_size;
            let bytes = source.read(at, DESCRIPTOR_LENGTH)?;
            let Some(Content::Anchor(main, reserve)) = Content::parse(&bytes, block) else {
                continue;
            };
            let anchor = (block_size, main, reserve);
            let same = *found.get_or_insert(anchor) == anchor;
            report.require(same, &ANCHORS, at, "anchor", || "differs".to_owned());
        }
    }
    report.require(found.is_some(), &ANCHORS, 0, "anchor", || {
        "there is none".to_owned()
    });
    Ok(found)
}

fn recognition(source: &mut Source<'_>, report: &mut Report, block_size: u64) -> Result<(), Stop> {
    let step = STRUCTURE.max(block_size);
    let mut volumes = 0;
    for number in 0..MOST {
        let at = FIRST_STRUCTURE + number * step;
        let structure = Structure::parse(&source.read(at, 7)?);
        let fits = match structure {
            Some(Structure::Begin) => number == 0,
            Some(Structure::Boot) => number != 0,
            Some(Structure::Volume(_)) => {
                volumes += 1;
                number != 0 && volumes == 1
            }
            Some(Structure::End) => {
                let next = Structure::parse(&source.read(at + step, 7)?);
                let last = volumes == 1 && next.is_none();
                report.require(last, &RECOGNITION, at, "TEA01", || match next {
                    None => "there is no NSR02 or NSR03".to_owned(),
                    Some(_) => "the sequence goes on".to_owned(),
                });
                return Ok(());
            }
            Some(Structure::Other) | None => false,
        };
        if !report.require(fits, &RECOGNITION, at, "identifier", || {
            structure.map_or("unknown".to_owned(), |structure| structure.to_string())
        }) {
            return Ok(());
        }
    }
    report.add(&RECOGNITION, FIRST_STRUCTURE, "identifier", "no TEA01");
    Ok(())
}

/// Checks a sequence of volume descriptors. Returns their contents without their tags, sorted,
/// since their order has no meaning.
fn sequence(
    source: &mut Source<'_>,
    report: &mut Report,
    block_size: u64,
    extent: Extent,
) -> Result<Vec<Vec<u8>>, Stop> {
    let mut contents = Vec::new();
    let (mut primary, mut partition, mut volume) = (false, false, false);
    let first = u64::from(extent.block);
    if !within(source, report, block_size, extent, "volume descriptors") {
        return Ok(contents);
    }
    for block in (first..).take(length(u64::from(extent.length) / block_size)) {
        let at = block * block_size;
        let bytes = source.read(at, DESCRIPTOR_LENGTH)?;
        let content = Content::parse(&bytes, block);
        match content {
            Some(Content::Primary) => primary = true,
            Some(Content::Implementation | Content::Unallocated) => {}
            Some(Content::Partition { start, blocks }) => {
                partition = true;
                let end = (u64::from(start) + u64::from(blocks)) * block_size;
                report.require(
                    blocks != 0 && end <= source.size(),
                    &SIZE,
                    at + 188,
                    "partition",
                    || format!("{blocks} blocks from {start} on"),
                );
            }
            Some(Content::Volume {
                block_size: own,
                integrity,
            }) => {
                volume = true;
                report.require(
                    u64::from(own) == block_size,
                    &BLOCK,
                    at + 212,
                    "logical block size",
                    || format!("{own}; the anchor is one of blocks of {block_size} bytes"),
                );
                within(source, report, block_size, integrity, "integrity sequence");
            }
            Some(Content::Terminator) => {
                let complete = primary && partition && volume;
                report.require(complete, &DESCRIPTOR, at, "terminator", || {
                    "the descriptor of the volume set, of a partition or of the volume is missing"
                        .to_owned()
                });
                contents.sort_unstable();
                return Ok(contents);
            }
            Some(Content::Anchor(..) | Content::Pointer | Content::Unknown(_)) | None => {
                report.add(
                    &DESCRIPTOR,
                    at,
                    "tag",
                    match content {
                        Some(Content::Pointer) => "the sequence goes on elsewhere".to_owned(),
                        Some(_) => "unknown descriptor".to_owned(),
                        None => "not valid".to_owned(),
                    },
                );
                return Ok(contents);
            }
        }
        contents.push(bytes[16..].to_vec());
    }
    report.add(&DESCRIPTOR, first * block_size, "tag", "no terminator");
    Ok(contents)
}

fn within(
    source: &Source<'_>,
    report: &mut Report,
    block_size: u64,
    extent: Extent,
    field: &str,
) -> bool {
    let Extent { length, block } = extent;
    let holds = source.holds(u64::from(block) * block_size, length.into());
    report.require(holds, &SIZE, u64::from(block) * block_size, field, || {
        format!("{length} bytes; the image has {} bytes", source.size())
    })
}

fn length(blocks: u64) -> usize {
    usize::try_from(blocks.min(MOST)).unwrap_or(0)
}
