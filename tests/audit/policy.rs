//! Policies: their members, and their exceptions.

use luksmith::audit::{Policy, PolicyError, Severity};

use crate::judge::{changed, good, ids, within_bounds};

#[test]
fn unknown_members_are_refused() {
    for text in [
        "max-sise = 1",
        "max-size = 'x'",
        "[[exception]]\nrule = 'secret.shared'",
        "guest-encrypted = 'x'",
    ] {
        assert!(
            matches!(Policy::parse(text), Err(PolicyError::Text(_))),
            "{text}"
        );
    }
    let unknown = Policy::parse("[[exception]]\nrule = 'secret.none'\nbecause = 'x'");
    assert!(matches!(unknown, Err(PolicyError::Rule(_))));
    assert_eq!(Policy::parse("").unwrap(), Policy::default());
}

#[test]
fn an_exception_covers_its_rule_at_its_place() {
    let inventory = changed("vm1.xml", "<format type='raw'/>", "");
    let left = |place: &str, rule: &str| {
        let place = if place.is_empty() {
            String::new()
        } else {
            format!("where = '{place}'\n")
        };
        let text = format!("[[exception]]\nrule = '{rule}'\n{place}because = 'it is known'");
        let report = within_bounds(&inventory, &Policy::parse(&text).unwrap());
        assert_eq!(report.findings.len(), 1);
        let excepted = report.findings[0].excepted.as_deref();
        assert_eq!(excepted.is_some(), report.heaviest().is_none());
        assert!(excepted.is_none_or(|because| because == "it is known"));
        ids(&report).len()
    };
    let rule = "probing.backing-format";
    for place in ["", "vm1", "vm1:vdb", "*:vdb", "*"] {
        assert_eq!(left(place, rule), 0, "{place}");
    }
    for place in ["vm", "vm1:vda", "vdb", "vm1:vdb:x"] {
        assert_eq!(left(place, rule), 1, "{place}");
    }
    assert_eq!(left("", "probing.disk-format"), 1);
}

#[test]
fn the_most_severe_finding_counts() {
    let report = within_bounds(&good(), &Policy::default());
    assert_eq!(report.heaviest(), None);
    let inventory = changed("qemu.conf", "migration_host = ", "#");
    let report = within_bounds(&inventory, &Policy::default());
    assert_eq!(report.heaviest(), Some(Severity::Note));
}

#[test]
fn other_folders_can_be_trusted() {
    let inventory = changed(
        "vm1.xml",
        "/var/lib/libvirt/images/base.img",
        "/srv/golden/base.img",
    );
    let policy = |text: &str| Policy::parse(text).unwrap();
    let found = |text: &str| ids(&within_bounds(&inventory, &policy(text)));
    assert_eq!(found("trusted-paths = ['/srv/golden']"), [""; 0]);
    assert_eq!(
        found("trusted-paths = ['/srv/gold']"),
        ["chain.untrusted-path"]
    );
}
