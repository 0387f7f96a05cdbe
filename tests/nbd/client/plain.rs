//! Exports with plain data: the source of `encrypt` and the destination of `decrypt`; and copies
//! of volumes from and to exports.

use std::path::PathBuf;
use std::process::{Command, Output};

use super::pattern;
use super::servers::Server;
use support::peers;

const SIZE: usize = 3 * 1024 * 1024 + 512;

/// A folder with a key, the plain data `plain`, and its volume `disk.img`.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("key", b"secret");
        folder.write("plain", &content());
        folder.ok("encrypt plain disk.img --sector-size 512");
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(self.path(name), bytes).unwrap();
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(self.path(name), private).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    fn luksmith(&self, args: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_luksmith"));
        command.current_dir(self.0.path()).args(args.split(' '));
        command.args(["--key-file", "key"]);
        if !args.starts_with("decrypt") {
            command.args(["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]);
        }
        peers::output(&mut command)
    }

    #[track_caller]
    fn ok(&self, args: &str) -> Vec<u8> {
        let output = self.luksmith(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args}: {said}");
        output.stdout
    }

    #[track_caller]
    fn fails(&self, args: &str, code: i32, said: &str) {
        let output = self.luksmith(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args}: {stderr}");
        assert!(stderr.contains(said), "{args}: {said:?} not in:\n{stderr}");
    }
}

fn content() -> Vec<u8> {
    pattern(SIZE, 7)
}

#[test]
fn an_export_is_encrypted() {
    let folder = Folder::new();
    let plain = folder.text("plain");
    let nbdkit = Server::nbdkit(folder.0.path(), &["--readonly", "file", &plain]);
    let Some(server) = nbdkit else { return };
    let uri = server.uri_text("");
    folder.ok(&format!("encrypt {uri} new.img"));
    assert!(folder.ok("decrypt new.img -") == content());
    drop(server);

    let qemu = Server::qemu_nbd(folder.0.path(), &["--read-only", "--format=raw", &plain]);
    let Some(server) = qemu else { return };
    let uri = server.uri_text("");
    folder.ok(&format!("encrypt {uri} new.img --force overwrite"));
    assert!(folder.ok("decrypt new.img -") == content());
}

#[test]
fn a_qcow2_image_on_an_export_is_refused_or_read() {
    let folder = Folder::new();
    let Some(qemu) = peers::find("qemu-img") else {
        return;
    };
    let mut convert = Command::new(qemu);
    convert.args(["convert", "-f", "raw", "-O", "qcow2"]);
    peers::run(convert.arg(folder.path("plain")).arg(folder.path("image")));
    let image = folder.text("image");
    let Some(server) = Server::nbdkit(folder.0.path(), &["file", &image]) else {
        return;
    };
    let uri = server.uri_text("");
    folder.fails(
        &format!("encrypt {uri} new.img"),
        1,
        "--source-format qcow2",
    );
    folder.ok(&format!("encrypt {uri} new.img --source-format qcow2"));
    assert!(folder.ok("decrypt new.img -") == content());
}

#[test]
fn a_volume_is_decrypted_to_an_export() {
    let folder = Folder::new();
    let mut there = vec![0; SIZE + 4096];
    there[..512].fill(7);
    there[SIZE..].fill(7);
    let (out, log) = (
        folder.text("out"),
        format!("logfile={}", folder.text("log")),
    );
    for args in [
        &["--filter=log", "file", &out, &log][..],
        // The volume ends within a block of this server.
        &[
            "--filter=log",
            "--filter=blocksize-policy",
            "file",
            &out,
            &log,
            "blocksize-minimum=4096",
            "blocksize-error-policy=error",
        ],
    ] {
        folder.write("out", &there);
        let Some(server) = Server::nbdkit(folder.0.path(), args) else {
            return;
        };
        let uri = server.uri_text("");
        folder.fails(&format!("decrypt disk.img {uri}"), 5, "--force overwrite");
        assert!(folder.read("out") == there);
        folder.ok(&format!("decrypt disk.img {uri} --force overwrite"));
        drop(server);
        let mut expected = content();
        expected.extend(&there[SIZE..]);
        assert!(folder.read("out") == expected, "{args:?}");
        // The flush comes after the last write.
        let log = String::from_utf8(folder.read("log")).unwrap();
        let last = |word: &str| log.rfind(word);
        assert!(last(" Flush").unwrap() > last(" Write").unwrap(), "{log}");
        std::fs::remove_file(folder.path("log")).unwrap();
    }
    let empty = vec![0; SIZE];
    folder.write("out", &empty);
    let qemu = Server::qemu_nbd(folder.0.path(), &["--format=raw", &out]);
    let Some(server) = qemu else { return };
    // An empty export is written without a question.
    folder.ok(&format!("decrypt disk.img {}", server.uri_text("")));
    drop(server);
    assert!(folder.read("out") == content());
}

#[test]
fn a_failed_write_or_flush_and_a_small_export_are_errors() {
    let folder = Folder::new();
    for (args, said) in [
        (
            &["--filter=error", "memory", "4M", "error-pwrite-rate=1"][..],
            "only partly written",
        ),
        (
            &[
                "eval",
                "get_size=echo 4194304",
                "pread=head -c $3 /dev/zero",
                "pwrite=cat > /dev/null",
                "can_flush=exit 0",
                "flush=echo EIO >&2; exit 1",
            ],
            "only partly written",
        ),
        (&["memory", "3M"], "has 3145728 bytes, the volume 3146240"),
        (&["--readonly", "memory", "4M"], "read-only"),
    ] {
        let Some(server) = Server::nbdkit(folder.0.path(), args) else {
            return;
        };
        let args = format!("decrypt disk.img {} --timeout 5", server.uri_text(""));
        let output = folder.luksmith(&args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{args}");
        assert!(stderr.contains(said), "{args}: {stderr}");
    }
    let read = ["--filter=error", "pattern", "4M", "error-pread-rate=1"];
    let Some(server) = Server::nbdkit(folder.0.path(), &read) else {
        return;
    };
    let args = format!(
        "encrypt {} new.img --source-format raw --timeout 5",
        server.uri_text("")
    );
    assert!(!folder.luksmith(&args).status.success());
    assert!(!folder.path("new.img").exists());
}

#[test]
fn plaintext_does_not_cross_a_network_without_tls() {
    let folder = Folder::new();
    let way = "--force plaintext-over-network";
    // Nothing listens there: the refusal comes before any connection.
    folder.fails("encrypt nbd://127.0.0.1:1/x new.img", 1, way);
    folder.fails(
        "encrypt nbd://127.0.0.1:1/x new.img --source-format qcow2",
        1,
        way,
    );
    folder.fails(
        "decrypt disk.img nbd://127.0.0.1:1/x --force overwrite",
        1,
        way,
    );
    let forced = folder.luksmith(
        "decrypt disk.img nbd://127.0.0.1:1/x --force plaintext-over-network --timeout 1",
    );
    let said = String::from_utf8_lossy(&forced.stderr);
    assert!(!forced.status.success() && !said.contains(way), "{said}");
}

#[test]
fn an_export_is_not_its_own_destination() {
    let folder = Folder::new();
    let disk = folder.text("disk.img");
    let Some(server) = Server::nbdkit(folder.0.path(), &["file", &disk]) else {
        return;
    };
    let uri = server.uri_text("");
    let before = folder.read("disk.img");
    folder.fails(
        &format!("decrypt {uri} {uri} --force overwrite"),
        1,
        "may be the source",
    );
    folder.fails(
        &format!("copy {uri} {uri} --force overwrite"),
        1,
        "may be the source",
    );
    folder.fails(
        &format!("copy disk.img {uri} --force overwrite"),
        1,
        "may be the source",
    );
    let args = format!("encrypt {uri} {uri} --source-format raw --force overwrite");
    folder.fails(&args, 1, "may be the source");
    assert!(folder.read("disk.img") == before);
}

#[test]
fn a_volume_is_copied_from_one_export_to_another() {
    let folder = Folder::new();
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let disk = folder.text("disk.img");
    let source = Server::nbdkit(from.path(), &["--readonly", "file", &disk]);
    let target = Server::nbdkit(to.path(), &["memory", "32M"]);
    let (Some(source), Some(target)) = (source, target) else {
        return;
    };
    let (from, to) = (source.uri_text(""), target.uri_text(""));
    folder.ok(&format!("copy {from} {to} --type luks1"));
    let read = folder.ok(&format!("decrypt {to} -"));
    assert!(read[..SIZE] == content());
    folder.ok(&format!("copy {from} new.img"));
    assert!(folder.ok("decrypt new.img -") == content());

    let small = tempfile::tempdir().unwrap();
    let small = Server::nbdkit(small.path(), &["memory", "17M"]).unwrap();
    let args = format!("copy {from} {}", small.uri_text(""));
    folder.fails(&args, 4, "has room for");
}
