//! Where the server is, and the connection to it.

use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use crate::channel::{Channel, ClientTls, Socket};
use crate::helpers::failure::Failure;

/// The longest wait for a connection, and for each part of an answer.
const TIME: Duration = Duration::from_secs(10);

/// Where the server is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Address {
    Tls {
        host: String,
        port: u16,
        authorities: PathBuf,
    },
    /// Without TLS: only on this machine, since the token and the secrets are sent as they are.
    Here {
        host: String,
        port: u16,
    },
    Unix(PathBuf),
}

impl Address {
    pub(super) fn parse(text: &str, authorities: PathBuf) -> Result<Self, &'static str> {
        const FORM: &str = "address is https://HOST[:PORT], unix:/PATH, or http://localhost[:PORT]";
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.starts_with('/') {
                true => Ok(Self::Unix(path.into())),
                false => Err(FORM),
            };
        }
        let (tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(FORM),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| FORM)?),
            _ => (rest, 8200),
        };
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let name = bare.unwrap_or(host);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:".contains(&byte);
        if name.is_empty() || !name.bytes().all(plain) || (bare.is_none() && name.contains(':')) {
            return Err(FORM);
        }
        let host = name.to_owned();
        match tls {
            true => Ok(Self::Tls {
                host,
                port,
                authorities,
            }),
            false if ["localhost", "127.0.0.1", "::1"].contains(&name) => {
                Ok(Self::Here { host, port })
            }
            false => {
                Err("address: without TLS the token would be sent as it is; https:// protects it")
            }
        }
    }

    /// The value of the header `Host`.
    pub(super) fn host(&self) -> String {
        match self {
            Self::Tls { host, port, .. } | Self::Here { host, port } => match host.contains(':') {
                true => format!("[{host}]:{port}"),
                false => format!("{host}:{port}"),
            },
            Self::Unix(_) => "localhost".to_owned(),
        }
    }

    pub(super) fn connect(&self) -> Result<Channel, Failure> {
        let unreachable =
            |error: io::Error| Failure::unreachable(format!("{}: {error}", self.host()));
        let channel = match self {
            Self::Unix(path) => {
                let stream = UnixStream::connect(path);
                let stream = stream.map_err(|error| {
                    Failure::unreachable(format!("{}: {error}", path.display()))
                })?;
                Channel::plain(stream.into())
            }
            Self::Here { host, port } => {
                Channel::plain(connected(host, *port).map_err(unreachable)?.into())
            }
            Self::Tls {
                host,
                port,
                authorities,
            } => {
                let tls = ClientTls::from_files(authorities, None).map_err(Failure::other)?;
                let stream = connected(host, *port).map_err(unreachable)?;
                let channel =
                    Channel::connect_tls(Socket::from(stream), &tls.handshake_within(TIME), host);
                channel.map_err(|error| Failure::other(format!("{}: {error}", self.host())))?
            }
        };
        channel.set_timeout(Some(TIME)).map_err(unreachable)?;
        Ok(channel)
    }
}

/// Tries each address of the host.
fn connected(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::ErrorKind::NotFound.into();
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIME) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_elsewhere_is_reached_by_tls_only() {
        let parse = |text| Address::parse(text, PathBuf::from("/ca"));
        let host = |text| parse(text).map(|address| address.host());
        assert_eq!(host("https://vault.example").unwrap(), "vault.example:8200");
        assert_eq!(
            host("https://vault.example:443/").unwrap(),
            "vault.example:443"
        );
        assert_eq!(host("http://[::1]:80").unwrap(), "[::1]:80");
        assert_eq!(
            parse("unix:/run/a").unwrap(),
            Address::Unix("/run/a".into())
        );
        for text in [
            "",
            "vault",
            "unix:a",
            "https://",
            "https://a:b",
            "https://a/b",
            "https://u@a",
            "https://a\r\nb",
            "http://vault.example",
            "http://127.0.0.1.example",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
