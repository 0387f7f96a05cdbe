//! Certificates as QEMU's documentation has admins make them, with gnutls' `certtool`.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::peers;

/// Makes a directory with `ca-cert.pem`, `server-cert.pem`, `client-cert.pem` and their keys, the
/// keys being of the type `kind` (`rsa`, `ecdsa`, …), or of a type and curve (`ecdsa secp521r1`).
///
/// # Panics
///
/// If a file cannot be written, or certtool fails.
pub fn make(certtool: &Path, kind: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let template = |name: &str, text: &str| {
        let path = file(&format!("{name}.info"));
        fs::write(&path, text).unwrap();
        path
    };
    let key = |name: &str| {
        let path = file(name);
        let mut command = Command::new(certtool);
        let (kind, curve) = kind.split_once(' ').unwrap_or((kind, ""));
        command.args(["--generate-privkey", "--key-type", kind]);
        if !curve.is_empty() {
            command.args(["--curve", curve]);
        }
        command.arg("--outfile");
        peers::run(command.arg(&path));
        path
    };
    let ca_key = key("ca-key.pem");
    let ca = file("ca-cert.pem");
    let info = template("ca", "cn = Disks of Example\nca\ncert_signing_key\n");
    let mut command = Command::new(certtool);
    command.arg("--generate-self-signed").arg("--load-privkey");
    command.arg(&ca_key).arg("--template").arg(info);
    peers::run(command.arg("--outfile").arg(&ca));

    let sign = |role: &str, info: &str| {
        let own_key = key(&format!("{role}-key.pem"));
        let info = template(role, info);
        let mut command = Command::new(certtool);
        command.arg("--generate-certificate");
        command.arg("--load-ca-certificate").arg(&ca);
        command.arg("--load-ca-privkey").arg(&ca_key);
        command.arg("--load-privkey").arg(own_key);
        command.arg("--template").arg(info);
        peers::run(
            command
                .arg("--outfile")
                .arg(file(&format!("{role}-cert.pem"))),
        );
    };
    let uses = "encryption_key\nsigning_key\n";
    let names = "dns_name = localhost\nip_address = 127.0.0.1\n";
    sign(
        "server",
        &format!("organization = Example\ncn = localhost\n{names}tls_www_server\n{uses}"),
    );
    sign(
        "client",
        &format!("country = DE\norganization = Example\ncn = vm-host\ntls_www_client\n{uses}"),
    );
    directory
}
