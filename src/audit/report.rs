//! What an audit says.

use super::policy::Policy;
use super::rule::{Finding, Place, Rule, Severity, rules};

rules! {
    MORE: Note, "audit.more",
        "the rule is broken in more places than are listed",
        "A long list hides what matters, and a hostile document could make it endless.",
        "Mend what is listed, and audit again.";
}

/// The most findings of one rule that are kept.
const MOST_OF_ONE: usize = 100;

/// Everything that an audit found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// What breaks a rule, in the order of the documents.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The heaviest finding that no exception covers.
    pub fn heaviest(&self) -> Option<Severity> {
        let open = self.findings.iter().filter(|one| one.excepted.is_none());
        open.map(|one| one.rule.severity).max()
    }

    /// Adds a finding, unless there are too many of its rule.
    pub(super) fn add(
        &mut self,
        policy: &Policy,
        rule: &'static Rule,
        place: Place,
        detail: impl Into<String>,
    ) {
        let detail = detail.into();
        let same = self.findings.iter().filter(|one| one.rule == rule);
        // A domain that runs comes twice: as it is, and as it will be when it starts the next time.
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
