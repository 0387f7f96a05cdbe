//! What a search for plaintext found, as JSON.

use luksmith_formats::json::{Object, Value, json};

use super::names::{image, type_name};
use crate::location::Location;
use crate::vet::ciphertext::areas::Layout;
use crate::vet::ciphertext::randomness::false_alarm_bound;
use crate::vet::ciphertext::{AreaReport, Region, Regions, Report, Sample, Why};

/// The members of the document of a search: the areas with the bytes of each kind, and the regions
/// that are suspicious or zero. The verdict is `accept` if no region is suspicious.
#[must_use]
pub fn searched(
    location: &Location,
    layout: &Layout,
    report: &Report,
    sample: Option<Sample>,
) -> Object {
    let total = report.total();
    let bound = false_alarm_bound(total.random + total.suspicious);
    let verdict = match report.suspicious.count {
        0 => "accept",
        _ => "findings",
    };
    let areas: Value = report.areas.iter().map(area).collect();
    let mut members = Object::new();
    image(&mut members, location);
    members.insert("type", layout.version.map(type_name));
    members.insert("verdict", verdict);
    members.insert("areas", areas);
    members.insert("suspicious", regions(&report.suspicious));
    members.insert("zero", regions(&report.zero));
    members.insert("seed", sample.map(|sample| sample.seed));
    members.insert("false_alarm_bound", bound);
    members
}

fn area(report: &AreaReport) -> Value {
    let AreaReport {
        area,
        tally,
        sampled,
        ..
    } = report;
    json!({
        "area": area.purpose.to_string(),
        "offset": area.range.start,
        "size": area.range.end - area.range.start,
        "judged": area.purpose.is_judged(),
        "random": tally.random,
        "zero": tally.zero,
        "suspicious": tally.suspicious,
        "sampled": sampled.map(|(pieces, of)| json!({ "pieces": pieces, "of": of })),
    })
}

fn regions(regions: &Regions) -> Value {
    json!({
        "regions": regions.count,
        "bytes": regions.bytes,
        "listed": regions.listed.iter().map(region).collect::<Value>(),
    })
}

fn region(region: &Region) -> Value {
    let (why, signature) = match region.why {
        Why::Zero => ("zero", None),
        Why::TooEven => ("too-even", None),
        Why::Signature(name) => ("signature", Some(name)),
        _ => ("low-entropy", None),
    };
    json!({
        "offset": region.offset,
        "size": region.length,
        "why": why,
        "signature": signature,
    })
}
