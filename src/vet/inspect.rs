//! Inspects an image in its declared format.

use super::finding::{Check, checks};
use super::format::Format;
use super::policy::{self, Policy};
use super::report::Report;
use super::source::{Source, Stop};
use super::{gpt, iso, luks, mbr, qcow2, qed, recognise, udf, vdi, vhd, vhdx, vmdk};
use crate::backend::{Backend, IoError};

checks! {
    UNCHECKED: policy, "walk.budget",
        "its tables are too large for an inspection, so not all of it was checked";
}

/// All checks.
pub fn checks() -> impl Iterator<Item = &'static Check> {
    [
        CHECKS,
        recognise::CHECKS,
        policy::CHECKS,
        luks::CHECKS,
        qcow2::CHECKS,
        qed::CHECKS,
        vmdk::CHECKS,
        vhd::CHECKS,
        vhdx::CHECKS,
        vdi::CHECKS,
        iso::CHECKS,
        udf::CHECKS,
        gpt::CHECKS,
        mbr::CHECKS,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// Inspects an image: whether it is valid in the declared format, and whether the policy allows it.
///
/// Reads a bounded part of the storage, follows no reference, and writes nothing.
///
/// # Errors
/// Returns the error of the storage. Everything that is wrong with the image is in the report.
pub fn inspect(storage: &dyn Backend, format: Format, policy: &Policy) -> Result<Report, IoError> {
    within(Source::new(storage), format, policy)
}

/// The same with a budget of `budget` bytes, which has to be enough for the headers and for the
/// references in them.
pub(crate) fn headers(
    storage: &dyn Backend,
    format: Format,
    policy: &Policy,
    budget: u64,
) -> Result<Report, IoError> {
    within(Source::with_budget(storage, budget), format, policy)
}

fn within(mut source: Source<'_>, format: Format, policy: &Policy) -> Result<Report, IoError> {
    let mut report = Report::new(format);
    match walk(&mut source, &mut report, policy) {
        Ok(()) | Err(Stop::Enough) => {}
        Err(Stop::Budget) => report.add(&UNCHECKED, 0, "tables", "the budget is used up"),
        Err(Stop::Io(error)) => return Err(error),
    }
    policy.judge(&mut report);
    Ok(report)
}

fn walk(source: &mut Source<'_>, report: &mut Report, policy: &Policy) -> Result<(), Stop> {
    let begins = recognise::recognise(source, report)?;
    if !begins {
        return Ok(());
    }
    match report.format {
        Format::Raw => {
            report.claims(source.size());
            Ok(())
        }
        Format::Qcow2 => qcow2::check(source, report, policy),
        Format::Qed => qed::check(source, report),
        Format::Vmdk => vmdk::check(source, report),
        Format::Vhd => vhd::check(source, report),
        Format::Vhdx => vhdx::check(source, report),
        Format::Vdi => vdi::check(source, report),
        Format::Iso => iso::check(source, report),
        Format::Udf => udf::check(source, report),
        Format::Gpt => gpt::check(source, report),
        Format::Mbr => mbr::check(source, report),
        Format::Luks | Format::Luks1 | Format::Luks2 => luks::check(source, report, policy),
    }
}
