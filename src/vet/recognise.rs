//! Finds the formats whose signature an image has. A program that guesses the format may choose any
//! of them.

use luksmith_formats::image::signature::{END, START, Signature, signatures};

use super::finding::checks;
use super::format::Format;
use super::report::Report;
use super::source::{Source, Stop};
use crate::backend::{Backend, IoError};

checks! {
    OTHER: reject, "format.other",
        "a program that guesses the format may choose another one";
    NOT: reject, "format.not", "it does not have the signature of the declared format";
}

/// Guesses the format of an image: returns every format that the image has the signature of.
/// Nothing else of the image is checked, and a raw image may have any signature.
///
/// # Errors
/// Returns the error of the storage.
pub fn identify(storage: &dyn Backend) -> Result<Vec<Signature>, IoError> {
    match looks_like(&mut Source::new(storage)) {
        Ok(found) => Ok(found),
        Err(Stop::Io(error)) => Err(error),
        // Two reads do not use up the budget.
        Err(Stop::Budget | Stop::Enough) => Ok(Vec::new()),
    }
}

pub(super) fn looks_like(source: &mut Source<'_>) -> Result<Vec<Signature>, Stop> {
    let size = source.size();
    let start = source.read(0, START as u64)?;
    let end = source.read(size.saturating_sub(END as u64), END as u64)?;
    Ok(signatures(&start, &end, size))
}

/// Reports signatures of other formats than the declared one. Returns whether the image has the
/// signature of the declared one.
pub(super) fn recognise(source: &mut Source<'_>, report: &mut Report) -> Result<bool, Stop> {
    let found = looks_like(source)?;
    let format = report.format;
    let own = format.signature();
    let begins = |seen: &Signature| {
        // Only the first descriptor makes the image a disc.
        own == Some(seen.format) && (!matches!(seen.format, "iso" | "udf") || seen.offset == 32769)
    };
    let matches = own.is_none() || found.iter().any(begins);
    if !matches {
        let wanted = own.unwrap_or_default();
        report.add(
            &NOT,
            0,
            "magic",
            format!("there is no signature of {wanted}"),
        );
    }
    let dynamic_vhd = found
        .iter()
        .any(|seen| seen.format == "vhd" && seen.offset == 0);
    for seen in found {
        let own = own == Some(seen.format);
        if !own && !may_hold(format, seen.format, dynamic_vhd) {
            let detail = format!("looks like {}", seen.format);
            report.add(&OTHER, seen.offset, "signature", detail);
        }
    }
    Ok(matches)
}

/// Whether an image of this format may have the signature of `other` as a part of its contents.
fn may_hold(format: Format, other: &str, dynamic_vhd: bool) -> bool {
    match format {
        Format::Raw => matches!(other, "mbr" | "gpt"),
        // Discs that also boot from a USB stick.
        Format::Iso => matches!(other, "mbr" | "gpt" | "udf"),
        // Disks whose boot area has an MBR.
        Format::Udf => other == "mbr",
        Format::Gpt => other == "mbr",
        // A fixed VHD is a raw image with a footer.
        Format::Vhd => !dynamic_vhd && matches!(other, "mbr" | "gpt"),
        _ => false,
    }
}
