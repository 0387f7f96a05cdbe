//! Where the bytes of a disk are, as it is told on the command line: what luksmith opens itself, and what an emulator alone reaches.

use std::ffi::OsStr;
use std::fmt;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use luksmith_formats::nbd::uri::{self, Transport, Uri, UriError};

use crate::cli::args::Location;

/// How IMAGE may be written, for `--help`.
pub(super) const FORMS: &str = "nbd://HOST[:PORT]/NAME, nbd+unix:///NAME?socket=PATH, nbds://…, volume:POOL/NAME, rbd:POOL/IMAGE[@SNAPSHOT], \
                                iscsi://HOST[:PORT]/TARGET/LUN, http://HOST[:PORT]/PATH[?QUERY] or https://…";

/// A place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A file, a block device, or an export: luksmith can look at it.
    Here(Location),
    /// A volume of a pool.
    Volume { pool: String, volume: String },
    /// An image in Ceph.
    Rbd {
        image: String,
        snapshot: Option<String>,
    },
    /// What a server has.
    Server(Server),
}

/// Something on a server that luksmith does not speak to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) protocol: &'static str,
    pub(super) host: String,
    pub(super) port: Option<u16>,
    /// The target and unit, or the path.
    pub(super) name: String,
    pub(super) query: Option<String>,
    text: String,
}

/// Why a text names no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PlaceError {
    #[error(transparent)]
    Uri(#[from] UriError),
    #[error("a volume is volume:POOL/NAME")]
    Volume,
    #[error("an image in ceph is rbd:POOL/IMAGE, and @SNAPSHOT after it")]
    Rbd,
    #[error("a unit of an iscsi target is iscsi://HOST[:PORT]/TARGET/LUN")]
    Iscsi,
    #[error("the uri names no path")]
    NoPath,
}

impl Place {
    /// For an argument: `value_parser = Place::parser()`.
    pub(super) fn parser() -> Parser {
        Parser
    }

    pub(super) fn parse(text: &OsStr) -> Result<Self, PlaceError> {
        let Some(utf8) = text.to_str() else {
            return Ok(Self::Here(Location::parse(text)?));
        };
        if let Some(rest) = utf8.strip_prefix("volume:") {
            let (pool, volume) = rest.split_once('/').ok_or(PlaceError::Volume)?;
            if pool.is_empty() || volume.is_empty() || volume.contains('/') {
                return Err(PlaceError::Volume);
            }
            let (pool, volume) = (pool.to_owned(), volume.to_owned());
            return Ok(Self::Volume { pool, volume });
        }
        if let Some(rest) = utf8.strip_prefix("rbd:") {
            let (image, snapshot) = match rest.split_once('@') {
                Some((image, snapshot)) => (image, Some(snapshot.to_owned())),
                None => (rest, None),
            };
            let parts: Vec<&str> = image.split('/').collect();
            let whole = parts.len() >= 2 && parts.iter().all(|part| !part.is_empty());
            if !whole || snapshot.as_deref() == Some("") {
                return Err(PlaceError::Rbd);
            }
            let image = image.to_owned();
            return Ok(Self::Rbd { image, snapshot });
        }
        match uri::scheme(text.as_encoded_bytes()) {
            Some(scheme) if scheme.eq_ignore_ascii_case("iscsi") => server("iscsi", utf8),
            Some(scheme) if scheme.eq_ignore_ascii_case("http") => server("http", utf8),
            Some(scheme) if scheme.eq_ignore_ascii_case("https") => server("https", utf8),
            _ => Ok(Self::Here(Location::parse(text)?)),
        }
    }
}

/// Host, port and path are those of an NBD URI: RFC 3986 has one form for both.
fn server(protocol: &'static str, text: &str) -> Result<Place, PlaceError> {
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    let (place, query) = match rest.split_once('?') {
        Some((place, query)) => (place, Some(query.to_owned())),
        None => (rest, None),
    };
    let uri = Uri::parse(&format!("nbd://{place}"))?;
    let Transport::Tcp { host, port } = uri.transport else {
        return Err(UriError::NoHost.into());
    };
    let name = uri.export;
    if protocol == "iscsi" {
        let whole = name.rsplit_once('/').is_some_and(|(target, unit)| {
            !target.is_empty() && !unit.is_empty() && unit.bytes().all(|c| c.is_ascii_digit())
        });
        if !whole || query.is_some() {
            return Err(PlaceError::Iscsi);
        }
    } else if name.is_empty() {
        return Err(PlaceError::NoPath);
    }
    Ok(Place::Server(Server {
        protocol,
        host,
        port: names_port(place).then_some(port),
        name,
        query,
        text: text.to_owned(),
    }))
}

/// Whether an authority has a port of its own.
fn names_port(place: &str) -> bool {
    let authority = place.split('/').next().unwrap_or_default();
    let after = authority.rsplit(']').next().unwrap_or_default();
    after
        .split_once(':')
        .is_some_and(|(_, port)| !port.is_empty())
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(location) => location.fmt(f),
            Self::Volume { pool, volume } => write!(f, "volume:{pool}/{volume}"),
            Self::Rbd { image, snapshot } => {
                write!(f, "rbd:{image}")?;
                snapshot.iter().try_for_each(|name| write!(f, "@{name}"))
            }
            Self::Server(server) => f.write_str(&server.text),
        }
    }
}

/// Clap's own way would repeat the text, which may hold a password.
#[derive(Clone)]
pub(super) struct Parser;

impl TypedValueParser for Parser {
    type Value = Place;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Place, clap::Error> {
        Place::parse(value).map_err(|error| {
            let message = format!("IMAGE: {error}\n\n  tip: a file of that name is ./NAME\n\n");
            clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Place, PlaceError> {
        Place::parse(OsStr::new(text))
    }

    #[test]
    fn every_form_is_read_and_shown_as_it_was() {
        for text in [
            "disk.img",
            "./rbd:x",
            "nbd://host/x",
            "volume:default/a:b.luks",
            "rbd:pool/image",
            "rbd:pool/namespace/image@snap",
            "iscsi://host/iqn.2024-01.example:t/0",
            "https://[::1]:8443/a%20b?x=1",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        let Place::Server(server) = parse("https://[::1]:8443/a%20b?x=1").unwrap() else {
            panic!("a server");
        };
        assert_eq!((server.host.as_str(), server.port), ("::1", Some(8443)));
        assert_eq!(
            (server.name.as_str(), server.query.as_deref()),
            ("a b", Some("x=1"))
        );
        let Place::Server(server) = parse("iscsi://host/iqn:t/2").unwrap() else {
            panic!("a server");
        };
        assert_eq!((server.port, server.name.as_str()), (None, "iqn:t/2"));
    }

    #[test]
    fn what_is_incomplete_is_refused() {
        use PlaceError::{Iscsi, NoPath, Rbd, Volume};
        for (text, expected) in [
            ("volume:default", Volume),
            ("volume:/x", Volume),
            ("volume:a/b/c", Volume),
            ("rbd:image", Rbd),
            ("rbd:pool/", Rbd),
            ("rbd:pool/image@", Rbd),
            ("iscsi://host/target", Iscsi),
            ("iscsi://host/target/x", Iscsi),
            ("iscsi://host/target/0?x", Iscsi),
            ("http://host", NoPath),
            ("http://u:p@host/x", UriError::UserInfo.into()),
            ("http:///x", UriError::NoHost.into()),
            ("ftp://host/x", UriError::Scheme("ftp".to_owned()).into()),
        ] {
            assert_eq!(parse(text), Err(expected), "{text}");
        }
    }
}
