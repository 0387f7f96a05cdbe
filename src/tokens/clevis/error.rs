//! Why a Tang server did not help.

use std::io;

use luksmith_formats::text::Shown;

use crate::http::AuthoritiesError;
use crate::secret::SecretError;
use crate::tokens::MalformedToken;

/// Why a Tang server did not help to find or to bind a passphrase.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClevisError {
    /// The JSON of the token is not as it has to be.
    #[error(transparent)]
    Malformed(#[from] MalformedToken),
    /// The token names a server that the caller has not permitted. No request was sent.
    #[error("the header names the server {}, which is not permitted", Shown(.url))]
    ForeignServer {
        /// The URL, which the header states.
        url: String,
    },
    /// The token needs a pin that is not supported.
    #[error("the pin {} is not supported; the pins are tang and sss", Shown(.0))]
    Pin(String),
    /// Too few of the shares of the pin `sss` could be found.
    #[error("{found} of {needed} shares were found")]
    Shares {
        /// The shares that were found.
        found: usize,
        /// The shares that are needed.
        needed: usize,
        /// Why the last one was not found.
        source: Box<Self>,
    },
    /// The text is no URL of a server.
    #[error("not the URL of a Tang server: http://HOST[:PORT] or https://HOST[:PORT]")]
    Url,
    /// The server does not answer, or the connection broke.
    #[error("the server {} does not answer", Shown(.url))]
    Unreachable {
        /// Its URL.
        url: String,
        /// The error of the connection.
        source: io::Error,
    },
    /// The server has refused the request.
    #[error("the server {} answered with status {status}", Shown(.url))]
    Status {
        /// Its URL.
        url: String,
        /// The status of HTTP: 404 if it does not have the key any more.
        status: u16,
    },
    /// The server's answer is not as it has to be.
    #[error("the answer of the server {} is not valid: {cause}", Shown(.url))]
    Answer {
        /// Its URL.
        url: String,
        /// What is wrong.
        cause: &'static str,
    },
    /// The authorities that HTTPS trusts are not known.
    #[error(transparent)]
    Authorities(#[from] AuthoritiesError),
    /// The key that was found does not decrypt: another server has answered, or the token was
    /// changed.
    #[error("the key that the server gives does not decrypt the token")]
    NotDecrypted,
    /// A secret could not be held or made.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl ClevisError {
    pub(super) fn malformed(member: &'static str, cause: &'static str) -> Self {
        Self::Malformed(MalformedToken::new(member, cause))
    }
}
