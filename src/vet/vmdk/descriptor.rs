//! The descriptor: lines of text, read as strictly as the most trusting reader is careless. QEMU looks for `createType="` anywhere in
//! the text, comments included, so that it must be there once.

use luksmith_formats::image::vmdk::{Extent, Header, Line, line};

use super::{
    CREATE_TYPE, DESCRIPTOR, EXTENT_FILE, EXTENTS, LONGEST_DESCRIPTOR, PARENT, PATH, REFERENCE,
    Report, SECTOR, Source, Stop, UNKNOWN,
};
use crate::vet::finding::escaped;
use crate::vet::policy::Feature;

/// Fields that say nothing of other files.
const HARMLESS: &[&str] = &[
    "version",
    "encoding",
    "cid",
    "parentcid",
    "isnativesnapshot",
    "createtype",
];
/// Fields that name other files.
const REFERENCES: &[&str] = &[
    "changetrackpath",
    "digestfilename",
    "digesttype",
    "ddb.sidecars",
    "ddb.iofilters",
    "ddb.nativeparentcid",
    "ddb.nativeparenthint",
];
/// The most extents; 2 GiB each make 2 PiB.
const MOST_EXTENTS: usize = 1 << 20;

/// What the lines say.
struct Said<'a> {
    create_type: Option<&'a [u8]>,
    extents: Vec<(u64, Extent<'a>)>,
}

/// In a sparse extent: it describes that file, and no other.
pub(super) fn embedded(
    source: &mut Source<'_>,
    report: &mut Report,
    header: &Header,
) -> Result<(), Stop> {
    let len = header.descriptor_size.saturating_mul(SECTOR);
    // QEMU reads it there, whatever the header says.
    let placed = header.descriptor_offset == 1
        && (1..=LONGEST_DESCRIPTOR).contains(&len)
        && source.holds(SECTOR, len);
    if !report.require(placed, &DESCRIPTOR, 28, "descriptorOffset", || {
        format!("{len} bytes at sector {}", header.descriptor_offset)
    }) {
        return Ok(());
    }
    let bytes = source.read(SECTOR, len)?;
    let said = read(report, SECTOR, &bytes);
    let expected: &[u8] = if header.compression == 0 {
        b"monolithicSparse"
    } else {
        b"streamOptimized"
    };
    create_type(report, SECTOR, &said, |kind| kind == expected);
    let [(at, extent)] = &said.extents[..] else {
        report.add(
            &EXTENTS,
            SECTOR,
            "extents",
            format!("{} of them, not 1", said.extents.len()),
        );
        return Ok(());
    };
    let whole =
        extent.kind == b"SPARSE" && extent.offset.is_none() && extent.sectors == header.capacity;
    report.require(whole, &EXTENTS, *at, "extent", || {
        let kind = escaped(extent.kind);
        format!(
            "{} sectors of kind {kind}; the header says {}",
            extent.sectors, header.capacity
        )
    });
    file_name(report, *at, extent);
    Ok(())
}

/// A descriptor that is the whole file: the data is in others.
pub(super) fn alone(source: &mut Source<'_>, report: &mut Report) -> Result<(), Stop> {
    let size = source.size();
    if !report.require(
        size <= LONGEST_DESCRIPTOR,
        &DESCRIPTOR,
        0,
        "descriptor",
        || format!("{size} bytes"),
    ) {
        return Ok(());
    }
    let mut bytes = Vec::new();
    for (at, len) in crate::vet::source::pieces(0, size) {
        bytes.extend_from_slice(&source.read(at, len)?);
    }
    let said = read(report, 0, &bytes);
    let mut total = 0_u64;
    for (at, extent) in &said.extents {
        let good = match (said.create_type, extent.kind) {
            (_, b"ZERO") => extent.name.is_none(),
            (Some(b"monolithicFlat" | b"twoGbMaxExtentFlat"), b"FLAT") => extent.offset.is_some(),
            (Some(b"twoGbMaxExtentSparse"), b"SPARSE") => extent.offset.is_none(),
            _ => false,
        };
        let good = good && extent.sectors != 0;
        report.require(good, &EXTENTS, *at, "extent", || {
            format!(
                "{} sectors of kind {}",
                extent.sectors,
                escaped(extent.kind)
            )
        });
        total = total.saturating_add(extent.sectors);
        if extent.name.is_some() {
            report.uses(Feature::ExtentFiles);
            let name = file_name(report, *at, extent);
            report.add(&EXTENT_FILE, *at, "extent", name.clone());
            report.refers(name);
        }
    }
    report.claims(total.saturating_mul(SECTOR));
    create_type(report, 0, &said, |kind| {
        matches!(
            kind,
            b"monolithicFlat" | b"twoGbMaxExtentFlat" | b"twoGbMaxExtentSparse"
        )
    });
    let one = said.create_type != Some(b"monolithicFlat") || said.extents.len() == 1;
    let some = !said.extents.is_empty() && total <= u64::MAX / SECTOR;
    report.require(some && one, &EXTENTS, 0, "extents", || {
        format!("{} of them with {total} sectors", said.extents.len())
    });
    Ok(())
}

fn create_type(report: &mut Report, at: u64, said: &Said<'_>, good: impl Fn(&[u8]) -> bool) {
    report.require(
        said.create_type.is_some_and(good),
        &CREATE_TYPE,
        at,
        "createType",
        || said.create_type.map_or("none".into(), escaped),
    );
}

/// The name of an extent's file, escaped: a plain name in the folder of the image.
fn file_name(report: &mut Report, at: u64, extent: &Extent<'_>) -> String {
    let name = extent.name.unwrap_or_default();
    let plain = !name.is_empty()
        && name.len() <= 255
        && name != b"."
        && name != b".."
        && name
            .iter()
            .all(|byte| !matches!(byte, b'/' | b'\\' | b':' | 0..=31 | 127));
    let shown = escaped(name);
    if !report.require(plain, &PATH, at, "extent", || shown.clone()) {
        report.refers(shown.clone());
    }
    shown
}

fn read<'a>(report: &mut Report, start: u64, bytes: &'a [u8]) -> Said<'a> {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    let (text, rest) = bytes.split_at(end);
    let hidden = rest
        .iter()
        .position(|byte| !matches!(byte, 0 | b' ' | b'\n'));
    report.require(hidden.is_none(), &DESCRIPTOR, start, "descriptor", || {
        format!(
            "bytes behind its end, at byte {}",
            start + (end + hidden.unwrap_or(0)) as u64
        )
    });
    let mut said = Said {
        create_type: None,
        extents: Vec::new(),
    };
    let mut version = 0;
    let mut at = start;
    for raw in text.split_inclusive(|byte| *byte == b'\n') {
        match line(raw) {
            Line::Empty => {}
            Line::Field(key, value) => {
                version += u32::from(key == b"version" && matches!(value, b"1" | b"2" | b"3"));
                field(report, at, key, value);
                if raw.starts_with(b"createType=\"") {
                    said.create_type = Some(value);
                }
            }
            Line::Extent(extent) if said.extents.len() < MOST_EXTENTS => {
                said.extents.push((at, extent))
            }
            Line::Extent(_) | Line::Unknown => {
                report.add(&DESCRIPTOR, at, "line", escaped(raw.trim_ascii()));
            }
        }
        at += raw.len() as u64;
    }
    report.require(version == 1, &DESCRIPTOR, start, "version", || {
        format!("{version} of them")
    });
    for (word, check) in [("createtype", &CREATE_TYPE), ("parentcid", &PARENT)] {
        let count = occurrences(text, word.as_bytes());
        report.require(count <= 1, check, start, word, || format!("{count} times"));
    }
    said
}

fn field(report: &mut Report, at: u64, key: &[u8], value: &[u8]) {
    let key = String::from_utf8_lossy(key).to_ascii_lowercase();
    match key.as_str() {
        "parentcid" => {
            report.require(
                value.eq_ignore_ascii_case(b"ffffffff"),
                &PARENT,
                at,
                "parentCID",
                || escaped(value),
            );
        }
        "parentfilenamehint" => {
            let name = escaped(value);
            report.add(&PARENT, at, "parentFileNameHint", name.clone());
            report.refers(name);
        }
        key if REFERENCES.contains(&key) => {
            let name = escaped(value);
            report.add(&REFERENCE, at, key, name.clone());
            report.refers(name);
        }
        key if HARMLESS.contains(&key) || key.starts_with("ddb.") => {}
        key => report.add(&UNKNOWN, at, escaped(key.as_bytes()), escaped(value)),
    }
}

/// How often a word is in a text, in whatever case.
fn occurrences(text: &[u8], word: &[u8]) -> usize {
    text.windows(word.len())
        .filter(|window| window.eq_ignore_ascii_case(word))
        .count()
}
