//! Compares the verdict of an image with the expected one, within bounds of time and memory.

use std::time::Duration;

use luksmith::backend::Backend;
use luksmith::backend::memory::MemoryBackend;
use luksmith::vet::{self, Format, Policy, Report, Severity, Verdict};

use support::allocation::peak_of;
use support::cpu_time::time_of;
use support::fuzz_input;

use crate::differ;

const MOST_TIME: Duration = Duration::from_secs(2);
const MOST_MEMORY: usize = 64 << 20;

/// A change of a good image: its name, the check that must find it (empty if the image stays good),
/// and the change.
pub(crate) type Case = (&'static str, &'static str, fn(&mut Vec<u8>));

/// Inspects an image, within the bounds.
pub(crate) fn inspect_on(storage: &dyn Backend, format: &str, policy: &Policy) -> Report {
    let format = Format::by_name(format).expect("a format");
    let ((report, peak), took) = time_of(|| peak_of(|| vet::inspect(storage, format, policy)));
    assert!(took < MOST_TIME, "took {took:?}");
    assert!(peak < MOST_MEMORY, "took {peak} bytes");
    report.expect("memory does not fail")
}

pub(crate) fn inspect(image: &[u8], format: &str) -> Report {
    keep_as_seed(image, format);
    let storage = MemoryBackend::from_bytes(image.to_vec()).into_read_only();
    inspect_on(&storage, format, &Policy::default())
}

/// With `VET_SEEDS=FOLDER`, saves every inspected image as a seed of the fuzz target `inspect`.
fn keep_as_seed(image: &[u8], format: &str) {
    let number = Format::ALL.iter().position(|one| one.name() == format);
    let number = u8::try_from(number.expect("a format")).expect("few formats");
    let input = fuzz_input::image::encode(number, image);
    fuzz_input::save_seed("VET_SEEDS", &format!("{format}-"), &input);
}

/// Inspects a good image, and each change of it. Fails with all unexpected verdicts at once.
#[track_caller]
pub(crate) fn table(format: &str, good: &[u8], cases: &[Case]) {
    let mut wrong = judged("unchanged", good, format, "");
    for (name, id, change) in cases {
        let mut image = good.to_vec();
        change(&mut image);
        assert!(image != good, "{name}: changes nothing");
        wrong.extend(judged(name, &image, format, id));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn judged(name: &str, image: &[u8], format: &str, id: &str) -> Vec<String> {
    let report = inspect(image, format);
    let mut wrong = complaints(&report, id);
    wrong.extend(differ::compare(name, image, &report));
    let said: Vec<_> = report
        .findings
        .iter()
        .map(|one| (one.check.id, &one.detail))
        .collect();
    wrong
        .into_iter()
        .map(|complaint| format!("{format}, {name}: {complaint}: {said:?}"))
        .collect()
}

/// Checks that a report accepts the image, or that this check is the most severe one that fails.
#[track_caller]
pub(crate) fn one(name: &str, report: &Report, id: &str) {
    let wrong = complaints(report, id);
    assert!(
        wrong.is_empty(),
        "{name}: {wrong:?}: {:#?}",
        report.findings
    );
}

fn complaints(report: &Report, id: &str) -> Vec<String> {
    let said = &report.findings;
    let mut wrong = Vec::new();
    let found = said.iter().find(|finding| finding.check.id == id);
    if found.is_none() && !id.is_empty() {
        wrong.push(format!("{id} is not there"));
    }
    let expected = match found.map(|found| found.check.severity) {
        Some(Severity::Reject) => Verdict::Reject,
        Some(Severity::Policy) => Verdict::Policy,
        Some(Severity::Note) | None => Verdict::Accept,
    };
    if report.verdict() != expected {
        wrong.push(format!("{:?}, not {expected:?}", report.verdict()));
    }
    for finding in said {
        let shown = format!("{}{}", finding.field, finding.detail);
        if shown.len() > 400 || shown.chars().any(char::is_control) {
            wrong.push(format!("not fit to be shown: {finding:?}"));
        }
    }
    wrong
}

pub(crate) fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

pub(crate) fn be16(image: &mut [u8], at: usize, value: u16) {
    put(image, at, &value.to_be_bytes());
}

pub(crate) fn be32(image: &mut [u8], at: usize, value: u32) {
    put(image, at, &value.to_be_bytes());
}

pub(crate) fn be64(image: &mut [u8], at: usize, value: u64) {
    put(image, at, &value.to_be_bytes());
}

pub(crate) fn le16(image: &mut [u8], at: usize, value: u16) {
    put(image, at, &value.to_le_bytes());
}

pub(crate) fn le32(image: &mut [u8], at: usize, value: u32) {
    put(image, at, &value.to_le_bytes());
}

pub(crate) fn le64(image: &mut [u8], at: usize, value: u64) {
    put(image, at, &value.to_le_bytes());
}
