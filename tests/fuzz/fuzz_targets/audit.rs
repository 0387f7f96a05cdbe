//! Any text as XML of libvirt, or as a file of a host: the readers of both, and every rule. What is said is bounded, safe to show,
//! and points into the text; and the memory that it costs is bounded too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use luksmith::audit::{Policy, audit, images};

#[path = "../../hostile/allocation.rs"]
mod allocation;
#[path = "../../audit/seed.rs"]
mod seed;

const MOST_MEMORY: usize = 64 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Some(inventory) = seed::parse(bytes) else {
        return;
    };
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
