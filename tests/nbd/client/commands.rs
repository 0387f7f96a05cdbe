//! The program on exports. cryptsetup opens the volumes that it makes there, and it opens those of
//! cryptsetup.

use std::path::PathBuf;
use std::process::{Command, Output};

use super::pattern;
use super::servers::Server;
use support::peers;

const CHEAP: &str = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000";

/// A folder with two keys and the file `disk`, which a server exports.
struct Exported {
    folder: tempfile::TempDir,
    server: Server,
}

impl Exported {
    fn new(size: usize) -> Option<Self> {
        Self::through(size, &[])
    }

    /// The same, exported with filters of nbdkit.
    fn through(size: usize, filters: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk");
        let file = std::fs::File::create(&disk).unwrap();
        file.set_len(size as u64).unwrap();
        for key in ["old", "new"] {
            let key_file = folder.path().join(key);
            std::fs::write(&key_file, format!("the {key} passphrase")).unwrap();
            private(&key_file);
        }
        let disk = disk.display().to_string();
        let (mut args, parameters): (Vec<&str>, Vec<&str>) =
            filters.iter().partition(|word| word.starts_with("--"));
        args.extend(["file", &disk]);
        args.extend(parameters);
        let server = Server::nbdkit(folder.path(), &args)?;
        Some(Self { folder, server })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The arguments, with the URI of the export in place of URI.
    fn luksmith(&self, args: &str) -> Output {
        let uri = self.server.uri_text("");
        let mut command = Command::new(env!("CARGO_BIN_EXE_luksmith"));
        command.current_dir(self.folder.path());
        let words = args.split_whitespace();
        command.args(words.map(|word| word.replace("URI", &uri)));
        peers::output(&mut command)
    }

    fn ok(&self, args: &str) -> String {
        let output = self.luksmith(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the program, which has to fail with this exit code, and returns what it prints.
    fn fails(&self, args: &str, code: i32) -> String {
        let output = self.luksmith(args);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args}: {stderr}");
        stderr
    }

    /// Whether cryptsetup opens the file with this key.
    fn cryptsetup_opens(&self, key: &str) -> bool {
        let Some(cryptsetup) = peers::find("cryptsetup") else {
            return self
                .luksmith(&format!("key test disk --key-file {key}"))
                .status
                .success();
        };
        let mut command = Command::new(cryptsetup);
        command.args(["open", "--test-passphrase", "--key-file"]);
        command.arg(self.path(key)).arg(self.path("disk"));
        peers::output(&mut command).status.success()
    }
}

fn private(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

const MIB: usize = 1 << 20;

#[test]
fn create_uses_the_space_after_the_header() {
    for (format, header) in [("luks1", 2 * MIB), ("luks2", 16 * MIB)] {
        let Some(export) = Exported::new(header + 4 * MIB) else {
            return;
        };
        let made = export.ok(&format!(
            "create URI --key-file old --type {format} --json {CHEAP}"
        ));
        let made: serde_json::Value = serde_json::from_str(&made).unwrap();
        assert_eq!(made["size"], 4 * MIB, "{format}");
        assert!(export.cryptsetup_opens("old") && !export.cryptsetup_opens("new"));
        // It does not overwrite a volume without --force.
        let refused = export.fails(&format!("create URI --key-file new {CHEAP}"), 5);
        assert!(
            refused.contains("--force overwrite") && refused.contains("volume"),
            "{refused}"
        );
        assert!(export.cryptsetup_opens("old"));
        export.ok(&format!(
            "create URI --key-file new --type {format} --force overwrite {CHEAP}"
        ));
        assert!(export.cryptsetup_opens("new") && !export.cryptsetup_opens("old"));
    }
}

#[test]
fn there_and_back() {
    let Some(export) = Exported::new(40 * MIB) else {
        return;
    };
    let plain = pattern(24 * MIB - 512 * 3, 8);
    std::fs::write(export.path("plain"), &plain).unwrap();
    export.ok(&format!("encrypt plain URI --key-file old {CHEAP}"));
    export.ok("decrypt URI out --key-file old");
    assert!(std::fs::read(export.path("out")).unwrap()[..plain.len()] == plain);
    // The copy in the file is a volume too.
    export.ok("decrypt disk again --key-file old");
    assert!(std::fs::read(export.path("again")).unwrap()[..plain.len()] == plain);
    // From an export to stdout, the bytes have to be in order.
    let stdout = export.luksmith("decrypt URI - --key-file old").stdout;
    assert!(stdout[..plain.len()] == plain);
    let larger = export.fails(
        &format!("encrypt out URI --key-file old --force overwrite {CHEAP} --size 1G"),
        1,
    );
    assert!(larger.contains("reaches to its end"), "{larger}");
}

#[test]
fn keys_headers_tokens_and_settings() {
    let Some(export) = Exported::new(20 * MIB) else {
        return;
    };
    export.ok(&format!("create URI --key-file old {CHEAP}"));
    export.ok(&format!(
        "key add URI --key-file old --new-key-file new {CHEAP}"
    ));
    assert!(export.cryptsetup_opens("new"));
    export.ok("key test URI --key-file new");
    export.ok("key remove URI --key-file old --force unproven");
    assert!(!export.cryptsetup_opens("old"));
    export.ok(&format!(
        "key change URI --key-file new --new-key-file old {CHEAP}"
    ));
    assert!(export.cryptsetup_opens("old") && !export.cryptsetup_opens("new"));
    export.ok("config URI --label remote");
    assert!(export.ok("info URI --json").contains("remote"));
    std::fs::write(export.path("token"), r#"{"type":"x","keyslots":[]}"#).unwrap();
    export.ok("token import URI --json-file token");
    assert!(export.ok("token list URI").contains('x'));
    export.ok("header backup URI backup");
    export.ok("config URI --label other");
    export.ok("header restore URI backup --force restore --undo-file undo");
    assert!(export.cryptsetup_opens("old") && !export.path("undo").exists());
    assert!(export.ok("header repair URI").contains("nothing to repair"));
    let fixed = export.fails("resize URI --size 1M", 1);
    assert!(fixed.contains("reaches to its end"), "{fixed}");
    export.ok("token remove URI --token-id 0");
    export.ok("config URI --label=");
    export.ok("header erase URI --force erase");
    assert!(!export.cryptsetup_opens("old"));
}

#[test]
fn convert() {
    let Some(export) = Exported::new(20 * MIB) else {
        return;
    };
    export.ok(&format!(
        "create URI --key-file old --type luks1 --offset 32768 {CHEAP}"
    ));
    let undo = export.fails("convert URI --to luks2 --force convert", 1);
    assert!(undo.contains("--undo-file PATH"), "{undo}");
    export.ok("convert URI --to luks2 --force convert --undo-file undo");
    assert!(!export.path("undo").exists());
    assert!(export.cryptsetup_opens("old"));
    assert!(export.ok("info URI").contains("LUKS2"));
}

#[test]
fn a_header_in_a_file_and_one_on_an_export() {
    let Some(export) = Exported::new(8 * MIB) else {
        return;
    };
    export.ok(&format!(
        "create URI --header header --key-file old {CHEAP} --force overwrite"
    ));
    let plain = pattern(8 * MIB, 3);
    std::fs::write(export.path("plain"), &plain).unwrap();
    export.ok(&format!(
        "encrypt plain URI --header other --key-file old {CHEAP}"
    ));
    export.ok("decrypt URI out --header other --key-file old");
    assert!(std::fs::read(export.path("out")).unwrap() == plain);
    let Some(header) = Exported::new(17 * MIB) else {
        return;
    };
    let uri = header.server.uri_text("");
    export.ok(&format!(
        "create data --size 1M --header {uri} --key-file old {CHEAP}"
    ));
    export.ok(&format!("key test data --header {uri} --key-file old"));
    assert!(header.cryptsetup_opens("old"));
}

#[test]
fn what_cryptsetup_made() {
    let Some(cryptsetup) = peers::find("cryptsetup") else {
        return;
    };
    let Some(export) = Exported::new(20 * MIB) else {
        return;
    };
    let mut command = Command::new(cryptsetup);
    command.args(["luksFormat", "--batch-mode", "--key-file"]);
    command.arg(export.path("old")).args(CHEAP.split(' '));
    peers::run(command.arg(export.path("disk")));
    export.ok("key test URI --key-file old");
    export.ok("decrypt URI out --key-file old");
    assert_eq!(
        std::fs::metadata(export.path("out")).unwrap().len(),
        4 * MIB as u64
    );
}

#[test]
fn verify_ciphertext_finds_plaintext() {
    let Some(export) = Exported::new(20 * MIB) else {
        return;
    };
    export.ok(&format!("create URI --key-file old {CHEAP}"));
    let empty = export.ok("verify-ciphertext URI");
    assert!(empty.contains("hole: 4 MiB at byte 16777216\n"), "{empty}");
    let plain = pattern(4 * MIB, 7);
    std::fs::write(export.path("plain"), &plain).unwrap();
    export.ok(&format!(
        "encrypt plain URI --key-file old --force overwrite {CHEAP}"
    ));
    let report = export.ok("verify-ciphertext URI --json");
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["areas"][3]["random"], 4 * MIB, "{report}");
    // Plaintext that was written without the cipher.
    let disk = std::fs::OpenOptions::new()
        .write(true)
        .open(export.path("disk"));
    let text = [b'x'; 512];
    std::os::unix::fs::FileExt::write_all_at(&disk.unwrap(), &text, 18 << 20).unwrap();
    let output = export.luksmith("verify-ciphertext URI");
    assert_eq!(output.status.code(), Some(11));
    let told = String::from_utf8(output.stdout).unwrap();
    let expected = "suspicious: 512 bytes at byte 18874368: low entropy\n";
    assert!(told.contains(expected), "{told}");
    // A part that cannot be read is an error and not a finding.
    drop(export.server);
    let mut command = Command::new(env!("CARGO_BIN_EXE_luksmith"));
    let gone = format!(
        "nbd+unix:///?socket={}",
        export.folder.path().join("socket").display()
    );
    let gone = peers::output(command.args(["verify-ciphertext", &gone]));
    assert_eq!(gone.status.code(), Some(4));
}

/// Requests are at least 4096 bytes and at most 64 KiB.
#[test]
fn an_export_of_large_blocks() {
    let policy = [
        "--filter=blocksize-policy",
        "blocksize-minimum=4096",
        "blocksize-maximum=64K",
        "blocksize-error-policy=error",
    ];
    let Some(export) = Exported::through(20 * MIB, &policy) else {
        return;
    };
    let plain = pattern(3 * MIB + 512, 5);
    std::fs::write(export.path("plain"), &plain).unwrap();
    export.ok(&format!(
        "encrypt plain URI --key-file old --sector-size 512 {CHEAP}"
    ));
    export.ok(&format!(
        "key change URI --key-file old --new-key-file new {CHEAP}"
    ));
    export.ok("decrypt URI out --key-file new");
    assert!(std::fs::read(export.path("out")).unwrap()[..plain.len()] == plain);
    assert!(export.cryptsetup_opens("new"));
}

#[test]
fn a_bad_location_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let run = |location: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_luksmith"));
        let output = peers::output(command.current_dir(folder.path()).args(["info", location]));
        let stderr = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), stderr)
    };
    let (code, said) = run("nbd://user:hunter2@host/");
    assert!(
        code == Some(1) && said.contains("password") && !said.contains("hunter2"),
        "{said}"
    );
    let (code, said) = run("ftp://host/disk");
    assert!(
        code == Some(1) && said.contains("hint: a file of that name is ./NAME"),
        "{said}"
    );
    let (code, said) = run("nbd+unix:///?socket=none");
    assert!(
        code == Some(4) && said.contains("cannot be reached"),
        "{said}"
    );
    let (code, said) = run("./nbd://host/");
    assert!(code == Some(4) && said.contains("does not exist"), "{said}");
}

/// The server delays each reply by 10 ms, so the copy has to send several requests at once.
#[test]
fn bulk_copies_keep_several_requests_in_flight() {
    let delay = ["--filter=delay", "delay-read=20ms", "delay-write=20ms"];
    let Some(export) = Exported::through(80 * MIB, &delay) else {
        return;
    };
    let plain = pattern(64 * MIB, 6);
    std::fs::write(export.path("plain"), &plain).unwrap();
    export.ok(&format!("encrypt plain URI --key-file old {CHEAP}"));
    export.ok("decrypt URI out --key-file old");
    assert!(std::fs::read(export.path("out")).unwrap() == plain);
}
