//! Errors of TLS: of the local credentials and of the peer.

use std::io;
use std::path::PathBuf;

use rustls::{CertificateError, Error, InvalidMessage};

use super::algorithm;
use super::reason::{self, Reason};
use crate::secret::LockError;

/// Why TLS cannot be set up, or why it failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file of certificates or keys cannot be read.
    #[error("cannot read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Other users can read or change the private key.
    #[error("the private key {path} is open to others: its mode is {mode:04o}")]
    Exposed {
        /// The file of the key.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file contains no certificate in PEM (`BEGIN CERTIFICATE`).
    #[error("{path} contains no certificate in PEM")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A file contains no private key in PEM.
    #[error("{path} contains no private key in PEM")]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The private key is encrypted with a passphrase.
    #[error("the private key {path} is encrypted")]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// There is a certificate without its key, or a key without its certificate.
    #[error("{present} exists without {missing}")]
    Half {
        /// The file that exists.
        present: PathBuf,
        /// The file that does not.
        missing: PathBuf,
    },
    /// A certificate, a key or a revocation list cannot be used.
    #[error("{path} cannot be used")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The private key is of a kind that is not supported.
    #[error(
        "the private key {path} is {kind}; supported are RSA of 2048 to 8192 bits, ECDSA on P-256, \
         P-384 and P-521, and Ed25519"
    )]
    UnsupportedKey {
        /// The file of the key.
        path: PathBuf,
        /// Its algorithm, such as `RSA of 1024 bits` or `Ed448`.
        kind: String,
    },
    /// The private key belongs to another certificate.
    #[error("the private key {key} does not belong to the certificate {certificate}")]
    OtherKey {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// The private key cannot be held in locked memory.
    #[error("there is no locked memory for the private key")]
    Lock(#[from] LockError),
    /// The name of the server cannot be in a certificate.
    #[error("\"{name}\" is neither a DNS name nor an IP address")]
    Name {
        /// The name.
        name: String,
    },
    /// The peer does not speak TLS.
    #[error("the peer does not speak TLS")]
    NotTls,
    /// The peer supports none of the accepted TLS versions (1.2 and 1.3) and ciphers (with forward
    /// secrecy).
    #[error("the peer's TLS versions or ciphers are not supported")]
    Incompatible(#[source] Reason),
    /// The peer's certificate is not signed by a trusted authority.
    #[error("the peer's certificate is not signed by a trusted authority")]
    Untrusted,
    /// The certificate of the peer or of its authority has expired.
    #[error("the peer's certificate has expired")]
    Expired,
    /// The peer's certificate is not valid yet. A clock may be wrong.
    #[error("the peer's certificate is not valid yet")]
    NotYetValid,
    /// The peer's certificate is on the revocation list.
    #[error("the peer's certificate was revoked")]
    Revoked,
    /// The server's certificate is for other names. Only `subjectAltName` counts, not the common
    /// name of the subject.
    #[error(
        "the server's certificate is not for {wanted}, but for {}",
        names(presented)
    )]
    WrongName {
        /// The name of the server as the client knows it.
        wanted: String,
        /// The names that the certificate is for.
        presented: Vec<String>,
    },
    /// The peer's certificate is for another use: a client has a server certificate, or the other
    /// way round.
    #[error("the peer's certificate is not for this use")]
    WrongUse,
    /// The peer's certificate is malformed, or its signature algorithm is not accepted.
    #[error("the peer's certificate cannot be accepted")]
    BadCertificate(#[source] Reason),
    /// A client did not send the certificate that it needs.
    #[error("the client has no certificate")]
    NoClientCertificate,
    /// The peer ended the connection with an alert. It may not accept the local certificate.
    #[error("the peer refused: {alert}")]
    Refused {
        /// The name of the alert in the RFCs, such as `unknown_ca` or `certificate_required`.
        alert: String,
    },
    /// The handshake took too long.
    #[error("the TLS handshake took too long")]
    TimedOut,
    /// The peer closed the connection during the handshake.
    #[error("the peer closed the connection during the TLS handshake")]
    Closed,
    /// The connection failed during the handshake.
    #[error("the connection failed during the TLS handshake")]
    Io(#[source] io::Error),
    /// The peer violated the TLS protocol, or the local TLS library failed.
    #[error("TLS failed")]
    Protocol(#[source] Reason),
}

impl TlsError {
    pub(super) fn handshake(error: Error) -> Self {
        match error {
            Error::InvalidCertificate(problem) => Self::certificate(problem),
            Error::NoCertificatesPresented => Self::NoClientCertificate,
            Error::AlertReceived(alert) => Self::Refused {
                alert: reason::alert(alert),
            },
            Error::PeerIncompatible(_) => Self::Incompatible(Reason(error)),
            // A record begins with its type and version. Other protocols fail there.
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType
                | InvalidMessage::UnknownProtocolVersion
                | InvalidMessage::MessageTooLarge
                | InvalidMessage::InvalidEmptyPayload,
            ) => Self::NotTls,
            error => Self::Protocol(Reason(error)),
        }
    }

    fn certificate(problem: CertificateError) -> Self {
        match problem {
            // A bad signature, or one by a key of another kind, also comes from an authority of the
            // same name with a new key.
            CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
                ref public_key_algorithm_id,
                ..
            } if algorithm::is_supported(public_key_algorithm_id) => Self::Untrusted,
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::Untrusted,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotYetValid
            }
            CertificateError::Revoked => Self::Revoked,
            CertificateError::NotValidForNameContext {
                expected,
                presented,
            } => Self::WrongName {
                wanted: expected.to_str().into_owned(),
                presented: presented.iter().map(|name| bare(name)).collect(),
            },
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Self::WrongUse
            }
            problem => Self::BadCertificate(Reason(Error::InvalidCertificate(problem))),
        }
    }

    /// Whether one side refused the other, rather than that the connection ended.
    pub(crate) fn is_refusal(&self) -> bool {
        !matches!(self, Self::TimedOut | Self::Closed | Self::Io(_))
    }

    /// An error of the transport during the handshake.
    pub(super) fn of_io(error: io::Error) -> Self {
        match error.downcast::<Error>() {
            Ok(error) => Self::handshake(error),
            Err(error) => match error.kind() {
                io::ErrorKind::TimedOut => Self::TimedOut,
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe => Self::Closed,
                _ => Self::Io(error),
            },
        }
    }
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// The name in `DnsName("a.example")` or `IpAddress(::1)`.
fn bare(name: &str) -> String {
    let inner = name
        .split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"').to_owned()
}

fn names(presented: &[String]) -> String {
    match presented {
        [] => "no name".to_owned(),
        names => names.join(", "),
    }
}
