//! What a search for plaintext found, as JSON and as lines.

use luksmith_formats::json::{Object, Value, json};

use super::names::{image, type_name};
use crate::location::Location;
use crate::task::search::Search;
use crate::task::size;
use crate::vet::ciphertext::randomness::false_alarm_bound;
use crate::vet::ciphertext::{AreaReport, PIECE, Region, Regions, Report, Sample, Why};

/// The most regions of a kind that have a line. The JSON has more.
const SHOWN: usize = 20;

/// The members of the document of a search: the areas with the bytes of each kind, and the regions
/// that are suspicious, zero, or holes. The verdict is `accept` if no region is suspicious.
#[must_use]
pub fn searched(
    location: &Location,
    search: &Search<'_>,
    report: &Report,
    sample: Option<Sample>,
) -> Object {
    let layout = search.layout();
    let total = report.total();
    let bound = false_alarm_bound(total.random + total.suspicious);
    let verdict = match report.suspicious.count {
        0 => "accept",
        _ => "findings",
    };
    let areas: Value = report.areas.iter().map(area).collect();
    let mut members = Object::new();
    image(&mut members, location);
    members.insert("format", search.format().name());
    members.insert("type", layout.version.map(type_name));
    members.insert("verdict", verdict);
    members.insert("areas", areas);
    members.insert("suspicious", regions(&report.suspicious));
    members.insert("zero", regions(&report.zero));
    members.insert("hole", regions(&report.holes));
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
        "size": area.size(),
        "parts": area.parts().len(),
        "judged": area.purpose.is_judged(),
        "random": tally.random,
        "zero": tally.zero,
        "hole": tally.hole,
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
        Why::Hole => ("hole", None),
        Why::Compressed => ("compressed", None),
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

/// The lines about the regions that are zero, holes or suspicious, and about the sample.
#[must_use]
pub fn searched_lines(report: &Report, sample: Option<Sample>) -> Vec<String> {
    let mut lines = Vec::new();
    for (what, regions) in [
        ("zero", &report.zero),
        ("hole", &report.holes),
        ("suspicious", &report.suspicious),
    ] {
        for region in regions.listed.iter().take(SHOWN) {
            let why = match region.why {
                Why::Zero | Why::Hole => "",
                Why::Compressed => ": compressed, not encrypted",
                Why::Signature(name) => &format!(": {name}"),
                Why::TooEven => ": byte values too even",
                _ => ": low entropy",
            };
            let (length, offset) = (size::human(region.length), region.offset);
            lines.push(format!("{what}: {length} at byte {offset}{why}"));
        }
        let rest = regions.count.saturating_sub(SHOWN as u64);
        if rest > 0 {
            lines.push(format!("{what}: {rest} more regions"));
        }
    }
    if let Some(Sample { seed, .. }) = sample {
        let sampled = report.areas.iter().filter_map(|area| area.sampled);
        let (read, of) = sampled.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let piece = size::human(PIECE);
        lines.push(format!(
            "sample: {read} of {of} pieces of {piece}, seed {seed}"
        ));
        if report.suspicious.count == 0 && read > 0 && read < of {
            // If n pieces are clean, then with a confidence of 95 % at most 3/n of all are not,
            // since (1 − 3/n)ⁿ < e⁻³ = 0.05.
            let most = (300.0 / read as f64).min(100.0);
            lines.push(format!(
                "sample: with 95 % confidence, less than {most:.3} % of all pieces contain \
                 anything else"
            ));
        }
    }
    lines
}
