//! The descriptor: lines of text.
//!
//! Two readings have to agree: the lines as in the specification, and what QEMU reads from the text
//! (`scan`). A word for which QEMU searches is allowed only in its own line, not in comments or
//! values.

use luksmith_formats::image::vmdk::{Extent, Header, Line, SECTOR, line};

use super::checks::{
    CID, CREATE_TYPE, DESCRIPTOR, EXTENT_FILE, EXTENTS, PARENT, PATH, REFERENCE, TEXT, TRACKING,
    UNKNOWN,
};
use super::scan;
use crate::vet::finding::escaped;
use crate::vet::format::Feature;
use crate::vet::report::Report;
use crate::vet::source::{Source, Stop};

/// Fields that name no other file, or that are searched for in the whole text.
const HARMLESS: &[&str] = &[
    "version",
    "encoding",
    "cid",
    "parentcid",
    "isnativesnapshot",
    "createtype",
    "parentfilenamehint",
];
/// Fields that name other files.
const REFERENCES: &[&str] = &[
    "digestfilename",
    "digesttype",
    "ddb.sidecars",
    "ddb.iofilters",
    "ddb.nativeparentcid",
    "ddb.nativeparenthint",
];
/// The most extents. With 2 GiB each they make 64 TiB, which is VMware's limit.
const MOST_EXTENTS: usize = 1 << 15;
/// The longest descriptor that QEMU reads, in bytes.
const LONGEST_DESCRIPTOR: u64 = (1 << 20) - 1;
/// The bytes of an embedded descriptor that QEMU reads.
const QEMU_WINDOW: u64 = 20 * SECTOR;
/// The longest run of white space. QEMU reads it again for each of its lines.
const LONGEST_SPACE: usize = 64;
/// The most lines times bytes. QEMU measures the rest of the text at each line.
const MOST_WORK: usize = 1 << 33;

/// What the lines contain.
struct Said<'a> {
    create_type: Option<&'a [u8]>,
    extents: Vec<(u64, Extent<'a>)>,
}

/// Checks the descriptor in a sparse extent, which describes only that file.
pub(super) fn embedded(
    source: &mut Source<'_>,
    report: &mut Report,
    header: &Header,
) -> Result<(), Stop> {
    let len = header.descriptor_size.saturating_mul(SECTOR);
    // QEMU always reads it there, whatever the header says.
    let placed = header.descriptor_offset == 1
        && (1..=LONGEST_DESCRIPTOR).contains(&len)
        && source.holds(SECTOR, len);
    if !report.require(placed, &DESCRIPTOR, 28, "descriptorOffset", || {
        format!("{len} bytes at sector {}", header.descriptor_offset)
    }) {
        return Ok(());
    }
    let bytes = source.read(SECTOR, len)?;
    // QEMU always reads this number of bytes. Without a NUL, the following bytes would belong to
    // the text.
    let window = source.size().saturating_sub(SECTOR).min(QEMU_WINDOW);
    let ended = bytes.contains(&0);
    if !report.require(ended, &DESCRIPTOR, SECTOR, "descriptor", || {
        "it does not end in a NUL".into()
    }) && window > len
    {
        let behind = source.read(SECTOR, window)?;
        parent_files(report, SECTOR, text(&behind));
    }
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
            format!("{} extents, not 1", said.extents.len()),
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

/// Checks a descriptor that is the whole file. The data is in other files.
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
    scanned(report, &said, &bytes);
    let mut total = 0_u64;
    for (at, extent) in &said.extents {
        let good = match (said.create_type, extent.kind) {
            (Some(b"monolithicFlat" | b"twoGbMaxExtentFlat"), b"FLAT") => extent.offset.is_some(),
            (Some(b"vmfs"), b"VMFS") => extent.offset.is_none(),
            (Some(b"twoGbMaxExtentSparse"), b"SPARSE") => extent.offset.is_none(),
            _ => false,
        };
        // QEMU skips extents that are not RW, and those of type ZERO. VMware counts them.
        let good = good && extent.sectors != 0 && extent.access == b"RW";
        report.require(good, &EXTENTS, *at, "extent", || {
            let (access, kind) = (escaped(extent.access), escaped(extent.kind));
            format!("{} sectors of kind {kind}, {access}", extent.sectors)
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
            b"monolithicFlat" | b"vmfs" | b"twoGbMaxExtentFlat" | b"twoGbMaxExtentSparse"
        )
    });
    let lone = matches!(said.create_type, Some(b"monolithicFlat" | b"vmfs"));
    let one = !lone || said.extents.len() == 1;
    let some = !said.extents.is_empty() && total <= u64::MAX / SECTOR;
    report.require(some && one, &EXTENTS, 0, "extents", || {
        format!("{} extents with {total} sectors", said.extents.len())
    });
    Ok(())
}

/// Checks that QEMU reads the same extents from the same lines.
fn scanned(report: &mut Report, said: &Said<'_>, bytes: &[u8]) {
    let text = text(bytes);
    let lines = text.iter().filter(|byte| **byte == b'\n').count() + 1;
    let space = scan::longest_space(text);
    let bounded = space <= LONGEST_SPACE && lines.saturating_mul(text.len()) <= MOST_WORK;
    if !report.require(bounded, &DESCRIPTOR, 0, "descriptor", || {
        format!(
            "{lines} lines in {} bytes, {space} bytes of white space in a row",
            text.len()
        )
    }) {
        return;
    }
    let read = scan::extents(text);
    let wanted = said
        .extents
        .iter()
        .filter(|(_, one)| one.access == b"RW" && one.name.is_some());
    let wanted: Vec<_> = wanted.collect();
    let same = |scanned: &scan::Scanned<'_>, at: u64, one: &Extent<'_>| {
        scanned.at as u64 == at
            && u64::try_from(scanned.sectors) == Ok(one.sectors)
            && scanned.kind == one.kind
            && Some(scanned.name) == one.name
            && scanned.offset.and_then(|offset| u64::try_from(offset).ok()) == one.offset
    };
    let all = read.len() == wanted.len();
    let all = all
        && read
            .iter()
            .zip(&wanted)
            .all(|(read, (at, one))| same(read, *at, one));
    report.require(all, &EXTENTS, 0, "extents", || {
        format!(
            "QEMU reads {} extents, the lines have {}",
            read.len(),
            wanted.len()
        )
    });
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

/// Checks the name of an extent's file, which has to be in the folder of the image. Returns the
/// name, escaped.
fn file_name(report: &mut Report, at: u64, extent: &Extent<'_>) -> String {
    let name = extent.name.unwrap_or_default();
    let plain = !name.is_empty()
        && name.len() <= 255
        && name != b"."
        && name != b".."
        && name
            .iter()
            .all(|byte| byte.is_ascii() && !matches!(byte, b'/' | b'\\' | b':' | 0..=31 | 127));
    let shown = escaped(name);
    if !report.require(plain, &PATH, at, "extent", || shown.clone()) {
        report.refers(shown.clone());
    }
    shown
}

/// The text up to the first NUL, as in C.
fn text(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| *byte == 0);
    bytes.get(..end.unwrap_or(bytes.len())).unwrap_or(bytes)
}

fn read<'a>(report: &mut Report, start: u64, bytes: &'a [u8]) -> Said<'a> {
    let end = text(bytes).len();
    let (text, rest) = bytes.split_at(end);
    let control = text
        .iter()
        .position(|byte| byte.is_ascii_control() && !matches!(byte, b'\n' | b'\r' | b'\t'));
    report.require(control.is_none(), &DESCRIPTOR, start, "descriptor", || {
        format!(
            "a control character at byte {}",
            start + control.unwrap_or(0) as u64
        )
    });
    if let Some(at) = text.iter().position(|byte| !byte.is_ascii()) {
        let at = start + at as u64;
        report.add(&TEXT, at, "descriptor", format!("from byte {at} on"));
    }
    let hidden = rest
        .iter()
        .position(|byte| !matches!(byte, 0 | b' ' | b'\n'));
    report.require(hidden.is_none(), &DESCRIPTOR, start, "descriptor", || {
        format!(
            "bytes after its end, at byte {}",
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
        format!("{version} lines")
    });
    for (word, check, most) in [("createtype", &CREATE_TYPE, 1), ("parentcid", &PARENT, 1)] {
        let count = occurrences(text, word.as_bytes());
        report.require(count <= most, check, start, word, || {
            format!("{count} times")
        });
    }
    content_ids(report, start, text);
    parent_files(report, start, text);
    said
}

/// Reports the files that QEMU opens: those named after this word anywhere in the text.
fn parent_files(report: &mut Report, start: u64, text: &[u8]) {
    const WORD: &[u8] = b"parentfilenamehint";
    for (at, word) in text.windows(WORD.len()).enumerate() {
        if word.eq_ignore_ascii_case(WORD) {
            let rest = text.get(at + WORD.len() + 2..).unwrap_or_default();
            let name = rest.split(|byte| *byte == b'"').next().unwrap_or_default();
            let name = escaped(name);
            report.add(
                &PARENT,
                start + at as u64,
                "parentFileNameHint",
                name.clone(),
            );
            report.refers(name);
        }
    }
}

/// Checks the places of the content ids. QEMU uses the first `CID` and the first `parentCID` of the
/// text. On a write, it puts the text from `parentCID` on after the new id: if the ids are in other
/// places, this repeats or loses lines.
fn content_ids(report: &mut Report, start: u64, text: &[u8]) {
    let begins = |at: usize, line: &[u8]| {
        text.get(at..).is_some_and(|rest| rest.starts_with(line))
            && (at == 0 || text.get(at - 1) == Some(&b'\n'))
    };
    let good = match scan::places(text, b"CID")[..] {
        [own, parent] => {
            let parent = parent.checked_sub(b"parent".len());
            begins(own, b"CID=") && parent.is_some_and(|at| begins(at, b"parentCID="))
        }
        _ => false,
    };
    report.require(good, &CID, start, "CID", || {
        let places = scan::places(text, b"CID");
        format!("{} times, or in other places", places.len())
    });
}

fn field(report: &mut Report, at: u64, key: &[u8], value: &[u8]) {
    let key = String::from_utf8_lossy(key).to_ascii_lowercase();
    match key.as_str() {
        "cid" => {
            let digits = (1..=8).contains(&value.len()) && value.iter().all(u8::is_ascii_hexdigit);
            report.require(digits, &CID, at, "CID", || escaped(value));
        }
        "parentcid" => {
            report.require(
                value.eq_ignore_ascii_case(b"ffffffff"),
                &PARENT,
                at,
                "parentCID",
                || escaped(value),
            );
        }
        "changetrackpath" => {
            let name = escaped(value);
            report.add(&TRACKING, at, "changeTrackPath", name.clone());
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

/// How often a word is in a text, in upper or lower case.
fn occurrences(text: &[u8], word: &[u8]) -> usize {
    text.windows(word.len())
        .filter(|window| window.eq_ignore_ascii_case(word))
        .count()
}
