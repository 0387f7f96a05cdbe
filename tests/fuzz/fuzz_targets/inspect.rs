//! Any bytes as an image of the format that the first byte says, inspected by the parsers and walks
//! of that format. The findings are bounded and safe to show. The memory is bounded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use luksmith::vet::{Format, Policy, Verdict, identify, inspect};

use support::allocation::{self, Counting};
use support::fuzz_input::image::SparseImage;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MOST_MEMORY: usize = 64 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Some(image) = SparseImage::decode(bytes) else {
        return;
    };
    let format = Format::ALL[usize::from(image.format) % Format::ALL.len()];
    let (report, peak) =
        allocation::peak_of(|| inspect(&image, format, &Policy::default()).unwrap());
    assert!(peak < MOST_MEMORY, "{peak} bytes");
    assert!(report.findings.len() < 300);
    for finding in &report.findings {
        let shown = format!("{}{}", finding.field, finding.detail);
        assert!(!shown.chars().any(char::is_control), "{finding:?}");
    }
    // An accepted image does not begin like another format.
    if report.verdict() == Verdict::Accept && format == Format::Raw {
        let other = identify(&image).unwrap();
        assert!(other.iter().all(|seen| ["mbr", "gpt"].contains(&seen.format)));
    }
});
