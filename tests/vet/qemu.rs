//! Images of QEMU and cryptsetup, with all options that change the format. Each is accepted in its
//! own format, and refused in any other.

use std::path::{Path, PathBuf};
use std::process::Command;

use luksmith::vet::Format;

use crate::{differ, judge};
use support::peers;

struct Makers {
    qemu: PathBuf,
    folder: tempfile::TempDir,
}

impl Makers {
    fn find() -> Option<Self> {
        let made = Self {
            qemu: peers::find("qemu-img")?,
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        std::fs::write(made.path("key"), "passphrase").unwrap();
        // Data, zeroes, and repeated bytes: 3 MiB and a sector.
        let raw: Vec<u8> = (0..(3_u32 << 20) + 512)
            .map(|at| match at >> 18 {
                0..4 => (at.wrapping_mul(0x9e37_79b9) >> 24).to_le_bytes()[0],
                4..8 => 0,
                _ => 0x55,
            })
            .collect();
        std::fs::write(made.path("raw"), raw).unwrap();
        Some(made)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn img(&self, arguments: &[&str]) {
        // QEMU's calibration for LUKS fails sometimes: "Unable to get accurate CPU usage".
        for _ in 0..20 {
            let mut command = Command::new(&self.qemu);
            let output = peers::output(command.args(arguments).current_dir(self.folder.path()));
            let error = String::from_utf8_lossy(&output.stderr);
            if output.status.success() {
                return;
            }
            assert!(
                error.contains("accurate CPU usage"),
                "{arguments:?}: {error}"
            );
        }
    }

    fn io(&self, image: &str, command: &str) {
        if let Some(io) = peers::find("qemu-io") {
            peers::run(
                Command::new(io)
                    .args(["-c", command, image])
                    .current_dir(self.folder.path()),
            );
        }
    }

    #[track_caller]
    fn accepted(&self, what: &str, name: &str, format: &str) {
        let image = std::fs::read(self.path(name)).unwrap();
        let report = judge::inspect(&image, format);
        judge::one(what, &report, "");
        assert_eq!(differ::compare(what, &image, &report), None, "{what}");
        for other in Format::ALL.map(Format::name) {
            let same = other == format || (other == "luks" && format.starts_with("luks"));
            if !same && !image.is_empty() {
                let verdict = judge::inspect(&image, other).verdict().name();
                assert_eq!(verdict, "reject", "{what} as {other}");
            }
        }
    }

    fn converted(&self, format: &str, ours: &str, options: &[&str]) {
        for option in options {
            for compressed in [false, true] {
                let mut arguments = vec!["convert", "-O", format, "raw", "image"];
                if !option.is_empty() {
                    arguments.extend(["-o", *option]);
                }
                let compresses = format == "qcow2" && !option.contains("preallocation");
                if compressed && !compresses {
                    continue;
                }
                if compressed {
                    arguments.push("-c");
                }
                _ = std::fs::remove_file(self.path("image"));
                self.img(&arguments);
                self.accepted(&format!("{format} {option} {compressed}"), "image", ours);
            }
        }
    }
}

#[test]
fn qcow2() {
    let Some(makers) = Makers::find() else { return };
    makers.converted(
        "qcow2",
        "qcow2",
        &[
            "compat=0.10",
            "compat=1.1",
            "extended_l2=on",
            "extended_l2=on,cluster_size=16k",
            "compression_type=zstd",
            "lazy_refcounts=on",
            "refcount_bits=1",
            "refcount_bits=64",
            "cluster_size=512",
            "cluster_size=4k",
            "cluster_size=2M",
            "preallocation=metadata",
            "preallocation=falloc",
            "preallocation=full",
        ],
    );
    for size in ["0", "512", "1T", "8T"] {
        makers.img(&["create", "-q", "-f", "qcow2", "new", size]);
        makers.accepted(size, "new", "qcow2");
    }
}

#[test]
fn formats_of_others() {
    let Some(makers) = Makers::find() else { return };
    makers.converted("qed", "qed", &["", "cluster_size=4096"]);
    makers.converted("vdi", "vdi", &["static=off", "static=on"]);
    makers.converted(
        "vpc",
        "vhd",
        &[
            "subformat=dynamic",
            "subformat=fixed",
            "force_size=on",
            "force_size=on,subformat=fixed",
        ],
    );
    makers.converted(
        "vhdx",
        "vhdx",
        &[
            "subformat=dynamic",
            "subformat=fixed",
            "block_size=1M",
            "log_size=2M",
            "block_state_zero=off",
        ],
    );
    makers.converted(
        "vmdk",
        "vmdk",
        &[
            "subformat=monolithicSparse",
            "subformat=streamOptimized",
            "compat6=on",
            "adapter_type=lsilogic,hwversion=10",
            "zeroed_grain=on",
        ],
    );
    for (format, ours) in [
        ("qed", "qed"),
        ("vdi", "vdi"),
        ("vpc", "vhd"),
        ("vhdx", "vhdx"),
        ("vmdk", "vmdk"),
    ] {
        for size in ["10M", "1G", "40G", "1T"] {
            makers.img(&["create", "-q", "-f", format, "new", size]);
            makers.accepted(&format!("{format} of {size}"), "new", ours);
            std::fs::remove_file(makers.path("new")).unwrap();
        }
    }
}

#[test]
fn vmdk_in_several_files() {
    let Some(makers) = Makers::find() else { return };
    for subformat in [
        "monolithicFlat",
        "twoGbMaxExtentFlat",
        "twoGbMaxExtentSparse",
    ] {
        let option = format!("subformat={subformat}");
        makers.img(&["convert", "-O", "vmdk", "-o", &option, "raw", "disk.vmdk"]);
        let image = std::fs::read(makers.path("disk.vmdk")).unwrap();
        judge::one(subformat, &judge::inspect(&image, "vmdk"), "policy.feature");
        let storage = luksmith::backend::memory::MemoryBackend::from_bytes(image);
        let policy = luksmith::vet::Policy::parse("features = ['extent-files']").unwrap();
        let report = judge::inspect_on(&storage, "vmdk", &policy);
        judge::one(subformat, &report, "vmdk.extent-file");
        assert_eq!(report.virtual_size, Some((3 << 20) + 512));
    }
}

#[test]
fn qcow2_with_luks() {
    let Some(makers) = Makers::find() else { return };
    for compat in ["0.10", "1.1"] {
        let options = format!(
            "compat={compat},encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"
        );
        makers.img(&[
            "create",
            "-q",
            "-f",
            "qcow2",
            "--object",
            "secret,id=s,file=key",
            "-o",
            &options,
            "new",
            "10M",
        ]);
        makers.accepted(compat, "new", "qcow2");
        let image = std::fs::read(makers.path("new")).unwrap();
        assert_eq!(judge::inspect(&image, "qcow2").encryption.name(), "luks1");
    }
}

#[test]
fn qcow2_with_snapshots_and_bitmaps() {
    let Some(makers) = Makers::find() else { return };
    makers.img(&["create", "-q", "-f", "qcow2", "new", "20M"]);
    makers.io("new", "write 0 3M");
    makers.img(&["snapshot", "-c", "one", "new"]);
    makers.img(&["bitmap", "--add", "new", "all"]);
    makers.img(&["bitmap", "--add", "--disable", "-g", "4096", "new", "none"]);
    makers.io("new", "write 1M 3M");
    makers.img(&["resize", "-q", "new", "30M"]);
    makers.img(&["bitmap", "--add", "new", "later"]);
    makers.io("new", "discard 2M 1M");
    makers.img(&["snapshot", "-c", "two", "new"]);
    makers.accepted("snapshots and bitmaps", "new", "qcow2");
    // Then the table of snapshots is at the end of the file, and not padded to 8 bytes.
    makers.img(&["create", "-q", "-f", "qcow2", "fresh", "1M"]);
    makers.img(&["snapshot", "-c", "a", "fresh"]);
    makers.accepted("a snapshot of nothing", "fresh", "qcow2");
}

#[test]
fn luks_volumes_of_others() {
    let Some(makers) = Makers::find() else { return };
    let options = "key-secret=s,iter-time=10";
    makers.img(&[
        "create",
        "-q",
        "-f",
        "luks",
        "--object",
        "secret,id=s,file=key",
        "-o",
        options,
        "new",
        "1M",
    ]);
    makers.accepted("QEMU's LUKS1", "new", "luks1");
    let Some(cryptsetup) = peers::find("cryptsetup") else {
        return;
    };
    for version in ["luks1", "luks2"] {
        format_volume(
            &cryptsetup,
            &makers.path("volume"),
            &makers.path("key"),
            version,
        );
        makers.accepted(version, "volume", version);
    }
}

fn format_volume(cryptsetup: &Path, image: &Path, key: &Path, version: &str) {
    let file = std::fs::File::create(image).unwrap();
    file.set_len(20 << 20).unwrap();
    let mut command = Command::new(cryptsetup);
    command.args([
        "luksFormat",
        "-q",
        "--type",
        version,
        "--pbkdf-force-iterations",
        "1000",
    ]);
    if version == "luks2" {
        command.args(["--pbkdf", "pbkdf2"]);
    }
    peers::run(command.arg(image).arg(key));
}
