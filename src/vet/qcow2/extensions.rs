//! The header extensions. They end in the first cluster, and before the name of a backing file.

use luksmith_formats::image::qcow2::{
    Bitmaps, EXT_BACKING_FORMAT, EXT_BITMAPS, EXT_CRYPTO, EXT_DATA_FILE, EXT_FEATURE_NAMES,
    Extension, crypto_header, extensions,
};

use super::checks::{BACKING, BITMAPS, CRYPT, DATA_FILE, EXTENSIONS, UNKNOWN};
use super::image::Image;
use crate::vet::finding::escaped;
use crate::vet::report::Report;
use crate::vet::source::{Source, Stop};

pub(super) fn check(
    source: &mut Source<'_>,
    report: &mut Report,
    image: &mut Image,
) -> Result<(), Stop> {
    let header = &image.header;
    let backing = Some(header.backing_offset).filter(|offset| *offset != 0);
    let end = backing.unwrap_or(image.cluster).min(image.cluster);
    let start = usize::try_from(header.header_length).unwrap_or(usize::MAX);
    let bytes = source.read(0, end)?;
    let list = match extensions(&bytes, start) {
        Ok(list) => list,
        Err(at) => {
            report.add(
                &EXTENSIONS,
                at,
                "extension",
                "it, or the list of extensions, reaches beyond the end of the cluster",
            );
            return Ok(());
        }
    };
    for (number, extension) in list.iter().enumerate() {
        let known = one(report, image, extension);
        let twice = list[..number]
            .iter()
            .any(|other| other.kind == extension.kind);
        let name = format!("extension {:#010x}", extension.kind);
        let at = extension.offset - 8;
        report.require(!known || !twice, &EXTENSIONS, at, &name, || {
            "repeated".into()
        });
        report.require(known, &UNKNOWN, at, &name, || {
            format!("{} bytes", extension.data.len())
        });
    }
    Ok(())
}

/// Checks an extension. Returns whether its type is known.
fn one(report: &mut Report, image: &mut Image, extension: &Extension) -> bool {
    let (at, data) = (extension.offset, &extension.data);
    match extension.kind {
        EXT_BACKING_FORMAT => {
            report.add(&BACKING, at, "backing file format", escaped(data));
        }
        EXT_DATA_FILE => {
            let name = escaped(data);
            report.add(&DATA_FILE, at, "external data file name", name.clone());
            report.refers(name);
        }
        EXT_FEATURE_NAMES => {
            let whole = data.len().is_multiple_of(48);
            report.require(whole, &EXTENSIONS, at, "feature name table", || {
                format!("{} bytes, not a multiple of 48", data.len())
            });
        }
        EXT_CRYPTO => {
            image.crypto = crypto_header(data);
            report.require(
                image.crypto.is_some(),
                &CRYPT,
                at,
                "encryption header pointer",
                || format!("{} bytes, not 16", data.len()),
            );
        }
        EXT_BITMAPS => {
            image.bitmaps = Bitmaps::parse(data);
            report.require(
                image.bitmaps.is_some(),
                &BITMAPS,
                at,
                "bitmaps extension",
                || format!("{} bytes, not 24", data.len()),
            );
        }
        _ => return false,
    }
    true
}
