//! What an inspection says.

use super::finding::{Check, Finding, Severity};
use super::format::{Encryption, Feature, Format};
use super::source::Stop;

/// What to do with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is what it is said to be, and the policy allows it.
    Accept,
    /// It may be good, but the policy does not want it, or not all of it could be checked.
    Policy,
    /// It is not what it is said to be, or more than that.
    Reject,
}

impl Verdict {
    /// Its name, as reports spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Policy => "policy",
            Self::Reject => "reject",
        }
    }
}

/// What an inspection found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// What the image was said to be.
    pub format: Format,
    /// The size of the disk that it holds, in bytes: the largest that any field claims. `None` where it says none.
    pub virtual_size: Option<u64>,
    /// How its data is encrypted.
    pub encryption: Encryption,
    /// What it makes use of.
    pub features: Vec<Feature>,
    /// Names of other files in it, escaped. None was opened.
    pub references: Vec<String>,
    /// What is to be said of it.
    pub findings: Vec<Finding>,
}

/// The most findings of one check that are kept: a table of nonsense fails it for each of its entries.
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

    /// The verdict: that of the heaviest finding.
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

    /// Ends the walk of a table once a check has failed as often as is kept: more of it changes nothing.
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

    /// Adds a finding where `good` does not hold; gives `good` back.
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

    /// Some field claims a size of so many bytes.
    pub(super) fn claims(&mut self, size: u64) {
        self.virtual_size = Some(self.virtual_size.unwrap_or(0).max(size));
    }

    pub(super) fn uses(&mut self, feature: Feature) {
        if !self.features.contains(&feature) {
            self.features.push(feature);
        }
    }

    /// Another file is named; the name is escaped already.
    pub(super) fn refers(&mut self, name: String) {
        if self.references.len() < 64 {
            self.references.push(name);
        }
    }
}
