//! Any text as XML of libvirt or as a file of a host, judged by every rule. The findings are
//! bounded, safe to show, and point into the text. The memory is bounded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use luksmith::audit::{Document, Host, Inventory, Policy, SocketUnit, audit, images};
use support::allocation::{self, Counting};
use support::fuzz_input;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MOST_MEMORY: usize = 64 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Some((name, text)) = fuzz_input::audit::decode(bytes) else {
        return;
    };
    let inventory = inventory(name, text);
    let (report, peak) = allocation::peak_of(|| {
        images(&inventory);
        audit(&inventory, &Policy::default())
    });
    assert!(peak < MOST_MEMORY, "{peak} bytes");
    assert!(report.findings.len() < 2000);
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
    for finding in &report.findings {
        let shown = format!("{}{}", finding.place, finding.detail);
        assert!(!shown.chars().any(char::is_control), "{finding:?}");
        assert!(finding.place.line.is_none_or(|line| (1..=lines).contains(&line)));
    }
});

/// An inventory with this text only: XML, or a file of a host.
fn inventory(name: &str, text: &[u8]) -> Inventory {
    let document = Document::file(name, text);
    let mut inventory = Inventory::default();
    let mut host = Host::default();
    match name {
        "xml" => inventory.documents.push(document),
        "mountinfo" => host.mountinfo = Some(document),
        "libvirtd-tcp.socket" => {
            let mut unit = SocketUnit::new(name, vec![document]);
            unit.enabled = true;
            host.sockets.push(unit);
        }
        _ => host.files.push(document),
    }
    inventory.host = Some(host);
    inventory
}
