//! QED (QEMU's `docs/interop/qed_spec.txt`), within QEMU's limits.

use luksmith_formats::image::qed::{BACKING, BACKING_RAW, Header, NEED_CHECK};

use super::extents::{Data, Extents, MOST, misplaced};
use super::finding::{checks, escaped};
use super::format::Feature;
use super::report::Report;
use super::source::{Source, Stop, pieces};

checks! {
    HEADER: reject, "qed.header", "a field of the header is out of bounds";
    FEATURES: reject, "qed.features", "it has unknown features";
    BACKING_FILE: reject, "qed.backing-file",
        "it names a backing file, from which a program reads what the image does not contain";
    SIZE: reject, "qed.size",
        "the disk is larger than its tables can map, or not a multiple of 512 bytes";
    TABLE: reject, "qed.table", "a table is not aligned, or not within the image";
    OVERLAP: reject, "qed.overlap", "a table overlaps another table or the header";
    CLUSTERS: reject, "qed.clusters",
        "a cluster of the guest's data is outside of the image, or overlaps a table";
    SHARED: reject, "qed.shared", "two parts of the disk use the same cluster";
    MANY: note, "qed.clusters-not-compared",
        "there are too many clusters to search for one that is used twice";
}

pub(super) fn check(source: &mut Source<'_>, report: &mut Report) -> Result<(), Stop> {
    let Some(header) = Header::parse(&source.read(0, 64)?) else {
        report.add(&HEADER, 0, "header", "the image ends within it");
        return Ok(());
    };
    report.claims(header.image_size);
    backing(source, report, &header)?;
    let unknown = header.features & !(BACKING | NEED_CHECK | BACKING_RAW);
    report.require(unknown == 0, &FEATURES, 16, "features", || {
        format!("{unknown:#x}")
    });
    if header.features & NEED_CHECK != 0 {
        report.uses(Feature::Dirty);
    }
    let cluster = u64::from(header.cluster_size);
    let power = header.cluster_size.is_power_of_two() && header.table_size.is_power_of_two();
    let sound = power
        && (4 << 10..=64 << 20).contains(&cluster)
        && (2..=16).contains(&header.table_size)
        && (1..=1 << 20).contains(&header.header_size);
    if !report.require(sound, &HEADER, 4, "cluster_size", || {
        format!(
            "{cluster} bytes, tables of {} and a header of {} clusters",
            header.table_size, header.header_size
        )
    }) {
        return Ok(());
    }
    let table = u64::from(header.table_size) * cluster;
    let entries = u128::from(table / 8);
    let size = header.image_size;
    let most = entries * entries * u128::from(cluster);
    report.require(
        u128::from(size) <= most && size.is_multiple_of(512),
        &SIZE,
        48,
        "image_size",
        || format!("{size} bytes; the most is {most}"),
    );
    let start = u64::from(header.header_size) * cluster;
    walk(source, report, (start, cluster, table), header.l1_offset)
}

fn backing(source: &mut Source<'_>, report: &mut Report, header: &Header) -> Result<(), Stop> {
    let (offset, size) = (header.backing_offset, header.backing_size);
    if header.features & (BACKING | BACKING_RAW) != 0 || offset != 0 || size != 0 {
        let name = escaped(&source.read(offset.into(), u64::from(size).min(1023))?);
        let detail = format!("{size} bytes at byte {offset}: {name}");
        report.add(&BACKING_FILE, 56, "backing_filename_offset", detail);
        report.refers(name);
    }
    Ok(())
}

fn walk(
    source: &mut Source<'_>,
    report: &mut Report,
    (header, cluster, table): (u64, u64, u64),
    l1: u64,
) -> Result<(), Stop> {
    let mut extents = Extents::default();
    extents.take(0, header, "header")?;
    let fits = |source: &Source<'_>, offset: u64| {
        offset != 0 && offset.is_multiple_of(cluster) && source.holds(offset, table)
    };
    if !report.require(fits(source, l1), &TABLE, 40, "l1_table_offset", || {
        l1.to_string()
    }) {
        return Ok(());
    }
    extents.take(l1, table, "L1 table")?;
    let mut l2 = Vec::new();
    for (at, len) in pieces(l1, table) {
        for (place, offset) in words(source, at, len)? {
            if report.require(fits(source, offset), &TABLE, place, "L1 entry", || {
                offset.to_string()
            }) {
                l2.push(offset);
            }
        }
        report.go_on()?;
        if l2.len() > MOST {
            return Err(Stop::Budget);
        }
    }
    for offset in &l2 {
        extents.take(*offset, table, "L2 table")?;
    }
    for overlap in extents.overlaps() {
        let detail = format!("on the {}", overlap.on);
        report.add(&OVERLAP, overlap.offset, overlap.what, detail);
    }
    let mut data = Data::default();
    for start in l2 {
        for (at, len) in pieces(start, table) {
            for (place, offset) in words(source, at, len)? {
                // A cluster that reads as zeroes.
                if offset == 1 {
                    continue;
                }
                let inside = offset.is_multiple_of(cluster) && offset < source.size();
                let on = extents.under(source, offset, cluster)?;
                let good = inside && on.is_none();
                if report.require(good, &CLUSTERS, place, "L2 entry", || {
                    misplaced(offset, source.size(), on)
                }) {
                    data.take(offset / cluster);
                }
            }
            report.go_on()?;
        }
    }
    if data.beyond {
        report.add(&MANY, l1, "L1 table", "not compared");
        return Ok(());
    }
    for place in data.overlaps(1) {
        report.add(&SHARED, place * cluster, "cluster", "used twice");
    }
    Ok(())
}

/// The entries of a piece of a table that are not 0, each with its offset.
fn words(source: &mut Source<'_>, at: u64, len: u64) -> Result<Vec<(u64, u64)>, Stop> {
    let bytes = source.read(at, len)?;
    let words = (0_u64..).zip(bytes.as_chunks::<8>().0);
    Ok(words
        .map(|(number, word)| (at + number * 8, u64::from_le_bytes(*word)))
        .filter(|(_, word)| *word != 0)
        .collect())
}
