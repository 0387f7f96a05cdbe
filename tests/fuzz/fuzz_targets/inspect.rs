//! An image of any bytes, inspected as what its first byte says: every parser and walk of image formats. What is said of it is
//! bounded, and safe to show.
#![no_main]

use libfuzzer_sys::fuzz_target;
use luksmith::backend::memory::MemoryBackend;
use luksmith::vet::{Format, Policy, Verdict, identify, inspect};

fuzz_target!(|bytes: &[u8]| {
    let Some((which, image)) = bytes.split_first() else {
        return;
    };
    let format = Format::ALL[usize::from(*which) % Format::ALL.len()];
    let storage = MemoryBackend::from_bytes(image.to_vec()).into_read_only();
    let report = inspect(&storage, format, &Policy::default()).unwrap();
    assert!(report.findings.len() < 300);
    for finding in &report.findings {
        let shown = format!("{}{}", finding.field, finding.detail);
        assert!(!shown.chars().any(char::is_control), "{finding:?}");
    }
    // What was accepted begins as it was said to.
    if report.verdict() == Verdict::Accept && format == Format::Raw {
        let other = identify(&storage).unwrap();
        assert!(other.iter().all(|seen| ["mbr", "gpt"].contains(&seen.format)));
    }
});
