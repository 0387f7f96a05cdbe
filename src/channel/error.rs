//! Why there is no TLS: what is wrong with our credentials, or with the peer's.

use std::io;
use std::path::PathBuf;

use rustls::{CertificateError, Error, InvalidMessage};

use crate::secret::LockError;

/// Why a stream cannot be put under TLS, or cannot stay under it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file of certificates or keys cannot be read.
    #[error("cannot read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody else can read the private key, or change it.
    #[error("the private key {path} is open to others: its mode is {mode:04o}")]
    Exposed {
        /// The file of the key.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file has no certificate (PEM, `BEGIN CERTIFICATE`) in it.
    #[error("{path} holds no certificate in PEM")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A file has no private key (PEM) in it.
    #[error("{path} holds no private key in PEM")]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The private key is under a passphrase of its own.
    #[error("the private key {path} is encrypted")]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// One of a certificate and its key is there without the other.
    #[error("{present} is there without {missing}")]
    Half {
        /// The file that is there.
        present: PathBuf,
        /// The file that is not.
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
    /// The private key is of another certificate.
    #[error("the private key {key} does not belong to the certificate {certificate}")]
    OtherKey {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// The private key cannot be held in locked memory.
    #[error("the private key cannot be held safely")]
    Lock(#[from] LockError),
    /// No certificate can be for a server of this name.
    #[error("{name:?} is neither a DNS name nor an IP address")]
    Name {
        /// The name that was asked for.
        name: String,
    },
    /// The peer does not speak TLS.
    #[error("the peer does not speak TLS")]
    NotTls,
    /// The peer has no TLS version or cipher that we accept: 1.2 and 1.3, with forward secrecy.
    #[error("the peer's TLS is too old or too different")]
    Incompatible(#[source] Error),
    /// The peer's certificate is of nobody that we trust.
    #[error("the peer's certificate is not signed by a trusted authority")]
    Untrusted,
    /// The time of the peer's certificate, or of its authority's, is over.
    #[error("the peer's certificate has expired")]
    Expired,
    /// The time of the peer's certificate has not come: perhaps a clock is wrong.
    #[error("the peer's certificate is not valid yet")]
    NotYetValid,
    /// The peer's certificate is on the revocation list.
    #[error("the peer's certificate was revoked")]
    Revoked,
    /// The server's certificate is for other names. A subject's common name does not count; its `subjectAltName` does.
    #[error(
        "the server's certificate is not for {wanted}, but for {}",
        names(presented)
    )]
    WrongName {
        /// The name that was asked for.
        wanted: String,
        /// The names that the certificate is for.
        presented: Vec<String>,
    },
    /// The peer's certificate is for another use: a server's was shown by a client, or the other way round.
    #[error("the peer's certificate is not for this use")]
    WrongUse,
    /// The peer's certificate is malformed, or signed in a way that is not accepted.
    #[error("the peer's certificate cannot be accepted")]
    BadCertificate(#[source] Error),
    /// A client has to show a certificate, and showed none.
    #[error("the client has no certificate")]
    NoClientCertificate,
    /// The peer ended it with an alert, by its name in TLS: it may not accept our certificate.
    #[error("the peer refused: {alert}")]
    Refused {
        /// The alert, such as `UnknownCA` or `CertificateRequired`.
        alert: String,
    },
    /// The handshake took too long.
    #[error("the TLS handshake took too long")]
    TimedOut,
    /// The peer closed the connection in the handshake.
    #[error("the peer closed the connection in the TLS handshake")]
    Closed,
    /// The connection failed.
    #[error("the connection failed in the TLS handshake")]
    Io(#[source] io::Error),
    /// The peer broke the rules of TLS, or our own side failed.
    #[error("TLS failed")]
    Protocol(#[source] Error),
}

impl TlsError {
    pub(super) fn handshake(error: Error) -> Self {
        match error {
            Error::InvalidCertificate(problem) => Self::certificate(problem),
            Error::NoCertificatesPresented => Self::NoClientCertificate,
            Error::AlertReceived(alert) => Self::Refused {
                alert: format!("{alert:?}"),
            },
            Error::PeerIncompatible(_) => Self::Incompatible(error),
            // Records begin with their type and version: other protocols fail there.
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType
                | InvalidMessage::UnknownProtocolVersion
                | InvalidMessage::MessageTooLarge
                | InvalidMessage::InvalidEmptyPayload,
            ) => Self::NotTls,
            error => Self::Protocol(error),
        }
    }

    fn certificate(problem: CertificateError) -> Self {
        match problem {
            // A bad signature, or one by a key of another kind: an authority that was made anew under its old name.
            CertificateError::UnknownIssuer
            | CertificateError::BadSignature
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                Self::Untrusted
            }
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
            problem => Self::BadCertificate(Error::InvalidCertificate(problem)),
        }
    }

    /// What failed while bytes went to and fro in the handshake.
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
        [] => "no name at all".to_owned(),
        names => names.join(", "),
    }
}
