//! QEMU on LUKS1 images: `qemu-img` makes and converts them, `qemu-io` writes and reads their
//! payload.
//!
//! QEMU has only LUKS1, and keys that are UTF-8 without a NUL. A newline at the end of a key file
//! is part of the key. QEMU calibrates a keyslot to at least 10 ms of this machine, which are
//! seconds in the emulated one of `dmcrypt`.

use std::path::{Path, PathBuf};
use std::process::Command;
use support::peers;

pub(crate) struct Qemu {
    img: PathBuf,
    io: PathBuf,
}

impl Qemu {
    pub(crate) fn find() -> Option<Self> {
        Some(Self {
            img: peers::find("qemu-img")?,
            io: peers::find("qemu-io")?,
        })
    }

    /// Makes a LUKS1 image for `size` bytes of payload. `options` are QEMU's:
    /// `cipher-alg=serpent-256`, `cipher-mode=cbc`, `ivgen-alg=essiv`, `ivgen-hash-alg=sha256`,
    /// `hash-alg=sha512`.
    pub(crate) fn create(&self, image: &Path, key: &Path, size: u64, options: &[&str]) {
        let mut options = options.to_vec();
        options.extend(["key-secret=key", "iter-time=10"]);
        let mut command = Command::new(&self.img);
        command.args(["create", "-q", "-f", "luks"]);
        secret(&mut command, key);
        command.arg("-o").arg(options.join(","));
        command.arg(image).arg(size.to_string());
        // On a busy machine its calibration fails at times: "Unable to get accurate CPU usage".
        for _ in 0..20 {
            let output = peers::output(&mut command);
            let error = String::from_utf8_lossy(&output.stderr);
            if output.status.success() {
                return;
            }
            assert!(
                error.contains("accurate CPU usage"),
                "{command:?} failed: {error}"
            );
        }
        panic!("{command:?} never got an accurate CPU usage");
    }

    /// Writes the plaintext file `raw` over the payload of `image`.
    pub(crate) fn convert_in(&self, raw: &Path, image: &Path, key: &Path) {
        let mut command = Command::new(&self.img);
        command.args(["convert", "-n", "-f", "raw", "--target-image-opts"]);
        secret(&mut command, key);
        peers::run(command.arg(raw).arg(luks(image)));
    }

    /// The whole payload of `image`.
    pub(crate) fn convert_out(&self, image: &Path, key: &Path) -> Vec<u8> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let raw = folder.path().join("raw");
        let mut command = Command::new(&self.img);
        command.args(["convert", "-O", "raw", "--image-opts"]);
        secret(&mut command, key);
        peers::run(command.arg(luks(image)).arg(&raw));
        std::fs::read(raw).expect("qemu-img wrote the payload")
    }

    /// Runs `qemu-io` commands on the payload, such as `write -P 0x5a 512 64k` or `read -P 0x5a 512
    /// 64k`. Fails if a read gives another pattern.
    pub(crate) fn io(&self, image: &Path, key: &Path, commands: &[&str]) {
        let mut command = Command::new(&self.io);
        secret(&mut command, key);
        for text in commands {
            command.args(["-c", text]);
        }
        let text = peers::run(command.arg("--image-opts").arg(luks(image)));
        let text = String::from_utf8_lossy(&text);
        assert!(!text.contains("failed"), "{command:?}: {text}");
    }
}

fn secret(command: &mut Command, key: &Path) {
    let object = format!("secret,id=key,file={}", key.display());
    command.arg("--object").arg(object);
}

fn luks(image: &Path) -> String {
    format!(
        "driver=luks,key-secret=key,file.driver=file,file.filename={}",
        image.display()
    )
}
