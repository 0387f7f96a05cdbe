//! What an audit found, as JSON.

use luksmith_formats::json::{Object, Value, json};

use super::names::hex;
use crate::audit::{Finding, Report};

/// The members of the document of an audit: the verdict, the findings, and their numbers by
/// severity. The verdict is `accept` if `accepted`.
#[must_use]
pub fn audited(report: &Report, accepted: bool) -> Object {
    let verdict = if accepted { "accept" } else { "findings" };
    let findings: Value = report.findings.iter().map(finding).collect();
    let mut counts = Object::new();
    for (severity, count) in report.counts() {
        counts.insert(severity.name(), count);
    }
    counts.insert("excepted", report.excepted());
    let mut members = Object::new();
    members.insert("verdict", verdict);
    members.insert("findings", findings);
    members.insert("counts", counts);
    members
}

fn finding(finding: &Finding) -> Value {
    let (rule, place) = (finding.rule, &finding.place);
    let object = place.object.iter();
    let object: Value = object
        .map(|(kind, name)| json!({"kind": kind, "name": name}))
        .collect();
    let bytes = place.path_bytes.as_ref();
    json!({
        "id": rule.id,
        "severity": rule.severity.name(),
        "origin": place.origin,
        "origin_bytes": bytes.map(|bytes| hex(bytes)),
        "line": place.line,
        "object": object,
        "detail": finding.detail,
        "meaning": rule.meaning,
        "why": rule.why,
        "fix": rule.fix,
        "excepted": finding.excepted,
    })
}
