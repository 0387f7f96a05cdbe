//! What an image looks like to programs that guess.

use luksmith_formats::image::signature::{END, START, Signature, signatures};

use super::finding::checks;
use super::format::Format;
use super::report::Report;
use super::source::{Source, Stop};
use crate::backend::{Backend, IoError};

checks! {
    OTHER: reject, "format.other", "it can also be taken for an image of another format, which would be read by other rules";
    NOT: reject, "format.not", "it does not begin as an image of the declared format does";
}

/// Everything that an image looks like: a guess, for a person who wonders. Nothing here is validated, and a raw image may
/// look like anything.
///
/// # Errors
/// What the storage says.
pub fn identify(storage: &dyn Backend) -> Result<Vec<Signature>, IoError> {
    match looks_like(&mut Source::new(storage)) {
        Ok(found) => Ok(found),
        Err(Stop::Io(error)) => Err(error),
        // The two reads are far within it.
        Err(Stop::Budget | Stop::Enough) => Ok(Vec::new()),
    }
}

pub(super) fn looks_like(source: &mut Source<'_>) -> Result<Vec<Signature>, Stop> {
    let size = source.size();
    let start = source.read(0, START as u64)?;
    let end = source.read(size.saturating_sub(END as u64), END as u64)?;
    Ok(signatures(&start, &end, size))
}

/// Reports what the image looks like, other than the format that was declared. Whether it begins as that one does.
pub(super) fn recognise(source: &mut Source<'_>, report: &mut Report) -> Result<bool, Stop> {
    let found = looks_like(source)?;
    let format = report.format;
    let own = format.signature();
    let begins = |seen: &Signature| {
        // A disc's later descriptors do not make it one.
        own == Some(seen.format) && (seen.format != "iso" || seen.offset == 32769)
    };
    let matches = own.is_none() || found.iter().any(begins);
    if !matches {
        let wanted = own.unwrap_or_default();
        report.add(
            &NOT,
            0,
            "magic",
            format!("no signature of {wanted} is there"),
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

/// Whether an image of a format may hold, as its contents, what looks like `other`.
fn may_hold(format: Format, other: &str, dynamic_vhd: bool) -> bool {
    match format {
        Format::Raw => matches!(other, "mbr" | "gpt"),
        // Discs that boot from a stick as well.
        Format::Iso => matches!(other, "mbr" | "gpt" | "udf"),
        Format::Gpt => other == "mbr",
        // A fixed one is a raw image with a footer.
        Format::Vhd => !dynamic_vhd && matches!(other, "mbr" | "gpt"),
        _ => false,
    }
}
