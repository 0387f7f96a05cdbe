//! Compares an inspection with `qemu-img info -f FORMAT` of the same image: size, references,
//! encryption. If the result of qemu-img differs from ours, [`KNOWN`] has the case and the reason.
//!
//! qemu-img runs in an empty folder, with limits of memory and time, since it opens the files that
//! an image names, and may hang or crash.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use luksmith::vet::{Report, Verdict};
use serde_json::Value;

use support::peers;

/// The format, the case, and why the results differ.
const KNOWN: &[(&str, &str, &str)] = &[
    ("vhd", "a larger geometry", LARGEST),
    ("vhd", "a disk shorter than its data", LARGEST),
    ("vhd", "an original size over the format's", LARGEST),
    ("vhd", "an original size over all limits", LARGEST),
    (
        "vhdx",
        "sectors of 4096 bytes",
        "QEMU has no such logical sectors; Hyper-V has",
    ),
    (
        "vhdx",
        "half a sector",
        "QEMU drops what is no whole sector; we count it, and reject",
    ),
    (
        "iso",
        "a volume over the end",
        "QEMU does not look into discs",
    ),
    ("iso", "the largest volume", "QEMU does not look into discs"),
    (
        "qcow2",
        "a disk larger than its L1 table",
        "it is a snapshot's, and QEMU tells that of the disk",
    ),
];

const LARGEST: &str = "QEMU tells the size that its creator is known to mean; we count the largest that any field claims";

/// QEMU's name of a format, or `None` if it does not support the format.
fn driver(format: &str) -> Option<&str> {
    Some(match format {
        "iso" | "udf" | "gpt" | "mbr" => "raw",
        "luks" | "luks1" => "luks",
        "luks2" => return None,
        "vhd" => "vpc",
        same => same,
    })
}

pub(crate) fn compare(name: &str, image: &[u8], report: &Report) -> Option<String> {
    static QEMU: OnceLock<Option<PathBuf>> = OnceLock::new();
    let qemu = QEMU.get_or_init(|| peers::find("qemu-img")).as_ref()?;
    let format = report.format.name();
    let driver = driver(format)?;
    // An image without the signature of the format is not inspected further.
    if report
        .findings
        .iter()
        .any(|finding| finding.check.id == "format.not")
    {
        return None;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("image");
    std::fs::write(&path, image).expect("an image");
    // The limit of the address space is far above ours: QEMU's libraries need hundreds of MiB.
    let output = peers::output(
        Command::new("prlimit")
            .args(["--as=4000000000", "--cpu=20", "timeout", "20"])
            .arg(qemu)
            .args(["info", "--output=json", "-f", driver, "image"])
            .current_dir(folder.path()),
    );
    let said = if output.status.success() {
        let info: Value = serde_json::from_slice(&output.stdout).expect("qemu-img prints JSON");
        differences(&info, report)
    } else if report.verdict() == Verdict::Accept {
        let error = String::from_utf8_lossy(&output.stderr);
        vec![format!("it refuses what we accept: {error}")]
    } else {
        Vec::new()
    };
    let known = KNOWN
        .iter()
        .any(|(known, case, _)| *known == format && *case == name);
    (known == said.is_empty()).then(|| format!("QEMU, known {known}: {said:?}"))
}

fn differences(info: &Value, report: &Report) -> Vec<String> {
    let mut found = Vec::new();
    // QEMU counts whole sectors.
    let size = info["virtual-size"].as_u64();
    let ours = report.virtual_size.map(|size| size.next_multiple_of(512));
    // We report no size of a header that we do not read to its end.
    if ours.is_some() && size != ours {
        found.push(format!("its size is {size:?}, ours {ours:?}"));
    }
    let specific = &info["format-specific"]["data"];
    let refers = !info["backing-filename"].is_null() || !specific["data-file"].is_null();
    let named = report.findings.iter().any(|finding| {
        ["backing", "data-file", "reference", "parent"]
            .iter()
            .any(|word| finding.check.id.contains(word))
    });
    if refers && !named {
        found.push("it names another file, we do not".to_owned());
    }
    let encrypted = info["encrypted"] == true;
    if encrypted != (report.encryption.name() != "none") {
        let ours = report.encryption.name();
        found.push(format!("encrypted: it says {encrypted}, we say {ours}"));
    }
    found
}
