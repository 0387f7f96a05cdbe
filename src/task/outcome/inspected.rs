//! What an inspection of an untrusted image found, as JSON.

use std::path::Path;

use luksmith_formats::json::{Object, Value, json};

use super::names::image;
use crate::location::Location;
use crate::vet::{Finding, Report};

/// The members of the document of an inspection: the verdict, what the image is, and the checks
/// that it fails. `kept` is the copy that was kept.
#[must_use]
pub fn inspected(location: &Location, report: &Report, kept: Option<&Path>) -> Object {
    let features = report.features.iter().map(|feature| feature.name());
    let findings: Value = report.findings.iter().map(finding).collect();
    let mut members = Object::new();
    image(&mut members, location);
    members.insert("format", report.format.name());
    members.insert("verdict", report.verdict().name());
    members.insert("file", kept.map(|path| path.display().to_string()));
    members.insert("size", report.virtual_size);
    members.insert("encryption", report.encryption.name());
    members.insert("features", features.collect::<Vec<_>>());
    members.insert("references", report.references.as_slice());
    members.insert("findings", findings);
    members
}

fn finding(finding: &Finding) -> Value {
    json!({
        "id": finding.check.id,
        "severity": finding.check.severity.name(),
        "offset": finding.offset,
        "field": finding.field,
        "detail": finding.detail,
        "meaning": finding.check.meaning,
    })
}
