//! TLS with nbdkit, which uses GnuTLS. It works only with the right certificates.

use std::path::Path;

use luksmith::backend::Backend;
use luksmith::backend::nbd::{NbdBackend, Problem};
use luksmith::channel::TlsError;
use luksmith_formats::nbd::uri::Uri;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose as Usage, IsCa,
    KeyPair, KeyUsagePurpose,
};

use super::servers::Server;
use super::{connect, options, pattern, read, sectors};

const SIZE: usize = 4 << 20;

/// A directory with certificates of an authority, a server and a client, with the names that nbdkit
/// expects.
pub(super) fn certificates() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(directory.path().join("ca-cert.pem"), authority.pem()).unwrap();
    for (role, usage) in [("server", Usage::ServerAuth), ("client", Usage::ClientAuth)] {
        let names = vec!["localhost".to_owned(), "disks.example".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let file = |what: &str| directory.path().join(format!("{role}-{what}.pem"));
        std::fs::write(file("cert"), certificate.pem()).unwrap();
        std::fs::write(file("key"), key.serialize_pem()).unwrap();
        use std::os::unix::fs::PermissionsExt;
        let owner = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(file("key"), owner).unwrap();
    }
    directory
}

/// nbdkit in a new folder, with these certificates.
fn server(certificates: &Path, mode: &str) -> Option<(tempfile::TempDir, Server)> {
    let folder = tempfile::tempdir().unwrap();
    let certificates = format!("--tls-certificates={}", certificates.display());
    let mode = format!("--tls={mode}");
    let args = [&certificates, &mode, "--tls-verify-peer", "memory", "4M"];
    let server = Server::nbdkit(folder.path(), &args)?;
    Some((folder, server))
}

fn uri(server: &Server, certificates: &Path, more: &str) -> Uri {
    let plain = server.uri_text("");
    let text = plain.replace("nbd+unix", "nbds+unix");
    let text = format!("{text}&tls-certificates={}{more}", certificates.display());
    Uri::parse(&text).unwrap()
}

#[test]
fn whole_payloads_under_tls() {
    let certificates = certificates();
    for mode in ["on", "require"] {
        let Some((_folder, server)) = server(certificates.path(), mode) else {
            return;
        };
        let uri = uri(&server, certificates.path(), "");
        let storage = connect(&uri, options());
        storage.write_at(0, &sectors(&pattern(SIZE, 1))).unwrap();
        storage.flush().unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let storage = &storage;
                scope.spawn(move || {
                    for round in 0..20 {
                        let at = (thread * 31 + round * 7) % 60 * 65_536;
                        let whole = read(storage, at as u64, 200_000).unwrap();
                        assert!(whole == pattern(SIZE, 1)[at..at + 200_000]);
                    }
                });
            }
        });
    }
}

#[test]
fn another_name_in_the_certificate() {
    let certificates = certificates();
    let Some((_folder, server)) = server(certificates.path(), "require") else {
        return;
    };
    let named = |name: &str| {
        uri(
            &server,
            certificates.path(),
            &format!("&tls-hostname={name}"),
        )
    };
    connect(&named("disks.example"), options());
    let problem = NbdBackend::connect(&named("other.example"), options());
    let problem = problem.unwrap_err().source;
    assert!(
        matches!(problem, Problem::Tls(TlsError::WrongName { .. })),
        "{problem:?}"
    );
}

#[test]
fn an_authority_that_is_not_trusted() {
    let (certificates, others) = (certificates(), certificates());
    let Some((_folder, server)) = server(certificates.path(), "require") else {
        return;
    };
    let problem = NbdBackend::connect(&uri(&server, others.path(), ""), options());
    let problem = problem.unwrap_err().source;
    assert!(
        matches!(problem, Problem::Tls(TlsError::Untrusted)),
        "{problem:?}"
    );
}

#[test]
fn a_server_that_does_not_trust_the_client() {
    let (certificates, others) = (certificates(), certificates());
    let Some((_folder, server)) = server(certificates.path(), "require") else {
        return;
    };
    // The client trusts the server, and has a certificate of another authority, or none.
    for own in ["client-cert.pem", "client-key.pem"] {
        std::fs::copy(others.path().join(own), certificates.path().join(own)).unwrap();
    }
    let uri = uri(&server, certificates.path(), "");
    assert!(NbdBackend::connect(&uri, options()).is_err());
    for own in ["client-cert.pem", "client-key.pem"] {
        std::fs::remove_file(certificates.path().join(own)).unwrap();
    }
    assert!(NbdBackend::connect(&uri, options()).is_err());
}

#[test]
fn there_is_no_fallback() {
    let certificates = certificates();
    let folder = tempfile::tempdir().unwrap();
    // The server does not offer TLS. The client does not fall back to a connection without it.
    for extra in [&[][..], &["--mask-handshake=0"]] {
        let args = [extra, &["memory", "4M"]].concat();
        let Some(server) = Server::nbdkit(folder.path(), &args) else {
            return;
        };
        let problem = NbdBackend::connect(&uri(&server, certificates.path(), ""), options());
        assert!(matches!(problem.unwrap_err().source, Problem::NoTls));
    }
    // The server requires TLS, and the URI does not ask for it.
    let (_folder, server) = server(certificates.path(), "require").unwrap();
    let problem = NbdBackend::connect(&server.uri(""), options());
    assert!(matches!(problem.unwrap_err().source, Problem::TlsRequired));
    let without = server.uri_text("").replace("nbd+unix", "nbds+unix");
    let problem = NbdBackend::connect(&Uri::parse(&without).unwrap(), options());
    assert!(matches!(
        problem.unwrap_err().source,
        Problem::NoCertificates
    ));
}

/// An authority with the same name and a key of another kind.
#[test]
fn an_authority_with_another_key() {
    let (certificates, others) = (certificates(), tempfile::tempdir().unwrap());
    let Some((_folder, server)) = server(certificates.path(), "require") else {
        return;
    };
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let authority = CertifiedIssuer::self_signed(params, key).unwrap();
    std::fs::write(others.path().join("ca-cert.pem"), authority.pem()).unwrap();
    let problem = NbdBackend::connect(&uri(&server, others.path(), ""), options());
    let problem = problem.unwrap_err().source;
    assert!(
        matches!(problem, Problem::Tls(TlsError::Untrusted)),
        "{problem:?}"
    );
}

#[test]
fn a_key_that_others_can_read_is_an_error_with_a_hint() {
    use std::os::unix::fs::PermissionsExt;
    let certificates = certificates();
    let key = certificates.path().join("client-key.pem");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let location = format!(
        "nbds://localhost:1/?tls-certificates={}",
        certificates.path().display()
    );
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_luksmith"));
    let ran = command.args(["info", &location]).output().unwrap();
    let said = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(2), "{said}");
    assert!(
        said.contains(&format!("`chmod 600 {}`", key.display())),
        "{said}"
    );
}
