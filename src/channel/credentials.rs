//! Certificates and keys, from files, or from a directory in which they have the names that QEMU,
//! libvirt and nbdkit use: `ca-cert.pem`, `ca-crl.pem`, `server-cert.pem`, `server-key.pem`,
//! `client-cert.pem`, `client-key.pem`.
//!
//! A private key is read into locked memory. A key that other users can read is refused.

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::{Resumption, VerifierBuilderError, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivateSec1KeyDer,
};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use zeroize::Zeroize;

use super::algorithm::{is_authority, is_usable, of_key};
use super::error::TlsError;
use super::reason::Reason;
use crate::secret::LockedBytes;

/// The default limit for the time of a handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(30);

/// The longest part of a certificate file that is read, in bytes. A bundle of all public
/// authorities is 200 KiB.
const MAX_FILE: u64 = 8 << 20;

/// The longest part of a key file that is read, in bytes. An RSA key of 8192 bits is 6 KiB.
const MAX_KEY: u64 = 64 << 10;

/// The certificate of a server, and which clients it accepts.
#[derive(Clone)]
pub struct ServerTls {
    pub(super) config: Arc<ServerConfig>,
    requires_certificates: bool,
    pub(super) handshake_time: Duration,
}

/// Which servers a client trusts, and the certificate of the client.
#[derive(Clone)]
pub struct ClientTls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) handshake_time: Duration,
}

impl ServerTls {
    /// Reads a certificate and its key. The chain of the certificate can follow it in the same
    /// file.
    ///
    /// With `client_ca`, clients must have a certificate that this authority has signed. Without
    /// it, every client is accepted.
    ///
    /// # Errors
    /// A [`TlsError`] that names the file.
    pub fn from_files(
        certificate: &Path,
        key: &Path,
        client_ca: Option<&Path>,
    ) -> Result<Self, TlsError> {
        let pair = read_pair(certificate, key)?;
        warn_of_authority(certificate, &pair);
        Self::new(&pair, client_ca, None)
    }

    /// Reads `server-cert.pem` and `server-key.pem` of a directory. Clients must have a certificate
    /// that the authority `ca-cert.pem` has signed and that `ca-crl.pem`, if it exists, does not
    /// revoke.
    ///
    /// # Errors
    /// A [`TlsError`] that names the file.
    pub fn from_directory(directory: &Path) -> Result<Self, TlsError> {
        let certificate = directory.join("server-cert.pem");
        let pair = read_pair(&certificate, &directory.join("server-key.pem"))?;
        warn_of_authority(&certificate, &pair);
        let ca = directory.join("ca-cert.pem");
        Self::new(&pair, Some(&ca), Some(&directory.join("ca-crl.pem")))
    }

    /// Whether clients must have a certificate.
    #[must_use]
    pub fn requires_certificates(&self) -> bool {
        self.requires_certificates
    }

    fn new(
        pair: &Arc<CertifiedKey>,
        client_ca: Option<&Path>,
        revoked: Option<&Path>,
    ) -> Result<Self, TlsError> {
        let provider = provider();
        let requires_certificates = client_ca.is_some();
        let verifier = match client_ca {
            None => WebPkiClientVerifier::no_client_auth(),
            Some(ca) => {
                let roots = Arc::new(read_authorities(ca)?);
                WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
                    .with_crls(read_revoked(revoked)?)
                    .only_check_end_entity_revocation()
                    .allow_unknown_revocation_status()
                    .build()
                    .map_err(|error| of_verifier(revoked.unwrap_or(ca), error))?
            }
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Protocol(Reason(error)))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(pair))));
        // Without resumption every connection verifies certificates, so a revoked or expired one is
        // refused from the next connection on.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self {
            config: Arc::new(config),
            requires_certificates,
            handshake_time: HANDSHAKE_TIME,
        })
    }

    /// Sets the limit for the time of a whole handshake. Default: 30 s.
    #[must_use]
    pub fn handshake_within(mut self, limit: Duration) -> Self {
        self.handshake_time = limit;
        self
    }
}

impl ClientTls {
    /// Trusts the authorities in the file `ca`. `pair` is the certificate of the client and its
    /// key.
    ///
    /// # Errors
    /// A [`TlsError`] that names the file.
    pub fn from_files(ca: &Path, pair: Option<(&Path, &Path)>) -> Result<Self, TlsError> {
        let pair = pair.map(|(certificate, key)| read_pair(certificate, key));
        Self::new(ca, pair.transpose()?, None)
    }

    /// Trusts the authorities in `ca-cert.pem` of a directory. Certificates that `ca-crl.pem`
    /// revokes are refused, if that file exists. The certificate of the client is `client-cert.pem`
    /// with `client-key.pem`, if they exist.
    ///
    /// # Errors
    /// A [`TlsError`] that names the file.
    pub fn from_directory(directory: &Path) -> Result<Self, TlsError> {
        let certificate = directory.join("client-cert.pem");
        let key = directory.join("client-key.pem");
        let pair = match (certificate.exists(), key.exists()) {
            (false, false) => None,
            (true, true) => Some(read_pair(&certificate, &key)?),
            (true, false) => {
                return Err(TlsError::Half {
                    present: certificate,
                    missing: key,
                });
            }
            (false, true) => {
                return Err(TlsError::Half {
                    present: key,
                    missing: certificate,
                });
            }
        };
        let revoked = directory.join("ca-crl.pem");
        Self::new(&directory.join("ca-cert.pem"), pair, Some(&revoked))
    }

    fn new(
        ca: &Path,
        pair: Option<Arc<CertifiedKey>>,
        revoked: Option<&Path>,
    ) -> Result<Self, TlsError> {
        let provider = provider();
        let roots = Arc::new(read_authorities(ca)?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .with_crls(read_revoked(revoked)?)
            .only_check_end_entity_revocation()
            .allow_unknown_revocation_status()
            .build()
            .map_err(|error| of_verifier(revoked.unwrap_or(ca), error))?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Protocol(Reason(error)))?
            .with_webpki_verifier(verifier);
        let mut config = match pair {
            None => config.with_no_client_auth(),
            Some(pair) => config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair))),
        };
        config.resumption = Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
            handshake_time: HANDSHAKE_TIME,
        })
    }

    /// Sets the limit for the time of a whole handshake. Default: 30 s.
    #[must_use]
    pub fn handshake_within(mut self, limit: Duration) -> Self {
        self.handshake_time = limit;
        self
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").finish_non_exhaustive()
    }
}

/// The cryptography of TLS. It is passed explicitly, so that the default of the process, which
/// other parts of the program can set, does not count.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn read_authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let certificates = read_certificates(path)?;
    // Some certificates of a bundle may be unusable. At least one has to be usable.
    let (usable, _) = roots.add_parsable_certificates(certificates.iter().cloned());
    if usable > 0 {
        return Ok(roots);
    }
    let first = certificates
        .into_iter()
        .next()
        .ok_or_else(|| TlsError::NoCertificate { path: path.into() })?;
    Err(match roots.add(first) {
        Ok(()) => TlsError::NoCertificate { path: path.into() },
        Err(error) => unusable(path, Reason(error)),
    })
}

/// A certificate of an authority is no certificate of a server, and the clients that check it
/// refuse it.
fn warn_of_authority(path: &Path, pair: &CertifiedKey) {
    if pair.cert.first().is_some_and(|one| is_authority(one)) {
        tracing::warn!(
            certificate = %path.display(),
            "the server's certificate is that of an authority (CA:TRUE), which luksmith and other \
             clients refuse; sign one for the server with it"
        );
    }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = with_common_labels(&read(path)?);
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(path, said(&error)))?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { path: path.into() });
    }
    Ok(certificates)
}

/// Reads the revocation list. Without a file, nothing is revoked; a file that cannot be read is an
/// error.
fn read_revoked(
    path: Option<&Path>,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let Some(path) = path else {
        return Ok(Vec::new());
    };
    match read(path) {
        Err(TlsError::File { source, .. }) if source.kind() == ErrorKind::NotFound => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
        Ok(text) => CertificateRevocationListDer::pem_slice_iter(without_mark(&text))
            .collect::<Result<_, _>>()
            .map_err(|error| unusable(path, said(&error))),
    }
}

fn read_pair(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = read_certificates(certificate)?;
    let text = read_private(key)?;
    let mut der = PrivateKeyDer::from_pem_slice(without_mark(&text)).map_err(|error| {
        // PKCS #8, and the older form of OpenSSL.
        let encrypted: [&[u8]; 2] = [b"ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED"];
        let path = key.to_owned();
        match error {
            _ if encrypted.iter().any(|words| holds(&text, words)) => {
                TlsError::EncryptedKey { path }
            }
            pem::Error::NoItemsFound if holds(&text, b"BEGIN DSA PRIVATE KEY") => {
                let kind = "DSA".to_owned();
                TlsError::UnsupportedKey { path, kind }
            }
            pem::Error::NoItemsFound => TlsError::NoKey { path },
            error => unusable(key, said(&error)),
        }
    })?;
    if let PrivateKeyDer::Sec1(sec1) = &der
        && let Some(shorter) = without_sign_byte(sec1.secret_sec1_der())
    {
        der.zeroize();
        der = PrivateSec1KeyDer::from(shorter).into();
    }
    let signer = aws_lc_rs::sign::any_supported_type(&der);
    let kind = of_key(der.secret_der());
    der.zeroize();
    let signer = signer.map_err(|_| match kind {
        Some(kind) if !is_usable(&kind) => TlsError::UnsupportedKey {
            path: key.into(),
            kind,
        },
        _ => unusable(key, "the key is malformed"),
    })?;
    let pair = CertifiedKey::new(chain, signer);
    match pair.keys_match() {
        Ok(()) => Ok(Arc::new(pair)),
        Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::OtherKey {
            certificate: certificate.into(),
            key: key.into(),
        }),
        Err(error) => Err(unusable(certificate, Reason(error))),
    }
}

/// Corrects an EC private key whose number is one byte too long. In SEC 1 (appendix C.4) the number
/// is as long as the order of the curve. If its first bit is set, certtool of GnuTLS 3.7 puts a
/// zero byte before it, as in an INTEGER. Returns `None` if nothing has to be corrected.
fn without_sign_byte(sec1: &[u8]) -> Option<Vec<u8>> {
    const P256: u8 = 32;
    const P384: u8 = 48;
    // A SEQUENCE whose length is in one byte, or in the second of two.
    let content = match sec1 {
        [0x30, 0x81, 0x81..=0xff, ..] => 3,
        [0x30, 1..=0x7f, ..] => 2,
        _ => return None,
    };
    // INTEGER 1, OCTET STRING.
    match sec1.get(content..)? {
        [2, 1, 1, 4, len, 0, 0x80..=0xff, ..] if [P256 + 1, P384 + 1].contains(len) => {}
        _ => return None,
    }
    let mut shorter = sec1.to_vec();
    shorter[content - 1] -= 1;
    shorter[content + 4] -= 1;
    shorter.remove(content + 5);
    Some(shorter)
}

/// The text without the byte order mark that some editors put before UTF-8.
fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// A file of certificates with their usual label. OpenSSL and GnuTLS also read the older one.
fn with_common_labels(text: &[u8]) -> Vec<u8> {
    let mut rest = without_mark(text);
    let mut out = Vec::with_capacity(rest.len());
    while let Some(at) = find(rest, b"X509 CERTIFICATE-----") {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + b"X509 ".len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// What is wrong with a file of PEM.
fn said(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end",
        pem::Error::IllegalSectionStart { .. } => "the first line of a section is malformed",
        pem::Error::Base64Decode(_) => "the base64 of a section is malformed",
        _ => "it is not valid PEM",
    }
}

fn find(text: &[u8], words: &[u8]) -> Option<usize> {
    text.windows(words.len()).position(|window| window == words)
}

fn holds(text: &[u8], words: &[u8]) -> bool {
    find(text, words).is_some()
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| file_error(path, source);
    let mut text = Vec::new();
    let file = open(path).map_err(failed)?;
    file.take(MAX_FILE).read_to_end(&mut text).map_err(failed)?;
    Ok(text)
}

/// Reads the file of a key. Only its owner must be able to access it. A file of root can also be
/// readable by its group, as services use it that run as a user of their own (`ssl-cert` in
/// Debian).
fn read_private(path: &Path) -> Result<LockedBytes, TlsError> {
    let failed = |source| file_error(path, source);
    let mut file = open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let (mode, by_root) = (metadata.mode() & 0o7777, metadata.uid() == 0);
    let allowed = if by_root { 0o740 } else { 0o700 };
    if mode & 0o777 & !allowed != 0 {
        return Err(TlsError::Exposed {
            path: path.into(),
            mode,
        });
    }
    let len = usize::try_from(metadata.len().min(MAX_KEY)).unwrap_or(0);
    let mut text = LockedBytes::new(len)?;
    file.read_exact(&mut text).map_err(failed)?;
    Ok(text)
}

/// Opens a regular file. Nothing would end the wait for the other end of a FIFO, and a device may
/// have no end.
fn open(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.read(true);
    let file = options
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    if !kind.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

fn file_error(path: &Path, source: std::io::Error) -> TlsError {
    TlsError::File {
        path: PathBuf::from(path),
        source,
    }
}

fn unusable(path: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> TlsError {
    TlsError::Unusable {
        path: path.into(),
        source: source.into(),
    }
}

fn of_verifier(path: &Path, error: VerifierBuilderError) -> TlsError {
    match error {
        VerifierBuilderError::InvalidCrl(why) => {
            unusable(path, Reason(rustls::Error::InvalidCertRevocationList(why)))
        }
        error => unusable(path, error),
    }
}

#[cfg(test)]
mod tests {
    use super::without_sign_byte;

    #[test]
    fn a_zero_byte_before_the_number_is_removed() {
        for (len, head) in [(32u8, &[0x30, 39][..]), (48, &[0x30, 0x81, 180])] {
            let rest = vec![7; if len == 32 { 0 } else { 125 }];
            let with = |len: u8, sign: &[u8], first: u8, sequence: u8| {
                let mut number = vec![first; len.into()];
                number[1] = 1;
                let octets = len + u8::try_from(sign.len()).unwrap();
                let mut head = head.to_vec();
                *head.last_mut().unwrap() = sequence;
                [&head, &[2, 1, 1, 4, octets][..], sign, &number, &rest].concat()
            };
            let right = *head.last().unwrap() - 1;
            let shorter = without_sign_byte(&with(len, &[0], 0x80, right + 1));
            assert_eq!(shorter, Some(with(len, &[], 0x80, right)));
            assert_eq!(without_sign_byte(&with(len, &[], 0x80, right)), None);
            assert_eq!(without_sign_byte(&with(len, &[0], 0x7f, right + 1)), None);
        }
        for malformed in [&[][..], &[0x30], &[0x30, 0x81], &[0x30, 5, 2, 1, 1, 4, 33]] {
            assert_eq!(without_sign_byte(malformed), None);
        }
    }
}
