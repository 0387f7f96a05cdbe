//! The findings as text.

use luksmith::audit::Report;

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
    let counts = report.counts().into_iter().map(|(severity, count)| {
        let plural = if count == 1 { "" } else { "s" };
        format!("{count} {}{plural}", severity.name())
    });
    let counts = counts.collect::<Vec<_>>().join(", ");
    output.line(format_args!("{counts}; {} excepted", report.excepted()));
}
