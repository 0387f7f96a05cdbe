//! The URI of an export.
//!
//! The specification is *The NBD Uniform Resource Indicator (URI) format* (`uri.md` of the NBD
//! project), which builds on RFC 3986. Where it leaves a choice to the client, this parser is
//! strict: it refuses unknown parameters, TLS parameters without TLS, and a password, which would
//! be visible in the process list. It only knows the schemes of NBD.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::{MAX_STRING, PORT};
use crate::percent::{self, encode};

/// An export on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri {
    /// How the server is reached.
    pub transport: Transport,
    /// The TLS parameters, for the schemes `nbds` and `nbds+unix`: the connection requires TLS.
    pub tls: Option<Tls>,
    /// The name of the export. The empty name is the default export of the server.
    pub export: String,
    text: String,
}

/// How a server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp {
        /// A host name or an IP address. An IPv6 address has no brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix domain socket: its path, or a NUL and its name in the abstract namespace.
    Unix(Vec<u8>),
}

/// The TLS parameters of a URI. Only certificates (`tls-type=x509`) are supported, and the server
/// has to have one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tls {
    /// `tls-certificates`: the directory with `ca-cert.pem`, and with `client-cert.pem` and
    /// `client-key.pem` if the server requires a certificate.
    pub certificates: Option<Vec<u8>>,
    /// `tls-hostname`: the name in the certificate of the server, if it is not that of the host.
    pub hostname: Option<String>,
}

/// Why a text is not the URI of an export. The message never repeats a part that could be a
/// password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UriError {
    /// The scheme is not one of NBD.
    #[error("{0}: is not a scheme of an nbd uri (nbd, nbds, nbd+unix, nbds+unix)")]
    Scheme(String),
    /// NBD over virtio sockets.
    #[error("{0}: nbd over virtio sockets (vsock) is not supported")]
    Vsock(String),
    /// TLS with pre-shared keys: `tls-psk-file`, or `tls-type=psk`.
    #[error("tls with pre-shared keys (psk) is not supported")]
    Psk,
    /// The URI contains userinfo: a user name or a password.
    #[error(
        "a user name or password in the uri is not supported, and would be visible in the process list"
    )]
    UserInfo,
    /// TCP needs a host.
    #[error("the uri names no host")]
    NoHost,
    /// The host, or the text after it, is malformed.
    #[error("the host is malformed")]
    Host,
    /// The port is not a valid number.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// A Unix socket has no host.
    #[error("a unix socket has no host: nbd+unix:///export?socket=PATH")]
    HostOfSocket,
    /// A Unix socket needs the parameter `socket`.
    #[error("the parameter socket is missing: nbd+unix:///export?socket=PATH")]
    NoSocket,
    /// A percent sign without two hexadecimal digits, or bytes that are not UTF-8 where there has
    /// to be text.
    #[error("{0} is not percent-encoded UTF-8")]
    Encoding(&'static str),
    /// The name of the export is too long, or contains a NUL.
    #[error("the name of the export is longer than 4096 bytes, or contains a nul")]
    Export,
    /// The URI has a fragment.
    #[error("a fragment (#) has no meaning here; # in a name is %23")]
    Fragment,
    /// A parameter occurs twice.
    #[error("the parameter {0} occurs twice")]
    Repeated(String),
    /// A parameter is unknown, or not allowed with this scheme.
    #[error("the parameter {0} is unknown, or has no meaning with this scheme")]
    Parameter(String),
    /// The value of a parameter is not supported.
    #[error("the parameter {0} has a value that is not supported")]
    Value(&'static str),
}

/// The scheme of a text in the form of a URI with an authority (`scheme://…`).
pub fn scheme(text: &[u8]) -> Option<&str> {
    let end = text.windows(3).position(|three| three == b"://")?;
    let scheme = core::str::from_utf8(text.get(..end)?).ok()?;
    let mut characters = scheme.chars();
    let well_formed = characters.next()?.is_ascii_alphabetic()
        && characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    well_formed.then_some(scheme)
}

impl Uri {
    /// The URI of an export on a server; `secure` is for TLS.
    #[must_use]
    pub fn new(transport: Transport, secure: bool, export: &str) -> Self {
        let scheme = if secure { "nbds" } else { "nbd" };
        let name = encode(export.as_bytes());
        let text = match &transport {
            Transport::Tcp { host, port } if host.contains(':') => {
                format!("{scheme}://[{host}]:{port}/{name}")
            }
            Transport::Tcp { host, port } => {
                format!("{scheme}://{}:{port}/{name}", encode(host.as_bytes()))
            }
            Transport::Unix(path) => format!("{scheme}+unix:///{name}?socket={}", encode(path)),
        };
        Self {
            transport,
            tls: secure.then_some(Tls {
                certificates: None,
                hostname: None,
            }),
            export: export.into(),
            text,
        }
    }

    /// Reads a URI.
    ///
    /// # Errors
    /// [`UriError`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let scheme = scheme(text.as_bytes()).unwrap_or_default();
        let lower = scheme.to_ascii_lowercase();
        let (unix, secure) = match lower.as_str() {
            "nbd" => (false, false),
            "nbds" => (false, true),
            "nbd+unix" => (true, false),
            "nbds+unix" => (true, true),
            "nbd+vsock" | "nbds+vsock" => return Err(UriError::Vsock(lower)),
            _ => return Err(UriError::Scheme(lower)),
        };
        let rest = text
            .get(scheme.len().saturating_add(3)..)
            .unwrap_or_default();
        // A password can contain any character, so userinfo is checked before parts of the text can
        // get into messages.
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        // A user before the host is the name of a pre-shared key.
        if names_psk(rest.get(authority.len()..).unwrap_or_default()) {
            return Err(UriError::Psk);
        }
        if authority.contains('@') {
            return Err(UriError::UserInfo);
        }
        if rest.contains('#') {
            return Err(UriError::Fragment);
        }
        let after = rest.get(authority.len()..).unwrap_or_default();
        let (path, query) = after.split_once('?').unwrap_or((after, ""));
        let export = decode_text(path.strip_prefix('/').unwrap_or(path), "the export's name")?;
        if export.len() > MAX_STRING || export.contains('\0') {
            return Err(UriError::Export);
        }
        let mut parameters = Parameters::read(query, unix, secure)?;
        let transport = if unix {
            if !authority.is_empty() {
                return Err(UriError::HostOfSocket);
            }
            let socket = parameters.socket.take().filter(|socket| !socket.is_empty());
            Transport::Unix(socket.ok_or(UriError::NoSocket)?)
        } else {
            let (host, port) = host_and_port(authority)?;
            Transport::Tcp { host, port }
        };
        Ok(Self {
            transport,
            tls: secure.then_some(parameters.tls),
            export,
            text: text.into(),
        })
    }
}

/// The text that was parsed or made.
impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether the text after the host requests TLS with pre-shared keys.
fn names_psk(after: &str) -> bool {
    let (_, query) = after.split_once('?').unwrap_or_default();
    query.split(['&', '#']).any(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        name == "tls-psk-file" || name == "tls-type" && value.eq_ignore_ascii_case("psk")
    })
}

/// `host`, `host:port`, `[v6]`, `[v6]:port` (RFC 3986, section 3.2.2).
fn host_and_port(authority: &str) -> Result<(String, u16), UriError> {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(literal) => {
            let (address, rest) = literal.split_once(']').ok_or(UriError::Host)?;
            let address: core::net::Ipv6Addr = address.parse().map_err(|_| UriError::Host)?;
            (alloc::string::ToString::to_string(&address), rest)
        }
        None => {
            let end = authority.find(':').unwrap_or(authority.len());
            let (host, rest) = authority.split_at(end);
            (decode_text(host, "the host")?, rest)
        }
    };
    if host.is_empty() {
        return Err(UriError::NoHost);
    }
    if host.contains(|c: char| c.is_control() || c.is_whitespace() || c == ':')
        && !authority.starts_with('[')
    {
        return Err(UriError::Host);
    }
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => PORT,
        None => return Err(UriError::Host),
        // RFC 3986 allows an empty port.
        Some("") => PORT,
        Some(port) if port.bytes().all(|digit| digit.is_ascii_digit()) => port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or(UriError::Port)?,
        Some(_) => return Err(UriError::Port),
    };
    Ok((host, port))
}

struct Parameters {
    socket: Option<Vec<u8>>,
    tls: Tls,
}

impl Parameters {
    fn read(query: &str, unix: bool, secure: bool) -> Result<Self, UriError> {
        let mut found = Self {
            socket: None,
            tls: Tls {
                certificates: None,
                hostname: None,
            },
        };
        let mut names: Vec<&str> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if names.contains(&name) {
                return Err(UriError::Repeated(name.into()));
            }
            names.push(name);
            match name {
                "socket" if unix => found.socket = Some(decode(value, "socket")?),
                "tls-certificates" if secure => {
                    found.tls.certificates = Some(decode(value, "tls-certificates")?);
                }
                "tls-hostname" if secure => {
                    found.tls.hostname = Some(decode_text(value, "tls-hostname")?);
                }
                "tls-verify-peer" if secure => match value {
                    "1" | "true" => {}
                    // TLS without verification does not protect against a man in the middle.
                    _ => return Err(UriError::Value("tls-verify-peer")),
                },
                "tls-type" if secure => {
                    if value != "x509" {
                        return Err(UriError::Value("tls-type"));
                    }
                }
                _ => return Err(UriError::Parameter(name.into())),
            }
        }
        Ok(found)
    }
}

fn decode_text(text: &str, what: &'static str) -> Result<String, UriError> {
    String::from_utf8(decode(text, what)?).map_err(|_| UriError::Encoding(what))
}

fn decode(text: &str, what: &'static str) -> Result<Vec<u8>, UriError> {
    percent::decode(text).ok_or(UriError::Encoding(what))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Transport {
        Transport::Tcp {
            host: host.into(),
            port,
        }
    }

    #[test]
    fn the_examples_of_the_specification() {
        for (text, export) in [
            ("nbd://example.com/disk", "disk"),
            ("nbd+unix:///disk?socket=sock", "disk"),
            ("nbd://example.com/", ""),
            ("nbd://example.com", ""),
            ("nbd://example.com//disk", "/disk"),
            ("nbd://example.com/hello%20world", "hello world"),
        ] {
            let uri = Uri::parse(text).unwrap();
            assert_eq!(uri.export, export, "{text}");
            assert_eq!(alloc::format!("{uri}"), text);
        }
    }

    #[test]
    fn servers_by_name_address_and_socket() {
        for (text, transport) in [
            ("nbd://example.com", tcp("example.com", 10809)),
            ("NBD://example.com:/x", tcp("example.com", 10809)),
            ("nbd://10.0.0.1:2000/a:b", tcp("10.0.0.1", 2000)),
            ("nbd://[::1]/", tcp("::1", 10809)),
            ("nbd://[2001:db8::7]:99", tcp("2001:db8::7", 99)),
            (
                "nbd+unix:///?socket=/run/a%20b/s.sock",
                Transport::Unix(b"/run/a b/s.sock".to_vec()),
            ),
            (
                "nbd+unix://?socket=%00/abstract",
                Transport::Unix(b"\0/abstract".to_vec()),
            ),
            (
                "nbd+unix:///x?socket=a+b%ff",
                Transport::Unix(b"a+b\xff".to_vec()),
            ),
        ] {
            let uri = Uri::parse(text).unwrap();
            assert_eq!(uri.transport, transport, "{text}");
            assert_eq!(uri.tls, None);
        }
    }

    #[test]
    fn tls_is_in_the_scheme_and_its_parameters() {
        let uri =
            Uri::parse("nbds://h/x?tls-certificates=/etc/pki%2Fq&tls-hostname=other").unwrap();
        assert_eq!(
            uri.tls,
            Some(Tls {
                certificates: Some(b"/etc/pki/q".to_vec()),
                hostname: Some("other".into()),
            })
        );
        let uri = Uri::parse("nbds+unix:///?socket=s&tls-verify-peer=1&tls-type=x509").unwrap();
        assert!(uri.tls.is_some());
    }

    #[test]
    fn every_mistake_has_its_error() {
        let parameter = |name: &str| UriError::Parameter(name.into());
        for (text, error) in [
            ("http://h/", UriError::Scheme("http".into())),
            ("disk.img", UriError::Scheme("".into())),
            ("nbd+vsock:///?cid=2", UriError::Vsock("nbd+vsock".into())),
            ("NBDS+VSOCK://2:1/x", UriError::Vsock("nbds+vsock".into())),
            ("nbd://u:secret@h/", UriError::UserInfo),
            ("nbds://user@h/", UriError::UserInfo),
            ("nbd:///x", UriError::NoHost),
            ("nbd://:10/x", UriError::NoHost),
            ("nbd://[::1", UriError::Host),
            ("nbd://[::g]/", UriError::Host),
            ("nbd://[::1]x/", UriError::Host),
            ("nbd://a%20b/", UriError::Host),
            ("nbd://h:0", UriError::Port),
            ("nbd://h:65536", UriError::Port),
            ("nbd://h:+1", UriError::Port),
            ("nbd://::1", UriError::NoHost),
            ("nbd+unix://h/x?socket=s", UriError::HostOfSocket),
            ("nbd+unix:///x", UriError::NoSocket),
            ("nbd+unix:///x?socket=", UriError::NoSocket),
            ("nbd://h/%zz", UriError::Encoding("the export's name")),
            ("nbd://h/%f", UriError::Encoding("the export's name")),
            ("nbd://h/%ff", UriError::Encoding("the export's name")),
            ("nbd://h/a%00b", UriError::Export),
            ("nbd://h/x#y", UriError::Fragment),
            (
                "nbd+unix:///?socket=a&socket=b",
                UriError::Repeated("socket".into()),
            ),
            ("nbd://h/?socket=a", parameter("socket")),
            ("nbd://h/?tls-hostname=a", parameter("tls-hostname")),
            ("nbds://h/?tls-psk-file=a", UriError::Psk),
            ("nbds://user@h/x?a=b&tls-psk-file=/k", UriError::Psk),
            ("nbds+unix://u@/x?socket=s&tls-psk-file=k#f", UriError::Psk),
            ("nbd://h/?tls-psk-file=a", UriError::Psk),
            ("nbds://h/?tls-type=psk", UriError::Psk),
            ("nbds://h/?tls-psk-files=a", parameter("tls-psk-files")),
            ("nbds://h/?tls-type=anon", UriError::Value("tls-type")),
            (
                "nbds://h/?tls-verify-peer=0",
                UriError::Value("tls-verify-peer"),
            ),
        ] {
            assert_eq!(Uri::parse(text), Err(error), "{text}");
        }
        let long = alloc::format!("nbd://h/{}", "a".repeat(4097));
        assert_eq!(Uri::parse(&long), Err(UriError::Export));
    }

    #[test]
    fn a_new_uri_is_read_back() {
        let socket = Transport::Unix(b"/run/a b&c?%/d#.sock".to_vec());
        for (transport, secure, export, text) in [
            (
                socket,
                false,
                "x y/ü?&",
                "nbd+unix:///x%20y/%C3%BC%3F%26?socket=/run/a%20b%26c%3F%25/d%23.sock",
            ),
            (
                Transport::Unix(b"s".to_vec()),
                true,
                "",
                "nbds+unix:///?socket=s",
            ),
            (tcp("::1", 10809), true, "disk", "nbds://[::1]:10809/disk"),
            (tcp("10.0.0.1", 1), false, "", "nbd://10.0.0.1:1/"),
        ] {
            let uri = Uri::new(transport, secure, export);
            assert_eq!(alloc::format!("{uri}"), text);
            assert_eq!(Uri::parse(text).unwrap(), uri);
        }
    }

    #[test]
    fn a_path_has_no_scheme() {
        for path in [
            "./nbd://x",
            "a/b://c",
            "disk.img",
            "://x",
            "1a://x",
            "-://x",
        ] {
            assert_eq!(scheme(path.as_bytes()), None, "{path}");
        }
        assert_eq!(scheme(b"nbd+unix:///\xff"), Some("nbd+unix"));
    }
}
