//! A report as SARIF 2.1.0 (OASIS, "Static Analysis Results Interchange Format"), for programs that
//! collect findings.

use std::fmt::Write as _;

use luksmith_formats::json::{Value, json};

use super::{Finding, Report, Rule};

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// A log with one run, `sarifLog` (§3.13): the rules of the audit, and a result for each finding.
#[must_use]
pub fn log(report: &Report) -> Value {
    let rules: Vec<_> = super::rules().collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "luksmith",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules.iter().map(|rule| descriptor(rule)).collect::<Vec<_>>(),
            }},
            "results": report.findings.iter().map(|one| result(one, &rules)).collect::<Vec<_>>(),
        }],
    })
}

/// `reportingDescriptor` (§3.49).
fn descriptor(rule: &Rule) -> Value {
    json!({
        "id": rule.id,
        "shortDescription": {"text": rule.meaning},
        "fullDescription": {"text": rule.why},
        "help": {"text": rule.fix},
        "defaultConfiguration": {"level": rule.severity.name()},
    })
}

/// `result` (§3.27).
fn result(finding: &Finding, rules: &[&Rule]) -> Value {
    let rule = finding.rule;
    let index = rules.iter().position(|one| *one == rule);
    let mut result = json!({
        "ruleId": rule.id,
        "ruleIndex": index,
        "level": rule.severity.name(),
        "message": {"text": format!("{}: {}", rule.meaning, finding.detail)},
        "locations": [location(finding)],
    });
    if let Some(because) = &finding.excepted {
        result["suppressions"] = json!([{"kind": "external", "justification": because}]);
    }
    result
}

/// `location` (§3.28): the file and the line, if the origin is a file, and the object.
fn location(finding: &Finding) -> Value {
    let place = &finding.place;
    let mut names = place.object.iter().map(|(_, name)| name.as_str());
    let mut full: Vec<_> = names.by_ref().collect();
    if !place.is_file {
        full.insert(0, &place.origin);
    }
    let kind = place.object.last().map_or("origin", |(kind, _)| *kind);
    let mut location = json!({});
    if !full.is_empty() {
        location["logicalLocations"] = json!([{
            "fullyQualifiedName": full.join("/"),
            "kind": kind,
        }]);
    }
    if place.is_file {
        let path = place.path_bytes.as_deref();
        let path = path.unwrap_or(place.origin.as_bytes());
        location["physicalLocation"] = json!({
            "artifactLocation": {"uri": uri(path)},
        });
        if let Some(line) = place.line {
            location["physicalLocation"]["region"] = json!({"startLine": line});
        }
    }
    location
}

/// A path as a URI reference (RFC 3986). Absolute paths get a scheme, and all but unreserved
/// characters are escaped.
fn uri(path: &[u8]) -> String {
    let mut uri = String::new();
    if path.starts_with(b"/") {
        uri.push_str("file://");
    }
    for &byte in path {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_uri_references() {
        assert_eq!(uri(b"vm 1.xml"), "vm%201.xml");
        assert_eq!(
            uri("/etc/libvirt/a#b%é".as_bytes()),
            "file:///etc/libvirt/a%23b%25%C3%A9"
        );
    }
}
