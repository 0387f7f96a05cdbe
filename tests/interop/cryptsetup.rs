//! cryptsetup on plain files: headers, keyslots and tokens. It reads no payload without the kernel;
//! `dmcrypt` does that.
//!
//! Keys are always in files, so that every byte counts. cryptsetup's own AES in keyslot areas needs
//! no kernel. Serpent, Twofish and Camellia need AF_ALG, which `dmcrypt` has.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use luksmith_formats::json::Value;
use support::peers;

/// PBKDF2 at its lowest cost. Each `luksFormat` or `luksAddKey` here uses one of these.
pub(crate) const QUICK_PBKDF2: &[&str] = &["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];

/// Argon2id at its lowest cost.
pub(crate) const QUICK_ARGON2ID: &[&str] = &[
    "--pbkdf",
    "argon2id",
    "--pbkdf-force-iterations",
    "4",
    "--pbkdf-memory",
    "32",
    "--pbkdf-parallel",
    "1",
];

/// Argon2i at its lowest cost.
pub(crate) const QUICK_ARGON2I: &[&str] = &[
    "--pbkdf",
    "argon2i",
    "--pbkdf-force-iterations",
    "4",
    "--pbkdf-memory",
    "32",
    "--pbkdf-parallel",
    "1",
];

pub(crate) struct Cryptsetup(PathBuf);

impl Cryptsetup {
    pub(crate) fn find() -> Option<Self> {
        peers::find("cryptsetup").map(Self)
    }

    /// Makes a volume in the file `image`, which exists and has its full size. `args` are options
    /// of cryptsetup: the type, the cipher, the cost, `--header`.
    pub(crate) fn format(&self, image: &Path, key: &Path, args: &[&[&str]]) {
        let mut command = self.command("luksFormat", args);
        peers::run(command.arg("--key-file").arg(key).arg(image));
    }

    /// Adds the passphrase in the file `new` by the one in `key`.
    pub(crate) fn add_key(&self, image: &Path, key: &Path, new: &Path, args: &[&[&str]]) {
        let mut command = self.command("luksAddKey", args);
        peers::run(command.arg("--key-file").arg(key).arg(image).arg(new));
    }

    /// Replaces the passphrase in `key` by the one in `new`.
    pub(crate) fn change_key(&self, image: &Path, key: &Path, new: &Path, args: &[&[&str]]) {
        let mut command = self.command("luksChangeKey", args);
        peers::run(command.arg("--key-file").arg(key).arg(image).arg(new));
    }

    /// Removes the keyslot that the passphrase in `key` opens.
    pub(crate) fn remove_key(&self, image: &Path, key: &Path) {
        peers::run(self.command("luksRemoveKey", &[]).arg(image).arg(key));
    }

    /// The keyslot that the passphrase in `key` opens; `None` if it opens none.
    ///
    /// # Panics
    ///
    /// If cryptsetup fails for any other reason than the passphrase. A header that it does not
    /// accept is not the same as a wrong key.
    pub(crate) fn slot_of(&self, image: &Path, key: &Path, args: &[&[&str]]) -> Option<u32> {
        let mut command = self.command("open", args);
        command.args(["--test-passphrase", "--verbose", "--key-file"]);
        command.arg(key).arg(image);
        let output = peers::output(&mut command);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        match output.status.code() {
            Some(0) => {}
            Some(2) if text.contains("No key available") => return None,
            Some(1) if text.contains("No usable keyslot") => return None,
            _ => panic!("{command:?} failed: {text}"),
        }
        let (_, slot) = text
            .split_once("Key slot ")
            .expect("verbose names the keyslot");
        slot.split_once(' ').and_then(|(slot, _)| slot.parse().ok())
    }

    /// What `luksDump` prints.
    pub(crate) fn dump(&self, image: &Path) -> String {
        let text = peers::run(self.command("luksDump", &[]).arg(image));
        String::from_utf8(text).expect("luksDump prints text")
    }

    /// The JSON area of a LUKS2 volume.
    pub(crate) fn json(&self, image: &Path) -> Value {
        let text = peers::run(
            self.command("luksDump", &[&["--dump-json-metadata"]])
                .arg(image),
        );
        Value::parse(&text).expect("luksDump prints JSON")
    }

    /// The volume key.
    pub(crate) fn volume_key(&self, image: &Path, key: &Path) -> Vec<u8> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let out = folder.path().join("volume-key");
        let mut command = self.command("luksDump", &[&["--dump-volume-key", "--volume-key-file"]]);
        peers::run(command.arg(&out).arg("--key-file").arg(key).arg(image));
        std::fs::read(out).expect("cryptsetup wrote the volume key")
    }

    /// Another command on the image, which must succeed: `convert`, `luksHeaderBackup`, `token`,
    /// `reencrypt`, …
    pub(crate) fn run<A: AsRef<OsStr>>(&self, verb: &str, args: &[A]) -> Vec<u8> {
        peers::run(self.command(verb, &[]).args(args))
    }

    /// The same for a command that may fail.
    pub(crate) fn output<A: AsRef<OsStr>>(&self, verb: &str, args: &[A]) -> Output {
        peers::output(self.command(verb, &[]).args(args))
    }

    fn command(&self, verb: &str, args: &[&[&str]]) -> Command {
        let mut command = Command::new(&self.0);
        command.args(["--batch-mode", verb]).args(args.concat());
        command
    }
}
