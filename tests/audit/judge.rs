//! Compares the findings of an audit with the expected ones, within bounds of time.

use std::time::Duration;

use luksmith::audit::{Document, Inventory, Policy, Report, audit};

use support::allocation::peak_of;
use support::cpu_time::time_of;
use support::fuzz_input;

use crate::good;

const MOST_TIME: Duration = Duration::from_secs(2);
const MOST_MEMORY: usize = 64 << 20;

/// Audits an inventory, within the bounds.
pub(crate) fn within_bounds(inventory: &Inventory, policy: &Policy) -> Report {
    save_seeds(inventory);
    let ((report, peak), took) = time_of(|| peak_of(|| audit(inventory, policy)));
    assert!(took < MOST_TIME, "took {took:?}");
    assert!(peak < MOST_MEMORY, "took {peak} bytes");
    for finding in &report.findings {
        let shown = format!("{}{}", finding.place, finding.detail);
        assert!(!shown.chars().any(char::is_control), "{finding:?}");
        assert!(shown.len() < 4000, "{finding:?}");
    }
    report
}

/// With `AUDIT_SEEDS=FOLDER`, saves the texts of an inventory as seeds of the fuzz target `audit`.
fn save_seeds(inventory: &Inventory) {
    const LARGEST: usize = 64 << 10;
    let host = inventory.host.iter();
    let files = host.clone().flat_map(|host| host.files.iter());
    let units = host.clone().flat_map(|host| &host.sockets);
    let files = files.chain(units.flat_map(|unit| &unit.files));
    let files = files.chain(host.flat_map(|host| &host.mountinfo));
    let files = files.map(|file| (file.origin.as_str(), file));
    let documents = inventory.documents.iter().map(|one| ("xml", one));
    for (name, document) in documents.chain(files) {
        if document.text.len() < LARGEST
            && let Some(input) = fuzz_input::audit::encode(name, &document.text)
        {
            fuzz_input::save_seed("AUDIT_SEEDS", "", &input);
        }
    }
}

/// The ids of all findings, each once.
pub(crate) fn ids(report: &Report) -> Vec<&'static str> {
    let open = report.findings.iter().filter(|one| one.excepted.is_none());
    let mut ids: Vec<_> = open.map(|one| one.rule.id).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// The good domain, host and objects together.
pub(crate) fn good() -> Inventory {
    let mut volume = Document::file("volume.xml", good::VOLUME);
    volume.pool = Some("images".to_owned());
    let mut inventory = Inventory::new(vec![
        Document::file("vm1.xml", good::DOMAIN),
        Document::file("pool.xml", good::POOL),
        volume,
        Document::file("secret.xml", good::SECRET),
    ]);
    inventory.host = Some(good::host());
    inventory
}

/// Checks that an inventory has the findings with exactly these ids.
pub(crate) fn complaint(name: &str, inventory: &Inventory, expected: &[&str]) -> Option<String> {
    let report = within_bounds(inventory, &Policy::default());
    let found = ids(&report);
    (found != expected).then(|| {
        let all = report.findings.iter();
        let all: Vec<_> = all
            .map(|one| format!("  {} {}: {}", one.rule.id, one.place, one.detail))
            .collect();
        format!("{name}: {found:?}, not {expected:?}:\n{}", all.join("\n"))
    })
}

#[track_caller]
pub(crate) fn none(complaints: Vec<Option<String>>) {
    let complaints: Vec<_> = complaints.into_iter().flatten().collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// The inventory with a changed text in one of its documents, or in a file of the host.
pub(crate) fn changed(origin: &str, from: &str, to: &str) -> Inventory {
    let mut inventory = good();
    let host = inventory.host.as_mut().expect("a host");
    let sockets = host.sockets.iter_mut().flat_map(|unit| &mut unit.files);
    let all = inventory.documents.iter_mut().chain(&mut host.files);
    let document = all
        .chain(sockets)
        .find(|one| one.origin.ends_with(origin))
        .unwrap_or_else(|| panic!("no {origin}"));
    let text = String::from_utf8(document.text.clone()).expect("text");
    assert!(text.contains(from), "{origin} has no {from}");
    document.text = text.replacen(from, to, 1).into_bytes();
    inventory
}

/// One row of a table: the rule, a text of the good document, the text that breaks the rule, and a
/// similar text that does not.
pub(crate) type Row = (&'static str, &'static str, &'static str, &'static str);

#[track_caller]
pub(crate) fn table(origin: &str, rows: &[Row]) {
    let mut complaints = Vec::new();
    for (id, from, bad, neighbour) in rows {
        let name = format!("{id}: {bad}");
        complaints.push(complaint(&name, &changed(origin, from, bad), &[id]));
        let name = format!("not {id}: {neighbour}");
        complaints.push(complaint(&name, &changed(origin, from, neighbour), &[]));
    }
    none(complaints);
}

#[test]
fn a_good_domain_on_a_good_host_has_no_finding() {
    none(vec![complaint("good", &good(), &[])]);
}
