//! The HTTP client of storages: connections that are kept, TLS with the cryptography of the whole
//! program, no proxy, and no wait without end.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use ureq::http::uri::{Scheme, Uri};
use ureq::http::{Request, Response};
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::{Agent, AsSendBody, Body, ResponseExt as _};

/// Where systems keep the certificates of the authorities that they trust.
const AUTHORITIES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// How many bytes per second a slow connection carries at least.
const SLOWEST: u64 = 16 << 10;

/// The longest time-out, which stands for every longer one: its end can be stated as a time.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// How many connections are kept for the next request.
const KEPT: usize = 64;

/// Why the authorities that a client trusts are not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthoritiesError {
    /// The file of certificates cannot be read.
    #[error("the certificates of authorities in {path} cannot be read")]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The file has no certificate.
    #[error("there is no certificate in {path}")]
    NoCertificate {
        /// The path of the file.
        path: PathBuf,
    },
}

/// A client of one server, and of those to which it redirects.
pub(crate) struct Client {
    agent: Agent,
    timeout: Duration,
}

impl Client {
    /// A client for a URL. `authorities` is the file with the certificates of those to trust, by
    /// default those of the system. `timeout` is how long the server may be silent.
    pub(crate) fn new(
        url: &str,
        authorities: Option<&Path>,
        timeout: Duration,
        redirects: u32,
    ) -> Result<Self, AuthoritiesError> {
        let is_encrypted = is_encrypted(url);
        let timeout = timeout.min(LONGEST_TIMEOUT);
        let none = || RootCerts::Specific(Arc::new(Vec::new()));
        let roots = match (is_encrypted, authorities) {
            (true, _) | (false, Some(_)) => read(authorities)?,
            // A redirect may lead to https, where it fails without authorities.
            (false, None) if redirects > 0 => read(None).unwrap_or_else(|_| none()),
            (false, None) => none(),
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(provider)
            .root_certs(roots)
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .https_only(is_encrypted)
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(redirects)
            .max_redirects_will_error(redirects > 0)
            .save_redirect_history(redirects > 0)
            .no_delay(true)
            .max_idle_connections(KEPT)
            .max_idle_connections_per_host(KEPT)
            .user_agent("luksmith")
            .timeout_connect(Some(timeout))
            .timeout_per_read(Some(timeout))
            .timeout_per_write(Some(timeout))
            .timeout_recv_response(Some(timeout))
            .build()
            .new_agent();
        Ok(Self { agent, timeout })
    }

    /// Sends a request. Its body and that of the answer are expected to have at most this many
    /// bytes together, which may come slowly: this sets the time after which it fails.
    pub(crate) fn send(
        &self,
        request: Request<impl AsSendBody>,
        bytes: u64,
    ) -> io::Result<Response<Body>> {
        let limit = self.timeout + Duration::from_secs(bytes / SLOWEST);
        let request = self
            .agent
            .configure_request(request)
            .timeout_global(Some(limit))
            .build();
        let answer = self.agent.run(request).map_err(of_io)?;
        let asked = answer.get_redirect_history().unwrap_or_default();
        let is_encrypted = |uri: &Uri| uri.scheme() == Some(&Scheme::HTTPS);
        let mut steps = asked.windows(2);
        match steps.any(|step| is_encrypted(&step[0]) && !is_encrypted(&step[1])) {
            true => Err(of_io(ureq::Error::RequireHttpsOnly(String::new()))),
            false => Ok(answer),
        }
    }
}

/// Whether a URL is one of https.
pub(crate) fn is_encrypted(url: &str) -> bool {
    url.get(..8)
        .is_some_and(|it| it.eq_ignore_ascii_case("https://"))
}

/// The body of an answer, which is refused if it is longer.
#[cfg(any(feature = "s3", feature = "tang"))]
pub(crate) fn body(answer: Response<Body>, longest: u64) -> io::Result<Vec<u8>> {
    let body = answer.into_body().into_with_config().limit(longest);
    body.read_to_vec().map_err(of_io)
}

/// Fills a buffer with the body of an answer, which has to have its length.
#[cfg(feature = "http")]
pub(crate) fn fill(answer: Response<Body>, into: &mut [u8]) -> io::Result<()> {
    use io::Read as _;
    let mut body = answer.into_body().into_reader();
    body.read_exact(into)?;
    // The connection is used again when the end of the body was seen.
    match body.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Whether the same request may succeed later.
#[cfg(any(feature = "http", feature = "s3"))]
pub(crate) fn is_temporary(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput};
    !matches!(error.kind(), InvalidData | InvalidInput)
}

/// The same error as one of the system. A request that fails for good is `InvalidInput`; the TLS
/// library says `InvalidData`. No message has a URL, whose query may be a signature.
fn of_io(error: ureq::Error) -> io::Error {
    let for_good = |message| io::Error::new(io::ErrorKind::InvalidInput, message);
    let kind = match error {
        ureq::Error::Io(error) => return error,
        ureq::Error::RequireHttpsOnly(_) => {
            return for_good("a redirect from https to http is not followed");
        }
        ureq::Error::BadUri(_) => return for_good("a url that cannot be asked for"),
        // Some of these repeat what the server has sent, such as the place of a redirect.
        ureq::Error::Protocol(_) => return for_good("the server does not keep to http"),
        ureq::Error::Timeout(_) => io::ErrorKind::TimedOut,
        ureq::Error::HostNotFound => io::ErrorKind::NotFound,
        ureq::Error::ConnectionFailed => io::ErrorKind::ConnectionRefused,
        _ => io::ErrorKind::InvalidInput,
    };
    io::Error::new(kind, error)
}

fn read(path: Option<&Path>) -> Result<RootCerts, AuthoritiesError> {
    let usual = || AUTHORITIES.iter().map(Path::new).find(|path| path.exists());
    let path = path.or_else(usual).unwrap_or(Path::new(AUTHORITIES[0]));
    let pem = std::fs::read(path).map_err(|source| AuthoritiesError::File {
        path: path.to_owned(),
        source,
    })?;
    let items = parse_pem(&pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let certificates: Vec<_> = items.collect();
    match certificates.is_empty() {
        true => Err(AuthoritiesError::NoCertificate {
            path: path.to_owned(),
        }),
        false => Ok(RootCerts::Specific(Arc::new(certificates))),
    }
}
