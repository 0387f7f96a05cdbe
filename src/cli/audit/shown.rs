//! The findings as text and as JSON.

use luksmith::audit::{Finding, Report, Severity};
use luksmith::task::outcome::hex;
use luksmith_formats::json::{Object, Value, json};

use crate::cli::output::Output;

/// Prints the findings, the most severe first, and their number.
pub(super) fn text(output: &Output, report: &Report) {
    let mut findings: Vec<_> = report.findings.iter().collect();
    findings.sort_by_key(|one| (one.excepted.is_some(), std::cmp::Reverse(one.rule.severity)));
    for finding in findings {
        let rule = finding.rule;
        let place = &finding.place;
        if let Some(because) = &finding.excepted {
            output.line(format_args!("excepted: {}", rule.id));
            output.line(format_args!("  {place}"));
            output.line(format_args!("  because: {because}"));
        } else {
            output.line(format_args!("{}: {}", rule.severity.name(), rule.id));
            output.line(format_args!("  {place}"));
            output.line(format_args!("  what: {}: {}", rule.meaning, finding.detail));
            output.line(format_args!("  why:  {}", rule.why));
            output.line(format_args!("  fix:  {}", rule.fix));
        }
        output.line("");
    }
    let counts = counts(report);
    let counts: Vec<_> = counts
        .iter()
        .map(|(name, count)| format!("{count} {name}{}", if *count == 1 { "" } else { "s" }))
        .collect();
    let excepted = excepted(report);
    output.line(format_args!("{}; {excepted} excepted", counts.join(", ")));
}

/// The number of findings without an exception of each severity, the highest first.
fn counts(report: &Report) -> Vec<(&'static str, usize)> {
    let count = |severity: Severity| {
        let open = report.findings.iter().filter(|one| one.excepted.is_none());
        open.filter(|one| one.rule.severity == severity).count()
    };
    let severities = Severity::ALL.into_iter().rev();
    severities.map(|one| (one.name(), count(one))).collect()
}

fn excepted(report: &Report) -> usize {
    let findings = report.findings.iter();
    findings.filter(|one| one.excepted.is_some()).count()
}

pub(super) fn json(report: &Report, accepted: bool) -> Value {
    let finding = |finding: &Finding| {
        let rule = finding.rule;
        let object = finding.place.object.iter();
        let object: Vec<_> = object
            .map(|(kind, name)| json!({"kind": kind, "name": name}))
            .collect();
        let bytes = finding.place.path_bytes.as_ref();
        json!({
            "id": rule.id,
            "severity": rule.severity.name(),
            "origin": finding.place.origin,
            "origin_bytes": bytes.map(|bytes| hex(bytes)),
            "line": finding.place.line,
            "object": object,
            "detail": finding.detail,
            "meaning": rule.meaning,
            "why": rule.why,
            "fix": rule.fix,
            "excepted": finding.excepted,
        })
    };
    let counts = counts(report).into_iter();
    let mut counts: Object = counts
        .map(|(name, count)| (name.to_owned(), count.into()))
        .collect();
    counts.insert("excepted", excepted(report));
    json!({
        "verdict": if accepted { "accept" } else { "findings" },
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "counts": counts,
    })
}
