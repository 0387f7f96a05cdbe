//! swtpm, a TPM 2.0 in a process, at a Unix socket; and its clients: tpm2-tools,
//! systemd-cryptenroll, and libcryptsetup with the plugin of systemd.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::peers;

/// Opens a volume with the plugin of systemd: the image, the TCTI of the TPM, and the PIN. Prints
/// the keyslot, or a negative number. Its options name the TPM, as no option of cryptsetup does.
const OPEN: &str = r#"
import ctypes, sys
image, device, pin = sys.argv[1:]
class Options(ctypes.Structure):
    _fields_ = [("pcrs", ctypes.c_uint32), ("device", ctypes.c_char_p), ("signature", ctypes.c_char_p)]
library = ctypes.CDLL("libcryptsetup.so.12")
device_pointer = ctypes.c_void_p()
assert library.crypt_init(ctypes.byref(device_pointer), image.encode()) == 0
assert library.crypt_load(device_pointer, b"LUKS2", None) == 0
options = Options(0xffffffff, device.encode(), None)
pin = pin.encode()
print(library.crypt_activate_by_token_pin(
    device_pointer, None, b"systemd-tpm2", -1, pin or None, ctypes.c_size_t(len(pin)),
    ctypes.byref(options), 0))
"#;

/// A TPM, which ends when this is dropped. Its state is new.
#[derive(Debug)]
pub struct Swtpm {
    process: Child,
    folder: tempfile::TempDir,
}

impl Swtpm {
    /// `None` if a peer is missing.
    ///
    /// # Panics
    ///
    /// If swtpm does not start.
    pub fn start() -> Option<Self> {
        for peer in ["tpm2_pcrextend", "systemd-cryptenroll", "python3"] {
            peers::find(peer)?;
        }
        let program = peers::find("swtpm")?;
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("tpm");
        let mut command = Command::new(program);
        command
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .arg("--tpmstate")
            .arg(format!("dir={}", folder.path().display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", socket.display()))
            // Clients of libtss2 take this name of the second socket for granted.
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}.ctrl", socket.display()))
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let mut process = command.spawn().expect("swtpm starts");
        // Both sockets are there before it accepts clients. A connection would count as a client.
        for _ in 0..500 {
            let ended = process.try_wait().expect("the process is ours");
            assert!(ended.is_none(), "swtpm ended");
            if UnixStream::connect(socket.with_extension("ctrl")).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(Self { process, folder })
    }

    /// The socket at which it takes commands.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("tpm")
    }

    /// The TPM as an argument of `--tpm2-device`.
    pub fn name(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    fn tcti(&self) -> String {
        format!("swtpm:path={}", self.socket().display())
    }

    /// Runs a program of tpm2-tools in the folder of the TPM, and returns what it prints.
    ///
    /// # Panics
    ///
    /// If the program fails.
    pub fn tool(&self, line: &str) -> String {
        let mut words = line.split(' ');
        let name = words.next().unwrap_or_default();
        let program = peers::find(name).expect("tpm2-tools are there");
        let mut command = Command::new(program);
        command.args(words).current_dir(self.folder.path());
        command.env("TPM2TOOLS_TCTI", self.tcti());
        let printed = peers::run(&mut command);
        String::from_utf8(printed).expect("text")
    }

    /// The folder in which [`tool`](Self::tool) runs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Extends a PCR of the SHA-256 bank.
    ///
    /// # Panics
    ///
    /// If the program fails.
    pub fn extend(&self, pcr: u32) {
        self.tool(&format!("tpm2_pcrextend {pcr}:sha256={}", "a5".repeat(32)));
    }

    /// Flushes what systemd 252 leaves in a TPM without a resource manager: the session of an
    /// encryption always, and all else when the policy is not met.
    ///
    /// # Panics
    ///
    /// If a program fails.
    pub fn clear(&self) {
        self.tool("tpm2_flushcontext --transient-object");
        self.tool("tpm2_flushcontext --loaded-session");
    }

    /// How many objects and sessions are in the TPM.
    ///
    /// # Panics
    ///
    /// If a program fails.
    pub fn left(&self) -> usize {
        ["handles-transient", "handles-loaded-session"]
            .map(|kind| self.tool(&format!("tpm2_getcap {kind}")).lines().count())
            .into_iter()
            .sum()
    }

    /// Enrols this TPM with systemd-cryptenroll.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn enrol(&self, image: &Path, passphrase: &str, pcrs: &str, pin: Option<&str>) {
        let program = peers::find("systemd-cryptenroll").expect("it was found before");
        let mut command = Command::new(program);
        command
            .arg(format!("--tpm2-device={}", self.tcti()))
            .arg(format!("--tpm2-pcrs={pcrs}"))
            .arg(image)
            .env("PASSWORD", passphrase);
        if let Some(pin) = pin {
            command.arg("--tpm2-with-pin=yes").env("NEWPIN", pin);
        }
        peers::run(&mut command);
        self.clear();
    }

    /// The keyslot that the plugin of systemd opens in libcryptsetup.
    ///
    /// # Panics
    ///
    /// If the plugin cannot be asked.
    pub fn systemd_opens(&self, image: &Path, pin: &str) -> Option<u32> {
        // libcryptsetup is that of the system, as is its plugin.
        let mut python = Command::new("/usr/bin/python3");
        python.args(["-c", OPEN]).arg(image).arg(self.tcti());
        let printed = peers::run(python.arg(pin));
        self.clear();
        let printed = String::from_utf8(printed).expect("a number");
        printed.trim().parse().ok()
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
