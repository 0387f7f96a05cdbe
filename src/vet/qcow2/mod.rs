//! qcow2 (QEMU's `docs/interop/qcow2.txt`), within the limits that QEMU has for it.
//!
//! - this file: the header, and what it refers to.
//! - `extensions`: the header extensions.
//! - `tables`: every table, and that none lies on another.
//! - `clusters`: what the L2 tables say of the guest's data.
//! - `refcounts`: whether clusters are used as often as they are said to be.

mod clusters;
mod extensions;
mod refcounts;
mod tables;

use luksmith_formats::image::qcow2::{self, Header};

use super::Check;
use super::finding::{checks, escaped};
use super::policy::{Feature, Policy};
use super::report::{Encryption, Report};
use super::source::{Source, Stop};

checks! {
    VERSION: reject, "qcow2.version", "it is of a version that is neither 2 nor 3";
    BACKING: reject, "qcow2.backing-file", "it names a backing file: what is not in the image would be read from there";
    DATA_FILE: reject, "qcow2.data-file", "its data lies in another file, which would be read and written";
    CLUSTER: reject, "qcow2.cluster-bits", "clusters are of 512 bytes to 2 MiB";
    LENGTH: reject, "qcow2.header-length", "the header is shorter than its version has it, or longer than a cluster";
    FEATURES: reject, "qcow2.incompatible", "it has incompatible features that are not known";
    CORRUPT: reject, "qcow2.corrupt", "it is marked as damaged";
    REFCOUNTS: reject, "qcow2.refcount-order", "refcounts have at most 64 bits";
    COMPRESSION: reject, "qcow2.compression", "the compression type is not known, or its feature bit does not agree with it";
    SUBCLUSTERS: reject, "qcow2.extended-l2", "subclusters need clusters of at least 16 KiB";
    CRYPT: reject, "qcow2.encryption", "its encryption is broken (method 1), not known, or not described";
    EXTENSIONS: reject, "qcow2.extensions", "the header extensions do not fit, come twice, or have a wrong length";
    UNKNOWN: note, "qcow2.unknown", "it has optional features or extensions that are not known";
    SIZE: reject, "qcow2.size", "the disk is larger than its L1 table can map";
    TABLE: reject, "qcow2.table", "a table is too large, not aligned, or does not lie in the image";
    RESERVED: reject, "qcow2.reserved", "bits are set that must be zero";
    OVERLAP: reject, "qcow2.overlap", "a table lies on another one, on the header or on the encryption header: a write to one changes the other";
    SNAPSHOTS: reject, "qcow2.snapshots", "the list of snapshots breaks a rule or a limit";
    BITMAPS: reject, "qcow2.bitmaps", "the list of bitmaps breaks a rule or a limit";
    CLUSTERS: reject, "qcow2.clusters", "the guest's data is said to lie outside of the image or on its tables";
    COMPRESSED: reject, "qcow2.compressed", "compressed data is said to lie outside of the image or on its tables";
    SHARED: reject, "qcow2.shared", "a cluster is used for several things, and its refcount does not say so: a write to one changes the other";
    REFCOUNT: note, "qcow2.refcount", "a cluster is in use and its refcount is 0: it will be given away again";
    MANY: note, "qcow2.refcounts-not-counted", "it has more clusters than are counted, so that refcounts were not compared with what uses them";
    SUBCLUSTER: reject, "qcow2.subclusters", "a subcluster is allocated and zero at once, or allocated without a cluster";
}

const KNOWN_INCOMPATIBLE: u64 =
    qcow2::DIRTY | qcow2::CORRUPT | qcow2::DATA_FILE | qcow2::COMPRESSION | qcow2::EXTENDED_L2;
/// The longest name of a backing file.
const LONGEST_NAME: u64 = 1023;

/// What the parts need of the header.
struct Image {
    header: Header,
    /// The size of a cluster in bytes.
    cluster: u64,
    /// Where the LUKS header lies: offset and length.
    crypto: Option<(u64, u64)>,
    bitmaps: Option<qcow2::Bitmaps>,
}

pub(super) fn check(
    source: &mut Source<'_>,
    report: &mut Report,
    policy: &Policy,
) -> Result<(), Stop> {
    // The largest cluster, which holds header and extensions.
    let start = source.read(0, 512)?;
    let Some(header) = Header::parse(&start) else {
        report.add(&TABLE, 0, "header", "the image ends in it");
        return Ok(());
    };
    report.claims(header.size);
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
            report.add(&CRYPT, 32, "crypt_method", "1: AES-CBC with guessable IVs");
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
        // Its tables are about another file.
        return Ok(());
    }
    tables::check(source, report, &image)
}

/// The fields of the header alone. Whether the rest can be made sense of.
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

/// The other files that the header's fields name.
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
