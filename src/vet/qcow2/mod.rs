//! qcow2 (QEMU's `docs/interop/qcow2.txt`), within QEMU's limits.
//!
//! - This file: the header, and the files to which it refers.
//! - `checks`: the list of checks. `image`: the parts of the header that all checks need.
//! - `extensions`: the header extensions.
//! - `tables`: all tables, which must not overlap.
//! - `clusters`: the places of the guest's data in the L2 tables.
//! - `refcounts`: the refcounts, compared with the uses of the clusters.

mod checks;
mod clusters;
mod extensions;
mod image;
mod refcounts;
mod tables;

use luksmith_formats::image::qcow2::{self, Header};

use super::Check;
use super::finding::escaped;
use super::format::{Encryption, Feature};
use super::policy::Policy;
use super::report::Report;
use super::source::{Source, Stop};
pub(super) use checks::CHECKS;
use checks::{
    BACKING, CLUSTER, COMPRESSION, CORRUPT, CRYPT, DATA_FILE, FEATURES, LENGTH, PARTIAL, REFCOUNTS,
    SUBCLUSTERS, TABLE, UNKNOWN, VERSION,
};
use image::Image;

const KNOWN_INCOMPATIBLE: u64 =
    qcow2::DIRTY | qcow2::CORRUPT | qcow2::DATA_FILE | qcow2::COMPRESSION | qcow2::EXTENDED_L2;
/// The longest name of a backing file.
const LONGEST_NAME: u64 = 1023;

pub(super) fn check(
    source: &mut Source<'_>,
    report: &mut Report,
    policy: &Policy,
) -> Result<(), Stop> {
    // Enough for all fields of the header.
    let start = source.read(0, 512)?;
    let Some(header) = Header::parse(&start) else {
        report.add(&TABLE, 0, "header", "the image ends within it");
        return Ok(());
    };
    // As QEMU does. Other programs may show the last bytes.
    let partial = header.size % 512;
    report.claims(header.size - partial);
    report.require(partial == 0, &PARTIAL, 24, "size", || {
        format!("{} bytes", header.size)
    });
    if !fields(report, &header) {
        references(source, report, &header)?;
        return Ok(());
    }
    references(source, report, &header)?;
    let mut image = Image {
        cluster: 1 << header.cluster_bits,
        crypto: None,
        bitmaps: None,
        header,
    };
    extensions::check(source, report, &mut image)?;
    let header = &image.header;
    let data_elsewhere = header.incompatible & qcow2::DATA_FILE != 0;
    match (header.crypt_method, image.crypto) {
        (0, None) => {}
        (1, _) => {
            report.encryption = Encryption::LegacyAes;
            report.add(
                &CRYPT,
                32,
                "crypt_method",
                "1: AES-CBC with predictable IVs",
            );
        }
        (2, Some(place)) => {
            report.encryption = Encryption::Luks1;
            if tables::fits(source, report, image.cluster, place, "encryption header") {
                super::luks::inside(source, report, policy, place)?;
            }
        }
        (method, header) => {
            if method != 0 {
                report.encryption = Encryption::Luks1;
            }
            let described = if header.is_some() { "a" } else { "no" };
            let detail = format!("{method}, with {described} LUKS header");
            report.add(&CRYPT, 32, "crypt_method", detail);
        }
    }
    if data_elsewhere {
        // The tables give places in the other file.
        return Ok(());
    }
    tables::check(source, report, &image)
}

/// Checks the fields of the header by themselves. Returns whether the rest of the image can be
/// read.
fn fields(report: &mut Report, header: &Header) -> bool {
    let mut sound = true;
    let mut must = |good: bool, check: &'static Check, at: u64, field: &str, value: u64| {
        sound &= report.require(good, check, at, field, || value.to_string());
    };
    let version = header.version;
    must(
        matches!(version, 2 | 3),
        &VERSION,
        4,
        "version",
        version.into(),
    );
    let bits = header.cluster_bits;
    must(
        (9..=21).contains(&bits),
        &CLUSTER,
        20,
        "cluster_bits",
        bits.into(),
    );
    let length = header.header_length;
    let least = if version == 2 {
        qcow2::V2_LENGTH
    } else {
        qcow2::V3_LENGTH
    };
    let most = 1_u32.checked_shl(bits).unwrap_or(0);
    must(
        (least..=most).contains(&length) && length.is_multiple_of(8),
        &LENGTH,
        100,
        "header_length",
        length.into(),
    );
    let order = header.refcount_order;
    must(order <= 6, &REFCOUNTS, 96, "refcount_order", order.into());
    let unknown = header.incompatible & !KNOWN_INCOMPATIBLE;
    must(
        unknown == 0,
        &FEATURES,
        72,
        "incompatible_features",
        unknown,
    );
    let extended = header.incompatible & qcow2::EXTENDED_L2 != 0;
    must(
        !extended || bits >= 14,
        &SUBCLUSTERS,
        20,
        "cluster_bits",
        bits.into(),
    );
    if !sound {
        return false;
    }

    let corrupt = header.incompatible & qcow2::CORRUPT != 0;
    report.require(!corrupt, &CORRUPT, 72, "incompatible_features", || {
        "bit 1".into()
    });
    let named = header.incompatible & qcow2::COMPRESSION != 0;
    let kind = header.compression;
    report.require(
        matches!((kind, named), (0, false) | (1, true)),
        &COMPRESSION,
        104,
        "compression_type",
        || format!("{kind}; the feature bit is {}", u8::from(named)),
    );
    let unknown = (header.compatible & !qcow2::LAZY_REFCOUNTS) | (header.autoclear & !3);
    report.require(unknown == 0, &UNKNOWN, 80, "features", || {
        format!("{unknown:#x}")
    });
    for (bit, feature) in [
        (qcow2::DIRTY, Feature::Dirty),
        (qcow2::EXTENDED_L2, Feature::ExtendedL2),
    ] {
        if header.incompatible & bit != 0 {
            report.uses(feature);
        }
    }
    if header.compatible & qcow2::LAZY_REFCOUNTS != 0 {
        report.uses(Feature::LazyRefcounts);
    }
    true
}

/// Reports the other files that fields of the header name.
fn references(source: &mut Source<'_>, report: &mut Report, header: &Header) -> Result<(), Stop> {
    let (offset, size) = (header.backing_offset, u64::from(header.backing_size));
    if offset != 0 || size != 0 {
        let name = escaped(&source.read(offset, size.min(LONGEST_NAME))?);
        let detail = format!("{size} bytes at byte {offset}: {name}");
        report.add(&BACKING, 8, "backing_file_offset", detail);
        report.refers(name);
    }
    for (bits, bit, at, field) in [
        (
            header.incompatible,
            qcow2::DATA_FILE,
            72,
            "incompatible_features",
        ),
        (
            header.autoclear,
            qcow2::DATA_FILE_RAW,
            88,
            "autoclear_features",
        ),
    ] {
        report.require(bits & bit == 0, &DATA_FILE, at, field, || {
            format!("bit {}", bit.trailing_zeros())
        });
    }
    Ok(())
}
