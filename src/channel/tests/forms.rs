//! Forms of files with certificates and keys, and kinds of keys.

use super::*;

/// As some editors and older versions of OpenSSL and GnuTLS write them.
#[test]
fn other_forms_of_pem_are_read() {
    let authority = Authority::new();
    let directory = authority.directory();
    for name in [
        "ca-cert.pem",
        "server-cert.pem",
        "server-key.pem",
        "client-cert.pem",
        "client-key.pem",
    ] {
        let path = directory.path().join(name);
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace(" CERTIFICATE-----", " X509 CERTIFICATE-----");
        put(&path, &["\u{feff}", &text].concat().replace('\n', "\r\n"));
    }
    let (client, server) = (client_tls(directory.path()), server_tls(directory.path()));
    let (connected, accepted) = meet(&client, &server, HOST);
    assert!(
        connected.is_ok() && accepted.is_ok(),
        "{connected:?} {accepted:?}"
    );
}

#[test]
fn the_certificate_of_an_authority_is_not_that_of_a_server() {
    let authority = Authority::new();
    let directory = authority.directory();
    let mut params = Authority::server();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.sign(directory.path(), "server", &params);
    let (client, server) = (client_tls(directory.path()), server_tls(directory.path()));
    let error = meet(&client, &server, HOST).0.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        source.contains("of an authority (CA:TRUE)"),
        "{error}: {source}"
    );
}

#[test]
fn keys_that_are_not_supported_are_named() {
    let authority = Authority::new();
    let directory = authority.directory();
    let path = directory.path().join("server-key.pem");
    for (label, base64, kind) in [
        ("PRIVATE KEY", ED448, "Ed448"),
        ("RSA PRIVATE KEY", RSA_1024, "RSA of 1024 bits"),
        ("DSA PRIVATE KEY", "AAAA", "DSA"),
    ] {
        let pem = format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n");
        put(&path, &pem);
        let error = ServerTls::from_directory(directory.path()).unwrap_err();
        let TlsError::UnsupportedKey { kind: named, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(named, kind);
        assert!(error.to_string().contains("supported are RSA"), "{error}");
    }
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    put(&path, old);
    let error = ServerTls::from_directory(directory.path()).unwrap_err();
    assert!(matches!(error, TlsError::EncryptedKey { .. }), "{error:?}");
}

/// A key of 57 zero bytes (RFC 8410).
const ED448: &str = "MEcCAQAwBQYDK2VxBDsEOQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==";
/// The beginning of a key of PKCS #1: version, modulus and exponent.
const RSA_1024: &str = "MIGMAgEAAoGBAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABAgMBAAE=";
