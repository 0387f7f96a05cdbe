//! An image of any bytes, inspected as what its first byte says: every parser and walk of image formats. What is said of it is
//! bounded, and safe to show; and so is the memory that it costs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use luksmith::vet::{Format, Policy, Verdict, identify, inspect};

#[path = "../../hostile/allocation.rs"]
mod allocation;
#[allow(dead_code)] // who makes the seeds is tests/vet
#[path = "../../vet/seed.rs"]
mod seed;

const MOST_MEMORY: usize = 64 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Some(image) = seed::Sparse::parse(bytes) else {
        return;
    };
    let (report, peak) =
        allocation::peak_of(|| inspect(&image, image.format, &Policy::default()).unwrap());
    assert!(peak < MOST_MEMORY, "{peak} bytes");
    assert!(report.findings.len() < 300);
    for finding in &report.findings {
        let shown = format!("{}{}", finding.field, finding.detail);
        assert!(!shown.chars().any(char::is_control), "{finding:?}");
    }
    // What was accepted begins as it was said to.
    if report.verdict() == Verdict::Accept && image.format == Format::Raw {
        let other = identify(&image).unwrap();
        assert!(other.iter().all(|seen| ["mbr", "gpt"].contains(&seen.format)));
    }
});
