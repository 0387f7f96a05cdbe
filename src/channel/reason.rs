//! What the TLS library says of an error, in words. Its own texts have the names of its types.

use std::fmt;

use rustls::{CertificateError, Error};

use super::algorithm;

/// An error of the TLS library. Its `Display` is a text for people.
#[derive(Clone, PartialEq)]
pub struct Reason(pub(super) Error);

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::error::Error for Reason {}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Error::InappropriateMessage { got_type, .. } => {
                write!(
                    f,
                    "a message is not allowed at this point: {}",
                    words(got_type)
                )
            }
            Error::InappropriateHandshakeMessage { got_type, .. } => {
                write!(
                    f,
                    "a message is not allowed at this point: {}",
                    words(got_type)
                )
            }
            Error::InvalidMessage(why) => write!(f, "a message is malformed: {}", words(why)),
            Error::PeerIncompatible(why) => f.write_str(&words(why)),
            Error::PeerMisbehaved(why) => write!(f, "the peer misbehaved: {}", words(why)),
            Error::AlertReceived(alert) => write!(f, "alert {}", words(alert)),
            Error::InvalidCertificate(problem) => certificate(problem, f),
            Error::InvalidCertRevocationList(why) => {
                write!(f, "the revocation list is not valid: {}", words(why))
            }
            Error::InconsistentKeys(why) => f.write_str(&words(why)),
            Error::InvalidEncryptedClientHello(why) => f.write_str(&words(why)),
            // The texts of all others are sentences.
            other => fmt::Display::fmt(other, f),
        }
    }
}

fn certificate(problem: &CertificateError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match problem {
        CertificateError::UnsupportedSignatureAlgorithmContext {
            signature_algorithm_id,
            ..
        } => write!(
            f,
            "it is signed with {}, which is not supported",
            algorithm::name(signature_algorithm_id)
        ),
        CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id,
            public_key_algorithm_id,
        } => write!(
            f,
            "it is signed with {} by a key of {}, which is not supported",
            algorithm::name(signature_algorithm_id),
            algorithm::name(public_key_algorithm_id)
        ),
        CertificateError::Other(other) => match other.to_string().as_str() {
            "CaUsedAsEndEntity" => f.write_str(
                "it is the certificate of an authority (CA:TRUE), not of a server or client",
            ),
            other => f.write_str(&words(&other)),
        },
        // These have sentences.
        CertificateError::ExpiredRevocationListContext { .. }
        | CertificateError::NotValidForNameContext { .. }
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYetContext { .. }
        | CertificateError::InvalidPurposeContext { .. } => fmt::Display::fmt(problem, f),
        problem => f.write_str(&words(problem)),
    }
}

/// The name of a variant in words: `NoCipherSuitesInCommon` is `no cipher suites in common`. What
/// a variant holds is left out.
pub(super) fn words(variant: &dyn fmt::Debug) -> String {
    parts(&format!("{variant:?}"), " ")
}

/// The name of an alert as in the RFCs: `UnknownCA` is `unknown_ca`. An unknown one has its number.
pub(super) fn alert(alert: rustls::AlertDescription) -> String {
    match alert {
        rustls::AlertDescription::Unknown(number) => format!("alert {number}"),
        alert => parts(&format!("{alert:?}"), "_"),
    }
}

fn parts(name: &str, between: &str) -> String {
    let name = name.trim_start_matches('"');
    let end = name.find(|c: char| !c.is_ascii_alphanumeric());
    let name: Vec<char> = name[..end.unwrap_or(name.len())].chars().collect();
    let mut words = String::new();
    for (at, c) in name.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| name.get(at));
        let begins = c.is_uppercase()
            && before.is_some_and(|before| {
                !before.is_uppercase() || name.get(at + 1).is_some_and(|c| c.is_lowercase())
            });
        if begins {
            words.push_str(between);
        }
        words.extend(c.to_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{AlertDescription, PeerIncompatible};

    #[test]
    fn names_of_variants_become_words() {
        let error = Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon);
        assert_eq!(Reason(error).to_string(), "no cipher suites in common");
        for (variant, name) in [
            (AlertDescription::UnknownCA, "unknown_ca"),
            (AlertDescription::UnknownPSKIdentity, "unknown_psk_identity"),
            (
                AlertDescription::CertificateRequired,
                "certificate_required",
            ),
            (AlertDescription::Unknown(200), "alert 200"),
        ] {
            assert_eq!(alert(variant), name);
        }
    }

    #[test]
    fn algorithms_have_their_names() {
        let ed448 = CertificateError::UnsupportedSignatureAlgorithmContext {
            signature_algorithm_id: vec![6, 3, 0x2b, 0x65, 0x71],
            supported_algorithms: Vec::new(),
        };
        assert_eq!(
            Reason(Error::InvalidCertificate(ed448)).to_string(),
            "it is signed with Ed448, which is not supported"
        );
        let mut unknown = CertificateError::UnhandledCriticalExtension;
        assert_eq!(
            Reason(Error::InvalidCertificate(unknown.clone())).to_string(),
            "unhandled critical extension"
        );
        let other = std::io::Error::other("MaximumPathDepthExceeded");
        unknown = CertificateError::Other(rustls::OtherError(std::sync::Arc::new(other)));
        assert_eq!(
            Reason(Error::InvalidCertificate(unknown)).to_string(),
            "maximum path depth exceeded"
        );
    }
}
