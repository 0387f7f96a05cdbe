//! The result of an audit.

use super::policy::Policy;
use super::rule::{Finding, Place, Rule, Severity, rules};

rules! {
    MORE: Note, "audit.more",
        "a rule is broken in more places than are listed",
        "A long list hides the important findings, and a hostile document could make it endless.",
        "Correct the listed places, and audit again.";
}

/// The most findings of one rule that are kept.
const MOST_OF_ONE: usize = 100;

/// The result of an audit.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// The findings, in the order of the documents.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The findings without an exception.
    fn open(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|one| one.excepted.is_none())
    }

    /// The highest severity of the findings without an exception.
    pub fn heaviest(&self) -> Option<Severity> {
        self.open().map(|one| one.rule.severity).max()
    }

    /// The number of findings without an exception that have this severity or a higher one.
    #[must_use]
    pub fn from_severity(&self, lowest: Severity) -> usize {
        self.open()
            .filter(|one| one.rule.severity >= lowest)
            .count()
    }

    /// The number of findings without an exception of each severity, the highest first.
    #[must_use]
    pub fn counts(&self) -> Vec<(Severity, usize)> {
        let of = |severity| {
            self.open()
                .filter(|one| one.rule.severity == severity)
                .count()
        };
        let severities = Severity::ALL.into_iter().rev();
        severities.map(|one| (one, of(one))).collect()
    }

    /// The number of findings with an exception.
    #[must_use]
    pub fn excepted(&self) -> usize {
        self.findings.len() - self.open().count()
    }

    /// Adds a finding, unless there are too many of its rule already.
    pub(super) fn add(
        &mut self,
        policy: &Policy,
        rule: &'static Rule,
        place: Place,
        detail: impl Into<String>,
    ) {
        let detail = detail.into();
        let same = self.findings.iter().filter(|one| one.rule == rule);
        // A running domain has two definitions: the present one, and the one for its next start.
        let is_said = |one: &Finding| {
            let (said, place) = (&one.place, &place);
            !place.is_file
                && said.origin == place.origin
                && said.object == place.object
                && one.detail == detail
        };
        if same.clone().any(is_said) {
            return;
        }
        let (rule, detail) = match same.count() {
            ..MOST_OF_ONE => (rule, detail),
            MOST_OF_ONE if self.is_news(rule) => {
                (&MORE, format!("{} is broken more often", rule.id))
            }
            _ => return,
        };
        self.findings.push(Finding {
            excepted: policy.exception(rule, &place),
            rule,
            place,
            detail,
        });
    }

    fn is_news(&self, rule: &Rule) -> bool {
        let said =
            |one: &Finding| one.rule == &MORE && one.detail.split(' ').next() == Some(rule.id);
        rule != &MORE && !self.findings.iter().any(said)
    }
}
