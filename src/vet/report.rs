//! The result of an inspection.

use super::finding::{Check, Finding, Severity};
use super::format::{Encryption, Feature, Format};
use super::source::Stop;

/// Whether an image can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The image is valid in the declared format, and the policy allows it.
    Accept,
    /// The image may be valid, but the policy does not allow it, or not all of it could be checked.
    Policy,
    /// The image is not valid in the declared format, or a program could read it in another way.
    Reject,
}

impl Verdict {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Policy => "policy",
            Self::Reject => "reject",
        }
    }
}

/// The result of an inspection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The declared format.
    pub format: Format,
    /// The size of the disk in the image, in bytes: the largest one that any field claims. `None`
    /// if no size was found.
    pub virtual_size: Option<u64>,
    /// How the data is encrypted.
    pub encryption: Encryption,
    /// The features that the image uses.
    pub features: Vec<Feature>,
    /// The names of other files that the image contains, escaped. None of these files was opened.
    pub references: Vec<String>,
    /// The checks that the image fails.
    pub findings: Vec<Finding>,
}

/// The most findings of one check that are kept. A table of random bytes fails a check with each of
/// its entries.
const MOST_OF_ONE: usize = 8;

impl Report {
    pub(super) fn new(format: Format) -> Self {
        Self {
            format,
            virtual_size: None,
            encryption: Encryption::None,
            features: Vec::new(),
            references: Vec::new(),
            findings: Vec::new(),
        }
    }

    /// The verdict, which follows from the most severe finding.
    pub fn verdict(&self) -> Verdict {
        let heaviest = self.findings.iter().map(|finding| finding.check.severity);
        match heaviest.max() {
            None | Some(Severity::Note) => Verdict::Accept,
            Some(Severity::Policy) => Verdict::Policy,
            Some(Severity::Reject) => Verdict::Reject,
        }
    }

    pub(super) fn add(
        &mut self,
        check: &'static Check,
        offset: u64,
        field: impl Into<String>,
        detail: impl Into<String>,
    ) {
        let same = self.findings.iter().filter(|found| found.check == check);
        if same.count() < MOST_OF_ONE {
            self.findings.push(Finding {
                check,
                offset,
                field: field.into(),
                detail: detail.into(),
            });
        }
    }

    /// Ends the walk of a table if further findings would not be kept.
    ///
    /// # Errors
    /// Returns [`Stop::Enough`] then.
    pub(super) fn go_on(&self) -> Result<(), Stop> {
        let full = |found: &Finding| {
            let same = self
                .findings
                .iter()
                .filter(|other| other.check == found.check);
            found.check.severity == Severity::Reject && same.count() >= MOST_OF_ONE
        };
        if self.findings.iter().any(full) {
            return Err(Stop::Enough);
        }
        Ok(())
    }

    /// Adds a finding if `good` is false. Returns `good`.
    pub(super) fn require(
        &mut self,
        good: bool,
        check: &'static Check,
        offset: u64,
        field: &str,
        detail: impl FnOnce() -> String,
    ) -> bool {
        if !good {
            self.add(check, offset, field, detail());
        }
        good
    }

    /// Records that a field claims that the disk has this size.
    pub(super) fn claims(&mut self, size: u64) {
        self.virtual_size = Some(self.virtual_size.unwrap_or(0).max(size));
    }

    pub(super) fn uses(&mut self, feature: Feature) {
        if !self.features.contains(&feature) {
            self.features.push(feature);
        }
    }

    /// Records the name of another file, which is escaped already.
    pub(super) fn refers(&mut self, name: String) {
        if self.references.len() < 64 {
            self.references.push(name);
        }
    }
}
